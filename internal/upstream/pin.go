package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

const (
	maxTools = 1000
	maxPages = 100
)

// toolName is what may be a tool's name (MCP 2025-11-25 tools, "Tool Names").
var toolName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// fetch lists the tools of a server. Those whose name cannot be used, or is used
// twice, are left out and counted.
func fetch(ctx context.Context, name string, conn Conn) (tools []mcp.ToolDefinition, leftOut int, err error) {
	params := json.RawMessage("{}")
	seen := map[string]bool{}
	for range maxPages {
		page, err := fetchPage(ctx, name, conn, params)
		if err != nil {
			return nil, 0, err
		}
		for _, d := range page.Tools {
			if n := d.Name(); toolName.MatchString(n) && !seen[n] {
				seen[n] = true
				tools = append(tools, d)
			} else {
				leftOut++
			}
		}
		if len(tools) > maxTools {
			break
		}
		if page.NextCursor == "" {
			return tools, leftOut, nil
		}
		if params, err = json.Marshal(map[string]string{"cursor": page.NextCursor}); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, garbage.New("the list of tools of %q has no end", name).
		WithWhy("it goes on after %d tools; allowed are %d on %d pages", len(tools), maxTools, maxPages)
}

func fetchPage(ctx context.Context, name string, conn Conn, params json.RawMessage) (mcp.ToolList, error) {
	var page mcp.ToolList
	result, err := conn.Call(ctx, tool.Session{}, "tools/list", params, nil)
	if refusal, ok := errors.AsType[*mcp.Error](err); ok {
		if refusal.Code == mcp.MethodNotFound { // a server without tools
			return page, nil
		}
		return page, garbage.New("%q does not list its tools", name).WithWhy("it says: %.200q", refusal.Message).Because(err)
	}
	if err != nil {
		return page, err
	}
	if err := json.Unmarshal(result, &page); err != nil {
		return page, garbage.New("the list of tools of %q cannot be read", name).Because(err)
	}
	return page, nil
}

// classify says what a tool may do and who may call it, by its hints as pinned.
// Where the server is silent the worst is assumed (R705).
func classify(server string, d mcp.ToolDefinition) (def tool.Def, hinted bool) {
	a := d.Annotations()
	def = tool.Def{
		Name: d.Name(), Title: mcp.Text(json.RawMessage(d), "title"), Doc: mcp.Text(json.RawMessage(d), "description"),
		Effect: tool.Destroys, Caller: principal.Admin, Scope: server + ":admin",
	}
	switch {
	case a.ReadOnly != nil && *a.ReadOnly:
		def.Effect, def.Caller, def.Scope = tool.Reads, principal.Readonly, server+":read"
	case a.Destructive != nil && !*a.Destructive:
		def.Effect, def.Caller, def.Scope = tool.Writes, principal.Standard, server+":write"
	}
	return def, a.ReadOnly != nil || a.Destructive != nil
}

// published are the server's tools as the registry takes them.
func (srv *server) published() []tool.Tool {
	tools := make([]tool.Tool, 0, len(srv.tools))
	for _, d := range srv.tools {
		def, _ := classify(srv.spec.Name, d)
		t := tool.Forward(def, srv.spec.Name, json.RawMessage(d), srv.forward(def.Name))
		t.Workspace = srv.workspace
		tools = append(tools, t)
	}
	return tools
}

// forward passes a call on: its parameters as they were received, except that the
// name loses our prefix.
func (srv *server) forward(name string) func(context.Context, tool.Request) (json.RawMessage, error) {
	quoted := []byte(`"` + name + `"`) // of letters, digits, _ . and -
	return func(ctx context.Context, r tool.Request) (json.RawMessage, error) {
		params := r.Params
		if params == nil {
			params = fmt.Appendf(nil, `{"name":%s,"arguments":%s}`, quoted, cmp.Or(string(r.Args), "{}"))
		}
		if mcp.Text(params, "name") != name {
			var err error
			if params, err = mcp.Replace(params, quoted, "name"); err != nil {
				return nil, err
			}
		}
		return srv.call(ctx, r, "tools/call", params)
	}
}
