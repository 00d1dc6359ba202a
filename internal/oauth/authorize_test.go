package oauth

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
)

const goodChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // RFC 7636 appendix B

func goodQuery() url.Values {
	return url.Values{
		"client_id": {"c1"}, "redirect_uri": {"http://127.0.0.1/cb"}, "response_type": {"code"}, "state": {"a b&c=d"},
		"code_challenge": {goodChallenge}, "code_challenge_method": {"S256"},
		"scope": {"mcp:read billing:write mcp:read"}, "resource": {"https://gw.example/mcp", "https://gw.example/s/a/mcp"}, "prompt": {"consent"},
	}
}

// R301, R312: everything a client asks for is read, the state as it is.
func TestAuthorizeRequestIsRead(t *testing.T) {
	q := goodQuery()
	q.Set("max_age", "3600")
	q.Set("login_hint", "dana@acme.example")
	hour := uint64(3600)
	got, err := ParseAuthorize(q)
	if err != nil {
		t.Fatal(err)
	}
	want := AuthorizeRequest{
		ClientID: "c1", RedirectURI: "http://127.0.0.1/cb", ResponseType: "code", State: "a b&c=d", Challenge: goodChallenge,
		Scopes: []string{"mcp:read", "billing:write"}, Resources: []string{"https://gw.example/mcp", "https://gw.example/s/a/mcp"}, Prompt: "consent",
		MaxAge: &hour, LoginHint: "dana@acme.example",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The rows of the attack catalogue that a parser can decide: 12, 14, 15, 18,
// 19, 74; and C08, C13, RFC 6749 §3.1 on the lenient side.
func TestAuthorizeRequestIsJudged(t *testing.T) {
	set := func(name string, values ...string) func(url.Values) {
		return func(q url.Values) { q[name] = values }
	}
	tests := []struct {
		name         string
		change       func(url.Values)
		want         string // error code; "" is accepted
		unanswerable bool
	}{
		{"as it should be", func(url.Values) {}, "", false},
		{"no response_type (C08)", set("response_type"), "", false},
		{"empty response_type", set("response_type", ""), "", false},
		{"no state (R313)", set("state"), "", false},
		{"no scope", set("scope"), "", false},
		{"no resource (C13)", set("resource"), "", false},
		{"unknown parameter", set("audience", "x"), "", false},
		{"max_age", set("max_age", "3600"), "", false},
		{"max_age=0", set("max_age", "0"), "", false},
		{"empty max_age", set("max_age", ""), "", false},
		{"response_mode query", set("response_mode", "query"), "", false},
		{"state of 1024 bytes", set("state", strings.Repeat("s", 1024)), "", false},

		{"no client_id", set("client_id"), InvalidRequest, true},
		{"no redirect_uri", set("redirect_uri"), InvalidRequest, true},
		{"client_id twice", set("client_id", "c1", "c1"), InvalidRequest, true},
		{"redirect_uri twice", set("redirect_uri", "http://127.0.0.1/cb", "https://evil.example"), InvalidRequest, true},
		{"client_id with NUL", set("client_id", "c\x00"), InvalidRequest, true},
		{"state of 1025 bytes", set("state", strings.Repeat("s", 1025)), InvalidRequest, true},
		{"state with NUL", set("state", "a\x00"), InvalidRequest, true},
		{"state not UTF-8", set("state", "\xff"), InvalidRequest, true},

		{"state twice", set("state", "a", "b"), InvalidRequest, false},
		{"scope twice", set("scope", "a", "b"), InvalidRequest, false},
		{"unknown parameter twice", set("x", "a", "b"), InvalidRequest, false},
		{"prompt not UTF-8", set("prompt", "\xc3("), InvalidRequest, false},
		{"name with NUL", set("a\x00b", "x"), InvalidRequest, false},
		{"request object", set("request", "eyJ"), RequestNotSupported, false},
		{"request_uri", set("request_uri", "https://evil.example/r"), RequestURINotSupported, false},
		{"response_type token", set("response_type", "token"), UnsupportedResponseType, false},
		{"response_type code token", set("response_type", "code token"), UnsupportedResponseType, false},
		{"response_mode form_post", set("response_mode", "form_post"), InvalidRequest, false},
		{"response_mode fragment", set("response_mode", "fragment"), InvalidRequest, false},
		{"max_age below zero", set("max_age", "-1"), InvalidRequest, false},
		{"max_age no number", set("max_age", "1h"), InvalidRequest, false},
		{"max_age beyond a lifetime", set("max_age", "99999999999999999999"), InvalidRequest, false},
		{"no challenge", set("code_challenge"), InvalidRequest, false},
		{"no challenge method", set("code_challenge_method"), InvalidRequest, false},
		{"empty challenge method", set("code_challenge_method", ""), InvalidRequest, false},
		{"plain challenge", set("code_challenge_method", "plain"), InvalidRequest, false},
		{"s256", set("code_challenge_method", "s256"), InvalidRequest, false},
		{"challenge of 42", set("code_challenge", goodChallenge[1:]), InvalidRequest, false},
		{"challenge of 44", set("code_challenge", goodChallenge+"="), InvalidRequest, false},
		{"challenge in base64", set("code_challenge", "+"+goodChallenge[1:]), InvalidRequest, false},
		{"scope with quote", set("scope", `a "b`), InvalidScope, false},
		{"scope with backslash", set("scope", `a\b`), InvalidScope, false},
		{"scope with tab", set("scope", "a\tb"), InvalidScope, false},
		{"scope not ASCII", set("scope", "é"), InvalidScope, false},
		{"resource relative", set("resource", "/mcp"), InvalidTarget, false},
		{"resource with fragment", set("resource", "https://gw.example/mcp#x"), InvalidTarget, false},
		{"resource with script", set("resource", "javascript:alert(1)"), InvalidTarget, false},
		{"second resource bad", set("resource", "https://gw.example/mcp", "x"), InvalidTarget, false},
	}
	for _, tt := range tests {
		q := goodQuery()
		tt.change(q)
		got, err := ParseAuthorize(q)
		if code := codeOf(err); code != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, code, tt.want)
		}
		if got.Unanswerable != tt.unanswerable {
			t.Errorf("%s: unanswerable is %v", tt.name, got.Unanswerable)
		}
		if !tt.unanswerable && (got.ClientID != "c1" || got.RedirectURI == "" || got.State != q.Get("state")) {
			t.Errorf("%s: the way back is lost: %+v", tt.name, got)
		}
	}
}

func codeOf(err *Error) string {
	if err == nil {
		return ""
	}
	return err.Code
}

// A fault that must be shown on a page wins over one that may be redirected
// (attack 10).
func TestUnanswerableWinsOverOtherFaults(t *testing.T) {
	q := goodQuery()
	q["redirect_uri"] = []string{"a", "b"}
	q.Set("response_type", "token")
	q.Set("request", "x")
	if got, err := ParseAuthorize(q); err == nil || !got.Unanswerable {
		t.Errorf("answerable: %+v, %v", got, err)
	}
}

func TestErrorKeepsItsStatusAndItsAlphabet(t *testing.T) {
	for code, want := range map[string]int{
		InvalidRequest: 400, InvalidClient: 401, InvalidToken: 401, InsufficientScope: 403, AccessDenied: 403,
		ServerError: 500, TemporarilyUnavailable: 503, InvalidGrant: 400,
	} {
		if got := Errorf(code, "x").Status; got != want {
			t.Errorf("%s has status %d, want %d", code, got, want)
		}
	}
	if got := Errorf(InvalidRequest, "%s", "a\"b\\c\r\nd\x7fé").Description; got != "a'b/c??d??" {
		t.Errorf("description is %q", got)
	}
}

func FuzzParseAuthorize(f *testing.F) {
	f.Add(goodQuery().Encode())
	f.Add("client_id=a&client_id=b&state=%00")
	f.Add("client_id=a&redirect_uri=b&resource=%zz&scope=%22")
	f.Add("response_type=code&request=x;y=z")
	f.Fuzz(func(t *testing.T, raw string) {
		q, _ := url.ParseQuery(raw)
		got, err := ParseAuthorize(q)
		if err == nil && (got.Unanswerable || got.ClientID == "" || got.RedirectURI == "" || len(got.Challenge) != challengeLen || got.ResponseType != "code") {
			t.Errorf("accepted %q as %+v", raw, got)
		}
		if err != nil && (err.Code == "" || err.Status < 400 || err.Description != plain(err.Description)) {
			t.Errorf("%q: bad error %+v", raw, err)
		}
		if !got.Unanswerable && got.State != q.Get("state") {
			t.Errorf("%q: state changed to %q", raw, got.State)
		}
	})
}
