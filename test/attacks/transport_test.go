package attacks_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Group 14, Origin, Host, cookies and transport: a web page of somebody else's can
// neither call the server nor read what it says.
func TestTransport(t *testing.T) { attack(t, transportRows()) }

func transportRows() []row {
	var rows []row
	foreign := want{status: http.StatusForbidden, reason: "call from a web page that may not", check: func(w *world, a apptest.Answer) {
		if a.Header["Access-Control-Allow-Origin"] != nil {
			w.t.Errorf("%v", a.Header)
		}
	}}
	for _, origin := range []string{
		"https://evil.example", "null", "http://localhost.evil.example", "http://evil.localhost.example", "file://", "https://evil.example, http://localhost", "http://127.0.0.1.evil.example", "x", "chrome-extension://abc",
	} {
		for _, path := range []string{"/mcp", atA} {
			rows = append(rows,
				row{number: 108, name: "Origin " + origin + " at " + path, want: foreign, build: func(w *world) (*http.Request, *http.Request) {
					tokens := w.tokens(w.alice, w.pubA, w.resource(path))
					return w.list(path, tokens.AccessToken, "Origin: "+origin), w.list(path, tokens.AccessToken)
				}},
				row{number: 108, name: "a preflight of " + origin + " at " + path, want: foreign, build: func(w *world) (*http.Request, *http.Request) {
					preflight := func(origin string) *http.Request {
						return w.Request(http.MethodOptions, path, "", "Origin: "+origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
					}
					return preflight(origin), preflight(w.URL)
				}})
		}
	}
	rows = append(rows,
		row{number: 108, name: "two Origins", want: foreign, build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			return w.list("/mcp", tokens.AccessToken, "Origin: "+w.URL, "Origin: https://evil.example"), w.list("/mcp", tokens.AccessToken, "Origin: "+w.URL)
		}},
		row{number: 108, name: "a web page on this computer is welcome", story: func(w *world) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			for _, origin := range []string{w.URL, "http://localhost:6274", "http://127.0.0.1:5173"} {
				if a := w.works(w.list("/mcp", tokens.AccessToken, "Origin: "+origin)); a.Header.Get("Access-Control-Allow-Origin") != origin || a.Header["Access-Control-Allow-Credentials"] != nil {
					w.t.Errorf("%v", a.Header)
				}
			}
		}},
		row{number: 108, name: "a foreign page cannot post a form of ours", want: page(http.StatusForbidden, "POST /login refused: FORM_FOREIGN"), build: func(w *world) (*http.Request, *http.Request) {
			b := w.Browser()
			form := apptest.Fields(b.Open("/login").Text)
			form.Set("email", "nobody@acme.example")
			post := func(headers ...string) *http.Request {
				r := w.form("/login", form, headers...)
				for name, value := range b.Cookies {
					r.AddCookie(&http.Cookie{Name: name, Value: value})
				}
				return r
			}
			w.counted["sign-in asked for an unknown address"]++ // the twin
			return post("Origin: https://evil.example", "Sec-Fetch-Site: cross-site"), post("Origin: "+w.URL, "Sec-Fetch-Site: same-origin")
		}},
		row{number: 109, name: "endpoints for programs are open to all pages, without credentials; pages to none", story: func(w *world) {
			const evil = "Origin: https://evil.example"
			preflight := []string{evil, "Access-Control-Request-Method: POST"}
			for _, path := range []string{
				"/oauth/token", "/oauth/register", "/oauth/revoke", "/mcp/token", "/mcp/register", "/token", "/register",
				"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/.well-known/oauth-protected-resource" + atA, "/.well-known/jwks.json",
			} {
				a := w.Do(w.Request(http.MethodOptions, path, "", preflight...))
				if a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header["Access-Control-Allow-Credentials"] != nil || a.StatusCode != http.StatusNoContent {
					w.t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
				}
			}
			for _, path := range []string{"/oauth/authorize", "/consent", "/consent/x", "/return/x", "/login", "/login/link", "/logout", "/setup", "/", "/me", "/mcp/tools", "/mcp/tool/echo", "/assets/x"} {
				for _, r := range []*http.Request{
					w.Request(http.MethodOptions, path, "", preflight...),
				} {
					a := w.Do(r)
					for header := range a.Header {
						if strings.HasPrefix(header, "Access-Control-") {
							w.t.Errorf("%s %s: %s", r.Method, path, header)
						}
					}
				}
			}
		}},
		row{number: 110, name: "every cookie is bound to this host, and no script reads it", story: func(w *world) {
			q, _ := w.query(w.pubA, nil)
			b := w.Browser()
			seen := 0
			for _, a := range []apptest.Answer{w.Get("/login"), w.Do(w.authorize(q)), w.signInAnswer(b)} {
				for _, c := range a.Cookies() {
					seen++
					if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
						w.t.Errorf("%v", c)
					}
				}
			}
			if seen < 4 {
				w.t.Errorf("%d cookies", seen)
			}
		}},
		row{number: 110, name: "http on a host that is not this computer does not start", story: func(w *world) {
			for name, flags := range map[string]map[string]string{
				"public address": {"public-url": "http://gatehouse.example"}, "an address of the network": {"public-url": "http://192.168.0.1:3000"},
				"listening to all": {"listen": "0.0.0.0:3000"}, "listening to a network": {"listen": "192.168.0.1:3000"}, "development mode elsewhere": {"public-url": "https://gatehouse.example", "dev": "true"},
			} {
				flags["data-dir"] = w.t.TempDir()
				if _, err := app.Load(flags, nil); err == nil || problem.From(err).Name != "CONFIG_INVALID" {
					w.t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := app.Load(map[string]string{"data-dir": w.t.TempDir(), "public-url": "http://localhost:3000"}, nil); err != nil {
				w.t.Error(err)
			}
		}})
	return rows
}

// signInAnswer is the answer to the button of a sign-in link.
func (w *world) signInAnswer(b *apptest.Browser) apptest.Answer {
	w.t.Helper()
	form := apptest.Fields(b.Open("/login").Text)
	form.Set("email", apptest.Owner)
	b.Submit("/login", form)
	link := b.Link()
	w.mailed[strings.TrimPrefix(link, w.URL+"/login/link?token=")] = "the link"
	r := w.form("/login/link", apptest.Fields(b.Open(link).Text), "Origin: "+w.URL, "Sec-Fetch-Site: same-origin")
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	a := w.works(r)
	for _, c := range a.Cookies() {
		w.keep("the cookie "+c.Name, c.Value)
	}
	return a
}
