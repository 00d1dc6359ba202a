package views

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// Places are named in words first, then exactly.
func TestTargetSaysWhereItLeads(t *testing.T) {
	tests := []struct {
		uri, place, exact string
		local             bool
	}{
		{"http://127.0.0.1:43112/callback?code=1", "A program on this computer", "127.0.0.1, port 43112", true},
		{"http://localhost:3001/", "A program on this computer", "localhost, port 3001", true},
		{"http://[::1]:8080/cb", "A program on this computer", "::1, port 8080", true},
		{"http://localhost/cb", "A program on this computer", "localhost:80", true},
		{"cursor://anysphere.cursor-mcp/oauth/callback?code=1", "An app on this computer", "cursor://anysphere.cursor-mcp/oauth/callback", true},
		{"com.example.app:/cb", "An app on this computer", "com.example.app:/cb", true},
		{"https://app.example.net/oauth/cb?x=1", "app.example.net", "https://app.example.net/oauth/cb", false},
		{"https://localhost.evil.example/", "localhost.evil.example", "https://localhost.evil.example/", false},
		{"https://127.0.0.1.evil.example/", "127.0.0.1.evil.example", "https://127.0.0.1.evil.example/", false},
		{"https://app.example.net:8443/", "app.example.net:8443", "https://app.example.net:8443/", false},
	}
	for _, tt := range tests {
		to := target(t, tt.uri)
		if to.Place() != tt.place || to.Exact() != tt.exact || to.Local() != tt.local {
			t.Errorf("%s: %q, %q, local %v", tt.uri, to.Place(), to.Exact(), to.Local())
		}
	}
}

// The page engine is told to trust a target, so a target is never one that runs
// or reads something.
func TestTargetRefusesWhatIsNoPlace(t *testing.T) {
	for _, uri := range []string{
		"javascript:alert(1)", "JavaScript:alert(1)", "javascript://x/%0aalert(1)", " javascript:alert(1)", "java\tscript:alert(1)",
		"data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://a.example/1", "filesystem:https://a.example/", "about:blank", "view-source:https://a.example/",
		"", "/callback", "//evil.example/", "callback", "https:", "https:///x", "http:opaque",
		"https://accounts.example@evil.example/", "https://evil.example/\u202e", "https://ex\u0430mple.net/", "https://a.example/\nx", "%zz:",
	} {
		if to, err := NewTarget(uri); err == nil {
			t.Errorf("%q was taken as %q", uri, to.Text())
		}
	}
}

// App links must survive the page engine, in the refresh and in the link.
func TestHandBackKeepsTheAddress(t *testing.T) {
	for _, uri := range []string{
		"http://127.0.0.1:43112/callback?code=a&state=b",
		"https://app.example.net/cb?code=a",
		"cursor://anysphere.cursor-mcp/oauth/callback?code=a",
		"com.example.app:/cb?code=a",
	} {
		w := httptest.NewRecorder()
		if err := HandBack(w, 200, HandBackView{Client: Client{Target: target(t, uri)}, First: true}); err != nil {
			t.Fatal(err)
		}
		html := strings.ReplaceAll(w.Body.String(), "&amp;", "&")
		for _, want := range []string{`<meta http-equiv="refresh" content="0;url=` + uri + `">`, `href="` + uri + `"`} {
			if !strings.Contains(html, want) {
				t.Errorf("%s: the page lacks %s\n%s", uri, want, html)
			}
		}
	}
}

// An instant refresh would take the reader away from the help (WCAG 2.2.1).
func TestOnlyTheFirstViewGoesOn(t *testing.T) {
	for _, d := range drawings(t, "Claude Code") {
		_, html := drawn(t, d)
		first := d.name == "handback" || d.name == "handback web"
		if strings.Contains(html, "http-equiv") != first {
			t.Errorf("%s: refreshes %v", d.name, !first)
		}
	}
}

// An expired code is of no use to anybody, so it is shown to nobody.
func TestExpiredAnswerIsNotShown(t *testing.T) {
	for _, d := range drawings(t, "Claude Code") {
		if _, html := drawn(t, d); d.name == "handback expired" && strings.Contains(html, "code=") {
			t.Error("the page shows the expired answer")
		}
	}
}
