package client

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// elsewhere is a server on the internet: requests to gw.example reach it, all
// others are counted.
type elsewhere struct {
	challenge, prm, as string
	others             []string
}

func (e *elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Host != "gw.example" && r.URL.Host != "as.example":
		e.others = append(e.others, r.URL.String())
		w.WriteHeader(http.StatusNotFound)
	case r.URL.Path == "/mcp":
		w.Header().Set("WWW-Authenticate", e.challenge)
		w.WriteHeader(http.StatusUnauthorized)
	case strings.Contains(r.URL.Path, oauth.ResourceSuffix):
		io.WriteString(w, e.prm)
	case strings.Contains(r.URL.Path, oauth.ServerSuffix):
		io.WriteString(w, e.as)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	return w.Result(), nil
}

// Attack catalogue §20: a server on the internet sends nobody to the person's own
// computer, nor to addresses without TLS, whatever it says about its sign-in.
func TestServerElsewhereLeadsNobodyHome(t *testing.T) {
	const prm = `{"resource":"https://gw.example/mcp","authorization_servers":["https://as.example"]}`
	const as = `{"issuer":"https://as.example","authorization_endpoint":"https://as.example/authorize","token_endpoint":"https://as.example/token",
		"registration_endpoint":"https://as.example/register","code_challenge_methods_supported":["S256"]}`
	for name, e := range map[string]*elsewhere{
		"metadata on this computer":         {`Bearer resource_metadata="https://127.0.0.1:1/x"`, prm, as, nil},
		"metadata on this computer by http": {`Bearer resource_metadata="http://localhost:1/x"`, prm, as, nil},
		"metadata in a file":                {`Bearer resource_metadata="file:///etc/passwd"`, prm, as, nil},
		"issuer on this computer":           {"Bearer", strings.Replace(prm, "https://as.example", "https://[::1]:1", 1), as, nil},
		"issuer by http":                    {"Bearer", strings.Replace(prm, "https://as.example", "http://as.example", 1), as, nil},
		"sign-in page on this computer":     {"Bearer", prm, strings.Replace(as, "https://as.example/authorize", "http://127.0.0.1:1/authorize", 1), nil},
		"token endpoint on this computer":   {"Bearer", prm, strings.Replace(as, "https://as.example/token", "https://localhost:1/token", 1), nil},
		"registration elsewhere":            {"Bearer", prm, strings.Replace(as, "https://as.example/register", "https://evil.example/register", 1), nil},
	} {
		c := New(Options{HTTP: e, Credentials: t.TempDir() + "/c.json"})
		opened := false
		_, err := c.Login(short(t), "https://gw.example/mcp", LoginOptions{Open: func(string) error { opened = true; return nil }})
		var refused *Error
		if !errors.As(err, &refused) || refused.Code != notTrusted.Name {
			t.Errorf("%s: %v", name, err)
		}
		if len(e.others) != 0 || opened {
			t.Errorf("%s: asked %q, browser %t", name, e.others, opened)
		}
	}
}

// The identity provider's secrets stay at its own origin, like those of an issuer.
func TestIdentityProviderElsewhere(t *testing.T) {
	f, idp, c := newFake(t), newFake(t), newClient(t)
	idp.as.TokenEndpoint = f.URL + "/token"
	_, err := c.LoginByEnterprise(short(t), f.server(), App{ID: "a"}, Enterprise{Issuer: idp.URL, App: App{ID: "b", Secret: "s"}, SubjectToken: "id-token"}, Demand{})
	if !errors.Is(err, ErrAuthentication) || f.count("POST /token") != 0 {
		t.Errorf("%v", err)
	}
}

// A refresh token goes to the issuer that gave it, even when the server by now
// names another one.
func TestRefreshTokenStaysWithItsIssuer(t *testing.T) {
	f, other := newFake(t), newFake(t)
	c := signedIn(t, f)
	f.set(func() { f.prm.AuthorizationServers, f.valid = []string{other.URL}, "another" })
	if _, err := c.Connect(short(t), f.server()); err != nil {
		t.Error(err)
	}
	if len(other.seen) != 0 || f.count("token refresh_token") != 1 {
		t.Errorf("the other issuer saw %q", other.seen)
	}
}

// SEP-2352: what an app proves itself with goes to the issuer that it is registered
// with, not to the one that a server names by now.
func TestSecretOfAnAppStaysAtItsIssuer(t *testing.T) {
	f, c := newFake(t), newClient(t)
	for name, login := range map[string]func(issuer string) error{
		"as the app": func(issuer string) error {
			_, err := c.LoginAsApp(short(t), f.server(), App{ID: "app", Secret: "s", Issuer: issuer}, Demand{})
			return err
		},
		"by an assertion": func(issuer string) error {
			_, err := c.LoginByAssertion(short(t), f.server(), App{ID: "app", Issuer: issuer}, "eyJ.x.y", Demand{})
			return err
		},
		"by a browser": func(issuer string) error {
			_, err := c.Login(short(t), f.server(), LoginOptions{ClientID: "app", ClientSecret: "s", ClientIssuer: issuer, Open: new(browser).open})
			return err
		},
	} {
		for _, issuer := range []string{"https://as.example", f.URL + "/", strings.ToUpper(f.URL)} {
			before := f.count("POST /token")
			e, ok := errors.AsType[*Error](login(issuer))
			if !ok || e.Code != notTrusted.Name || f.count("POST /token") != before || f.count("GET /authorize") != 0 {
				t.Errorf("%s, of %s: %v", name, issuer, e)
			}
		}
	}
	if _, err := c.Login(short(t), f.server(), LoginOptions{ClientID: "app", ClientSecret: "s", ClientIssuer: f.URL, Open: new(browser).open}); err != nil {
		t.Error(err)
	}
	if _, err := c.LoginAsApp(short(t), f.server(), App{ID: "app", Secret: "s", Issuer: f.URL}, Demand{}); err != nil {
		t.Error(err)
	}
}
