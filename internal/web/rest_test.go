package web_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// tool calls a tool over REST.
func (h house) tool(token, name, body string, headers ...string) apptest.Answer {
	h.t.Helper()
	if token != "" {
		headers = append(headers, "Authorization: Bearer "+token)
	}
	return h.PostJSON("/mcp/tool/"+name, body, headers...)
}

// fault is the code of a refusal, whose form is checked.
func fault(t *testing.T, a apptest.Answer) string {
	t.Helper()
	var body struct{ Error problem.Wire }
	a.JSON(t, &body)
	e := body.Error
	if e.Status != a.StatusCode && a.StatusCode != http.StatusRequestEntityTooLarge || !strings.HasPrefix(e.Ref, "req_") || e.Message == "" {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	json(t, a)
	return e.Code
}

func json(t *testing.T, a apptest.Answer) {
	t.Helper()
	for header, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := a.Header.Get(header); got != want {
			t.Errorf("%s is %q", header, got)
		}
	}
}

// R730, R704: the list is what the caller could call, and needs a caller.
func TestRESTLists(t *testing.T) {
	h := start(t, apptest.Dev)
	h.Add("fixture", apptest.NewUpstream(t))
	tokens, _ := h.Token("mcp:admin", "")
	var list struct {
		Tools []struct{ Name string }
		Total int
		Tier  string `json:"user_tier"`
	}
	a := h.Get("/mcp/tools", "Authorization: Bearer "+tokens.AccessToken)
	a.JSON(t, &list)
	json(t, a)
	var names []string
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	if a.StatusCode != http.StatusOK || list.Total != len(names) || list.Tier != "owner" || !slices.IsSorted(names) || !slices.Contains(names, "echo") || !slices.Contains(names, "verify_audit_chain") {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	for _, name := range names { // each can be called under the name it is listed by
		if a := h.PostJSON("/mcp/tool/"+name, "{}", "Authorization: Bearer "+tokens.AccessToken); a.StatusCode == http.StatusNotFound {
			t.Errorf("%s is listed and unknown", name)
		}
	}
	for _, direct := range []string{"add_server", "remove_server"} {
		if slices.Contains(names, direct) {
			t.Errorf("%s is listed for an app", direct)
		}
	}
	for name, headers := range map[string][]string{
		"nobody":           nil,
		"a bent token":     {"Authorization: Bearer " + tokens.AccessToken + "x"},
		"a cookie":         {"Cookie: __Host-gatehouse-session=" + tokens.AccessToken},
		"a query is no id": {"X-Token: " + tokens.AccessToken},
	} {
		a := h.Get("/mcp/tools?token="+tokens.AccessToken, headers...)
		challenge := a.Header.Get("WWW-Authenticate")
		if code := fault(t, a); a.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(code, "TOKEN_") || !strings.Contains(challenge, `resource_metadata="`+h.URL+`/.well-known/oauth-protected-resource/mcp"`) {
			t.Errorf("%s: %d %s %s", name, a.StatusCode, challenge, a.Text)
		}
		if strings.Contains(challenge, "error=") != (name == "a bent token") { // RFC 6750 §3.1
			t.Errorf("%s: %s", name, challenge)
		}
	}
}

// R731: each fault has its status and its code.
func TestRESTCalls(t *testing.T) {
	h := start(t, apptest.Dev)
	tokens, _ := h.Token("mcp:admin", "")
	narrow, _ := h.Token("audit:read", "")
	all, audit := tokens.AccessToken, narrow.AccessToken
	for name, row := range map[string]struct {
		token, tool, body string
		headers           []string
		status            int
		code              string
	}{
		"a call":                        {all, "echo", `{"message":"hi"}`, nil, 200, ""},
		"blanks around it":              {all, "echo", " \n{\"message\":\"hi\"}\n", nil, 200, ""},
		"no arguments where none are":   {all, "whoami", ``, nil, 200, ""},
		"R516: anyone's tool":           {"", "public_info", `{}`, nil, 200, ""},
		"R508: a scope that covers it":  {audit, "get_audit_chain_head", `{}`, nil, 200, ""},
		"R516: nobody":                  {"", "echo", `{"message":"hi"}`, nil, 401, "SIGN_IN_NEEDED"},
		"nobody, no tool":               {"", "no_such_tool", `{}`, nil, 401, "SIGN_IN_NEEDED"},
		"a bent token":                  {all + "x", "echo", `{"message":"hi"}`, nil, 401, "TOKEN_INVALID"},
		"a bent token, anyone's tool":   {all + "x", "public_info", `{}`, nil, 401, "TOKEN_INVALID"},
		"no tool":                       {all, "no_such_tool", `{}`, nil, 404, "TOOL_UNKNOWN"},
		"no tool, odd name":             {all, "%2e%2e%2fecho", `{}`, nil, 404, "TOOL_UNKNOWN"},
		"no tool, a NUL":                {all, "%00", `{}`, nil, 404, "TOOL_UNKNOWN"},
		"no tool, no text":              {all, "%ff", `{}`, nil, 404, "TOOL_UNKNOWN"},
		"no tool, a long name":          {all, strings.Repeat("x", 10_000), `{}`, nil, 404, "TOOL_UNKNOWN"},
		"an app adds no servers":        {all, "add_server", `{"name":"x","url":"https://b.example"}`, nil, 403, "DIRECT_ONLY"},
		"not an object":                 {all, "echo", `["hi"]`, nil, 400, "BODY_UNREADABLE"},
		"null":                          {all, "echo", `null`, nil, 400, "BODY_UNREADABLE"},
		"cut off":                       {all, "echo", `{"message":"hi"`, nil, 400, "BODY_UNREADABLE"},
		"two objects":                   {all, "echo", `{"message":"hi"}{}`, nil, 400, "BODY_UNREADABLE"},
		"a member twice":                {all, "echo", `{"message":"hi","message":"ho"}`, nil, 400, "BODY_UNREADABLE"},
		"a member twice, spelt apart":   {all, "echo", `{"message":"hi","m\u0065ssage":"ho"}`, nil, 400, "BODY_UNREADABLE"},
		"a member twice, deep inside":   {all, "echo", `{"message":"hi","x":[{"a":{"b":1,"b":2}}]}`, nil, 400, "BODY_UNREADABLE"},
		"not UTF-8":                     {all, "echo", "{\"message\":\"\xff\"}", nil, 400, "BODY_UNREADABLE"},
		"nested too deep":               {all, "echo", `{"message":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, nil, 400, "BODY_UNREADABLE"},
		"a huge number":                 {all, "echo", `{"message":1e999999}`, nil, 400, "ARGUMENTS_INVALID"},
		"over 4 MiB":                    {all, "echo", `{"message":"` + strings.Repeat("x", 4<<20) + `"}`, nil, 413, "BODY_UNREADABLE"},
		"a member is missing":           {all, "echo", `{}`, nil, 400, "*"},
		"a member of the wrong type":    {all, "echo", `{"message":1}`, nil, 400, "*"},
		"a member nobody knows":         {all, "echo", `{"message":"hi","x":1}`, nil, 400, "*"},
		"R520: an identity as argument": {all, "whoami", `{"user":"usr_x"}`, nil, 400, "*"},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.tool(row.token, row.tool, row.body, row.headers...)
			if a.StatusCode != row.status {
				t.Fatalf("%d %.500s", a.StatusCode, a.Text)
			}
			if row.code == "" {
				json(t, a)
			} else if code := fault(t, a); row.code != "*" && code != row.code {
				t.Errorf("code %s", code)
			}
			if challenged := a.Header.Get("WWW-Authenticate") != ""; challenged != (row.status == http.StatusUnauthorized) {
				t.Errorf("challenge %q", a.Header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Run("C18: a scope would cure it", func(t *testing.T) {
		a := h.tool(audit, "add_server", `{}`)
		challenge := a.Header.Get("WWW-Authenticate")
		if code := fault(t, a); a.StatusCode != http.StatusForbidden || code != "SCOPE_REQUIRED" || !strings.Contains(challenge, `error="insufficient_scope"`) || !strings.Contains(challenge, "audit:read ") {
			t.Errorf("%d %s %s", a.StatusCode, challenge, a.Text)
		}
	})
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"} {
		t.Run("content type "+media, func(t *testing.T) {
			a := h.Do(h.Request(http.MethodPost, "/mcp/tool/echo", `{"message":"hi"}`, "Content-Type: "+media, "Authorization: Bearer "+all))
			if code := fault(t, a); a.StatusCode != http.StatusBadRequest || code != "BODY_UNREADABLE" {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		})
	}
	if strings.Contains(h.Log.String(), "request failed") {
		t.Errorf("something failed inside:\n%s", h.Log)
	}
}

// Names that are no text are unknown tools on both engines, and on record.
func TestOddNamesAreRecorded(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		tokens, _ := h.Token("", "")
		for _, name := range []string{"%00", "%ff%fe", strings.Repeat("x", 10_000)} {
			if a := h.tool(tokens.AccessToken, name, `{}`); a.StatusCode != http.StatusNotFound {
				t.Errorf("%.20s: %d %s", name, a.StatusCode, a.Text)
			}
		}
		if strings.Contains(h.Log.String(), strings.Repeat("x", 200)) { // or anybody could fill the disk with it
			t.Error("a name is logged at any length")
		}
		if n := h.Count(`SELECT count(*) FROM audit_event WHERE code = 'TOOL_UNKNOWN' AND outcome = 'denied'`); n != 3 {
			t.Errorf("%d events", n)
		}
	}, apptest.Dev)
}

// A stranger, who can call little, may send little.
func TestStrangersSendLittle(t *testing.T) {
	h := start(t, apptest.Dev)
	if a := h.tool("", "public_info", `{"x":"`+strings.Repeat("x", 64<<10)+`"}`); a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
}

// A page of another site cannot use a person's session for REST: there is none.
func TestRESTTakesNoCookies(t *testing.T) {
	h := start(t)
	b := h.Browser()
	b.SetUp()
	for _, path := range []string{"/mcp/tool/whoami", "/mcp/tool/echo", "/mcp"} {
		if a := h.post(b, path, url.Values{}); a.StatusCode != http.StatusUnauthorized && a.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
		}
	}
	r := h.Request(http.MethodOptions, "/mcp/tool/echo", "", "Origin: https://evil.example", "Access-Control-Request-Method: POST")
	for header := range h.Do(r).Header {
		if strings.HasPrefix(header, "Access-Control-") {
			t.Errorf("%s is answered to every origin", header)
		}
	}
}

// The admin socket is REST as the local owner; it has no pages and no OAuth.
func TestTheSocketIsTheOwner(t *testing.T) {
	h := start(t)
	if a := h.Admin("whoami", `{}`); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, `"owner"`) || !strings.Contains(a.Text, `"local"`) {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if a := h.Admin("no_such_tool", `{}`); a.StatusCode != http.StatusNotFound || fault(t, a) != "TOOL_UNKNOWN" {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	for _, path := range []string{"../../login", "../../oauth/token", "../../mcp"} {
		if a := h.Admin(path, `{}`); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
		}
	}
}

// R1314, attack 125: strangers are limited at this door as at that of MCP, and counted
// together; with a good token nobody is.
func TestStrangersAreLimitedOverREST(t *testing.T) {
	h := start(t, apptest.Dev, func(c *app.Config) { c.StrangerLimit = throttle.Limit{Each: 9, Per: 24 * time.Hour} })
	tokens, _ := h.Token("mcp:tools", "")
	for range 3 {
		if a := h.tool("", "public_info", `{}`); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if a := h.tool("eyJ.x.y", "echo", `{"message":"hi"}`); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if a := h.RPC("/mcp", "", "initialize", "{}"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
	for name, a := range map[string]apptest.Answer{
		"anyone's tool": h.tool("", "public_info", `{}`), "a bent token": h.tool("eyJ.x.y", "echo", `{}`), "the list": h.Get("/mcp/tools"),
	} {
		if code := fault(t, a); a.StatusCode != http.StatusTooManyRequests || code != "TOO_OFTEN" || a.Header.Get("Retry-After") == "" || a.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %d %v %s", name, a.StatusCode, a.Header, a.Text)
		}
	}
	for range 20 {
		if a := h.tool(tokens.AccessToken, "public_info", `{}`); a.StatusCode != http.StatusOK {
			t.Fatalf("with a token: %d %s", a.StatusCode, a.Text)
		}
	}
}
