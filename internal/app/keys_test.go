package app_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
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

// R419: keys rotate by themselves, into the algorithm that is configured now, and no
// app notices.
func TestKeysRotateByThemselves(t *testing.T) {
	dir := t.TempDir()
	h := apptest.Open(t, apptest.Dev, in(dir))
	tokens, _ := h.Token("", "")
	h.SQL(`UPDATE signing_key SET created_at = 0, active_at = active_at - $1 WHERE active_at IS NOT NULL`, (91 * day).Microseconds())
	h.SQL(`UPDATE signing_key SET created_at = 0 WHERE active_at IS NULL`)
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	same := func(c *app.Config) { c.PublicURL, c.Listen = h.URL, strings.TrimPrefix(h.URL, "http://") }
	h = apptest.Open(t, apptest.Dev, in(dir), same)
	if h.Log.Wait("another key signs from now on", nil) == "" {
		t.Fatalf("nothing was rotated: %s", h.Log)
	}
	if n := h.Count(`SELECT count(*) FROM audit_event WHERE workspace = 'system' AND action = 'signing_key.rotate' AND outcome = 'allowed'`); n != 1 {
		t.Errorf("%d events", n)
	}
	if a := h.Tool(tokens.AccessToken, "echo", `{"message":"x"}`); a.StatusCode != http.StatusOK {
		t.Errorf("a token of the retiring key: %d %s", a.StatusCode, a.Text)
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}

	eddsa := func(c *app.Config) { c.SigningAlg = "EdDSA" }
	h = apptest.Open(t, apptest.Dev, in(dir), same, eddsa)
	var list struct{ Keys []struct{ Alg, State string } }
	keys := func() (text string) {
		h.Admin("list_signing_keys", `{}`).JSON(t, &list)
		for _, k := range list.Keys {
			text += k.State + " " + k.Alg + ", "
		}
		return text
	}
	for deadline := time.Now().Add(30 * time.Second); keys() != "retiring ES256, active ES256, next EdDSA, "; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(keys())
		}
	}
	if a := h.Admin("rotate_signing_key", `{}`); a.StatusCode != http.StatusConflict {
		t.Errorf("the next key is seconds old: %d %s", a.StatusCode, a.Text)
	}
	h.SQL(`UPDATE signing_key SET created_at = 0`)
	if a := h.Admin("rotate_signing_key", `{}`); a.StatusCode != http.StatusOK || keys() != "retiring ES256, retiring ES256, active EdDSA, next EdDSA, " {
		t.Errorf("%d %s: %s", a.StatusCode, a.Text, keys())
	}
	young, _ := h.Token("", "")
	for _, token := range []string{young.AccessToken, tokens.AccessToken} {
		if a := h.Tool(token, "echo", `{"message":"x"}`); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
}
