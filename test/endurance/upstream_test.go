package endurance

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// upstream is an MCP server that takes a moment for each call and remembers the
// ids of calls that change something.
type upstream struct {
	URL string

	mu   sync.Mutex
	sent map[string]bool
}

func newUpstream(t *testing.T, tools int) *upstream {
	u := &upstream{sent: map[string]bool{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		m, fault := mcp.Parse(body)
		switch {
		case err != nil || fault != nil:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case !m.IsRequest():
			w.WriteHeader(http.StatusAccepted)
		default:
			if id := mcp.Text(m.Params, "arguments", "id"); id != "" && strings.HasPrefix(mcp.Text(m.Params, "name"), "note") {
				u.mu.Lock()
				u.sent[id] = true
				u.mu.Unlock()
			}
			time.Sleep(rand.N(10 * time.Millisecond))
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(mcp.Message{ID: m.ID, Result: result(m, tools)}.Encode()) // the caller may be gone
		}
	}))
	t.Cleanup(s.Close)
	u.URL = s.URL
	return u
}

// result answers a request. Even tools look, odd ones note.
func result(m mcp.Message, tools int) json.RawMessage {
	switch m.Method {
	case "initialize":
		return json.RawMessage(`{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"endurance","version":"1"}}`)
	case "tools/list":
		var list []string
		for i := range tools {
			list = append(list, fmt.Sprintf(`{"name":"%s","description":"Tool %d.","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":%v}}`, toolName(i), i, i%2 == 0))
		}
		return json.RawMessage(`{"tools":[` + strings.Join(list, ",") + `]}`)
	case "tools/call":
		text, _ := json.Marshal("did " + mcp.Text(m.Params, "arguments", "id"))
		return json.RawMessage(`{"content":[{"type":"text","text":` + string(text) + `}]}`)
	}
	return json.RawMessage(`{}`)
}

func toolName(i int) string { return [...]string{"look", "note"}[i%2] + fmt.Sprint(i) }

// childArgument makes this program an MCP server over stdio, see child.
const childArgument = "mcp-child"

// childTools is how many tools the child has.
const childTools = 10

func child() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if m, fault := mcp.Parse(in.Bytes()); fault == nil && m.IsRequest() {
			fmt.Println(string(mcp.Message{ID: m.ID, Result: result(m, childTools)}.Encode()))
		}
	}
}
