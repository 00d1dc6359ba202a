package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// Our own library gets in by every way that needs no browser, as a program of anybody
// would, and its tokens are of no use to whoever sees one (DPoP).
func TestOurLibrarySignsIn(t *testing.T) {
	p := newProvider(t)
	onEach(t, func(t *testing.T, h house) {
		app := h.owned()
		secret := h.account("nightly", "echo", "")
		key := newKey(t)
		signing := h.account("signing", "echo", `,"jwks":`+published(key))
		h.account("builder", "echo", "")
		idp := exchanges(t, p, h, app.ClientID)
		server := h.URL + "/mcp"
		for name, signIn := range map[string]func(*client.Client) (client.Login, error){
			"secret": func(c *client.Client) (client.Login, error) {
				return c.LoginAsApp(t.Context(), server, client.App{ID: secret.ID, Secret: secret.Secret}, client.Demand{})
			},
			"key": func(c *client.Client) (client.Login, error) {
				return c.LoginAsApp(t.Context(), server, client.App{ID: signing.ID, Key: key}, client.Demand{})
			},
			"workload": func(c *client.Client) (client.Login, error) {
				return c.LoginByAssertion(t.Context(), server, client.App{}, p.workload(t, h, nil), client.Demand{})
			},
			"enterprise": func(c *client.Client) (client.Login, error) {
				return c.LoginByEnterprise(t.Context(), server, client.App{ID: app.ClientID, Secret: app.ClientSecret},
					client.Enterprise{Issuer: idp, App: client.App{ID: "at-idp"}, SubjectToken: "id-token"}, client.Demand{})
			},
		} {
			file := t.TempDir() + "/credentials.json"
			c := client.New(client.Options{Name: "test", Credentials: file})
			if _, err := signIn(c); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			s, err := c.Connect(t.Context(), server)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			res, err := s.Call(t.Context(), "echo", json.RawMessage(`{"message":"hi"}`), nil)
			if err != nil || !strings.Contains(res.Text(), "hi") {
				t.Errorf("%s: %v", name, err)
			}
			s.Close(t.Context())
			if h.works(kept(t, file)) {
				t.Errorf("%s: the token works without its key", name)
			}
		}
	}, trusting(p, &[]string{}, false))
}

// kept is the access token in a file of credentials.
func kept(t *testing.T, file string) string {
	t.Helper()
	var f struct {
		Logins map[string]struct {
			Token string `json:"access_token"`
		} `json:"logins"`
	}
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &f) != nil || len(f.Logins) != 1 {
		t.Fatalf("%d logins, %v", len(f.Logins), err)
	}
	for _, l := range f.Logins {
		return l.Token
	}
	return ""
}

// exchanges is an identity provider that vouches for the owner (RFC 8693).
func exchanges(t *testing.T, p *provider, h house, clientID string) string {
	t.Helper()
	mux := http.NewServeMux()
	idp := httptest.NewServer(mux)
	t.Cleanup(idp.Close)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": idp.URL, "token_endpoint": idp.URL + "/token"})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("subject_token") != "id-token" || r.FormValue("audience") != h.URL || r.FormValue("resource") != h.URL+"/mcp" {
			t.Errorf("the identity provider was asked %v", r.Form)
		}
		answer(w, map[string]any{
			"access_token": p.jag(t, h, clientID, map[string]any{"email": apptest.Owner}), "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag", "token_type": "N_A",
		})
	})
	return idp.URL
}
