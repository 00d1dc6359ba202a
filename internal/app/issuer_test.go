package app_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// apart is one server under two names: the MCP endpoints at the first, the
// authorization server at the second.
func apart(t *testing.T, change ...func(*app.Config)) (public, issuer *apptest.House) {
	t.Helper()
	port := freePort(t)
	public = apptest.Start(t, append(change, func(c *app.Config) {
		c.Listen, c.PublicURL, c.IssuerURL = "localhost:"+port, "http://127.0.0.1:"+port, "http://localhost:"+port
	})...)
	at := *public
	at.URL = "http://localhost:" + port
	return public, &at
}

// R109, R114: a client finds its way from an MCP endpoint to an issuer on another
// host and back, and what names the issuer names that one.
func TestIssuerOnAHostOfItsOwn(t *testing.T) {
	public, issuer := apart(t)
	b := issuer.Browser()
	b.SetUp() // by a link of the issuer

	challenge := public.RPC("/mcp", "", "tools/list", "").Header.Get("WWW-Authenticate")
	document := public.URL + "/.well-known/oauth-protected-resource/mcp"
	if !strings.Contains(challenge, `resource_metadata="`+document+`"`) {
		t.Fatalf("the challenge is %s", challenge)
	}
	var resource oauth.ResourceMetadata
	public.Get(strings.TrimPrefix(document, public.URL)).JSON(t, &resource)
	if resource.Resource != public.URL+"/mcp" || len(resource.AuthorizationServers) != 1 || resource.AuthorizationServers[0] != issuer.URL {
		t.Fatalf("the resource document is %+v", resource)
	}
	var server oauth.ServerMetadata
	issuer.Get("/.well-known/oauth-authorization-server").JSON(t, &server)
	for name, address := range map[string]string{
		"authorize": server.AuthorizationEndpoint, "token": server.TokenEndpoint, "register": server.RegistrationEndpoint,
		"revoke": server.RevocationEndpoint, "jwks": server.JWKSURI, "issuer": server.Issuer + "/",
	} {
		if !strings.HasPrefix(address, issuer.URL+"/") {
			t.Errorf("%s is at %s", name, address)
		}
	}

	var r oauth.Registration
	issuer.PostJSON("/oauth/register", `{"client_name":"App","redirect_uris":["`+apptest.Callback+`"]}`).JSON(t, &r)
	if r.RegistrationURI != issuer.URL+"/registration/"+r.ClientID { // C31
		t.Errorf("it is managed at %s", r.RegistrationURI)
	}
	query, verifier := public.Authorization(r.ClientID, map[string][]string{"resource": {resource.Resource}})
	form := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
	form.Set("decision", "allow")
	form.Set("started", "yes")
	if a := issuer.Form("/consent", form, "Origin: "+public.URL, "Sec-Fetch-Site: same-site"); a.StatusCode != http.StatusForbidden {
		t.Errorf("a form of the other host: %d %s", a.StatusCode, a.Text)
	}
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil || target.Query().Get("iss") != issuer.URL {
		t.Fatalf("back to %v", target)
	}
	var tokens oauth.TokenResponse
	issuer.Redeem(r.ClientID, target.Query().Get("code"), verifier, nil).JSON(t, &tokens)
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(tokens.AccessToken+"..", ".")[1])
	if err != nil || !strings.Contains(string(claims), `"iss":"`+issuer.URL+`"`) || !strings.Contains(string(claims), `"aud":"`+public.URL+`/mcp"`) {
		t.Errorf("the claims are %s", claims)
	}
	if a := public.Tool(tokens.AccessToken, "whoami", "{}"); !strings.Contains(a.Text, apptest.Owner) {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if a := public.Get("/mcp/tools", "Authorization: Bearer "+tokens.AccessToken); a.StatusCode != http.StatusOK {
		t.Errorf("REST: %d %s", a.StatusCode, a.Text)
	}
}

// R114: each host has what is its own and nothing of the other.
func TestHostsHaveOnlyWhatIsTheirs(t *testing.T) {
	public, issuer := apart(t, apptest.Dev)
	const formType = "Content-Type: application/x-www-form-urlencoded"
	for _, row := range []struct {
		method, path string
		issuer       bool // does it belong there, or under the public address?
	}{
		{http.MethodGet, "/.well-known/oauth-authorization-server", true},
		{http.MethodGet, "/.well-known/openid-configuration", true},
		{http.MethodGet, "/.well-known/jwks.json", true},
		{http.MethodGet, "/oauth/authorize", true},
		{http.MethodGet, "/mcp/authorize", true},
		{http.MethodGet, "/authorize", true},
		{http.MethodPost, "/oauth/token", true},
		{http.MethodPost, "/mcp/token", true},
		{http.MethodPost, "/register", true},
		{http.MethodPost, "/mcp/revoke", true},
		{http.MethodGet, "/registration/x", true},
		{http.MethodGet, "/login", true},
		{http.MethodGet, "/consent/x", true},
		{http.MethodGet, "/.well-known/oauth-protected-resource", false},
		{http.MethodGet, "/.well-known/oauth-protected-resource/mcp", false},
		{http.MethodGet, "/.well-known/oauth-protected-resource/s/gatehouse/mcp", false},
		{http.MethodPost, "/mcp", false},
		{http.MethodPost, "/s/gatehouse/mcp", false},
		{http.MethodGet, "/mcp/tools", false},
	} {
		for _, h := range []*apptest.House{public, issuer} {
			a := h.Do(h.Request(row.method, row.path, "", formType))
			there := a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusMethodNotAllowed
			if there != (row.issuer == (h == issuer)) {
				t.Errorf("%s %s%s: %d", row.method, h.URL, row.path, a.StatusCode)
			}
		}
	}
	if a := public.Get("/"); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != issuer.URL+"/" {
		t.Errorf("the front door: %d %v", a.StatusCode, a.Header)
	}
	r := public.Request(http.MethodGet, "/.well-known/jwks.json", "")
	r.Host = "evil.example"
	if a := public.Do(r); a.StatusCode != http.StatusMisdirectedRequest { // attack 71
		t.Errorf("another host: %d", a.StatusCode)
	}
}
