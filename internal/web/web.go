// Package web is the door for people and for programs that speak REST: pages,
// and the same tools as at the MCP door.
//
// A page decides nothing by itself. It shows, and hands what was typed to the
// room that knows; a call goes through the gate like every other.
package web

import (
	"cmp"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
	"github.com/gatehouse-mcp/gatehouse/internal/web/views"
)

// Pages are the pages for people. Set the fields and mount Routes.
type Pages struct {
	DB         *store.DB
	People     *identity.People
	Authn      *authn.Authn
	AuthServer *authserver.Server
	Vault      *vault.Vault
	Gate       *gate.Gate
	Throttle   *throttle.Throttle
	Registry   *tool.Registry
	Log        *slog.Logger
	Issuer     string
	Public     string
	Dev        bool
	Version    string
	Codes      []problem.Code // of all rooms, for the error reference
}

// Routes mounts the pages.
func (p *Pages) Routes(mux *http.ServeMux) {
	mux.Handle("GET /{$}", p.page(p.home))
	mux.Handle("GET /login", p.page(p.signIn))
	mux.Handle("POST /login", p.page(p.sendLink))
	mux.Handle("GET /login/link", p.page(p.showLink))
	mux.Handle("POST /login/link", p.page(p.useLink))
	mux.Handle("POST /logout", p.page(p.signOut))
	mux.Handle("GET /setup", p.page(p.setup))
	mux.Handle("POST /setup", p.page(p.makeOwner))
	mux.Handle("GET /me", p.page(p.me))
	mux.Handle("POST /me/remove", p.page(p.removeApp))
	mux.Handle("GET /me/connections", p.page(p.connections))
	mux.Handle("POST /me/connections/remove", p.page(p.removeConnection))
	mux.Handle("GET /me/stop", p.page(p.askStop))
	mux.Handle("POST /me/stop", p.page(p.stopEverything))
	mux.Handle("POST /me/sign-out", p.page(p.signOutEverywhere))
	mux.Handle("GET /admin/clients", p.page(p.clients))
	mux.Handle("GET /admin/client", p.page(p.showClient))
	mux.Handle("POST /admin/clients/{action}", p.page(p.decideClient))
	mux.Handle("GET /help/errors", p.page(p.listCodes))
	mux.Handle("GET /help/errors/{code}", p.page(p.showCode))
	mux.Handle("GET /assets/", views.Assets())
	mux.Handle("/", p.page(func(http.ResponseWriter, *http.Request, string) error {
		return pageUnknown.New("there is no page here")
	}))
}

// Codes are the problems of this package.
var Codes = []problem.Code{pageUnknown, bodyUnreadable}

var pageUnknown = problem.Code{
	Name: "PAGE_UNKNOWN", Kind: problem.NotFound,
	Why: "the address is mistyped, or what was there is gone",
	Fix: "start at the front page",
}

// What is counted of those who sign in: by address, and letters by whom they go to,
// known or not.
const (
	SignIns throttle.Group = "sign_in"
	Letters throttle.Group = "letters"
)

// sameSite refuses forms that another site posted.
var sameSite = http.NewCrossOriginProtection()

// page adapts a handler: an error becomes the page for people.
func (p *Pages) page(h func(w http.ResponseWriter, r *http.Request, ref string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ref := request.Of(r.Context()).Ref
		err := error(authn.FormForeign.New("this form can't be accepted"))
		if sameSite.Check(r) == nil {
			err = h(w, r, ref)
		}
		if e := problem.From(err); e != nil {
			if e.Kind == problem.Forbidden {
				p.Authn.Refused(r.RemoteAddr, r.Pattern+" refused: "+e.Name)
			}
			p.Problem(w, r, ref, err)
		}
	})
}

// Problem draws an error page.
func (p *Pages) Problem(w http.ResponseWriter, r *http.Request, ref string, err error) {
	e := problem.From(err)
	request.Of(r.Context()).Code = e.Name
	if e.Kind == problem.Internal || e.Kind == problem.Unavailable {
		request.Failed(p.Log, r, err)
	}
	if e.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.Wire(ref).Retry))
	}
	views.Error(w, e.Kind.Status(), views.FromProblem(p.frame(ref), e))
}

// frame is what every page shows.
func (p *Pages) frame(ref string) views.Page {
	host := p.Issuer
	if u, err := url.Parse(p.Issuer); err == nil {
		host = u.Host
	}
	return views.Page{Product: "Gatehouse", Host: host, Ref: ref, Dev: p.Dev}
}

func (p *Pages) home(w http.ResponseWriter, r *http.Request, ref string) error {
	if wantsJSON(r) {
		return p.about(w)
	}
	b, err := p.Authn.Browser(nil, r)
	if err != nil {
		return err
	}
	open, err := p.setupOpen(r)
	if err != nil {
		return err
	}
	return views.Home(w, http.StatusOK, views.HomeView{
		Page: p.frame(ref), CSRF: b.FormToken(), User: b.Member.Email, Setup: open,
		Endpoints: p.endpoints(b),
	})
}

// endpoints are the addresses for clients; which servers there are is told to
// members only.
func (p *Pages) endpoints(b authn.Browser) []views.Endpoint {
	all := []views.Endpoint{{Name: "All servers", URL: p.Public + "/mcp"}}
	for _, t := range p.Registry.All() {
		if !b.SignedIn() || t.Origin == "" || t.Origin == tool.Control || t.ForeignTo(b.Member.Principal()) || all[len(all)-1].Name == t.Origin {
			continue
		}
		if a, found := p.Registry.Audience(p.Public, t.Origin); found {
			all = append(all, views.Endpoint{Name: t.Origin, URL: a.URL})
		}
	}
	return all
}

func (p *Pages) setupOpen(r *http.Request) (open bool, err error) {
	err = p.DB.View(r.Context(), func(tx *store.Tx) error {
		has, err := p.People.HasOwner(tx)
		open = !has && !p.Dev
		return err
	})
	return open, err
}

// SignIn sends the browser to the sign-in page with what waits for it: an authorization,
// or the page of a connection.
func (p *Pages) SignIn(w http.ResponseWriter, _ *http.Request, waits string, again bool) error {
	query := url.Values{"flow": {waits}}
	if again {
		query.Set("switch", "1")
	}
	return see(w, "/login?"+query.Encode())
}

func (p *Pages) signIn(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Browser(w, r)
	if err != nil {
		return err
	}
	flow := r.URL.Query().Get("flow")
	if b.SignedIn() && r.URL.Query().Get("switch") == "" {
		if name := p.connecting(flow); name != "" {
			return see(w, "/connect/"+name)
		}
		if flow != "" {
			return goOn(w, flow)
		}
		return views.SignedIn(w, http.StatusOK, views.SignedInView{Page: p.frame(ref), Email: b.Member.Email})
	}
	return views.SignIn(w, http.StatusOK, p.signInView(r, b, flow))
}

func (p *Pages) signInView(r *http.Request, b authn.Browser, flow string) views.SignInView {
	v := views.SignInView{CSRF: b.FormToken(), Log: true}
	wait, ok := p.AuthServer.Waiting(r, flow)
	v.Page = p.frame(request.Of(r.Context()).Ref) // that of what waits
	if p.connecting(flow) != "" {
		v.Flow = flow
	}
	if ok {
		v.Flow, v.Email = flow, wait.Hint
		if target, err := views.NewTarget(wait.Redirect); err == nil {
			v.Waiting = &views.Client{Name: wait.Client.Name, Target: target}
		}
	}
	return v
}

// connecting is the connection whose page waits for the sign-in, if one does. What is
// not configured is none, so nothing leads anywhere else.
func (p *Pages) connecting(waits string) string {
	name, is := strings.CutPrefix(waits, authserver.Connecting)
	if !is || !p.Vault.Known(name) {
		return ""
	}
	return name
}

func goOn(w http.ResponseWriter, flow string) error { return see(w, "/consent/"+url.PathEscape(flow)) }

// see sends the browser to another page of ours.
func see(w http.ResponseWriter, path string) error {
	w.Header().Set("Location", path)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

func (p *Pages) sendLink(w http.ResponseWriter, r *http.Request, _ string) error {
	b, err := p.Authn.Form(w, r)
	if err != nil {
		return err
	}
	email, flow := r.PostForm.Get("email"), r.PostForm.Get("flow")
	if !strings.Contains(email, "@") {
		v := p.signInView(r, b, flow)
		v.Email, v.Fault = email, "Type an e-mail address, like name@example.org."
		return views.SignIn(w, http.StatusBadRequest, v)
	}
	if err := p.Throttle.Take(SignIns, throttle.Address(r.RemoteAddr)); err != nil {
		return err
	}
	if err := p.mayWrite(r, strings.ToLower(strings.TrimSpace(email))); err != nil {
		return err
	}
	if _, ok := p.AuthServer.Waiting(r, flow); !ok && p.connecting(flow) == "" {
		flow = ""
	}
	ref := request.Of(r.Context()).Ref // that of what waits
	if err := p.Authn.SendLink(r, email, flow, ref); err != nil {
		return err
	}
	return views.SignInSent(w, http.StatusOK, views.SignInSentView{
		Page: p.frame(ref), Email: email, Log: true, Lasts: authn.LinkLife,
		Again: "/login?" + url.Values{"flow": {flow}}.Encode(),
	})
}

// mayWrite counts a letter to a person. Where strangers have used up what there is,
// the person's own browser goes on, and is counted by itself.
func (p *Pages) mayWrite(r *http.Request, email string) error {
	full := p.Throttle.Take(Letters, email)
	if full == nil {
		return nil
	}
	knows, err := p.Authn.Knows(r, email)
	if err != nil || !knows {
		return cmp.Or(err, full)
	}
	return p.Throttle.Take(Letters+"/known", email)
}

func (p *Pages) showLink(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Browser(w, r)
	if err != nil {
		return err
	}
	return views.SignInLink(w, http.StatusOK, views.SignInLinkView{
		Page: p.frame(ref), Token: r.URL.Query().Get("token"), CSRF: b.FormToken(), Current: b.Member.Email,
	})
}

func (p *Pages) useLink(w http.ResponseWriter, r *http.Request, ref string) error {
	if _, err := p.Authn.Form(w, r); err != nil {
		return err
	}
	if err := p.Throttle.Take(SignIns, throttle.Address(r.RemoteAddr)); err != nil {
		return err
	}
	flow, err := p.Authn.UseLink(w, r, r.PostForm.Get("token"), ref)
	if err != nil {
		return err
	}
	if name := p.connecting(flow); name != "" {
		return see(w, "/connect/"+name)
	}
	if _, ok := p.AuthServer.Waiting(r, flow); ok {
		return goOn(w, flow)
	}
	return see(w, "/login")
}

func (p *Pages) signOut(w http.ResponseWriter, r *http.Request, ref string) error {
	b, err := p.Authn.Form(w, r)
	if err != nil {
		return err
	}
	if err := p.Authn.SignOut(w, r, b, ref); err != nil {
		return err
	}
	return see(w, "/")
}

// needSetup hides the page from everybody once there is an owner.
func (p *Pages) needSetup(r *http.Request) error {
	open, err := p.setupOpen(r)
	if err == nil && !open {
		err = pageUnknown.New("there is no page here")
	}
	return err
}

func (p *Pages) setup(w http.ResponseWriter, r *http.Request, ref string) error {
	if err := p.needSetup(r); err != nil {
		return err
	}
	b, err := p.Authn.Browser(w, r)
	if err != nil {
		return err
	}
	return views.Setup(w, http.StatusOK, views.SetupView{Page: p.frame(ref), CSRF: b.FormToken()})
}

func (p *Pages) makeOwner(w http.ResponseWriter, r *http.Request, ref string) error {
	if err := p.needSetup(r); err != nil {
		return err
	}
	b, err := p.Authn.Form(w, r)
	if err != nil {
		return err
	}
	if err := p.Throttle.Take(SignIns, throttle.Address(r.RemoteAddr)); err != nil {
		return err
	}
	email := strings.TrimSpace(r.PostForm.Get("email"))
	err = p.Authn.SetUp(r, r.PostForm.Get("code"), email, ref)
	if e := problem.From(err); e != nil && (e.Kind == problem.Invalid || problem.Is(err, authn.SetupRefused)) {
		return views.Setup(w, e.Kind.Status(), views.SetupView{
			Page: p.frame(ref), CSRF: b.FormToken(), Email: email, Fault: fault(e),
		})
	}
	if err != nil {
		return err
	}
	return views.SetupDone(w, http.StatusOK, views.SetupDoneView{Page: p.frame(ref), Email: email, Endpoint: p.Public + "/mcp", Log: true})
}

// fault is a problem as one or two sentences.
func fault(e *problem.Error) string {
	text := ""
	for _, part := range []string{e.Detail, e.Fix} {
		if part != "" {
			text += strings.ToUpper(part[:1]) + part[1:] + ". "
		}
	}
	return strings.TrimSpace(text)
}

// Consent draws the question whether the app may act for the person.
func (p *Pages) Consent(w http.ResponseWriter, r *http.Request, ask authserver.Ask) error {
	target, err := views.NewTarget(ask.Redirect)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if ask.Fault != "" {
		status = http.StatusBadRequest
	}
	var device *views.Device
	if d := ask.Device; d != nil {
		device = &views.Device{Code: d.Code, By: d.By, Elsewhere: elsewhere(ask.From, r.RemoteAddr)}
	}
	return views.Consent(w, status, views.ConsentView{
		Page: p.frame(ask.Ref), Request: ask.Flow, CSRF: ask.FormToken,
		Client: p.client(ask.Client, target), Imitates: ask.Imitates, Device: device,
		Asked: time.Since(ask.Asked), From: p.from(ask.From), User: ask.Member.Email, Fault: ask.Fault,
		Switch:  "/login?" + url.Values{"switch": {"1"}, "flow": {ask.Flow}}.Encode(),
		Servers: servers(ask.Lines, ticks(ask.Given)), Known: servers(ask.Known, nil), Before: since(ask.Before), Later: ask.Later, More: ask.More,
		Keep: cmp.Or(ask.Given.Get("keep"), authserver.KeepMonth),
	})
}

// client is an app with what is known of it.
func (p *Pages) client(c authserver.Client, target views.Target) views.Client {
	shown := views.Client{Name: c.Name, Target: target, Domain: c.Domain()}
	if shown.Domain != "" {
		shown.Document = c.ID
	}
	if c.Approved {
		shown.Approved = p.frame("").Host
	}
	return shown
}

// since is how long ago something was; zero if it never was.
func since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(time.Since(t), 1)
}

// from says where a question came from. Behind a proxy every address is that of
// the proxy, which tells nothing.
func (p *Pages) from(address string) string {
	ip := net.ParseIP(address)
	switch {
	case ip == nil || !ip.IsLoopback():
		return address
	case strings.HasPrefix(p.Issuer, "http://"):
		return "this computer"
	}
	return ""
}

// elsewhere reports whether a device that asked from one address is known to be on
// another network than the reader. An address of IPv4 and one of IPv6 say nothing
// about each other.
func elsewhere(asked, here string) bool {
	a, b := throttle.Address(asked), throttle.Address(here)
	return a != b && strings.Contains(a, ":") == strings.Contains(b, ":")
}

// ticks are those of the answer that did not count, or what is ticked at first: what
// was asked, except what is hard to undo.
func ticks(given url.Values) func(authserver.Line, views.Risk) bool {
	return func(l authserver.Line, risk views.Risk) bool {
		if given != nil {
			return given.Get(l.Field()) == "yes"
		}
		return risk != views.HardToUndo
	}
}

// servers groups the lines by where their tools come from. ticked says which boxes
// are ticked at first; without it there are none.
func servers(lines []authserver.Line, ticked func(authserver.Line, views.Risk) bool) []views.Server {
	var grouped []views.Server
	for _, l := range lines {
		line := views.Line{Risk: views.Read}
		for _, t := range l.Tools {
			line.Risk = min(line.Risk, risks[t.Effect])
			line.Tools = append(line.Tools, views.Tool{Name: t.Name, Doc: t.Doc})
		}
		if line.Text = controls[l.Scope]; l.Origin != tool.Control || line.Text == "" {
			line.Text = doing[line.Risk]
		}
		if ticked != nil {
			line.Field, line.Off = l.Field(), !ticked(l, line.Risk)
		}
		name := l.Origin
		if name == tool.Control {
			name = "Gatehouse"
		}
		i := slices.IndexFunc(grouped, func(s views.Server) bool { return s.Name == name })
		if i < 0 {
			i, grouped = len(grouped), append(grouped, views.Server{Name: name})
		}
		grouped[i].Lines = append(grouped[i].Lines, line)
	}
	return grouped
}

var risks = map[tool.Effect]views.Risk{tool.Reads: views.Read, tool.Writes: views.Change, tool.Destroys: views.HardToUndo}

// doing is what tools of each risk do, in plain words (R1203).
var doing = map[views.Risk]string{
	views.Read:       "Look things up, without changing anything",
	views.Change:     "Create and change things",
	views.HardToUndo: "Do things that are hard to undo",
}

// controls are the scopes of the control plane in plain words.
var controls = map[string]string{
	"apps:read":     "See which apps are connected",
	"audit:read":    "See what every app did",
	"security:read": "See which keys sign access tokens",
	"clients:read":  "See which apps may ask people",
	"team:read":     "See which programs act for themselves",
	"servers:read":  "See which servers there are",
	"services:read": "See at which services your accounts are connected",
}

// Connect draws the page from which a person goes to a provider.
func (p *Pages) Connect(w http.ResponseWriter, _ *http.Request, c authserver.Connect) error {
	v := views.ConnectView{Page: p.frame(c.Ref), User: c.Member.Email, Name: c.Name, URL: c.URL, Request: c.Flow, CSRF: c.FormToken}
	if u, err := url.Parse(c.URL); err == nil {
		v.At = u.Host
	}
	if c.Client != nil {
		v.App = c.Client.Name
		v.Waits = true
	}
	return views.Connect(w, http.StatusOK, v)
}

// Device draws the page on which a person types the code that a device shows.
func (p *Pages) Device(w http.ResponseWriter, r *http.Request, ask authserver.CodeAsk) error {
	status := http.StatusOK
	if ask.Fault != "" {
		status = http.StatusBadRequest
	}
	return views.TypeCode(w, status, views.TypeCodeView{Page: p.frame(request.Of(r.Context()).Ref), CSRF: ask.FormToken, Code: ask.Code, Fault: ask.Fault})
}

// HandBack draws the page from which the browser goes back to the app, or the person
// to the device.
func (p *Pages) HandBack(w http.ResponseWriter, r *http.Request, a authserver.Answer) error {
	if a.Device {
		return views.DeviceDone(w, http.StatusOK, views.DeviceDoneView{Page: p.frame(a.Ref), Denied: a.Denied})
	}
	target, err := views.NewTarget(a.Location)
	if err != nil {
		return err
	}
	return views.HandBack(w, http.StatusOK, views.HandBackView{
		Page: p.frame(a.Ref), Client: views.Client{Name: a.Client.Name, Target: target}, Denied: a.Denied, First: a.First,
		Decided: time.Since(a.Decided), Left: max(time.Until(a.Until), 0),
	})
}
