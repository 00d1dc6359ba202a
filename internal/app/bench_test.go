package app_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// BenchmarkCall is a whole tools/call of a tool behind us, over HTTP, with its
// event durable. Caller, gatehouse and upstream share the process.
func BenchmarkCall(b *testing.B) {
	up := httptest.NewServer(http.HandlerFunc(fastUpstream))
	b.Cleanup(up.Close)
	h := apptest.Start(b, apptest.Dev)
	if a := h.Admin("add_server", `{"name":"fast","url":"`+up.URL+`"}`); a.StatusCode != http.StatusOK {
		b.Fatal(a.Text)
	}
	tokens, _ := h.Token("", h.URL+"/s/fast/mcp")
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			a := h.RPC("/s/fast/mcp", tokens.AccessToken, "tools/call", `{"name":"read","arguments":{"message":"hello"}}`)
			if !strings.Contains(a.Text, "hello") {
				b.Error(a.Text)
			}
		}
	})
}

// fastUpstream is an MCP server with one tool that reads.
func fastUpstream(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
	}
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &m)
	result := `{"content":[{"type":"text","text":"hello"}]}`
	switch m.Method {
	case "initialize":
		result = `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"fast","version":"1"}}`
	case "tools/list":
		result = `{"tools":[{"name":"read","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}`
	case "notifications/initialized":
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+string(m.ID)+`,"result":`+result+`}`)
}
