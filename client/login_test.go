package client

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R901 to R903: from nothing to tokens, and what is sent where.
func TestLoginFromNothing(t *testing.T) {
	f, c, b := newFake(t), newClient(t), new(browser)
	var steps []string
	var shown string
	got, err := c.Login(short(t), f.server(), LoginOptions{
		Open: b.open, Announce: func(u string) { shown = u }, Step: func(name, about string) { steps = append(steps, name+" "+about) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Issuer != f.URL || got.ClientID != "client-1" || got.Resource != f.server() || got.Scope != "mcp:tools" || !got.Renews || got.Token != "acce…fake" || got.Expires.IsZero() {
		t.Errorf("signed in as %+v", got)
	}
	if want := []string{"discover " + f.URL, "register client-1", "authorize mcp:tools", "exchange acce…fake"}; !reflect.DeepEqual(steps, want) {
		t.Errorf("steps %q", steps)
	}
	if r := f.register; r.ApplicationType != "native" || r.TokenAuthMethod != "none" || r.ClientName != "test" || len(r.RedirectURIs) != 1 || !strings.HasPrefix(r.RedirectURIs[0], "http://127.0.0.1:") {
		t.Errorf("registered %+v", r)
	}
	if !strings.HasPrefix(shown, f.URL+"/authorize?") {
		t.Errorf("the person was shown %q", shown)
	}
	for path, form := range f.forms {
		if form.Get("resource") != f.server() || form.Get("client_id") != "client-1" {
			t.Errorf("%s got %v", path, form)
		}
	}
	if q := f.forms["/authorize"]; q.Get("scope") != "mcp:tools" || len(q.Get("state")) < 40 || q.Get("code_challenge_method") != "S256" {
		t.Errorf("authorize got %v", q)
	}
	if b.status != 200 || !strings.Contains(b.page, "signed in to") || !strings.Contains(b.page, "terminal") {
		t.Errorf("the page says %d %s", b.status, b.page)
	}
}

// R907: nobody else on the computer reads the file, and nothing but it is left.
func TestCredentialsArePrivate(t *testing.T) {
	c := signedIn(t, newFake(t))
	for path, want := range map[string]os.FileMode{c.file(): 0o600, c.file() + ".lock": 0o600, strings.TrimSuffix(c.file(), "/credentials.json"): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if entries, _ := os.ReadDir(strings.TrimSuffix(c.file(), "/credentials.json")); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	logins, err := c.Logins()
	if err != nil || len(logins) != 1 {
		t.Fatal(logins, err)
	}
	if text, _ := json.Marshal(logins); strings.Contains(string(text), "number") || strings.Contains(string(text), "refresh-") {
		t.Errorf("a token is shown: %s", text)
	}
}

// R901: what was registered once is used again, with its issuer only.
func TestRegistrationIsReused(t *testing.T) {
	f := newFake(t)
	c := signedIn(t, f)
	if _, err := c.Login(short(t), f.server(), LoginOptions{Open: new(browser).open}); err != nil || f.count("POST /register") != 1 {
		t.Errorf("registered %d times, %v", f.count("POST /register"), err)
	}
	other := newFake(t)
	if _, err := c.Login(short(t), other.server(), LoginOptions{Open: new(browser).open}); err != nil || other.count("POST /register") != 1 {
		t.Errorf("registered %d times with the other issuer, %v", other.count("POST /register"), err)
	}
}

// A server that has forgotten us sends nobody back: the next login registers
// anew. A no of the person changes nothing.
func TestFailedLoginForgetsTheRegistration(t *testing.T) {
	f := newFake(t)
	c := signedIn(t, f)
	f.deny = "access_denied"
	c.Login(short(t), f.server(), LoginOptions{Open: new(browser).open})
	if cr, _ := c.load(); cr.Clients[f.URL].ClientID == "" {
		t.Error("a no of the person dropped the registration")
	}
	_, err := c.Login(short(t), f.server(), LoginOptions{Timeout: 10 * time.Millisecond})
	if !errors.Is(err, ErrAuthentication) {
		t.Errorf("nobody came back, and the error is %v", err)
	}
	cr, _ := c.load()
	if cr.Clients[f.URL].ClientID != "" || cr.Logins[f.server()].AccessToken == "" {
		t.Errorf("left in the file: %+v", cr)
	}
}

// Servers that honest clients meet, each a little different.
func TestLoginWithDifferentServers(t *testing.T) {
	tests := []struct {
		name   string
		change func(*fake)
		opts   LoginOptions
		scope  string // asked for
	}{
		{"metadata at the root", func(f *fake) { f.challenge, f.prmPath = "Bearer", "/.well-known/oauth-protected-resource" }, LoginOptions{}, "a b"},
		{"metadata at the root, of the origin", func(f *fake) {
			f.challenge, f.prmPath, f.prm.Resource = "Bearer", "/.well-known/oauth-protected-resource", f.URL
		}, LoginOptions{}, "a b"},
		{"metadata guessed", func(f *fake) { f.challenge = "" }, LoginOptions{}, "a b"},
		{"older spelling of the challenge (C17)", func(f *fake) {
			f.challenge = `Bearer resource_metadata_uri="` + f.URL + f.prmPath + `"`
		}, LoginOptions{}, "a b"},
		{"no metadata of the resource (2025-03-26)", func(f *fake) { f.challenge, f.prmPath = "Bearer", "" }, LoginOptions{}, ""},
		{"resource with a slash", func(f *fake) { f.prm.Resource += "/" }, LoginOptions{}, "mcp:tools"},
		{"OpenID name", func(f *fake) { f.asPath = "/.well-known/openid-configuration" }, LoginOptions{}, "mcp:tools"},
		{"issuer with a path", func(f *fake) {
			f.as.Issuer, f.prm.AuthorizationServers = f.URL+"/t1", []string{f.URL + "/t1"}
			f.iss, f.asPath = []string{f.URL + "/t1"}, "/t1/.well-known/openid-configuration"
		}, LoginOptions{}, "mcp:tools"},
		{"iss without a promise", func(f *fake) { f.as.IssParameter = false }, LoginOptions{}, "mcp:tools"},
		{"neither iss nor promise", func(f *fake) { f.as.IssParameter, f.iss = false, nil }, LoginOptions{}, "mcp:tools"},
		{"offline_access offered", func(f *fake) { f.as.ScopesSupported = []string{"offline_access"} }, LoginOptions{}, "mcp:tools offline_access"},
		{"no scopes anywhere", func(f *fake) { f.challenge, f.prm.ScopesSupported = "Bearer", nil }, LoginOptions{}, ""},
		{"own scopes", func(f *fake) {}, LoginOptions{Scope: "x"}, "x"},
		{"registration answers 200 (C02)", func(f *fake) {
			f.override["/register"] = func(w http.ResponseWriter, r *http.Request) {
				writeJSON(w, 200, oauth.Registration{ClientID: "client-1"})
			}
		}, LoginOptions{}, "mcp:tools"},
		{"open at first", func(f *fake) {
			f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {}
		}, LoginOptions{}, "a b"},
		{"another first message wanted", func(f *fake) {
			f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400) }
		}, LoginOptions{}, "a b"},
		{"no metadata at all (2025-03-26)", func(f *fake) { f.challenge, f.prmPath, f.asPath, f.iss = "Bearer", "", "", nil }, LoginOptions{}, ""},
		{"registered by hand", func(f *fake) { f.as.RegistrationEndpoint = "" }, LoginOptions{ClientID: "hand"}, "mcp:tools"},
	}
	for _, tt := range tests {
		f, c, b := newFake(t), newClient(t), new(browser)
		tt.change(f)
		tt.opts.Open = b.open
		if _, err := c.Login(short(t), f.server(), tt.opts); err != nil || b.status != 200 {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := f.forms["/authorize"].Get("scope"); got != tt.scope {
			t.Errorf("%s: asked for %q, want %q", tt.name, got, tt.scope)
		}
	}
}

// What is refused, before anything
// secret is sent.
func TestLoginRefusesServersThatLie(t *testing.T) {
	garbage := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }
	elsewhere := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }
	tests := []struct {
		name   string
		change func(*fake)
		why    string
		opened bool // the person's browser was sent somewhere
	}{
		{"other issuer", func(f *fake) { f.as.Issuer = "https://as.example" }, "claims to be", false},
		{"issuer with a slash", func(f *fake) { f.as.Issuer += "/" }, "claims to be", false},
		{"no PKCE", func(f *fake) { f.as.ChallengeMethods = nil }, "PKCE", false},
		{"plain PKCE", func(f *fake) { f.as.ChallengeMethods = []string{"plain"} }, "PKCE", false},
		{"script as sign-in page", func(f *fake) { f.as.AuthorizationEndpoint = "javascript:alert(1)" }, "no safe address", false},
		{"shell as sign-in page", func(f *fake) { f.as.AuthorizationEndpoint = "$(touch x)" }, "no safe address", false},
		{"file as sign-in page", func(f *fake) { f.as.AuthorizationEndpoint = "file:///etc/passwd" }, "no safe address", false},
		{"http sign-in page elsewhere", func(f *fake) { f.as.AuthorizationEndpoint = "http://as.example/a" }, "https", false},
		{"token endpoint elsewhere", func(f *fake) { f.as.TokenEndpoint = "https://evil.example/token" }, "another origin", false},
		{"token endpoint on another port", func(f *fake) { f.as.TokenEndpoint = "http://127.0.0.1:1/token" }, "another origin", false},
		{"registration elsewhere", func(f *fake) { f.as.RegistrationEndpoint = "https://evil.example/register" }, "another origin", false},
		{"revocation elsewhere", func(f *fake) { f.as.RevocationEndpoint = "https://evil.example/revoke" }, "another origin", false},
		{"no token endpoint", func(f *fake) { f.as.TokenEndpoint = "" }, "no token endpoint", false},
		{"other resource", func(f *fake) { f.prm.Resource = f.URL + "/other" }, "describes", false},
		{"resource of a parent", func(f *fake) { f.prm.Resource = f.URL }, "describes", false},
		{"no authorization server", func(f *fake) { f.prm.AuthorizationServers = nil }, "no authorization server", false},
		{"issuer over http", func(f *fake) { f.prm.AuthorizationServers = []string{"http://as.example"} }, "https", false},
		{"metadata over http", func(f *fake) { f.challenge = `Bearer resource_metadata="http://as.example/prm"` }, "https", false},
		{"named metadata missing", func(f *fake) { f.prmPath = "" }, "nothing at", false},
		{"no server metadata", func(f *fake) { f.asPath = "" }, "publishes no metadata", false},
		{"garbage as resource metadata", func(f *fake) { f.override[f.prmPath] = garbage }, "not the JSON", false},
		{"garbage as server metadata", func(f *fake) { f.override[f.asPath] = garbage }, "not the JSON", false},
		{"redirected metadata", func(f *fake) { f.override[f.asPath] = elsewhere }, "status 302", false},
		{"redirected registration", func(f *fake) { f.override["/register"] = elsewhere }, "status 302", false},
		{"endless metadata", func(f *fake) {
			f.override[f.asPath] = func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			}
		}, "longer than allowed", false},
		{"no registration", func(f *fake) { f.as.RegistrationEndpoint = "" }, "register themselves", false},
		{"registration without id", func(f *fake) {
			f.override["/register"] = func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 201, struct{}{}) }
		}, "no client_id", false},
		{"registration refused", func(f *fake) {
			f.override["/register"] = func(w http.ResponseWriter, r *http.Request) {
				writeJSON(w, 400, oauth.ErrorResponse{Error: "invalid_redirect_uri"})
			}
		}, "invalid_redirect_uri", false},
		{"wrong iss", func(f *fake) { f.iss = []string{"https://as.example"} }, "came back from", true},
		{"wrong iss without a promise", func(f *fake) { f.as.IssParameter, f.iss = false, []string{"https://as.example"} }, "came back from", true},
		{"two iss", func(f *fake) { f.iss = []string{f.URL, f.URL} }, "came back from", true},
		{"no iss though promised", func(f *fake) { f.iss = nil }, "promised", true},
		{"error with a wrong iss", func(f *fake) { f.deny, f.iss = "access_denied", []string{"https://as.example"} }, "came back from", true},
		{"denied", func(f *fake) { f.deny = "access_denied" }, "you did not allow it", true},
		{"refused", func(f *fake) { f.deny = "server_error" }, "server_error: no [31m<b>", true},
		{"redirected token endpoint", func(f *fake) { f.override["/token"] = elsewhere }, "status 302", true},
		{"garbage as token", func(f *fake) { f.override["/token"] = garbage }, "bearer token", true},
		{"token of another type", func(f *fake) {
			f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
				writeJSON(w, 200, oauth.TokenResponse{AccessToken: "x", TokenType: "mac"})
			}
		}, "bearer token", true},
		{"token that breaks the header", func(f *fake) {
			f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
				writeJSON(w, 200, oauth.TokenResponse{AccessToken: "x\r\nA: b", TokenType: "Bearer"})
			}
		}, "bearer token", true},
		{"no challenge at all", func(f *fake) {
			f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }
		}, "status 500", false},
		{"no sign-in asked for", func(f *fake) {
			f.prmPath = ""
			f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {}
		}, "without a token", false},
		{"no sign-in described", func(f *fake) {
			f.prmPath = ""
			f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400) }
		}, "describes no sign-in", false},
	}
	for _, tt := range tests {
		f, c, b := newFake(t), newClient(t), new(browser)
		tt.change(f)
		opened := false
		_, err := c.Login(short(t), f.server(), LoginOptions{Open: func(u string) error { opened = true; return b.open(u) }})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Why, tt.why) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.why)
		}
		if (tt.name == "denied") != errors.Is(err, ErrPermission) {
			t.Errorf("%s is of the wrong kind: %v", tt.name, err)
		}
		if opened != tt.opened {
			t.Errorf("%s: browser opened: %v", tt.name, opened)
		}
		if tt.opened && (b.status != 400 || strings.Contains(b.page, "You’re signed in") || strings.Contains(b.page, "<b>")) {
			t.Errorf("%s: the page says %d %s", tt.name, b.status, b.page)
		}
		if strings.Contains(tt.name, "iss") && f.count("POST /token") != 0 {
			t.Errorf("%s: the code was sent", tt.name)
		}
		if f.count("GET /elsewhere")+f.count("POST /elsewhere") != 0 {
			t.Errorf("%s: a redirect was followed", tt.name)
		}
		if cr, _ := c.load(); len(cr.Logins)+len(cr.Clients) != 0 {
			t.Errorf("%s: stored %+v", tt.name, cr)
		}
	}
}

// An endpoint on another origin may be allowed by name.
func TestEndpointElsewhereMayBeAllowed(t *testing.T) {
	f, other := newFake(t), newFake(t)
	f.as.TokenEndpoint = other.URL + "/token"
	other.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 200, oauth.TokenResponse{AccessToken: "x", TokenType: "Bearer"})
	}
	c := New(Options{Credentials: t.TempDir() + "/c.json", EndpointOrigins: []string{other.URL}})
	if _, err := c.Login(short(t), f.server(), LoginOptions{Open: new(browser).open}); err != nil {
		t.Error(err)
	}
}

// A secret that the issuer insists on goes with every request of the client, in
// the way the registration says.
func TestClientSecretIsUsedAsRegistered(t *testing.T) {
	for method, want := range map[string]string{"client_secret_basic": "Basic Y2xpZW50LTE6cyUyQnM=", "client_secret_post": ""} {
		f := newFake(t)
		f.override["/register"] = func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, 201, oauth.Registration{ClientID: "client-1", ClientSecret: "s+s", TokenAuthMethod: method})
		}
		var got *http.Request
		f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
			r.ParseForm()
			got = r
			f.token(w, r)
		}
		signedIn(t, f)
		if got.Header.Get("Authorization") != want || (want == "") != (got.PostForm.Get("client_secret") == "s+s") {
			t.Errorf("%s: %v %v", method, got.Header, got.PostForm)
		}
	}
}

// The listener answers the one request with the right state and says nothing to
// others; the page waits until it is true.
func TestCallbackAnswersOnlyWhoKnowsTheState(t *testing.T) {
	b, err := listen("")
	if err != nil {
		t.Fatal(err)
	}
	exchanged := make(chan struct{})
	result := b.serve("secret", "gw.example", func(url.Values) error { <-exchanged; return nil })
	get := func(method, path string) (int, string) {
		req, _ := http.NewRequest(method, strings.TrimSuffix(b.redirect(), "/callback")+path, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	for _, path := range []string{"/", "/callback", "/callback?state=", "/callback?state=wrong&code=x", "/callback?state=secret&state=secret", "/other?state=secret", "/callback/?state=secret"} {
		if status, body := get("GET", path); status != 404 || strings.Contains(body, "gw.example") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := get("POST", "/callback?state=secret"); status != 404 {
		t.Errorf("POST: %d", status)
	}
	pages := make(chan string)
	for range 2 { // a browser that loads twice gets the same page twice
		go func() {
			_, body := get("GET", "/callback?state=secret&code=x")
			pages <- body
		}()
	}
	select {
	case body := <-pages:
		t.Errorf("the page came before the tokens: %s", body)
	case <-time.After(30 * time.Millisecond):
	}
	close(exchanged)
	for range 2 {
		if body := <-pages; !strings.Contains(body, "You’re signed in to gw.example") {
			t.Errorf("page: %s", body)
		}
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
	b.close()
	if _, err := http.Get(b.redirect()); err == nil {
		t.Error("still listening")
	}
}

// R902: a port that is taken is no obstacle.
func TestCallbackTakesAnotherPort(t *testing.T) {
	a, err := listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	b, err := listen(a.redirect())
	if err != nil || b.redirect() == a.redirect() || !strings.HasPrefix(b.redirect(), "http://127.0.0.1:") {
		t.Fatalf("%v, %v", b, err)
	}
	port := b.redirect()
	b.close()
	again, err := listen(port)
	if err != nil || again.redirect() != port {
		t.Errorf("the port of the registration is not used again: %v, %v", again, err)
	}
	again.close()
}

func TestServerURL(t *testing.T) {
	tests := []struct{ in, want string }{
		{"gw.example", "https://gw.example/mcp"},
		{"GW.example:8443/s/a/mcp", "https://gw.example:8443/s/a/mcp"},
		{"https://gw.example", "https://gw.example/mcp"},
		{"https://gw.example/", "https://gw.example/"},
		{"localhost:3000", "http://localhost:3000/mcp"},
		{"127.0.0.1:3000", "http://127.0.0.1:3000/mcp"},
		{"http://[::1]:3000/x?y=z", "http://[::1]:3000/x?y=z"},
		{"http://gw.example/mcp", ""},
		{"http://127.0.0.1.evil.example/", ""},
		{"http://127.0.0.1@evil.example/", ""},
		{"https://u:p@gw.example", ""},
		{"https://gw.example/#x", ""},
		{"ftp://gw.example", ""},
		{"", ""},
		{"a b", ""},
	}
	for _, tt := range tests {
		got, err := ServerURL(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("ServerURL(%q) = %q, %v", tt.in, got, err)
		}
	}
}

func TestOnlyWebAddressesReachTheBrowser(t *testing.T) {
	t.Setenv("PATH", "") // whatever passes the check finds no program
	for _, bad := range []string{"javascript:alert(1)", "file:///etc/passwd", "http://evil.example", "-a", "$(x)", "https://u@x.example"} {
		if err := OpenBrowser(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := OpenBrowser("https://gw.example/a?b=c&d=$(x)"); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("a good address does not reach the program: %v", err)
	}
}

// A token that is good for ages, as some say who mean for ever, is good.
func TestTokenThatNeverExpires(t *testing.T) {
	for _, seconds := range []int64{1 << 40, math.MaxInt64} {
		f := newFake(t)
		f.lifetime = seconds
		c := signedIn(t, f)
		l, _, err := c.stored(f.server())
		if err != nil || !l.fresh() || l.public("").Expires.Before(time.Now()) {
			t.Errorf("%d seconds: until %v, %v", seconds, l.public("").Expires, err)
		}
		if _, err := c.bearer(short(t), f.server(), ""); err != nil || f.count("POST /token") != 1 {
			t.Errorf("%d seconds: asked %d times, %v", seconds, f.count("POST /token"), err)
		}
	}
}

// Where the issuer takes pushed requests alone, the browser carries a name of the
// request and nothing of it (RFC 9126 §4).
func TestRequestIsPushedWhereThatIsDemanded(t *testing.T) {
	f := newFake(t)
	f.as.PushedOnly, f.as.PushedEndpoint = true, f.URL+"/par"
	f.override["/par"] = func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		f.set(func() { f.forms["/par"] = r.PostForm })
		writeJSON(w, http.StatusCreated, oauth.PushedResponse{RequestURI: "urn:x:1", ExpiresIn: 60})
	}
	f.override["/authorize"] = func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if len(q) != 2 || q.Get("client_id") != "client-1" || q.Get("request_uri") != "urn:x:1" {
			t.Errorf("the browser carries %v", q)
		}
		r.URL.RawQuery = f.forms["/par"].Encode()
		f.authorize(w, r)
	}
	signedIn(t, f)
	if pushed := f.forms["/par"]; pushed.Get("code_challenge") == "" || pushed.Get("state") == "" || pushed.Get("resource") != f.server() {
		t.Errorf("pushed: %v", pushed)
	}
}

// What cannot be pushed is not sent with the browser instead.
func TestWhatCannotBePushedIsNotSent(t *testing.T) {
	for name, change := range map[string]func(*fake){
		"no endpoint": func(*fake) {},
		"elsewhere":   func(f *fake) { f.as.PushedEndpoint = "https://elsewhere.example/par" },
		"refused": func(f *fake) {
			f.as.PushedEndpoint = f.URL + "/par"
			f.override["/par"] = says(400, `{"error":"invalid_request"}`)
		},
		"no name": func(f *fake) {
			f.as.PushedEndpoint = f.URL + "/par"
			f.override["/par"] = says(201, `{"expires_in":60}`)
		},
		"nothing there": func(f *fake) { f.as.PushedEndpoint = f.URL + "/par"; f.override["/par"] = says(500, `oops`) },
	} {
		f := newFake(t)
		f.as.PushedOnly = true
		change(f)
		_, err := newClient(t).Login(short(t), f.server(), LoginOptions{Open: func(string) error { t.Errorf("%s: a browser is opened", name); return nil }})
		if err == nil || f.count("GET /authorize") > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}
