package authserver

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// redeemOwn is the client credentials grant (RFC 6749 §4.4, R414): a service account
// acts for itself. There is nothing to refresh with: it comes back as it came.
func (s *Server) redeemOwn(tx *store.Tx, c Client, form url.Values) (issue, error) {
	if c.service == nil { // it is on the list of a client that the operator wrote down
		return issue{}, oauth.Errorf(oauth.UnauthorizedClient, "this grant is for service accounts; the operator makes one")
	}
	return s.issueTo(tx, *c.service, c.key, form)
}

// machineToken is the same grant as programs ask for that know nothing of OAuth: a
// JSON object with client_id and client_secret (R621).
func (s *Server) machineToken(w http.ResponseWriter, r *http.Request, ref string) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	form.Set("grant_type", grantOwn)
	answer, err := s.issued(r, form, ref)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, struct {
		oauth.TokenResponse
		Tier string `json:"tier"`
	}{answer, "service"})
	return nil
}

// issueTo makes an access token for a service account, at the endpoint that was
// asked for and for no more than its tools need there.
func (s *Server) issueTo(tx *store.Tx, a identity.ServiceAccount, key string, form url.Values) (issue, error) {
	at, found := s.audience(form["resource"])
	if !found {
		return issue{}, oauth.Errorf(oauth.InvalidTarget, "there is no such resource here, or more than one is named")
	}
	if !slices.ContainsFunc(a.Tools, func(name string) bool { t, there := s.Registry.Lookup(name); return there && at.Offers(t) }) {
		return issue{}, oauth.Errorf(oauth.InvalidTarget, "none of the tools of this service account is offered at %s; name another resource", at.URL)
	}
	scopes, fault := s.within(s.needed(a, at.URL), form.Get("scope"))
	if fault != nil {
		return issue{}, fault
	}
	made := issue{family: token.Family{ID: a.Family, Workspace: a.Workspace, User: a.ID, Client: a.ID, Scopes: scopes, Resource: at.URL, Key: key}}
	var err error
	if made.pair, err = s.Tokens.Access(tx, made.family, scopes, token.AccessLife); err != nil {
		return made, err
	}
	return made, s.People.Used(tx, a)
}

// within is what of the scopes held is asked for: all if nothing is, and the rest
// is left out, because clients ask for what an endpoint's document lists (RFC 6749
// §3.3). Nothing in common is a fault.
func (s *Server) within(held []string, asked string) ([]string, *oauth.Error) {
	wanted, fault := oauth.ParseScopes(asked)
	if fault != nil || len(wanted) == 0 {
		return held, fault
	}
	var scopes []string
	for _, h := range held {
		for _, w := range wanted {
			switch {
			case principal.Covers(w, h):
				scopes = append(scopes, h)
			case principal.Covers(h, w):
				scopes = append(scopes, w)
			}
		}
	}
	slices.Sort(scopes)
	if scopes = slices.Compact(scopes); len(scopes) == 0 && len(held) > 0 {
		return nil, oauth.Errorf(oauth.InvalidScope, "none of the scopes asked for can be had; there are: %s", held)
	}
	return scopes, nil
}

// needed are the scopes that the tools of a service account ask for at an endpoint.
func (s *Server) needed(a identity.ServiceAccount, resource string) []string {
	at, _ := s.Registry.AudienceAt(s.Public, resource)
	var scopes []string
	for _, name := range a.Tools {
		if t, there := s.Registry.Lookup(name); there && at.Offers(t) && t.Scope != "" && t.Scope != tool.AnyScope {
			scopes = append(scopes, t.Scope)
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}
