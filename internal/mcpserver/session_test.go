package mcpserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// At the endpoint of one server a session is one at the server, with what its
// client can be asked for; two people's do not mix, and who has none uses the one
// that all share.
func TestSessionsAreTheirOwn(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:read")
	bob := f.token(token.Family{User: "usr_bob", Resource: f.URL + atFull, Scopes: []string{"full:read"}}, 0)
	devs, _ := f.open(atFull, dev, everything)
	bobs, _ := f.open(atFull, bob, `{}`)
	if strings.Contains(devs, "full-") {
		t.Errorf("the session of the server shows in ours: %s", devs)
	}
	at := map[string]string{}
	for range 3 {
		for session, bearer := range map[string]string{devs: dev, bobs: bob, "": dev} {
			f.RPC(atFull, bearer, "tools/call", `{"name":"look"}`, inSession(session))
			there := up.in("tools/call")
			if at[session] != "" && at[session] != there {
				t.Errorf("went from %s to %s", at[session], there)
			}
			at[session] = there
		}
	}
	if at[devs] == at[bobs] || at[devs] == at[""] || at[bobs] == at[""] {
		t.Errorf("sessions are shared: %v", at)
	}
	const want = `{"elicitation":{"form":{}},"roots":{"listChanged":true},"sampling":{}}`
	if got := up.session(at[devs]).offers; got != want {
		t.Errorf("the server was told of %s, want %s", got, want)
	}
	if got := up.session(at[bobs]).offers; got != `{}` {
		t.Errorf("the server was told of %s", got)
	}
}

// Attack 84: a session is nobody else's, not even of the same person in another
// app, and good at its own endpoint only.
func TestForeignSessions(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:admin")
	session, _ := f.open(atFull, dev, everything)
	bob := f.token(token.Family{User: "usr_bob", Resource: f.URL + atFull, Scopes: []string{"full:admin"}}, 0)
	app := f.token(token.Family{Client: "other", Resource: f.URL + atFull, Scopes: []string{"full:admin"}}, 0)
	before := len(up.received)
	for name, tt := range map[string]struct{ path, bearer, session string }{
		"another person":    {atFull, bob, session},
		"another app":       {atFull, app, session},
		"another endpoint":  {"/s/fix/mcp", f.at("/s/fix/mcp", "mcp:admin"), session},
		"a changed one":     {atFull, dev, session[:len(session)-2] + "AA"},
		"the server's own":  {atFull, dev, "full-1"},
		"one cut off":       {atFull, dev, session[:20]},
		"what is no handle": {atFull, dev, "../../x"},
	} {
		for _, r := range []*http.Request{
			f.Request(http.MethodPost, tt.path, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, "Content-Type: application/json"),
			f.Request(http.MethodPost, tt.path, `{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}`, "Content-Type: application/json"),
			f.Request(http.MethodGet, tt.path, "", "Accept: text/event-stream"),
			f.Request(http.MethodDelete, tt.path, ""),
		} {
			r.Header.Set("Authorization", "Bearer "+tt.bearer)
			r.Header.Set(mcp.SessionHeader, tt.session)
			if a := f.Do(r); a.StatusCode != http.StatusNotFound {
				t.Errorf("%s, %s: %d %s", name, r.Method, a.StatusCode, a.Text)
			}
		}
	}
	if n := len(up.received) - before; n != 0 {
		t.Errorf("%d messages reached the server", n)
	}
	if a := f.RPC(atFull, dev, "ping", "", inSession(session)); a.StatusCode != http.StatusOK {
		t.Errorf("its owner: %d %s", a.StatusCode, a.Text)
	}
}

// A session outlives gatehouse: after a restart it is the same one at the server.
func TestSessionSurvivesARestart(t *testing.T) {
	up := newFull(t)
	dir := t.TempDir()
	house := func(listen string) *apptest.House {
		return apptest.Start(t, apptest.Dev, func(c *app.Config) { c.DataDir, c.Listen = dir, listen })
	}
	h := house("localhost:0")
	if a := h.Admin("add_server", `{"name":"full","url":"`+up.URL+`"}`); a.StatusCode != http.StatusOK {
		t.Fatal(a.Text)
	}
	tokens, _ := h.Token("full:read", h.URL+atFull)
	f := &fixture{House: h, t: t}
	session, _ := f.open(atFull, tokens.AccessToken, everything)
	call := func() string {
		t.Helper()
		if a := f.RPC(atFull, tokens.AccessToken, "resources/read", `{"uri":"doc://one"}`, inSession(session)); a.StatusCode != http.StatusOK || parse(t, a).Error != nil {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
		return up.in("resources/read")
	}
	first := call()
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	f.House = house(strings.TrimPrefix(h.URL, "http://"))
	if got := call(); got != first {
		t.Errorf("from %s to %s", first, got)
	}
	up.forget() // and now the server restarts
	second := call()
	if second == first || call() != second || up.session(second).offers == "{}" {
		t.Errorf("from %s to %s", first, second)
	}
}

// A server that restarts has forgotten the session. The client does not notice,
// and what it asked for in the session is asked again.
func TestSessionSurvivesTheServersRestart(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:read")
	session, _ := f.open(atFull, dev, everything)
	f.RPC(atFull, dev, "logging/setLevel", `{"level":"warning"}`, inSession(session))
	f.RPC(atFull, dev, "resources/subscribe", `{"uri":"doc://one"}`, inSession(session))
	up.forget()
	for range 2 {
		if a := f.RPC(atFull, dev, "resources/read", `{"uri":"doc://one"}`, inSession(session)); a.StatusCode != http.StatusOK || parse(t, a).Error != nil {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
	}
	there := up.in("resources/read")
	for method, params := range map[string]string{"logging/setLevel": `{"level":"warning"}`, "resources/subscribe": `{"uri":"doc://one"}`} {
		heard := up.heard(method)
		if last := heard[len(heard)-1]; len(heard) != 2 || last.Header.Get(mcp.SessionHeader) != there || string(last.Params) != params {
			t.Errorf("%s was sent %d times, at last in %s: %s", method, len(heard), last.Header.Get(mcp.SessionHeader), last.Params)
		}
	}
}

// A client that ends its session ends that at the server.
func TestDeleteEndsTheSession(t *testing.T) {
	f := start(t)
	up := f.withFull()
	for path, ends := range map[string]bool{atFull: true, "/mcp": false} { // at the common endpoint there is nothing to end
		bearer := f.at(path, "full:read")
		session, _ := f.open(path, bearer, "{}")
		stream := f.listen(path, bearer, session)
		before := len(up.heard(http.MethodDelete))
		a := f.Do(f.Request(http.MethodDelete, path, "", "Authorization: Bearer "+bearer, inSession(session)))
		if a.StatusCode != http.StatusNoContent || (len(up.heard(http.MethodDelete)) > before) != ends {
			t.Errorf("%s: %d %s, the server heard %d", path, a.StatusCode, a.Text, len(up.heard(http.MethodDelete)))
		}
		if got := stream.until("never"); got != "the end" {
			t.Errorf("%s: its stream goes on: %s", path, got)
		}
		if a := f.RPC(path, bearer, "ping", "", inSession(session)); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: afterwards: %d %s", path, a.StatusCode, a.Text)
		}
	}
	bearer := f.at(atFull, "full:read")
	if a := f.Do(f.Request(http.MethodDelete, atFull, "", "Authorization: Bearer "+bearer)); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("without a session: %d", a.StatusCode)
	}
	if a := f.Do(f.Request(http.MethodDelete, atFull, "")); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger: %d", a.StatusCode)
	}
}

// At the common endpoint, and over stdio, callers share a session with the server.
// Then it is asked for what serves them all, and each hears its own part.
func TestWishesInASharedSession(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.dev("full:read")
	one, _ := f.open("/mcp", dev, "{}")
	two, _ := f.open("/mcp", dev, "{}")
	f.RPC("/mcp", dev, "logging/setLevel", `{"level":"error"}`, inSession(one))
	f.RPC("/mcp", dev, "logging/setLevel", `{"level":"debug"}`, inSession(two))
	f.RPC("/mcp", dev, "logging/setLevel", `{"level":"critical"}`, inSession(one))
	var asked []string
	for _, m := range up.heard("logging/setLevel") {
		asked = append(asked, mcp.Text(m.Params, "level"))
	}
	if strings.Join(asked, " ") != "error debug debug" {
		t.Errorf("the server was asked for %s", asked)
	}
	up.answer("tools/call", progressing)
	for session, want := range map[string]bool{one: false, two: true, "": true} { // progressing logs at info
		a := f.RPC("/mcp", dev, "tools/call", `{"name":"full_look","_meta":{"progressToken":1}}`, inSession(session))
		if strings.Contains(a.Text, "notifications/message") != want || !strings.Contains(a.Text, "notifications/progress") {
			t.Errorf("wants %v, heard %s", want, a.Text)
		}
	}
	for _, session := range []string{one, two} {
		f.RPC("/mcp", dev, "resources/subscribe", `{"uri":"doc://one"}`, inSession(session))
	}
	f.RPC("/mcp", dev, "resources/unsubscribe", `{"uri":"doc://one"}`, inSession(one))
	if len(up.heard("resources/unsubscribe")) != 0 {
		t.Error("one ended the other's watch")
	}
	left, right := f.listen("/mcp", dev, one), f.listen("/mcp", dev, two)
	stream := up.session(up.in("resources/subscribe")).stream
	for _, l := range []*listening{left, right} { // until it is heard that they listen
		for len(l.lines) == 0 {
			stream <- `{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}`
			time.Sleep(10 * time.Millisecond)
		}
	}
	stream <- `{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"doc://one"}}`
	stream <- `{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"of whom?"}}`
	stream <- `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`
	stream <- `{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}`
	for l, want := range map[*listening]string{left: "", right: "resources/updated "} {
		heard := ""
		for line := ""; !strings.Contains(line, "resources/list_changed"); {
			if line = l.next(); !strings.Contains(line, "list_changed") || strings.Contains(line, "tools") {
				heard += strings.TrimPrefix(mcp.Text([]byte(line), "method"), "notifications/") + " "
			}
		}
		if heard != want {
			t.Errorf("heard %q, want %q", heard, want)
		}
	}
	f.RPC("/mcp", dev, "resources/unsubscribe", `{"uri":"doc://one"}`, inSession(two))
	if len(up.heard("resources/unsubscribe")) != 1 {
		t.Error("the last did not end the watch")
	}
}

// Attacks 82 and 83: in a session of the caller's own, too, the server gets nothing
// of the caller but its messages, and nothing of the server but those comes back.
func TestHeadersDoNotPassInASession(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:read")
	secrets := []string{"Cookie: session=secret", "DPoP: secret", "Proxy-Authorization: Basic secret", "X-User: secret", "X_User: secret",
		"X-Forwarded-User: secret", "Connection: X-User", "Last-Event-ID: secret", "Forwarded: for=secret"}
	a := f.RPC(atFull, dev, "initialize", initializeParams, secrets...)
	session := a.Header.Get(mcp.SessionHeader)
	stream := f.Request(http.MethodGet, atFull, "", append(secrets, "Authorization: Bearer "+dev, inSession(session))...)
	listening := f.stream(stream, func() {})
	answers := []apptest.Answer{
		a, f.RPC(atFull, dev, "resources/read", `{"uri":"doc://one"}`, append(secrets, inSession(session))...),
		f.RPC(atFull, dev, "prompts/list", "", append(secrets, inSession(session))...),
	}
	eventually(t, "the server's stream is open", func() bool { return len(up.heard(http.MethodGet)) > 0 })
	answers = append(answers, f.Do(f.Request(http.MethodDelete, atFull, "", append(secrets, "Authorization: Bearer "+dev, inSession(session))...)))
	if got := listening.next(); got != "the end" {
		t.Errorf("heard %s", got)
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	for _, r := range up.received {
		for name, values := range r.Header {
			switch name {
			case "Accept", "Content-Type", "Content-Length", "User-Agent", "Mcp-Protocol-Version", "Mcp-Session-Id", "Accept-Encoding":
			default:
				t.Errorf("%s carried %s: %s", r.Method, name, values)
			}
			if text := strings.Join(values, " "); strings.Contains(text, "secret") || strings.Contains(text, dev) || strings.Contains(text, session) {
				t.Errorf("%s carried %s: %s", r.Method, name, values)
			}
		}
	}
	for _, a := range answers {
		for name, values := range a.Header {
			switch name {
			case "Content-Type", "Cache-Control", "Content-Length", "Date", "X-Content-Type-Options", "X-Request-Id":
			case "Mcp-Session-Id":
				if strings.Contains(values[0], "full-") {
					t.Errorf("the server's session came back: %s", values)
				}
			default:
				t.Errorf("the answer has %s: %s", name, values)
			}
		}
	}
}
