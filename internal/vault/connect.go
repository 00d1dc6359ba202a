package vault

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// DepartureLife is how long a person may take at a provider.
const DepartureLife = 10 * time.Minute

// A Departure is a browser about to be sent to a provider.
type Departure struct {
	URL string      // where it goes
	Key token.Split // what it is given, so that it alone can come back
}

// Begin prepares the way of a person's browser to a provider: state and verifier
// are made for this once (R551). flow is the authorization that waits for it, and
// empty where none does.
func (v *Vault) Begin(ctx context.Context, p principal.Principal, name, flow string) (Departure, error) {
	if !v.Known(name) {
		return Departure{}, ConnectionUnknown.New("there is no connection %.40q", name)
	}
	conf, _, err := v.config(ctx, name)
	if err != nil {
		return Departure{}, err
	}
	state, key, verifier := token.NewSplit("dep_"), token.NewSplit("key_"), oauth.NewVerifier()
	sealed, err := v.Box.Seal(verifiers.Place(state.ID), []byte(verifier))
	if err != nil {
		return Departure{}, err
	}
	err = v.DB.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO departure
			(id, hash, browser_id, browser, workspace, connection, user_id, flow, verifier, created_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			state.ID, state.Hash, key.ID, key.Hash, p.Workspace, v.ids[name], p.User, flow, sealed, tx.Now, tx.Now+DepartureLife.Microseconds())
		return err
	})
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier)}
	for param, value := range v.Providers[name].Params {
		options = append(options, oauth2.SetAuthURLParam(param, value))
	}
	return Departure{URL: conf.AuthCodeURL(state.Token, options...), Key: key}, err
}

// An Arrival is a browser that came back from a provider.
type Arrival struct {
	Name string // of the connection
	Flow string // the authorization that waits; empty where none does
	Err  error  // why nothing is connected; nil if it is
}

type departure struct {
	id, browserID, workspace, connection, user, flow string
	hash, browser, verifier                          []byte
	expires                                          int64
	used                                             *int64
}

// Arrive takes the answer of the provider called name. bound says whether the
// browser has the key with this id and hash. An answer that is not the one that
// this browser was sent for, for the person who is in front of it now, is an error and
// changes nothing (attacks 62, 73, 120); one that says no, and an exchange that fails,
// are an Arrival.
func (v *Vault) Arrive(ctx context.Context, p principal.Principal, name string, query url.Values, ref string, bound func(id string, hash []byte) bool) (Arrival, error) {
	d, err := v.awaited(ctx, name, query, bound)
	if err != nil {
		return Arrival{}, err
	}
	if d.user != p.User || d.workspace != p.Workspace {
		return Arrival{}, departureUnknown.New("this answer can't be accepted").WithWhy("somebody else is signed in than when it was begun, or nobody")
	}
	conf, iss, err := v.config(ctx, name)
	if err != nil {
		return Arrival{}, err
	}
	if issuer := v.Providers[name].Issuer; issuer != "" && (query.Has("iss") || iss) && query.Get("iss") != issuer {
		return Arrival{}, answerForeign.New("this answer can't be accepted").WithWhy("it says that it comes from another authorization server (RFC 9207)")
	}
	if (query.Get("code") == "") == (query.Get("error") == "") {
		return Arrival{}, answerForeign.New("this answer can't be accepted").WithWhy("it holds neither a code nor an error, or both")
	}
	if err := v.spend(ctx, d); err != nil {
		return Arrival{}, err
	}
	a := Arrival{Name: name, Flow: d.flow}
	if query.Has("error") {
		a.Err = v.answered(ctx, d, name, query.Get("error"), ref)
		return a, nil
	}
	a.Err = v.exchange(ctx, conf, d, name, query.Get("code"), ref)
	return a, nil
}

// awaited is the departure that an answer belongs to. Nothing is spent.
func (v *Vault) awaited(ctx context.Context, name string, query url.Values, bound func(string, []byte) bool) (d departure, err error) {
	unknown := departureUnknown.New("this answer can't be accepted")
	for _, values := range query {
		if len(values) != 1 || !oauth.Readable(values[0]) {
			return d, unknown.WithWhy("a parameter is there twice, or is not text")
		}
	}
	id, presented, ok := token.Parse("dep_", query.Get("state"))
	if !ok || !v.Known(name) {
		return d, unknown
	}
	var now int64
	err = v.DB.View(ctx, func(tx *store.Tx) error {
		now = tx.Now
		return tx.QueryRow(`SELECT id, hash, browser_id, browser, workspace, connection, user_id, flow, verifier, expires_at, used_at FROM departure WHERE id = $1`, id). // its workspace is read from it
																							Scan(&d.id, &d.hash, &d.browserID, &d.browser, &d.workspace, &d.connection, &d.user, &d.flow, &d.verifier, &d.expires, &d.used)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return d, unknown
	case err != nil:
		return d, err
	case !presented.Matches(d.hash) || d.used != nil || d.expires <= now || d.connection != v.ids[name] || !bound(d.browserID, d.browser):
		return d, unknown
	}
	return d, nil
}

// spend uses the departure up; one request wins.
func (v *Vault) spend(ctx context.Context, d departure) error {
	return v.DB.Do(ctx, func(tx *store.Tx) error {
		won, err := tx.One(`UPDATE departure SET used_at = $1 WHERE id = $2 AND workspace = $3 AND used_at IS NULL AND expires_at > $1`, tx.Now, d.id, d.workspace)
		if err == nil && !won {
			err = departureUnknown.New("this answer can't be accepted")
		}
		return err
	})
}

// answered records that the provider said no, and returns it as a problem.
func (v *Vault) answered(ctx context.Context, d departure, name, code, ref string) error {
	e := connectRefused.New("%q did not let the gateway in", name)
	if code != oauth.AccessDenied {
		e = ProviderFailed.New("%q did not let the gateway in", name).WithWhy("it answered %.60q", code)
	}
	return errors.Join(e, v.record(ctx, d, name, e.Name, ref))
}

func (v *Vault) record(ctx context.Context, d departure, name, code, ref string) error {
	return v.DB.Do(ctx, func(tx *store.Tx) error {
		v.Audit.Append(tx, connected(d, name, code, ref, nil))
		return nil
	})
}

func connected(d departure, name, code, ref string, scopes []string) audit.Event {
	e := audit.Event{
		Workspace: d.workspace, Actor: "member:" + d.user, Action: "connection.connect", Target: name, Outcome: audit.Allowed, Door: "web", Ref: ref,
		Detail: map[string]string{"scopes": strings.Join(scopes, " ")},
	}
	if code != "" {
		e.Outcome, e.Code, e.Detail = audit.Denied, code, nil
	}
	return e
}

// exchange redeems the code and keeps what it brings.
func (v *Vault) exchange(ctx context.Context, conf *oauth2.Config, d departure, name, code, ref string) error {
	verifier, err := v.Box.Open(verifiers.Place(d.id), d.verifier)
	if err != nil {
		return err
	}
	ctx, cancel := v.within(ctx)
	defer cancel()
	t, err := conf.Exchange(ctx, code, oauth2.VerifierOption(string(verifier)))
	var scopes []string
	if err == nil {
		scopes, err = granted(t, conf.Scopes)
	}
	if err != nil {
		e := ProviderFailed.New("your account at %q can't be connected", name).WithWhy("the exchange of its code failed").Because(spoken(err))
		return errors.Join(e, v.record(ctx, d, name, e.Name, ref))
	}
	return v.DB.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO upstream_grant (id, workspace, connection, user_id, status, created_at) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (workspace, connection, user_id) DO UPDATE SET version = upstream_grant.version`,
			store.ID("ugr_"), d.workspace, d.connection, d.user, removed, tx.Now)
		if err != nil {
			return err
		}
		g, _, err := v.grant(tx, principal.Principal{Workspace: d.workspace, User: d.user}, name)
		if err != nil {
			return err
		}
		if _, err := v.keep(tx, g, t, scopes); err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE upstream_grant SET connected_at = $1 WHERE id = $2 AND workspace = $3`, tx.Now, g.id, g.workspace)
		v.Audit.Append(tx, connected(d, name, "", ref, scopes))
		if v.Connected != nil {
			tx.AfterCommit(v.Connected)
		}
		return err
	})
}

// spoken is an error of the OAuth library without the body of the answer, which may
// hold anything.
func spoken(err error) error {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status := ""
		if e.Response != nil {
			status = strconv.Itoa(e.Response.StatusCode)
		}
		return errors.New("the provider answered " + status + " " + spelt(e.ErrorCode))
	}
	return err
}

// spelt is an error code of OAuth; empty if it is none, because then it may hold anything.
func spelt(code string) string {
	if len(code) > 60 || strings.ContainsFunc(code, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
		return ""
	}
	return code
}
