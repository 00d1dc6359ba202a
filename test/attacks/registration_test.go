package attacks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 7, registration: strangers may register, and what they say is a claim;
// nobody but who registered changes a registration, or learns that there is one.
func TestRegistration(t *testing.T) { attack(t, registrationRows()) }

func registrationRows() []row {
	var rows []row
	bad := func(number int, name, body string) {
		rows = append(rows, row{number: number, name: name, want: refusal("/oauth/register", oauth.InvalidClientMetadata, ""), build: func(w *world) (*http.Request, *http.Request) {
			return w.json("/oauth/register", body), w.json("/oauth/register", `{"client_name":"x","redirect_uris":["https://b.example/cb"]}`)
		}})
	}
	with := func(members string) string { return `{"redirect_uris":["https://b.example/cb"],` + members + `}` }
	for name, body := range map[string]string{
		"65 KB": with(`"client_name":"` + strings.Repeat("x", 65<<10) + `"`), "a list": `[]`, "a string": `"x"`, "nothing": ``, "half of it": `{"redirect_uris":["https://b.example/cb"]`,
		"a number for a name": with(`"client_name":1`), "a list for a name": with(`"client_name":["x"]`), "an object for grants": with(`"grant_types":{}`),
		"a string for redirects": `{"redirect_uris":"https://b.example/cb"}`, "numbers for redirects": `{"redirect_uris":[1]}`,
		"1,000 deep": with(`"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000)), "a member twice": `{"redirect_uris":["https://b.example/cb"],"redirect_uris":["https://evil.example/cb"]}`,
		"two objects": `{"redirect_uris":["https://b.example/cb"]}{}`,
	} {
		bad(48, name, body)
	}
	for name, members := range map[string]string{
		"a private key":   `"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}]}`,
		"a symmetric key": `"jwks":{"keys":[{"kty":"oct","k":"AAAA"}]}`, "keys and their address": `"jwks":{"keys":[]},"jwks_uri":"https://b.example/jwks"`,
		"keys on this computer": `"jwks_uri":"https://127.0.0.1/jwks"`, "keys at an inner address": `"jwks_uri":"https://169.254.169.254/jwks"`, "keys over http": `"jwks_uri":"http://b.example/jwks"`,
		"keys that are none": `"jwks":[]`, "an address that is none": `"jwks_uri":1`, "implicit alone": `"response_types":["token"]`,
	} {
		bad(49, name, with(members))
	}
	for _, member := range []string{"logo_uri", "client_uri", "tos_uri", "policy_uri", "logo_uri#de", "client_uri#fr-CA"} {
		for _, uri := range []string{"javascript:alert(1)", "JavaScript:alert(1)", "data:image/svg+xml,<svg/>", "http://b.example/x", "file:///etc/passwd", "//b.example/x", "/x", " https://b.example/x", "https://", "https:x", "vbscript:x"} {
			bad(51, member+" "+uri, with(fmt.Sprintf("%q:%q", member, uri)))
		}
	}
	rows = append(rows,
		row{number: 51, name: "a foreign image is on no page", story: func(w *world) {
			p := w.registered(`{"client_name":"Picture","redirect_uris":["https://p.example/cb"],"logo_uri":"https://p.example/logo.png","client_uri":"https://p.example/","tos_uri":"https://p.example/tos"}`)
			q, _ := w.query(p, nil)
			a := w.alice.Open("/oauth/authorize?" + q.Encode())
			if a.StatusCode != http.StatusOK || strings.Contains(a.Text, "logo.png") || strings.Contains(a.Text, "<img") && strings.Contains(a.Text, "https://p.example/logo") {
				w.t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "img-src *") || strings.Contains(csp, "https:") {
				w.t.Errorf("policy %q", csp)
			}
		}},
		row{number: 52, name: "a name is a claim, shown clean", story: func(w *world) {
			for name, shown := range map[string]string{
				`<script>alert(1)</script>`:     "&lt;script&gt;",
				"Claude\u202e\u2066 gnp.exe":    "Claude gnp.exe",
				"Cla\u200bude\u00ad\ufeff":      "Claude",
				"line\r\nSet-Cookie: x\x00\x1b": "lineSet-Cookie: x",
			} {
				body, _ := json.Marshal(map[string]any{"client_name": name, "redirect_uris": []string{"https://p.example/cb"}}) // strings
				q, _ := w.query(w.registered(string(body)), nil)
				a := w.alice.Open("/oauth/authorize?" + q.Encode())
				if !strings.Contains(a.Text, shown) || strings.Contains(a.Text, "<script>alert") || strings.ContainsAny(a.Text, "\u202e\u2066\u200b\u00ad\ufeff\x00\x1b") {
					w.t.Errorf("%q: %s", name, a.Text)
				}
			}
		}},
		row{number: 52, name: "the name of an approved app, by another", story: func(w *world) {
			real := party{id: "real", redirect: "https://real.example/cb"}
			w.admin(0, "add_client", `{"id":"real","name":"Acme Assistant","redirect_uris":["https://real.example/cb"]}`)
			for name, p := range map[string]party{
				"the real one": real, "an imitation": w.registered(`{"client_name":"Acme Assistant","redirect_uris":["https://evil.example/cb"]}`),
				"one more careful": w.registered(`{"client_name":"acme\u200b  ASSISTANT","redirect_uris":["https://evil.example/cb"]}`),
			} {
				q, _ := w.query(p, nil)
				text := w.alice.Open("/oauth/authorize?" + q.Encode()).Text
				if good := p.id == real.id; strings.Contains(text, "This is not the app called") == good || strings.Contains(text, "Approved by ") != good || strings.Contains(text, "Unverified app") == good {
					w.t.Errorf("%s: %s", name, text)
				}
			}
		}},
		row{number: 53, name: "with its own token it is managed", story: func(w *world) {
			p := w.register("https://m.example/cb")
			for _, r := range []*http.Request{
				w.manage(http.MethodGet, p.id, p.manage), w.manage(http.MethodPut, p.id, p.manage), w.manage(http.MethodDelete, p.id, p.manage),
			} {
				if a := w.Do(r); a.StatusCode != http.StatusOK && a.StatusCode != http.StatusNoContent {
					w.t.Errorf("%s: %d %s", r.Method, a.StatusCode, a.Text)
				}
			}
			w.refused(unmanaged, w.manage(http.MethodGet, p.id, p.manage))
		}},
		row{number: 54, name: "a change of name or address asks anew", story: func(w *world) {
			p := w.register("https://m.example/cb", "https://m.example/other")
			w.tokens(w.alice, p, nil)
			q, _ := w.query(p, nil)
			open := w.asked(w.bob, q) // bob is looking at the question
			if a := w.Do(w.json("/registration/"+p.id, "", "Authorization: Bearer "+p.manage)); a.StatusCode != http.StatusMethodNotAllowed {
				w.t.Errorf("%d", a.StatusCode)
			}
			change := w.manage(http.MethodPut, p.id, p.manage, `{"client_name":"Claude","redirect_uris":["https://m.example/cb","https://evil.example/cb"]}`)
			if a := w.Do(change); a.StatusCode != http.StatusOK {
				w.t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			if a := w.bob.Submit("/consent", open); a.StatusCode != http.StatusForbidden || apptest.Target(a.Text) != nil {
				w.t.Errorf("what bob was shown can still be allowed: %d", a.StatusCode)
			}
			w.counted["POST /consent refused: FLOW_UNKNOWN"]++
			q, _ = w.query(p, nil)
			w.asked(w.alice, q)
		}},
		row{number: 56, name: "a client that is gone, with what it had", story: func(w *world) {
			p := w.register("https://m.example/cb")
			tokens := w.tokens(w.alice, p, nil)
			code, verifier := w.code(w.alice, p, nil)
			w.alive(tokens)
			if a := w.Do(w.manage(http.MethodDelete, p.id, p.manage)); a.StatusCode != http.StatusNoContent {
				w.t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			gone := token(oauth.InvalidClient, "there is no such client")
			w.refused(gone, w.redemption(p, code, verifier, nil)) // attack 29
			w.refused(gone, w.refreshing(p, tokens.RefreshToken, nil))
			if !w.gone(0, tokens.AccessToken) {
				w.t.Error("it was not refused at once where the client was removed")
			}
			q, _ := w.query(p, nil)
			w.refused(page(http.StatusBadRequest, "GET /oauth/authorize refused: CLIENT_UNKNOWN"), w.authorize(q))
		}},
		row{number: 29, name: "a client that is blocked, with what it had", story: func(w *world) {
			p := w.register("https://m.example/cb")
			tokens := w.tokens(w.alice, p, nil)
			code, verifier := w.code(w.alice, p, nil)
			q, _ := w.query(p, nil)
			q.Set("prompt", "consent")
			open := w.asked(w.bob, q)
			w.admin(0, "block_client", `{"id":"`+p.id+`"}`)
			gone := token(oauth.InvalidClient, "there is no such client")
			w.refused(gone, w.redemption(p, code, verifier, nil))
			w.refused(gone, w.refreshing(p, tokens.RefreshToken, nil))
			if !w.gone(0, tokens.AccessToken) {
				w.t.Error("it was not refused at once where the client was blocked")
			}
			if a := w.bob.Submit("/consent", open); a.StatusCode != http.StatusForbidden {
				w.t.Errorf("what bob was shown can still be allowed: %d", a.StatusCode)
			}
			w.counted["POST /consent refused: FLOW_UNKNOWN"]++
			w.refused(page(http.StatusForbidden, "GET /oauth/authorize refused: CLIENT_BLOCKED"), w.authorize(q))
		}},
		row{number: 50, name: "grants and authentication that strangers do not get", story: func(w *world) {
			var r oauth.Registration
			w.PostJSON("/oauth/register", `{"redirect_uris":["https://b.example/cb"],"grant_types":["authorization_code","client_credentials","password","implicit"],"response_types":["code","token","code id_token"],"token_endpoint_auth_method":"tls_client_auth"}`).JSON(w.t, &r)
			if strings.Join(r.GrantTypes, " ") != "authorization_code" || strings.Join(r.ResponseTypes, " ") != "code" || r.TokenAuthMethod != "none" {
				w.t.Errorf("%+v", r)
			}
			w.keep("the registration token", r.RegistrationToken)
			for grant, code := range map[string]string{
				"password": oauth.UnsupportedGrantType, "implicit": oauth.UnsupportedGrantType, "client_credentials": oauth.UnauthorizedClient,
				"urn:ietf:params:oauth:grant-type:token-exchange": oauth.UnauthorizedClient, "urn:ietf:params:oauth:grant-type:device_code": oauth.UnauthorizedClient,
			} {
				w.refused(token(code, ""), w.form("/oauth/token", url.Values{"grant_type": {grant}, "client_id": {r.ClientID}, "username": {apptest.Owner}, "password": {"x"}}))
			}
		}},
		row{number: 58, name: "members that nobody knows are ignored", story: func(w *world) {
			w.registered(`{"client_name":"x","redirect_uris":["https://b.example/cb"],"resource":"https://x.example/","x-vendor":{"a":[1]},"scope":"openid profile","contacts":["a@b.example"],"software_statement":null}`)
		}})
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		for name, presented := range map[string]func(w *world, p party) string{
			"no token":                 func(*world, party) string { return "" },
			"another client's token":   func(w *world, _ party) string { return w.register("https://m.example/cb").manage },
			"its own, spoilt":          func(_ *world, p party) string { return p.manage[:len(p.manage)-1] + "_" },
			"its own, cut":             func(_ *world, p party) string { return p.manage[:len(p.manage)-1] },
			"its own, longer":          func(_ *world, p party) string { return p.manage + "A" },
			"an access token of it":    func(w *world, p party) string { return w.tokens(w.alice, p, nil).AccessToken },
			"a refresh token of it":    func(w *world, p party) string { return w.tokens(w.alice, p, nil).RefreshToken },
			"the prefix alone":         func(*world, party) string { return "reg-" },
			"a client secret":          func(w *world, _ party) string { return w.secC.secret },
			"its id":                   func(_ *world, p party) string { return p.id },
			"a pattern of SQL":         func(*world, party) string { return "reg-' OR '1'='1" },
			"a session of the browser": func(w *world, _ party) string { return w.alice.Cookies["__Host-gatehouse-session"] },
		} {
			rows = append(rows, row{number: 53, name: method + " with " + name, story: func(w *world) {
				p := w.register("https://m.example/cb")
				with := presented(w, p)
				there := w.refused(unmanaged, w.manage(method, p.id, with))
				for _, id := range []string{"4b5f2f8e-0000-4000-8000-000000000000", "x", "%00", "%ff", "..%2f" + p.id} {
					absent := w.refused(unmanaged, w.manage(method, id, with))
					if absent.Unreferenced() != there.Unreferenced() || absent.StatusCode != there.StatusCode || fmt.Sprint(headers(absent)) != fmt.Sprint(headers(there)) {
						w.t.Errorf("it tells whether there is one: %v %s, and %v %s", absent.Header, absent.Text, there.Header, there.Text)
					}
				}
				if a := w.Do(w.manage(http.MethodGet, p.id, p.manage)); a.StatusCode != http.StatusOK {
					w.t.Errorf("the twin: %d %s", a.StatusCode, a.Text)
				}
			}})
		}
		rows = append(rows, row{number: 53, name: method + " with two headers, the right one among them", story: func(w *world) {
			p := w.register("https://m.example/cb")
			r := w.manage(method, p.id, p.manage)
			r.Header.Add("Authorization", "Bearer "+p.manage)
			w.refused(unmanaged, r)
			r = w.manage(method, p.id, "")
			r.URL.RawQuery = "registration_access_token=" + p.manage + "&access_token=" + p.manage
			w.refused(unmanaged, r)
		}})
	}
	return rows
}

// unmanaged is the answer to whoever may not manage a registration.
var unmanaged = want{status: http.StatusUnauthorized, reason: "/registration/{client} refused: invalid_token", check: func(w *world, a apptest.Answer) {
	if a.Error() != oauth.InvalidToken && a.Request.Method != http.MethodHead || a.Header.Get("Cache-Control") != "no-store" || !strings.Contains(a.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		w.t.Errorf("%v %s", a.Header, a.Text)
	}
}}

// manage is a request about a registration.
func (w *world) manage(method, id, with string, body ...string) *http.Request {
	text := strings.Join(body, "")
	if method == http.MethodPut && text == "" {
		text = `{"client_name":"Claude","redirect_uris":["https://evil.example/cb"]}`
	}
	r := w.Request(method, "/registration/"+id, text, "Content-Type: application/json")
	if with != "" {
		r.Header.Set("Authorization", "Bearer "+with)
	}
	return r
}

// headers are those of an answer that are the same each time.
func headers(a apptest.Answer) http.Header {
	h := a.Header.Clone()
	h.Del("Date")
	h.Del("X-Request-Id") // every request has its own
	return h
}
