package gate

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// R622: a service account can use the tools on its list, whatever its rank and its
// scopes would allow, and is shown no other.
func TestAServiceAccountCanUseItsListOnly(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := newFixture(t, db)
		server := tool.Server{Tool: tool.Forward(tool.Def{Name: "files", Effect: tool.Reads, Caller: principal.Readonly, Scope: "files:read"},
			"files", json.RawMessage(`{}`), func(context.Context, tool.Request) (json.RawMessage, error) { return json.RawMessage(`{}`), nil })}
		if err := f.Registry.PublishServer(server, nil); err != nil {
			t.Fatal(err)
		}
		robot := principal.Principal{
			Kind: principal.ServiceAccount, Workspace: "w1", User: "svc_1", Client: "svc_1", Rank: principal.Owner, Scopes: []string{"mcp:admin"},
			Tools: []string{"up_read", "sign_note", "files"},
		}
		for name, want := range map[string]string{
			"up_read": "", "greet_all": "", "up_write": "TOOL_NOT_ALLOWED", "write_note": "TOOL_NOT_ALLOWED", "own_note": "TOOL_NOT_ALLOWED", "sign_note": "DIRECT_ONLY",
		} {
			c := call(name)
			c.Principal = robot
			if _, err := f.Do(context.Background(), c); code(err) != want {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		var listed []string
		for _, d := range f.List(context.Background(), robot) {
			listed = append(listed, d.FullName())
		}
		if len(listed) != 2 || listed[0] != "greet_all" || listed[1] != "up_read" {
			t.Errorf("listed: %v", listed)
		}
		if servers := f.Servers(context.Background(), robot); len(servers) != 0 {
			t.Errorf("it may read from %v", servers)
		}
		read := Call{Principal: robot, Kind: tool.KindResource, Server: "files", Name: "file:///x", Door: "mcp"}
		if _, err := f.Do(context.Background(), read); code(err) != "TOOL_NOT_ALLOWED" {
			t.Errorf("a resource: %v", err)
		}
		robot.Kind = principal.Member
		if servers := f.Servers(context.Background(), robot); len(servers) != 1 {
			t.Error("a member may not read from the server either: this test tests nothing")
		}
	})
}
