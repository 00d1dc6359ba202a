package mcpserver_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// bearer adds a token to every request.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// A client that somebody else wrote, and that speaks a newer revision first,
// falls back and does everything: the handshake, the list, calls, progress and
// cancellation.
func TestStrangersClientFallsBack(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	progress := make(chan float64, 8)
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, &sdk.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *sdk.ProgressNotificationClientRequest) { progress <- r.Params.Progress },
	})
	session, err := client.Connect(ctx, &sdk.StreamableClientTransport{
		Endpoint: f.URL + "/mcp", HTTPClient: &http.Client{Transport: bearer{f.dev("mcp:admin"), f.HTTP.Transport}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := session.InitializeResult(); got.ProtocolVersion != mcp.Latest || got.ServerInfo.Name != "gatehouse" {
		t.Errorf("%+v", got)
	}
	var names []string
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tool.Name)
	}
	if got := strings.Join(names, " "); got != "echo fix2_destroy fix2_read fix2_write fix_destroy fix_read fix_write public_info whoami" {
		t.Errorf("offered %s", got)
	}
	call := func(ctx context.Context, name string, args any) (string, error) {
		params := &sdk.CallToolParams{Name: name, Arguments: args}
		params.SetProgressToken("p1")
		result, err := session.CallTool(ctx, params)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(result.IsError, " ", result.Content[0].(*sdk.TextContent).Text), nil
	}
	if text, err := call(ctx, "echo", map[string]any{"message": "hi"}); err != nil || text != `false {"echo":"hi","authorized":true}` {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := call(ctx, "fix_write", nil); err != nil || text != "false did write" {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := call(ctx, "echo", map[string]any{}); err != nil || !strings.HasPrefix(text, "true ") || !strings.Contains(text, "ARGUMENTS_INVALID") {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := call(ctx, "none", nil); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("an unknown tool: %v", err)
	}

	up := f.waits()
	short, leave := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { _, err := call(short, "fix_write", nil); ended <- err }()
	asked := soon(t, "the call", up.began)
	leave()
	if soon(t, "the end of the call", ended) == nil {
		t.Error("a cancelled call has a result")
	}
	soon(t, "the end at the server", up.ended)
	f.mustHaveTold(asked)

	f.up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":%s,\"progress\":0.5}}\n\n",
			mcp.Field(m.Params, "_meta", "progressToken"))
		_, _ = fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n\n", m.ID)
	})
	if text, err := call(ctx, "fix_read", nil); err != nil || text != "false done" {
		t.Errorf("after a cancelled call: %s, %v", text, err)
	}
	if got := soon(t, "the progress", progress); got != 0.5 {
		t.Errorf("progress %v", got)
	}
}
