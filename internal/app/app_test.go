package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// A person sets the server up, signs in with the link, allows an app, and the
// app calls a tool; nothing is approved without her.
func TestFromSetupToATool(t *testing.T) {
	h := apptest.Start(t)
	b := h.Browser()
	client := h.Register()
	query, verifier := h.Authorization(client, nil)

	b.SetUp()
	page := b.Open("/oauth/authorize?" + query.Encode())
	if !strings.Contains(page.Text, "Unverified app") || !strings.Contains(page.Text, "A program on this computer") {
		t.Fatalf("no consent page: %d %s", page.StatusCode, page.Text)
	}
	form := apptest.Fields(page.Text)
	form.Set("decision", "allow")
	form.Set("started", "yes")
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil || target.Query().Get("state") != "st&te/1" || target.Query().Get("iss") != h.URL {
		t.Fatalf("no way back: %v", target)
	}
	var tokens oauth.TokenResponse
	h.Redeem(client, target.Query().Get("code"), verifier, nil).JSON(t, &tokens)
	if a := h.Tool(tokens.AccessToken, "whoami", "{}"); !strings.Contains(a.Text, apptest.Owner) {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if a := h.Tool("", "whoami", "{}"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", a.StatusCode, a.Text)
	}
}

// R309: the app is told.
func TestDontAllow(t *testing.T) {
	h := apptest.Start(t)
	b := h.Browser()
	b.SetUp()
	query, _ := h.Authorization(h.Register(), nil)
	form := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
	form.Set("decision", "deny")
	target := apptest.Target(b.Submit("/consent", form).Text)
	want := url.Values{"error": {"access_denied"}, "state": {"st&te/1"}, "iss": {h.URL}}
	for name := range want {
		if target == nil || target.Query().Get(name) != want.Get(name) {
			t.Fatalf("%v, want %v", target, want)
		}
	}
}

// R317: development mode answers straight to the program, without cookie or page.
func TestDevAnswersStraight(t *testing.T) {
	h := apptest.Start(t, apptest.Dev)
	tokens, _ := h.Token("", "")
	if a := h.Tool(tokens.AccessToken, "echo", `{"message":"hi"}`); !strings.Contains(a.Text, `"authorized":true`) {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
}
