package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// signer is a client that proves itself with a key.
type signer struct {
	id           string
	alg          jose.SignatureAlgorithm
	key          any
	registration oauth.Registration
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// published is the JWK Set of a key.
func published(key *ecdsa.PrivateKey) string {
	set, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Use: "sig"}}}) // a public key
	return string(set)
}

// signing registers an app that signs.
func (h house) signing(t *testing.T) signer {
	t.Helper()
	key := newKey(t)
	r := h.register(`{"client_name":"Key app","redirect_uris":["` + apptest.Callback + `"],"token_endpoint_auth_method":"private_key_jwt","jwks":` + published(key) + `}`)
	return signer{r.ClientID, jose.ES256, key, r}
}

// sign makes an assertion in order, with the claims of change in place of its own; nil
// leaves one out.
func (s signer) sign(t *testing.T, issuer string, change map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{"iss": s.id, "sub": s.id, "aud": issuer, "iat": now, "exp": now + 60, "jti": rand.Text()}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return s.signAs(t, "JWT", claims)
}

// signAs signs claims as they are, under a type.
func (s signer) signAs(t *testing.T, typ string, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	with, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: s.key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := with.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// proof are the parameters with which it authenticates.
func (s signer) proof(t *testing.T, issuer string, change map[string]any) url.Values {
	t.Helper()
	return with("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_assertion", s.sign(t, issuer, change))
}

type account struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// account makes a service account. extra are further members of what is asked for.
func (h house) account(name, tools, extra string) (a account) {
	h.t.Helper()
	list, _ := json.Marshal(strings.Fields(tools)) // strings
	answer := h.Admin("create_service_account", `{"name":"`+name+`","allowed_tools":`+string(list)+extra+`}`)
	answer.JSON(h.t, &a)
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(a.ID, "svc_") || (a.Secret == "") != (extra != "") {
		h.t.Fatalf("no service account: %d %s", answer.StatusCode, answer.Text)
	}
	return a
}

// asks is the request of a service account for a token.
func (a account) asks(change url.Values) url.Values {
	form := with("grant_type", "client_credentials", "client_id", a.ID, "client_secret", a.Secret)
	for name, values := range change {
		form[name] = values
	}
	return form
}

// machineToken is an access token of a service account.
func (h house) machineToken(form url.Values) (tokens oauth.TokenResponse) {
	h.t.Helper()
	a := h.Form("/oauth/token", form)
	a.JSON(h.t, &tokens)
	if a.StatusCode != http.StatusOK || tokens.AccessToken == "" || tokens.TokenType != "Bearer" || tokens.ExpiresIn != 3600 {
		h.t.Fatalf("no token: %d %s", a.StatusCode, a.Text)
	}
	if tokens.RefreshToken != "" {
		h.t.Error("RFC 6749 §4.4.3: it got a refresh token")
	}
	return tokens
}

func (h house) tools(path, access string) (names []string) {
	h.t.Helper()
	var answer struct {
		Result struct {
			Tools []struct{ Name string }
		}
	}
	h.RPC(path, access, "tools/list", "{}").JSON(h.t, &answer)
	for _, d := range answer.Result.Tools {
		names = append(names, d.Name)
	}
	return names
}

// R414, R620, R622: a service account gets a token with its secret, in the body or
// the header, for what its tools need, and can use those and nothing else.
func TestAServiceAccountActsForItself(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		a := h.account("nightly", "echo list_audit_events", "")
		tokens := h.machineToken(a.asks(nil))
		if tokens.Scope != "" {
			t.Errorf("scopes at /mcp, where its one tool needs none: %q", tokens.Scope)
		}
		if got := h.tools("/mcp", tokens.AccessToken); !slices.Equal(got, []string{"echo", "public_info"}) {
			t.Errorf("tools at /mcp: %v", got)
		}
		if answer := h.Tool(tokens.AccessToken, "echo", `{"message":"hi"}`); answer.StatusCode != http.StatusOK {
			t.Errorf("its tool: %d %s", answer.StatusCode, answer.Text)
		}
		if answer := h.Tool(tokens.AccessToken, "whoami", "{}"); !strings.Contains(answer.Text, "TOOL_NOT_ALLOWED") {
			t.Errorf("another tool: %d %s", answer.StatusCode, answer.Text)
		}
		control := h.machineToken(a.asks(with("resource", h.URL+"/s/gatehouse/mcp", "scope", "mcp:admin")))
		if control.Scope != "audit:read" {
			t.Errorf("asked for everything, got %q", control.Scope)
		}
		if got := h.tools("/s/gatehouse/mcp", control.AccessToken); !slices.Equal(got, []string{"list_audit_events"}) {
			t.Errorf("tools at /s/gatehouse/mcp: %v", got)
		}
		basic := h.Form("/oauth/token", with("grant_type", "client_credentials"), "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(a.ID+":"+a.Secret)))
		if basic.StatusCode != http.StatusOK {
			t.Errorf("by header: %d %s", basic.StatusCode, basic.Text)
		}
		if n := h.Count(`SELECT count(*) FROM audit_event WHERE actor = $1 AND action = 'token.issue'`, "service:"+a.ID); n != 3 {
			t.Errorf("%d tokens of it on record, want 3", n)
		}
		if n := h.Count(`SELECT count(*) FROM audit_event WHERE actor = $1 AND target = 'echo' AND outcome = 'allowed'`, "service:"+a.ID); n != 1 {
			t.Errorf("%d calls of it on record", n)
		}
		if list := h.Admin("list_service_accounts", "{}"); !strings.Contains(list.Text, `"last_used"`) || strings.Contains(list.Text, a.Secret) {
			t.Errorf("the list: %s", list.Text)
		}
	})
}

// R622: at the endpoint of one server tools have their own names, and the list means
// the same ones; another server's are not there.
func TestAServiceAccountAtTheEndpointOfAServer(t *testing.T) {
	h := start(t)
	h.Add("files", apptest.NewUpstream(t))
	h.Add("other", apptest.NewUpstream(t))
	writer := h.account("writer", "files_read files_write", "").asks(with("resource", h.URL+"/s/files/mcp"))
	if got := h.tools("/s/files/mcp", h.machineToken(writer).AccessToken); !slices.Equal(got, []string{"read", "write"}) {
		t.Errorf("tools at its own endpoint: %v", got)
	}
	reader := h.account("reader", "files_read", "")
	tokens := h.machineToken(reader.asks(nil))
	if got := h.tools("/mcp", tokens.AccessToken); tokens.Scope != "files:read" || !slices.Equal(got, []string{"files_read", "public_info"}) {
		t.Errorf("%q: %v", tokens.Scope, got)
	}
	refused(t, h.Form("/oauth/token", reader.asks(with("resource", h.URL+"/s/other/mcp"))), oauth.InvalidTarget)
}

// R620: what is changed of a service account ends the tokens that it has at once,
// and what it may do from then on is what was said last.
func TestAServiceAccountThatChangesLosesItsTokens(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		a := h.account("nightly", "whoami", "")
		holds := func() string { t.Helper(); return h.machineToken(a.asks(nil)).AccessToken }
		for _, change := range []struct {
			name, tool, args string
			then             string // the error of the next request for a token; none if it works
		}{
			{"another list", "change_service_account", `,"allowed_tools":["whoami","echo"]`, ""},
			{"off", "change_service_account", `,"active":false`, oauth.InvalidClient},
			{"on", "change_service_account", `,"active":true`, ""},
			{"another secret", "rotate_service_account_secret", ``, oauth.InvalidClient},
			{"removed", "remove_service_account", ``, oauth.InvalidClient},
		} {
			access := ""
			if change.name != "on" {
				if access = holds(); !h.works(access) {
					t.Fatalf("before %s the token does not work", change.name)
				}
			}
			answer := h.Admin(change.tool, `{"id":"`+a.ID+`"`+change.args+`}`)
			if answer.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %s", change.name, answer.StatusCode, answer.Text)
			}
			if access != "" && h.works(access) {
				t.Errorf("%s: the token from before works", change.name)
			}
			if change.then == "" {
				if !h.works(holds()) {
					t.Errorf("%s: a new token does not work", change.name)
				}
				continue
			}
			refused(t, h.Form("/oauth/token", a.asks(nil)), change.then)
			if change.name == "another secret" {
				answer.JSON(t, &a)
			}
		}
		if answer := h.Admin("change_service_account", `{"id":"`+a.ID+`","active":true}`); answer.StatusCode != http.StatusNotFound {
			t.Errorf("one that is gone is switched on: %d %s", answer.StatusCode, answer.Text)
		}
	})
}

// R620: a list names tools that are here and that a service account may call, and a
// name is free.
func TestAServiceAccountIsMadeInOrder(t *testing.T) {
	h := start(t)
	h.account("nightly", "echo", "")
	for args, code := range map[string]string{
		`"name":"nightly","allowed_tools":["echo"]`:                                                      "SERVICE_EXISTS",
		`"name":" ","allowed_tools":["echo"]`:                                                            "SERVICE_NAME_UNUSABLE",
		`"name":"a\u202eb","allowed_tools":["echo"]`:                                                     "SERVICE_NAME_UNUSABLE",
		`"name":"` + strings.Repeat("n", 65) + `","allowed_tools":["echo"]`:                              "SERVICE_NAME_UNUSABLE",
		`"name":"x","allowed_tools":[]`:                                                                  "SERVICE_TOOL_UNUSABLE",
		`"name":"x","allowed_tools":["nosuch"]`:                                                          "SERVICE_TOOL_UNUSABLE",
		`"name":"x","allowed_tools":["*"]`:                                                               "SERVICE_TOOL_UNUSABLE",
		`"name":"x","allowed_tools":["echo","echo"]`:                                                     "SERVICE_TOOL_UNUSABLE",
		`"name":"x","allowed_tools":["stop_everything"]`:                                                 "SERVICE_TOOL_UNUSABLE",
		`"name":"x","allowed_tools":["create_service_account"]`:                                          "SERVICE_TOOL_UNUSABLE",
		`"name":"x","allowed_tools":["revoke_signing_key"]`:                                              "SERVICE_TOOL_UNUSABLE",
		`"name":"x","allowed_tools":["echo"],"jwks":{"keys":[]}`:                                         "SERVICE_KEYS_UNUSABLE",
		`"name":"x","allowed_tools":["echo"],"jwks":{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0"}]}`:     "SERVICE_KEYS_UNUSABLE",
		`"name":"x","allowed_tools":["echo"],"jwks":{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`:      "SERVICE_KEYS_UNUSABLE",
		`"name":"x","allowed_tools":["echo"],"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"A","y":1}]}`: "SERVICE_KEYS_UNUSABLE",
		`"name":"x"`: "ARGUMENTS_INVALID",
	} {
		if a := h.Admin("create_service_account", "{"+args+"}"); !strings.Contains(a.Text, code) {
			t.Errorf("%s: want %s, got %d %s", args, code, a.StatusCode, a.Text)
		}
	}
	if n := h.Count(`SELECT count(*) FROM service_account`); n != 1 {
		t.Errorf("%d service accounts", n)
	}
}

// RFC 6749 §4.4, attacks 41, 44, 50: the grant is for service accounts, with what
// they have and nothing less, at an endpoint where they have something to do.
func TestClientCredentialsAreRefused(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		a, other := h.account("nightly", "list_audit_events echo", ""), h.account("other", "list_audit_events", "")
		public, confidential, keyed := h.Register(), h.confidential("client_secret_post"), h.signing(t)
		for _, r := range []struct {
			name string
			form url.Values
			code string
		}{
			{"no secret", with("grant_type", "client_credentials", "client_id", a.ID), oauth.InvalidClient},
			{"the secret of another", with("grant_type", "client_credentials", "client_id", a.ID, "client_secret", other.Secret), oauth.InvalidClient},
			{"a secret that is none", a.asks(with("client_secret", "secret")), oauth.InvalidClient},
			{"an account that is not there", a.asks(with("client_id", "svc_00000000000000000000000000")), oauth.InvalidClient},
			{"attack 44: a public client", with("grant_type", "client_credentials", "client_id", public), oauth.UnauthorizedClient},
			{"a confidential one that acts for people", with("grant_type", "client_credentials", "client_id", confidential.ClientID, "client_secret", confidential.ClientSecret), oauth.UnauthorizedClient},
			{"attack 44: one that signs, without", with("grant_type", "client_credentials", "client_id", keyed.id), oauth.InvalidClient},
			{"attack 44: one that signs, with a secret", with("grant_type", "client_credentials", "client_id", keyed.id, "client_secret", a.Secret), oauth.InvalidClient},
			{"a code, of a service account", a.asks(with("grant_type", "authorization_code", "code", "x")), oauth.UnauthorizedClient},
			{"a refresh token, of a service account", a.asks(with("grant_type", "refresh_token", "refresh_token", "x")), oauth.UnauthorizedClient},
			{"a resource that is not here", a.asks(with("resource", "https://other.example/mcp")), oauth.InvalidTarget},
			{"two resources", a.asks(url.Values{"resource": {h.URL + "/mcp", h.URL + "/s/gatehouse/mcp"}}), oauth.InvalidTarget},
			{"an endpoint without its tools", other.asks(nil), oauth.InvalidTarget},
			{"scopes of others", other.asks(with("resource", h.URL+"/s/gatehouse/mcp", "scope", "servers:admin")), oauth.InvalidScope},
			{"scopes that are none", a.asks(with("scope", `"`)), oauth.InvalidScope},
		} {
			h.unchanged(t, func() {
				answer := h.Form("/oauth/token", r.form)
				if answer.Error() != r.code {
					t.Errorf("%s: want %s, got %d %s", r.name, r.code, answer.StatusCode, answer.Text)
				}
				refused(t, answer, r.code)
			})
		}
		if r := h.register(`{"redirect_uris":["` + apptest.Callback + `"],"grant_types":["authorization_code","client_credentials"]}`); slices.Contains(r.GrantTypes, "client_credentials") {
			t.Error("attack 50: it registered itself for client_credentials")
		}
	})
}

// RFC 7523 §2.2: a client that signs proves itself at every endpoint with every
// grant, and a service account with a key of its own as well.
func TestAKeyProvesAClientEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		c := h.signing(t)
		code, verifier := h.Code(c.id, nil)
		form := c.proof(t, h.URL, nil)
		maps.Copy(form, with("grant_type", "authorization_code", "code", code, "code_verifier", verifier))
		var tokens oauth.TokenResponse
		h.Form("/oauth/token", form).JSON(t, &tokens)
		if !h.works(tokens.AccessToken) {
			t.Fatal("no token for a code")
		}
		form = c.proof(t, h.URL, map[string]any{"aud": []string{h.URL}})
		maps.Copy(form, with("grant_type", "refresh_token", "refresh_token", tokens.RefreshToken, "client_id", c.id))
		if a := h.Form("/oauth/token", form); a.StatusCode != http.StatusOK {
			t.Errorf("refresh: %d %s", a.StatusCode, a.Text)
		}
		refused(t, h.Form("/oauth/revoke", with("token", tokens.AccessToken, "client_id", c.id)), oauth.InvalidClient)
		form = c.proof(t, h.URL, nil)
		form.Set("token", tokens.AccessToken)
		if a := h.Form("/oauth/revoke", form); a.StatusCode != http.StatusOK || h.works(tokens.AccessToken) {
			t.Errorf("revoke: %d %s", a.StatusCode, a.Text)
		}

		key := newKey(t)
		robot := h.account("robot", "whoami", `,"jwks":`+published(key))
		form = signer{id: robot.ID, alg: jose.ES256, key: key}.proof(t, h.URL, nil)
		form.Set("grant_type", "client_credentials")
		if !h.works(h.machineToken(form).AccessToken) {
			t.Error("a service account that signs")
		}
	}, apptest.Dev)
}

// Attacks 43, 45, 46: what is signed is for us alone, for a few minutes and once, by
// a key of the client itself; and a refused one uses nothing up.
func TestAssertionsAreRefused(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		key := newKey(t)
		a := h.account("robot", "whoami", `,"jwks":`+published(key))
		other := h.account("other", "whoami", `,"jwks":`+published(newKey(t)))
		s := signer{id: a.ID, alg: jose.ES256, key: key}
		der := base64.RawURLEncoding.EncodeToString([]byte(published(key)))
		now := time.Now().Unix()
		own := func(change map[string]any, more ...string) func() url.Values {
			return func() url.Values {
				form := s.proof(t, h.URL, change)
				maps.Copy(form, with(more...))
				return form
			}
		}
		for _, r := range []struct {
			name string
			form func() url.Values
			code string
		}{
			{"the token endpoint as audience", own(map[string]any{"aud": h.URL + "/oauth/token"}), oauth.InvalidClient},
			{"the issuer with a slash", own(map[string]any{"aud": h.URL + "/"}), oauth.InvalidClient},
			{"another audience as well", own(map[string]any{"aud": []string{h.URL, "https://evil.example"}}), oauth.InvalidClient},
			{"no audience", own(map[string]any{"aud": nil}), oauth.InvalidClient},
			{"about another", own(map[string]any{"sub": other.ID}), oauth.InvalidClient},
			{"about nobody", own(map[string]any{"sub": nil}), oauth.InvalidClient},
			{"in the name of another", own(map[string]any{"iss": other.ID, "sub": other.ID}), oauth.InvalidClient},
			{"in nobody's name", own(map[string]any{"iss": nil}), oauth.InvalidClient},
			{"no exp", own(map[string]any{"exp": nil}), oauth.InvalidClient},
			{"exp in an hour", own(map[string]any{"exp": now + 3600}), oauth.InvalidClient},
			{"exp in the past", own(map[string]any{"exp": now - 31}), oauth.InvalidClient},
			{"exp beyond all", own(map[string]any{"exp": 1e18}), oauth.InvalidClient},
			{"nbf ahead", own(map[string]any{"nbf": now + 60, "exp": now + 90}), oauth.InvalidClient},
			{"no jti", own(map[string]any{"jti": nil}), oauth.InvalidClient},
			{"an empty jti", own(map[string]any{"jti": ""}), oauth.InvalidClient},
			{"a jti that is a number", own(map[string]any{"jti": 7}), oauth.InvalidClient},
			{"a foreign key", func() url.Values {
				return signer{a.ID, jose.ES256, newKey(t), oauth.Registration{}}.proof(t, h.URL, nil)
			}, oauth.InvalidClient},
			{"HS256 with the public key", func() url.Values {
				return signer{a.ID, jose.HS256, []byte(der), oauth.Registration{}}.proof(t, h.URL, nil)
			}, oauth.InvalidClient},
			{"no signature", func() url.Values {
				form := s.proof(t, h.URL, nil)
				parts := strings.Split(form.Get("client_assertion"), ".")
				form.Set("client_assertion", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))+"."+parts[1]+".")
				return form
			}, oauth.InvalidClient},
			{"of another client than the body says", own(nil, "client_id", other.ID), oauth.InvalidClient},
			{"attack 43: with a secret", own(nil, "client_secret", "cs_x"), oauth.InvalidRequest},
			{"another type", own(nil, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), oauth.InvalidRequest},
			{"no JWT", own(nil, "client_assertion", "x"), oauth.InvalidClient},
			{"a long one", own(map[string]any{"pad": strings.Repeat("x", 20_000)}), oauth.InvalidClient},
		} {
			h.unchanged(t, func() {
				form := r.form()
				form.Set("grant_type", "client_credentials")
				answer := h.Form("/oauth/token", form)
				if answer.Error() != r.code {
					t.Errorf("%s: want %s, got %d %s", r.name, r.code, answer.StatusCode, answer.Text)
				}
			})
		}
		withSecret := h.account("secret", "whoami", "")
		form := signer{id: withSecret.ID, alg: jose.ES256, key: key}.proof(t, h.URL, nil)
		form.Set("grant_type", "client_credentials")
		refused(t, h.Form("/oauth/token", form), oauth.InvalidClient)
		form = s.proof(t, h.URL, nil)
		form.Set("grant_type", "client_credentials")
		refused(t, h.Form("/oauth/token", form, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(a.ID+":x"))), oauth.InvalidRequest)
		form.Set("scope", `"`)
		refused(t, h.Form("/oauth/token", form), oauth.InvalidScope)
		form.Del("scope")
		h.machineToken(form) // the fault before used nothing up
		refused(t, h.Form("/oauth/token", form), oauth.InvalidClient)
		clock := s.proof(t, h.URL, map[string]any{"iat": now + 20, "nbf": now + 20, "exp": float64(now+300) + 20.5})
		clock.Set("grant_type", "client_credentials")
		h.machineToken(clock)
	})
}
