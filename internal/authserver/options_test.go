package authserver_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R105, R218, attack 47: where clients do not register themselves, the metadata
// does not say they could; those that are registered stay.
func TestRegistrationSwitchedOff(t *testing.T) {
	for _, registration := range []string{"off", ""} {
		t.Run("registration "+registration, func(t *testing.T) {
			h := start(t, apptest.Dev, func(c *app.Config) { c.Registration = registration })
			for _, prefix := range []string{"/oauth", "/mcp", ""} {
				h.unchanged(t, func() {
					a := h.PostJSON(prefix+"/register", `{"redirect_uris":["`+apptest.Callback+`"]}`)
					if a.StatusCode != http.StatusNotFound || a.Error() == "" {
						t.Errorf("%s: %d %s", prefix, a.StatusCode, a.Text)
					}
				})
			}
			for _, name := range []string{"oauth-authorization-server", "openid-configuration"} {
				if a := h.Get("/.well-known/" + name); a.StatusCode != http.StatusOK || strings.Contains(a.Text, "registration_endpoint") {
					t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			}
		})
	}
}

// C01: the metadata names one family of paths, all of which answer.
func TestMetadataNamesTheChosenFamily(t *testing.T) {
	for style, prefix := range map[string]string{"oauth": "/oauth", "mcp": "/mcp", "bare": ""} {
		t.Run(style, func(t *testing.T) {
			h := start(t, apptest.Dev, func(c *app.Config) { c.EndpointStyle = style })
			var m oauth.ServerMetadata
			h.Get("/.well-known/oauth-authorization-server").JSON(t, &m)
			for endpoint, want := range map[string]string{
				m.AuthorizationEndpoint: "/authorize", m.TokenEndpoint: "/token", m.RegistrationEndpoint: "/register", m.RevocationEndpoint: "/revoke",
			} {
				if endpoint != h.URL+prefix+want {
					t.Errorf("%s, want %s", endpoint, h.URL+prefix+want)
				}
			}
			h.tokens(h.Register(), nil) // at /oauth, whatever the metadata says
		})
	}
}

// C10: the port of a program on the person's computer counts only where that is
// asked for.
func TestExactRedirects(t *testing.T) {
	for _, exact := range []bool{false, true} {
		h := apptest.Open(t, apptest.Dev, func(c *app.Config) { c.ExactRedirects = exact })
		client := h.Register("http://127.0.0.1:8080/callback")
		for port, same := range map[string]bool{":8080": true, ":9090": false, "": false} {
			query, _ := h.Authorization(client, with("redirect_uri", "http://127.0.0.1"+port+"/callback"))
			a := h.Get("/oauth/authorize?" + query.Encode())
			if answered := a.StatusCode == http.StatusSeeOther; answered != (same || !exact) {
				t.Errorf("exact %v, port %s: %d", exact, port, a.StatusCode)
			}
		}
	}
}

// C13: no resource, or the bare origin, means the common endpoint, or is refused
// where clients have to say what they mean.
func TestResourceCanBeRequired(t *testing.T) {
	for _, required := range []bool{false, true} {
		h := house{apptest.Open(t, apptest.Dev, func(c *app.Config) { c.RequireResource = required }), t}
		client := h.Register()
		for resource, named := range map[string]bool{"": false, h.URL: false, h.URL + "/": false, h.URL + "/mcp": true, h.URL + "/s/gatehouse/mcp": true} {
			change := with()
			if resource != "" {
				change.Set("resource", resource)
			}
			a := h.authorize(authorization(h, client, change))
			location, err := a.Location()
			if err != nil {
				t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			if refused := location.Query().Get("error") == oauth.InvalidTarget; refused != (required && !named) || refused == location.Query().Has("code") {
				t.Errorf("required %v, resource %q: %s", required, resource, location)
			}
		}
	}
}

// R216: which private-use schemes may be registered is the operator's to say.
func TestRedirectSchemesAreConfigured(t *testing.T) {
	h := start(t, apptest.Dev, func(c *app.Config) { c.RedirectSchemes = []string{"com.example.app"} })
	for uri, ok := range map[string]bool{"com.example.app:/cb": true, "com.example.app://x/cb": true, "cursor://x/cb": false, "com.example.app2:/cb": false, "https://b.example/cb": true} {
		if a := h.PostJSON("/oauth/register", registration(uri)); (a.StatusCode == http.StatusCreated) != ok {
			t.Errorf("%s: %d %s", uri, a.StatusCode, a.Text)
		}
	}
}

// Attack 50: the answer promises scopes that exist, and none for administration.
func TestRegistrationPromisesScopesThatExist(t *testing.T) {
	h := start(t, apptest.Dev)
	r := h.register(`{"redirect_uris":["` + apptest.Callback + `"],"scope":"offline_access mcp:read nobody:read mcp:admin mcp:tools"}`)
	if got := strings.Fields(r.Scope); !slices.Equal(got, []string{"mcp:read", "mcp:tools", "offline_access"}) {
		t.Errorf("%q", got)
	}
	if r := h.register(`{"redirect_uris":["` + apptest.Callback + `"],"scope":"mcp:admin"}`); r.Scope != "" {
		t.Errorf("%q", r.Scope)
	}
}
