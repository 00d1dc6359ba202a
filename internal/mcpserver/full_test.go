package mcpserver_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// full is an MCP server over HTTP that hands out sessions and has everything: it
// remembers what it was sent in which session, and says what it is told to.
type full struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	sessions map[string]*fullSession
	received []apptest.Received
	answers  map[string]apptest.Answering // by method, in place of the usual
}

type fullSession struct {
	offers string           // the capabilities of the client
	stream chan string      // what is said outside of calls
	told   chan mcp.Message // answers and notifications of the client
}

const (
	fullHello = `{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},` +
		`"prompts":{"listChanged":true},"logging":{},"completions":{},"tasks":{},"experimental":{"x":{}}},` +
		`"serverInfo":{"name":"full","version":"1"},"instructions":"Be kind."}`
	fullTools     = `{"tools":[{"name":"look","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}},{"name":"wipe","inputSchema":{"type":"object"}}]}`
	fullResources = `{"resources":[{"uri":"doc://one","name":"one","x-odd":1.0}],"nextCursor":"2","x-odd":[1.0]}`
	fullMore      = `{"resources":[{"uri":"doc://two","name":"two"}]}`
	fullTemplates = `{"resourceTemplates":[{"uriTemplate":"doc://page/{n}{?lang}","name":"page"}]}`
	fullPrompts   = `{"prompts":[{"name":"greet","arguments":[{"name":"who"}],"x-odd":1.0}]}`
)

func newFull(t *testing.T) *full {
	f := &full{t: t, sessions: map[string]*fullSession{}, answers: map[string]apptest.Answering{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	return f
}

// answer makes the server answer a method like this; nil stands for the usual answer.
func (f *full) answer(method string, a apptest.Answering) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[method] = a
}

// forget makes the server lose its sessions, as a restart does.
func (f *full) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions = map[string]*fullSession{}
	f.CloseClientConnections()
}

// heard are the messages with this method, in the order of their arrival.
func (f *full) heard(method string) []apptest.Received {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.received), func(r apptest.Received) bool { return r.Method != method })
}

// in is the session of the last message with this method.
func (f *full) in(method string) string {
	all := f.heard(method)
	if len(all) == 0 {
		f.t.Fatalf("%s did not arrive", method)
	}
	return all[len(all)-1].Header.Get(mcp.SessionHeader)
}

func (f *full) session(id string) *fullSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[id]
}

func (f *full) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m, _ := mcp.Parse(body)
	if r.Method != http.MethodPost {
		m.Method = r.Method
	}
	id := r.Header.Get(mcp.SessionHeader)
	f.mu.Lock()
	f.received = append(f.received, apptest.Received{Header: r.Header.Clone(), Message: m})
	s, answer := f.sessions[id], f.answers[m.Method]
	if m.Method == "initialize" {
		id = fmt.Sprintf("full-%d", len(f.received))
		f.sessions[id] = &fullSession{string(mcp.Field(m.Params, "capabilities")), make(chan string, 16), make(chan mcp.Message, 16)}
		w.Header().Set(mcp.SessionHeader, id)
		w.Header().Set("Set-Cookie", "tracking=1")
		s = f.sessions[id]
	}
	if m.Method == http.MethodDelete {
		delete(f.sessions, id)
	}
	f.mu.Unlock()
	switch {
	case s == nil:
		http.Error(w, "no such session", http.StatusNotFound)
	case m.Method == http.MethodGet:
		f.speak(w, r, s)
	case answer != nil:
		answer(w, r, m)
	case !m.IsRequest():
		if m.Method != http.MethodDelete && m.Method != "notifications/initialized" {
			s.told <- m
		}
		w.WriteHeader(http.StatusAccepted)
	default:
		apptest.Reply(w, m, f.usual(m))
	}
}

func (f *full) usual(m mcp.Message) string {
	switch m.Method {
	case "initialize":
		return fullHello
	case "tools/list":
		return fullTools
	case "resources/list":
		if mcp.Text(m.Params, "cursor") == "2" {
			return fullMore
		}
		return fullResources
	case "resources/templates/list":
		return fullTemplates
	case "prompts/list":
		return fullPrompts
	case "logging/setLevel", "resources/subscribe", "resources/unsubscribe":
		return `{}`
	}
	return `{"params":` + string(m.Params) + `,"x-odd":1.0}`
}

// speak is the stream outside of calls.
func (f *full) speak(w http.ResponseWriter, r *http.Request, s *fullSession) {
	events := mcp.NewEventWriter(w)
	_ = events.Comment("here")
	for {
		select {
		case m := <-s.stream:
			_ = events.Message([]byte(m))
		case <-r.Context().Done():
			return
		}
	}
}

// asking answers a call with a question to the client first, and then with what
// the client said.
func (f *full) asking(question string) apptest.Answering {
	return func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
		s := f.session(r.Header.Get(mcp.SessionHeader))
		events := mcp.NewEventWriter(w)
		_ = events.Message([]byte(question))
		select {
		case said := <-s.told:
			_ = events.Message(mcp.Message{ID: m.ID, Result: mcp.TextResult(nil, string(said.Encode()), false)}.Encode())
		case <-r.Context().Done():
		}
	}
}

// withFull puts a full server behind the house.
func (f *fixture) withFull() *full {
	f.t.Helper()
	up := newFull(f.t)
	if a := f.Admin("add_server", `{"name":"full","url":"`+up.URL+`"}`); a.StatusCode != http.StatusOK {
		f.t.Fatal(a.Text)
	}
	return up
}

const (
	everything = `{"elicitation":{"form":{}},"sampling":{},"roots":{"listChanged":true},"experimental":{"x":{}}}`
	atFull     = "/s/full/mcp"
)

// open initializes with these capabilities and returns the session id and the answer.
func (f *fixture) open(path, bearer, capabilities string) (id string, a apptest.Answer) {
	f.t.Helper()
	a = f.RPC(path, bearer, "initialize", `{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"test","version":"1"}}`)
	if id = a.Header.Get(mcp.SessionHeader); id == "" {
		f.t.Fatalf("no session: %d %s", a.StatusCode, a.Text)
	}
	return id, a
}

func inSession(id string) string { return mcp.SessionHeader + ": " + id }

// listening is an open stream of a session.
type listening struct {
	t      *testing.T
	status int
	lines  chan string
	close  context.CancelFunc
}

// listen opens the stream of a session.
func (f *fixture) listen(path, bearer, session string) *listening {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	r := f.Request(http.MethodGet, path, "", "Authorization: Bearer "+bearer, "Accept: text/event-stream", inSession(session)).WithContext(ctx)
	return f.stream(r, cancel)
}

// stream sends a request whose answer is read as it comes.
func (f *fixture) stream(r *http.Request, cancel context.CancelFunc) *listening {
	f.t.Helper()
	hc := &http.Client{Transport: f.HTTP.Transport} // without the limit in time
	resp, err := hc.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	l := &listening{t: f.t, status: resp.StatusCode, lines: make(chan string, 256), close: cancel}
	go func() {
		defer close(l.lines)
		defer func() { _ = resp.Body.Close() }()
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			if data, ok := bytes.CutPrefix(in.Bytes(), []byte("data: ")); ok {
				l.lines <- string(data)
			}
		}
	}()
	return l
}

// next is the next message, or "the end".
func (l *listening) next() string {
	l.t.Helper()
	select {
	case line, open := <-l.lines:
		if !open {
			return "the end"
		}
		return line
	case <-time.After(10 * time.Second):
		l.t.Fatal("nothing came within 10 s")
		return ""
	}
}

// until reads up to a message that has the text.
func (l *listening) until(text string) string {
	l.t.Helper()
	for {
		line := l.next()
		if strings.Contains(line, text) || line == "the end" {
			return line
		}
	}
}

// eventually waits for something that other goroutines bring about.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never happened: %s", what)
}
