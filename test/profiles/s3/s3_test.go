// Package s3 is what the README of a small demonstration says one can do by hand
// with it: three requests of curl, two tools, a client on port 3001, opaque
// tokens, and a server that shares what it keeps with others (S3).
package s3

import (
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

const callback = "http://localhost:3001/callback"

// demonstration is a server as S3 runs it: opaque tokens, no PKCE in its curl.
func demonstration(c *app.Config) { c.Dev, c.POC, c.OpaqueTokens = true, true, []string{"all"} }

// registered is what S3's first request answers.
type registered struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// got is what S3's last request answers.
type got struct {
	Access  string `json:"access_token"`
	Type    string `json:"token_type"`
	Expires int    `json:"expires_in"`
	Refresh string `json:"refresh_token"`
	Scope   string `json:"scope"`
}

// byHand makes the three requests, as S3 writes them.
func byHand(t *testing.T, h *apptest.House) (registered, got) {
	t.Helper()
	var client registered
	h.PostJSON("/register", `{"client_name":"Test Client","redirect_uris":["`+callback+`"],"grant_types":["authorization_code"],"response_types":["code"],"scope":"mcp:tools"}`).JSON(t, &client)
	location, err := h.Get("/oauth/authorize?response_type=code&client_id=" + client.ID + "&redirect_uri=" + url.QueryEscape(callback) + "&scope=mcp:tools&state=test123").Location()
	if err != nil || !strings.HasPrefix(location.String(), callback+"?") || location.Query().Get("state") != "test123" {
		t.Fatalf("authorized: %v, %v", location, err)
	}
	var tokens got
	h.PostJSON("/oauth/token", `{"grant_type":"authorization_code","code":"`+location.Query().Get("code")+`","redirect_uri":"`+callback+
		`","client_id":"`+client.ID+`","client_secret":"`+client.Secret+`"}`).JSON(t, &tokens)
	return client, tokens
}

// R806, R202, R301, R401, R402, C03, C09, C15: the walk-through.
func TestWalkThroughByHand(t *testing.T) {
	h := apptest.Start(t, demonstration)
	client, tokens := byHand(t, h)
	if client.ID == "" || client.Secret == "" {
		t.Error("no client id, or no secret")
	}
	if tokens.Type != "Bearer" || tokens.Expires != 3600 || tokens.Scope != "mcp:tools" || strings.Count(tokens.Access, ".") == 2 {
		t.Errorf("got %+v, want an opaque token for an hour", tokens)
	}
	if a := h.Tool(tokens.Access, "echo", `{"message":"Hello"}`); !strings.Contains(a.Text, `"echo":"Hello"`) || !strings.Contains(a.Text, `"authorized":true`) {
		t.Errorf("echo answers %s", a.Text) // R802
	}
}

// R801, R802: one tool for everybody, one for those with a good token.
func TestToolsWithAndWithoutAToken(t *testing.T) {
	h := apptest.Start(t, demonstration)
	if a := h.Tool("", "public_info", `{}`); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, `"server":"gatehouse"`) || !strings.Contains(a.Text, `"version"`) {
		t.Errorf("public_info without a token: %d %s", a.StatusCode, a.Text)
	}
	if a := h.Tool("", "echo", `{"message":"x"}`); a.StatusCode != http.StatusUnauthorized || strings.Contains(a.Header.Get("WWW-Authenticate"), "error=") {
		t.Errorf("echo without a token: %d %s", a.StatusCode, a.Header.Get("WWW-Authenticate"))
	}
	if a := h.Tool("token_made-up", "echo", `{"message":"x"}`); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("echo with a bad token: %d %s", a.StatusCode, a.Header.Get("WWW-Authenticate"))
	}
}

// R713: what one server registered and issued, another that shares its storage
// knows at once, and so does the same one after a restart.
func TestServersShareWhatTheyKeep(t *testing.T) {
	dir := t.TempDir()
	shared := func(c *app.Config) {
		demonstration(c)
		c.DataDir, c.MasterKeyFile, c.Database = t.TempDir(), filepath.Join(dir, "master.key"), "sqlite:"+filepath.Join(dir, "shared.db")
	}
	first := apptest.Start(t, shared)
	listen := freePort(t)
	second := apptest.Start(t, shared, func(c *app.Config) { c.PublicURL, c.Listen = first.URL, listen })
	second.URL = "http://" + listen // where it is, not what it is called
	_, tokens := byHand(t, first)
	if a := second.Tool(tokens.Access, "echo", `{"message":"x"}`); a.StatusCode != http.StatusOK {
		t.Errorf("the other server: %d %s", a.StatusCode, a.Text)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	again := apptest.Start(t, shared, func(c *app.Config) { c.Listen = strings.TrimPrefix(first.URL, "http://") })
	if a := again.Tool(tokens.Access, "echo", `{"message":"x"}`); a.StatusCode != http.StatusOK {
		t.Errorf("after a restart: %d %s", a.StatusCode, a.Text)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "localhost:" + port
}

// R733, R734, C32: what the server is, and that it is well, is told to everybody.
func TestServerDescribesItself(t *testing.T) {
	h := apptest.Start(t, demonstration)
	var about struct {
		Server    string
		Endpoints map[string]string
	}
	h.Get("/", "Accept: */*").JSON(t, &about)
	for _, name := range []string{"mcp", "register", "authorize", "token"} {
		if !strings.HasPrefix(about.Endpoints[name], h.URL+"/") {
			t.Errorf("%s is at %q", name, about.Endpoints[name])
		}
	}
	if a := h.Get("/health"); a.StatusCode != http.StatusOK {
		t.Errorf("health: %d", a.StatusCode)
	}
}

// R713, R714, R904, C12: a program that speaks stdio works with what HTTP registered and
// issued, whenever that was; it lists and calls, and gives its token to echo as S3's does.
func TestStdioServerSharesWithHTTP(t *testing.T) {
	h := apptest.Start(t, demonstration)
	p := h.Stdio("")
	if m := p.Initialize(`{}`); m.Error != nil {
		t.Fatalf("initialize: %s", m.Encode())
	}
	if names := apptest.Names(p.RPC("tools/list", "")); names != "public_info" {
		t.Errorf("without a token it is offered %s", names)
	}
	if m := p.Tool("public_info", `{}`); !strings.Contains(string(m.Result), `"server":"gatehouse"`) {
		t.Errorf("public_info: %s", m.Encode()) // R801
	}
	client, tokens := byHand(t, h) // after the process has started
	if m := p.Tool("echo", `{"message":"Hello","access_token":"`+tokens.Access+`"}`); !strings.Contains(string(m.Result), `"echo":"Hello"`) || !strings.Contains(string(m.Result), `"authorized":true`) {
		t.Errorf("echo: %s", m.Encode()) // R802
	}
	for args, word := range map[string]string{
		`{"message":"Hello"}`: "missing_token", `{"message":"Hello","access_token":"token_made-up"}`: "invalid_token",
	} {
		m := p.Tool("echo", args)
		if m.Error == nil || !strings.HasPrefix(m.Error.Message, word+": ") || !strings.Contains(string(m.Error.Data), `"status":401`) {
			t.Errorf("echo %.60s: %s, want %s", args, m.Encode(), word)
		}
	}
	own := h.Stdio(tokens.Access)
	if names := apptest.Names(own.RPC("tools/list", "")); names != "echo public_info whoami" {
		t.Errorf("with a token it is offered %s", names)
	}
	if m := own.Tool("whoami", `{}`); !strings.Contains(string(m.Result), `"client":"`+client.ID+`"`) {
		t.Errorf("whoami: %s", m.Encode())
	}
	h.Form("/revoke", url.Values{"token": {tokens.Access}, "client_id": {client.ID}, "client_secret": {client.Secret}})
	for range 100 { // within a second
		if m := own.Tool("whoami", `{}`); m.Error != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a token that was revoked over HTTP is good over stdio")
}
