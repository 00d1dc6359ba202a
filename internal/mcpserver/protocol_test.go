package mcpserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// A message that cannot be understood, or could be understood in two ways, is
// refused, with its id where that can be made out; the server goes on (R717).
func TestUnclearMessagesAreRefused(t *testing.T) {
	f := start(t)
	dev := f.dev()
	call := func(params string) string {
		return `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":` + params + `}`
	}
	for _, tt := range []struct {
		name, body string
		code       int
		id         string
	}{
		{"nothing", "", mcp.ParseError, "null"},
		{"a word", "hello", mcp.ParseError, "null"},
		{"cut off", `{"jsonrpc":"2.0","id":7,"method":"tools/li`, mcp.ParseError, "7"},
		{"cut off before the end", listMessage[:len(listMessage)-1], mcp.ParseError, "1"},
		{"two messages", listMessage + listMessage, mcp.ParseError, "1"},
		{"not UTF-8", "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"\xff\"}", mcp.ParseError, "7"},
		{"batch", "[" + listMessage + "]", mcp.InvalidRequest, "null"},
		{"empty batch", "[]", mcp.InvalidRequest, "null"},
		{"text", `"tools/list"`, mcp.InvalidRequest, "null"},
		{"null", "null", mcp.InvalidRequest, "null"},
		{"id null", `{"jsonrpc":"2.0","id":null,"method":"tools/list"}`, mcp.InvalidRequest, "null"},
		{"id with a fraction", `{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}`, mcp.InvalidRequest, "null"},
		{"id an object", `{"jsonrpc":"2.0","id":{},"method":"tools/list"}`, mcp.InvalidRequest, "null"},
		{"id true", `{"jsonrpc":"2.0","id":true,"method":"tools/list"}`, mcp.InvalidRequest, "null"},
		{"no version", `{"id":7,"method":"tools/list"}`, mcp.InvalidRequest, "7"},
		{"JSON-RPC 1.0", `{"jsonrpc":"1.0","id":7,"method":"tools/list"}`, mcp.InvalidRequest, "7"},
		{"no method", `{"jsonrpc":"2.0","id":7,"params":{}}`, mcp.InvalidRequest, "7"},
		{"method a number", `{"jsonrpc":"2.0","id":7,"method":1}`, mcp.InvalidRequest, "7"},
		{"request and response", `{"jsonrpc":"2.0","id":7,"method":"ping","result":{}}`, mcp.InvalidRequest, "7"},
		{"params a list", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":["echo"]}`, mcp.InvalidParams, "7"},
		{"method twice", `{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/list"}`, mcp.InvalidRequest, "7"},
		{"method twice, once escaped", `{"jsonrpc":"2.0","id":7,"method":"ping","m\u0065thod":"tools/list"}`, mcp.InvalidRequest, "7"},
		{"tool twice", call(`{"name":"public_info","name":"fix_destroy"}`), mcp.InvalidRequest, "7"},
		{"argument twice", call(`{"name":"echo","arguments":{"message":"a","message":"b"}}`), mcp.InvalidRequest, "7"},
		{"too deep", strings.Repeat("[", 1<<20), mcp.InvalidRequest, "null"},
		{"too deep inside", call(`{"name":"fix_read","arguments":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000) + "}"), mcp.ParseError, "7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := f.post("/mcp", dev, tt.body)
			if m := parse(t, a); a.StatusCode != http.StatusBadRequest || m.Error == nil || m.Error.Code != tt.code || string(m.ID) != tt.id || m.Result != nil {
				t.Errorf("%d %.300s, want %d for %s", a.StatusCode, a.Text, tt.code, tt.id)
			}
		})
	}
	if n := len(f.up.Received("tools/call")); n != 0 {
		t.Errorf("%d calls went through", n)
	}
	if a := f.post("/mcp", dev, listMessage); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.Text)
	}
}

func TestOnlyJSONIsRead(t *testing.T) {
	f := start(t)
	dev := f.dev()
	for kind, status := range map[string]int{
		"application/json": http.StatusOK, "application/json; charset=utf-8": http.StatusOK, "Application/JSON": http.StatusOK,
		"text/plain": http.StatusUnsupportedMediaType, "text/json": http.StatusUnsupportedMediaType, "application/jsonp": http.StatusUnsupportedMediaType,
		"application/x-www-form-urlencoded": http.StatusUnsupportedMediaType, "multipart/form-data; boundary=x": http.StatusUnsupportedMediaType,
		"text/plain; application/json": http.StatusUnsupportedMediaType, "*/*": http.StatusUnsupportedMediaType, ";": http.StatusUnsupportedMediaType,
	} {
		if a := f.post("/mcp", dev, listMessage, "Content-Type: "+kind); a.StatusCode != status {
			t.Errorf("%s: %d %s", kind, a.StatusCode, a.Text)
		}
	}
	r := f.Request(http.MethodPost, "/mcp", listMessage, "Authorization: Bearer "+dev)
	if a := f.Do(r); a.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("no type: %d %s", a.StatusCode, a.Text)
	}
}

// endless is a body that never ends.
type endless struct{ sent int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.sent += len(p)
	return len(p), nil
}

// What is too long is refused before it is there, and not kept; a long message
// that is allowed goes through.
func TestLongBodiesAreRefused(t *testing.T) {
	f := start(t)
	dev := f.dev()
	long := func(n int) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fix_read","arguments":{"x":"` + strings.Repeat("x", n) + `"}}}`
	}
	if a := f.post("/mcp", dev, long(3<<20)); a.StatusCode != http.StatusOK {
		t.Errorf("3 MB: %d %.200s", a.StatusCode, a.Text)
	}
	if a := f.post("/mcp", dev, long(10<<20)); a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("10 MB: %d %.200s", a.StatusCode, a.Text)
	}
	for bearer, want := range map[string]struct{ status, most int }{
		dev: {http.StatusRequestEntityTooLarge, 40 << 20}, "": {http.StatusUnauthorized, 4 << 20},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		body := &endless{}
		r, err := http.NewRequest(http.MethodPost, f.URL+"/mcp", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		a := f.Do(r)
		runtime.ReadMemStats(&after)
		if grown := int(after.TotalAlloc - before.TotalAlloc); a.StatusCode != want.status || grown > want.most {
			t.Errorf("endless body: %d, %d bytes allocated, %d sent", a.StatusCode, grown, body.sent)
		}
	}
}

// Ids come back as they were sent, and what is asked is answered.
func TestRequestsAreAnsweredUnderTheirID(t *testing.T) {
	f := start(t)
	dev := f.dev()
	for _, id := range []string{`1`, `0`, `-5`, `"a"`, `"\u0061 é"`, `""`, `12345678901234567890`} {
		a := f.post("/mcp", dev, `{"jsonrpc":"2.0","id":`+id+`,"method":"ping"}`)
		if m := parse(t, a); string(m.ID) != id || string(m.Result) != "{}" || a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", id, a.Text)
		}
	}
	for _, method := range []string{"server/discover", "tasks/list", "resources/lists", "Tools/list", "tools/list ", "\x00", strings.Repeat("x", 100_000)} {
		quoted, _ := json.Marshal(method)
		a := f.post("/mcp", dev, `{"jsonrpc":"2.0","id":"q","method":`+string(quoted)+`}`)
		if m := parse(t, a); a.StatusCode != http.StatusOK || m.Error == nil || m.Error.Code != mcp.MethodNotFound || string(m.ID) != `"q"` || len(a.Text) > 1000 {
			t.Errorf("%.50s: %d %.300s", method, a.StatusCode, a.Text)
		}
	}
	for _, body := range []string{
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled"}`,
		`{"jsonrpc":"2.0","method":"notifications/of-tomorrow","params":{"x":1}}`,
		`{"jsonrpc":"2.0","method":"tools/call","params":{"name":"fix_write"}}`, // without an id nobody waits for it
		`{"jsonrpc":"2.0","id":3,"result":{}}`,
		`{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":"no"}}`,
	} {
		if a := f.post("/mcp", dev, body); a.StatusCode != http.StatusAccepted || a.Text != "" {
			t.Errorf("%s: %d %s", body, a.StatusCode, a.Text)
		}
	}
	if n := len(f.up.Received("tools/call")); n != 0 {
		t.Errorf("a notification called a tool %d times", n)
	}
}

func TestToolCallsThatNameNoTool(t *testing.T) {
	f := start(t)
	dev := f.dev()
	for params, code := range map[string]string{
		`{}`: "", `{"name":1}`: "", `{"name":""}`: "", `{"name":null}`: "", `{"name":["echo"]}`: "",
		`{"name":"fix_read","Name":"fix_destroy"}`: "", `{"name":"fix_read","arguments":{},"ARGUMENTS":{"x":1}}`: "", // readers that ignore case would take the second
		`{"name":"none"}`: "TOOL_UNKNOWN", `{"name":"ECHO"}`: "TOOL_UNKNOWN", `{"name":"echo "}`: "TOOL_UNKNOWN", `{"name":"\u0000"}`: "TOOL_UNKNOWN",
		`{"name":"` + strings.Repeat("x", 1<<20) + `"}`: "TOOL_UNKNOWN",
	} {
		a := f.RPC("/mcp", dev, "tools/call", params)
		m := parse(t, a)
		if a.StatusCode != http.StatusOK || m.Error == nil || m.Error.Code != mcp.InvalidParams || wrong(a) != code || len(a.Text) > 2000 {
			t.Errorf("%.50s: %d %.300s", params, a.StatusCode, a.Text)
		}
	}
	for params, code := range map[string]string{
		`{"name":"echo","arguments":[]}`: "ARGUMENTS_INVALID", `{"name":"echo","arguments":"x"}`: "ARGUMENTS_INVALID",
		`{"name":"echo"}`: "ARGUMENTS_INVALID", `{"name":"echo","arguments":null}`: "ARGUMENTS_INVALID",
		`{"name":"echo","arguments":{"message":"x","more":1}}`: "ARGUMENTS_INVALID", `{"name":"echo","arguments":{"Message":"x"}}`: "ARGUMENTS_INVALID",
		`{"name":"whoami"}`: "", `{"name":"whoami","arguments":null}`: "", `{"name":"whoami","arguments":{}}`: "",
		`{"name":"\u0065cho","arguments":{"message":"x"}}`: "",
	} {
		a := f.RPC("/mcp", dev, "tools/call", params)
		if m := parse(t, a); a.StatusCode != http.StatusOK || m.Error != nil || wrong(a) != code {
			t.Errorf("%s: %d %s", params, a.StatusCode, a.Text)
		}
	}
}

// R715, R716: a revision that is served is spoken; any other is refused with the
// list of those that are, so that the client can fall back.
func TestRevisions(t *testing.T) {
	f := start(t)
	dev := f.dev()
	list := func(params string, headers ...string) apptest.Answer {
		return f.post("/mcp", dev, `{"jsonrpc":"2.0","id":5,"method":"tools/list","params":`+params+`}`, headers...)
	}
	for _, version := range append(slices.Clone(mcp.Legacy), "") {
		var headers []string
		if version != "" {
			headers = []string{"MCP-Protocol-Version: " + version}
		}
		if a := list("{}", headers...); a.StatusCode != http.StatusOK || parse(t, a).Result == nil {
			t.Errorf("%s: %d %s", version, a.StatusCode, a.Text)
		}
	}
	meta := `{"_meta":{"io.modelcontextprotocol/protocolVersion":%q,"io.modelcontextprotocol/clientCapabilities":{}}}`
	for name, tt := range map[string]struct {
		answer apptest.Answer
		asked  string
	}{
		"newer by header":         {list("{}", "MCP-Protocol-Version: 2026-07-28"), "2026-07-28"},
		"newer by _meta":          {list(fmt.Sprintf(meta, "2026-07-28")), "2026-07-28"},
		"newer by both":           {list(fmt.Sprintf(meta, "2026-07-28"), "MCP-Protocol-Version: 2026-07-28"), "2026-07-28"},
		"newer in an older shell": {list(fmt.Sprintf(meta, "2026-07-28"), "MCP-Protocol-Version: 2025-11-25"), "2026-07-28"},
		"of tomorrow":             {list("{}", "MCP-Protocol-Version: 2031-01-01"), "2031-01-01"},
		"older":                   {list("{}", "MCP-Protocol-Version: 2024-11-05"), "2024-11-05"},
		"none at all":             {list("{}", "MCP-Protocol-Version: junk"), "junk"},
		"discovery":               {f.post("/mcp", dev, `{"jsonrpc":"2.0","id":5,"method":"server/discover","params":`+fmt.Sprintf(meta, "2026-07-28")+`}`), "2026-07-28"},
	} {
		m := parse(t, tt.answer)
		var data struct {
			Supported []string
			Requested string
		}
		if m.Error != nil {
			_ = json.Unmarshal(m.Error.Data, &data)
		}
		if tt.answer.StatusCode != http.StatusBadRequest || m.Error == nil || m.Error.Code != mcp.UnsupportedVersion || string(m.ID) != "5" ||
			!slices.Equal(data.Supported, mcp.Legacy) || data.Requested != tt.asked {
			t.Errorf("%s: %d %s", name, tt.answer.StatusCode, tt.answer.Text)
		}
	}
	for asked, spoken := range map[string]string{"2025-11-25": "2025-11-25", "2025-03-26": "2025-03-26", "2024-11-05": mcp.Latest, "2026-07-28": mcp.Latest, "": mcp.Latest} {
		a := f.RPC("/mcp", dev, "initialize", `{"protocolVersion":"`+asked+`","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`)
		if got := mcp.Text(parse(t, a).Result, "protocolVersion"); got != spoken {
			t.Errorf("asked %q, spoke %q", asked, got)
		}
	}
	if a := f.RPC("/mcp", dev, "initialize", `{"protocolVersion":1}`); parse(t, a).Error == nil || parse(t, a).Error.Code != mcp.InvalidParams {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
}

// R710, R720: the common endpoint shows everything with prefixes, that of one
// server its tools as they are called, and none of them what belongs elsewhere.
func TestNamesAtTheEndpoints(t *testing.T) {
	f := start(t)
	all := "fix2_destroy fix2_read fix2_write fix_destroy fix_read fix_write"
	everything := map[string]string{}
	for path, want := range map[string]string{
		"/mcp": "echo " + all + " public_info whoami", "/s/fix/mcp": "destroy read write",
		"/s/gatehouse/mcp": "get_audit_chain_head get_trace list_apps list_audit_events list_clients list_connections list_introspectors list_registration_tokens list_servers list_service_accounts list_signing_keys show_client verify_audit_chain",
	} {
		bearer := f.at(path, "mcp:admin")
		if got := f.names(path, bearer); got != want {
			t.Errorf("%s offers %s, want %s", path, got, want)
		}
		everything[path] = bearer
	}
	for path, names := range map[string][]string{
		"/mcp":             {"list_servers", "verify_audit_chain", "add_server", "read", "gatehouse_list_servers", "fix2", "_read"},
		"/s/fix/mcp":       {"fix_read", "fix2_read", "2_read", "echo", "public_info", "list_servers", "add_server", "../fix2/read"},
		"/s/gatehouse/mcp": {"echo", "whoami", "public_info", "fix_read", "read", "gatehouse_list_servers"},
	} {
		for _, name := range names {
			a := f.RPC(path, everything[path], "tools/call", `{"name":"`+name+`","arguments":{}}`)
			if m := parse(t, a); wrong(a) != "TOOL_UNKNOWN" || m.Error == nil || m.Error.Code != mcp.InvalidParams {
				t.Errorf("%s at %s: %d %s", name, path, a.StatusCode, a.Text)
			}
			if got := f.events(1); !strings.HasSuffix(got, name+" denied TOOL_UNKNOWN") {
				t.Errorf("%s at %s is recorded as %q", name, path, got)
			}
		}
	}
	for _, name := range []string{"add_server", "remove_server"} { // tools for people are nowhere over MCP
		if a := f.RPC("/s/gatehouse/mcp", everything["/s/gatehouse/mcp"], "tools/call", `{"name":"`+name+`","arguments":{"name":"fix"}}`); wrong(a) != "DIRECT_ONLY" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
		}
	}
	if got := f.names("/mcp", f.dev("fix:read")); got != "echo fix_read public_info whoami" {
		t.Errorf("with fix:read the common endpoint offers %s", got)
	}
}
