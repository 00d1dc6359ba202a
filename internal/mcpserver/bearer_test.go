package mcpserver_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// endpoints and what their challenges ask for.
var endpoints = map[string]string{
	"/mcp": "mcp:tools", "/s/fix/mcp": "fix:read fix:write", "/s/gatehouse/mcp": "mcp:read",
}

const listMessage = `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}`

// R501, R502, R504: whoever comes without a token is told how to get one, before
// anything else is said, whatever it sent; and what it is told holds.
func TestTokenIsAskedForFirst(t *testing.T) {
	f := start(t)
	for path, scope := range endpoints {
		metadata := f.URL + "/.well-known/oauth-protected-resource" + path
		for name, r := range map[string]*http.Request{
			"GET":               f.Request(http.MethodGet, path, ""),
			"GET of a stream":   f.Request(http.MethodGet, path, "", "Accept: text/event-stream", "MCP-Protocol-Version: 2024-11-05"),
			"HEAD":              f.Request(http.MethodHead, path, ""),
			"DELETE":            f.Request(http.MethodDelete, path, ""),
			"PUT":               f.Request(http.MethodPut, path, "{}"),
			"initialize":        f.Request(http.MethodPost, path, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":`+initializeParams+`}`, "Content-Type: application/json"),
			"tools/list":        f.Request(http.MethodPost, path, listMessage, "Content-Type: application/json"),
			"call of a tool":    f.Request(http.MethodPost, path, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"x"}}}`, "Content-Type: application/json"),
			"call of nothing":   f.Request(http.MethodPost, path, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"none"}}`, "Content-Type: application/json"),
			"notification":      f.Request(http.MethodPost, path, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, "Content-Type: application/json"),
			"modern request":    f.Request(http.MethodPost, path, listMessage, "Content-Type: application/json", "MCP-Protocol-Version: 2026-07-28"),
			"nothing":           f.Request(http.MethodPost, path, ""),
			"garbage":           f.Request(http.MethodPost, path, "{", "Content-Type: application/json"),
			"batch":             f.Request(http.MethodPost, path, "[]", "Content-Type: application/json"),
			"form":              f.Request(http.MethodPost, path, "a=b", "Content-Type: application/x-www-form-urlencoded"),
			"10 MB":             f.Request(http.MethodPost, path, strings.Repeat(" ", 10<<20), "Content-Type: application/json"),
			"someone's session": f.Request(http.MethodPost, path, listMessage, "Content-Type: application/json", "Mcp-Session-Id: x"),
		} {
			a := f.Do(r)
			want := map[string]string{"realm": "gatehouse", "scope": scope, "resource_metadata": metadata, "resource_metadata_uri": metadata}
			got := challenge(t, a)
			if ref := got["ref"]; !strings.HasPrefix(ref, "req_") {
				t.Errorf("%s at %s: reference %q", name, path, ref)
			}
			delete(got, "ref")
			if a.StatusCode != http.StatusUnauthorized || !maps.Equal(got, want) || a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s at %s: %d %v, want %v", name, path, a.StatusCode, got, want)
			}
			if r.Method != http.MethodHead && !strings.Contains(a.Text, "missing_token") {
				t.Errorf("%s at %s: body %s", name, path, a.Text)
			}
		}
		var document oauth.ResourceMetadata
		f.Get(strings.TrimPrefix(metadata, f.URL)).JSON(t, &document)
		if document.Resource != f.URL+path || !slices.Equal(document.AuthorizationServers, []string{f.URL}) || strings.Join(document.ScopesSupported, " ") != scope {
			t.Errorf("%s describes %+v", metadata, document)
		}
	}
	for _, path := range []string{"/s/none/mcp", "/s/FIX/mcp", "/s/fix%2f..%2ffix/mcp"} {
		if a := f.RPC(path, f.dev(), "tools/list", ""); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
		}
	}
}

// With a token other methods are told what is served instead.
func TestOtherMethodsAreNotServed(t *testing.T) {
	f := start(t)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodPut, http.MethodPatch, "PROPFIND"} {
		a := f.Do(f.Request(method, "/mcp", "", "Authorization: Bearer "+f.dev(), "Accept: text/event-stream"))
		if a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "POST, OPTIONS" {
			t.Errorf("%s: %d %v", method, a.StatusCode, a.Header)
		}
	}
}

// R516: a stranger can call what anyone may use, at the common endpoint, and
// nothing more.
func TestStrangersCallWhatAnyoneMayUse(t *testing.T) {
	f := start(t)
	if a := f.Tool("", "public_info", "{}"); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, `"server":"gatehouse"`) {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	for _, path := range []string{"/s/fix/mcp", "/s/gatehouse/mcp"} {
		if a := f.RPC(path, "", "tools/call", `{"name":"public_info"}`); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
		}
	}
	large := f.post("/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"public_info","x":"`+strings.Repeat("x", 100<<10)+`"}}`)
	if large.StatusCode != http.StatusUnauthorized {
		t.Errorf("a long message of a stranger: %d", large.StatusCode)
	}
	if a := f.RPC("/mcp", "", "tools/call", `{"name":"public_info"}`, "Authorization: Bearer junk"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a bad token is not taken for none: %d %s", a.StatusCode, a.Text)
	}
}

// Attacks 40, 75, 80; R503, R505, R514: what is not exactly one good token of
// ours, made for this endpoint, in the one place where it belongs, is refused as
// such, and the reason is not shown.
func TestOnlyOneGoodTokenIsAccepted(t *testing.T) {
	f := start(t)
	good, refresh := f.dev(), func() string {
		tokens, _ := f.Token("", "")
		return tokens.RefreshToken
	}()
	code, _ := f.Code(f.Register(), nil)
	other := start(t) // another server with keys of its own
	revoked, client := f.Token("", "")
	f.Form("/oauth/revoke", url.Values{"client_id": {client}, "token": {revoked.AccessToken}})
	f.exec(`INSERT INTO users (id, email, created_at) VALUES ('usr_eve', 'eve@acme.example', 1)`)
	f.exec(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_eve', 'owner', 'suspended', 1)`)

	bearer := func(token string) []string { return []string{"Authorization: Bearer " + token} }
	for _, tt := range []struct {
		name    string
		path    string
		headers []string
		body    string
		kind    string // error of the challenge; empty: nothing was presented
	}{
		{"for one server, at the common endpoint", "/mcp", bearer(f.at("/s/fix/mcp")), "", "invalid_token"},
		{"for the common endpoint, at a server's", "/s/fix/mcp", bearer(good), "", "invalid_token"},
		{"for another server with the same beginning", "/s/fix2/mcp", bearer(f.at("/s/fix/mcp")), "", "invalid_token"},
		{"for another server that begins like it", "/s/fix/mcp", bearer(f.at("/s/fix2/mcp")), "", "invalid_token"},
		{"for the control plane, at the common endpoint", "/mcp", bearer(f.at("/s/gatehouse/mcp")), "", "invalid_token"},
		{"for another address of ours", "/mcp", bearer(f.token(token.Family{Resource: "https://localhost/mcp"}, 0)), "", "invalid_token"},
		{"for the origin", "/mcp", bearer(f.token(token.Family{Resource: f.URL}, 0)), "", "invalid_token"},
		{"of another issuer", "/mcp", bearer(other.dev()), "", "invalid_token"},
		{"expired", "/mcp", bearer(f.token(token.Family{}, token.AccessLife+time.Second)), "", "invalid_token"},
		{"from the future", "/mcp", bearer(f.token(token.Family{}, -10*time.Minute)), "", "invalid_token"},
		{"revoked", "/mcp", bearer(revoked.AccessToken), "", "invalid_token"},
		{"of a suspended member", "/mcp", bearer(f.token(token.Family{User: "usr_eve"}, 0)), "", "invalid_token"},
		{"of nobody", "/mcp", bearer(f.token(token.Family{User: "usr_none"}, 0)), "", "invalid_token"},
		{"a refresh token", "/mcp", bearer(refresh), "", "invalid_token"},
		{"a code", "/mcp", bearer(code), "", "invalid_token"},
		{"cut", "/mcp", bearer(good[:len(good)-1]), "", "invalid_token"},
		{"changed", "/mcp", bearer(good[:len(good)-9] + "AAAAAAAAA"), "", "invalid_token"},
		{"without its signature", "/mcp", bearer(good[:strings.LastIndex(good, ".")+1]), "", "invalid_token"},
		{"dots", "/mcp", bearer(strings.Repeat(".", 60_000)), "", "invalid_token"},
		{"with junk after it", "/mcp", bearer(good + " junk"), "", "invalid_token"},
		{"with a comma after it", "/mcp", bearer(good + ", Bearer " + good), "", "invalid_token"},
		{"with two blanks", "/mcp", bearer(" " + good), "", "invalid_token"},
		{"twice", "/mcp", append(bearer(good), bearer(good)...), "", "invalid_token"},
		{"after a bad one", "/mcp", append(bearer("junk"), bearer(good)...), "", "invalid_token"},
		{"before a bad one", "/mcp", append(bearer(good), bearer("junk")...), "", "invalid_token"},
		{"without a scheme", "/mcp", []string{"Authorization: " + good}, "", "invalid_token"},
		{"without a token", "/mcp", []string{"Authorization: Bearer"}, "", "invalid_token"},
		{"under another scheme", "/mcp", []string{"Authorization: MAC " + good}, "", "invalid_token"},
		{"as Basic", "/mcp", []string{"Authorization: Basic " + good}, "", "invalid_token"},
		{"as a password", "/mcp", []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+good))}, "", "invalid_token"},
		{"in the query", "/mcp?access_token=" + good + "&token=" + good + "&bearer=" + good, nil, "", ""},
		{"in a cookie", "/mcp", []string{"Cookie: access_token=" + good + "; token=" + good}, "", ""},
		{"in other headers", "/mcp", []string{"X-Access-Token: " + good, "Proxy-Authorization: Bearer " + good, "X-Api-Key: " + good}, "", ""},
		{"in the body", "/mcp", nil, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"access_token":"` + good + `","_meta":{"authorization":"Bearer ` + good + `"}}}`, ""},
		{"as an argument", "/mcp", nil, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"x","access_token":"` + good + `"}}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := *f
			f.t = t
			body := tt.body
			if body == "" {
				body = listMessage
			}
			a := f.post(tt.path, "", body, tt.headers...)
			path, _, _ := strings.Cut(tt.path, "?")
			got := challenge(t, a)
			if a.StatusCode != http.StatusUnauthorized || got["error"] != tt.kind || got["scope"] != endpoints[path] && path != "/s/fix2/mcp" ||
				got["resource_metadata"] != f.URL+"/.well-known/oauth-protected-resource"+path {
				t.Errorf("%d %v %s", a.StatusCode, got, a.Text)
			}
			if tt.kind != "" && got["error_description"] != "the access token is not accepted" {
				t.Errorf("it is explained: %v", got)
			}
		})
	}
	for name, header := range map[string]string{"as it should be": "Bearer " + good, "with the scheme in small letters": "bearer " + good} { // RFC 9110 §11.1
		if a := f.post("/mcp", "", listMessage, "Authorization: "+header); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
		}
	}
	if log := f.Log.String(); strings.Contains(log, good) || strings.Contains(log, refresh) || strings.Contains(log, strings.Split(good, ".")[1]) {
		t.Errorf("a token is in the log:\n%s", log)
	}
}

// R508, attack 79: where another token would help, the challenge names what was
// granted together with what is needed; where none would, the model hears why.
func TestRefusalSaysWhatWouldHelp(t *testing.T) {
	f := start(t)
	for _, tt := range []struct {
		path, scopes, name string
		scope              string
	}{
		{"/mcp", "fix:read", "fix_write", "fix:read fix:write"},
		{"/mcp", "fix:read fix2:read", "fix_destroy", "fix:read fix2:read fix:admin"},
		{"/mcp", "mcp:tools", "fix_destroy", "mcp:tools fix:admin"},
		{"/s/fix/mcp", "fix:read", "write", "fix:read fix:write"},
		{"/s/gatehouse/mcp", "servers:read", "list_audit_events", "servers:read audit:read"},
	} {
		bearer := f.at(tt.path, strings.Fields(tt.scopes)...)
		a := f.RPC(tt.path, bearer, "tools/call", `{"name":"`+tt.name+`"}`)
		got := challenge(t, a)
		if a.StatusCode != http.StatusForbidden || got["error"] != "insufficient_scope" || got["scope"] != tt.scope || got["realm"] != "gatehouse" ||
			got["resource_metadata"] != f.URL+"/.well-known/oauth-protected-resource"+tt.path {
			t.Errorf("%s with %s: %d %v", tt.name, tt.scopes, a.StatusCode, got)
		}
		if m := parse(t, a); m.Error == nil || string(m.ID) != "1" || !strings.Contains(string(m.Error.Data), "SCOPE_REQUIRED") {
			t.Errorf("%s with %s: %s", tt.name, tt.scopes, a.Text)
		}
		if a := f.RPC(tt.path, f.at(tt.path, strings.Fields(got["scope"])...), "tools/call", `{"name":"`+tt.name+`"}`); a.StatusCode != http.StatusOK {
			t.Errorf("%s with what was asked for: %d %s", tt.name, a.StatusCode, a.Text)
		}
	}
	bob := f.token(token.Family{User: "usr_bob", Scopes: []string{"mcp:admin"}}, 0)
	if a := f.Tool(bob, "fix_destroy", "{}"); a.StatusCode != http.StatusOK || wrong(a) != "RANK_TOO_LOW" || a.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("no token helps bob: %d %v %s", a.StatusCode, a.Header, a.Text)
	}
}

// Attack 84: a session is no credential, and nobody else's.
func TestSessionBelongsToItsCaller(t *testing.T) {
	f := start(t)
	dev, here := f.dev(), func(path, bearer, session string) apptest.Answer {
		return f.RPC(path, bearer, "tools/list", "", mcp.SessionHeader+": "+session)
	}
	session := f.session("/mcp", dev)
	bob := f.token(token.Family{User: "usr_bob"}, 0)
	handle, _ := base64.RawURLEncoding.DecodeString(session)
	handle[len(handle)-1] ^= 1
	for _, tt := range []struct {
		name                  string
		path, bearer, session string
		status                int
	}{
		{"its own", "/mcp", dev, session, http.StatusOK},
		{"its own after a refresh", "/mcp", f.dev("mcp:read"), session, http.StatusOK},
		{"none", "/mcp", dev, "", http.StatusOK},
		{"another user", "/mcp", bob, session, http.StatusNotFound},
		{"another app of the same user", "/mcp", f.token(token.Family{Client: "app2"}, 0), session, http.StatusNotFound},
		{"another endpoint", "/s/fix/mcp", f.at("/s/fix/mcp"), session, http.StatusNotFound},
		{"garbage", "/mcp", dev, "garbage", http.StatusNotFound},
		{"a byte changed", "/mcp", dev, base64.RawURLEncoding.EncodeToString(handle), http.StatusNotFound},
		{"no token", "/mcp", "", session, http.StatusUnauthorized},
	} {
		if a := here(tt.path, tt.bearer, tt.session); a.StatusCode != tt.status {
			t.Errorf("%s: %d %s", tt.name, a.StatusCode, a.Text)
		}
	}
	if again := f.session("/mcp", dev); again == session {
		t.Error("two sessions have one id")
	}
	if a := f.RPC("/mcp", dev, "initialize", initializeParams, mcp.SessionHeader+": gone"); a.StatusCode != http.StatusOK {
		t.Errorf("initialize with an old session: %d %s", a.StatusCode, a.Text)
	}
	plain, _ := json.Marshal(session)
	if strings.Contains(fmt.Sprintf("%s%s", plain, handle), "usr_dev") {
		t.Error("the session shows whose it is")
	}
}

// Attack 108, R736: a web page may call us only if it is ours or of this computer.
func TestForeignPagesMayNotCall(t *testing.T) {
	f := start(t)
	port := f.URL[strings.LastIndex(f.URL, ":"):]
	for _, tt := range []struct {
		name    string
		origins []string
		ok      bool
	}{
		{"none", nil, true}, {"own", []string{f.URL}, true}, {"own by another name", []string{"http://127.0.0.1" + port}, true},
		{"another program on this computer", []string{"http://localhost:5173"}, true},
		{"evil", []string{"https://evil.example"}, false}, {"evil with our port", []string{"http://evil.example" + port}, false},
		{"evil with our name in it", []string{"http://localhost.evil.example"}, false}, {"null", []string{"null"}, false}, {"file", []string{"file://"}, false},
		{"two", []string{f.URL, f.URL}, false}, {"own and evil", []string{f.URL, "https://evil.example"}, false}, {"malformed", []string{"http://%zz"}, false},
		{"an extension", []string{"chrome-extension://abcdef"}, false},
	} {
		for path := range endpoints {
			for _, bearer := range []string{f.at(path), ""} {
				for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodOptions} {
					r := f.Request(method, path, listMessage, "Content-Type: application/json")
					if bearer != "" {
						r.Header.Set("Authorization", "Bearer "+bearer)
					}
					r.Header["Origin"] = tt.origins
					a := f.Do(r)
					refused := a.StatusCode == http.StatusForbidden
					allowed := a.Header.Values("Access-Control-Allow-Origin")
					if method == http.MethodOptions && tt.origins == nil {
						continue // no preflight
					}
					if refused == tt.ok || tt.ok && tt.origins != nil && !slices.Equal(allowed, tt.origins) || (!tt.ok || tt.origins == nil) && allowed != nil ||
						a.Header.Get("Access-Control-Allow-Credentials") != "" {
						t.Errorf("%s: %s %s: %d %v", tt.name, method, path, a.StatusCode, a.Header)
					}
				}
			}
		}
	}
}

// A page of this computer can find out that it needs a token, and send one.
func TestPreflight(t *testing.T) {
	f := start(t)
	a := f.Do(f.Request(http.MethodOptions, "/mcp", "", "Origin: http://localhost:5173", "Access-Control-Request-Method: POST",
		"Access-Control-Request-Headers: authorization,content-type,mcp-protocol-version,mcp-session-id,mcp-method,mcp-name"))
	allowed := strings.ToLower(a.Header.Get("Access-Control-Allow-Headers"))
	if a.StatusCode != http.StatusNoContent || !strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "POST") || a.Header.Get("Vary") != "Origin" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	for _, name := range []string{"authorization", "content-type", "mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name"} {
		if !strings.Contains(allowed, name) {
			t.Errorf("%s may not be sent: %s", name, allowed)
		}
	}
	a = f.post("/mcp", "", listMessage, "Origin: http://localhost:5173")
	if exposed := a.Header.Get("Access-Control-Expose-Headers"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(exposed, "WWW-Authenticate") || !strings.Contains(exposed, "Mcp-Session-Id") {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
}
