// Package apptest runs the whole house on loopback in one process, for tests
// that go in by the front door.
package apptest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Callback is the redirect URI that Register registers.
const Callback = "http://127.0.0.1/callback"

// House is a running server.
type House struct {
	URL  string // public address
	Dir  string // data folder
	Log  *Log   // what it printed
	HTTP *http.Client
	DB   *store.DB // its database; nil unless made by Open

	t        testing.TB
	config   app.Config
	database string
	stop     func() error
}

// Start runs a server until the test ends. change may adjust the configuration:
// a SQLite file in a new folder, development mode off.
func Start(t testing.TB, change ...func(*app.Config)) *House {
	t.Helper()
	h := &House{t: t, Dir: t.TempDir(), Log: &Log{}, HTTP: newHTTP()}
	t.Cleanup(h.HTTP.CloseIdleConnections)
	c := app.Config{Listen: "localhost:0", DataDir: h.Dir, Registration: "open", RedirectSchemes: []string{"cursor", "vscode"}, EndpointStyle: "oauth"}
	for _, f := range change {
		f(&c)
	}
	h.Dir = c.DataDir
	if c.Database == "" {
		c.Database = "sqlite:" + filepath.Join(c.DataDir, "gatehouse.db")
	}
	h.database = c.Database
	if c.MasterKeyFile == "" {
		c.MasterKeyFile = filepath.Join(c.DataDir, "master.key")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, c, h.Log) }()
	h.stop = sync.OnceValue(func() error { h.HTTP.CloseIdleConnections(); cancel(); return <-ended })
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server printed:\n%s", h.Log)
		}
	})
	listening := h.Log.Wait("✓ Listening on ", ended)
	if listening == "" {
		h.stop = func() error { return nil } // it has ended, or is given up
		cancel()
		t.Fatalf("the server did not start:\n%s", h.Log)
	}
	h.URL = strings.Fields(listening)[0]
	h.config = c
	return h
}

// At is a house that somebody else runs, as a process of its own: Stop is
// nothing it can do.
func At(t testing.TB, url, dir string, log *Log) *House {
	h := &House{t: t, URL: url, Dir: dir, Log: log, HTTP: newHTTP()}
	t.Cleanup(h.HTTP.CloseIdleConnections)
	return h
}

// Stop ends the server, once, and returns how it ended.
func (h *House) Stop() error { return h.stop() }

// Same makes another house keep its data where h did.
func (h *House) Same(c *app.Config) { c.DataDir, c.Database = h.Dir, h.database }

// Dev is development mode.
func Dev(c *app.Config) { c.Dev = true }

// newHTTP follows no redirects.
func newHTTP() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Answer is an HTTP answer, read whole.
type Answer struct {
	*http.Response
	Text string
}

// Unreferenced is the text without references, which differ between answers that
// are alike otherwise.
func (a Answer) Unreferenced() string { return reference.ReplaceAllString(a.Text, "req_") }

var reference = regexp.MustCompile(`req_[0-9A-Z]{26}`)

// JSON decodes the body into v.
func (a Answer) JSON(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Text), v); err != nil {
		t.Fatalf("%d %s: %v", a.StatusCode, a.Text, err)
	}
}

// Error is the member "error" of an OAuth answer.
func (a Answer) Error() string {
	var e oauth.ErrorResponse
	_ = json.Unmarshal([]byte(a.Text), &e) // what is not JSON has no error
	return e.Error
}

// Do sends a request and reads the answer.
func (h *House) Do(r *http.Request) Answer {
	h.t.Helper()
	return h.read(h.HTTP.Do(r))
}

func (h *House) read(resp *http.Response, err error) Answer {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return Answer{resp, string(body)}
}

// Request makes a request to path. Headers are given as "Name: value".
func (h *House) Request(method, path, body string, headers ...string) *http.Request {
	h.t.Helper()
	r, err := http.NewRequest(method, h.URL+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// Get fetches a path.
func (h *House) Get(path string, headers ...string) Answer {
	h.t.Helper()
	return h.Do(h.Request(http.MethodGet, path, "", headers...))
}

// Form posts a form.
func (h *House) Form(path string, form url.Values, headers ...string) Answer {
	h.t.Helper()
	return h.Do(h.Request(http.MethodPost, path, form.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...))
}

// PostJSON posts a JSON text.
func (h *House) PostJSON(path, body string, headers ...string) Answer {
	h.t.Helper()
	return h.Do(h.Request(http.MethodPost, path, body, append(headers, "Content-Type: application/json")...))
}

// Register registers a public client; without redirect URIs, with Callback.
func (h *House) Register(redirects ...string) (clientID string) {
	h.t.Helper()
	if len(redirects) == 0 {
		redirects = []string{Callback}
	}
	body, err := json.Marshal(oauth.Registration{ClientName: "Test app", RedirectURIs: redirects})
	if err != nil {
		h.t.Fatal(err)
	}
	var r oauth.Registration
	h.PostJSON("/oauth/register", string(body)).JSON(h.t, &r)
	if r.ClientID == "" {
		h.t.Fatal("not registered")
	}
	return r.ClientID
}

// Authorization is the query of an authorization request that is in order, and
// the verifier that belongs to it. change may spoil it.
func (h *House) Authorization(clientID string, change url.Values) (query url.Values, verifier string) {
	verifier = oauth.NewVerifier()
	query = url.Values{
		"client_id": {clientID}, "response_type": {"code"}, "redirect_uri": {Callback}, "state": {"st&te/1"},
		"code_challenge": {oauth.Challenge(verifier)}, "code_challenge_method": {"S256"},
	}
	for name, values := range change {
		if values == nil {
			query.Del(name)
		} else {
			query[name] = values
		}
	}
	return query, verifier
}

// Code goes through an authorization in development mode and returns the code.
func (h *House) Code(clientID string, change url.Values) (code, verifier string) {
	h.t.Helper()
	query, verifier := h.Authorization(clientID, change)
	answer := h.Get("/oauth/authorize?" + query.Encode())
	location, err := answer.Location()
	if err != nil || location.Query().Get("code") == "" {
		h.t.Fatalf("no code: %d %s %s", answer.StatusCode, answer.Header.Get("Location"), answer.Text)
	}
	return location.Query().Get("code"), verifier
}

// Redeem posts a code to the token endpoint.
func (h *House) Redeem(clientID, code, verifier string, change url.Values) Answer {
	h.t.Helper()
	form := url.Values{"grant_type": {"authorization_code"}, "client_id": {clientID}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {Callback}}
	for name, values := range change {
		if values == nil {
			form.Del(name)
		} else {
			form[name] = values
		}
	}
	return h.Form("/oauth/token", form)
}

// Refresh posts a refresh token to the token endpoint.
func (h *House) Refresh(clientID, refresh string) Answer {
	h.t.Helper()
	return h.Form("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {clientID}, "refresh_token": {refresh}})
}

// Token goes through everything in development mode: registration,
// authorization and exchange. Empty scope and resource mean the defaults.
func (h *House) Token(scope, resource string) (tokens oauth.TokenResponse, clientID string) {
	h.t.Helper()
	clientID = h.Register()
	change := url.Values{}
	if scope != "" {
		change.Set("scope", scope)
	}
	if resource != "" {
		change.Set("resource", resource)
	}
	code, verifier := h.Code(clientID, change)
	h.Redeem(clientID, code, verifier, nil).JSON(h.t, &tokens)
	if tokens.AccessToken == "" {
		h.t.Fatal("no token")
	}
	return tokens, clientID
}

// RPC posts one JSON-RPC request to an MCP endpoint. An empty token sends none.
func (h *House) RPC(path, token, method, params string, headers ...string) Answer {
	h.t.Helper()
	if token != "" {
		headers = append(headers, "Authorization: Bearer "+token)
	}
	if params == "" {
		params = "{}"
	}
	return h.PostJSON(path, `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`,
		append(headers, "Accept: application/json, text/event-stream")...)
}

// Tool calls a tool of the common endpoint with JSON arguments.
func (h *House) Tool(token, name, args string) Answer {
	h.t.Helper()
	return h.RPC("/mcp", token, "tools/call", `{"name":"`+name+`","arguments":`+args+`}`)
}

// Admin calls a tool over the admin socket, as the local owner.
func (h *House) Admin(name, args string) Answer {
	h.t.Helper()
	socket := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return app.DialSocket(ctx, h.Dir)
	}}}
	return h.read(socket.Post("http://socket/mcp/tool/"+name, "application/json", strings.NewReader(args)))
}

// Log is what a server printed.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Wait waits until mark was printed with a line break somewhere after it, and
// returns what follows the last mark on its line. It gives up after ten seconds,
// or when ended has something, and returns "".
func (l *Log) Wait(mark string, ended <-chan error) string {
	for range 1000 {
		text := l.String()
		if i := strings.LastIndex(text, mark); i >= 0 {
			if line, _, whole := strings.Cut(text[i+len(mark):], "\n"); whole {
				return line
			}
		}
		select {
		case err := <-ended:
			_, _ = l.Write([]byte("ended: " + errText(err)))
			return ""
		case <-time.After(10 * time.Millisecond):
		}
	}
	return ""
}

func errText(err error) string {
	if err == nil {
		return "without an error"
	}
	return err.Error()
}
