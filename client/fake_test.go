package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// fake is a server behind OAuth and its authorization server in one, polite
// until told otherwise.
type fake struct {
	busy bool // the token endpoint answers 429
	*httptest.Server
	t *testing.T

	// What it says about itself; set before the first request.
	challenge string // the WWW-Authenticate header
	prm       oauth.ResourceMetadata
	prmPath   string
	as        oauth.ServerMetadata
	asPath    string
	iss       []string // in the redirect
	deny      string   // error in the redirect
	override  map[string]http.HandlerFunc
	refuse    func(method string) (status int, challenge string) // a message with a good token; 0 does not

	mu       sync.Mutex
	seen     []string              // path and the parameters that matter, in order
	forms    map[string]url.Values // last form by path
	register oauth.Registration
	n        int    // of tokens issued
	valid    string // the access token that works; "" means that none does
	lifetime int64
	session  string // the MCP session that exists
	sessions int
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, forms: map[string]url.Values{}, lifetime: 3600, override: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	f.challenge = fmt.Sprintf(`Bearer realm="fake", scope="mcp:tools", resource_metadata="%s/.well-known/oauth-protected-resource/mcp"`, f.URL)
	f.prm = oauth.ResourceMetadata{Resource: f.URL + "/mcp", AuthorizationServers: []string{f.URL}, ScopesSupported: []string{"a", "b"}}
	f.prmPath = "/.well-known/oauth-protected-resource/mcp"
	f.as = oauth.ServerMetadata{
		Issuer: f.URL, AuthorizationEndpoint: f.URL + "/authorize", TokenEndpoint: f.URL + "/token", RegistrationEndpoint: f.URL + "/register",
		RevocationEndpoint: f.URL + "/revoke", ChallengeMethods: []string{"S256"}, IssParameter: true,
	}
	f.asPath = "/.well-known/oauth-authorization-server"
	f.iss = []string{f.URL}
	return f
}

func (f *fake) server() string { return f.URL + "/mcp" }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	h := f.override[r.URL.Path]
	f.seen = append(f.seen, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	switch {
	case h != nil:
		h(w, r)
	case r.URL.Path == f.prmPath:
		writeJSON(w, 200, f.prm)
	case r.URL.Path == f.asPath:
		writeJSON(w, 200, f.as)
	case r.URL.Path == "/register":
		f.mu.Lock()
		defer f.mu.Unlock()
		json.NewDecoder(r.Body).Decode(&f.register)
		f.register.ClientID = "client-1"
		writeJSON(w, 201, f.register)
	case r.URL.Path == "/authorize":
		f.authorize(w, r)
	case r.URL.Path == "/token":
		f.token(w, r)
	case r.URL.Path == "/revoke":
		r.ParseForm()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.seen = append(f.seen, "revoke "+r.PostForm.Get("token_type_hint")+" "+r.PostForm.Get("client_id"))
	case r.URL.Path == "/mcp":
		f.mcp(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (f *fake) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f.mu.Lock()
	f.forms["/authorize"] = q
	f.mu.Unlock()
	back := url.Values{"state": {q.Get("state")}, "iss": f.iss, "code": {"code-1"}}
	if f.deny != "" {
		back.Del("code")
		back.Set("error", f.deny)
		back.Set("error_description", "no \x1b[31m<b>")
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

func (f *fake) token(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, "token "+r.PostForm.Get("grant_type"))
	asked := f.forms["/authorize"]
	f.forms["/token"] = r.PostForm
	if f.busy {
		writeJSON(w, http.StatusTooManyRequests, oauth.ErrorResponse{Error: "slow_down"})
		return
	}
	if r.PostForm.Get("grant_type") == "authorization_code" && (!oauth.VerifyPKCE(asked.Get("code_challenge"), r.PostForm.Get("code_verifier")) || r.PostForm.Get("redirect_uri") != asked.Get("redirect_uri")) ||
		r.PostForm.Get("grant_type") == "refresh_token" && r.PostForm.Get("refresh_token") != fmt.Sprintf("refresh-%d", f.n) {
		writeJSON(w, 400, oauth.ErrorResponse{Error: "invalid_grant"})
		return
	}
	f.n++
	f.valid = fmt.Sprintf("access-token-number-%d-of-the-fake", f.n)
	writeJSON(w, 200, oauth.TokenResponse{AccessToken: f.valid, TokenType: "bearer", ExpiresIn: f.lifetime, RefreshToken: fmt.Sprintf("refresh-%d", f.n), Scope: "mcp:tools"})
}

// mcp is a server with one tool, echo, and a session.
func (f *fake) mcp(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.valid == "" || r.Header.Get("Authorization") != "Bearer "+f.valid {
		w.Header().Set("WWW-Authenticate", f.challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodDelete {
		f.session = ""
		return
	}
	body, _ := io.ReadAll(r.Body)
	m, _ := mcp.Parse(body)
	f.seen = append(f.seen, m.Method)
	if f.refuse != nil {
		if status, challenge := f.refuse(m.Method); status != 0 {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(status)
			return
		}
	}
	if m.Method != "initialize" && r.Header.Get(mcp.SessionHeader) != f.session {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if m.Method != "initialize" && r.Header.Get(mcp.VersionHeader) != "2025-06-18" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch m.Method {
	case "initialize":
		f.sessions++
		f.session = fmt.Sprintf("session-%d", f.sessions)
		w.Header().Set(mcp.SessionHeader, f.session)
		answerJSON(w, m.ID, `{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"fake","version":"1"}}`)
	case "tools/list":
		if mcp.Text(m.Params, "cursor") == "" {
			answerJSON(w, m.ID, `{"tools":[{"name":"echo","annotations":{"readOnlyHint":true}}],"nextCursor":"2"}`)
			return
		}
		answerJSON(w, m.ID, `{"tools":[{"name":"drop"}]}`)
	case "ping":
		answerJSON(w, m.ID, `{}`)
	case "tools/call":
		answerJSON(w, m.ID, fmt.Sprintf(`{"content":[{"type":"text","text":%q}]}`, mcp.Field(m.Params, "arguments")))
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func answerJSON(w http.ResponseWriter, id json.RawMessage, result string) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(mcp.Message{ID: id, Result: json.RawMessage(result)}.Encode())
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// count says how often something was seen.
func (f *fake) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.seen {
		if s == what {
			n++
		}
	}
	return n
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// browser follows the address like a person who agrees, and keeps the last page.
type browser struct {
	page   string
	status int
}

func (b *browser) open(address string) error {
	res, err := http.Get(address)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	b.page, b.status = string(page), res.StatusCode
	return err
}

func newClient(t *testing.T) *Client {
	t.Helper()
	return New(Options{Name: "test", Credentials: filepath.Join(t.TempDir(), "conf", "credentials.json")})
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// signedIn is a client with tokens for the fake.
func signedIn(t *testing.T, f *fake) *Client {
	t.Helper()
	c := newClient(t)
	if _, err := c.Login(short(t), f.server(), LoginOptions{Open: new(browser).open}); err != nil {
		t.Fatal(err)
	}
	return c
}
