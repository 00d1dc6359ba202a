package authserver_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// C01, C05, C08, C13, C31, R101–R105, R201–R214, R301, R401–R403: a client written
// after S0's article alone finds everything where that says, and leaves as it came.
func TestClientOfS0(t *testing.T) {
	h := start(t, apptest.Dev, func(c *app.Config) { c.EndpointStyle = "mcp" })
	var m oauth.ServerMetadata
	h.Get("/.well-known/oauth-authorization-server").JSON(t, &m)
	if m.AuthorizationEndpoint != h.URL+"/mcp/authorize" || m.TokenEndpoint != h.URL+"/mcp/token" || m.RegistrationEndpoint != h.URL+"/mcp/register" ||
		!slices.Contains(m.TokenAuthMethods, "none") || !slices.Equal(m.ChallengeMethods, []string{"S256"}) {
		t.Fatalf("the metadata is %+v", m)
	}

	var r oauth.Registration
	a := h.PostJSON("/mcp/register", `{"client_name":"MCP client","redirect_uris":["https://app.example/callback","http://localhost:8080/callback"],"token_endpoint_auth_method":"none"}`)
	a.JSON(t, &r)
	if a.StatusCode != http.StatusCreated || r.ClientID == "" || r.RegistrationURI != h.URL+"/registration/"+r.ClientID || !strings.HasPrefix(r.RegistrationToken, "reg-") {
		t.Fatalf("registered: %d %s", a.StatusCode, a.Text)
	}
	at := strings.TrimPrefix(r.RegistrationURI, h.URL)
	managed(t, h, h.manage(http.MethodGet, at, r.RegistrationToken, ""), r.RegistrationToken)
	is := managed(t, h, h.manage(http.MethodPut, at, r.RegistrationToken, `{"client_name":"Renamed","redirect_uris":["http://localhost:8080/callback"]}`), r.RegistrationToken)
	if is.ClientName != "Renamed" || !slices.Equal(is.GrantTypes, r.GrantTypes) {
		t.Errorf("changed: %s", text(is))
	}

	verifier := oauth.NewVerifier()
	location, err := h.Get("/mcp/authorize?" + url.Values{ // neither response_type nor resource
		"client_id": {r.ClientID}, "code_challenge": {oauth.Challenge(verifier)}, "code_challenge_method": {"S256"}, "redirect_uri": {"http://localhost:8080/callback"},
	}.Encode()).Location()
	if err != nil || location.Query().Get("code") == "" || location.Query().Has("state") {
		t.Fatalf("answered at %v", location)
	}
	var tokens oauth.TokenResponse
	h.Form("/mcp/token", with("grant_type", "authorization_code", "client_id", r.ClientID, "code", location.Query().Get("code"),
		"code_verifier", verifier, "redirect_uri", "http://localhost:8080/callback")).JSON(t, &tokens)
	if tokens.TokenType != "Bearer" || !h.works(tokens.AccessToken) {
		t.Errorf("got %+v", tokens)
	}

	if a := h.manage(http.MethodDelete, at, r.RegistrationToken, ""); a.StatusCode != http.StatusNoContent || h.works(tokens.AccessToken) {
		t.Errorf("removed: %d %s", a.StatusCode, a.Text)
	}
}
