package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"sync"
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
	keys keys // of the client, by one of which it was verified
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
func (s *Server) signedBy(ctx context.Context, from string, form url.Values) (*assertion, error) {
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
	c, found, err := s.signer(ctx, from, signed.Issuer)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, badClient("there is no such client")
	case c.AuthMethod != authKey:
		return nil, badClient("it signs, and did not register for that")
	}
	keys, err := s.keysOf(ctx, c, signed)
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

// signer is the client that says it signed. One whose document nobody has seen yet
// is met here, because its keys are in there.
func (s *Server) signer(ctx context.Context, from, id string) (c Client, found bool, err error) {
	look := func(tx *store.Tx) (err error) { c, found, err = s.client(tx, id); return err }
	if err := s.renew(ctx, from, id); err != nil {
		return c, false, err
	}
	if err := s.DB.View(ctx, look); err != nil || found || !oauth.IsDocument(id) {
		return c, found, err
	}
	if err := s.introduced(ctx, from, id); err != nil {
		return c, false, err
	}
	return c, found, s.DB.View(ctx, look)
}

// keysOf are the public keys with which to verify what a client signed.
func (s *Server) keysOf(ctx context.Context, c Client, signed jwks.JWT) (jwks.Set, error) {
	if c.keys.at == "" {
		return jwks.Parse([]byte(c.keys.set))
	}
	set, err := s.sources.at(c.keys.at, s.fetchKeys).For(ctx, signed)
	if err != nil {
		return set, oauth.Errorf(oauth.TemporarilyUnavailable, "the keys at jwks_uri cannot be had; try again later").Because("its keys cannot be had")
	}
	return set, nil
}

// fetchKeys fetches the keys of a client from where it said: an address of a
// stranger, like that of a document.
func (s *Server) fetchKeys(ctx context.Context, at string) ([]byte, error) {
	free, err := slot(ctx, s.keySlots)
	if err != nil {
		return nil, err
	}
	defer free()
	body, _, err := s.Outbound.JSON(ctx, at, jwks.MaxBytes, documentTime)
	return body, err
}

// maxSources bounds how many addresses of keys are remembered.
const maxSources = 1000

// sources are where clients have their keys, by address.
type sources struct {
	mu sync.Mutex
	m  map[string]*jwks.Source
}

func (s *sources) at(address string, fetch func(context.Context, string) ([]byte, error)) *jwks.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= maxSources {
		s.m = map[string]*jwks.Source{}
	}
	if s.m[address] == nil {
		s.m[address] = &jwks.Source{Fetch: func(ctx context.Context) ([]byte, error) { return fetch(ctx, address) }}
	}
	return s.m[address]
}
