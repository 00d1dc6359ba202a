package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R409, C15: whoever is named gets access tokens that say nothing; they open the
// same doors, are bound to the same resource, and end as fast.
func TestOpaqueTokensOpenTheSameDoors(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		tokens, client := h.Token("", "")
		if !strings.HasPrefix(tokens.AccessToken, "at_") || tokens.ExpiresIn != 3600 {
			t.Fatalf("%+v", tokens)
		}
		echo := func(token string) int { return h.Tool(token, "echo", `{"message":"x"}`).StatusCode }
		for range 2 { // looked up, then remembered
			if got := echo(tokens.AccessToken); got != http.StatusOK {
				t.Errorf("%d", got)
			}
		}
		if a := h.Get("/mcp/tools", "Authorization: Bearer "+tokens.AccessToken); a.StatusCode != http.StatusOK {
			t.Errorf("REST: %d %s", a.StatusCode, a.Text)
		}
		if a := h.RPC("/s/gatehouse/mcp", tokens.AccessToken, "tools/list", ""); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("another resource: %d %s", a.StatusCode, a.Text)
		}
		var renewed oauth.TokenResponse
		h.Refresh(client, tokens.RefreshToken).JSON(t, &renewed)
		if echo(renewed.AccessToken) != http.StatusOK || renewed.AccessToken == tokens.AccessToken {
			t.Error("a refreshed one is not good")
		}
		revoke := func(client, token string) {
			if a := h.Form("/oauth/revoke", url.Values{"client_id": {client}, "token": {token}}); a.StatusCode != http.StatusOK {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		revoke(h.Register(), tokens.AccessToken) // attack 124
		if got := echo(tokens.AccessToken); got != http.StatusOK {
			t.Errorf("another client revoked it: %d", got)
		}
		revoke(client, tokens.AccessToken)
		if echo(tokens.AccessToken) != http.StatusUnauthorized || echo(renewed.AccessToken) != http.StatusOK {
			t.Error("revoking one does not end it, or ends more")
		}
		revoke(client, renewed.RefreshToken)
		if got := echo(renewed.AccessToken); got != http.StatusUnauthorized {
			t.Errorf("its family is revoked: %d", got)
		}
		dump := h.Dump()
		if how := apptest.Find(renewed.AccessToken, dump); how != "" {
			t.Errorf("the database holds a token %s", how)
		}
		jwt, _ := h.Token("", h.URL+"/s/gatehouse/mcp")
		if strings.HasPrefix(jwt.AccessToken, "at_") {
			t.Error("a resource that is not named has opaque tokens")
		}
	}, apptest.Dev, func(c *app.Config) { c.OpaqueTokens = []string{"mcp"} })
}

// The setting names servers, clients, or everybody.
func TestOpaqueTokensAreForWhomTheyAreNamed(t *testing.T) {
	h := apptest.Start(t, apptest.Dev, func(c *app.Config) { c.OpaqueTokens = []string{"all"} })
	for _, resource := range []string{"", h.URL + "/s/gatehouse/mcp"} {
		if tokens, _ := h.Token("", resource); !strings.HasPrefix(tokens.AccessToken, "at_") {
			t.Errorf("all, %q: %s", resource, tokens.AccessToken)
		}
	}
	h = apptest.Start(t, apptest.Dev, func(c *app.Config) { c.OpaqueTokens = []string{"gatehouse"} })
	if tokens, _ := h.Token("", h.URL+"/s/gatehouse/mcp"); !strings.HasPrefix(tokens.AccessToken, "at_") {
		t.Errorf("gatehouse: %s", tokens.AccessToken)
	}
	if tokens, _ := h.Token("", ""); strings.HasPrefix(tokens.AccessToken, "at_") {
		t.Error("gatehouse is not mcp")
	}
}
