package mcpserver_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// What nobody here has heard of arrives on the other side byte for byte, both
// ways; at the common endpoint the name alone loses its prefix.
func TestMessagesPassUnchanged(t *testing.T) {
	f := start(t)
	arguments := `{"a":1.0, "b":1e3,"é":"\u00e9\/","big":12345678901234567890,"nothing":null,"a\u0062":[1,2.50, {}]}`
	meta := `{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","example.org/x":{"z":[1,2.50]},"progressToken":"p\u0031"}`
	params := func(name string) string {
		return `{"x-first":{"k":null},"name":` + name + `, "arguments":` + arguments + `,"_meta":` + meta + ` ,"task":{"ttl":6.0e4}}`
	}
	result := `{"content":[{"type":"text","text":"\u00e9 <b>","annotations":{"priority":1.0}},{"type":"from-tomorrow","x":1e2}],"structuredContent":{"n":1.50,"s":"\/"},` +
		`"isError":false,"_meta":{"example.org/y":1.0},"resultType":"complete","x-odd":[ ]}`
	f.up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) { apptest.Reply(w, m, result) })
	for path, name := range map[string]string{"/s/fix/mcp": `"read"`, "/mcp": `"fix_read"`} {
		before := len(f.up.Received("tools/call"))
		a := f.RPC(path, f.at(path), "tools/call", params(name))
		received := f.up.Received("tools/call")[before:]
		if len(received) != 1 || string(received[0].Params) != params(`"read"`) {
			t.Fatalf("%s: received %s", path, received)
		}
		if want := `{"jsonrpc":"2.0","id":1,"result":` + result + `}`; a.Text != want || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: answered\n%s, want\n%s", path, a.Text, want)
		}
	}
	refusal := `{"code":-32042,"message":"not \u00fcs <1>","data":{"elicitations":[{"url":"https://x.example","n":1.0}]}}`
	f.up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+string(m.ID)+`,"error":`+refusal+`}`)
	})
	m := parse(t, f.Tool(f.dev(), "fix_read", "{}"))
	if m.Error == nil || m.Error.Code != -32042 || m.Error.Message != "not üs <1>" || string(m.Error.Data) != `{"elicitations":[{"url":"https://x.example","n":1.0}]}` {
		t.Errorf("%+v", m.Error)
	}
}

// Attacks 82 and 83, R519: nothing of the caller but its parameters goes to the
// server, and nothing of the server but its messages comes back.
func TestHeadersDoNotPass(t *testing.T) {
	f := start(t)
	f.up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		for name, value := range map[string]string{
			"Set-Cookie": "upstream=secret", "WWW-Authenticate": `Bearer resource_metadata="https://evil.example"`, "X-Internal": "secret", "Mcp-Session-Id": "theirs",
			"Location": "https://evil.example", "Access-Control-Allow-Origin": "*", "Server": "secret",
		} {
			w.Header().Set(name, value)
		}
		apptest.Reply(w, m, `{"content":[]}`)
	})
	dev := f.dev()
	a := f.RPC("/mcp", dev, "tools/call", `{"name":"fix_read"}`, mcp.SessionHeader+": "+f.session("/mcp", dev), "Cookie: session=secret", "DPoP: secret",
		"Proxy-Authorization: Basic secret", "X-User: root", "X_User: root", "X-Forwarded-User: root", "X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1",
		"Connection: X-User", "X-Api-Key: secret", "Referer: https://secret.example", "Last-Event-ID: 7", "Mcp-Name: fix_destroy", "Accept-Language: de")
	for name := range a.Header {
		switch name {
		case "Content-Type", "Cache-Control", "Content-Length", "Date", "X-Content-Type-Options", "X-Request-Id":
		default:
			t.Errorf("the answer has %s: %s", name, a.Header[name])
		}
	}
	received := f.up.Received("tools/call")
	if len(received) != 1 {
		t.Fatalf("%d calls", len(received))
	}
	for name, values := range received[0].Header {
		switch name {
		case "Accept", "Content-Type", "Content-Length", "User-Agent", "Mcp-Protocol-Version", "Accept-Encoding":
		default:
			t.Errorf("the server got %s: %s", name, values)
		}
		if strings.Contains(strings.Join(values, " "), "secret") || strings.Contains(strings.Join(values, " "), dev) {
			t.Errorf("the server got %s: %s", name, values)
		}
	}
	f.up.Answer(func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
		w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="https://evil.example"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	if a := f.Tool(dev, "fix_read", "{}"); a.StatusCode != http.StatusOK || wrong(a) != "UPSTREAM_WANTS_LOGIN" || a.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("a server that wants a login: %d %v %s", a.StatusCode, a.Header, a.Text)
	}
}

// progressing answers with two notifications, then the result.
func progressing(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
	w.Header().Set("Content-Type", "text/event-stream")
	token := string(mcp.Field(m.Params, "_meta", "progressToken"))
	for _, n := range []string{
		`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":` + token + `,"progress":1,"total":2.0}}`,
		`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":{"x":1.0}}}`,
	} {
		_, _ = fmt.Fprintf(w, "data: %s\n\n", n)
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"content\":[]}}\n\n", m.ID)
}

// The answer is a stream if there is something to say before the result, and
// the caller can read one.
func TestProgressIsStreamed(t *testing.T) {
	f := start(t)
	f.up.Answer(progressing)
	dev, params := f.dev(), `{"name":"fix_read","_meta":{"progressToken":"p1"}}`
	a := f.RPC("/mcp", dev, "tools/call", params)
	var events []string
	for ev, err := range mcp.ReadEvents(strings.NewReader(a.Text), 1<<20) {
		if err != nil {
			break // the end
		}
		events = append(events, ev.Name+" "+string(ev.Data))
	}
	want := []string{
		`message {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p1","progress":1,"total":2.0}}`,
		`message {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":{"x":1.0}}}`,
		`message {"jsonrpc":"2.0","id":1,"result":{"content":[]}}`,
	}
	if a.Header.Get("Content-Type") != "text/event-stream" || a.Header.Get("X-Accel-Buffering") != "no" || strings.Join(events, "\n") != strings.Join(want, "\n") {
		t.Errorf("%v\n%s", a.Header, a.Text)
	}
	plain := f.Do(f.Request(http.MethodPost, "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":`+params+`}`,
		"Authorization: Bearer "+dev, "Content-Type: application/json", "Accept: application/json"))
	if plain.Header.Get("Content-Type") != "application/json" || plain.Text != `{"jsonrpc":"2.0","id":1,"result":{"content":[]}}` {
		t.Errorf("for a caller that reads JSON only: %v %s", plain.Header, plain.Text)
	}
}

// Progress reaches the caller when it happens, not at the end.
func TestProgressIsNotHeldBack(t *testing.T) {
	f := start(t)
	release := make(chan struct{})
	f.up.Answer(func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprint(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{}}\n\n", m.ID)
	})
	r := f.Request(http.MethodPost, "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fix_read"}}`,
		"Authorization: Bearer "+f.dev(), "Content-Type: application/json", "Accept: text/event-stream")
	resp, err := f.HTTP.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	first := make([]byte, 512)
	n, err := resp.Body.Read(first)
	close(release)
	rest, _ := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(first[:n]), "notifications/message") || !strings.Contains(string(rest), `"result":{}`) {
		t.Errorf("%q, %v, then %q", first[:n], err, rest)
	}
}

// waiting answers when the request ends, or after a long time.
type waiting struct {
	began chan mcp.Message
	ended chan struct{}
}

func (f *fixture) waits() waiting {
	w := waiting{make(chan mcp.Message, 8), make(chan struct{}, 8)}
	f.up.Answer(func(rw http.ResponseWriter, r *http.Request, m mcp.Message) {
		w.began <- m
		select {
		case <-r.Context().Done():
			w.ended <- struct{}{}
		case <-time.After(20 * time.Second):
		}
	})
	return w
}

func soon[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(5 * time.Second):
		t.Fatalf("not within 5 s: %s", what)
	}
	return v
}

// A call that its caller cancels ends at the server, is answered with nothing,
// and leaves its outcome; nobody else can cancel it.
func TestCancelledCallEndsAtTheServer(t *testing.T) {
	f := start(t)
	up, dev := f.waits(), f.dev()
	session, other := f.session("/mcp", dev), f.session("/mcp", dev)
	bob := f.token(token.Family{User: "usr_bob"}, 0)
	bobs := f.session("/mcp", bob)
	cancel := func(bearer, session, id string) {
		t.Helper()
		headers := []string{mcp.SessionHeader + ": " + session}
		if session == "" {
			headers = nil
		}
		if a := f.post("/mcp", bearer, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":`+id+`,"reason":"enough"}}`, headers...); a.StatusCode != http.StatusAccepted {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
	answers := make(chan apptest.Answer, 1)
	go func() {
		answers <- f.post("/mcp", dev, `{"jsonrpc":"2.0","id":"call-1","method":"tools/call","params":{"name":"fix_write"}}`, mcp.SessionHeader+": "+session)
	}()
	asked := soon(t, "the call", up.began)
	cancel(dev, other, `"call-1"`)
	cancel(dev, "", `"call-1"`)
	cancel(bob, bobs, `"call-1"`)
	cancel(dev, session, `"call-2"`)
	select {
	case <-up.ended:
		t.Fatal("another one cancelled it")
	case <-time.After(50 * time.Millisecond):
	}
	cancel(dev, session, `"call-1"`)
	soon(t, "the end of the request", up.ended)
	if a := soon(t, "the end of the call", answers); a.StatusCode != http.StatusAccepted || a.Text != "" {
		t.Errorf("answered %d %s", a.StatusCode, a.Text)
	}
	f.mustHaveTold(asked)
	if got := f.events(2); got != "fix_write pending, fix_write failed CALL_CANCELLED" {
		t.Errorf("recorded %s", got)
	}
	f.up.Answer(nil)
	a := f.post("/mcp", dev, `{"jsonrpc":"2.0","id":"call-1","method":"tools/call","params":{"name":"fix_write"}}`, mcp.SessionHeader+": "+session)
	if !strings.Contains(a.Text, "did write") {
		t.Errorf("the id cannot be used again: %d %s", a.StatusCode, a.Text)
	}
}

// mustHaveTold waits until the server was told that the request is cancelled.
func (f *fixture) mustHaveTold(asked mcp.Message) {
	f.t.Helper()
	for range 500 {
		for _, n := range f.up.Received("notifications/cancelled") {
			if string(mcp.Field(n.Params, "requestId")) == string(asked.ID) {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Errorf("the server was not told that %s is cancelled", asked.ID)
}

// A caller that goes away has cancelled. Its outcome is recorded all the same.
func TestCallEndsWithItsCaller(t *testing.T) {
	f := start(t)
	up, dev := f.waits(), f.dev("mcp:admin")
	ctx, leave := context.WithCancel(context.Background())
	r := f.Request(http.MethodPost, "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fix_destroy"}}`,
		"Authorization: Bearer "+dev, "Content-Type: application/json").WithContext(ctx)
	gone := make(chan error, 1)
	go func() {
		resp, err := f.HTTP.Do(r)
		if err == nil {
			err = resp.Body.Close()
		}
		gone <- err
	}()
	asked := soon(t, "the call", up.began)
	leave()
	if soon(t, "the caller's error", gone) == nil {
		t.Error("the caller got an answer")
	}
	soon(t, "the end of the request", up.ended)
	f.mustHaveTold(asked)
	for range 500 {
		if f.events(2) == "fix_destroy pending, fix_destroy failed CALL_CANCELLED" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := f.events(2); got != "fix_destroy pending, fix_destroy failed CALL_CANCELLED" {
		t.Errorf("recorded %s", got)
	}
	if strings.Contains(f.Log.String(), `"level":"ERROR"`) {
		t.Errorf("it is logged as an error:\n%s", f.Log)
	}
}

// A server that fails is the model's to hear of, and the gateway goes on.
func TestFailingServerIsAToolError(t *testing.T) {
	f := start(t)
	dev := f.dev()
	for name, tt := range map[string]struct {
		call func(http.ResponseWriter, *http.Request, mcp.Message)
		code string
	}{
		"garbage": {func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "<html>secret</html>")
		}, "UPSTREAM_GARBAGE"},
		"a page": {func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
			_, _ = io.WriteString(w, "<html>secret</html>")
		}, "UPSTREAM_GARBAGE"},
		"an error page": {func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
			http.Error(w, "secret stack trace", http.StatusInternalServerError)
		}, "UPSTREAM_UNAVAILABLE"},
		"hanging up": {func(http.ResponseWriter, *http.Request, mcp.Message) { panic(http.ErrAbortHandler) }, "UPSTREAM_UNAVAILABLE"},
		"another answer": {func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
			apptest.Reply(w, mcp.Message{ID: []byte("99")}, "{}")
		}, "UPSTREAM_GARBAGE"},
	} {
		f.up.Answer(tt.call)
		a := f.Tool(dev, "fix_write", "{}")
		if a.StatusCode != http.StatusOK || wrong(a) != tt.code || strings.Contains(a.Text, "secret") || !strings.Contains(a.Text, `"isError":true`) {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
		}
		if got := f.events(2); got != "fix_write pending, fix_write failed "+tt.code {
			t.Errorf("%s: recorded %s", name, got)
		}
	}
	f.up.Answer(nil)
	if a := f.Tool(dev, "fix_write", "{}"); !strings.Contains(a.Text, "did write") {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.Text)
	}
}

// What the gate decides about is what the server carries out: readers that ignore
// the case of letters must not find another name, or other arguments, in what
// passes unchanged.
func TestTwinsOfNamesAreRefused(t *testing.T) {
	f := start(t)
	token := f.dev()
	for _, params := range []string{
		`{"name":"fix_read","arguments":{},"Name":"destroy"}`,
		`{"NAME":"destroy","name":"fix_read"}`,
		`{"name":"fix_read","Arguments":{"all":true}}`,
		`{"name":"fix_read","argument\u017f":{"all":true}}`, // a long s folds to s
		`{"name":"fix_read","_Meta":{"progressToken":7}}`,
		`{"name":"fix_read","_meta":{"ProgressToken":7}}`,
	} {
		if m := parse(t, f.RPC("/mcp", token, "tools/call", params)); m.Error == nil || m.Error.Code != mcp.InvalidParams {
			t.Errorf("%s: %+v", params, m)
		}
	}
	if n := len(f.up.Received("tools/call")); n != 0 {
		t.Errorf("%d calls were forwarded", n)
	}
	if m := parse(t, f.RPC("/mcp", token, "tools/call", `{"name":"fix_read","arguments":{"Name":"x","name":"y"},"names":1}`)); m.Error != nil {
		t.Errorf("the twin, where names differ or belong to the tool: %+v", m.Error)
	}
}
