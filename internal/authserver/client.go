package authserver

import (
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// Client is a registered OAuth client. Its name is a claim.
type Client struct {
	ID         string
	Name       string
	Redirects  []string
	Grants     []string
	AuthMethod string
	Bound      bool   // it gets no token without a DPoP proof (RFC 9449 §5.2)
	PushedOnly bool   // it begins with a pushed request only (RFC 9126 §6)
	Source     string // how it became known: fromRegistration, fromDocument, fromAdmin, fromFile
	Approved   bool   // who runs this server vouches for it
	secretHash []byte
	fetched    int64  // when its document was last fetched, µs
	blocked    bool   // it may do nothing
	why        string // it is blocked; may be empty

	key     string                   // thumbprint of the key that it proves to have with this request; empty if none (RFC 9449)
	keys    keys                     // public ones of a client that signs
	service *identity.ServiceAccount // if it is one
	brought *brought                 // what it has along that others signed
}

// The ways a client can authenticate (RFC 7591 §2).
const (
	authNone  = "none"
	authPost  = "client_secret_post"
	authBasic = "client_secret_basic"
	authKey   = "private_key_jwt"
)

var authMethods = []string{authNone, authPost, authBasic, authKey}

// client is the client with an id, if there is one that may act now.
func (s *Server) client(tx *store.Tx, id string) (Client, bool, error) {
	if principal.KindOf(id) == principal.ServiceAccount {
		return s.serviceClient(tx, id)
	}
	c, found, err := s.row(tx, id)
	if err != nil || !found || !s.mayAct(c, tx.Now) {
		return Client{}, false, err
	}
	return c, true, nil
}

// row is what is kept of a client, whether it may act or not.
func (s *Server) row(tx *store.Tx, id string) (c Client, found bool, err error) {
	var redirects, grants, metadata string
	err = tx.QueryRow(`SELECT id, name, redirect_uris, grant_types, auth_method, dpop_bound, pushed_only, secret_hash, source, fetched_at,
			CASE WHEN auth_method = 'private_key_jwt' THEN metadata ELSE '' END,
			approved_at IS NOT NULL, blocked_at IS NOT NULL, blocked_reason FROM client WHERE id = $1`, id).
		Scan(&c.ID, &c.Name, &redirects, &grants, &c.AuthMethod, &c.Bound, &c.PushedOnly, &c.secretHash, &c.Source, &c.fetched, &metadata,
			&c.Approved, &c.blocked, &c.why)
	if errors.Is(err, sql.ErrNoRows) {
		return Client{}, false, nil
	}
	if err == nil && metadata != "" {
		c.keys, err = keysIn(metadata)
	}
	c.Redirects, c.Grants = strings.Split(redirects, "\n"), strings.Fields(grants)
	c.Approved = c.Approved || s.pinned(c)
	return c, err == nil, err
}

// keys are those of a client: as a JWK Set, or where that is.
type keys struct{ set, at string }

// keysIn are the keys of a registration.
func keysIn(metadata string) (keys, error) {
	var r oauth.Registration
	err := json.Unmarshal([]byte(metadata), &r)
	return keys{string(r.JWKS), r.JWKSURI}, err
}

// serviceClient is a service account as the client that it is: it acts for itself,
// and proves itself with its secret, in either place, or with its key.
func (s *Server) serviceClient(tx *store.Tx, id string) (Client, bool, error) {
	a, found, err := s.People.ServiceClient(tx, id)
	if err != nil || !found {
		return Client{}, false, err
	}
	c := Client{
		ID: a.ID, Name: a.Name, Grants: []string{grantOwn, grantExchange, grantBearer}, AuthMethod: authPost, Source: fromOperator, Approved: true,
		secretHash: a.SecretHash, keys: keys{set: a.Keys}, service: &a,
	}
	if a.Keys != "" {
		c.AuthMethod = authKey
	}
	return c, true, nil
}

// badClient is the one answer to a client that is unknown or does not
// authenticate: a program that gets it registers anew. Why goes to the record.
func badClient(why string) *oauth.Error {
	return oauth.Errorf(oauth.InvalidClient, "the client is unknown or its credentials are wrong; register again").Because(why)
}

// presented is what a client shows of itself: a secret, something that it signed,
// or nothing.
type presented struct {
	id, secret string
	signed     *assertion
	proof      oauth.Proof // of a key, by a client that uses DPoP
	brought    *brought    // what others signed, beside it or, for a workload, in place of it
}

// present reads what the client that posted the form shows of itself. It comes
// before the transaction in which authenticate judges it, because to look at what
// is signed takes time (R404, attack 43). A secret is accepted in the body or the
// header, whichever the client was told.
func (s *Server) present(r *http.Request, form url.Values) (presented, error) {
	id, secret, from := form.Get("client_id"), form.Get("client_secret"), throttle.Address(r.RemoteAddr)
	if form.Get("client_assertion") != "" {
		if secret != "" || r.Header.Get("Authorization") != "" {
			return presented{}, oauth.Errorf(oauth.InvalidRequest, "the client authenticates in two ways at once")
		}
		signed, err := s.signedBy(r.Context(), from, form)
		if err != nil {
			return presented{}, err
		}
		return presented{id: signed.Issuer, signed: signed}, nil
	}
	if user, password, basic := r.BasicAuth(); basic {
		if secret != "" || len(r.Header.Values("Authorization")) > 1 {
			return presented{}, oauth.Errorf(oauth.InvalidRequest, "the client authenticates in two ways at once")
		}
		user, err1 := url.QueryUnescape(user)
		password, err2 := url.QueryUnescape(password)
		if err1 != nil || err2 != nil || !oauth.Readable(user) || (id != "" && id != user) {
			return presented{}, badClient("its header cannot be read, or the body names another client")
		}
		id, secret = user, password
	} else if r.Header.Get("Authorization") != "" {
		return presented{}, badClient("its header is not Basic")
	}
	return presented{id: id, secret: secret}, s.renew(r.Context(), from, id)
}

// authenticate finds out which client presented that (attacks 41–44).
func (s *Server) authenticate(tx *store.Tx, p presented) (Client, error) {
	c, found, err := s.workload(tx, p)
	if found || err != nil {
		c.brought = p.brought
		return c, err
	}
	if c, found, err = s.client(tx, p.id); err != nil {
		return Client{}, err
	}
	c.brought = p.brought
	if !found {
		return Client{}, badClient("there is no such client")
	}
	switch {
	case p.signed != nil:
		return c, c.signs(tx, *p.signed)
	case c.AuthMethod == authKey:
		return Client{}, badClient("it has to sign, and did not")
	case !c.proves(p.secret):
		return Client{}, badClient("its secret is wrong")
	}
	return c, nil
}

// signs uses up what a client signed. Meanwhile it may have got other keys, or have
// been there before with the same (attack 46).
func (c Client) signs(tx *store.Tx, a assertion) error {
	if c.AuthMethod != authKey || c.keys != a.keys {
		return badClient("its keys are others now")
	}
	first, err := spend(tx, a.Claims)
	if err == nil && !first {
		err = badClient("its assertion was used before")
	}
	return err
}

// proves reports whether the secret is the client's. A public client has none
// and must not present one.
func (c Client) proves(secret string) bool {
	switch c.AuthMethod {
	case authNone:
		return secret == ""
	case authKey:
		return false
	}
	if c.Source == fromFile { // which has any text of enough length
		return token.Presented(wholeHash(secret)).Matches(c.secretHash)
	}
	_, presented, ok := token.Parse("cs_", secret)
	return ok && presented.Matches(c.secretHash)
}
