package gate

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// withServer adds a server that answers with the method it was asked.
func (f *fixture) withServer(name string) *fixture {
	f.t.Helper()
	err := f.Registry.PublishServer(tool.Server{Tool: tool.Tool{
		Def:    tool.Def{Name: name, Effect: tool.Reads, Caller: principal.Readonly, Scope: name + ":read"},
		Origin: name, Workspace: "w1", Forwarded: true,
		Outside: func(ctx context.Context, r tool.Request) (json.RawMessage, error) {
			f.touched++
			return json.RawMessage(`"` + r.Method + `"`), f.world(ctx)
		},
	}}, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return f
}

// R702: whatever makes a server read or do something is decided about like the
// call of a tool, and leaves one event that says what it was.
func TestEveryKindOfCallIsDecidedAndRecorded(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t))).withServer("docs")
	for kind, want := range map[tool.Kind]struct{ method, action string }{
		tool.KindResource: {"resources/read", "resource.read"}, tool.KindPrompt: {"prompts/get", "prompt.get"},
		tool.KindCompletion: {"completion/complete", "completion.complete"}, tool.KindLogLevel: {"logging/setLevel", "log.level"},
		tool.KindSubscribe: {"resources/subscribe", "resource.subscribe"}, tool.KindUnsubscribe: {"resources/unsubscribe", "resource.unsubscribe"},
	} {
		c := call("a thing")
		c.Kind, c.Server = kind, "docs"
		before := len(f.events("w1"))
		out, err := f.Do(t.Context(), c)
		if err != nil || string(out) != `"`+want.method+`"` {
			t.Errorf("%s: %s, %v", want.method, out, err)
		}
		events := f.events("w1")[before:]
		if len(events) != 1 || events[0].Action != want.action || events[0].Target != "a thing" || events[0].Outcome != audit.Allowed {
			t.Errorf("%s is recorded as %+v", want.method, events)
		}
		touched := f.touched
		for name, spoil := range map[string]func(*Call){
			"SCOPE_REQUIRED":   func(c *Call) { c.Principal.Scopes = []string{"up:admin"} },
			"RESOURCE_UNKNOWN": func(c *Call) { c.Server = "none" },
		} {
			c := c
			spoil(&c)
			if _, err := f.Do(t.Context(), c); code(err) != name {
				t.Errorf("%s: %v, want %s", want.method, err, name)
			}
		}
		foreign, hidden, stranger := c, c, c
		foreign.Principal.Workspace = "w2"
		hidden.Offered = func(tool.Tool) bool { return false }
		stranger.Principal = principal.Principal{}
		for name, c := range map[string]Call{"RESOURCE_UNKNOWN": foreign, "RESOURCE_UNKNOWN ": hidden, "SIGN_IN_NEEDED": stranger} {
			if _, err := f.Do(t.Context(), c); code(err)+" " != name && code(err) != name {
				t.Errorf("%s: %v, want %s", want.method, err, name)
			}
		}
		if got := outcomes(f.events("w1")[before+1:]); f.touched != touched || len(f.events("w1")) != before+4 {
			t.Errorf("%s: refusals are recorded as %s, and reached the server %d times", want.method, got, f.touched-touched)
		}
	}
}

// Lists leave no event, and reach the servers of those who may read, no others.
func TestBrowsing(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t))).withServer("docs").withServer("code")
	narrow, foreign := dana, dana
	narrow.Scopes = []string{"docs:write"}
	foreign.Workspace = "w2"
	for name, tt := range map[string]struct {
		p    principal.Principal
		want string
	}{"all": {dana, "code docs "}, "one": {narrow, "docs "}, "another workspace": {foreign, ""}, "a stranger": {principal.Principal{}, ""}} {
		got := ""
		for _, s := range f.Servers(t.Context(), tt.p) {
			got += s.Origin + " "
		}
		if got != tt.want {
			t.Errorf("%s may read from %q, want %q", name, got, tt.want)
		}
	}
	c := call("")
	c.Server = "docs"
	if out, err := f.Browse(t.Context(), c, "prompts/list"); err != nil || string(out) != `"prompts/list"` {
		t.Errorf("%s, %v", out, err)
	}
	refused := c
	refused.Principal, refused.Server = narrow, "code"
	if _, err := f.Browse(t.Context(), refused, "prompts/list"); code(err) != "SCOPE_REQUIRED" {
		t.Errorf("%v", err)
	}
	if _, err := f.Browse(t.Context(), c, "resources/read"); code(err) != "TOOL_BROKE" { // it would leave no event
		t.Errorf("%v", err)
	}
	f.world = func(context.Context) error { panic("lost") }
	if _, err := f.Browse(t.Context(), c, "prompts/list"); code(err) != "TOOL_BROKE" {
		t.Errorf("%v", err)
	}
	if n := len(f.events("w1")); n != 0 || f.touched != 2 {
		t.Errorf("%d events, %d times at the server", n, f.touched)
	}
}
