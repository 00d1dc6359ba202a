package views

import (
	"errors"
	"html/template"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// A drawing is a page with one fixture.
type drawing struct {
	name string
	draw func(http.ResponseWriter) error
}

// hostile are texts that strangers might choose.
var hostile = []string{
	"Claude Code",
	"",
	`<script>alert("marker")</script>`,
	`"><img src=x onerror=marker>`,
	"' onfocus=marker autofocus '",
	"{{.CSRF}} ${marker} &lt;marker&gt; </title></textarea><!--",
	"evil\u202egnp.exe\u2066marker\u2069",
	"Cla\u200bude\u200d \ufeffCo\u00adde\x00\x1b[31m",
	strings.Repeat("W", 300),
	strings.Repeat("word ", 60),
	"👩‍👩‍👧‍👦🏴‍☠️ 日本語のアプリ عربى",
	"javascript:marker()",
}

func target(t testing.TB, uri string) Target {
	t.Helper()
	to, err := NewTarget(uri)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// drawings are all pages, with every branch of their templates, said by s.
func drawings(t testing.TB, s string) []drawing {
	p := Page{Product: "Acme Tools", Host: "auth.acme.dev", Ref: "req_7Q2M9K", Dev: true}
	bare := Page{Product: "Gatehouse", Host: "localhost:3000"}
	loopback := Client{Name: s, Target: target(t, "http://127.0.0.1:43112/callback?code=abc&state=s%22%3E1")}
	app := Client{Name: s, Target: target(t, "cursor://anysphere.cursor-mcp/oauth/callback?code=abc")}
	web := Client{Name: s, Target: target(t, "https://app.example.net/oauth/callback?a=1&code=x")}
	servers := []Server{
		{s, []Line{
			{Text: s, Risk: HardToUndo, Tools: []Tool{{s, s}}, Field: "scope:" + s},
			{Text: "Create and edit draft invoices", Risk: Change, Tools: []Tool{{"create_draft", "Create a draft"}, {"update_draft", ""}}, Field: "scope:b", Off: true},
			{Text: "See invoices, customers and payments", Risk: Read},
		}},
		{"github", []Line{{Text: "Read code and issues you can see", Risk: Read, Tools: []Tool{{"list_issues", "List the issues of a repository."}}}}},
	}
	consent := ConsentView{
		Page: p, Request: "h_" + s, CSRF: s, Client: loopback, Asked: 12 * time.Second, From: "203.0.113.24",
		User: "dana@acme.dev", Switch: "/login?switch=1&flow=f", Servers: servers,
	}
	ask := func(change func(*ConsentView)) func(http.ResponseWriter) error {
		v := consent
		change(&v)
		return func(w http.ResponseWriter) error { return Consent(w, 200, v) }
	}
	shown := func(v ErrorView) func(http.ResponseWriter) error {
		return func(w http.ResponseWriter) error { Error(w, 400, v); return nil }
	}
	return []drawing{
		{"signin", func(w http.ResponseWriter) error { return SignIn(w, 200, SignInView{Page: bare, CSRF: s, Email: s}) }},
		{"signin waiting", func(w http.ResponseWriter) error {
			return SignIn(w, 422, SignInView{Page: p, Flow: "f", CSRF: "c", Waiting: &web, Email: s, Fault: "That didn’t work. " + s, Log: true})
		}},
		{"signin local", func(w http.ResponseWriter) error {
			return SignIn(w, 200, SignInView{Page: p, Flow: "f", Waiting: &loopback})
		}},
		{"sent", func(w http.ResponseWriter) error {
			return SignInSent(w, 200, SignInSentView{Page: p, Email: s, Again: "/login?flow=f", Lasts: 15 * time.Minute})
		}},
		{"sent log", func(w http.ResponseWriter) error {
			return SignInSent(w, 200, SignInSentView{Page: p, Email: s, Again: "/login", Lasts: 15 * time.Minute, Log: true})
		}},
		{"link", func(w http.ResponseWriter) error {
			return SignInLink(w, 200, SignInLinkView{Page: p, Token: s, CSRF: s, Email: s})
		}},
		{"link other", func(w http.ResponseWriter) error {
			return SignInLink(w, 200, SignInLinkView{Page: p, Token: "t", Email: "bob@acme.dev", Current: s})
		}},
		{"signedin", func(w http.ResponseWriter) error { return SignedIn(w, 200, SignedInView{p, s}) }},
		{"setup", func(w http.ResponseWriter) error { return Setup(w, 200, SetupView{Page: p, CSRF: s, Email: s}) }},
		{"setup fault", func(w http.ResponseWriter) error {
			return Setup(w, 422, SetupView{Page: p, Fault: "This is not the code that the server printed. " + s})
		}},
		{"setupdone", func(w http.ResponseWriter) error {
			return SetupDone(w, 200, SetupDoneView{p, s, "http://localhost:3000/mcp", true})
		}},
		{"setupdone mail", func(w http.ResponseWriter) error { return SetupDone(w, 200, SetupDoneView{Page: p, Email: s}) }},
		{"clients", func(w http.ResponseWriter) error {
			return Clients(w, 200, ClientsView{
				Page: p, CSRF: s, User: s, Done: s, Fault: s, Made: MadeSecret{s, s, s}, Filters: []Filter{{"All", "/admin/clients", true}, {"Blocked", "/admin/clients?state=blocked", false}},
				Clients: []KnownClient{
					{ID: s, Name: s, Kind: "Registered itself", Places: []string{s}, People: 1, Used: time.Hour, Created: time.Hour, From: "203.0.113.0/24"},
					{ID: "https://a.example/c.json", Name: s, Kind: "Known by a document of its maker", Domain: "a.example", Places: []string{"a.example", "A program on this computer"}, Created: time.Hour},
					{ID: "x", Name: "", Kind: "Added by an administrator", Approved: "auth.acme.dev", Created: time.Hour}, {ID: "y", Name: s, Blocked: true, Reason: s, Created: time.Hour},
				},
				Next: "/admin/clients?after=x", Policy: []string{s}, Given: Given{s, s, true}, Terminal: s,
			})
		}},
		{"clients none", func(w http.ResponseWriter) error { return Clients(w, 200, ClientsView{Page: p}) }},
		{"client", func(w http.ResponseWriter) error {
			return ClientPage(w, 200, ClientView{Page: p, CSRF: s, User: s, Done: s, Made: MadeSecret{s, s, s}, Terminal: s, Known: KnownClient{
				ID: s, Name: s, Kind: s, Domain: s, Places: []string{s}, People: 2, Used: time.Hour, Created: time.Hour, From: s, Redirects: []string{s, s}, Fetched: time.Minute, Metadata: s, Secret: true,
			}})
		}},
		{"client blocked", func(w http.ResponseWriter) error {
			return ClientPage(w, 200, ClientView{Page: p, Known: KnownClient{ID: "x", Name: s, Blocked: true, Reason: s, Created: time.Hour, Fixed: true}})
		}},
		{"consent loopback", ask(func(v *ConsentView) {})},
		{"consent app link", ask(func(v *ConsentView) { v.Client, v.Fault = app, "Tick the box if you started this." })},
		{"consent web", ask(func(v *ConsentView) { v.Client, v.Servers = web, servers[:1] })},
		{"consent domain", ask(func(v *ConsentView) {
			v.Client.Document, v.Client.Domain = "https://claude.example/client.json", "claude.example"
		})},
		{"consent domain web", ask(func(v *ConsentView) {
			v.Client, v.Client.Document, v.Client.Domain = web, "https://app.example.net/client.json", "app.example.net"
		})},
		{"consent imitates", ask(func(v *ConsentView) { v.Imitates = true })},
		{"consent approved", ask(func(v *ConsentView) { v.Client, v.Client.Approved = web, "auth.acme.dev" })},
		{"consent wider", ask(func(v *ConsentView) {
			v.Servers, v.Known, v.Before, v.Keep = servers[:1], servers[1:], 50*time.Hour, "hour"
		})},
		{"consent nothing", ask(func(v *ConsentView) { v.Servers = nil })},
		{"consent many", ask(func(v *ConsentView) {
			v.Servers = append([]Server{{"jira", servers[0].Lines}, {"linear", servers[1].Lines}}, servers...)
		})},
		{"handback", func(w http.ResponseWriter) error {
			return HandBack(w, 200, HandBackView{Page: p, Client: loopback, First: true})
		}},
		{"handback web", func(w http.ResponseWriter) error {
			return HandBack(w, 200, HandBackView{Page: p, Client: web, First: true})
		}},
		{"handback again", func(w http.ResponseWriter) error {
			return HandBack(w, 200, HandBackView{Page: p, Client: loopback, Decided: 62 * time.Second, Left: 58 * time.Second})
		}},
		{"handback expired", func(w http.ResponseWriter) error {
			return HandBack(w, 200, HandBackView{Page: p, Client: app, Decided: time.Hour})
		}},
		{"handback denied", func(w http.ResponseWriter) error {
			return HandBack(w, 200, HandBackView{Page: p, Client: loopback, Denied: true})
		}},
		{"handback denied web", func(w http.ResponseWriter) error {
			return HandBack(w, 200, HandBackView{Page: p, Client: web, Denied: true})
		}},
		{"me", func(w http.ResponseWriter) error {
			can := []Can{{s, []Risk{Read, Change, HardToUndo}}, {"github", []Risk{Read}}}
			return Me(w, 200, MeView{Page: p, CSRF: s, User: s, Done: s, Apps: []App{
				{ID: "cns_1", Client: loopback, Can: can, Allowed: time.Hour, Seen: time.Minute, Left: 29 * 24 * time.Hour},
				{ID: "cns_2", Client: web, Allowed: time.Hour, SignedOut: true, Replayed: time.Hour},
			}, Ended: []EndedApp{{s, time.Hour, "you removed it"}}})
		}},
		{"connect", func(w http.ResponseWriter) error {
			return Connect(w, 200, ConnectView{Page: p, User: s, Name: s, At: s, URL: "https://login.crm.example/authorize?state=x&scope=a+b", Waits: true, App: s})
		}},
		{"connect again", func(w http.ResponseWriter) error {
			return Connect(w, 200, ConnectView{Page: bare, User: "dana@acme.dev", Name: "crm", At: "login.crm.example", URL: "https://login.crm.example/authorize?state=x"})
		}},
		{"connect done", func(w http.ResponseWriter) error {
			return Connect(w, 200, ConnectView{Page: bare, User: "dana@acme.dev", Name: "crm"})
		}},
		{"connections", func(w http.ResponseWriter) error {
			return Connections(w, 200, ConnectionsView{Page: p, CSRF: s, User: s, Done: s, Connections: []Connection{
				{ID: "ugr_1", Name: "crm", State: "connected", Scopes: []string{s, "records.write"}, Connected: 50 * time.Hour, Used: time.Minute, Servers: []string{"crm", "crm-reports"}},
				{ID: "ugr_2", Name: "knowledge", State: "lost", Reason: s, Connected: time.Hour, Servers: []string{"knowledge"}},
				{Name: "tickets"},
			}})
		}},
		{"connections none", func(w http.ResponseWriter) error {
			return Connections(w, 200, ConnectionsView{Page: bare, CSRF: s, User: s})
		}},
		{"me empty", func(w http.ResponseWriter) error { return Me(w, 200, MeView{Page: bare, CSRF: s, User: s}) }},
		{"stop", func(w http.ResponseWriter) error {
			return Stop(w, 200, StopView{Page: p, CSRF: s, User: s, Apps: []App{{ID: "cns_1", Client: loopback}, {ID: "cns_2", Client: web}}})
		}},
		{"stop nothing", func(w http.ResponseWriter) error { return Stop(w, 200, StopView{Page: bare, CSRF: s, User: s}) }},
		{"home setup", func(w http.ResponseWriter) error { return Home(w, 200, HomeView{Page: bare, Setup: true}) }},
		{"home", func(w http.ResponseWriter) error {
			return Home(w, 200, HomeView{Page: p, Endpoints: []Endpoint{{"All servers", "http://localhost:3000/mcp"}, {s, "http://localhost:3000/s/x/mcp"}}})
		}},
		{"home signed in", func(w http.ResponseWriter) error { return Home(w, 200, HomeView{Page: p, User: s, CSRF: s}) }},
		{"error", shown(ErrorView{
			Page: p, Title: "This app asked to be sent somewhere it didn’t register.", Why: s,
			Do: []string{"Remove the server in the app and add it again.", s}, Code: "REDIRECT_MISMATCH",
		})},
		{"codes", func(w http.ResponseWriter) error {
			return Codes(w, 200, CodesView{p, []problem.Code{{Name: "X", Why: s}, {Name: "Y", About: s, Fix: s}}})
		}},
		{"code", func(w http.ResponseWriter) error {
			return Code(w, 200, CodeView{p, problem.Code{Name: "X", Kind: problem.Unavailable, Why: s, Fix: s, About: s}})
		}},
		{"code short", func(w http.ResponseWriter) error {
			return Code(w, 200, CodeView{bare, problem.Code{Name: "X", Why: "it is"}})
		}},
		{"error bare", shown(ErrorView{Page: bare, Title: "There is nothing here."})},
	}
}

func drawn(t *testing.T, d drawing) (*httptest.ResponseRecorder, string) {
	t.Helper()
	w := httptest.NewRecorder()
	if err := d.draw(w); err != nil {
		t.Fatalf("%s: %v", d.name, err)
	}
	return w, w.Body.String()
}

// R1214, R1215: whatever strangers write stays text.
func TestHostileTextStaysText(t *testing.T) {
	tag, quoted, live := regexp.MustCompile(`<[^>]*>`), regexp.MustCompile(`"[^"]*"`), regexp.MustCompile(` on\w+=| style=|marker`)
	for _, s := range hostile {
		for _, d := range drawings(t, s) {
			_, html := drawn(t, d)
			for _, never := range []string{"<script", "<img", "<style", "ZgotmplZ", "%!"} {
				if strings.Contains(html, never) {
					t.Errorf("%s with %.40q: the page holds %q", d.name, s, never)
				}
			}
			if shown := tag.ReplaceAllString(html, ""); strings.ContainsAny(shown, "\u202e\u2066\u200b\u00ad\ufeff\x1b\ufffd") {
				t.Errorf("%s with %.40q: the page shows what cannot be seen", d.name, s)
			}
			for _, markup := range tag.FindAllString(html, -1) {
				if live.MatchString(quoted.ReplaceAllString(markup, `""`)) {
					t.Errorf("%s with %.40q: text became markup: %s", d.name, s, markup)
				}
			}
		}
	}
}

// R1215, WCAG 2.2: what every page owes its reader.
func TestEveryPageHasItsFrame(t *testing.T) {
	for _, d := range drawings(t, "Claude Code") {
		_, html := drawn(t, d)
		for want, times := range map[string]int{
			`<html lang="en" dir="ltr">`: 1, "<h1": 1, `<main id="main"`: 1, `href="#main"`: 1, "<footer>": 1, "<title>": 1, "</html>": 1,
		} {
			if n := strings.Count(html, want); n != times {
				t.Errorf("%s: %q stands there %d times, not %d", d.name, want, n, times)
			}
		}
		if n := strings.Count(html, " autofocus"); n > 1 {
			t.Errorf("%s: %d elements want the focus", d.name, n)
		}
		ids := map[string]bool{}
		for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(html, -1) {
			if ids[m[1]] {
				t.Errorf("%s: id %s stands there twice", d.name, m[1])
			}
			ids[m[1]] = true
		}
		for _, m := range regexp.MustCompile(` (?:aria-describedby|for)="([^"]*)"`).FindAllStringSubmatch(html, -1) {
			for id := range strings.FieldsSeq(m[1]) {
				if !ids[id] {
					t.Errorf("%s: %s names id %s, which is not there", d.name, m[0], id)
				}
			}
		}
	}
}

func TestReferenceAndDevelopmentModeAreOnEveryPage(t *testing.T) {
	for _, d := range drawings(t, "Claude Code") {
		_, html := drawn(t, d)
		withAll := strings.Contains(html, "auth.acme.dev")
		if strings.Contains(html, "Reference <code>req_7Q2M9K</code>") != withAll {
			t.Errorf("%s: the footer lacks its reference, or has one without a flow", d.name)
		}
		if strings.Contains(html, "Development mode: anyone on this computer is signed in as dev@localhost.") != withAll {
			t.Errorf("%s: the bar of development mode is missing, or there without it", d.name)
		}
	}
}

// Second person, verbs on buttons, no begging, no blame.
func TestCopyKeepsItsRules(t *testing.T) {
	banned := regexp.MustCompile(`(?i)\b(please|oops|invalid|submit|ok|click|successful(ly)?)\b`)
	markup := regexp.MustCompile(`<[^>]*>`)
	for _, d := range drawings(t, "Claude Code") {
		_, html := drawn(t, d)
		if m := banned.FindString(markup.ReplaceAllString(html, " ")); m != "" {
			t.Errorf("%s: the page says %q", d.name, m)
		}
	}
}

// Attack 64, R1214: no frames, no cache, no referrer, no script.
func TestSecurityHeadersAreOnEveryPage(t *testing.T) {
	for _, d := range drawings(t, "Claude Code") {
		w, _ := drawn(t, d)
		h := w.Header()
		form := "'self'"
		if strings.HasPrefix(d.name, "handback") {
			form = "'none'"
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action " + form + "; base-uri 'none'; frame-ancestors 'none'",
			"X-Frame-Options":         "DENY",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer",
			"Cache-Control":           "no-store",
			"Content-Type":            "text/html; charset=utf-8",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, not %q", d.name, name, got, want)
			}
		}
		inFlow := !regexp.MustCompile("^(setup|home|me|stop|connections|client)").MatchString(d.name)
		if got := h.Get("Cross-Origin-Opener-Policy"); inFlow != (got == "") {
			t.Errorf("%s: Cross-Origin-Opener-Policy is %q", d.name, got)
		}
	}
}

func TestStatusIsTheCallers(t *testing.T) {
	w := httptest.NewRecorder()
	Error(w, http.StatusForbidden, ErrorView{Title: "You can’t do this."})
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d", w.Code)
	}
}

func TestFailingTemplateWritesNothing(t *testing.T) {
	w := httptest.NewRecorder()
	if err := HandBack(w, 200, HandBackView{First: true}); err == nil {
		t.Error("a hand-back without an address was drawn")
	}
	if w.Body.Len() > 0 || len(w.Header()) > 0 {
		t.Errorf("half a page was written: %v %q", w.Header(), w.Body)
	}
}

func TestMissingKeysFail(t *testing.T) {
	for name, set := range templates {
		if err := set.Execute(httptest.NewRecorder(), map[string]any{"Product": "x"}); err == nil {
			t.Errorf("%s: a key that is not there was drawn as nothing", name)
		}
	}
}

// A page that fails still has a page for its failure.
func TestErrorPageCannotFail(t *testing.T) {
	whole := templates["error"]
	t.Cleanup(func() { templates["error"] = whole })
	templates["error"] = template.Must(template.New("").Funcs(template.FuncMap{
		"fail": func() (string, error) { return "", errors.New("broken") },
	}).Parse(`half a page {{fail}}`))
	w := httptest.NewRecorder()
	Error(w, 400, ErrorView{Page: Page{Ref: "req_1"}})
	if w.Code != 500 || strings.Contains(w.Body.String(), "half") || !strings.Contains(w.Body.String(), "req_1") || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %q", w.Code, w.Header(), w.Body)
	}
}

func TestProblemPageKeepsTheCauseToItself(t *testing.T) {
	code := problem.Code{Name: "GONE", Kind: problem.NotFound, Why: "it may have been cleaned up", Fix: "add it again!"}
	v := FromProblem(Page{Ref: "req_1"}, code.New("this app isn't known here").Because(errors.New("secret")))
	w := httptest.NewRecorder()
	Error(w, 404, v)
	for _, want := range []string{"This app isn&#39;t known here.", "It may have been cleaned up.", "Add it again!", "GONE"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(w.Body.String(), "secret") {
		t.Error("the page shows the cause")
	}
}
