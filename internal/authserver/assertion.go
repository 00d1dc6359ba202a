package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// assertionType is the one client_assertion_type there is (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// proofLife is how long an assertion that a client signs in place of showing a secret
// may live: it is for one request.
const proofLife = 5 * time.Minute

// assertion is what a client signed, verified and judged.
type assertion struct {
	jwks.Claims
	keys string // of the client, by one of which it was verified
}

// spend uses something signed up, on every node, and reports whether this was the
// first time. It is remembered for as long as it could come back.
func spend(tx *store.Tx, c jwks.Claims) (first bool, err error) {
	sum := sha256.Sum256([]byte(c.Issuer + "\n" + c.ID))
	return tx.One(`INSERT INTO used_assertion (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
		base64.RawURLEncoding.EncodeToString(sum[:]), time.Unix(c.Expires, 0).Add(jwks.Skew+time.Second).UnixMicro())
}

// signedBy reads and verifies what a client signed to prove itself (RFC 7523 §2.2
// and §3, attack 45). It takes time, so it comes before any transaction.
func (s *Server) signedBy(ctx context.Context, form url.Values) (*assertion, error) {
	if form.Get("client_assertion_type") != assertionType {
		return nil, oauth.Errorf(oauth.InvalidRequest, "client_assertion_type must be %s", assertionType)
	}
	signed, err := jwks.Read(form.Get("client_assertion"))
	if err != nil {
		return nil, badClient("its assertion cannot be read: " + err.Error())
	}
	if named := form.Get("client_id"); !oauth.Readable(signed.Issuer) || named != "" && named != signed.Issuer {
		return nil, badClient("the body names another client than its assertion")
	}
	var c Client
	var found bool
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		c, found, err = s.client(tx, signed.Issuer)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, badClient("there is no such client")
	case c.AuthMethod != authKey:
		return nil, badClient("it signs, and did not register for that")
	}
	keys, err := s.keysOf(c)
	if err != nil {
		return nil, err
	}
	claims, err := s.proof(signed, keys)
	if err != nil {
		return nil, badClient("its assertion is not good: " + err.Error())
	}
	return &assertion{claims, c.keys}, nil
}

// proof judges an assertion of a client about itself: for us alone, for a few
// minutes, with an id. An error is for the record.
func (s *Server) proof(signed jwks.JWT, keys jwks.Set) (jwks.Claims, error) {
	if !slices.Contains([]string{"", "jwt", "client-authentication+jwt"}, signed.Type) {
		return jwks.Claims{}, errors.New("its type is another")
	}
	c, err := signed.Verify(keys)
	switch {
	case err != nil:
		return c, err
	case c.Subject != c.Issuer:
		return c, errors.New("it is about another client")
	case !c.Only(s.Issuer):
		return c, errors.New("its audience is not this issuer alone")
	case c.ID == "":
		return c, errors.New("it has no id")
	}
	return c, c.Judge(time.Now(), proofLife)
}

// keysOf are the public keys of a client that signs.
func (s *Server) keysOf(c Client) (jwks.Set, error) { return jwks.Parse([]byte(c.keys)) }
