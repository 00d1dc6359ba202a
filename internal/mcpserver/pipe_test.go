package mcpserver_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/mcpserver"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

var references = regexp.MustCompile(`(req|call)_[0-9A-Z]{26}`)

// R702, R703, C18: over stdio a caller sees, gets and is refused what it would be at
// the common endpoint, in the same words.
func TestStdioAnswersAsTheCommonEndpoint(t *testing.T) {
	f := start(t)
	for name, bearer := range map[string]string{
		"dev": f.dev(), "who reads": f.dev("fix:read"), "admin": f.dev("mcp:admin"), "bob": f.token(token.Family{User: "usr_bob", Scopes: []string{"mcp:admin"}}, 0),
	} {
		p := f.Stdio(bearer)
		for _, ask := range []struct{ method, params string }{
			{"tools/list", `{}`}, {"ping", `{}`}, {"resources/list", `{}`}, {"prompts/list", `{}`}, {"resources/read", `{"uri":"x://none"}`},
			{"server/discover", `{}`}, {"no/such", `{}`}, {"logging/setLevel", `{"level":"loud"}`},
			{"tools/call", `{"name":"whoami"}`}, {"tools/call", `{"name":"echo","arguments":{"message":"é"}}`}, {"tools/call", `{"name":"echo","arguments":{"massage":"x"}}`},
			{"tools/call", `{"name":"public_info"}`}, {"tools/call", `{"name":"none"}`}, {"tools/call", `{}`}, {"tools/call", `{"name":"echo","Name":"echo"}`},
			{"tools/call", `{"name":"fix_read","arguments":{"x":1.0},"odd":[1e2]}`}, {"tools/call", `{"name":"fix_write"}`}, {"tools/call", `{"name":"fix_destroy"}`},
			{"tools/call", `{"name":"list_servers"}`}, {"tools/call", `{"name":"gatehouse_list_servers"}`}, // the control plane is at its own endpoint
			{"resources/subscribe", `{"uri":"x://y"}`}, {"tools/list", `{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}`},
		} {
			want := references.ReplaceAllString(f.RPC("/mcp", bearer, ask.method, ask.params).Text, "")
			m := p.RPC(ask.method, ask.params)
			m.ID = []byte("1")
			if got := references.ReplaceAllString(string(m.Encode()), ""); strings.TrimSpace(want) != got {
				t.Errorf("%s: %s %s\n got %s\nwant %s", name, ask.method, ask.params, got, want)
			}
		}
	}
	if n := f.count(`audit_event WHERE door = 'stdio' AND target = 'fix_read' AND outcome = 'allowed' AND ref LIKE 'req_%'`); n != 4 {
		t.Errorf("%d calls are recorded", n)
	}
}

// R714, C18: without a token a program can greet, and call what anyone may call; what
// else it asks for is refused with the code that it has everywhere.
func TestStdioWithoutAToken(t *testing.T) {
	f := start(t)
	p := f.Stdio("")
	if m := p.Initialize(`{}`); m.Error != nil || mcp.Text(m.Result, "serverInfo", "name") != "gatehouse" {
		t.Errorf("initialize: %s", m.Encode())
	}
	if got := apptest.Names(p.RPC("tools/list", "")); got != "public_info" {
		t.Errorf("listed %q", got)
	}
	if m := p.Tool("public_info", `{}`); apptest.Fault(m) != "" || mcp.Text(m.Result, "structuredContent", "server") != "gatehouse" {
		t.Errorf("public_info: %s", m.Encode())
	}
	for method, params := range map[string]string{
		"tools/call": `{"name":"echo","arguments":{"message":"x"}}`, "resources/list": `{}`, "prompts/list": `{}`, "resources/read": `{"uri":"x://y"}`,
		"logging/setLevel": `{"level":"info"}`, "no/such": `{}`, "completion/complete": `{}`,
	} {
		m := p.RPC(method, params)
		if apptest.Fault(m) != "TOKEN_MISSING" || m.Error.Code != mcp.InvalidRequest || !strings.HasPrefix(m.Error.Message, "missing_token: ") || !strings.Contains(string(m.Error.Data), "gatehouse login "+f.URL+"/mcp") {
			t.Errorf("%s: %s", method, m.Encode())
		}
	}
	for _, name := range []string{"whoami", "fix_read", "fix_write", "none", "list_servers"} {
		if m := p.Tool(name, `{}`); apptest.Fault(m) != "TOKEN_MISSING" {
			t.Errorf("%s: %s", name, m.Encode())
		}
	}
	if n := len(f.up.Received("tools/call")); n != 0 {
		t.Errorf("%d calls went through", n)
	}
}

// R505, R714: a token that is not good here is refused for everything, and never
// passed over.
func TestStdioRefusesTokens(t *testing.T) {
	f := start(t)
	other := start(t)
	revoked, client := f.Token("", "")
	f.Form("/oauth/revoke", url.Values{"client_id": {client}, "token": {revoked.AccessToken}})
	f.exec(`INSERT INTO users (id, email, created_at) VALUES ('usr_eve', 'eve@acme.example', 1)`)
	f.exec(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_eve', 'owner', 'suspended', 1)`)
	bound := f.token(token.Family{Key: "of-somebody"}, 0)
	good := f.dev()
	for name, tt := range map[string]struct{ token, key, code string }{
		"for one server":        {f.at("/s/fix/mcp"), "", "TOKEN_INVALID"},
		"for the control plane": {f.at("/s/gatehouse/mcp"), "", "TOKEN_INVALID"},
		"of another issuer":     {other.dev(), "", "TOKEN_INVALID"},
		"expired":               {f.token(token.Family{}, token.AccessLife+time.Second), "", "TOKEN_INVALID"},
		"revoked":               {revoked.AccessToken, "", "TOKEN_INVALID"},
		"a refresh token":       {revoked.RefreshToken, "", "TOKEN_INVALID"},
		"of a suspended member": {f.token(token.Family{User: "usr_eve"}, 0), "", "TOKEN_INVALID"},
		"of nobody":             {f.token(token.Family{User: "usr_none"}, 0), "", "TOKEN_INVALID"},
		"cut":                   {good[:len(good)-1], "", "TOKEN_INVALID"},
		"with its scheme":       {"Bearer " + good, "", "TOKEN_INVALID"},
		"bound to a key":        {bound, "", "PROOF_MISSING"},
		"bound to another key":  {bound, "of-another", "PROOF_MISSING"},
	} {
		p := f.StdioAs(func(string) (string, string, error) { return tt.token, tt.key, nil })
		for _, ask := range []struct{ method, params string }{
			{"initialize", initializeParams}, {"ping", ""}, {"tools/list", ""}, {"tools/call", `{"name":"public_info"}`}, {"tools/call", `{"name":"fix_read"}`},
			{"tools/call", `{"name":"echo","arguments":{"message":"x","access_token":"` + good + `"}}`},
			{"tools/call", `{"name":"fix_read","_meta":{"` + mcpserver.TokenMeta + `":"` + good + `"}}`},
		} {
			m := p.RPC(ask.method, ask.params)
			if apptest.Fault(m) != tt.code || m.Result != nil || !strings.HasPrefix(m.Error.Message, "invalid_token: ") {
				t.Errorf("%s: %s %.30s: %s", name, ask.method, ask.params, m.Encode())
			}
		}
		p.Hang()
		if log := p.Log.String(); strings.Contains(log, tt.token) || strings.Contains(log, good) {
			t.Errorf("%s: a token is in the log:\n%s", name, log)
		}
	}
	held := f.StdioAs(func(string) (string, string, error) { return bound, "of-somebody", nil })
	if m := held.Tool("fix_read", `{}`); apptest.Fault(m) != "" || m.Error != nil {
		t.Errorf("bound to a key that the process holds: %s", m.Encode())
	}
	if n := len(f.up.Received("tools/call")); n != 1 {
		t.Errorf("%d calls went through", n)
	}
}

// What the process has is looked for again when it does not do; what it cannot have
// is told as it is.
func TestStdioAsksForItsCredentialAgain(t *testing.T) {
	f := start(t)
	var mu sync.Mutex
	var refusals []string
	now, later := f.token(token.Family{}, token.AccessLife+time.Second), f.dev()
	p := f.StdioAs(func(refused string) (string, string, error) {
		mu.Lock()
		defer mu.Unlock()
		if refused == "" {
			return now, "", nil
		}
		refusals = append(refusals, refused)
		return later, "", nil
	})
	if m := p.Tool("fix_read", `{}`); m.Error != nil || len(refusals) != 1 || refusals[0] != now {
		t.Errorf("%s after %q", m.Encode(), refusals)
	}
	lost := f.StdioAs(func(string) (string, string, error) {
		return "", "", authn.TokenInvalid.New("signed out").WithWhy("somebody said so")
	})
	for _, name := range []string{"public_info", "fix_read"} {
		if m := lost.Tool(name, `{}`); apptest.Fault(m) != "TOKEN_INVALID" || !strings.Contains(string(m.Error.Data), "somebody said so") {
			t.Errorf("%s: %s", name, m.Encode())
		}
	}
}

// Revocation and expiry end what runs on a token, and are known at the next message,
// in a process that runs, within a second.
func TestStdioTokenEndsWhileTheProcessRuns(t *testing.T) {
	f := start(t)
	tokens, client := f.Token("", "")
	p := f.Stdio(tokens.AccessToken)
	p.Initialize(`{}`)
	up := f.waits()
	id := p.Begin("tools/call", `{"name":"fix_read"}`)
	soon(t, "the call", up.began)
	revoked := time.Now()
	f.Form("/oauth/revoke", url.Values{"client_id": {client}, "token": {tokens.AccessToken}})
	if m := p.Hear(); string(m.ID) != id || apptest.Fault(m) != "TOKEN_INVALID" || time.Since(revoked) > 2*time.Second { // one of them for a busy computer
		t.Errorf("after %v: %s", time.Since(revoked), m.Encode())
	}
	soon(t, "the end of the request", up.ended)
	if m := p.Tool("public_info", `{}`); apptest.Fault(m) != "TOKEN_INVALID" {
		t.Errorf("the next message: %s", m.Encode())
	}
	f.up.Answer(nil)
	brief := f.Stdio(f.token(token.Family{}, token.AccessLife-3*time.Second))
	if m := brief.Tool("fix_read", `{}`); m.Error != nil {
		t.Errorf("while it is good: %s", m.Encode())
	}
	time.Sleep(3100 * time.Millisecond)
	if m := brief.Tool("fix_read", `{}`); apptest.Fault(m) != "TOKEN_INVALID" {
		t.Errorf("expired: %s", m.Encode())
	}
}

// C23: a message can bring a token where the process has none: in _meta for
// everything, in an argument for echo. It counts for this message, and goes no further.
func TestStdioTokensInMessages(t *testing.T) {
	f := start(t)
	dev, bob := f.dev(), f.token(token.Family{User: "usr_bob", Scopes: []string{"fix:read"}}, 0)
	meta := func(name, token string) string {
		return `{"name":"` + name + `","arguments":{"password":"hunter2"},"_meta":{"x":1,"` + mcpserver.TokenMeta + `":"` + token + `"}}`
	}
	user := func(m mcp.Message) string { return mcp.Text(m.Result, "structuredContent", "user") }
	alone, own := f.Stdio(""), f.Stdio(bob)
	for _, tt := range []struct {
		name    string
		p       *apptest.Program
		params  string
		fault   string
		message string
	}{
		{"in _meta", alone, meta("fix_read", dev), "", ""},
		{"in _meta, of another", alone, meta("fix_write", bob), "SCOPE_REQUIRED", "insufficient_scope: "},
		{"in _meta, not good", alone, meta("fix_read", "junk"), "TOKEN_INVALID", "invalid_token: "},
		{"in _meta, no text", alone, `{"name":"public_info","_meta":{"` + mcpserver.TokenMeta + `":7}}`, "TOKEN_INVALID", "invalid_token: "},
		{"nothing in _meta", alone, `{"name":"fix_read","_meta":{"` + mcpserver.TokenMeta + `":null}}`, "TOKEN_MISSING", "missing_token: "},
		{"the next message", alone, `{"name":"fix_read"}`, "TOKEN_MISSING", "missing_token: "},
		{"in an argument of echo", alone, `{"name":"echo","arguments":{"message":"x","access_token":"` + dev + `"}}`, "", ""},
		{"the same, for another resource", alone, `{"name":"echo","arguments":{"message":"x","access_token":"` + f.at("/s/fix/mcp") + `"}}`, "TOKEN_INVALID", "invalid_token: "},
		{"the same, not good", alone, `{"name":"echo","arguments":{"message":"x","access_token":"junk"}}`, "TOKEN_INVALID", "invalid_token: "},
		{"the same, empty", alone, `{"name":"echo","arguments":{"message":"x","access_token":""}}`, "TOKEN_MISSING", "missing_token: "},
		{"in an argument of whoami", alone, `{"name":"whoami","arguments":{"access_token":"` + dev + `"}}`, "TOKEN_MISSING", "missing_token: "},
		{"in an argument of a server's tool", alone, `{"name":"fix_read","arguments":{"access_token":"` + dev + `"}}`, "TOKEN_MISSING", "missing_token: "},
		{"in the middle of nowhere", alone, `{"name":"fix_read","access_token":"` + dev + `"}`, "TOKEN_MISSING", "missing_token: "},
		{"beside the process's own", own, meta("fix_write", dev), "SCOPE_REQUIRED", "insufficient_scope: "},
		{"a bad one beside the process's own", own, meta("fix_read", "junk"), "", ""},
		{"an argument beside the process's own", own, `{"name":"echo","arguments":{"message":"x","access_token":"` + dev + `"}}`, "", ""},
	} {
		m := tt.p.RPC("tools/call", tt.params)
		if got := apptest.Fault(m); got != tt.fault || m.Error != nil && !strings.HasPrefix(m.Error.Message, tt.message) {
			t.Errorf("%s: %s", tt.name, m.Encode())
		}
	}
	if got := user(alone.RPC("tools/call", `{"name":"whoami","_meta":{"`+mcpserver.TokenMeta+`":"`+dev+`"}}`)); got != "usr_dev" {
		t.Errorf("whoami with a token in _meta: %q", got)
	}
	if got := user(own.RPC("tools/call", `{"name":"whoami","_meta":{"`+mcpserver.TokenMeta+`":"`+dev+`"}}`)); got != "usr_bob" {
		t.Errorf("whoami beside the process's own token: %q", got) // no more than the process may
	}
	if m := own.Tool("fix_read", `{"access_token":"mine"}`); m.Error != nil {
		t.Errorf("%s", m.Encode())
	}
	var seen []string
	for _, r := range f.up.Received("tools/call") {
		seen = append(seen, string(r.Params))
	}
	want := []string{
		`{"name":"read","arguments":{"password":"hunter2"},"_meta":{"x":1}}`, `{"name":"read","arguments":{"password":"hunter2"},"_meta":{"x":1}}`,
		`{"name":"read","arguments":{"access_token":"mine"}}`, // what is a server's own is none of ours
	}
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("the server received\n%s", strings.Join(seen, "\n"))
	}
	for what, text := range map[string]string{"log": alone.Log.String() + own.Log.String(), "database": f.everything()} {
		for _, secret := range []string{dev, bob, strings.Split(dev, ".")[2], "hunter2", "junk"} {
			if strings.Contains(text, secret) {
				t.Errorf("%.40s… is in the %s", secret, what)
			}
		}
	}
}

// everything is what the database holds, as text.
func (f *fixture) everything() string {
	h := *f.House
	h.DB = f.db
	return h.Dump()
}

// What cannot be understood is refused as over HTTP, under its id where that can be
// made out; the process goes on (R717).
func TestStdioUnclearLines(t *testing.T) {
	f := start(t)
	p := f.Stdio(f.dev())
	for _, tt := range []struct {
		line string
		code int
		id   string
	}{
		{"hello", mcp.ParseError, ""},
		{`{"jsonrpc":"2.0","id":7,"method":"tools/li`, mcp.ParseError, "7"},
		{"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"\xff\"}", mcp.ParseError, "7"},
		{"[" + listMessage + "]", mcp.InvalidRequest, ""},
		{listMessage + listMessage, mcp.ParseError, "1"},
		{`"tools/list"`, mcp.InvalidRequest, ""},
		{`{"jsonrpc":"2.0","id":{},"method":"tools/list"}`, mcp.InvalidRequest, ""},
		{`{"jsonrpc":"1.0","id":7,"method":"tools/list"}`, mcp.InvalidRequest, "7"},
		{`{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/list"}`, mcp.InvalidRequest, "7"},
		{`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":["echo"]}`, mcp.InvalidParams, "7"},
		{`{"jsonrpc":"2.0","id":"long","method":"tools/call","params":{"name":"fix_read","x":"` + strings.Repeat("x", 5<<20) + `"}}`, mcp.InvalidRequest, `"long"`},
		{`{"jsonrpc":"2.0","method":"tools/call","params":{"name":"fix_read","x":"` + strings.Repeat("x", 5<<20) + `"},"id":9}`, mcp.InvalidRequest, "9"},
		{strings.Repeat("y", 20<<20), mcp.InvalidRequest, ""},
	} {
		p.Say(tt.line + "\n")
		if m := p.Hear(); m.Error == nil || m.Error.Code != tt.code || string(m.ID) != tt.id {
			t.Errorf("%.60s: %.300s, want %d for %s", tt.line, m.Encode(), tt.code, tt.id)
		}
	}
	for _, quiet := range []string{
		"", "  \r", `{"jsonrpc":"2.0","method":"notifications/of-tomorrow"}`, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}`,
		`{"jsonrpc":"2.0","method":"tools/call","params":{"name":"fix_write"}}`, `{"jsonrpc":"2.0","id":3,"result":{}}`, `{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":"no"}}`,
	} {
		p.Say(quiet + "\n")
	}
	p.Say(`{"jsonrpc":"2.0","id":"last","method":"ping"}` + "\r\n")
	if m := p.Hear(); string(m.ID) != `"last"` || string(m.Result) != "{}" {
		t.Errorf("afterwards: %s", m.Encode())
	}
	if n := len(f.up.Received("tools/call")); n != 0 {
		t.Errorf("%d calls went through", n)
	}
}

// Progress and logs come before the answer, with the caller's own token; what a server
// sends on several lines is one.
func TestStdioProgress(t *testing.T) {
	f := start(t)
	p := f.Stdio(f.dev())
	f.up.Answer(progressing)
	p.Begin("tools/call", `{"name":"fix_read","_meta":{"progressToken":"p1"}}`)
	for _, want := range []string{
		`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p1","progress":1,"total":2.0}}`,
		`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":{"x":1.0}}}`,
		`{"jsonrpc":"2.0","id":1,"result":{"content":[]}}`,
	} {
		if got := string(p.Hear().Encode()); got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	}
	f.up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		apptest.Reply(w, m, "{\n  \"content\": [\n\t]\r\n}")
	})
	if m := p.Tool("fix_read", `{}`); string(m.Result) != "{   \"content\": [ \t]  }" {
		t.Errorf("%q", m.Result)
	}
}

// A program cancels what it asked for, by its id, and hears no answer; others go on.
func TestStdioCancel(t *testing.T) {
	f := start(t)
	p := f.Stdio(f.dev())
	p.Initialize(`{}`)
	up := f.waits()
	id := p.Begin("tools/call", `{"name":"fix_write"}`)
	asked := soon(t, "the call", up.began)
	p.Say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"` + id + `"}}` + "\n") // another id
	if m := p.RPC("ping", ""); string(m.Result) != "{}" {
		t.Errorf("while a call runs: %s", m.Encode())
	}
	p.Say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":` + id + `}}` + "\n")
	soon(t, "the end of the request", up.ended)
	f.mustHaveTold(asked)
	p.Begin("ping", "")
	if m := p.Hear(); string(m.Result) != "{}" {
		t.Errorf("answered all the same: %s", m.Encode())
	}
	if got := f.events(2); got != "fix_write pending, fix_write failed CALL_CANCELLED" {
		t.Errorf("recorded %s", got)
	}
}

// R719: a server's question reaches the program, if it can be asked that, and its
// answer the server.
func TestStdioServerAsks(t *testing.T) {
	f := start(t)
	up := f.withFull()
	up.answer("tools/call", up.asking(`{"jsonrpc":"2.0","id":"theirs","method":"elicitation/create","params":{"message":"why?","x":1.0}}`))
	p := f.Stdio(f.dev())
	p.Initialize(everything)
	id := p.Begin("tools/call", `{"name":"full_look"}`)
	question := p.Hear()
	if question.Method != "elicitation/create" || string(question.Params) != `{"message":"why?","x":1.0}` || strings.Contains(string(question.ID), "theirs") {
		t.Fatalf("asked %s", question.Encode())
	}
	answer := func(id, word string) string {
		return `{"jsonrpc":"2.0","id":` + id + `,"result":{"action":"` + word + `"}}` + "\n"
	}
	p.Say(answer(`"theirs"`, "stolen") + answer("1", "stolen") + answer(string(question.ID), "accept") + answer(string(question.ID), "late"))
	if m := p.Hear(); string(m.ID) != id || !strings.Contains(string(m.Result), `accept`) {
		t.Errorf("the server heard %s", m.Encode())
	}
	silent := f.Stdio(f.dev())
	silent.Initialize(`{}`)
	if m := silent.RPC("tools/call", `{"name":"full_look"}`); !strings.Contains(string(m.Result), `-32601`) {
		t.Errorf("a program that cannot be asked: %s", m.Encode())
	}
}

// The program hears that the list of tools has changed, for whom it calls: when a
// server comes, and when it calls for somebody else.
func TestStdioHearsOfChanges(t *testing.T) {
	f := start(t)
	var mu sync.Mutex
	bearer := f.dev()
	p := f.StdioAs(func(string) (string, string, error) {
		mu.Lock()
		defer mu.Unlock()
		return bearer, "", nil
	})
	p.Initialize(`{}`)
	before := apptest.Names(p.RPC("tools/list", ""))
	f.Add("fix3", apptest.NewUpstream(t))
	if m := p.Hear(); m.Method != "notifications/tools/list_changed" {
		t.Errorf("heard %s", m.Encode())
	}
	if now := apptest.Names(p.RPC("tools/list", "")); now == before || !strings.Contains(now, "fix3_read") {
		t.Errorf("offered %s", now)
	}
	mu.Lock()
	bearer = f.dev("fix:read")
	mu.Unlock()
	p.RPC("tools/list", "") // after what was said of resources and prompts
	mu.Lock()
	bearer = f.dev("mcp:admin")
	mu.Unlock()
	p.Begin("ping", "")
	for heard := ""; heard != "notifications/tools/list_changed"; heard = p.Hear().Method {
	}
}

// A program that closes its end is left at once, with what it asked for answered if
// that is quick; one that has gone or does not read is no obstacle.
func TestStdioEnds(t *testing.T) {
	f := start(t)
	dev := f.dev()
	p := f.Stdio(dev)
	p.Say(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fix_read"}}`) // without a break
	p.Hang()
	if m := p.Hear(); !strings.Contains(string(m.Result), "did read") {
		t.Errorf("answered %s", m.Encode())
	}
	if err := p.Ended(3 * time.Second); err != nil {
		t.Error(err)
	}

	up := f.waits()
	for name, end := range map[string]func(*apptest.Program){"input closed": (*apptest.Program).Hang, "told to end": (*apptest.Program).Kill} {
		p := f.Stdio(dev)
		p.Begin("tools/call", `{"name":"fix_write"}`)
		soon(t, "the call", up.began)
		end(p)
		if err := p.Ended(4 * time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		soon(t, "the end of the request", up.ended)
		if got := f.events(2); got != "fix_write pending, fix_write failed CALL_CANCELLED" {
			t.Errorf("%s: recorded %s", name, got)
		}
	}
	if n := f.count(`audit_node WHERE id LIKE 'guest_%'`); n != 0 {
		t.Errorf("%d processes are taken for alive", n)
	}
}

// One that asks and does not read is not read any more, and can be told to end.
func TestStdioSlowReader(t *testing.T) {
	f := start(t)
	p := f.Stdio(f.dev())
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		for range 4000 { // apptest keeps a thousand answers
			p.Begin("ping", "")
		}
	}()
	select {
	case <-stuck:
		t.Fatal("everything was taken")
	case <-time.After(2 * time.Second):
	}
	p.Kill()
	if err := p.Ended(5 * time.Second); err != nil {
		t.Error(err)
	}
	p.Hang()
}

// Many requests are carried out side by side; too many are refused.
func TestStdioManyAtOnce(t *testing.T) {
	f := start(t)
	p := f.Stdio(f.dev())
	release := make(chan struct{})
	f.up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		<-release
		apptest.Reply(w, m, `{"content":[]}`)
	})
	const many = 140
	for range many {
		p.Begin("tools/call", `{"name":"fix_read"}`)
	}
	refused := 0
	for range many - 128 {
		if m := p.Hear(); m.Error != nil && m.Error.Code == mcp.InternalError {
			refused++
		}
	}
	close(release)
	answered := map[string]bool{}
	for range 128 {
		m := p.Hear()
		if m.Error != nil {
			t.Fatalf("%s", m.Encode())
		}
		answered[string(m.ID)] = true
	}
	if refused != many-128 || len(answered) != 128 {
		t.Errorf("%d refused, %d answered", refused, len(answered))
	}
	var list json.RawMessage
	if list = p.RPC("tools/list", "").Result; list == nil {
		t.Error("nothing goes any more")
	}
}
