package authserver_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// asker is somebody who may ask about tokens.
type asker struct{ ID, Secret string }

// ask asks about a token, with the credentials in the header.
func (h house) ask(a asker, token string, headers ...string) apptest.Answer {
	h.t.Helper()
	r := h.Request(http.MethodPost, "/oauth/introspect", url.Values{"token": {token}}.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...)
	r.SetBasicAuth(a.ID, a.Secret)
	return h.Do(r)
}

// introspector adds one for an endpoint.
func (h house) introspector(endpoint string) (a asker) {
	h.t.Helper()
	answer := h.Admin("add_introspector", `{"name":"test","endpoint":"`+endpoint+`"}`)
	if answer.JSON(h.t, &a); a.ID == "" || a.Secret == "" {
		h.t.Fatalf("%d %s", answer.StatusCode, answer.Text)
	}
	return a
}

// secretTokens are those of a confidential client.
func (h house) secretTokens(r oauth.Registration) (tokens oauth.TokenResponse) {
	h.t.Helper()
	code, verifier := h.Code(r.ClientID, nil)
	h.Redeem(r.ClientID, code, verifier, with("client_secret", r.ClientSecret)).JSON(h.t, &tokens)
	if tokens.RefreshToken == "" {
		h.t.Fatal("no tokens")
	}
	return tokens
}

const inactive = `{"active":false}`

// R417: a client that proves who it is learns of its own tokens what they are worth,
// in either form of access token; an introspector of those for its endpoint.
func TestIntrospectionSaysWhatATokenIs(t *testing.T) {
	for name, format := range map[string]func(*app.Config){"jwt": func(*app.Config) {}, "opaque": func(c *app.Config) { c.OpaqueTokens = []string{"all"} }} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, h house) {
				client := h.confidential("client_secret_basic")
				own, guard := asker{client.ClientID, client.ClientSecret}, h.introspector("mcp")
				tokens := h.secretTokens(client)
				for who, a := range map[string]asker{"client": own, "introspector": guard} {
					var i oauth.Introspection
					answer := h.ask(a, tokens.AccessToken)
					answer.JSON(t, &i)
					if !i.Active || i.Client != client.ClientID || i.Audience != h.URL+"/mcp" || i.Issuer != h.URL || i.Subject == "" || i.ID == "" ||
						i.TokenType != "Bearer" || i.Scope != tokens.Scope || i.Expires-i.Issued != 3600 {
						t.Errorf("%s: %s", who, answer.Text)
					}
					if answer.Header.Get("Cache-Control") != "no-store" || answer.Header.Get("Content-Type") != "application/json" {
						t.Errorf("%s: %v", who, answer.Header)
					}
				}
				var i oauth.Introspection
				answer := h.ask(own, tokens.RefreshToken)
				if answer.JSON(t, &i); !i.Active || i.TokenType != "" || i.Client != client.ClientID || i.Scope == "" || i.Expires == 0 {
					t.Errorf("refresh token: %s", answer.Text)
				}
				if a := h.ask(guard, tokens.RefreshToken); strings.TrimSpace(a.Text) != inactive {
					t.Errorf("an introspector sees a refresh token: %s", a.Text)
				}
				h.Form("/oauth/revoke", with("token", tokens.RefreshToken, "client_id", client.ClientID, "client_secret", client.ClientSecret))
				for _, token := range []string{tokens.AccessToken, tokens.RefreshToken} {
					for _, a := range []asker{own, guard} {
						if a := h.ask(a, token); a.StatusCode != http.StatusOK || strings.TrimSpace(a.Text) != inactive {
							t.Errorf("revoked: %d %s", a.StatusCode, a.Text)
						}
					}
				}
				later := h.secretTokens(client)
				h.SQL(`UPDATE member SET status = 'suspended'`)
				for _, token := range []string{later.AccessToken, later.RefreshToken} {
					if a := h.ask(own, token); strings.TrimSpace(a.Text) != inactive {
						t.Errorf("of somebody who is no member: %s", a.Text)
					}
				}
			}, apptest.Dev, format)
		})
	}
}

// Attack 124: nobody learns anything without credentials, of others' tokens, or of
// tokens for another endpoint.
func TestIntrospectionTellsOthersNothing(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.confidential("client_secret_post")
		tokens := h.secretTokens(client)
		public := h.Register()
		publics := h.tokens(public, nil)
		other := h.confidential("client_secret_basic")
		elsewhere := h.introspector("gatehouse")
		guard := h.introspector("mcp")
		spent := h.secretTokens(client)
		h.Form("/oauth/token", with("grant_type", "refresh_token", "refresh_token", spent.RefreshToken, "client_id", client.ClientID, "client_secret", client.ClientSecret))
		own := asker{client.ClientID, client.ClientSecret}

		for name, a := range map[string]apptest.Answer{
			"another client, access":        h.ask(asker{other.ClientID, other.ClientSecret}, tokens.AccessToken),
			"another client, refresh":       h.ask(asker{other.ClientID, other.ClientSecret}, tokens.RefreshToken),
			"a guard of another endpoint":   h.ask(elsewhere, tokens.AccessToken),
			"a guard, refresh":              h.ask(guard, tokens.RefreshToken),
			"nonsense":                      h.ask(own, "nonsense"),
			"a JWT of another":              h.ask(own, "eyJhbGciOiJub25lIn0.e30."),
			"a code":                        h.ask(own, "code_01ARZ3NDEKTSV4RRFFQ69G5FAV.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
			"its secret":                    h.ask(own, client.ClientSecret),
			"another's token with own hint": h.Form("/oauth/introspect", with("token", publics.AccessToken, "token_type_hint", "access_token", "client_id", client.ClientID, "client_secret", client.ClientSecret)),
		} {
			if a.StatusCode != http.StatusOK || strings.TrimSpace(a.Text) != inactive {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
			}
		}
		for name, a := range map[string]apptest.Answer{
			"nobody":                         h.Form("/oauth/introspect", with("token", tokens.AccessToken)),
			"a public client, its own token": h.Form("/oauth/introspect", with("token", publics.AccessToken, "client_id", public)),
			"a wrong secret":                 h.ask(asker{client.ClientID, other.ClientSecret}, tokens.AccessToken),
			"no secret":                      h.Form("/oauth/introspect", with("token", tokens.AccessToken, "client_id", client.ClientID)),
			"a guard without its secret":     h.ask(asker{guard.ID, elsewhere.Secret}, tokens.AccessToken),
			"a guard that is none":           h.ask(asker{"rs_01ARZ3NDEKTSV4RRFFQ69G5FAV", guard.Secret}, tokens.AccessToken),
			"the token itself":               h.Form("/oauth/introspect", with("token", tokens.AccessToken), "Authorization: Bearer "+tokens.AccessToken),
		} {
			refused(t, a, oauth.InvalidClient)
			if strings.Contains(a.Text, "active") {
				t.Errorf("%s: %s", name, a.Text)
			}
		}
		refused(t, h.ask(own, ""), oauth.InvalidRequest)
		refused(t, h.Form("/oauth/introspect?token=x", with("token", "x")), oauth.InvalidRequest)

		// An introspector is nobody elsewhere.
		for _, path := range []string{"/oauth/token", "/oauth/revoke", "/oauth/par"} {
			form := with("grant_type", "client_credentials", "token", "x", "client_id", guard.ID, "client_secret", guard.Secret)
			refused(t, h.Form(path, form), oauth.InvalidClient)
		}
		if a := h.Admin("remove_introspector", `{"id":"`+guard.ID+`"}`); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		refused(t, h.ask(guard, tokens.AccessToken), oauth.InvalidClient)
		if a := h.Admin("remove_introspector", `{"id":"`+guard.ID+`"}`); a.StatusCode != http.StatusNotFound {
			t.Errorf("again: %d %s", a.StatusCode, a.Text)
		}
		for _, endpoint := range []string{"", "nobody", "mcp/../gatehouse"} {
			if a := h.Admin("add_introspector", `{"name":"x","endpoint":"`+endpoint+`"}`); a.StatusCode != http.StatusNotFound {
				t.Errorf("%q: %d %s", endpoint, a.StatusCode, a.Text)
			}
		}
	}, apptest.Dev)
}

// RFC 9701: who asks for it gets a signed answer, made for it alone, which is no
// access token.
func TestSignedIntrospection(t *testing.T) {
	h := start(t, apptest.Dev)
	guard := h.introspector("mcp")
	tokens := h.tokens(h.Register(), nil)
	var m oauth.ServerMetadata
	h.Get("/.well-known/oauth-authorization-server").JSON(t, &m)
	if m.IntrospectionEndpoint != h.URL+"/oauth/introspect" || !slices.Equal(m.IntrospectionAlgs, []string{"ES256"}) || slices.Contains(m.IntrospectionMethods, "none") || len(m.IntrospectionMethods) < 2 {
		t.Errorf("%+v", m)
	}
	var set jose.JSONWebKeySet
	h.Get("/.well-known/jwks.json").JSON(t, &set)
	for token, active := range map[string]bool{tokens.AccessToken: true, "nonsense": false} {
		a := h.ask(guard, token, "Accept: text/html, application/token-introspection+jwt;q=1")
		if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/token-introspection+jwt" || a.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %v %s", a.StatusCode, a.Header, a.Text)
		}
		parsed, err := jwt.ParseSigned(a.Text, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		var c oauth.SignedIntrospection
		if err := parsed.Claims(set.Key(parsed.Headers[0].KeyID)[0].Key, &c); err != nil {
			t.Fatal(err)
		}
		if c.Issuer != h.URL || c.Audience != guard.ID || c.Issued == 0 || c.Introspection.Active != active || parsed.Headers[0].ExtraHeaders["typ"] != "token-introspection+jwt" {
			t.Errorf("%+v", c)
		}
		if h.works(a.Text) {
			t.Error("the answer opens the door")
		}
	}
	if a := h.ask(guard, tokens.AccessToken, "Accept: application/json"); a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", a.Header)
	}
}

func BenchmarkIntrospect(b *testing.B) {
	h := apptest.Start(b, apptest.Dev)
	tokens, _ := h.Token("", "")
	var guard asker
	h.Admin("add_introspector", `{"name":"bench","endpoint":"mcp"}`).JSON(b, &guard)
	form := url.Values{"token": {tokens.AccessToken}}.Encode()
	for b.Loop() {
		r := h.Request(http.MethodPost, "/oauth/introspect", form, "Content-Type: application/x-www-form-urlencoded")
		r.SetBasicAuth(guard.ID, guard.Secret)
		if a := h.Do(r); !strings.HasPrefix(a.Text, `{"active":true`) {
			b.Fatal(a.Text)
		}
	}
}
