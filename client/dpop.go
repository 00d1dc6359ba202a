package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Names of RFC 9449.
const (
	proofHeader   = "DPoP"
	proofScheme   = "DPoP"
	nonceHeader   = "DPoP-Nonce"
	useProofNonce = "use_dpop_nonce"
	proofAlg      = "ES256"
)

// bind decides whether the tokens of a sign-in are bound to a key, so that whoever
// sees one on its way cannot use it (DPoP, RFC 9449): where the server takes such
// tokens and its issuer makes them.
func (s *site) bind(prm oauth.ResourceMetadata, ch oauth.AuthChallenge) {
	takes := prm.ProofRequired || slices.Contains(prm.ProofAlgs, proofAlg) || ch.Scheme == "dpop"
	s.bound = takes && slices.Contains(s.as.ProofAlgs, proofAlg)
}

// newKey makes the key of one sign-in. It is kept beside its tokens.
func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// prove signs that one request is ours. token is empty where there is none yet.
func (c *Client) prove(key []byte, req *http.Request, token string) error {
	cannot := signInFailed.fail("can't prove that the token is ours")
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return cannot.because(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: proofAlg, Key: parsed}, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		return cannot.because(err)
	}
	at := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path, RawPath: req.URL.RawPath}
	claims := map[string]any{"jti": rand.Text(), "htm": req.Method, "htu": at.String(), "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if nonce := c.nonce(req.URL); nonce != "" {
		claims["nonce"] = nonce
	}
	proof, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return cannot.because(err)
	}
	req.Header.Set(proofHeader, proof)
	return nil
}

// nonce is what a server wants to see in the next proof; empty if it wants nothing.
func (c *Client) nonce(u *url.URL) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nonces[origin(u)]
}

// noteNonce remembers the nonce of an answer. It reports whether the request should
// be sent again because of it.
func (c *Client) noteNonce(req *http.Request, header http.Header, refusal string) bool {
	nonce := header.Get(nonceHeader)
	if nonce == "" || req.Header.Get(proofHeader) == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	again := refusal == useProofNonce && c.nonces[origin(req.URL)] != nonce
	c.nonces[origin(req.URL)] = nonce
	return again
}

// show puts the token of a login into a request, with a proof if it is bound to a
// key.
func (c *Client) show(req *http.Request, l login) error {
	if l.Key == nil {
		req.Header.Set("Authorization", "Bearer "+l.AccessToken)
		return nil
	}
	req.Header.Set("Authorization", proofScheme+" "+l.AccessToken)
	return c.prove(l.Key, req, l.AccessToken)
}
