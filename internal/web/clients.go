package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/web/views"
)

// kinds say in words how a client became known.
var kinds = map[string]string{
	"registered": "Registered itself", "document": "Known by a document of its maker", "added": "Added by an administrator", "file": "Stands in the configuration file",
}

// policies say in words who may register.
var policies = map[string]string{
	authserver.RegistrationOpen:  "Any app may register itself and then ask people. One that nobody allows is forgotten after a week.",
	authserver.RegistrationToken: "Apps register themselves with a token that you make: gatehouse clients token add.",
}

// clients lists the apps for administrators (ux.md §9.9).
func (p *Pages) clients(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Browser(w, r)
	if err != nil || !b.SignedIn() {
		return orSignIn(w, err)
	}
	v, err := p.clientsView(r, b, ref)
	if err != nil {
		return err
	}
	return views.Clients(w, http.StatusOK, v)
}

func (p *Pages) clientsView(r *http.Request, b authn.Browser, ref string) (v views.ClientsView, err error) {
	query := r.URL.Query()
	state := query.Get("state")
	var out struct {
		Clients []authserver.KnownClient `json:"clients"`
		Next    string                   `json:"next"`
	}
	if err := p.ask(r, b, "list_clients", map[string]any{"state": state, "after": query.Get("after"), "limit": 25}, &out, ref); err != nil {
		return v, err
	}
	v = views.ClientsView{
		Page: p.frame(ref), CSRF: b.FormToken(), User: b.Member.Email, Done: clientDone[query.Get("done")], Policy: p.policy(), Terminal: "gatehouse clients ls",
	}
	for _, f := range []string{"", "approved", "unverified", "blocked"} {
		name, link := "All", "/admin/clients"
		if f != "" {
			name, link = strings.ToUpper(f[:1])+f[1:], "/admin/clients?state="+f
		}
		v.Filters = append(v.Filters, views.Filter{Name: name, Link: link, Here: f == state})
	}
	for _, k := range out.Clients {
		v.Clients = append(v.Clients, p.knownClient(k))
	}
	if out.Next != "" {
		v.Next = "/admin/clients?" + url.Values{"state": {state}, "after": {out.Next}}.Encode()
	}
	return v, nil
}

// policy says how apps become known here.
func (p *Pages) policy() []string {
	said := policies[p.AuthServer.Registration()]
	if said == "" {
		said = "Apps do not register themselves here: you add them, or they stand in the configuration file."
	}
	switch d := p.AuthServer.Documents(); {
	case d.Any:
		return []string{said, "An app can also be known by a document at an address of its maker, at any host."}
	case d.On():
		return []string{said, "An app can also be known by a document of its maker, at the hosts that the configuration names."}
	}
	return []string{said}
}

func (p *Pages) knownClient(k authserver.KnownClient) views.KnownClient {
	shown := views.KnownClient{
		ID: k.ID, Name: k.Name, Kind: kinds[k.Kind], Domain: k.Domain, Blocked: k.State == "blocked", Reason: k.Reason, People: k.People, Live: k.Live,
		Used: since(k.Used), Created: max(time.Since(k.Created), 1), From: k.From, Redirects: k.Redirects, Secret: k.Confidential, Fixed: k.Kind == "file",
	}
	if k.State == "approved" {
		shown.Approved = p.frame("").Host
	}
	if k.Kind == "document" {
		shown.Fetched = since(k.Fetched)
	}
	for _, uri := range k.Redirects {
		target, err := views.NewTarget(uri)
		if err != nil {
			continue // it is shown whole on the page of the app
		}
		place := target.Place()
		if target.Local() {
			place = "the person’s own computer"
		}
		if !slices.Contains(shown.Places, place) {
			shown.Places = append(shown.Places, place)
		}
	}
	return shown
}

// showClient shows one app.
func (p *Pages) showClient(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Browser(w, r)
	if err != nil || !b.SignedIn() {
		return orSignIn(w, err)
	}
	v, err := p.clientView(r, b, r.URL.Query().Get("id"), ref)
	if err != nil {
		return err
	}
	v.Done = clientDone[r.URL.Query().Get("done")]
	return views.ClientPage(w, http.StatusOK, v)
}

func (p *Pages) clientView(r *http.Request, b authn.Browser, id, ref string) (v views.ClientView, err error) {
	var k struct {
		authserver.KnownClient
		Metadata json.RawMessage     `json:"metadata"`
		Changed  time.Time           `json:"changed_at"`
		Changes  []authserver.Change `json:"changes"`
	}
	if err := p.ask(r, b, "show_client", map[string]string{"id": id}, &k, ref); err != nil {
		return v, err
	}
	known := p.knownClient(k.KnownClient)
	var indented bytes.Buffer
	if err := json.Indent(&indented, k.Metadata, "", "  "); err != nil {
		return v, err
	}
	known.Metadata, known.Changed = indented.String(), since(k.Changed)
	for _, c := range k.Changes {
		known.Changes = append(known.Changes, views.ChangedMember(c))
	}
	return views.ClientView{
		Page: p.frame(ref), CSRF: b.FormToken(), User: b.Member.Email, Known: known, Terminal: "gatehouse clients show " + word(id),
	}, nil
}

// word is text as one word of a shell. The address of an app's document is its maker's
// choice, and what we print as a command is pasted.
func word(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || strings.ContainsRune(" !\"#$&'()*;<>?[\\]^`{|}~", r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// clientDone are the sentences after what was just done.
var clientDone = map[string]string{
	"approve": "Approved. People see that it is.", "block": "Blocked. It stopped working at once.", "unblock": "It may ask again.", "remove": "Removed, with everything it was given.",
}

// clientActs are what a form decides about an app, each with its tool.
var clientActs = map[string]string{"approve": "approve_client", "block": "block_client", "unblock": "unblock_client", "remove": "remove_client"}

// decideClient carries out what an administrator decided on one of the two pages.
func (p *Pages) decideClient(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.own(w, r)
	if err != nil {
		return err
	}
	action, id := r.PathValue("action"), r.PostForm.Get("id")
	switch {
	case action == "add":
		return p.addClient(w, r, b, ref)
	case action == "secret":
		return p.renewSecret(w, r, b, id, ref)
	case clientActs[action] == "":
		return pageUnknown.New("there is no page here")
	}
	args := map[string]string{"id": id}
	if action == "block" {
		args["reason"] = r.PostForm.Get("reason")
	}
	if err := p.call(r, b, clientActs[action], args, ref); err != nil {
		return err
	}
	if action == "remove" {
		return see(w, "/admin/clients?done=remove")
	}
	return see(w, "/admin/client?"+url.Values{"id": {id}, "done": {action}}.Encode())
}

type madeSecret struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Secret string `json:"client_secret"`
}

// addClient shows what the new app is configured with in the answer itself: a secret
// is in no address and in no store.
func (p *Pages) addClient(w http.ResponseWriter, r *http.Request, b authn.Browser, ref string) error {
	given := views.Given{Name: r.PostForm.Get("name"), Redirects: r.PostForm.Get("redirects"), Secret: r.PostForm.Get("secret") == "yes"}
	var made madeSecret
	err := p.ask(r, b, "add_client", map[string]any{"name": given.Name, "redirect_uris": strings.Fields(given.Redirects), "secret": given.Secret}, &made, ref)
	wrong := problem.From(err)
	if err != nil && wrong.Kind != problem.Invalid {
		return err
	}
	v, err := p.clientsView(r, b, ref)
	if err != nil {
		return err
	}
	if wrong != nil {
		request.Of(r.Context()).Code = wrong.Name
		v.Fault, v.Given = fault(wrong), given
		if wrong.Why != "" {
			v.Fault = "Not added: " + wrong.Why + "."
		}
		return views.Clients(w, wrong.Kind.Status(), v)
	}
	v.Done, v.Made = "Added. People see that it is approved.", views.MadeSecret{Name: made.Name, ID: made.ID, Secret: made.Secret}
	return views.Clients(w, http.StatusOK, v)
}

func (p *Pages) renewSecret(w http.ResponseWriter, r *http.Request, b authn.Browser, id, ref string) error {
	var made madeSecret
	if err := p.ask(r, b, "rotate_client_secret", map[string]string{"id": id}, &made, ref); err != nil {
		return err
	}
	v, err := p.clientView(r, b, id, ref)
	if err != nil {
		return err
	}
	v.Done, v.Made = "The old secret does not work any more.", views.MadeSecret{Name: made.Name, ID: made.ID, Secret: made.Secret}
	return views.ClientPage(w, http.StatusOK, v)
}
