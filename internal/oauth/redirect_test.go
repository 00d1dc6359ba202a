package oauth

import (
	"net/url"
	"strings"
	"testing"
)

// R216, attacks 7 and 8: what may be registered.
func TestRedirectMayBeRegistered(t *testing.T) {
	schemes := []string{"cursor", "com.example.app", "javascript"} // the last is denied all the same
	good := []string{
		"https://b.example/cb", "https://b.example:8443/cb?x=1", "https://b.example", "HTTPS://b.example/cb",
		"http://127.0.0.1/cb", "http://127.0.0.1:33418/", "http://localhost/callback", "http://[::1]:1/cb",
		"cursor://anysphere.cursor/oauth/callback", "com.example.app:/cb",
	}
	bad := []string{
		"", "/cb", "cb", "//b.example/cb", "https:", "https:///cb", "https:cb", "http://b.example/cb", "http://127.0.0.2/cb", "http://localhost.evil.example/cb",
		"https://b.example/cb#f", "https://b.example/cb#", "https://*.b.example/cb", "https://b.example/*",
		"https://u@b.example/cb", "https://u:p@b.example/cb", "http://127.0.0.1@evil.example/cb", "https://@b.example/cb", "https://b.example%40evil.example/",
		`https://b.example\@evil.example/cb`, "https://b.example\\cb", "https://b.example/c b", " https://b.example/cb", "https://b.example/cb\n", "https://b.example/\x00",
		"java\tscript:alert(1)", "\x01javascript:alert(1)", "javascript:alert(1)", "JavaScript:alert(1)", "javascript://x/%0aalert(1)",
		"data:text/html,x", "DATA:text/html;base64,eA==", "file:///etc/passwd", "vbscript:x", "blob:https://b.example/1", "ftp://b.example/cb",
		"vscode://x/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:x/cb", "https://b.ex\u00e4mple/cb",
		"https://b.example/" + strings.Repeat("x", maxRedirect),
	}
	for _, uri := range good {
		if err := CheckRedirect(uri, schemes); err != nil {
			t.Errorf("refused %q: %v", uri, err)
		}
	}
	for _, uri := range bad {
		if err := CheckRedirect(uri, schemes); codeOf(err) != InvalidRedirectURI {
			t.Errorf("%q: %v", uri, err)
		}
	}
}

// R304, C10, attacks 1 to 5.
func TestRedirectMatchesByteForByteButForTheLoopbackPort(t *testing.T) {
	registered := []string{"https://b.example/cb", "http://127.0.0.1/cb", "http://localhost:8080/cb?x=1", "http://[::1]"}
	tests := []struct {
		asked string
		want  bool
	}{
		{"https://b.example/cb", true},
		{"http://127.0.0.1/cb", true},
		{"http://127.0.0.1:1/cb", true},
		{"http://127.0.0.1:65535/cb", true},
		{"http://localhost/cb?x=1", true},
		{"http://localhost:9999/cb?x=1", true},
		{"http://[::1]", true},
		{"http://[::1]:4000", true},

		{"", false},
		{"https://b.example/cb/x", false},
		{"https://b.example/cb/../evil", false},
		{"https://b.example/other", false},
		{"https://b.example/cb/", false},
		{"https://b.example@evil.example/cb", false},
		{`https://b.example\@evil.example/cb`, false},
		{"http://127.0.0.1@evil.example/cb", false},
		{"http://127.0.0.1:80@evil.example/cb", false},
		{"http://user@127.0.0.1/cb", false},
		{"https://b.example/%63b", false},
		{"https://b.example/CB", false},
		{"https://B.EXAMPLE/cb", false},
		{"https://b.example./cb", false},
		{"https://b.example:443/cb", false},
		{"https://b.example/cb?x=1", false},
		{"http://127.0.0.2/cb", false},
		{"http://[::1]/cb", false},
		{"http://localhost:8080/cb", false},
		{"http://localhost/cb", false},
		{"https://127.0.0.1/cb", false},
		{"http://127.0.0.1:0/cb", false},
		{"http://127.0.0.1:080/cb", false},
		{"http://127.0.0.1:65536/cb", false},
		{"http://127.0.0.1:+80/cb", false},
		{"http://127.0.0.1:/cb", false},
		{"http://127.0.0.1.evil.example/cb", false},
		{"http://127.0.0.1/other", false},
		{"HTTP://127.0.0.1/cb", false},
		{"http://localhost.evil.example:8080/cb?x=1", false},
	}
	for _, tt := range tests {
		if got := MatchRedirect(registered, tt.asked); got != tt.want {
			t.Errorf("MatchRedirect(%q) = %v, want %v", tt.asked, got, tt.want)
		}
	}
	if MatchRedirect(nil, "https://b.example/cb") || MatchRedirect([]string{""}, "") {
		t.Error("a client without redirect URIs has a match")
	}
}

func TestRedirectKind(t *testing.T) {
	tests := []struct{ uri, kind string }{
		{"https://b.example/cb", RedirectWeb},
		{"https://b.example:8443/cb", RedirectWeb},
		{"http://127.0.0.1:3001/cb", RedirectLoopback},
		{"http://[::1]:3001/cb", RedirectLoopback},
		{"https://localhost/cb", RedirectLoopback},
		{"http://127.0.0.1.evil.example/cb", RedirectWeb},
		{"cursor://anysphere/cb", RedirectApp},
	}
	for _, tt := range tests {
		if k := RedirectKind(tt.uri); k != tt.kind {
			t.Errorf("%s is %s, want %s", tt.uri, k, tt.kind)
		}
		if IsLoopback(tt.uri) != (tt.kind == RedirectLoopback) {
			t.Errorf("IsLoopback(%s)", tt.uri)
		}
	}
}

// What matches is either the same bytes or the same address but for a port, so
// a match never leads to another host or path.
func FuzzRedirect(f *testing.F) {
	f.Add("http://127.0.0.1/cb", "http://127.0.0.1:80/cb")
	f.Add("http://localhost:1", "http://localhost:2?x")
	f.Add("https://b.example/cb", "https://b.example:443/cb")
	f.Add("http://[::1]/", "http://[::1]:99999/")
	f.Add("http://127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb")
	f.Add("http://127.0.0.1/cb", "http://127.0.0.1.evil.example/cb")
	f.Add("http://localhost/cb", "http://localhost:08/cb")
	f.Fuzz(func(t *testing.T, registered, asked string) {
		if CheckRedirect(registered, nil) != nil || !MatchRedirect([]string{registered}, asked) || registered == asked {
			return
		}
		r, err := url.Parse(registered)
		a, err2 := url.Parse(asked)
		if err != nil || err2 != nil || r.Scheme != a.Scheme || r.Hostname() != a.Hostname() || r.RequestURI() != a.RequestURI() || a.User != nil || !IsLoopback(asked) {
			t.Errorf("%q matches %q", asked, registered)
		}
		if err := CheckRedirect(asked, nil); err != nil {
			t.Errorf("%q matches, but could not be registered: %v", asked, err)
		}
	})
}
