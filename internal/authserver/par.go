package authserver

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// PushedLife is how long a pushed request waits for its browser: long enough for a
// person to carry the address to another computer.
const PushedLife = 5 * time.Minute

// pushedPrefix begins the reference to a pushed request; what follows is unguessable.
const pushedPrefix = "urn:ietf:params:oauth:request_uri:"

var pushedUnknown = problem.Code{
	Name: "PUSHED_REQUEST_UNKNOWN", Kind: problem.Invalid,
	Why: "it was opened before, is older than five minutes, or belongs to another app",
	Fix: "start again in the app",
}

// proofs are what a client proves itself with. None of it is kept.
var proofs = []string{"client_secret", "client_assertion", "client_assertion_type"}

// push is RFC 9126: a client that proves who it is leaves an authorization request
// here and gets a reference for the browser. It is judged as at the authorization
// endpoint, so that the client hears of a fault before a person is bothered.
func (s *Server) push(w http.ResponseWriter, r *http.Request, _ string) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	if form.Get("request_uri") != "" {
		return oauth.Errorf(oauth.InvalidRequest, "a pushed request cannot refer to another one")
	}
	shown, err := s.present(r, form)
	if err != nil {
		return err
	}
	if err := s.introduced(r.Context(), throttle.Address(r.RemoteAddr), shown.id); err != nil {
		return err
	}
	if err := s.mayBegin(r, authn.Browser{}, shown.id); err != nil {
		return err
	}
	proof, err := s.keyProof(r)
	if err != nil {
		return err
	}
	if fault := bindCode(form, proof.Key); fault != nil {
		return fault
	}
	handle := token.NewSplit("par_")
	err = s.DB.Do(r.Context(), func(tx *store.Tx) error {
		c, err := s.authenticate(tx, shown)
		if err != nil {
			return err
		}
		query, fault := s.pushable(c, form)
		if fault != nil {
			return fault
		}
		_, err = tx.Exec(`INSERT INTO pushed_request (id, hash, client, query, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			handle.ID, handle.Hash, c.ID, query, tx.Now, tx.Now+PushedLife.Microseconds())
		if err != nil {
			return err
		}
		return s.spend(tx, proof)
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusCreated, oauth.PushedResponse{RequestURI: pushedPrefix + handle.Token, ExpiresIn: int64(PushedLife / time.Second)})
	return nil
}

// bindCode binds the code to the key that the client proved to have when it pushed
// the request, as if it had sent dpop_jkt (RFC 9449 §10.1).
func bindCode(form url.Values, key string) *oauth.Error {
	asked := form.Get("dpop_jkt")
	if key == "" || asked == key {
		return nil
	}
	if asked != "" {
		return oauth.Errorf(oauth.InvalidRequest, "dpop_jkt and the DPoP proof name different keys")
	}
	form.Set("dpop_jkt", key)
	return nil
}

// pushable is the request as it is kept, if nothing is wrong with it.
func (s *Server) pushable(c Client, form url.Values) (string, *oauth.Error) {
	form.Set("client_id", c.ID)
	for _, proof := range proofs {
		form.Del(proof)
	}
	query := form.Encode()
	if len(query) > maxAuthorizeURL {
		fault := oauth.Errorf(oauth.InvalidRequest, "the request has more than %d bytes", maxAuthorizeURL)
		fault.Status = http.StatusRequestEntityTooLarge
		return "", fault
	}
	req, fault := oauth.ParseAuthorize(form)
	if fault == nil && !s.mayAnswerAt(c, req.RedirectURI) {
		fault = oauth.Errorf(oauth.InvalidRequest, "the client did not register this redirect_uri")
	}
	if fault == nil {
		fault = s.ask(&flow{Client: c}, req, grantCode)
	}
	return query, fault
}

// pushed spends the request that a browser refers to, and is what its client pushed:
// nothing that the browser brings besides counts. Only the client that pushed it is
// answered (attack 17).
func (s *Server) pushed(ctx context.Context, client, reference string) (url.Values, error) {
	unknown := pushedUnknown.New("the app's request is not there")
	id, presented, ok := token.Parse("par_", reference)
	if !ok || !oauth.Readable(client) {
		return nil, unknown
	}
	var query string
	err := s.DB.Do(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`UPDATE pushed_request SET used_at = $1 WHERE id = $2 AND hash = $3 AND client = $4 AND used_at IS NULL AND expires_at > $1
			RETURNING query`, tx.Now, id, []byte(presented), client).Scan(&query)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, unknown
	}
	if err != nil {
		return nil, err
	}
	return url.ParseQuery(query)
}
