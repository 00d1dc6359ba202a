package authserver

import (
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// Client is a registered OAuth client. Its name is a claim.
type Client struct {
	ID         string
	Name       string
	Redirects  []string
	Grants     []string
	AuthMethod string
	Source     string // how it became known: fromRegistration, fromDocument
	Approved   bool   // who runs this server vouches for it
	secretHash []byte
	fetched    int64 // when its document was last fetched, µs
}

// The ways a client can authenticate (RFC 7591 §2).
const (
	authNone  = "none"
	authPost  = "client_secret_post"
	authBasic = "client_secret_basic"
)

var authMethods = []string{authNone, authPost, authBasic}

// client is the client with an id, if there is one that may act now.
func (s *Server) client(tx *store.Tx, id string) (Client, bool, error) {
	c, found, err := s.row(tx, id)
	if err != nil || !found || !s.mayAct(c, tx.Now) {
		return Client{}, false, err
	}
	return c, true, nil
}

// row is what is kept of a client, whether it may act or not.
func (s *Server) row(tx *store.Tx, id string) (c Client, found bool, err error) {
	var redirects, grants string
	err = tx.QueryRow(`SELECT id, name, redirect_uris, grant_types, auth_method, secret_hash, source, fetched_at FROM client WHERE id = $1`, id).
		Scan(&c.ID, &c.Name, &redirects, &grants, &c.AuthMethod, &c.secretHash, &c.Source, &c.fetched)
	if errors.Is(err, sql.ErrNoRows) {
		return Client{}, false, nil
	}
	c.Redirects, c.Grants = strings.Split(redirects, "\n"), strings.Fields(grants)
	c.Approved = s.approved(c)
	return c, err == nil, err
}

// badClient is the one answer to a client that is unknown or does not
// authenticate: a program that gets it registers anew. Why goes to the record.
func badClient(why string) *oauth.Error {
	return oauth.Errorf(oauth.InvalidClient, "the client is unknown or its credentials are wrong; register again").Because(why)
}

// presented is what a client shows of itself.
type presented struct{ id, secret string }

// present reads what the client that posted the form shows of itself. It comes
// before the transaction in which authenticate judges it, because to look at what
// is signed takes time (R404, attack 43). A secret is accepted in the body or the
// header, whichever the client was told.
func (s *Server) present(r *http.Request, form url.Values) (presented, error) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
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
	return presented{id, secret}, s.renew(r.Context(), id)
}

// authenticate finds out which client presented that (attacks 41–44).
func (s *Server) authenticate(tx *store.Tx, p presented) (Client, error) {
	c, found, err := s.client(tx, p.id)
	if err != nil {
		return Client{}, err
	}
	if !found {
		return Client{}, badClient("there is no such client")
	}
	if !c.proves(p.secret) {
		return Client{}, badClient("its secret is wrong")
	}
	return c, nil
}

// proves reports whether the secret is the client's. A public client has none
// and must not present one.
func (c Client) proves(secret string) bool {
	if c.AuthMethod == authNone {
		return secret == ""
	}
	_, presented, ok := token.Parse("cs_", secret)
	return ok && presented.Matches(c.secretHash)
}
