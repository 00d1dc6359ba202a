package authserver_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth/oauthtest"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// proving posts a form with a proof.
func (h house) proving(path string, key oauthtest.Key, form url.Values, change map[string]any) apptest.Answer {
	h.t.Helper()
	return h.Form(path, form, "DPoP: "+key.Proof(http.MethodPost, h.URL+path, "", change))
}

// exchanging is the form that redeems a code.
func exchanging(client, code, verifier string) url.Values {
	return with("grant_type", "authorization_code", "client_id", client, "code", code, "code_verifier", verifier, "redirect_uri", apptest.Callback)
}

func refreshing(client, refresh string) url.Values {
	return with("grant_type", "refresh_token", "client_id", client, "refresh_token", refresh)
}

// bound are tokens of a new public client that are bound to a key.
func (h house) bound(key oauthtest.Key) (tokens oauth.TokenResponse, client string) {
	h.t.Helper()
	client = h.Register()
	code, verifier := h.Code(client, nil)
	a := h.proving("/oauth/token", key, exchanging(client, code, verifier), nil)
	if a.JSON(h.t, &tokens); tokens.AccessToken == "" || tokens.TokenType != "DPoP" {
		h.t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	return tokens, client
}

// listing asks the common endpoint for its tools, with a token under a scheme and a
// proof, if there is one.
func (h house) listing(scheme, token, proof string) apptest.Answer {
	h.t.Helper()
	headers := []string{"Authorization: " + scheme + " " + token}
	if proof != "" {
		headers = append(headers, "DPoP: "+proof)
	}
	return h.RPC("/mcp", "", "tools/list", "", headers...)
}

// RFC 9449: a client that proves to have a key gets tokens that nobody without it
// can use, at every door, in either form of token.
func TestTokensAreBoundToAKey(t *testing.T) {
	for name, format := range map[string]func(*app.Config){"jwt": func(*app.Config) {}, "opaque": func(c *app.Config) { c.OpaqueTokens = []string{"all"} }} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, h house) {
				key, thief := oauthtest.NewKey(t, "ES256"), oauthtest.NewKey(t, "ES256")
				tokens, client := h.bound(key)
				if name == "jwt" {
					var claims struct{ Cnf struct{ JKT string } }
					plain, _ := base64.RawURLEncoding.DecodeString(strings.Split(tokens.AccessToken, ".")[1])
					if err := json.Unmarshal(plain, &claims); err != nil || claims.Cnf.JKT != key.Thumbprint() {
						t.Errorf("%s %v", plain, err)
					}
				}
				prove := func(k oauthtest.Key) string { return k.Proof(http.MethodPost, h.URL+"/mcp", tokens.AccessToken, nil) }
				for range 2 { // verified, then remembered
					if a := h.listing("DPoP", tokens.AccessToken, prove(key)); a.StatusCode != http.StatusOK {
						t.Errorf("%d %s", a.StatusCode, a.Text)
					}
				}
				rest := key.Proof(http.MethodGet, h.URL+"/mcp/tools", tokens.AccessToken, nil)
				if a := h.Get("/mcp/tools", "Authorization: dpop "+tokens.AccessToken, "DPoP: "+rest); a.StatusCode != http.StatusOK {
					t.Errorf("REST: %d %s", a.StatusCode, a.Text)
				}
				used := prove(key)
				h.listing("DPoP", tokens.AccessToken, used)
				for name, row := range map[string]struct {
					answer apptest.Answer
					error  string
				}{
					"as a bearer token":           {h.listing("Bearer", tokens.AccessToken, ""), oauth.InvalidToken},
					"as one, with a proof":        {h.listing("Bearer", tokens.AccessToken, prove(key)), oauth.InvalidToken},
					"without a proof":             {h.listing("DPoP", tokens.AccessToken, ""), oauth.InvalidProof},
					"with a thief's proof":        {h.listing("DPoP", tokens.AccessToken, prove(thief)), oauth.InvalidProof},
					"with a used proof":           {h.listing("DPoP", tokens.AccessToken, used), oauth.InvalidProof},
					"with a proof without a hash": {h.listing("DPoP", tokens.AccessToken, key.Proof(http.MethodPost, h.URL+"/mcp", "", nil)), oauth.InvalidProof},
					"with a proof for REST":       {h.listing("DPoP", tokens.AccessToken, key.Proof(http.MethodPost, h.URL+"/mcp/tools", tokens.AccessToken, nil)), oauth.InvalidProof},
				} {
					var dpop *oauth.AuthChallenge
					challenges := oauth.ParseChallenges(row.answer.Header.Values("WWW-Authenticate"))
					for i := range challenges {
						if challenges[i].Scheme == "dpop" {
							dpop = &challenges[i]
						}
					}
					if row.answer.StatusCode != http.StatusUnauthorized || len(challenges) != 2 || dpop == nil || dpop.Params["error"] != row.error ||
						dpop.Params["algs"] != "ES256 EdDSA PS256 RS256" || challenges[0].ResourceMetadata() == "" {
						t.Errorf("%s: %d %q", name, row.answer.StatusCode, row.answer.Header.Values("WWW-Authenticate"))
					}
				}
				plain, _ := h.Token("", "")
				if a := h.listing("DPoP", plain.AccessToken, key.Proof(http.MethodPost, h.URL+"/mcp", plain.AccessToken, nil)); a.StatusCode != http.StatusUnauthorized {
					t.Errorf("a token that is bound to no key, with a proof: %d %s", a.StatusCode, a.Text)
				}
				if a := h.listing("Bearer", plain.AccessToken, ""); a.StatusCode != http.StatusOK {
					t.Errorf("a bearer token: %d %s", a.StatusCode, a.Text)
				}

				refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant)
				refused(t, h.proving("/oauth/token", thief, refreshing(client, tokens.RefreshToken), nil), oauth.InvalidGrant)
				var renewed oauth.TokenResponse
				h.proving("/oauth/token", key, refreshing(client, tokens.RefreshToken), nil).JSON(t, &renewed)
				if a := h.listing("DPoP", renewed.AccessToken, key.Proof(http.MethodPost, h.URL+"/mcp", renewed.AccessToken, nil)); renewed.TokenType != "DPoP" || a.StatusCode != http.StatusOK {
					t.Errorf("%+v: %d %s", renewed, a.StatusCode, a.Text)
				}
				var i oauth.Introspection
				if h.ask(h.introspector("mcp"), renewed.AccessToken).JSON(t, &i); i.TokenType != "DPoP" || i.Confirm == nil || i.Confirm.Key != key.Thumbprint() {
					t.Errorf("%+v", i)
				}
			}, apptest.Dev, format)
		})
	}
}

// RFC 9449 §5: whatever the grant, what is issued to a client that proves to have a key
// is bound to it; and a bound token is exchanged by who has its key alone.
func TestEveryGrantBindsItsTokens(t *testing.T) {
	h := start(t)
	b := h.Browser()
	b.SetUp()
	key := oauthtest.NewKey(t, "ES256")
	bound := func(grant string, a apptest.Answer) (tokens oauth.TokenResponse) {
		t.Helper()
		if a.JSON(t, &tokens); tokens.TokenType != "DPoP" {
			t.Fatalf("%s: %d %s", grant, a.StatusCode, a.Text)
		}
		if cnf, _ := payload(t, tokens.AccessToken)["cnf"].(map[string]any); cnf["jkt"] != key.Thumbprint() {
			t.Errorf("%s: %v", grant, payload(t, tokens.AccessToken))
		}
		return tokens
	}
	a := h.account("robot", "echo", "")
	bound("client_credentials", h.proving("/oauth/token", key, a.asks(nil), nil))

	client := h.screenless()
	d := h.device(client, nil)
	h.decide(b, h.typed(b, d.UserCode), "allow")
	tokens := bound("device_code", h.proving("/oauth/token", key, with("grant_type", deviceGrant, "client_id", client, "device_code", d.DeviceCode), nil))
	refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant)
	bound("refresh_token", h.proving("/oauth/token", key, refreshing(client, tokens.RefreshToken), nil))
}

func TestBoundTokensAreExchangedWithTheirKey(t *testing.T) {
	h := start(t, apptest.Dev)
	key := oauthtest.NewKey(t, "ES256")
	app := h.exchanger()
	code, verifier := h.Code(app.ClientID, nil)
	form := exchanging(app.ClientID, code, verifier)
	form.Set("client_secret", app.ClientSecret)
	var tokens oauth.TokenResponse
	h.proving("/oauth/token", key, form, nil).JSON(t, &tokens)
	subject := exchange(app, tokens.AccessToken, nil)
	refused(t, h.Form("/oauth/token", subject), oauth.InvalidRequest)
	refused(t, h.proving("/oauth/token", oauthtest.NewKey(t, "ES256"), subject, nil), oauth.InvalidRequest)
	var less oauth.TokenResponse
	if a := h.proving("/oauth/token", key, subject, nil); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	} else if a.JSON(t, &less); less.TokenType != "DPoP" {
		t.Errorf("%s", a.Text)
	}
}

// RFC 9449 §5: the refresh tokens of a confidential client are bound to the client,
// which may change its key.
func TestConfidentialClientChangesItsKey(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.confidential("client_secret_post")
	code, verifier := h.Code(client.ClientID, nil)
	form := exchanging(client.ClientID, code, verifier)
	form.Set("client_secret", client.ClientSecret)
	var tokens oauth.TokenResponse
	h.proving("/oauth/token", oauthtest.NewKey(t, "ES256"), form, nil).JSON(t, &tokens)
	key := oauthtest.NewKey(t, "EdDSA")
	form = refreshing(client.ClientID, tokens.RefreshToken)
	form.Set("client_secret", client.ClientSecret)
	var renewed oauth.TokenResponse
	h.proving("/oauth/token", key, form, nil).JSON(t, &renewed)
	if a := h.listing("DPoP", renewed.AccessToken, key.Proof(http.MethodPost, h.URL+"/mcp", renewed.AccessToken, nil)); a.StatusCode != http.StatusOK {
		t.Errorf("%+v: %d %s", renewed, a.StatusCode, a.Text)
	}
}

// Attack 94, 95: a proof that is not good for the token endpoint gets nothing and
// spends nothing; a good one is good once.
func TestBadProofsGetNoTokens(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		key := oauthtest.NewKey(t, "ES256")
		client := h.Register()
		code, verifier := h.Code(client, nil)
		form := exchanging(client, code, verifier)
		good := key.Proof(http.MethodPost, h.URL+"/oauth/token", "", nil)
		for name, headers := range map[string][]string{
			"two proofs":      {"DPoP: " + good, "DPoP: " + key.Proof(http.MethodPost, h.URL+"/oauth/token", "", nil)},
			"an empty one":    {"DPoP: "},
			"another address": {"DPoP: " + key.Proof(http.MethodPost, h.URL+"/mcp/token", "", nil)},
			"another method":  {"DPoP: " + key.Proof(http.MethodGet, h.URL+"/oauth/token", "", nil)},
			"a private key":   {"DPoP: " + key.Proof(http.MethodPost, h.URL+"/oauth/token", "", map[string]any{"#jwk": key.JWK(true)})},
		} {
			h.unchanged(t, func() {
				if a := h.Form("/oauth/token", form, headers...); a.Error() != oauth.InvalidProof {
					t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
				}
			})
		}
		h.unchanged(t, func() { // a mistake of the client does not cost it the proof
			refused(t, h.Form("/oauth/token", exchanging(client, "code_x", verifier), "DPoP: "+good), oauth.InvalidGrant)
		})
		first := h.Form("/oauth/token", form, "DPoP: "+good)
		if first.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", first.StatusCode, first.Text)
		}
		code, verifier = h.Code(client, nil)
		h.unchanged(t, func() {
			refused(t, h.Form("/oauth/token", exchanging(client, code, verifier), "DPoP: "+good), oauth.InvalidProof)
		})
		if a := h.proving("/oauth/token", key, exchanging(client, code, verifier), nil); a.StatusCode != http.StatusOK {
			t.Errorf("the code was spent: %d %s", a.StatusCode, a.Text)
		}
		for _, prefix := range []string{"/mcp", ""} { // each address of the endpoint is one
			code, verifier = h.Code(client, nil)
			if a := h.proving(prefix+"/token", key, exchanging(client, code, verifier), nil); a.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", prefix, a.StatusCode, a.Text)
			}
		}
	}, apptest.Dev)
}

// Attack 96: a code that the client bound to a key is redeemed with that key alone,
// whether it said so itself or proved it when it pushed the request.
func TestCodesAreBoundToAKey(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		key, thief := oauthtest.NewKey(t, "ES256"), oauthtest.NewKey(t, "ES256")
		client := h.Register()
		redeem := func(code, verifier string) {
			t.Helper()
			form := exchanging(client, code, verifier)
			h.unchanged(t, func() {
				refused(t, h.Form("/oauth/token", form), oauth.InvalidGrant)
				refused(t, h.proving("/oauth/token", thief, form, nil), oauth.InvalidGrant)
			})
			if a := h.proving("/oauth/token", key, form, nil); a.StatusCode != http.StatusOK {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		redeem(h.Code(client, with("dpop_jkt", key.Thumbprint())))

		query, verifier := h.Authorization(client, nil)
		var pushed oauth.PushedResponse
		h.proving("/oauth/par", key, query, nil).JSON(t, &pushed)
		location, err := h.authorize(with("client_id", client, "request_uri", pushed.RequestURI)).Location()
		if err != nil {
			t.Fatal(err)
		}
		redeem(location.Query().Get("code"), verifier)

		query, _ = h.Authorization(client, with("dpop_jkt", thief.Thumbprint()))
		refused(t, h.proving("/oauth/par", key, query, nil), oauth.InvalidRequest)
		query, _ = h.Authorization(client, with("dpop_jkt", "short"))
		if location, _ := h.authorize(query).Location(); location == nil || location.Query().Get("error") != oauth.InvalidRequest {
			t.Errorf("%v", location)
		}
	}, apptest.Dev)
}

// RFC 9449 §8, §9: where nonces are wanted, a proof without one is told which, and
// what the answer gives is good at both servers.
func TestProofsNeedANonce(t *testing.T) {
	h := start(t, apptest.Dev, func(c *app.Config) { c.NeedNonce, c.FailureLimit = true, throttle.Limit{Each: 2, Per: day} })
	key := oauthtest.NewKey(t, "ES256")
	client := h.Register()
	code, verifier := h.Code(client, nil)
	form := exchanging(client, code, verifier)
	for _, nonce := range []any{nil, "made-up", ""} {
		a := h.proving("/oauth/token", key, form, map[string]any{"nonce": nonce})
		refused(t, a, oauth.UseNonce)
		if a.Header.Get("DPoP-Nonce") == "" {
			t.Errorf("%v: %v", nonce, a.Header)
		}
	}
	nonce := h.proving("/oauth/token", key, form, nil).Header.Get("DPoP-Nonce")
	a := h.proving("/oauth/token", key, form, map[string]any{"nonce": nonce})
	var tokens oauth.TokenResponse
	a.JSON(t, &tokens)
	next := a.Header.Get("DPoP-Nonce")
	if tokens.TokenType != "DPoP" || next == "" {
		t.Fatalf("%d %s %v", a.StatusCode, a.Text, a.Header)
	}
	prove := func(nonce string) apptest.Answer {
		return h.listing("DPoP", tokens.AccessToken, key.Proof(http.MethodPost, h.URL+"/mcp", tokens.AccessToken, map[string]any{"nonce": nonce}))
	}
	refusal := prove("")
	if refusal.StatusCode != http.StatusUnauthorized || !strings.Contains(refusal.Header.Get("WWW-Authenticate"), `error="use_dpop_nonce"`) || refusal.Header.Get("DPoP-Nonce") == "" {
		t.Errorf("%d %v", refusal.StatusCode, refusal.Header)
	}
	for _, nonce := range []string{nonce, next, refusal.Header.Get("DPoP-Nonce")} {
		if a := prove(nonce); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
}

// RFC 9449 §5.1, RFC 9728 §2: both documents say that proofs are read, and the
// endpoints' that none is needed.
func TestDocumentsPromiseProofs(t *testing.T) {
	h := start(t, apptest.Dev)
	var server oauth.ServerMetadata
	h.Get("/.well-known/oauth-authorization-server").JSON(t, &server)
	a := h.Get("/.well-known/oauth-protected-resource/mcp")
	var resource oauth.ResourceMetadata
	if a.JSON(t, &resource); !slices.Equal(server.ProofAlgs, oauth.ProofAlgorithms) || !slices.Equal(resource.ProofAlgs, oauth.ProofAlgorithms) ||
		!strings.Contains(a.Text, `"dpop_bound_access_tokens_required":false`) {
		t.Errorf("%v %s", server.ProofAlgs, a.Text)
	}
	preflight := h.Do(h.Request(http.MethodOptions, "/oauth/token", ""))
	if !strings.Contains(preflight.Header.Get("Access-Control-Allow-Headers"), "DPoP") || !strings.Contains(preflight.Header.Get("Access-Control-Expose-Headers"), "DPoP-Nonce") {
		t.Errorf("%v", preflight.Header)
	}
}
