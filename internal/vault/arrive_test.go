package vault_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// Attacks 62, 73: an answer that is not what this browser was sent for is refused
// before anything is asked or spent; the one that is, is good afterwards, once.
func TestForeignAnswersSpendNothing(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		query, bound := w.answered(person("dana"), "mira", nil)
		other, _ := w.answered(person("erin"), "theo", nil)
		arrive := func(name string, change url.Values, bound func(string, []byte) bool) error {
			q := url.Values{}
			for k, v := range query {
				q[k] = v
			}
			for k, v := range change {
				if q[k] = v; v == nil {
					delete(q, k)
				}
			}
			_, err := w.nodes[0].Arrive(t.Context(), person("dana"), name, q, "req_x", bound)
			return err
		}
		nobody := func(string, []byte) bool { return false }
		_, err := w.nodes[0].Arrive(t.Context(), person("erin"), "kb", query, "req_x", bound) // attack 120: the same browser, another person
		is(t, err, "CONNECT_UNKNOWN")
		_, err = w.nodes[0].Arrive(t.Context(), principal.Principal{}, "kb", query, "req_x", bound)
		is(t, err, "CONNECT_UNKNOWN")
		for why, try := range map[string]struct {
			code string
			err  error
		}{
			"another browser":    {"CONNECT_UNKNOWN", arrive("kb", nil, nobody)},
			"no state":           {"CONNECT_UNKNOWN", arrive("kb", url.Values{"state": nil}, bound)},
			"another's state":    {"CONNECT_UNKNOWN", arrive("kb", url.Values{"state": other["state"]}, bound)},
			"a guessed secret":   {"CONNECT_UNKNOWN", arrive("kb", url.Values{"state": {query.Get("state")[:40] + strings.Repeat("A", len(query.Get("state"))-40)}}, bound)},
			"state twice":        {"CONNECT_UNKNOWN", arrive("kb", url.Values{"state": {query.Get("state"), query.Get("state")}}, bound)},
			"not text":           {"CONNECT_UNKNOWN", arrive("kb", url.Values{"x": {"\x00"}}, bound)},
			"another connection": {"CONNECT_UNKNOWN", arrive("other", nil, bound)},
			"another issuer":     {"CONNECT_FOREIGN", arrive("kb", url.Values{"iss": {"https://evil.example"}}, bound)},
			"no issuer":          {"CONNECT_FOREIGN", arrive("kb", url.Values{"iss": nil}, bound)},
			"neither":            {"CONNECT_FOREIGN", arrive("kb", url.Values{"code": nil}, bound)},
			"both":               {"CONNECT_FOREIGN", arrive("kb", url.Values{"error": {"access_denied"}}, bound)},
		} {
			if e := problem.From(try.err); e == nil || e.Name != try.code || e.Kind != problem.Forbidden {
				t.Errorf("%s: %v", why, try.err)
			}
		}
		if n := w.text(`SELECT count(*) || '' FROM departure WHERE used_at IS NOT NULL`); n != "0" || len(w.tokens) != 0 {
			t.Errorf("%s are spent, %d tokens handed out", n, len(w.tokens))
		}
		if err := arrive("kb", nil, bound); err != nil {
			t.Error(err)
		}
		is(t, arrive("kb", nil, bound), "CONNECT_UNKNOWN")
		w.sees(w.nodes[0], person("dana"), "mira")

		query, bound = w.answered(person("dana"), "mira", nil)
		w.exec(`UPDATE departure SET expires_at = 1`)
		is(t, arrive("kb", nil, bound), "CONNECT_UNKNOWN")
	})
}

// A person who says no at the provider, and a code that it does not take, connect
// nothing and leave what was there.
func TestNoIsAnArrival(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	query, bound := w.answered(person("dana"), "theo", url.Values{"decision": {"deny"}})
	a, err := w.nodes[0].Arrive(t.Context(), person("dana"), "kb", query, "req_x", bound)
	if err != nil {
		t.Fatal(err)
	}
	is(t, a.Err, "CONNECT_REFUSED")
	query, bound = w.answered(person("dana"), "theo", nil)
	query.Set("code", "code-made-up")
	if a, err = w.nodes[0].Arrive(t.Context(), person("dana"), "kb", query, "req_x", bound); err != nil {
		t.Fatal(err)
	}
	is(t, a.Err, "PROVIDER_FAILED")
	w.sees(w.nodes[0], person("dana"), "mira")
}

// Attack 73: metadata of another issuer, endpoints in the clear, and documents and
// endpoints that redirect are refused before anything is sent there.
func TestLyingMetadataIsRefused(t *testing.T) {
	var said map[string]any
	redirects := ""
	lies := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if redirects != "" {
			http.Redirect(rw, r, redirects, http.StatusFound)
			return
		}
		_ = json.NewEncoder(rw).Encode(said) // the caller is gone
	}))
	defer lies.Close()
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	v := w.nodes[0]
	p := v.Providers["kb"]
	p.Issuer = lies.URL
	v.Providers["kb"] = p
	good := func() map[string]any {
		return map[string]any{"issuer": lies.URL, "authorization_endpoint": w.url + "/oauth/authorize", "token_endpoint": w.url + "/oauth/token"}
	}
	for why, change := range map[string]func(){
		"a revocation endpoint open": func() { said["revocation_endpoint"] = "http://service.example/revoke" },
		"a password in it":           func() { said["token_endpoint"] = "https://us:hush@service.example/token" },
		"another issuer":             func() { said["issuer"] = w.url },
		"a slash more":               func() { said["issuer"] = lies.URL + "/" },
		"a token endpoint open":      func() { said["token_endpoint"] = "http://service.example/token" },
		"no token endpoint":          func() { delete(said, "token_endpoint") },
		"a script":                   func() { said["authorization_endpoint"] = "javascript:alert(1)" },
		"plain challenges only":      func() { said["code_challenge_methods_supported"] = []string{"plain"} },
		"a redirect":                 func() { redirects = w.url + "/.well-known/oauth-authorization-server" },
	} {
		said, redirects = good(), ""
		change()
		if _, err := v.Begin(t.Context(), person("dana"), "kb", ""); err == nil {
			t.Errorf("%s: accepted", why)
		} else {
			is(t, err, "PROVIDER_FAILED")
		}
	}
	said, redirects = good(), ""
	if _, err := v.Begin(t.Context(), person("dana"), "kb", ""); err != nil {
		t.Error("honest metadata:", err)
	}
	redirects = w.url + "/oauth/token"
	p.AuthorizeURL, p.TokenURL = w.url+"/oauth/authorize", lies.URL+"/token"
	v.Providers["kb"] = p
	query, bound := w.answered(person("dana"), "mira", nil)
	query.Set("iss", lies.URL)
	a, err := v.Arrive(t.Context(), person("dana"), "kb", query, "req_x", bound)
	if err != nil || len(w.tokens) != 0 {
		t.Errorf("%v, %d tokens", err, len(w.tokens))
	}
	is(t, a.Err, "PROVIDER_FAILED")
}

// What cannot work is refused when the configuration is read.
func TestProvidersAreChecked(t *testing.T) {
	good := vault.Provider{Issuer: "https://login.example", ClientID: "us", Secret: seal.Hide("x"), Auth: vault.AuthBasic, Hosts: []string{"api.example", "127.0.0.1:80"}}
	if err := good.Check("crm"); err != nil {
		t.Error(err)
	}
	for why, change := range map[string]func(*vault.Provider){
		"no hosts":           func(p *vault.Provider) { p.Hosts = nil },
		"a host with a path": func(p *vault.Provider) { p.Hosts = []string{"api.example/x"} },
		"a host as URL":      func(p *vault.Provider) { p.Hosts = []string{"https://api.example"} },
		"no client":          func(p *vault.Provider) { p.ClientID = "" },
		"in the clear":       func(p *vault.Provider) { p.Issuer = "http://login.example" },
		"half an address":    func(p *vault.Provider) { p.TokenURL = "https://login.example/token" },
		"no address":         func(p *vault.Provider) { p.Issuer = "" },
		"our own parameter":  func(p *vault.Provider) { p.Params = map[string]string{"state": "x"} },
		"another way":        func(p *vault.Provider) { p.Auth = "query" },
	} {
		p := good
		change(&p)
		if p.Check("crm") == nil {
			t.Errorf("%s: accepted", why)
		}
	}
	if good.Check("CRM") == nil || good.CheckAddress("https://api.example/mcp") != nil || good.CheckAddress("http://api.example/mcp") == nil ||
		good.CheckAddress("http://127.0.0.1/mcp") != nil || good.CheckAddress("https://api.example:444/mcp") == nil || good.CheckAddress("https://x.api.example") == nil {
		t.Error("names or addresses are judged wrongly")
	}
}
