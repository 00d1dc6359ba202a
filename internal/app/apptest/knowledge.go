package apptest

import (
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/kb"
	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/qa"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/upstream"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// Knowledge is the example of a server that answers for accounts, with the service
// that has the accounts.
type Knowledge struct {
	*qa.Service
	URL string // of the MCP server

	Strict atomic.Bool // the MCP server answers nobody without a token
	Down   atomic.Bool // the service answers nobody
	name   string
	mu     sync.Mutex
	tokens []string      // that the service has handed out
	got    []http.Header // of what reached the MCP server
}

var granted = regexp.MustCompile(`qa-(?:access|refresh)-[a-z0-9]+`)

// NewKnowledge runs both until the test ends.
func NewKnowledge(t testing.TB) *Knowledge {
	k := &Knowledge{}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if k.Down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		rec := httptest.NewRecorder()
		k.Service.ServeHTTP(rec, r)
		k.mu.Lock()
		if r.URL.Path == "/oauth/token" {
			k.tokens = append(k.tokens, granted.FindAllString(rec.Body.String(), -1)...)
		}
		k.mu.Unlock()
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()) // the caller is gone
	}))
	t.Cleanup(service.Close)
	k.Service = qa.New(service.URL, qa.Client{})
	serve := kb.Handler(service.URL)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.got = append(k.got, r.Header.Clone())
		k.mu.Unlock()
		w.Header().Set("Set-Cookie", "kb=of-the-server")
		if k.Strict.Load() && !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		serve.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	k.URL = server.URL
	return k
}

// Behind puts the server behind a house, as a configuration file would.
func (k *Knowledge) Behind(c *app.Config) { k.BehindAs("knowledge")(c) }

// BehindAs is Behind under another name.
func (k *Knowledge) BehindAs(name string) func(*app.Config) {
	k.name = name
	return func(c *app.Config) {
		c.Source.File = "gatehouse.yaml"
		if c.Providers == nil {
			c.Providers, c.Servers = map[string]vault.Provider{}, map[string]upstream.Spec{}
		}
		c.Providers[name] = vault.Provider{
			Issuer: k.Issuer, ClientID: "gatehouse", Secret: seal.Hide("hush"), Auth: vault.AuthBasic, Reads: []string{qa.Read}, Writes: []string{qa.Write},
			Hosts: []string{strings.TrimPrefix(k.URL, "http://")},
		}
		c.Servers[name] = upstream.Spec{Name: name, URL: k.URL, Provider: name}
	}
}

// Knows registers the house at the service, and waits until it serves the server.
func (k *Knowledge) Knows(h *House) {
	h.t.Helper()
	k.Introduce(h)
	k.Served(h)
}

// Introduce registers the house at the service.
func (k *Knowledge) Introduce(h *House) {
	k.Register(qa.Client{ID: "gatehouse", Secret: "hush", Redirect: h.URL + "/connect/" + k.name + "/callback"})
}

// Served waits until the house serves the server.
func (k *Knowledge) Served(h *House) {
	h.t.Helper()
	for began := time.Now(); h.Get("/.well-known/oauth-protected-resource/s/"+k.name+"/mcp").StatusCode != http.StatusOK; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			h.t.Fatal("the knowledge base is not served")
		}
	}
}

// Tokens are those that the service has handed out.
func (k *Knowledge) Tokens() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.tokens...)
}

// Got are the headers of what reached the MCP server.
func (k *Knowledge) Got() []http.Header {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]http.Header(nil), k.got...)
}

var leaving = regexp.MustCompile(`<a class="button primary wide" href="([^"]+/oauth/authorize[^"]+)"`)

// Departs is where the page sends the browser to connect an account; empty if it
// does not.
func Departs(page string) string {
	m := leaving.FindStringSubmatch(page)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

// Answer is what the service answers at address, as a path of the house with the
// answer in it, when person fills in its form. change may spoil the form.
func (k *Knowledge) Answer(h *House, address, person string, change url.Values) string {
	h.t.Helper()
	page := h.read(h.HTTP.Get(address))
	form := Fields(page.Text)
	form.Set("person", person)
	form.Set("decision", "allow")
	form["allow"] = []string{qa.Read, qa.Write}
	for name, values := range change {
		form[name] = values
	}
	res, err := h.HTTP.PostForm(k.Issuer+"/oauth/authorize", form)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	location := res.Header.Get("Location")
	if !strings.HasPrefix(location, h.URL+"/connect/") {
		h.t.Fatalf("the service sends the browser to %q: %d %s", location, res.StatusCode, page.Text)
	}
	return strings.TrimPrefix(location, h.URL)
}

// Connect goes on from a page that sends the browser to the service, where person
// answers, and returns the page after that.
func (b *Browser) Connect(k *Knowledge, page Answer, person string, change url.Values) Answer {
	b.t.Helper()
	address := Departs(page.Text)
	if address == "" {
		b.t.Fatalf("nobody is sent to the service: %d %s", page.StatusCode, page.Text)
	}
	return b.Open(k.Answer(b.House, address, person, change))
}
