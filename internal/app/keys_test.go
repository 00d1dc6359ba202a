package app_test

import (
	"net/http"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// An operator who revokes a signing key ends every access token that it signed,
// at once; what was granted stays, so that apps go on with a new one.
func TestRevokedKeyEndsItsTokens(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		tokens, client := h.Token("", "")
		if a := h.Tool(tokens.AccessToken, "echo", `{"message":"before"}`); a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
		var before, after struct{ Keys []struct{ Kid, State string } }
		h.Admin("list_signing_keys", `{}`).JSON(t, &before)
		if len(before.Keys) != 2 || before.Keys[0].State != "active" || before.Keys[1].State != "next" {
			t.Fatalf("%+v", before)
		}
		if a := h.Admin("revoke_signing_key", `{"kid":"`+before.Keys[0].Kid+`"}`); a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
		if a := h.Tool(tokens.AccessToken, "echo", `{"message":"after"}`); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("a token of a revoked key: %d %s", a.StatusCode, a.Text)
		}
		h.Admin("list_signing_keys", `{}`).JSON(t, &after)
		if len(after.Keys) != 3 || after.Keys[0].State != "revoked" || after.Keys[1].State != "active" || after.Keys[1].Kid != before.Keys[1].Kid || after.Keys[2].State != "next" {
			t.Errorf("%+v", after)
		}
		if a := h.Admin("revoke_signing_key", `{"kid":"`+before.Keys[0].Kid+`"}`); a.StatusCode != http.StatusNotFound {
			t.Errorf("again: %d %s", a.StatusCode, a.Text)
		}
		var renewed oauth.TokenResponse
		h.Refresh(client, tokens.RefreshToken).JSON(t, &renewed)
		if a := h.Tool(renewed.AccessToken, "echo", `{"message":"renewed"}`); a.StatusCode != http.StatusOK {
			t.Errorf("a token of the next key: %d %s", a.StatusCode, a.Text)
		}
	}, apptest.Dev)
}
