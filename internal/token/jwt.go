package token

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
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
	Handle    string `json:"public_token,omitempty"` // R410

	Confirm *oauth.Confirmation `json:"cnf,omitempty"` // the key that whoever shows the token must have

	Key string `json:"-"` // id of the key that signed it; set by Verify
}

// BoundTo is the thumbprint of the key that whoever shows the token must have, and
// whether there must be one (RFC 9449 §6). A token that is bound in a way that is
// not known here is bound to no key that anybody has.
func (c Claims) BoundTo() (key string, bound bool) {
	if c.Confirm == nil {
		return "", false
	}
	return c.Confirm.Key, true
}

func confirm(key string) *oauth.Confirmation {
	if key == "" {
		return nil
	}
	return &oauth.Confirmation{Key: key}
}

// IDs are what a revocation of the token may name. A person is none of them: what
// a person allows after everything was revoked is good.
func (c Claims) IDs() []string { return []string{c.ID, c.Family, c.Client, c.Key} }

// For reports whether the token was made for this resource. A token without an
// audience is for none (R505).
func (c Claims) For(resource string) bool {
	return resource != "" && c.Audience == resource
}

func (t *Tokens) mint(now time.Time, life time.Duration, f Family, scopes []string) (raw, id string, err error) {
	id = store.ID("at_")
	payload, err := json.Marshal(Claims{
		Issuer: t.Issuer, Subject: f.User, Audience: f.Resource, Client: f.Client,
		Issued: now.Unix(), Expires: now.Add(life).Unix(), ID: id,
		Scope: strings.Join(scopes, " "), Workspace: f.Workspace, Family: f.ID, Handle: f.handle, Confirm: confirm(f.Key),
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
	_, _, err = t.payload(raw)
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
	kid, payload, err := t.payload(raw)
	if err != nil {
		return Claims{}, err
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

// payload is what one of our keys signed.
func (t *Tokens) payload(raw string) (kid string, payload []byte, err error) {
	kid, key, err := t.headerKey(raw)
	if err != nil {
		return "", nil, err
	}
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{key.alg})
	if err != nil {
		return "", nil, ErrToken("the token is no JWT that is signed as its key signs")
	}
	if payload, err = signed.Verify(key.key); err != nil {
		return "", nil, ErrToken("the signature does not match")
	}
	return kid, payload, nil
}

// headerKey reads the header without trusting it. We sign with exactly three
// members; anything else (jku, jwk, x5u, crit …) is not ours.
func (t *Tokens) headerKey(raw string) (kid string, key publicKey, err error) {
	head, _, found := strings.Cut(raw, ".")
	if len(raw) > maxLength || !found || strings.Count(raw, ".") != 2 {
		return "", publicKey{}, ErrToken("the token is too long or no JWT")
	}
	plain, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return "", publicKey{}, ErrToken("the header cannot be read")
	}
	var h map[string]string
	if err := json.Unmarshal(plain, &h); err != nil || len(h) != 3 {
		return "", publicKey{}, ErrToken("the header is not one of ours")
	}
	key, known := t.keys.Load().public[h["kid"]]
	if !known || h["typ"] != "at+jwt" || h["alg"] != string(key.alg) { // the key says how it signs
		return "", publicKey{}, ErrToken("the type, the algorithm or the key is not one of ours")
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
