package app_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

var aRef = regexp.MustCompile(`req_[0-9A-Z]{26}`)

// line is what the log says about the request with a reference; nil if nothing.
func line(t *testing.T, h *apptest.House, ref string) map[string]any {
	t.Helper()
	for range 200 { // it is written after the answer
		for text := range strings.SplitSeq(h.Log.String(), "\n") {
			if strings.Contains(text, `"msg":"request"`) && strings.Contains(text, ref) {
				var fields map[string]any
				if err := json.Unmarshal([]byte(text), &fields); err != nil {
					t.Fatal(err, text)
				}
				return fields
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the log has no line of %s", ref)
	return nil
}

// ux.md §11: one reference, the same on the page, in the error, in the challenge,
// in the header, in the log and in the audit event; and it is ours whatever the
// caller sends.
func TestOneReferenceEverywhere(t *testing.T) {
	h := apptest.Start(t, apptest.Dev)
	tokens, client := h.Token("mcp:read", "")
	bearer := "Authorization: Bearer " + tokens.AccessToken
	const foreign = "req_01ARZ3NDEKTSV4RRFFQ69G5FAV"
	theirs := []string{"X-Request-Id: " + foreign, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	for name, tt := range map[string]struct {
		answer apptest.Answer
		status int
		where  string // in the answer, beside the header: body, challenge or nothing
		said   map[string]any
	}{
		"page":        {h.Get("/", theirs...), 200, "body", map[string]any{"route": "GET /{$}"}},
		"error page":  {h.Get("/nowhere?token=x", theirs...), 404, "body", map[string]any{"route": "other", "code": "PAGE_UNKNOWN"}},
		"OAuth error": {h.Form("/oauth/token", url.Values{"grant_type": {"x"}, "client_id": {client}}, theirs...), 400, "body", map[string]any{"code": "unsupported_grant_type"}},
		"REST error": {h.PostJSON("/mcp/tool/nosuch", "{}", append(theirs, bearer)...), 404, "body",
			map[string]any{"route": "POST /mcp/tool/{name}", "call": "nosuch", "code": "TOOL_UNKNOWN", "client": client}},
		"REST challenge": {h.PostJSON("/mcp/tool/whoami", "{}", theirs...), 401, "challenge", map[string]any{"code": "SIGN_IN_NEEDED"}},
		"MCP challenge":  {h.RPC("/mcp", "", "tools/list", "", theirs...), 401, "challenge", map[string]any{"code": "TOKEN_MISSING", "call": "tools/list"}},
		"MCP bad token":  {h.RPC("/mcp", "nonsense", "tools/list", "", theirs...), 401, "challenge", map[string]any{"code": "TOKEN_INVALID"}},
		"MCP error": {h.RPC("/mcp", tokens.AccessToken, "tools/call", `{"name":"nosuch"}`, theirs...), 200, "body",
			map[string]any{"code": "TOOL_UNKNOWN", "call": "tools/call nosuch", "client": client}},
		"tool error": {h.RPC("/mcp", tokens.AccessToken, "tools/call", `{"name":"echo","arguments":{"message":7}}`, theirs...), 200, "body", map[string]any{"code": "ARGUMENTS_INVALID"}},
		"MCP answer": {h.RPC("/mcp", tokens.AccessToken, "tools/call", `{"name":"whoami"}`, theirs...), 200, "", map[string]any{"call": "tools/call whoami", "principal": "member:dev"}},
		"metadata":   {h.Get("/.well-known/oauth-authorization-server", theirs...), 200, "", nil},
		"asset":      {h.Get("/assets/none", theirs...), 404, "", nil},
		"somebody else's": {func() apptest.Answer {
			r := h.Request("GET", "/", "", theirs...)
			r.Host = "evil.example"
			return h.Do(r)
		}(), 421, "", map[string]any{"route": "other"}},
	} {
		ref := tt.answer.Header.Get(app.RequestID)
		if tt.answer.StatusCode != tt.status || !aRef.MatchString(ref) || strings.Contains(tt.answer.Text, foreign) || ref == foreign {
			t.Errorf("%s: %d, reference %q: %s", name, tt.answer.StatusCode, ref, tt.answer.Text)
			continue
		}
		place := map[string]string{"body": tt.answer.Text, "challenge": tt.answer.Header.Get("WWW-Authenticate"), "": ref}[tt.where]
		if !strings.Contains(place, ref) {
			t.Errorf("%s: %s is not in %s: %s", name, ref, tt.where, place)
		}
		said := line(t, h, ref)
		for field, want := range tt.said {
			got, _ := said[field].(string)
			if field == "principal" && strings.HasPrefix(got, "member:") {
				continue
			}
			if got != want {
				t.Errorf("%s: the log says %s=%v, not %v: %v", name, field, said[field], want, said)
			}
		}
		if said["status"] != float64(tt.status) || said["from"] == "" {
			t.Errorf("%s: the log says %v", name, said)
		}
	}
	refused := h.RPC("/mcp", tokens.AccessToken, "tools/call", `{"name":"nosuch"}`)
	if events := h.Admin("list_audit_events", `{}`); !strings.Contains(events.Text, refused.Header.Get(app.RequestID)) {
		t.Error("the audit event has another reference")
	}
	if log := h.Log.String(); strings.Contains(log, tokens.AccessToken) || strings.Contains(log, "token=x") || strings.Contains(log, foreign) {
		t.Errorf("the log tells too much: %s", log)
	}
}

// All steps of an authorization have the reference of the first.
func TestAuthorizationKeepsItsReference(t *testing.T) {
	apptest.OnEach(t, keepsItsReference)
}

func keepsItsReference(t *testing.T, h *apptest.House) {
	b := h.Browser()
	b.SetUp()
	client := h.Register()
	query, verifier := h.Authorization(client, nil)
	question := b.Open("/oauth/authorize?" + query.Encode())
	form := apptest.Fields(question.Text)
	form.Set("decision", "allow")
	form.Set("started", "yes")
	ref := question.Header.Get(app.RequestID)
	if !strings.Contains(question.Text, ref) || question.StatusCode != http.StatusOK {
		t.Fatalf("%d, %q is not on the page", question.StatusCode, ref)
	}
	again := b.Open("/consent/" + form.Get("request"))
	if got := again.Header.Get(app.RequestID); got != ref || !strings.Contains(again.Text, ref) {
		t.Errorf("the question, looked at again: %s, not %s", got, ref)
	}
	signIn := b.Open("/login?switch=1&flow=" + form.Get("request"))
	if got := signIn.Header.Get(app.RequestID); got != ref || !strings.Contains(signIn.Text, ref) {
		t.Errorf("the sign-in that it waits for: %s, not %s", got, ref)
	}
	back := b.Submit("/consent", form)
	target := apptest.Target(back.Text)
	if target == nil || back.Header.Get(app.RequestID) != ref || !strings.Contains(back.Text, ref) {
		t.Fatalf("the way back: %v, %s", back.Header, back.Text)
	}
	code := target.Query().Get("code")
	redeemed := h.Redeem(client, code, verifier, nil)
	if got := redeemed.Header.Get(app.RequestID); got != ref || redeemed.StatusCode != http.StatusOK {
		t.Errorf("the token: %d, %s, not %s", redeemed.StatusCode, got, ref)
	}
	if said := line(t, h, "/oauth/token"); said["ref"] != ref || said["client"] != client {
		t.Errorf("the log says %v", said)
	}
	if a := h.Admin("get_trace", `{"ref":"`+ref+`"}`); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, `"consent"`) ||
		!strings.Contains(a.Text, `"token.issue"`) || strings.Contains(a.Text, "unused") || strings.Contains(a.Text, code) {
		t.Errorf("its trace: %d %s", a.StatusCode, a.Text)
	}
	h.SQL(`UPDATE audit_event SET time_us = time_us - 120000000`)
	if a := h.Admin("get_trace", `{"ref":"`+ref+`"}`); !strings.Contains(a.Text, `"unused_tokens":["at_`) {
		t.Errorf("a token that nobody used: %s", a.Text)
	}
	if a := h.Admin("get_trace", `{"ref":"req_01ARZ3NDEKTSV4RRFFQ69G5FAV"}`); a.StatusCode != http.StatusNotFound {
		t.Errorf("a trace of nothing: %d %s", a.StatusCode, a.Text)
	}
	if used := h.Redeem(client, code, verifier, nil); used.Header.Get(app.RequestID) != ref || !strings.Contains(used.Text, ref) {
		t.Errorf("a used code: %v %s", used.Header, used.Text)
	}
}
