package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// clockSkew is how far the clocks of two nodes may be apart.
const clockSkew = 30 * time.Second

// maxLength bounds a JWT before anything of it is parsed. Ours have about 700
// bytes.
const maxLength = 8 << 10

// Claims are those of an access token (RFC 9068, R408).
type Claims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	Expires   int64  `json:"exp"`
	NotBefore int64  `json:"nbf,omitempty"`
	Issued    int64  `json:"iat"`
	ID        string `json:"jti"`
	Client    string `json:"client_id"`
	Scope     string `json:"scope"`
	Workspace string `json:"workspace"`
	Family    string `json:"family"`

	Key string `json:"-"` // id of the key that signed it; set by Verify
}

// IDs are what a revocation of the token may name. A person is none of them: what
// a person allows after everything was revoked is good.
func (c Claims) IDs() []string { return []string{c.ID, c.Family, c.Client, c.Key} }

// For reports whether the token was made for this resource. A token without an
// audience is for none (R505).
func (c Claims) For(resource string) bool {
	return resource != "" && c.Audience == resource
}

// keys are the live ones: the oldest signs, the next waits and is published, so
// that whoever verifies knows it before it signs anything.
type keys struct {
	signer jose.Signer
	active string         // kid of the signer's key
	public map[string]any // kid → public key
	jwks   []byte
}

// liveKeys is how many there are.
const liveKeys = 2

// KeyID names the key that signs now.
func (t *Tokens) KeyID() string { return t.keys.Load().active }

// JWKS is the document of the public keys (R112).
func (t *Tokens) JWKS() []byte { return t.keys.Load().jwks }

// useKeys takes new keys instead of the old ones. Where one is gone, every stream
// ends and has to show its token again: which key signed it is not kept.
func (t *Tokens) useKeys(k *keys) {
	t.keys.Store(k)
	t.watches.endAll(errRevoked)
}

// signedBy reports whether one of our keys is among what was revoked.
func (t *Tokens) signedBy(found []revoked) bool {
	ours := t.keys.Load()
	return ours != nil && slices.ContainsFunc(found, func(f revoked) bool { return ours.public[f.id] != nil })
}

func (t *Tokens) mint(now time.Time, life time.Duration, f Family, scopes []string) (raw, id string, err error) {
	id = store.ID("at_")
	payload, err := json.Marshal(Claims{
		Issuer: t.Issuer, Subject: f.User, Audience: f.Resource, Client: f.Client,
		Issued: now.Unix(), Expires: now.Add(life).Unix(), ID: id,
		Scope: strings.Join(scopes, " "), Workspace: f.Workspace, Family: f.ID,
	})
	if err != nil {
		return "", "", err
	}
	signed, err := t.keys.Load().signer.Sign(payload)
	if err != nil {
		return "", "", err
	}
	raw, err = signed.CompactSerialize()
	return raw, id, err
}

// Signs reports whether tokens can be signed, and verify when they are.
func (t *Tokens) Signs() error {
	raw, _, err := t.mint(time.Now(), time.Minute, Family{}, nil)
	if err != nil {
		return err
	}
	_, key, err := t.headerKey(raw)
	if err != nil {
		return err
	}
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err == nil {
		_, err = signed.Verify(key)
	}
	return err
}

// ErrToken is why Verify refuses; its text is for the log.
type ErrToken string

func (e ErrToken) Error() string { return string(e) }

// Verify checks an access token's form, type, algorithm, key, signature, issuer
// and times, and that nothing it carries is revoked (R505). The audience is the
// caller's to check, with For. An error is an ErrToken, or Unknown where the fault
// is not the token's.
func (t *Tokens) Verify(raw string) (Claims, error) {
	kid, key, err := t.headerKey(raw)
	if err != nil {
		return Claims{}, err
	}
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, ErrToken("the token is no JWT signed with ES256")
	}
	payload, err := signed.Verify(key)
	if err != nil {
		return Claims{}, ErrToken("the signature does not match")
	}
	var c Claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return Claims{}, ErrToken("the claims cannot be read")
	}
	c.Key = kid
	if err := t.judge(c, time.Now()); err != nil {
		return Claims{}, err
	}
	if err := t.Live(c.IDs()...); err != nil {
		return Claims{}, err
	}
	return c, nil
}

// headerKey reads the header without trusting it. We sign with exactly three
// members; anything else (jku, jwk, x5u, crit …) is not ours.
func (t *Tokens) headerKey(raw string) (kid string, key crypto.PublicKey, err error) {
	head, _, found := strings.Cut(raw, ".")
	if len(raw) > maxLength || !found || strings.Count(raw, ".") != 2 {
		return "", nil, ErrToken("the token is too long or no JWT")
	}
	plain, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return "", nil, ErrToken("the header cannot be read")
	}
	var h map[string]string
	if err := json.Unmarshal(plain, &h); err != nil || len(h) != 3 {
		return "", nil, ErrToken("the header is not one of ours")
	}
	key, known := t.keys.Load().public[h["kid"]]
	if !known || h["typ"] != "at+jwt" || h["alg"] != string(jose.ES256) {
		return "", nil, ErrToken("the type, the algorithm or the key is not one of ours")
	}
	return h["kid"], key, nil
}

func (t *Tokens) judge(c Claims, now time.Time) error {
	soon := now.Add(clockSkew).Unix()
	switch {
	case c.Issuer != t.Issuer || t.Issuer == "":
		return ErrToken("the issuer is another")
	case c.Expires == 0 || now.Unix() >= c.Expires:
		return ErrToken("the token has expired")
	case c.NotBefore > soon || c.Issued > soon || c.Issued == 0:
		return ErrToken("the token is from the future")
	case c.Expires > c.Issued+int64(AccessLife/time.Second): // it would outlive what is known of revocations
		return ErrToken("the token lives longer than any of ours")
	case c.Subject == "" || c.ID == "" || c.Client == "" || c.Family == "" || c.Workspace == "":
		return ErrToken("the token names no subject, client, family, workspace or id")
	}
	return nil
}

var keyUnreadable = problem.Code{
	Name: "SIGNING_KEY_UNREADABLE", Kind: problem.Unavailable,
	Why: "the master key is not the one with which the signing key was sealed",
	Fix: "use the master key file that belongs to this database",
}

// openKeys makes the first keys if there are none, and loads all.
func (t *Tokens) openKeys(ctx context.Context) error {
	if err := t.DB.Do(ctx, t.makeKeys); err != nil {
		return fmt.Errorf("make the signing keys: %w", err)
	}
	return t.DB.View(ctx, func(tx *store.Tx) error {
		loaded, err := t.readKeys(tx)
		t.keys.Store(loaded)
		return err
	})
}

// makeKeys fills up the live keys; where nodes start together, one makes them.
func (t *Tokens) makeKeys(tx *store.Tx) error {
	var live, last int64
	err := tx.QueryRow(`SELECT count(*) - count(revoked_at), COALESCE(max(generation), 0) FROM signing_key`).Scan(&live, &last)
	for ; err == nil && live < liveKeys; live++ {
		last++
		err = t.makeKey(tx, last)
	}
	return err
}

func (t *Tokens) makeKey(tx *store.Tx, generation int64) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	jwk := jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.ES256), Use: "sig"}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	public, err := jwk.MarshalJSON()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	sealed, err := t.Box.Seal("signing_key/"+jwk.KeyID+"/private", der)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO signing_key (generation, kid, alg, public, private, created_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, generation, jwk.KeyID, jwk.Algorithm, string(public), sealed, tx.Now)
	return err
}

func (t *Tokens) readKeys(tx *store.Tx) (*keys, error) {
	rows, err := tx.Query(`SELECT kid, public, private FROM signing_key WHERE revoked_at IS NULL ORDER BY generation`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	loaded, set := keys{public: map[string]any{}}, jose.JSONWebKeySet{}
	for rows.Next() {
		var kid, public string
		var sealed []byte
		if err := rows.Scan(&kid, &public, &sealed); err != nil {
			return nil, err
		}
		var jwk jose.JSONWebKey
		if err := jwk.UnmarshalJSON([]byte(public)); err != nil {
			return nil, err
		}
		signer, err := t.signer(kid, sealed)
		if err != nil {
			return nil, err
		}
		if loaded.signer == nil {
			loaded.signer, loaded.active = signer, kid
		}
		loaded.public[kid], set.Keys = jwk.Key, append(set.Keys, jwk)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if loaded.signer == nil {
		return nil, errors.New("there is no signing key")
	}
	loaded.jwks, err = json.Marshal(set)
	return &loaded, err
}

func (t *Tokens) signer(kid string, sealed []byte) (jose.Signer, error) {
	der, err := t.Box.Open("signing_key/"+kid+"/private", sealed)
	if err != nil {
		return nil, keyUnreadable.New("the signing key cannot be read").Because(err)
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the signing key is damaged")
	}
	return jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: kid}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
}
