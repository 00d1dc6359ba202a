package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// remote is an MCP server over HTTP. What it does with tools/call is the test's.
type remote struct {
	*httptest.Server
	hello    func(w http.ResponseWriter, r *http.Request, m mcp.Message) bool // instead of the usual, unless it returns false
	sessions atomic.Int64                                                     // handshakes so far
	lost     atomic.Int64                                                     // the status that sessions but the last one get; zero accepts all

	conns atomic.Int64

	mu   sync.Mutex
	call func(w http.ResponseWriter, r *http.Request, m mcp.Message)
	seen []mcp.Message
	said []http.Header
}

func newRemote(t testing.TB) *remote {
	r := &remote{call: func(w http.ResponseWriter, _ *http.Request, m mcp.Message) { answerJSON(w, m, m.Params) }}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			r.conns.Add(1)
		}
	}
	r.Start()
	t.Cleanup(r.Close)
	return r
}

// answers changes what is done with tools/call.
func (r *remote) answers(call func(w http.ResponseWriter, r *http.Request, m mcp.Message)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.call = call
}

func (r *remote) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	m, _ := mcp.Parse(body)
	if req.Method == http.MethodDelete {
		m.Method = "DELETE"
	}
	r.mu.Lock()
	r.seen, r.said = append(r.seen, m), append(r.said, req.Header.Clone())
	call := r.call
	r.mu.Unlock()
	switch {
	case m.Method == "initialize":
		if r.hello != nil && r.hello(w, req, m) {
			return
		}
		w.Header().Set(mcp.SessionHeader, fmt.Sprint("session-", r.sessions.Add(1)))
		w.Header().Set("Set-Cookie", "tracking=1")
		answerJSON(w, m, json.RawMessage(`{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"remote","version":"2"}}`))
	case r.lost.Load() != 0 && req.Header.Get(mcp.SessionHeader) != fmt.Sprint("session-", r.sessions.Load()):
		w.WriteHeader(int(r.lost.Load()))
		fmt.Fprint(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}`)
	case m.Method == "tools/list":
		answerJSON(w, m, json.RawMessage(fixtureTools(mcp.Text(m.Params, "cursor"))))
	case m.Method == "tools/call":
		call(w, req, m)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// heard returns what arrived with this method.
func (r *remote) heard(method string) (all []mcp.Message, headers []http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range r.seen {
		if m.Method == method {
			all, headers = append(all, m), append(headers, r.said[i])
		}
	}
	return all, headers
}

func answerJSON(w http.ResponseWriter, m mcp.Message, result json.RawMessage) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(mcp.Message{ID: m.ID, Result: result}.Encode())
}

func connect(t testing.TB, url string) *httpConn {
	t.Helper()
	h := openHTTP(Spec{Name: "far", URL: url}, us, quiet())
	t.Cleanup(h.Close)
	return h
}

const someCall = `{ "name":"x", "arguments":{"b":1.50,"a":null} }`

func TestHTTPPassesParamsAndNothingElse(t *testing.T) {
	r := newRemote(t)
	h := connect(t, r.URL)
	info, err := h.Connect(t.Context())
	if err != nil || info.ServerInfo.Name != "remote" {
		t.Fatalf("%+v, %v", info, err)
	}
	for range 2 {
		result, err := h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), nil)
		if err != nil || string(result) != someCall {
			t.Fatalf("%s, %v", result, err)
		}
	}
	if n := r.sessions.Load(); n != 1 {
		t.Errorf("%d handshakes", n)
	}
	_, headers := r.heard("tools/call")
	for _, h := range headers {
		for name := range h {
			if !strings.Contains(" Content-Type Content-Length Accept User-Agent Mcp-Session-Id Mcp-Protocol-Version ", " "+name+" ") {
				t.Errorf("sent header %s", name)
			}
		}
		if h.Get(mcp.SessionHeader) != "session-1" || h.Get(mcp.VersionHeader) != "2025-06-18" {
			t.Errorf("sent %v", h)
		}
	}
	if told, _ := r.heard("notifications/initialized"); len(told) != 1 {
		t.Errorf("told %d times that the handshake is over", len(told))
	}
	h.Close()
	if _, headers := r.heard("DELETE"); len(headers) != 1 || headers[0].Get(mcp.SessionHeader) != "session-1" {
		t.Errorf("the session was not ended: %v", headers)
	}
}

func TestStreamedAnswer(t *testing.T) {
	r := newRemote(t)
	r.answers(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		e := mcp.NewEventWriter(w)
		_ = e.Comment("hello")
		_ = e.Message([]byte(`{"jsonrpc":"2.0","id":"q","method":"roots/list"}`))
		_ = e.Message([]byte(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}`))
		_ = e.Message(mcp.Message{ID: m.ID, Result: m.Params}.Encode())
	})
	h := connect(t, r.URL)
	for range 20 {
		var p peer
		result, err := h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), &p)
		if err != nil || string(result) != someCall {
			t.Fatalf("%s, %v", result, err)
		}
		if len(p.notes) != 1 || p.notes[0] != `notifications/progress{"progressToken":"t","progress":1}` {
			t.Errorf("heard %q", p.notes)
		}
	}
	eventually(t, "every question of the server is answered", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		answers := 0
		for _, m := range r.seen {
			if string(m.ID) == `"q"` && m.Error != nil && m.Error.Code == mcp.MethodNotFound {
				answers++
			}
		}
		return answers == 20
	})
	if n := r.conns.Load(); n > 6 {
		t.Errorf("20 calls took %d connections", n)
	}
}

// A stream that stays open after the answer holds nobody up.
func TestStreamThatDoesNotEnd(t *testing.T) {
	r := newRemote(t)
	r.answers(func(w http.ResponseWriter, req *http.Request, m mcp.Message) {
		_ = mcp.NewEventWriter(w).Message(mcp.Message{ID: m.ID, Result: m.Params}.Encode())
		<-req.Context().Done()
	})
	h := connect(t, r.URL)
	began := time.Now()
	if _, err := h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), nil); err != nil {
		t.Fatal(err)
	}
	h.Close()
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// A notification that is answered with a stream holds nobody up either, and a
// server that forgets a session while it is opened is said to.
func TestRudeHandshakes(t *testing.T) {
	r := newRemote(t)
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if body, _ := io.ReadAll(req.Body); strings.Contains(string(body), "notifications/") {
			_ = mcp.NewEventWriter(w).Comment("hello")
			<-req.Context().Done()
		} else {
			m, _ := mcp.Parse(body)
			answerJSON(w, m, json.RawMessage(`{"protocolVersion":"2024-11-05","capabilities":{},"serverInfo":{"name":"x","version":"1"}}`))
		}
	}))
	defer endless.Close()
	if info, err := connect(t, endless.URL).Connect(t.Context()); err != nil || info.ProtocolVersion != "2024-11-05" {
		t.Errorf("got %+v, %v", info, err)
	}
	r.sessions.Store(10)
	r.lost.Store(http.StatusNotFound)
	r.hello = func(w http.ResponseWriter, _ *http.Request, m mcp.Message) bool {
		w.Header().Set(mcp.SessionHeader, "another")
		answerJSON(w, m, json.RawMessage(`{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"x","version":"1"}}`))
		return true
	}
	if _, err := connect(t, r.URL).Connect(t.Context()); !problem.Is(err, unavailable) {
		t.Errorf("got %v", err)
	}
}

// What the server forgot is told again, once.
func TestLostSessionIsMadeAnew(t *testing.T) {
	for _, status := range []int64{http.StatusNotFound, http.StatusBadRequest} {
		r := newRemote(t)
		h := connect(t, r.URL)
		if _, err := h.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.sessions.Add(10) // as if it had restarted
		r.lost.Store(status)
		result, err := h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), nil)
		if err != nil || string(result) != someCall {
			t.Errorf("%d: %s, %v", status, result, err)
		}
		r.answers(func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) { w.WriteHeader(http.StatusNotFound) })
		before := r.sessions.Load()
		_, err = h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), nil)
		if !problem.Is(err, unavailable) || r.sessions.Load() != before+1 {
			t.Errorf("%d: a server that always forgets gave %v after %d handshakes", status, err, r.sessions.Load()-before)
		}
	}
}

func TestRudeAnswers(t *testing.T) {
	plain := func(status int, kind, body string) func(http.ResponseWriter, *http.Request, mcp.Message) {
		return func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Location", "http://127.0.0.1:1/else")
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	const js, sse = "application/json", "text/event-stream"
	tests := []struct {
		name string
		call func(http.ResponseWriter, *http.Request, mcp.Message)
		code problem.Code
		why  string
	}{
		{"page", plain(200, "text/html", "<h1>hi</h1>"), garbage, "text/html"},
		{"no answer", plain(202, "", ""), garbage, "202"},
		{"not JSON", plain(200, js, "hello"), garbage, "not JSON"},
		{"batch", plain(200, js, `[{"jsonrpc":"2.0","id":1,"result":{}}]`), garbage, "batch"},
		{"another id", plain(200, js, `{"jsonrpc":"2.0","id":"other","result":{}}`), garbage, "another request"},
		{"a request", plain(200, js, `{"jsonrpc":"2.0","id":2,"method":"ping"}`), garbage, "another request"},
		{"login", plain(401, "text/plain", "who?"), wantsLogin, "credential"},
		{"redirect", plain(307, "", ""), garbage, "127.0.0.1:1/else"},
		{"forbidden", plain(403, "text/plain", "no"), garbage, "403"},
		{"broken", plain(502, "text/html", "bad gateway"), unavailable, "502"},
		{"busy", plain(429, "text/html", "later"), unavailable, "429"},
		{"truncated", func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
			w.Header().Set("Content-Type", js)
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"jsonrpc"`)
		}, unavailable, "went away"},
		{"stream without answer", plain(200, sse, "data: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n"), unavailable, "went away"},
		{"stream of garbage", plain(200, sse, "data: hello\n\n"), garbage, "not JSON"},
		{"stream with another id", plain(200, sse, "data: {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n\n"), garbage, "another request"},
		{"announced too large", func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) {
			w.Header().Set("Content-Type", js)
			w.Header().Set("Content-Length", fmt.Sprint(maxMessage+1))
			w.WriteHeader(200)
		}, garbage, "16 MB"},
		{"too large", plain(200, js, strings.Repeat(" ", maxMessage+1)), garbage, "16 MB"},
		{"stream too large", plain(200, sse, "data: "+strings.Repeat(" ", maxMessage+100)), garbage, "16 MB"},
		{"a flood of headers", func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
			w.Header().Set("X-Flood", strings.Repeat("x", 100<<10))
			answerJSON(w, m, json.RawMessage(`{}`))
		}, unavailable, "went away"},
		{"hangs up", func(http.ResponseWriter, *http.Request, mcp.Message) { panic(http.ErrAbortHandler) }, unavailable, "went away"},
	}
	r := newRemote(t)
	h := connect(t, r.URL)
	for _, tt := range tests {
		r.answers(tt.call)
		_, err := h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), nil)
		e := problem.From(err)
		if !problem.Is(err, tt.code) || !strings.Contains(e.Why, tt.why) || e.Fix == "" {
			t.Errorf("%s: got %v, why %q", tt.name, err, e.Why)
		}
		if tt.name == "busy" && e.Retry != 7*time.Second {
			t.Errorf("try again in %v", e.Retry)
		}
	}
	r.answers(plain(400, js, `{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no"}}`))
	_, err := h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), nil)
	if e, ok := errors.AsType[*mcp.Error](err); !ok || e.Code != -32602 {
		t.Errorf("the server's own error became %v", err)
	}
	if state, _, err := h.State(); state != Connected || err != nil {
		t.Errorf("a server that answers is %v, %v", state, err)
	}
}

func TestUselessServersAreExplained(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	nothing := httptest.NewServer(http.NotFoundHandler())
	defer nothing.Close()
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }))
	defer login.Close()
	modern := newRemote(t)
	modern.hello = func(w http.ResponseWriter, _ *http.Request, m mcp.Message) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(400)
		_, _ = w.Write(mcp.Message{ID: m.ID, Error: mcp.Unsupported("2025-11-25")}.Encode())
		return true
	}
	tests := []struct {
		url  string
		code problem.Code
		why  string
	}{
		{closed.URL, unreachable, "connection refused"},
		{secure.URL, unreachable, "certificate"},
		{strings.Replace(nothing.URL, "http:", "https:", 1), unreachable, "TLS"},
		{nothing.URL, garbage, "404"},
		{login.URL, wantsLogin, "credential"},
		{modern.URL, wrongRevision, mcp.Latest},
	}
	for _, tt := range tests {
		h := connect(t, tt.url+"/secret/mcp?key=secret")
		_, err := h.Connect(t.Context())
		e := problem.From(err)
		if !problem.Is(err, tt.code) || !strings.Contains(e.Why, tt.why) || strings.Contains(e.Detail+e.Why, "secret") {
			t.Errorf("%s: got %v, why %q", tt.url, err, e.Why)
		}
		if state, _, _ := h.State(); state != Down {
			t.Errorf("%s is %v", tt.url, state)
		}
	}
}

// A server that was down at the start serves as soon as it is there.
func TestUnreachableServerComesUp(t *testing.T) {
	r := newRemote(t)
	var up atomic.Bool
	r.hello = func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) bool {
		if !up.Load() {
			w.WriteHeader(503)
		}
		return !up.Load()
	}
	h := connect(t, r.URL)
	if _, err := h.Call(t.Context(), nobody, "ping", nil, nil); !problem.Is(err, unavailable) {
		t.Errorf("got %v", err)
	}
	up.Store(true)
	eventually(t, "it is connected without being called", func() bool {
		state, _, _ := h.State()
		return state == Connected
	})
}

func TestHTTPCancellation(t *testing.T) {
	r := newRemote(t)
	left := make(chan bool, 1)
	r.answers(func(_ http.ResponseWriter, req *http.Request, _ mcp.Message) {
		<-req.Context().Done()
		left <- true
	})
	h := connect(t, r.URL)
	if _, err := h.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := h.Call(ctx, nobody, "tools/call", json.RawMessage(someCall), nil)
	if !problem.Is(err, cancelled) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	<-left // the request was broken off
	eventually(t, "the server is told", func() bool {
		told, _ := r.heard("notifications/cancelled")
		calls, _ := r.heard("tools/call")
		return len(told) == 1 && string(mcp.Field(told[0].Params, "requestId")) == string(calls[0].ID)
	})
}

func TestCloseEndsCallsInFlight(t *testing.T) {
	r := newRemote(t)
	arrived := make(chan bool)
	r.answers(func(_ http.ResponseWriter, req *http.Request, _ mcp.Message) {
		arrived <- true
		<-req.Context().Done()
	})
	h := connect(t, r.URL)
	ended := make(chan error)
	go func() {
		_, err := h.Call(t.Context(), nobody, "tools/call", json.RawMessage(someCall), nil)
		ended <- err
	}()
	<-arrived
	h.Close()
	if err := <-ended; !problem.Is(err, unavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := h.Call(t.Context(), nobody, "ping", nil, nil); !problem.Is(err, unavailable) {
		t.Errorf("a call after Close gave %v", err)
	}
}

// The figures to compare: what the connection adds to a bare transport.
func BenchmarkHTTP(b *testing.B) {
	r := newRemote(b)
	r.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		m, _ := mcp.Parse(body)
		if m.Method == "initialize" {
			r.serve(w, httptest.NewRequest("POST", "/", strings.NewReader(string(body))))
			return
		}
		answerJSON(w, m, json.RawMessage(`{"content":[{"type":"text","text":"hello"}]}`))
	})
	params := json.RawMessage(`{"name":"any","arguments":{"message":"hello"}}`)
	b.Run("bare", func(b *testing.B) {
		transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
		b.ReportAllocs()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				req, _ := http.NewRequest("POST", r.URL, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"any","arguments":{"message":"hello"}}}`))
				res, err := transport.RoundTrip(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.ReadAll(res.Body)
				_ = res.Body.Close()
			}
		})
	})
	b.Run("conn", func(b *testing.B) {
		h := connect(b, r.URL)
		if _, err := h.Connect(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := h.Call(b.Context(), nobody, "tools/call", params, nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
