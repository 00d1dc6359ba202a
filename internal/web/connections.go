package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
	"github.com/gatehouse-mcp/gatehouse/internal/web/views"
)

// disconnected are the sentences after an account was removed.
var disconnected = map[string]string{
	"removed": "Removed. What it granted is wiped here, and the service is told to end it, if it can be told. To be sure, remove Gatehouse in the settings of the service as well.",
	"gone":    "That account was removed already.",
}

// connections shows a person their accounts at services (R558).
func (p *Pages) connections(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Browser(w, r)
	if err != nil || !b.SignedIn() {
		return orSignIn(w, err)
	}
	all, err := p.accounts(r.Context(), b)
	if err != nil {
		return err
	}
	return views.Connections(w, http.StatusOK, views.ConnectionsView{
		Page: p.frame(ref), CSRF: b.FormToken(), User: b.Member.Email, Done: disconnected[r.URL.Query().Get("done")], Connections: all,
	})
}

// accounts are the connections there are, each with the person's account if there
// is one.
func (p *Pages) accounts(ctx context.Context, b authn.Browser) (all []views.Connection, err error) {
	connected, err := p.Vault.Accounts(ctx, b.Member.Principal())
	for _, name := range p.Vault.Names() {
		c := views.Connection{Name: name}
		for _, s := range p.Registry.Servers() {
			if s.Provider == name && !s.ForeignTo(b.Member.Principal()) {
				c.Servers = append(c.Servers, s.Origin)
			}
		}
		if i := slices.IndexFunc(connected, func(a vault.Account) bool { return a.Name == name }); i >= 0 {
			a := connected[i]
			c.ID, c.State, c.Reason, c.Scopes, c.Connected, c.Used = a.ID, a.State, a.Reason, a.Scopes, since(a.Connected), since(a.Used)
		}
		all = append(all, c)
	}
	return all, err
}

func (p *Pages) removeConnection(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.own(w, r)
	if err != nil {
		return err
	}
	what := "removed"
	err = p.call(r, b, "remove_connection", map[string]string{"id": r.PostForm.Get("id")}, ref)
	if problem.Is(err, vault.AccountUnknown) { // pressed twice
		what, err = "gone", nil
	}
	if err != nil {
		return err
	}
	return see(w, "/me/connections?"+url.Values{"done": {what}}.Encode())
}
