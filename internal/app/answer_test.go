package app_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// What a server asks of a caller while its call runs at one node may be answered at
// another, by that caller in that session and by nobody else (R719, attack 84).
func TestAnswerAtAnotherNode(t *testing.T) {
	t.Parallel()
	told := make(chan string, 8)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m, _ := mcp.Parse(body)
		switch {
		case m.Method == "initialize":
			apptest.Reply(w, m, `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"curious","version":"1"}}`)
		case m.Method == "tools/list":
			apptest.Reply(w, m, `{"tools":[{"name":"ask","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}`)
		case m.Method == "tools/call":
			events := mcp.NewEventWriter(w)
			_ = events.Message([]byte(`{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"why?"}}`))
			_ = events.Message(mcp.Message{ID: m.ID, Result: mcp.TextResult(nil, <-told, false)}.Encode())
		default:
			if m.IsResponse() && m.ID != nil {
				told <- string(m.Encode())
			}
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	t.Cleanup(up.Close)
	a, b := nodes(t)
	if answer := a.Admin("add_server", `{"name":"curious","url":"`+up.URL+`"}`); answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Text)
	}
	tokens, _ := a.Token("mcp:read", "")
	open := func() string {
		return a.RPC("/mcp", tokens.AccessToken, "initialize", `{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"t","version":"1"}}`).Header.Get(mcp.SessionHeader)
	}
	session, other := open(), open()
	r := a.Request(http.MethodPost, "/mcp", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"curious_ask"}}`,
		"Authorization: Bearer "+tokens.AccessToken, "Content-Type: application/json", "Accept: application/json, text/event-stream", mcp.SessionHeader+": "+session)
	resp, err := a.HTTP.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	next := func() mcp.Message {
		t.Helper()
		for in := bufio.NewReader(resp.Body); ; {
			line, err := in.ReadString('\n')
			if data, found := strings.CutPrefix(line, "data: "); found {
				m, _ := mcp.Parse([]byte(strings.TrimSpace(data)))
				return m
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	id := string(next().ID)
	for _, answer := range []struct{ session, word string }{{other, "stolen"}, {session, "mine"}, {session, "again"}} {
		answered := b.PostJSON("/mcp", `{"jsonrpc":"2.0","id":`+id+`,"result":{"action":"`+answer.word+`"}}`,
			"Authorization: Bearer "+tokens.AccessToken, mcp.SessionHeader+": "+answer.session)
		if answered.StatusCode != http.StatusAccepted {
			t.Errorf("%s: %d %s", answer.word, answered.StatusCode, answered.Text)
		}
	}
	if got := string(next().Result); !strings.Contains(got, "mine") {
		t.Errorf("the server heard %s", got)
	}
}
