package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R904: connect, list, call.
func TestSessionListsAndCalls(t *testing.T) {
	f := newFake(t)
	s, err := signedIn(t, f).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	if i := s.Info(); i.Name != "fake" || i.Protocol != "2025-06-18" {
		t.Errorf("connected to %+v", i)
	}
	tools, err := s.Tools(short(t))
	if err != nil || len(tools) != 2 || tools[0].Name != "echo" || tools[0].Hints.ReadOnly == nil || tools[1].Hints.ReadOnly != nil {
		t.Errorf("tools %+v, %v", tools, err)
	}
	res, err := s.Call(short(t), "echo", json.RawMessage(`{"a":1}`), nil)
	if err != nil || res.Text() != `{"a":1}` {
		t.Errorf("%+v, %v", res, err)
	}
	s.Close(short(t))
	if f.session != "" {
		t.Error("the session was not closed")
	}
}

// A refusal that may pass costs nobody the login.
func TestBusyTokenEndpointSignsNobodyOut(t *testing.T) {
	f := newFake(t)
	c := signedIn(t, f)
	f.set(func() { f.valid, f.busy = "another", true })
	if _, err := c.Connect(short(t), f.server()); err == nil || errors.Is(err, ErrAuthentication) && strings.Contains(err.Error(), "signed out") {
		t.Errorf("%v", err)
	}
	if logins, err := c.Logins(); err != nil || len(logins) != 1 {
		t.Errorf("%d logins are left, %v", len(logins), err)
	}
	f.set(func() { f.busy = false })
	if _, err := c.Connect(short(t), f.server()); err != nil {
		t.Errorf("once it answers again: %v", err)
	}
}

// R903: the token is refreshed before it runs out and when it is refused, once
// for all goroutines and processes, and always for this resource.
func TestRefreshIsSingleFlight(t *testing.T) {
	for name, spoil := range map[string]func(*fake, *Client){
		"run out": func(f *fake, c *Client) {
			c.change(context.Background(), func(cr *credentials) error {
				l := cr.Logins[f.server()]
				l.Expires = time.Now().Unix()
				cr.Logins[f.server()] = l
				return nil
			})
		},
		"refused": func(f *fake, _ *Client) { f.set(func() { f.valid = "another" }) },
	} {
		f := newFake(t)
		c := signedIn(t, f)
		spoil(f, c)
		var wg sync.WaitGroup
		for i := range 12 {
			if i%4 == 0 { // as another process: nothing shared but the file
				c = New(Options{Name: "test", Credentials: c.opts.Credentials})
			}
			mine := c
			wg.Go(func() {
				s, err := mine.Connect(short(t), f.server())
				if err == nil {
					_, err = s.Call(short(t), "echo", nil, nil)
				}
				if err != nil && !isGone(err) { // the fake keeps one session only
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if n := f.count("token refresh_token"); n != 1 {
			t.Errorf("%s: refreshed %d times", name, n)
		}
		if f.forms["/token"].Get("resource") != f.server() || f.forms["/token"].Get("client_id") != "client-1" {
			t.Errorf("%s: refreshed with %v", name, f.forms["/token"])
		}
	}
}

// R906: what cannot be refreshed needs a person, and says so.
func TestRefusedRefreshEndsTheSignIn(t *testing.T) {
	f := newFake(t)
	c := signedIn(t, f)
	f.set(func() { f.valid, f.n = "another", 7 })
	_, err := c.Connect(short(t), f.server())
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrAuthentication) || e.Code != "SIGNED_OUT" || !strings.Contains(e.Fix, "login") {
		t.Errorf("%v", err)
	}
	if cr, _ := c.load(); len(cr.Logins) != 0 || len(cr.Clients) != 1 {
		t.Errorf("left in the file: %+v", cr)
	}
	if _, err := c.Connect(short(t), f.server()); !errors.Is(err, ErrAuthentication) {
		t.Errorf("%v", err)
	}
}

// A server with a bad moment costs nobody a sign-in.
func TestFailingTokenEndpointKeepsTheSignIn(t *testing.T) {
	f := newFake(t)
	c := signedIn(t, f)
	f.set(func() {
		f.valid = "another"
		f.override["/token"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) }
	})
	if _, err := c.Connect(short(t), f.server()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	f.set(func() {
		f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, 503, oauth.ErrorResponse{Error: "temporarily_unavailable"})
		}
	})
	if _, err := c.Connect(short(t), f.server()); err == nil {
		t.Error("connected")
	}
	f.set(func() { f.override = nil })
	if _, err := c.Connect(short(t), f.server()); err != nil {
		t.Errorf("not signed in any more: %v", err)
	}
}

// R416: refresh token first, then the access token; forgotten here even when
// the server cannot be told.
func TestLogoutRevokes(t *testing.T) {
	f := newFake(t)
	c := signedIn(t, f)
	if err := c.Logout(short(t), f.server()); err != nil {
		t.Error(err)
	}
	if got := strings.Join(f.seen[len(f.seen)-4:], ", "); got != "POST /revoke, revoke refresh_token client-1, POST /revoke, revoke access_token client-1" {
		t.Errorf("seen %s", got)
	}
	if err := c.Logout(short(t), f.server()); !errors.Is(err, ErrAuthentication) {
		t.Errorf("twice: %v", err)
	}
	c = signedIn(t, f)
	f.set(func() { f.override["/revoke"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) } })
	if err := c.Logout(short(t), f.server()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if logins, _ := c.Logins(); len(logins) != 0 {
		t.Errorf("still here: %+v", logins)
	}
}

// A given token is sent as it is, and never refreshed or stored.
func TestGivenTokenIsUsedAsItIs(t *testing.T) {
	f := newFake(t)
	f.valid = "given"
	c := New(Options{Token: "given", Credentials: t.TempDir() + "/x/c.json"})
	if _, err := c.Connect(short(t), f.server()); err != nil {
		t.Error(err)
	}
	f.set(func() { f.valid = "another" })
	if _, err := c.Connect(short(t), f.server()); !errors.Is(err, ErrAuthentication) || f.count("POST /token") != 0 {
		t.Errorf("%v, %d token requests", err, f.count("POST /token"))
	}
}

// A session the server has forgotten is opened again, once.
func TestForgottenSessionIsOpenedAgain(t *testing.T) {
	f := newFake(t)
	s, err := signedIn(t, f).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.session = "restarted" })
	if res, err := s.Call(short(t), "echo", json.RawMessage(`{}`), nil); err != nil || res.Text() != "{}" {
		t.Errorf("%v, %v", res, err)
	}
	if f.sessions != 2 || f.count("tools/call") != 2 {
		t.Errorf("%d sessions, %d calls", f.sessions, f.count("tools/call"))
	}
}

// scripted connects to a server that answers everything after the handshake with
// what the test says.
func scripted(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, m mcp.Message)) (*fake, *Session) {
	t.Helper()
	f := newFake(t)
	c := signedIn(t, f)
	s, err := c.Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() {
		f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			m, _ := mcp.Parse(body)
			answer(w, r, m)
		}
	})
	return f, s
}

func TestCallsThatFail(t *testing.T) {
	status := func(code int, header, value string) func(http.ResponseWriter, *http.Request, mcp.Message) {
		return func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
			w.Header().Set(header, value)
			w.WriteHeader(code)
		}
	}
	body := func(kind, text string) func(http.ResponseWriter, *http.Request, mcp.Message) {
		return func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, strings.ReplaceAll(text, "$id", string(m.ID)))
		}
	}
	tests := []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request, mcp.Message)
		kind   error
		text   string // in the message, the reason or the scope
	}{
		{"scope that is a command", status(403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="x$(touch /tmp/x)"`), ErrPermission, ""},
		{"scope missing", status(403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="a:read a:write", ref="req_7"`), ErrPermission, "a:read a:write"},
		{"forbidden", status(403, "X", ""), ErrPermission, ""},
		{"redirect", status(307, "Location", "/elsewhere"), ErrUnreachable, "307"},
		{"broken", status(502, "X", ""), ErrUnreachable, "502"},
		{"page", body("text/html", "<html>"), ErrUnreachable, "text/html"},
		{"garbage", body("application/json", "{"), ErrUnreachable, ""},
		{"batch", body("application/json", `[{"jsonrpc":"2.0","id":$id,"result":{}}]`), ErrUnreachable, ""},
		{"foreign answer", body("application/json", `{"jsonrpc":"2.0","id":"x","result":{}}`), ErrUnreachable, ""},
		{"cut stream", body("text/event-stream", "data: {\"jsonrpc\":\"2.0\",\"id\":$id,"), ErrUnreachable, "before the answer"},
		{"empty stream", body("text/event-stream", "data:\n\n"), ErrUnreachable, "before the answer"},
		{"unknown tool", body("application/json", `{"jsonrpc":"2.0","id":$id,"error":{"code":-32602,"message":"no such \u001b[31mtool"}}`), ErrTool, "no such [31mtool"},
		{"tool error", body("application/json", `{"jsonrpc":"2.0","id":$id,"result":{"isError":true,"content":[{"type":"text","text":"out of stock"}]}}`), ErrTool, "out of stock"},
		{"problem of a gateway", body("application/json", `{"jsonrpc":"2.0","id":$id,"result":{"isError":true,"content":[],"structuredContent":{"code":"RANK_TOO_LOW","message":"not for you","why":"it is for owners","status":403}}}`), ErrPermission, "not for you: it is for owners"},
		{"upstream of a gateway down", body("application/json", `{"jsonrpc":"2.0","id":$id,"error":{"code":-32603,"message":"x","data":{"code":"DOWN","message":"it is down","status":503}}}`), ErrUnreachable, "it is down"},
		{"unreadable result", body("application/json", `{"jsonrpc":"2.0","id":$id,"result":[]}`), ErrUnreachable, ""},
	}
	for _, tt := range tests {
		f, s := scripted(t, tt.answer)
		_, err := s.Call(short(t), "echo", nil, nil)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, tt.kind) || !strings.Contains(e.Error()+e.Scope, tt.text) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.name == "scope missing" && e.Ref != "req_7" {
			t.Errorf("the reference is lost: %+v", e)
		}
		if strings.Contains(e.Fix, "$") {
			t.Errorf("%s: the server's text is offered as a command: %s", tt.name, e.Fix)
		}
		if f.count("POST /elsewhere") != 0 {
			t.Errorf("%s: followed with the token", tt.name)
		}
	}
}

func TestToolErrorComesWithItsResult(t *testing.T) {
	_, s := scripted(t, func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
		answerJSON(w, m.ID, `{"isError":true,"structuredContent":{"a":1},"content":[]}`)
	})
	if res, err := s.Call(short(t), "echo", nil, nil); err == nil || res == nil || !res.IsError || string(res.Structured) != `{"a":1}` {
		t.Errorf("%+v, %v", res, err)
	}
}

// Progress arrives while the call runs; what the server asks of us is answered.
func TestStreamBringsProgressAndQuestions(t *testing.T) {
	var mu sync.Mutex
	var replies []string
	_, s := scripted(t, func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
		if m.IsResponse() {
			mu.Lock()
			defer mu.Unlock()
			replies = append(replies, string(m.Encode()))
			w.WriteHeader(202)
			return
		}
		out := mcp.NewEventWriter(w)
		out.Comment("hello")
		token := string(mcp.Field(m.Params, "_meta", "progressToken"))
		out.Message([]byte(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":` + token + `,"progress":1,"total":2,"message":"half"}}`))
		out.Message([]byte(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"other","progress":9}}`))
		out.Message([]byte(`{"jsonrpc":"2.0","id":"p","method":"ping"}`))
		out.Message([]byte(`{"jsonrpc":"2.0","id":"s","method":"sampling/createMessage","params":{}}`))
		out.Message(mcp.Message{ID: m.ID, Result: json.RawMessage(`{"content":[]}`)}.Encode())
	})
	var seen []Progress
	if _, err := s.Call(short(t), "echo", nil, func(p Progress) { seen = append(seen, p) }); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || seen[0] != (Progress{1, 2, "half"}) {
		t.Errorf("progress %+v", seen)
	}
	if len(replies) != 2 || replies[0] != `{"jsonrpc":"2.0","id":"p","result":{}}` || !strings.Contains(replies[1], "-32601") {
		t.Errorf("replies %q", replies)
	}
}

func TestGoingAwayCancelsTheCall(t *testing.T) {
	told := make(chan mcp.Message, 1)
	ctx, cancel := context.WithCancel(t.Context())
	_, s := scripted(t, func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
		if m.Method == "tools/call" {
			cancel()
			<-r.Context().Done()
			return
		}
		told <- m
		w.WriteHeader(202)
	})
	_, err := s.Call(ctx, "echo", nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case m := <-told:
		if m.Method != "notifications/cancelled" || mcp.Field(m.Params, "requestId") == nil {
			t.Errorf("told %s", m.Encode())
		}
	case <-time.After(3 * time.Second):
		t.Error("the server was not told")
	}
}

// R516: a stranger may call what anybody may, and shows no token while doing so.
func TestAnonymousShowsNoToken(t *testing.T) {
	f := newFake(t)
	c := signedIn(t, f)
	s, err := c.Anonymous(f.server())
	if err != nil {
		t.Fatal(err)
	}
	f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a token was shown")
		}
		w.Header().Set("WWW-Authenticate", f.challenge)
		w.WriteHeader(401)
	}
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrAuthentication) {
		t.Errorf("%v", err)
	}
}

func TestServersThatAreNone(t *testing.T) {
	tests := map[string]http.HandlerFunc{
		"page":     func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") },
		"missing":  http.NotFound,
		"too new":  reply(`"result":{"protocolVersion":"2026-07-28","capabilities":{},"serverInfo":{"name":"n","version":"1"}}`),
		"refusing": reply(`"error":{"code":-32022,"message":"not served"}`),
		"empty":    reply(`"result":{}`),
	}
	for name, h := range tests {
		f := newFake(t)
		f.override["/mcp"] = h
		if _, err := newClient(t).Connect(short(t), f.server()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	f := newFake(t)
	f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body) // or the server does not notice that the client has gone
		<-r.Context().Done()
	}
	if _, err := newClient(t).Connect(ctx, f.server()); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("slow: %v", err)
	}
	f.Close()
	if _, err := newClient(t).Connect(short(t), f.server()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("gone: %v", err)
	}
}

func reply(rest string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":"2.0","id":1,`+rest+`}`)
	}
}
