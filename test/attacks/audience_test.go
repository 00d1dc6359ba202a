package attacks_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 10, the resource: a token is good at one endpoint, for what was granted,
// and what a client sends besides it is worth nothing.
func TestAudience(t *testing.T) { attack(t, audienceRows()) }

const (
	atA  = "/s/a/mcp"
	atAB = "/s/ab/mcp"
)

// resource names an endpoint, as a parameter.
func (w *world) resource(path string) url.Values { return with("resource", w.URL+path) }

func audienceRows() []row {
	var rows []row
	for _, resource := range []string{
		"https://evil.example/mcp", "/s/nobody/mcp", "/s/a", "/s/a/mcp/x", "/s/A/mcp", "/other", "/mcp#x", "/mcp#", "/mcp?x=1", "javascript:alert(1)", "mcp", "https://", "urn:x", "//localhost/mcp", "/s/a%2fmcp",
		"/s/a/../ab/mcp", "/s//mcp", "/s/mcp",
	} {
		spelt := func(w *world) string {
			if strings.HasPrefix(resource, "/") && !strings.HasPrefix(resource, "//") {
				return w.URL + resource
			}
			return resource
		}
		rows = append(rows,
			row{number: 74, name: resource + " at authorize", want: redirect(oauth.InvalidTarget), build: func(w *world) (*http.Request, *http.Request) {
				q, _ := w.query(w.pubA, with("resource", spelt(w)))
				twin, _ := w.query(w.pubA, w.resource(atA))
				return w.authorize(q), w.authorize(twin)
			}},
			row{number: 74, name: resource + " at token", want: token(oauth.InvalidTarget, ""), build: func(w *world) (*http.Request, *http.Request) {
				code, verifier := w.code(w.alice, w.pubA, w.resource(atA))
				return w.redemption(w.pubA, code, verifier, with("resource", spelt(w))), w.redemption(w.pubA, code, verifier, w.resource(atA))
			}})
	}
	rows = append(rows, row{number: 74, name: "two resources", want: redirect(oauth.InvalidTarget), build: func(w *world) (*http.Request, *http.Request) {
		q, _ := w.query(w.pubA, with("resource", w.URL+atA, "resource", w.URL+atAB))
		twin, _ := w.query(w.pubA, w.resource(atA))
		return w.authorize(q), w.authorize(twin)
	}})

	for made, presented := range map[string][]string{
		atA: {atAB, "/mcp", "/s/gatehouse/mcp"}, atAB: {atA, "/mcp"}, "/mcp": {atA, atAB, "/s/gatehouse/mcp"}, "/s/gatehouse/mcp": {"/mcp", atA},
	} {
		for _, path := range presented {
			rows = append(rows, row{number: 75, name: "made for " + made + ", presented at " + path, want: unauthorized(otherAud), build: func(w *world) (*http.Request, *http.Request) {
				tokens := w.tokens(w.alice, w.pubA, w.resource(made))
				return w.list(path, tokens.AccessToken), w.list(made, tokens.AccessToken)
			}})
		}
	}
	for name, aud := range map[string]func(w *world) any{
		"another port":      func(w *world) any { return "http://localhost:1" + atA },
		"another scheme":    func(w *world) any { return strings.Replace(w.URL, "http", "https", 1) + atA },
		"another host":      func(w *world) any { return strings.Replace(w.URL, "localhost", "127.0.0.1", 1) + atA },
		"a slash more":      func(w *world) any { return w.URL + atA + "/" },
		"a part of it":      func(w *world) any { return w.URL + "/s/a" },
		"the origin":        func(w *world) any { return w.URL },
		"capitals":          func(w *world) any { return strings.ToUpper(w.URL + atA) },
		"a query":           func(w *world) any { return w.URL + atA + "?x" },
		"the other server":  func(w *world) any { return w.URL + atAB },
		"a blank before it": func(w *world) any { return " " + w.URL + atA },
		"an empty one":      func(*world) any { return "" },
		"none":              func(*world) any { return nil },
	} {
		rows = append(rows, forged(76, "an audience with "+name, otherAud, aud))
	}
	for name, aud := range map[string]func(w *world) any{
		"an object":             func(w *world) any { return map[string]string{"url": w.URL + atA} },
		"a number":              func(*world) any { return 1 },
		"true":                  func(*world) any { return true },
		"an empty list":         func(*world) any { return []string{} },
		"a list with the right": func(w *world) any { return []string{w.URL + atA} }, // ours are never lists
	} {
		rows = append(rows, forged(76, "an audience that is "+name, badClaims, aud))
	}
	rows = append(rows, forged(76, "an audience of null", otherAud, func(*world) any { return json.RawMessage("null") }))

	for _, typ := range []string{
		"JWT", "jwt", "at+JWT", "AT+JWT", "application/at+jwt", "id_token+jwt", "dpop+jwt", "oauth-id-jag+jwt", "logout+jwt", "client-authentication+jwt", "passport+jwt", "secevent+jwt", "",
	} {
		rows = append(rows, row{number: 77, name: "typ " + typ, want: unauthorized(foreignKey), build: forging(func(f forger) string { return f.sign(f.header("typ", typ), f.claims) })})
	}
	rows = append(rows,
		row{number: 77, name: "no typ, as ID tokens", want: unauthorized(foreignHdr), build: forging(func(f forger) string { return f.sign(f.header("typ", nil), f.claims) })},
		row{number: 77, name: "a registration token", want: unauthorized(notJWT), build: func(w *world) (*http.Request, *http.Request) {
			p := w.register("http://127.0.0.1/cb")
			if p.manage == "" {
				w.t.Fatal("no registration token was issued")
			}
			return w.list("/mcp", p.manage), w.list("/mcp", w.tokens(w.alice, p, nil).AccessToken)
		}},
		row{number: 77, name: "a client secret", want: unauthorized(notJWT), build: func(w *world) (*http.Request, *http.Request) {
			return w.list("/mcp", w.secC.secret), w.list("/mcp", w.tokens(w.alice, w.secC, nil).AccessToken)
		}},
		row{number: 77, name: "a browser session", want: unauthorized(notJWT), build: func(w *world) (*http.Request, *http.Request) {
			return w.list("/mcp", w.alice.Cookies["__Host-gatehouse-session"]), w.list("/mcp", w.tokens(w.alice, w.pubA, nil).AccessToken)
		}})
	rows = append(rows, scopeRows()...)
	rows = append(rows, placeRows()...)
	return append(rows, revocationRows()...)
}

// forged presents a token for server a whose audience was changed, signed with our
// own key.
func forged(number int, name, why string, aud func(w *world) any) row {
	return row{number: number, name: name, want: unauthorized(why), build: func(w *world) (*http.Request, *http.Request) {
		tokens := w.tokens(w.alice, w.pubA, w.resource(atA))
		f := w.forger(tokens.AccessToken)
		return w.list(atA, f.sign(f.head, f.with("aud", aud(w)))), w.list(atA, tokens.AccessToken)
	}}
}

// scopeRows is attack 79: what was not granted, or is not allowed, can be neither
// called nor seen.
func scopeRows() []row {
	challenged := func(scope string) want {
		return want{status: http.StatusForbidden, reason: "tool.call SCOPE_REQUIRED", check: func(w *world, a apptest.Answer) {
			got := oauth.ParseChallenges(a.Header.Values("WWW-Authenticate"))
			if len(got) != 1 || got[0].Params["error"] != oauth.InsufficientScope || got[0].Params["scope"] != scope {
				w.t.Errorf("challenge %v", a.Header.Values("WWW-Authenticate"))
			}
		}}
	}
	told := func(status int, code string) want {
		return want{status: status, reason: "tool.call " + code, check: func(w *world, a apptest.Answer) {
			if !strings.Contains(a.Text, code) || a.Header.Get("WWW-Authenticate") != "" {
				w.t.Errorf("want %s, got %v %s", code, a.Header, a.Text)
			}
		}}
	}
	unknown := told(http.StatusOK, "TOOL_UNKNOWN")
	at := func(path, scope, bad, good string) func(*world) (*http.Request, *http.Request) {
		return func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, edit(w.resource(path), with("scope", scope)))
			return w.call(path, tokens.AccessToken, bad), w.call(path, tokens.AccessToken, good)
		}
	}
	bobs := func(path, scope, bad, good string) func(*world) (*http.Request, *http.Request) {
		return func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.bob, w.pubA, edit(w.resource(path), with("scope", scope)))
			return w.call(path, tokens.AccessToken, bad), w.call(path, tokens.AccessToken, good)
		}
	}
	return []row{
		{number: 79, name: "a scope that was not granted", want: challenged("a:read a:write"), build: at(atA, "a:read", "write", "read")},
		{number: 79, name: "a scope that was not granted, of a tool that says nothing", want: challenged("a:read a:write a:admin"), build: at(atA, "a:read a:write", "destroy", "write")},
		{number: 79, name: "the scope of another server, at the common endpoint", want: challenged("a:read ab:read"), build: at("/mcp", "a:read", "ab_read", "a_read")},
		{number: 79, name: "the tool of another server", want: unknown, build: at(atA, "a:read", "ab_read", "read")},
		{number: 79, name: "its full name", want: unknown, build: at(atA, "a:read", "a_read", "read")},
		{number: 79, name: "a tool of the control plane at a server", want: unknown, build: at(atA, "a:read mcp:admin", "list_audit_events", "read")},
		{number: 79, name: "a tool of the control plane at the common endpoint", want: unknown, build: at("/mcp", "mcp:admin", "gatehouse_list_audit_events", "a_read")},
		{number: 79, name: "a tool that a role may not use", want: told(http.StatusOK, "RANK_TOO_LOW"), build: bobs("/s/gatehouse/mcp", "mcp:admin", "list_audit_events", "list_servers")},
		{number: 79, name: "a tool for people acting directly", want: told(http.StatusOK, "DIRECT_ONLY"), build: at("/s/gatehouse/mcp", "mcp:admin", "remove_server", "list_servers")},
		{number: 79, name: "what cannot be called is not listed, and nothing of it reached a server", story: func(w *world) {
			for path, row := range map[string]struct{ scope, names string }{
				atA: {"a:read", "read"}, "/mcp": {"a:read", "a_read echo public_info whoami"}, "/s/gatehouse/mcp": {"servers:read", "list_servers"},
			} {
				tokens := w.tokens(w.alice, w.pubA, edit(w.resource(path), with("scope", row.scope)))
				if got := w.names(path, tokens.AccessToken); got != row.names {
					w.t.Errorf("%s lists %s", path, got)
				}
			}
			bobs := w.tokens(w.bob, w.pubA, edit(w.resource("/s/gatehouse/mcp"), with("scope", "mcp:admin")))
			if got := w.names("/s/gatehouse/mcp", bobs.AccessToken); strings.Contains(got, "audit") || strings.Contains(got, "remove") {
				w.t.Errorf("bob sees %s", got)
			}
			for _, up := range []*apptest.Upstream{w.up, w.other} {
				for _, r := range up.Received("tools/call") {
					if name := mcp.Text(r.Params, "name"); name == "destroy" || up == w.other && name != "read" {
						w.t.Errorf("%s reached a server", name)
					}
				}
			}
		}},
	}
}

// names are those of tools/list.
func (w *world) names(path, access string) string {
	w.t.Helper()
	var list struct {
		Result struct{ Tools []struct{ Name string } }
	}
	w.Do(w.list(path, access)).JSON(w.t, &list)
	var names []string
	for _, t := range list.Result.Tools {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// placeRows is attack 80, 82, 83, 84: where a token may stand, and what else of a
// request is believed or passed on.
func placeRows() []row {
	const notOne = "the header is not one bearer token"
	var rows []row
	for name, header := range map[string]func(good string) []string{
		"two headers":              func(good string) []string { return []string{"Bearer " + good, "Bearer " + good} },
		"a bad one before it":      func(good string) []string { return []string{"Bearer junk", "Bearer " + good} },
		"a bad one after it":       func(good string) []string { return []string{"Bearer " + good, "Bearer junk"} },
		"two tokens in one header": func(good string) []string { return []string{"Bearer " + good + ", Bearer " + good} },
		"small letters and junk":   func(good string) []string { return []string{"bearer " + good + " junk"} },
		"a parameter after it":     func(good string) []string { return []string{"Bearer " + good + ",x=1"} },
		"a blank before it":        func(good string) []string { return []string{"Bearer  " + good} },
		"a tab":                    func(good string) []string { return []string{"Bearer\t" + good} },
		"no scheme":                func(good string) []string { return []string{good} },
		"no token":                 func(string) []string { return []string{"Bearer "} },
		"an empty header":          func(string) []string { return []string{""} },
		"Basic carrying the token": func(good string) []string { return []string{"Basic " + good} },
		"Basic, it is the password": func(good string) []string {
			return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+good))}
		},
		"Basic, it is the user name": func(good string) []string {
			return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(good+":"))}
		},
		"DPoP":  func(good string) []string { return []string{"DPoP " + good} },
		"Token": func(good string) []string { return []string{"Token " + good} },
	} {
		why := notOne
		if name == "DPoP" {
			why = "the token is bound to no key, and came with a proof"
		}
		rows = append(rows, row{number: 80, name: name, want: unauthorized(why), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			bad := w.list("/mcp", "")
			bad.Header["Authorization"] = header(tokens.AccessToken)
			return bad, w.list("/mcp", tokens.AccessToken)
		}})
	}
	missing := want{status: http.StatusUnauthorized, reason: "no access token", check: func(w *world, a apptest.Answer) {
		if c := a.Header.Get("WWW-Authenticate"); strings.Contains(c, "error=") || !strings.Contains(c, "resource_metadata=") {
			w.t.Errorf("challenge %q", c)
		}
	}}
	for name, request := range map[string]func(w *world, good string) *http.Request{
		"in the query": func(w *world, good string) *http.Request { return w.list("/mcp?access_token="+good+"&token="+good, "") },
		"in the body": func(w *world, good string) *http.Request {
			return w.json("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"access_token":"`+good+`","_meta":{"authorization":"Bearer `+good+`"}}}`)
		},
		"in a form": func(w *world, good string) *http.Request { return w.form("/mcp", with("access_token", good)) },
		"in a cookie": func(w *world, good string) *http.Request {
			return w.list("/mcp", "", "Cookie: access_token="+good+"; Authorization=Bearer "+good)
		},
		"in other headers": func(w *world, good string) *http.Request {
			return w.list("/mcp", "", "X-Access-Token: "+good, "Proxy-Authorization: Bearer "+good, "X-Api-Key: "+good, "X-Forwarded-Authorization: Bearer "+good, "X_Authorization: Bearer "+good)
		},
		"as a user name in the address": func(w *world, good string) *http.Request {
			r := w.list("/mcp", "")
			r.Header.Set("Referer", "http://"+good+"@localhost/")
			return r
		},
	} {
		rows = append(rows, row{number: 80, name: name, want: missing, build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			return request(w, tokens.AccessToken), w.list("/mcp", tokens.AccessToken)
		}})
	}
	for _, headers := range [][]string{
		{"X-User: alice", "X-Forwarded-User: dana@acme.example", "X_User: alice", "X-Remote-User: alice", "Remote-User: alice", "X-Auth-Request-Email: dana@acme.example", "X-Forwarded-Email: dana@acme.example", "X-Gatehouse-User: alice"},
		{"Connection: Authorization", "X-User: alice"}, {"Connection: X-User", "X-User: alice"},
	} {
		rows = append(rows, row{number: 83, name: strings.Join(headers, ", ") + " is no identity", want: missing, build: func(w *world) (*http.Request, *http.Request) {
			return w.list("/mcp", "", headers...), w.list("/mcp", w.tokens(w.alice, w.pubA, nil).AccessToken, headers...)
		}})
	}
	return append(rows,
		row{number: 82, name: "what reaches the server behind us, and what comes back of it", story: passing},
		row{number: 83, name: "identity is that of the token, whatever is claimed", story: func(w *world) {
			tokens := w.tokens(w.bob, w.pubA, nil)
			plainly := w.Do(w.call("/mcp", tokens.AccessToken, "whoami"))
			claimed := w.Do(w.call("/mcp", tokens.AccessToken, "whoami", "X-User: alice", "X_User: alice", "X-Forwarded-User: dana@acme.example", "Connection: X-User", "X-Gatehouse-Rank: owner"))
			if claimed.Text != plainly.Text || !strings.Contains(claimed.Text, "usr_bob") {
				w.t.Errorf("%s\n%s", claimed.Text, plainly.Text)
			}
		}},
		row{number: 84, name: "a session of alice's, used by bob", want: plain(http.StatusNotFound, ""), build: func(w *world) (*http.Request, *http.Request) {
			alices, bobs := w.tokens(w.alice, w.pubA, nil), w.tokens(w.bob, w.pubA, nil)
			session := mcp.SessionHeader + ": " + w.session("/mcp", alices.AccessToken)
			return w.call("/mcp", bobs.AccessToken, "whoami", session), w.call("/mcp", alices.AccessToken, "whoami", session)
		}},
		row{number: 84, name: "a session of alice's, used by another app of hers", want: plain(http.StatusNotFound, ""), build: func(w *world) (*http.Request, *http.Request) {
			alices, others := w.tokens(w.alice, w.pubA, nil), w.tokens(w.alice, w.pubB, nil)
			session := mcp.SessionHeader + ": " + w.session("/mcp", alices.AccessToken)
			return w.call("/mcp", others.AccessToken, "whoami", session), w.call("/mcp", alices.AccessToken, "whoami", session)
		}},
		row{number: 84, name: "a session of one endpoint, at another", want: plain(http.StatusNotFound, ""), build: func(w *world) (*http.Request, *http.Request) {
			common, single := w.tokens(w.alice, w.pubA, nil), w.tokens(w.alice, w.pubA, w.resource(atA))
			session := mcp.SessionHeader + ": " + w.session("/mcp", common.AccessToken)
			return w.list(atA, single.AccessToken, session), w.list("/mcp", common.AccessToken, session)
		}},
		row{number: 84, name: "a session without a token", want: missing, build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			session := mcp.SessionHeader + ": " + w.session("/mcp", tokens.AccessToken)
			return w.list("/mcp", "", session), w.list("/mcp", tokens.AccessToken, session)
		}})
}

// session is a new one of the MCP era with a handshake.
func (w *world) session(path, access string) string {
	w.t.Helper()
	a := w.Do(w.json(path, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`, "Authorization: Bearer "+access))
	return w.keep("the session id", a.Header.Get(mcp.SessionHeader))
}

// passing is attack 82: nothing of the caller's credentials goes on, and nothing of
// the server's comes back.
func passing(w *world) {
	tokens := w.tokens(w.alice, w.pubA, w.resource(atA))
	sent := map[string]string{
		"Cookie": "session=stolen-cookie", "DPoP": "stolen-proof", "Proxy-Authorization": "Basic stolen-proxy", "X-Api-Key": "stolen-key", "X-User": "stolen-user", "X-Forwarded-For": "stolen-address",
		"Origin": w.URL, "Referer": "http://stolen-referer/", "Connection": "Authorization", "X-Forwarded-Authorization": "stolen-more", "Forwarded": "for=stolen",
	}
	var headers []string
	for name, value := range sent {
		headers = append(headers, name+": "+value)
	}
	w.up.Answer(func(rw http.ResponseWriter, _ *http.Request, m mcp.Message) {
		rw.Header().Set("Set-Cookie", "upstream=secret")
		rw.Header().Set("WWW-Authenticate", `Bearer resource_metadata="https://evil.example/"`)
		rw.Header().Set("Access-Control-Allow-Origin", "*")
		rw.Header().Set("X-Upstream", "said")
		apptest.Reply(rw, m, `{"content":[]}`)
	})
	answers := []apptest.Answer{w.works(w.call(atA, tokens.AccessToken, "read", headers...))}
	w.up.Answer(func(rw http.ResponseWriter, _ *http.Request, _ mcp.Message) {
		rw.Header().Set("Set-Cookie", "upstream=secret")
		rw.Header().Set("WWW-Authenticate", `Bearer resource_metadata="https://evil.example/"`)
		rw.WriteHeader(http.StatusUnauthorized)
	})
	answers = append(answers, w.Do(w.call(atA, tokens.AccessToken, "read", headers...)))
	w.up.Answer(func(rw http.ResponseWriter, r *http.Request, _ mcp.Message) {
		http.Redirect(rw, r, "https://evil.example/", http.StatusTemporaryRedirect)
	})
	answers = append(answers, w.Do(w.call(atA, tokens.AccessToken, "read", headers...)))
	w.up.Answer(nil)
	for i, a := range answers {
		if a.StatusCode != http.StatusOK || a.Header["Set-Cookie"] != nil || a.Header["Www-Authenticate"] != nil || a.Header["X-Upstream"] != nil || a.Header["Location"] != nil ||
			a.Header.Get("Access-Control-Allow-Origin") == "*" || i < 2 && strings.Contains(a.Text, "evil.example") { // where it redirects is told
			w.t.Errorf("answer %d: %d %v %s", i, a.StatusCode, a.Header, a.Text)
		}
	}
	calls := w.up.Received("tools/call")
	if len(calls) < 3 {
		w.t.Fatalf("%d calls", len(calls))
	}
	for _, r := range calls {
		text := fmt.Sprint(r.Header)
		if strings.Contains(text, "stolen") || w.leak(text+string(r.Params)) != "" {
			w.t.Errorf("the server was sent %v", r.Header)
		}
		for _, name := range []string{"Authorization", "Cookie", "Dpop", "Proxy-Authorization", "Origin", "Referer", "X-User"} {
			if r.Header[name] != nil {
				w.t.Errorf("the server was sent %s", name)
			}
		}
	}
}

// revocationRows is attack 81: revoked here is refused here at once, and everywhere
// within a second, also where the verdict was remembered.
func revocationRows() []row {
	revoke := func(w *world, i int, p party, what string) {
		if a := w.at(i, w.form("/oauth/revoke", with("client_id", p.id, "token", what))); a.StatusCode != http.StatusOK {
			w.t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
	gone := func(w *world, i int, access string) {
		w.t.Helper()
		began := time.Now()
		if !w.gone(i, access) {
			w.t.Error("it was not refused at once where it was revoked")
		}
		w.t.Logf("refused everywhere after %v", time.Since(began))
	}
	return []row{
		{number: 81, name: "a refresh token revoked at each node in turn, all caches warm", story: func(w *world) {
			bystander := w.tokens(w.alice, w.pubA, nil)
			for i := range 2 * len(w.nodes) {
				tokens := w.tokens(w.alice, w.pubA, nil)
				w.alive(tokens)
				revoke(w, i, w.pubA, tokens.RefreshToken)
				gone(w, i, tokens.AccessToken)
				w.refused(token(oauth.InvalidGrant, "its family is revoked"), w.refreshing(w.pubA, tokens.RefreshToken, nil))
			}
			w.alive(bystander)
		}},
		{number: 81, name: "a consent withdrawn at each node in turn, all caches warm", story: func(w *world) {
			for i := range 2 * len(w.nodes) {
				p := w.register("https://w.example/cb")
				tokens := w.tokens(w.alice, p, nil)
				w.alive(tokens)
				w.withdraw(i, p)
				gone(w, i, tokens.AccessToken)
			}
		}},
		{number: 81, name: "an access token alone, its refresh token lives on", story: func(w *world) {
			for i := range len(w.nodes) {
				tokens := w.tokens(w.alice, w.pubA, nil)
				w.alive(tokens)
				revoke(w, i, w.pubA, tokens.AccessToken)
				gone(w, i, tokens.AccessToken)
				w.alive(w.refresh(w.pubA, tokens.RefreshToken))
			}
		}},
	}
}
