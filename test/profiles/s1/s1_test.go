// Package s1 is what the architecture overview of a small demonstration says: a
// client and a server apart from one another, /oauth paths, a client id with a
// secret, signed tokens (S1).
package s1

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const callback = "http://localhost:3001/callback"

// demonstration is a server as S1's client expects it.
func demonstration(c *app.Config) { c.Dev, c.POC = true, true }

// R201–R206, R302, R303 as C09 has it, R401–R412, R802: the flow of S1, with the
// requests of S1.
func TestClientWithASecret(t *testing.T) {
	h := apptest.Start(t, demonstration)
	var client oauth.Registration
	answer := h.PostJSON("/oauth/register", `{"client_name":"MCP Client","redirect_uris":["`+callback+`"]}`)
	answer.JSON(t, &client)
	if answer.StatusCode != http.StatusCreated || client.ClientID == "" || client.ClientSecret == "" {
		t.Fatalf("registered: %d %s", answer.StatusCode, answer.Text) // C02, C03
	}
	location, err := h.Get("/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {client.ClientID}, "redirect_uri": {callback}, "scope": {"mcp:tools"}, "state": {"s-1"},
	}.Encode()).Location()
	if err != nil || location.Query().Get("code") == "" || location.Query().Get("state") != "s-1" {
		t.Fatalf("answered at %v, %v", location, err)
	}
	exchange := url.Values{
		"grant_type": {"authorization_code"}, "code": {location.Query().Get("code")}, "redirect_uri": {callback},
		"client_id": {client.ClientID}, "client_secret": {client.ClientSecret},
	}
	var tokens oauth.TokenResponse
	h.Form("/oauth/token", exchange).JSON(t, &tokens)
	if tokens.TokenType != "Bearer" || tokens.ExpiresIn != 3600 || tokens.RefreshToken == "" {
		t.Fatalf("exchanged: %+v", tokens)
	}
	if a := h.Tool(tokens.AccessToken, "echo", `{"message":"hello"}`); !strings.Contains(a.Text, "hello") {
		t.Errorf("called: %s", a.Text)
	}
	refreshed := h.Form("/oauth/token", url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {tokens.RefreshToken}, "client_id": {client.ClientID}, "client_secret": {client.ClientSecret},
	})
	if refreshed.JSON(t, &tokens); h.Tool(tokens.AccessToken, "echo", `{"message":"again"}`).StatusCode != http.StatusOK {
		t.Errorf("refreshed: %s", refreshed.Text)
	}
}

// R408, R419, C29: tokens are JWTs, signed with a key whose public half is
// published; there is no secret that both sides share.
func TestTokensAreSigned(t *testing.T) {
	h := apptest.Start(t, apptest.Dev)
	tokens, client := h.Token("mcp:tools", "")
	parts := strings.Split(tokens.AccessToken, ".")
	if len(parts) != 3 {
		t.Fatal("the token is no JWT")
	}
	var head struct{ Alg, Kid string }
	var claims struct {
		Iss, Aud, Sub, Scope string
		Exp, Iat             int64
		Client               string `json:"client_id"`
	}
	for part, into := range map[string]any{parts[0]: &head, parts[1]: &claims} {
		plain, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || json.Unmarshal(plain, into) != nil {
			t.Fatal(err)
		}
	}
	if claims.Iss != h.URL || claims.Aud != h.URL+"/mcp" || claims.Sub == "" || claims.Exp-claims.Iat != 3600 || claims.Client != client || claims.Scope != "mcp:tools" {
		t.Errorf("claims %+v", claims)
	}
	var set struct{ Keys []map[string]string }
	h.Get("/.well-known/jwks.json").JSON(t, &set)
	found := false
	for _, k := range set.Keys {
		found = found || k["kid"] == head.Kid
		if k["d"] != "" || k["kty"] == "oct" {
			t.Error("a secret is published")
		}
	}
	if !found || head.Alg != "ES256" {
		t.Errorf("header %+v, keys %v", head, set.Keys)
	}
}

// What the demonstration may do is the demonstration's alone (attack 18, C03, C09).
func TestNobodyElseGetsASecretOrOmitsPKCE(t *testing.T) {
	ask := func(h *apptest.House, id, redirect string) string {
		location, err := h.Get("/oauth/authorize?" + url.Values{"response_type": {"code"}, "client_id": {id}, "redirect_uri": {redirect}}.Encode()).Location()
		if err != nil {
			return "a page"
		}
		return location.Query().Get("error")
	}
	register := func(h *apptest.House, members string) (r oauth.Registration) {
		h.PostJSON("/oauth/register", `{"client_name":"x",`+members+`}`).JSON(t, &r)
		return r
	}
	poc := apptest.Start(t, demonstration)
	plain := apptest.Start(t, apptest.Dev)
	for name, c := range map[string]struct {
		house    *apptest.House
		members  string
		redirect string
	}{
		"a public client":               {poc, `"token_endpoint_auth_method":"none","redirect_uris":["` + callback + `"]`, callback},
		"a client on the web":           {poc, `"redirect_uris":["https://app.example/callback"]`, "https://app.example/callback"},
		"one that is here and there":    {poc, `"redirect_uris":["` + callback + `","https://app.example/callback"]`, callback},
		"a demonstration, without poc":  {plain, `"redirect_uris":["` + callback + `"]`, callback},
		"a confidential one, without":   {plain, `"token_endpoint_auth_method":"client_secret_post","redirect_uris":["` + callback + `"]`, callback},
		"one with a method, without it": {plain, `"token_endpoint_auth_method":"client_secret_basic","redirect_uris":["` + callback + `"]`, callback},
	} {
		r := register(c.house, c.members)
		if asked := strings.Contains(c.members, "client_secret"); (r.ClientSecret != "") != asked {
			t.Errorf("%s: secret %t", name, r.ClientSecret != "")
		}
		if fault := ask(c.house, r.ClientID, c.redirect); fault != "invalid_request" {
			t.Errorf("%s, without PKCE: %q", name, fault)
		}
	}
}

// A code that was got without PKCE still needs the secret, and none that was got
// with it can be redeemed without the verifier.
func TestCodeOfADemonstrationIsWorthNothingWithoutItsSecret(t *testing.T) {
	h := apptest.Start(t, demonstration)
	var client oauth.Registration
	h.PostJSON("/register", `{"redirect_uris":["`+callback+`"]}`).JSON(t, &client)
	code := func(change url.Values) string {
		query := url.Values{"client_id": {client.ClientID}, "redirect_uri": {callback}}
		for name, values := range change {
			query[name] = values
		}
		location, err := h.Get("/oauth/authorize?" + query.Encode()).Location()
		if err != nil || location.Query().Get("code") == "" {
			t.Fatal("no code")
		}
		return location.Query().Get("code")
	}
	redeem := func(code string, change url.Values) string {
		form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {client.ClientID}, "client_secret": {client.ClientSecret}}
		for name, values := range change {
			form[name] = values
		}
		return h.Form("/oauth/token", form).Error()
	}
	verifier := oauth.NewVerifier()
	with := code(url.Values{"code_challenge": {oauth.Challenge(verifier)}, "code_challenge_method": {"S256"}})
	if fault := redeem(with, nil); fault != "invalid_grant" {
		t.Errorf("with a challenge, without a verifier: %q", fault)
	}
	if fault := redeem(with, url.Values{"code_verifier": {verifier}}); fault != "" {
		t.Errorf("with both: %q", fault)
	}
	without := code(nil)
	if fault := redeem(without, url.Values{"client_secret": {""}}); fault != "invalid_client" {
		t.Errorf("without the secret: %q", fault)
	}
	if fault := redeem(without, url.Values{"code_verifier": {verifier}}); fault != "invalid_grant" {
		t.Errorf("a verifier without a challenge: %q", fault)
	}
	if fault := redeem(without, nil); fault != "" {
		t.Errorf("as it should be: %q", fault)
	}
}
