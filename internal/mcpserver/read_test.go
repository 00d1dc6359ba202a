package mcpserver_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// An endpoint announces what the server behind it announced and is served here,
// and no more; at the common one that of all servers (R716, R803).
func TestAnnouncement(t *testing.T) {
	f := start(t)
	f.withFull()
	const all = `{"completions":{},"logging":{},"prompts":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},"tools":{"listChanged":true}}`
	for path, want := range map[string]struct{ capabilities, instructions string }{
		atFull:             {all, "Be kind."},
		"/mcp":             {all, ""},
		"/s/fix/mcp":       {`{"tools":{"listChanged":true}}`, ""},
		"/s/gatehouse/mcp": {`{"tools":{"listChanged":true}}`, ""},
	} {
		_, a := f.open(path, f.at(path, "mcp:admin"), "{}")
		result := parse(t, a).Result
		if got := string(mcp.Field(result, "capabilities")); got != want.capabilities || mcp.Text(result, "instructions") != want.instructions {
			t.Errorf("%s announces %s, says %q", path, got, mcp.Text(result, "instructions"))
		}
	}
	if _, a := f.open("/mcp", f.dev("fix:read"), "{}"); strings.Contains(a.Text, "resources") {
		t.Errorf("what the caller may not read is announced: %s", a.Text)
	}
}

// At the endpoint of one server what is read passes byte for byte, pages and
// unknown members included.
func TestReadingPassesUnchanged(t *testing.T) {
	f := start(t)
	up := f.withFull()
	bearer := f.at(atFull, "full:read")
	for _, tt := range []struct{ method, params, want, action, target string }{
		{"resources/list", `{"_meta":{"a":1.0}}`, fullResources, "", ""},
		{"resources/list", `{"cursor":"2"}`, fullMore, "", ""},
		{"resources/templates/list", `{}`, fullTemplates, "", ""},
		{"prompts/list", `{}`, fullPrompts, "", ""},
		{"resources/read", `{"uri":"doc://any", "x":1.0}`, "", "resource.read", "doc://any"},
		{"prompts/get", `{"name":"greet","arguments":{"who":"a\u00e9"},"x":[1.0]}`, "", "prompt.get", "full_greet"},
		{"completion/complete", `{"ref":{"type":"ref/prompt","name":"greet","x":1.0},"argument":{"name":"who","value":"A"}}`, "", "completion.complete", "full_greet"},
		{"completion/complete", `{"ref":{"type":"ref/resource","uri":"doc://page/{n}{?lang}"},"argument":{"name":"n","value":"1"}}`, "", "completion.complete", "doc://page/{n}{?lang}"},
	} {
		before := f.count("audit_event")
		got := parse(t, f.RPC(atFull, bearer, tt.method, tt.params))
		want := tt.want
		if want == "" {
			want = `{"params":` + tt.params + `,"x-odd":1.0}`
		}
		if string(got.Result) != want {
			t.Errorf("%s %s\ngot  %s %+v\nwant %s", tt.method, tt.params, got.Result, got.Error, want)
		}
		if heard := up.heard(tt.method); string(heard[len(heard)-1].Params) != tt.params {
			t.Errorf("%s arrived as %s", tt.method, heard[len(heard)-1].Params)
		}
		events := f.count("audit_event") - before
		if tt.action == "" && events != 0 || tt.action != "" && (events != 1 || f.lastEvent() != tt.action+" "+tt.target+" allowed") {
			t.Errorf("%s left %d events, the last is %q", tt.method, events, f.lastEvent())
		}
	}
	up.answer("resources/read", func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"error":{"code":-32002,"message":"no","data":{"a":1.0}}}`))
	})
	if m := parse(t, f.RPC(atFull, bearer, "resources/read", `{"uri":"doc://none"}`)); m.Error == nil || m.Error.Code != mcp.ResourceNotFound || string(m.Error.Data) != `{"a":1.0}` {
		t.Errorf("the server's own error became %+v", m.Error)
	}
	if got := f.lastEvent(); got != "resource.read doc://none failed" {
		t.Errorf("recorded %q", got)
	}
	up.answer("resources/read", func(w http.ResponseWriter, _ *http.Request, _ mcp.Message) { w.WriteHeader(http.StatusBadGateway) })
	if a := f.RPC(atFull, bearer, "resources/read", `{"uri":"doc://none"}`); a.StatusCode != http.StatusOK || parse(t, a).Error == nil || wrong(a) != "UPSTREAM_UNAVAILABLE" {
		t.Errorf("a server that fails: %d %s", a.StatusCode, a.Text)
	}
}

// At the common endpoint prompts have the prefix of their server, and a resource
// is asked of the server that lists it, or has a template that fits it.
func TestReadingAtTheCommonEndpoint(t *testing.T) {
	f := start(t)
	up := f.withFull()
	bearer := f.dev("mcp:read")
	for method, want := range map[string]string{
		"resources/list":           `{"resources":[{"uri":"doc://one","name":"one","x-odd":1.0},{"uri":"doc://two","name":"two"}]}`,
		"resources/templates/list": fullTemplates,
		"prompts/list":             strings.Replace(fullPrompts, `"greet"`, `"full_greet"`, 1),
	} {
		if got := parse(t, f.RPC("/mcp", bearer, method, "")); string(got.Result) != want {
			t.Errorf("%s\ngot  %s %+v\nwant %s", method, got.Result, got.Error, want)
		}
	}
	for _, tt := range []struct{ method, params, arrives string }{
		{"resources/read", `{"uri":"doc://two"}`, ""},
		{"resources/read", `{"uri":"doc://page/7?lang=de"}`, ""},
		{"prompts/get", `{"name":"full_greet","x":1.0}`, `{"name":"greet","x":1.0}`},
		{"completion/complete", `{"ref":{"type":"ref/prompt","name":"full_greet"},"argument":{"name":"who","value":""}}`, `{"ref":{"type":"ref/prompt","name":"greet"},"argument":{"name":"who","value":""}}`},
		{"completion/complete", `{"ref":{"type":"ref/resource","uri":"doc://page/{n}{?lang}"},"argument":{"name":"n","value":""}}`, ""},
	} {
		arrives := tt.arrives
		if arrives == "" {
			arrives = tt.params
		}
		m := parse(t, f.RPC("/mcp", bearer, tt.method, tt.params))
		heard := up.heard(tt.method)
		if m.Error != nil || string(heard[len(heard)-1].Params) != arrives {
			t.Errorf("%s %s: %+v, arrived as %s", tt.method, tt.params, m.Error, heard[len(heard)-1].Params)
		}
	}
	for method, params := range map[string]string{
		"resources/read": `{"uri":"doc://page/7/8"}`, "prompts/get": `{"name":"none_greet"}`, "completion/complete": `{"ref":{"type":"ref/resource","uri":"x://y"},"argument":{}}`,
	} {
		before := len(up.heard(method))
		a := f.RPC("/mcp", bearer, method, params)
		if m := parse(t, a); m.Error == nil || wrong(a) != "RESOURCE_UNKNOWN" || len(up.heard(method)) != before || !strings.HasSuffix(f.lastEvent(), " denied") {
			t.Errorf("%s %s: %s, recorded %q", method, params, a.Text, f.lastEvent())
		}
	}
	if a := f.RPC("/mcp", bearer, "resources/read", `{"uri":"x://y"}`); parse(t, a).Error.Code != mcp.ResourceNotFound {
		t.Errorf("a resource that nobody has: %s", a.Text)
	}
}

// Two servers that list the same resource: the first by name has it, and the same
// one each time.
func TestResourceOfTwoServers(t *testing.T) {
	f := start(t)
	up, other := f.withFull(), newFull(t)
	if a := f.Admin("add_server", `{"name":"another","url":"`+other.URL+`"}`); a.StatusCode != http.StatusOK {
		t.Fatal(a.Text)
	}
	for range 3 {
		f.RPC("/mcp", f.dev("mcp:read"), "resources/read", `{"uri":"doc://one"}`)
	}
	if len(other.heard("resources/read")) != 3 || len(up.heard("resources/read")) != 0 {
		t.Errorf("another was asked %d times, full %d times", len(other.heard("resources/read")), len(up.heard("resources/read")))
	}
	f.RPC("/mcp", f.dev("full:read"), "resources/read", `{"uri":"doc://one"}`) // who may not read from the first reads from the second
	if len(up.heard("resources/read")) != 1 {
		t.Error("the server that the caller may read from was not asked")
	}
}

// R704: without the scope lists are empty and nothing else is read; the server
// hears nothing of it. A refusal is recorded.
func TestReadingNeedsTheScope(t *testing.T) {
	f := start(t)
	up := f.withFull()
	for path, bearer := range map[string]string{atFull: f.at(atFull, "fix:read"), "/mcp": f.dev("fix:admin")} {
		session, _ := f.open(path, bearer, "{}")
		before := len(up.received)
		for method, want := range map[string]string{
			"resources/list": `{"resources":[]}`, "resources/templates/list": `{"resourceTemplates":[]}`, "prompts/list": `{"prompts":[]}`,
		} {
			if m := parse(t, f.RPC(path, bearer, method, "", inSession(session))); string(m.Result) != want {
				t.Errorf("%s at %s: %s %+v", method, path, m.Result, m.Error)
			}
		}
		for method, params := range map[string]string{
			"resources/read": `{"uri":"doc://one"}`, "resources/subscribe": `{"uri":"doc://one"}`, "resources/unsubscribe": `{"uri":"doc://one"}`,
			"prompts/get":         `{"name":"` + strings.TrimPrefix("full_greet", map[string]string{atFull: "full_", "/mcp": ""}[path]) + `"}`,
			"completion/complete": `{"ref":{"type":"ref/resource","uri":"doc://one"},"argument":{"name":"a","value":""}}`,
		} {
			events := f.count("audit_event")
			a := f.RPC(path, bearer, method, params, inSession(session))
			if path == atFull && (a.StatusCode != http.StatusForbidden || !strings.Contains(challenge(t, a)["scope"], "full:read")) || parse(t, a).Error == nil {
				t.Errorf("%s at %s: %d %s", method, path, a.StatusCode, a.Text)
			}
			if n := f.count("audit_event") - events; n != 1 || !strings.HasSuffix(f.lastEvent(), "denied") {
				t.Errorf("%s at %s left %d events, the last is %q", method, path, n, f.lastEvent())
			}
		}
		if n := len(up.received) - before; n != 0 {
			t.Errorf("at %s the server was sent %d messages", path, n)
		}
	}
}

// What is decided about is what the server carries out, as with tools.
func TestUnclearReadingIsRefused(t *testing.T) {
	f := start(t)
	up := f.withFull()
	bearer := f.at(atFull, "full:read")
	for _, tt := range []struct{ method, params string }{
		{"resources/read", `{}`}, {"resources/read", `{"uri":1}`}, {"resources/read", `{"uri":""}`}, {"resources/read", `{"uri":"a","URI":"b"}`},
		{"resources/read", `{"uri":"` + strings.Repeat("x", 3000) + `"}`},
		{"prompts/get", `{"name":"a","Name":"b"}`}, {"prompts/get", `{"name":"a","Arguments":{}}`},
		{"completion/complete", `{}`}, {"completion/complete", `{"ref":{"type":"ref/none"}}`},
		{"completion/complete", `{"ref":{"type":"ref/prompt","name":"a","NAME":"b"}}`}, {"completion/complete", `{"ref":{"type":"ref/prompt","name":"a"},"Ref":{}}`},
		{"logging/setLevel", `{"level":"loud"}`}, {"logging/setLevel", `{"level":"info"}`}, // without a session
		{"resources/subscribe", `{"uri":"doc://one"}`}, {"resources/unsubscribe", `{"uri":"doc://one"}`},
	} {
		a := f.RPC(atFull, bearer, tt.method, tt.params)
		if m := parse(t, a); m.Error == nil || m.Error.Code != mcp.InvalidParams && m.Error.Code != mcp.InvalidRequest {
			t.Errorf("%s %.60s: %.200s", tt.method, tt.params, a.Text)
		}
		if n := len(up.heard(tt.method)); n != 0 {
			t.Errorf("%s %.60s was passed on", tt.method, tt.params)
		}
	}
	for _, method := range []string{"resources/list", "resources/read", "prompts/get", "completion/complete", "logging/setLevel"} {
		a := f.RPC("/s/gatehouse/mcp", f.at("/s/gatehouse/mcp", "mcp:admin"), method, `{"uri":"a","name":"a"}`)
		if m := parse(t, a); m.Error == nil || m.Error.Code != mcp.MethodNotFound {
			t.Errorf("%s at the control plane: %s", method, a.Text)
		}
	}
}

// Whoever is not there any more is missing in the lists of the common endpoint;
// the others are there.
func TestServerThatIsDownIsMissingInLists(t *testing.T) {
	f := start(t)
	up, other := f.withFull(), newFull(t)
	if a := f.Admin("add_server", `{"name":"another","url":"`+other.URL+`"}`); a.StatusCode != http.StatusOK {
		t.Fatal(a.Text)
	}
	other.CloseClientConnections()
	other.Close()
	if m := parse(t, f.RPC("/mcp", f.dev("mcp:read"), "prompts/list", "")); !strings.Contains(string(m.Result), "full_greet") || strings.Contains(string(m.Result), "another_greet") {
		t.Errorf("%s %+v", m.Result, m.Error)
	}
	if m := parse(t, f.RPC("/mcp", f.dev("mcp:read"), "resources/read", `{"uri":"doc://one"}`)); m.Error != nil || len(up.heard("resources/read")) != 1 {
		t.Errorf("%+v", m.Error)
	}
}

// A server whose lists have no end, or no measure, costs the others neither memory nor
// their place.
func TestListsOfOneServerAreBounded(t *testing.T) {
	f := start(t)
	f.withFull()
	rude := newFull(t)
	page := `{"prompts":[{"name":"big","description":"` + strings.Repeat("x", 4<<20) + `"}],"nextCursor":"more"}`
	rude.answer("prompts/list", func(w http.ResponseWriter, _ *http.Request, m mcp.Message) { apptest.Reply(w, m, page) })
	if a := f.Admin("add_server", `{"name":"rude","url":"`+rude.URL+`"}`); a.StatusCode != http.StatusOK {
		t.Fatal(a.Text)
	}
	m := parse(t, f.RPC("/mcp", f.dev("mcp:read"), "prompts/list", ""))
	if n := len(rude.heard("prompts/list")); n > 5 || len(m.Result) > 24<<20 || !strings.Contains(string(m.Result), "full_greet") {
		t.Errorf("%d pages were read, and %d bytes passed on: %.200s", n, len(m.Result), m.Result)
	}
}
