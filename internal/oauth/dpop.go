package oauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	strictjson "github.com/go-json-experiment/json"
)

// ProofAlgorithms are how a DPoP proof may be signed (RFC 9449 §5.1). Every one is
// asymmetric.
var ProofAlgorithms = []string{string(jose.ES256), string(jose.EdDSA), string(jose.PS256), string(jose.RS256)}

// ProofAge is how far the time of a DPoP proof may be from ours, either way.
const ProofAge = 5 * time.Minute

// maxProof bounds a DPoP proof before anything of it is parsed, in bytes. Most have
// 500, those of long RSA keys some times as many.
const maxProof = 8 << 10

// Proof is a DPoP proof whose signature is good (RFC 9449 §4.2): whoever sent it has
// the key. What it proves depends on the rest, which Judge and For look at.
type Proof struct {
	Key     string // thumbprint of the key that signed it (RFC 7638, SHA-256)
	ID      string
	Method  string
	Address string
	Issued  int64 // seconds since 1970
	Nonce   string
	token   string // hash of the access token that it goes with
}

// proofHeader is what is read of the header of a proof. Other members that name
// keys are not among it.
type proofHeader struct {
	Type string          `json:"typ"`
	Alg  string          `json:"alg"`
	Key  json.RawMessage `json:"jwk"`
	Crit json.RawMessage `json:"crit"`
}

type proofClaims struct {
	ID      string  `json:"jti"`
	Method  string  `json:"htm"`
	Address string  `json:"htu"`
	Issued  float64 `json:"iat"`
	Nonce   string  `json:"nonce"`
	Token   string  `json:"ath"`
}

// ParseProof reads the DPoP headers of a request, of which there must be one, and
// verifies the signature with the key that the proof brings along. An error says
// for the log what is wrong.
func ParseProof(headers []string) (Proof, error) {
	if len(headers) != 1 || len(headers[0]) > maxProof {
		return Proof{}, errors.New("there is no DPoP proof, more than one, or a very long one")
	}
	parts := strings.SplitN(headers[0], ".", 4)
	var h proofHeader
	if len(parts) != 3 || !decodePart(parts[0], &h) {
		return Proof{}, errors.New("the DPoP proof is no JWT with the header of one")
	}
	if h.Type != "dpop+jwt" || !slices.Contains(ProofAlgorithms, h.Alg) || h.Crit != nil {
		return Proof{}, errors.New("the type or the algorithm of the DPoP proof is not accepted")
	}
	key, ok := proofKey(h.Key, jose.SignatureAlgorithm(h.Alg))
	if !ok {
		return Proof{}, errors.New("the key of the DPoP proof is not a public one for its algorithm")
	}
	signed, err := jose.ParseSignedCompact(headers[0], []jose.SignatureAlgorithm{jose.SignatureAlgorithm(h.Alg)})
	if err != nil {
		return Proof{}, errors.New("the DPoP proof is no signed JWT")
	}
	payload, err := signed.Verify(key.Key)
	if err != nil {
		return Proof{}, errors.New("the signature of the DPoP proof does not match")
	}
	var c proofClaims
	if strictjson.Unmarshal(payload, &c) != nil || c.ID == "" || len(c.ID) > 256 || c.Method == "" || c.Address == "" || c.Issued < 1 || c.Issued > 1<<40 {
		return Proof{}, errors.New("the claims of the DPoP proof are not complete")
	}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return Proof{}, errors.New("the key of the DPoP proof has no thumbprint")
	}
	return Proof{
		Key: base64.RawURLEncoding.EncodeToString(thumbprint), ID: c.ID, Method: c.Method, Address: c.Address,
		Issued: int64(c.Issued), Nonce: c.Nonce, token: c.Token,
	}, nil
}

// decodePart reads a part of a JWT strictly: a member that is there twice could be
// read as another by somebody else.
func decodePart(part string, into any) bool {
	plain, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && strictjson.Unmarshal(plain, into) == nil
}

// proofKey is the public key that a proof brings along, if it verifies by alg. A
// private or a symmetric one verifies nothing: its sender gave a secret away.
func proofKey(raw json.RawMessage, alg jose.SignatureAlgorithm) (key jose.JSONWebKey, ok bool) {
	if key.UnmarshalJSON(raw) != nil || len(key.Certificates) > 0 {
		return key, false
	}
	switch k := key.Key.(type) {
	case *ecdsa.PublicKey:
		return key, k.Curve == elliptic.P256() && alg == jose.ES256
	case ed25519.PublicKey:
		return key, alg == jose.EdDSA
	case *rsa.PublicKey:
		return key, k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192 && (alg == jose.RS256 || alg == jose.PS256)
	}
	return key, false
}

// Judge says what is wrong with a proof for a request to an address: it is for one
// method, one address whatever its query, and new.
func (p Proof) Judge(method, address string, now time.Time) error {
	age := now.Unix() - p.Issued
	switch limit := int64(ProofAge / time.Second); {
	case p.Method != method:
		return errors.New("the DPoP proof is for another method")
	case !sameAddress(p.Address, address):
		return errors.New("the DPoP proof is for another address")
	case age > limit || age < -limit:
		return errors.New("the DPoP proof is not from now")
	}
	return nil
}

// For reports whether the proof goes with this access token.
func (p Proof) For(access string) bool {
	sum := sha256.Sum256([]byte(access))
	return subtle.ConstantTimeCompare([]byte(p.token), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) == 1
}

// Mark tells proofs apart (RFC 9449 §11.1): the same one makes the same mark
// wherever it is shown.
func (p Proof) Mark() string {
	sum := sha256.Sum256([]byte(p.Key + "\x00" + p.Address + "\x00" + p.ID))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sameAddress compares what a proof says with the address that was asked, both
// without query and fragment, normalized by syntax and scheme (RFC 9449 §4.3).
func sameAddress(claimed, asked string) bool {
	a, okA := normalized(claimed)
	b, okB := normalized(asked)
	return okA && okB && a == b
}

func normalized(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Hostname() == "" || u.Opaque != "" {
		return "", false
	}
	scheme, host, path := strings.ToLower(u.Scheme), strings.ToLower(u.Host), u.EscapedPath()
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[scheme])
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path, true
}

// IsThumbprint reports whether text has the form of one (RFC 7638, SHA-256).
func IsThumbprint(text string) bool { return len(text) == challengeLen && only(text, isBase64URL) }

// ProofChallenge is the WWW-Authenticate header that asks for a DPoP proof (RFC 9449
// §7.1). Empty members are left out.
type ProofChallenge struct {
	Error            string
	Description      string
	ResourceMetadata string
}

// String is the value of the header.
func (c ProofChallenge) String() string {
	return challenge("DPoP", []parameter{
		{"error", c.Error}, {"error_description", c.Description}, {"algs", strings.Join(ProofAlgorithms, " ")}, {"resource_metadata", c.ResourceMetadata},
	})
}
