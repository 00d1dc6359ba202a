package authserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// Connect is what the page shows before a person goes to a provider.
type Connect struct {
	Ref    string
	Name   string // of the provider
	URL    string // where the browser goes; empty where it has been
	Client *Client
	Member identity.Member

	Flow      string // that can go on without the account; empty where none can
	FormToken string
}

// lacking are the providers at which the person has no account connected, of those
// that the scopes reach, less those without which the person goes on. What the person
// does not let the app do needs none.
func (s *Server) lacking(tx *store.Tx, m identity.Member, f flow, scopes []string) ([]string, error) {
	names, err := s.Vault.Missing(tx, m.Principal(), s.Registry.Providers(func(srv tool.Server) bool {
		return (f.Audience.Origin == "" || f.Audience.Origin == srv.Origin) && principal.CoverAll(scopes, []string{srv.Scope})
	}))
	return without(names, f.without), err
}

// onward answers the client with a code. Where an account elsewhere has to be
// connected first, it keeps what was allowed and goes there (R307, R551): never
// before the person has consented (attack 63). Without a flow nobody can be sent
// anywhere, and location is empty.
func (s *Server) onward(tx *store.Tx, f flow, m identity.Member, consent string, scopes []string) (location string, err error) {
	names, err := s.lacking(tx, m, f, scopes)
	if err != nil {
		return "", err
	}
	if len(names) > 0 {
		return f.address(), s.wait(tx, f, m, consent, scopes)
	}
	if location, err = s.code(tx, f, m, consent, scopes); err != nil || f.ID == "" {
		return location, err
	}
	return location, s.settle(tx, f, true, location)
}

// address is where the flow goes on; none where it is not kept.
func (f flow) address() string {
	if f.ID == "" {
		return ""
	}
	return "/consent/" + f.ID
}

// wait keeps what was allowed.
func (s *Server) wait(tx *store.Tx, f flow, m identity.Member, consent string, scopes []string) error {
	if f.ID == "" {
		return nil
	}
	won, err := tx.One(`UPDATE flow SET member = $1, consent = $2, granted = $3 WHERE id = $4 AND decided_at IS NULL AND expires_at > $5`,
		m.ID, consent, strings.Join(scopes, " "), f.ID, tx.Now)
	if err == nil && !won {
		err = errDecided
	}
	return err
}

// agreed reports whether the person in front of the browser has allowed it, and only
// accounts are missing.
func agreed(b authn.Browser, f flow) bool { return f.consent != "" && f.member == b.Member.ID }

// connect is the step between consent and code: it sends the person to the first
// provider at which an account is missing, and answers the client when none is.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	var names []string
	var location string
	ended := false
	err := s.DB.Do(r.Context(), func(tx *store.Tx) (err error) {
		if names, err = s.lacking(tx, b.Member, f, f.granted); err != nil || len(names) > 0 {
			return err
		}
		held, err := tx.One(`UPDATE consent SET granted_at = granted_at WHERE id = $1 AND workspace = $2 AND ended_at IS NULL`, f.consent, b.Member.Workspace)
		if ended = !held; err != nil || ended {
			return err
		}
		location, err = s.onward(tx, f, b.Member, f.consent, f.granted)
		return err
	})
	switch {
	case err == nil && ended:
		return s.askConsent(w, r, b, f)
	case err == nil && len(names) > 0:
		return s.depart(w, r, b, names[0], &f)
	}
	return s.settled(w, r, b, f, location, err)
}

// depart shows the way to a provider. It is a page: a redirect in the answer to a
// form would be blocked by its policy (U3), and people see where they go.
func (s *Server) depart(w http.ResponseWriter, r *http.Request, b authn.Browser, name string, f *flow) error {
	c := Connect{Ref: request.Of(r.Context()).Ref, Name: name, Member: b.Member, FormToken: b.FormToken()}
	waits := ""
	if f != nil {
		c.Client, waits = &f.Client, f.ID
	}
	d, err := s.Vault.Begin(r.Context(), b.Member.Principal(), name, waits)
	if problem.Is(err, vault.ProviderFailed) && f != nil && f.spares() {
		s.Log.Warn("a provider cannot be used now; people are let in without an account there", "provider", name, "ref", c.Ref, "err", err)
		return s.leaveOut(w, r, *f, name)
	}
	if err != nil {
		return err
	}
	if f != nil && f.spares() {
		c.Flow = f.ID
	}
	authn.Bind(w, d.Key, vault.DepartureLife)
	if c.URL = d.URL; f != nil && !isBrowser(r) {
		sendTo(w, c.URL)
		return nil
	}
	return s.Pages.Connect(w, r, c)
}

// spares reports whether the app has a use for what it gets although an account is
// missing: at the common endpoint, where there are other servers. Calls that need the
// account say how to connect it.
func (f flow) spares() bool { return f.Audience.Origin == "" }

// leaveOut lets the authorization go on without an account at a provider.
func (s *Server) leaveOut(w http.ResponseWriter, r *http.Request, f flow, name string) error {
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE flow SET without = without || ' ' || $1 WHERE id = $2 AND decided_at IS NULL AND expires_at > $3`, name, f.ID, tx.Now)
		return err
	})
	if err == nil {
		sendTo(w, f.address())
	}
	return err
}

// goWithout is the person's word that the authorization goes on without an account: the
// service may not answer, or the person may have no account there.
func (s *Server) goWithout(w http.ResponseWriter, r *http.Request, _ string) error {
	b, f, err := s.answered(w, r)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	if f.Decided != nil || !f.signedIn(b) || !agreed(b, f) || !f.spares() || !s.Vault.Known(name) || slices.Contains(f.without, name) {
		return s.next(w, r, b, f)
	}
	return s.leaveOut(w, r, f, name)
}

// Connecting is what waits for a sign-in where a person opened the page of a connection;
// with a name of one behind it.
const Connecting = "connect:"

// reconnect begins to connect an account without an app that waits for it (R558).
func (s *Server) reconnect(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := s.browser(w, r)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	if !s.Vault.Known(name) {
		return vault.ConnectionUnknown.New("there is no connection %.40q", name)
	}
	if !b.SignedIn() {
		return s.Pages.SignIn(w, r, Connecting+name, false)
	}
	if r.URL.Query().Get("done") != "" {
		return s.Pages.Connect(w, r, Connect{Ref: ref, Name: name, Member: b.Member})
	}
	return s.depart(w, r, b, name, nil)
}

// arrived takes the browser that comes back from a provider.
func (s *Server) arrived(w http.ResponseWriter, r *http.Request, ref string) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return requestUnreadable.New("the answer cannot be read")
	}
	b, err := s.browser(nil, r)
	if err != nil {
		return err
	}
	a, err := s.Vault.Arrive(r.Context(), b.Member.Principal(), r.PathValue("name"), query, ref, func(id string, hash []byte) bool { return authn.Bound(r, id, hash) })
	if err != nil {
		return err
	}
	if a.Flow == "" {
		if a.Err == nil {
			sendTo(w, "/connect/"+a.Name+"?done=yes")
		}
		return a.Err
	}
	b, f, err := s.own(w, r, a.Flow)
	switch {
	case err != nil:
		return err
	case a.Err == nil:
		sendTo(w, f.address())
		return nil
	case problem.From(a.Err).Kind != problem.Forbidden || !agreed(b, f):
		return a.Err // the provider failed: the person can try again
	}
	return s.unconnected(w, r, b, f, a.Name)
}

// unconnected tells the client that the person did not connect the account.
func (s *Server) unconnected(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow, name string) error {
	e := oauth.Errorf(oauth.AccessDenied, "the person did not connect an account at %s", name)
	location := s.location(f, url.Values{"error": {e.Code}, "error_description": {e.Description}})
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error { return s.settle(tx, f, false, location) })
	return s.settled(w, r, b, f, location, err)
}
