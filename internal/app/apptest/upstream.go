package apptest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// Upstream is an MCP server over HTTP with three tools, read, write and destroy,
// that remembers what it was sent.
type Upstream struct {
	URL string

	mu       sync.Mutex
	answer   Answering
	received []Received
}

// Answering answers a request.
type Answering func(w http.ResponseWriter, r *http.Request, m mcp.Message)

// Answer makes f answer tools/call from now on; nil stands for the usual answer.
func (u *Upstream) Answer(f Answering) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = f
}

// Received is a message as it arrived.
type Received struct {
	Header http.Header
	mcp.Message
}

// NewUpstream runs a server until the test ends.
func NewUpstream(t testing.TB) *Upstream {
	u := &Upstream{}
	server := httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(server.Close)
	u.URL = server.URL
	return u
}

// upstreamTools are pinned as reading, changing and, because it says nothing,
// destroying.
const upstreamTools = `{"tools":[
	{"name":"read","description":"Look.","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true},"x-odd":1.0},
	{"name":"write","description":"Change.","inputSchema":{"type":"object"},"annotations":{"destructiveHint":false}},
	{"name":"destroy","description":"Who knows.","inputSchema":{"type":"object"}}]}`

func (u *Upstream) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	m, fault := mcp.Parse(body)
	if err != nil || fault != nil {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	u.mu.Lock()
	u.received = append(u.received, Received{r.Header.Clone(), m})
	answer := u.answer
	u.mu.Unlock()
	switch {
	case !m.IsRequest():
		w.WriteHeader(http.StatusAccepted)
	case m.Method == "initialize":
		Reply(w, m, `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"fixture","version":"1"}}`)
	case m.Method == "tools/list":
		Reply(w, m, upstreamTools)
	case answer != nil:
		answer(w, r, m)
	default:
		Reply(w, m, `{"content":[{"type":"text","text":"did `+mcp.Text(m.Params, "name")+`"}],"x-odd":1.0}`)
	}
}

// Reply answers a request with a result as JSON.
func Reply(w http.ResponseWriter, m mcp.Message, result string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(mcp.Message{ID: m.ID, Result: []byte(result)}.Encode()) // the caller may be gone
}

// Received are the messages with this method, in the order of their arrival.
func (u *Upstream) Received(method string) []Received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(u.received), func(r Received) bool { return r.Method != method })
}

// Add puts a server behind the house, under a name.
func (h *House) Add(name string, u *Upstream) {
	h.t.Helper()
	if a := h.Admin("add_server", `{"name":"`+name+`","url":"`+u.URL+`"}`); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, name) {
		h.t.Fatalf("not added: %d %s", a.StatusCode, a.Text)
	}
}
