package doctor

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// fake is an MCP server with its issuer that does everything right, until a test
// breaks one thing.
type fake struct {
	*httptest.Server
	challenge func(r *http.Request) string
	status    func(r *http.Request) int // of the MCP endpoint; 0 is that of a good server
	prm       map[string]any
	as        map[string]any
	jwks      string
	header    func(path string, h http.Header) // last word on the headers of an answer
	override  map[string]http.HandlerFunc

	mu      sync.Mutex
	apps    map[string]string // redirect by id
	removed int
	issued  int
}

func newFake(t *testing.T) *fake {
	f := &fake{override: map[string]http.HandlerFunc{}, apps: map[string]string{}, header: func(string, http.Header) {}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	f.challenge = func(r *http.Request) string {
		s := `Bearer scope="a", resource_metadata="` + f.URL + `/.well-known/oauth-protected-resource/mcp"`
		if r.Header.Get("Authorization") != "" {
			s += `, error="invalid_token"`
		}
		return s
	}
	f.status = func(*http.Request) int { return 0 }
	f.prm = map[string]any{"resource": f.URL + "/mcp", "authorization_servers": []string{f.URL}, "scopes_supported": []string{"a"}, "bearer_methods_supported": []string{"header"}}
	f.as = map[string]any{
		"issuer": f.URL, "authorization_endpoint": f.URL + "/authorize", "token_endpoint": f.URL + "/token", "registration_endpoint": f.URL + "/register",
		"revocation_endpoint": f.URL + "/revoke", "introspection_endpoint": f.URL + "/introspect", "jwks_uri": f.URL + "/jwks", "response_types_supported": []string{"code"},
		"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true,
	}
	f.jwks = `{"keys":[{"kty":"EC","crv":"P-256","x":"x","y":"y","kid":"1"}]}`
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	f.header(r.URL.Path, h)
	answer := func(status int, v any) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
	id, manages := strings.CutPrefix(r.URL.Path, "/apps/")
	switch {
	case f.override[r.URL.Path] != nil:
		f.override[r.URL.Path](w, r)
	case r.URL.Path == "/mcp":
		f.mcp(w, r)
	case r.URL.Path == "/.well-known/oauth-protected-resource/mcp":
		answer(200, f.prm)
	case r.URL.Path == "/.well-known/oauth-authorization-server":
		answer(200, f.as)
	case r.URL.Path == "/jwks":
		io.WriteString(w, f.jwks)
	case r.URL.Path == "/authorize":
		f.authorize(w, r)
	case r.URL.Path == "/token":
		r.ParseForm()
		if f.apps[r.PostForm.Get("client_id")] == "" {
			answer(401, oauth.ErrorResponse{Error: "invalid_client"})
			return
		}
		answer(400, oauth.ErrorResponse{Error: "invalid_grant"})
	case r.URL.Path == "/revoke", r.URL.Path == "/introspect":
		answer(401, oauth.ErrorResponse{Error: "invalid_client"})
	case r.URL.Path == "/register":
		var reg oauth.Registration
		json.NewDecoder(r.Body).Decode(&reg)
		if !oauth.IsLoopback(reg.RedirectURIs[0]) {
			answer(400, oauth.ErrorResponse{Error: "invalid_redirect_uri"})
			return
		}
		answer(201, f.known(reg))
	case manages && r.Method == http.MethodDelete && r.Header.Get("Authorization") == "Bearer reg-"+id:
		f.removed++
		w.WriteHeader(204)
	default:
		http.NotFound(w, r)
	}
}

func (f *fake) known(reg oauth.Registration) oauth.Registration {
	f.issued++
	reg.ClientID = "app-" + strings.Repeat("i", f.issued)
	f.apps[reg.ClientID] = reg.RedirectURIs[0]
	reg.RegistrationURI, reg.RegistrationToken = f.URL+"/apps/"+reg.ClientID, "reg-"+reg.ClientID
	return reg
}

func (f *fake) mcp(w http.ResponseWriter, r *http.Request) {
	status := f.status(r)
	if status == 0 {
		status = http.StatusUnauthorized
		if r.Header.Get("Origin") != "" || r.Host != strings.TrimPrefix(f.URL, "http://") {
			status = http.StatusForbidden
		}
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", f.challenge(r))
	}
	w.WriteHeader(status)
}

func (f *fake) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	known := f.apps[q.Get("client_id")]
	if known == "" || !oauth.MatchRedirect([]string{known}, q.Get("redirect_uri")) {
		w.WriteHeader(400)
		return
	}
	if q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256" {
		f.sendBack(w, q, "invalid_request")
		return
	}
	w.WriteHeader(200)
}

func (f *fake) sendBack(w http.ResponseWriter, q url.Values, code string) {
	back := url.Values{"error": {code}, "state": {q.Get("state")}, "iss": {f.URL}}
	w.Header().Set("Location", q.Get("redirect_uri")+"?"+back.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

func examine(t *testing.T, f *fake, register bool) Report {
	t.Helper()
	r, err := Examine(t.Context(), Options{Server: f.URL + "/mcp", Register: register})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func show(r Report, verdicts ...Verdict) string {
	var lines []string
	for _, f := range r.Findings {
		for _, v := range verdicts {
			if f.Verdict == v {
				lines = append(lines, string(v)+" "+f.Check+": "+f.Seen)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// A server that does everything right has no fault, and nothing is left there.
func TestGoodServerHasNoFault(t *testing.T) {
	f := newFake(t)
	r := examine(t, f, true)
	if got := show(r, Fault, Warning, Skipped); got != "skipped query-token" && r.Count(Good) != len(r.Findings) {
		t.Errorf("found\n%s", got)
	}
	if f.issued != 1 || f.removed != 1 {
		t.Errorf("registered %d, removed %d", f.issued, f.removed)
	}
	f = newFake(t)
	r = examine(t, f, false)
	if f.issued != 0 || r.Count(Fault) != 0 || r.Count(Skipped) != len(appChecks) || !strings.Contains(show(r, Skipped), "--register") {
		t.Errorf("registered %d without being told\n%s", f.issued, show(r, Fault, Skipped))
	}
}

// Broken servers, each in one way, and the one fault that is found.
func TestBrokenServers(t *testing.T) {
	json400 := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400); io.WriteString(w, `{"error":"x"}`) }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	mcpStatus := func(when func(r *http.Request) bool, code int) func(*fake) {
		return func(f *fake) {
			f.status = func(r *http.Request) int {
				if when(r) {
					return code
				}
				return 0
			}
		}
	}
	without := func(path, name string) func(*fake) {
		return func(f *fake) {
			f.header = func(p string, h http.Header) {
				if p == path {
					h.Del(name)
				}
			}
		}
	}
	as := func(name string, value any) func(*fake) { return func(f *fake) { f.as[name] = value } }
	tests := []struct {
		name    string
		change  func(*fake)
		verdict Verdict
		check   string
	}{
		{"401 without challenge", func(f *fake) {
			f.challenge = func(r *http.Request) string {
				if r.Header.Get("Authorization") == "" {
					return `Basic realm="x"`
				}
				return `Bearer error="invalid_token"`
			}
		}, Fault, "challenge"},
		{"403 instead of 401", mcpStatus(func(r *http.Request) bool {
			return r.Method == "POST" && r.Header.Get("Authorization") == ""
		}, 403), Fault, "no-token"},
		{"first message for anybody", mcpStatus(func(r *http.Request) bool {
			return r.Method == "POST" && r.Header.Get("Origin") == "" && r.Host != "stranger.example"
		}, 200), Warning, "no-token"},
		{"challenge without metadata", func(f *fake) {
			f.challenge = func(r *http.Request) string {
				if r.Header.Get("Authorization") != "" {
					return `Bearer scope="a", error="invalid_token"`
				}
				return `Bearer scope="a"`
			}
		}, Warning, "challenge-metadata"},
		{"challenge without scope", func(f *fake) {
			old := f.challenge
			f.challenge = func(r *http.Request) string { return strings.Replace(old(r), `scope="a", `, "", 1) }
		}, Warning, "challenge-scope"},
		{"open stream", mcpStatus(func(r *http.Request) bool { return r.Method == "GET" }, 200), Fault, "get"},
		{"any token does", mcpStatus(func(r *http.Request) bool { return r.Header.Get("Authorization") != "" }, 200), Fault, "invalid-token"},
		{"bad tokens are not called so", func(f *fake) {
			old := f.challenge
			f.challenge = func(r *http.Request) string { return strings.Replace(old(r), `, error="invalid_token"`, "", 1) }
		}, Warning, "invalid-token"},
		{"token in the query", func(f *fake) {
			old := f.challenge
			f.challenge = func(r *http.Request) string {
				if r.URL.Query().Has("access_token") {
					return old(r) + `, error="invalid_token"`
				}
				return old(r)
			}
		}, Fault, "query-token"},
		{"any origin", mcpStatus(func(r *http.Request) bool { return r.Header.Get("Origin") != "" }, 401), Fault, "origin"},
		{"any host", mcpStatus(func(r *http.Request) bool { return r.Host == "stranger.example" }, 401), Fault, "host"},
		{"no description", func(f *fake) { f.override["/.well-known/oauth-protected-resource/mcp"] = status(404) }, Fault, "resource-metadata"},
		{"described at the root only", func(f *fake) {
			f.override["/.well-known/oauth-protected-resource/mcp"] = status(404)
			old := f.challenge
			f.challenge = func(r *http.Request) string {
				return strings.Replace(old(r), "oauth-protected-resource/mcp", "oauth-protected-resource", 1)
			}
			f.prm["resource"] = f.URL
			f.override["/.well-known/oauth-protected-resource"] = func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(f.prm) }
		}, Warning, "resource-metadata"},
		{"described where the challenge says only", func(f *fake) {
			f.override["/.well-known/oauth-protected-resource/mcp"] = status(404)
			old := f.challenge
			f.challenge = func(r *http.Request) string {
				return strings.Replace(old(r), ".well-known/oauth-protected-resource/mcp", "described", 1)
			}
			f.override["/described"] = func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(f.prm) }
		}, Warning, "resource-metadata"},
		{"description as text", func(f *fake) {
			f.header = func(p string, h http.Header) {
				if strings.Contains(p, "protected-resource") {
					h.Set("Content-Type", "text/plain")
				}
			}
		}, Fault, "resource-metadata"},
		{"description that is a page", func(f *fake) {
			f.override["/.well-known/oauth-protected-resource/mcp"] = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }
		}, Fault, "resource-metadata"},
		{"two descriptions", func(f *fake) {
			old := f.challenge
			f.challenge = func(r *http.Request) string {
				return strings.Replace(old(r), "oauth-protected-resource/mcp", "other", 1)
			}
			f.override["/.well-known/other"] = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"resource":"https://x.example"}`) }
		}, Fault, "resource-metadata-named"},
		{"another resource", func(f *fake) { f.prm["resource"] = f.URL }, Fault, "resource"},
		{"no issuer", func(f *fake) { f.prm["authorization_servers"] = []string{} }, Fault, "authorization-servers"},
		{"query allowed", func(f *fake) { f.prm["bearer_methods_supported"] = []string{"header", "query"} }, Fault, "bearer-methods"},
		{"offline_access as a scope", func(f *fake) { f.prm["scopes_supported"] = []string{"a", "offline_access"} }, Warning, "resource-scopes"},
		{"description closed to browsers", without("/.well-known/oauth-protected-resource/mcp", "Access-Control-Allow-Origin"), Warning, "resource-cors"},
		{"issuer with a slash", func(f *fake) { f.as["issuer"] = f.URL + "/" }, Fault, "issuer"},
		{"issuer closed to browsers", without("/.well-known/oauth-authorization-server", "Access-Control-Allow-Origin"), Warning, "issuer-metadata"},
		{"no token endpoint", as("token_endpoint", ""), Fault, "endpoints"},
		{"revocation by http", as("revocation_endpoint", "http://as.example/revoke"), Fault, "endpoints"},
		{"no code", as("response_types_supported", []string{"id_token"}), Fault, "response-types"},
		{"implicit", as("response_types_supported", []string{"code", "token"}), Warning, "response-types"},
		{"no PKCE", as("code_challenge_methods_supported", nil), Fault, "pkce"},
		{"plain PKCE offered", as("code_challenge_methods_supported", []string{"S256", "plain"}), Warning, "pkce"},
		{"no registration", as("registration_endpoint", ""), Warning, "registration"},
		{"private key", func(f *fake) { f.jwks = `{"keys":[{"kty":"EC","x":"x","d":"secret"}]}` }, Fault, "jwks"},
		{"symmetric key", func(f *fake) { f.jwks = `{"keys":[{"kty":"oct","k":"secret"}]}` }, Fault, "jwks"},
		{"no keys", func(f *fake) { f.override["/jwks"] = status(404) }, Fault, "jwks"},
		{"open redirector", func(f *fake) {
			f.override["/authorize"] = func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); f.apps[q.Get("client_id")] == "" {
					f.sendBack(w, q, "unauthorized_client")
					return
				}
				f.authorize(w, r)
			}
		}, Fault, "unknown-client"},
		{"token errors without no-store", func(f *fake) {
			f.header = func(p string, h http.Header) {
				if p == "/token" {
					h.Del("Cache-Control")
				}
			}
		}, Fault, "token-error"},
		{"open revocation", func(f *fake) { f.override["/revoke"] = status(200) }, Fault, "revocation"},
		{"open introspection", func(f *fake) { f.override["/introspect"] = status(200) }, Fault, "introspection"},
		{"registration refuses loopback", func(f *fake) { f.override["/register"] = json400 }, Fault, "register"},
		{"cached registration", without("/register", "Cache-Control"), Fault, "register"},
		{"registers http", func(f *fake) {
			f.override["/register"] = func(w http.ResponseWriter, r *http.Request) {
				var reg oauth.Registration
				json.NewDecoder(r.Body).Decode(&reg)
				w.WriteHeader(201)
				json.NewEncoder(w).Encode(f.known(reg))
			}
		}, Fault, "register-http"},
		{"redirects compared by prefix", func(f *fake) {
			f.override["/authorize"] = func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); f.apps[q.Get("client_id")] != "" && strings.HasPrefix(q.Get("redirect_uri"), "http://127.0.0.1") && strings.Contains(q.Get("redirect_uri"), "stranger") {
					f.sendBack(w, q, "invalid_request")
					return
				}
				f.authorize(w, r)
			}
		}, Fault, "foreign-redirect"},
		{"PKCE optional", func(f *fake) {
			f.override["/authorize"] = func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); f.apps[q.Get("client_id")] != "" && q.Get("code_challenge") == "" {
					return
				}
				f.authorize(w, r)
			}
		}, Fault, "pkce-missing"},
		{"plain taken", func(f *fake) {
			f.override["/authorize"] = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("code_challenge_method") == "plain" {
					return
				}
				f.authorize(w, r)
			}
		}, Fault, "pkce-plain"},
		{"state and iss lost", func(f *fake) {
			f.override["/authorize"] = func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if f.apps[q.Get("client_id")] != "" && q.Get("code_challenge") == "" {
					w.Header().Set("Location", q.Get("redirect_uri")+"?error=invalid_request&state=a")
					w.WriteHeader(302)
					return
				}
				f.authorize(w, r)
			}
		}, Fault, "error-redirect"},
		{"one port only", func(f *fake) {
			f.override["/authorize"] = func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Query().Get("redirect_uri"), ":10/") {
					w.WriteHeader(400)
					return
				}
				f.authorize(w, r)
			}
		}, Fault, "good-request"},
		{"wrong error for a code", func(f *fake) {
			f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(400)
				io.WriteString(w, `{"error":"invalid_request"}`)
			}
		}, Fault, "invalid-code"},
		{"registrations stay", func(f *fake) { f.override["/apps/app-i"] = status(404) }, Warning, "unregister"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			tt.change(f)
			r := examine(t, f, true)
			var found *Finding
			for i, x := range r.Findings {
				if x.Verdict == Fault || x.Verdict == Warning {
					if found != nil || x.Check != tt.check || x.Verdict != tt.verdict {
						t.Errorf("found %s %s: %s", x.Verdict, x.Check, x.Seen)
					}
					found = &r.Findings[i]
				}
			}
			if found == nil || found.Fix == "" || found.Expected == "" || found.Reference == "" || found.Seen == "" {
				t.Errorf("found %+v", found)
			}
			if f.removed != f.issued && tt.check != "unregister" {
				t.Errorf("%d apps registered, %d removed", f.issued, f.removed)
			}
		})
	}
}

// Every check is broken by some server above, but for those that need another
// address; see below.
func TestEachCheckSaysWhatItIs(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range checks() {
		if seen[c.id] || c.id == "" || c.group == "" || c.expected == "" || c.fix == "" || c.reference == "" || c.requirement == "" {
			t.Errorf("%+v", c)
		}
		seen[c.id] = true
	}
}

// An address off this computer that is not https is a fault by itself; nothing on
// this computer is asked because such a server says so.
func TestServersElsewhere(t *testing.T) {
	inside := newFake(t)
	asked := 0
	inside.override["/.well-known/oauth-authorization-server"] = func(http.ResponseWriter, *http.Request) { asked++ }
	outside := roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host != "gw.example" {
			return http.DefaultTransport.RoundTrip(r)
		}
		w := httptest.NewRecorder()
		switch r.URL.Path {
		case "/mcp":
			w.Header().Set("WWW-Authenticate", `Bearer scope="a", resource_metadata="`+inside.URL+`/x"`)
			w.WriteHeader(401)
		default:
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"resource":"http://gw.example/mcp","authorization_servers":["`+inside.URL+`"]}`)
		}
		return w.Result(), nil
	})
	r, err := Examine(t.Context(), Options{Server: "http://gw.example/mcp", HTTP: outside, Register: true})
	if err != nil {
		t.Fatal(err)
	}
	got := show(r, Fault)
	for _, want := range []string{"fault tls", "fault challenge-metadata", "fault authorization-servers"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
	if asked != 0 || inside.issued != 0 {
		t.Error("an address of this computer was asked")
	}
}

// Neither by http nor by https.
func TestServersElsewhereLeadNowhereInside(t *testing.T) {
	for _, inside := range []string{"https://localhost:8443", "https://127.0.0.1:8443", "https://[::1]:8443", "https://127.8.9.10", "http://localhost"} {
		outside := roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != "gw.example" {
				t.Errorf("%s was asked", r.URL)
			}
			w := httptest.NewRecorder()
			switch r.URL.Path {
			case "/mcp":
				w.Header().Set("WWW-Authenticate", `Bearer scope="a", resource_metadata="`+inside+`/x"`)
				w.WriteHeader(401)
			case "/.well-known/oauth-authorization-server":
				io.WriteString(w, strings.ReplaceAll(`{"issuer":"https://gw.example","authorization_endpoint":"IN/a","token_endpoint":"IN/t","registration_endpoint":"IN/r","revocation_endpoint":"IN/v","introspection_endpoint":"IN/i","jwks_uri":"IN/k"}`, "IN", inside))
			default:
				io.WriteString(w, `{"resource":"https://gw.example/mcp","authorization_servers":["https://gw.example"]}`)
			}
			return w.Result(), nil
		})
		r, err := Examine(t.Context(), Options{Server: "https://gw.example/mcp", HTTP: outside, Register: true})
		if err != nil || !strings.Contains(show(r, Fault), "fault endpoints") {
			t.Errorf("%v\n%s", err, show(r, Fault))
		}
	}
}

// What could not be read leaves nothing behind in what is read after it.
func TestDocumentsAreNotMixed(t *testing.T) {
	f := newFake(t)
	f.override["/.well-known/oauth-protected-resource/mcp"] = func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"authorization_servers":["`+f.URL+`"],"scopes_supported":1}`)
	}
	f.override["/.well-known/oauth-protected-resource"] = func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"resource":"`+f.URL+`/mcp"}`)
	}
	f.override["/.well-known/oauth-authorization-server"] = func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"issuer":"`+f.URL+`","token_endpoint":"`+f.URL+`/token","response_types_supported":1}`)
	}
	f.override["/.well-known/openid-configuration"] = func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"authorization_endpoint":"`+f.URL+`/authorize"}`)
	}
	got := show(examine(t, f, false), Fault)
	for _, want := range []string{"fault authorization-servers: authorization_servers=[]", "fault issuer: issuer=\"\"", "fault endpoints: token_endpoint=\"\""} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNoServerIsNoReport(t *testing.T) {
	f := newFake(t)
	f.Close()
	if _, err := Examine(t.Context(), Options{Server: f.URL + "/mcp"}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

// What a server says does not draw on the terminal, and a busy one is not called
// broken.
func TestWhatServersSayIsCleaned(t *testing.T) {
	f := newFake(t)
	f.prm["resource"] = "x\x1b[31m\u202e" + strings.Repeat("y", 1000)
	r := examine(t, f, false)
	if got := show(r, Fault); strings.ContainsAny(got, "\x1b\u202e") || len(got) > 400 {
		t.Errorf("%q", got)
	}
	f = newFake(t)
	f.status = func(*http.Request) int { return http.StatusFound }
	f.header = func(_ string, h http.Header) { h.Set("Location", "https://x.example/\x9b2J\xff\u009b") } // as an old terminal reads it
	if got := show(examine(t, f, false), Fault); strings.ContainsAny(got, "\x1b\u009b") || !utf8.ValidString(got) {
		t.Errorf("%q", got)
	}
	f = newFake(t)
	f.override["/revoke"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }
	if r := examine(t, f, false); r.Count(Fault) != 0 {
		t.Errorf("found\n%s", show(r, Fault))
	}
}

// A real house has nothing to find, at any endpoint and however it is run.
func TestGatehouseHasNoFault(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) { examineHouse(t, h) })
	t.Run("dev", func(t *testing.T) { examineHouse(t, apptest.Start(t, apptest.Dev)) })
}

func examineHouse(t *testing.T, h *apptest.House) {
	for _, endpoint := range []string{"/mcp", "/s/gatehouse/mcp"} {
		r, err := Examine(t.Context(), Options{Server: h.URL + endpoint, Register: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := show(r, Fault, Warning); got != "" {
			t.Errorf("%s: found\n%s", endpoint, got)
		}
		if got := show(r, Skipped); strings.Contains(got, "there is no app") {
			t.Errorf("%s: not looked at\n%s", endpoint, got)
		}
	}
}
