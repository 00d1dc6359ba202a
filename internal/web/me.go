package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/web/views"
)

// done are the sentences after what was just done.
var done = map[string]string{
	"removed": "Removed. It stopped working at once.",
	"gone":    "That app had ended already.",
	"stopped": "Everything is stopped. Each app has to ask you again.",
}

// me shows a person what can act for them (R1212).
func (p *Pages) me(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Browser(w, r)
	if err != nil || !b.SignedIn() {
		return orSignIn(w, err)
	}
	live, ended, err := p.apps(r.Context(), b)
	if err != nil {
		return err
	}
	return views.Me(w, http.StatusOK, views.MeView{
		Page: p.frame(ref), CSRF: b.FormToken(), User: b.Member.Email, Admin: b.Member.Rank >= principal.Admin, Done: done[r.URL.Query().Get("done")], Apps: live, Ended: ended,
		Accounts: len(p.Vault.Names()) > 0,
	})
}

// orSignIn is for a page that has nothing to show without somebody who signed in.
func orSignIn(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	return see(w, "/login")
}

func (p *Pages) apps(ctx context.Context, b authn.Browser) (live []views.App, ended []views.EndedApp, err error) {
	apps, err := p.AuthServer.Apps(ctx, b.Member)
	for _, a := range apps {
		if a.State == authserver.Ended {
			ended = append(ended, views.EndedApp{Name: a.Name, Ended: since(a.Ended), Reason: a.Reason})
			continue
		}
		target, err := views.NewTarget(a.Redirect)
		if err != nil {
			return nil, nil, err
		}
		shown := views.App{
			ID: a.ID, Client: p.client(a.By(), target), Can: can(a.Lines), Allowed: since(a.Allowed), Seen: since(a.Seen),
			SignedOut: a.State == authserver.SignedOut, Replayed: since(a.Replayed),
		}
		if !a.Ends.IsZero() {
			shown.Left = max(time.Until(a.Ends), 1)
		}
		live = append(live, shown)
	}
	return live, ended, err
}

// can are the risks at each server, once each, from read to hard to undo.
func can(lines []authserver.Line) (all []views.Can) {
	for _, s := range servers(lines, nil) {
		c := views.Can{Server: s.Name}
		for _, risk := range []views.Risk{views.Read, views.Change, views.HardToUndo} {
			if slices.ContainsFunc(s.Lines, func(l views.Line) bool { return l.Risk == risk }) {
				c.Risks = append(c.Risks, risk)
			}
		}
		all = append(all, c)
	}
	return all
}

// own reads a form that a person who is signed in posted on their own page.
func (p *Pages) own(w http.ResponseWriter, r *http.Request) (authn.Browser, error) {
	b, err := p.Authn.Form(w, r)
	if err == nil && !b.SignedIn() {
		err = authn.FormForeign.New("this form can't be accepted").WithWhy("nobody is signed in any more").WithFix("sign in and try again")
	}
	return b, err
}

// call calls a tool as the person, directly.
func (p *Pages) call(r *http.Request, b authn.Browser, name string, args any, ref string) error {
	return p.ask(r, b, name, args, nil, ref)
}

// ask is call where the answer matters.
func (p *Pages) ask(r *http.Request, b authn.Browser, name string, args, answer any, ref string) error {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	result, err := p.Gate.Do(r.Context(), gate.Call{
		Principal: b.Member.Principal(), Name: name, Args: body, Door: "web", Remote: r.RemoteAddr, Ref: ref,
	})
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(result, answer)
}

func (p *Pages) removeApp(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.own(w, r)
	if err != nil {
		return err
	}
	what := "removed"
	err = p.call(r, b, "remove_app", map[string]string{"id": r.PostForm.Get("id")}, ref)
	if problem.Is(err, authserver.AppUnknown) { // pressed twice
		what, err = "gone", nil
	}
	if err != nil {
		return err
	}
	return see(w, "/me?"+url.Values{"done": {what}}.Encode())
}

func (p *Pages) askStop(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Browser(w, r)
	if err != nil || !b.SignedIn() {
		return orSignIn(w, err)
	}
	live, _, err := p.apps(r.Context(), b)
	if err != nil {
		return err
	}
	return views.Stop(w, http.StatusOK, views.StopView{Page: p.frame(ref), CSRF: b.FormToken(), User: b.Member.Email, Apps: live})
}

func (p *Pages) stopEverything(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.own(w, r)
	if err != nil {
		return err
	}
	if err := p.call(r, b, "stop_everything", struct{}{}, ref); err != nil {
		return err
	}
	return see(w, "/me?"+url.Values{"done": {"stopped"}}.Encode())
}

func (p *Pages) signOutEverywhere(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.own(w, r)
	if err != nil {
		return err
	}
	if err := p.Authn.SignOutEverywhere(w, r, b, ref); err != nil {
		return err
	}
	return see(w, "/")
}
