package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R101, R103, R104, R105, R106: one document under both names, without credentials.
func TestMetadataSaysWhatIsServed(t *testing.T) {
	h := start(t, apptest.Dev)
	a := h.Get("/.well-known/oauth-authorization-server")
	alias := h.Get("/.well-known/openid-configuration")
	if a.StatusCode != http.StatusOK || a.Text != alias.Text || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %s\n%s", a.StatusCode, a.Header, a.Text, alias.Text)
	}
	var m oauth.ServerMetadata
	a.JSON(t, &m)
	if m.Issuer != h.URL || !m.IssParameter {
		t.Errorf("issuer %q at %s, iss parameter %v", m.Issuer, h.URL, m.IssParameter)
	}
	if m.JWKSURI != h.URL+"/.well-known/jwks.json" || !slices.Contains(m.ScopesSupported, "mcp:tools") || !slices.Contains(m.ScopesSupported, "offline_access") {
		t.Errorf("R104: keys at %q, scopes %q", m.JWKSURI, m.ScopesSupported)
	}
	if !slices.Equal(m.ResponseTypes, []string{"code"}) || !slices.Equal(m.ResponseModes, []string{"query"}) || !slices.Equal(m.ChallengeMethods, []string{"S256"}) {
		t.Errorf("response types %q, modes %q (C05), challenges %q (R303)", m.ResponseTypes, m.ResponseModes, m.ChallengeMethods)
	}
	for _, member := range []string{"id_token_signing_alg_values_supported", "userinfo_endpoint"} {
		if strings.Contains(a.Text, member) {
			t.Errorf("it promises %s, which is not served", member)
		}
	}
	t.Run("grants", func(t *testing.T) { grantsAreServed(t, h, m) })
	t.Run("auth methods", func(t *testing.T) {
		for _, method := range m.TokenAuthMethods {
			if method == "private_key_jwt" {
				if r := h.signing(t).registration; r.TokenAuthMethod != method || r.ClientSecret != "" {
					t.Errorf("asked for %s, registered %s, secret %v", method, r.TokenAuthMethod, r.ClientSecret != "")
				}
				continue
			}
			if r := h.confidential(method); r.TokenAuthMethod != method || (r.ClientSecret != "") != (method != "none") {
				t.Errorf("asked for %s, registered %s, secret %v", method, r.TokenAuthMethod, r.ClientSecret != "")
			}
		}
	})
	t.Run("endpoints", func(t *testing.T) {
		for _, endpoint := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, m.RegistrationEndpoint, m.PushedEndpoint, m.DeviceEndpoint, m.RevocationEndpoint, m.IntrospectionEndpoint, m.JWKSURI} {
			path, ok := strings.CutPrefix(endpoint, h.URL)
			if a := h.Get(path); !ok || a.StatusCode == http.StatusNotFound {
				t.Errorf("%s: %d", endpoint, a.StatusCode)
			}
		}
	})
	t.Run("scopes", func(t *testing.T) {
		client := h.Register()
		for _, scope := range m.ScopesSupported {
			a := h.authorize(authorization(h, client, with("scope", scope)))
			if location, _ := a.Location(); location == nil || !location.Query().Has("code") {
				t.Errorf("%s is refused: %v", scope, a.Header)
			}
		}
	})
}

// grantsAreServed: what is listed is served, and nothing else (R105).
func grantsAreServed(t *testing.T, h house, m oauth.ServerMetadata) {
	client := h.Register()
	for _, grant := range []string{
		"authorization_code", "refresh_token", "client_credentials", "password", "implicit",
		"urn:ietf:params:oauth:grant-type:device_code", "urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:grant-type:jwt-bearer",
	} {
		a := h.Form("/oauth/token", with("grant_type", grant, "client_id", client))
		if served := a.Error() != oauth.UnsupportedGrantType; served != slices.Contains(m.GrantTypes, grant) {
			t.Errorf("%s: listed %v, served %v", grant, !served, served)
		}
	}
}

// authorization is only the query.
func authorization(h house, client string, change url.Values) url.Values {
	query, _ := h.Authorization(client, change)
	return query
}

// R107, R108, R110, R111: one document per endpoint, each naming itself and our issuer.
func TestEachEndpointHasItsResourceDocument(t *testing.T) {
	h := start(t, apptest.Dev)
	for path, resource := range map[string]string{
		"":                  "/mcp",
		"/mcp":              "/mcp",
		"/s/gatehouse/mcp":  "/s/gatehouse/mcp",
		"/s/nobody/mcp":     "",
		"/s/gatehouse/mcp/": "",
		"/oauth/token":      "",
		"/s/../mcp":         "",
	} {
		a := h.Get("/.well-known/oauth-protected-resource" + strings.ReplaceAll(path, "..", "%2e%2e"))
		if resource == "" {
			if a.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
			}
			continue
		}
		var m oauth.ResourceMetadata
		a.JSON(t, &m)
		if m.Resource != h.URL+resource || !slices.Equal(m.AuthorizationServers, []string{h.URL}) || !slices.Equal(m.BearerMethods, []string{"header"}) ||
			m.Name == "" || m.Documentation != h.URL+"/" || len(m.ScopesSupported) == 0 {
			t.Errorf("%s: %s", path, a.Text)
		}
		if strings.Contains(a.Text, "jwks_uri") || slices.Contains(m.ScopesSupported, "offline_access") { // C06, R111
			t.Errorf("%s: %s", path, a.Text)
		}
	}
}

// R112, attack 92: public members only.
func TestKeysArePublishedWithoutTheirSecretHalf(t *testing.T) {
	h := start(t, apptest.Dev)
	var set struct{ Keys []map[string]any }
	h.Get("/.well-known/jwks.json").JSON(t, &set)
	if len(set.Keys) == 0 {
		t.Fatal("no keys")
	}
	for _, key := range set.Keys {
		for member := range key {
			if !slices.Contains([]string{"kty", "crv", "x", "y", "kid", "alg", "use"}, member) {
				t.Errorf("member %s is published", member)
			}
		}
	}
}

// R112, R113: documents may be kept for a while, but not so long that a key which
// is published before it signs would be missed; nothing else of this may be kept.
func TestDocumentsMayBeKept(t *testing.T) {
	h := start(t, apptest.Dev)
	for _, path := range []string{"/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/.well-known/oauth-protected-resource/mcp"} {
		if a := h.Get(path); a.Header.Get("Cache-Control") != "public, max-age=300" || a.Header.Get("Vary") != "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
}

// R102, attack 109: endpoints for programs are open to every origin, because
// they use no cookie; pages are open to none.
func TestCORSIsForMachinesOnly(t *testing.T) {
	h := start(t, apptest.Dev)
	machines := []string{
		"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/.well-known/jwks.json",
		"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp",
	}
	for _, prefix := range []string{"/oauth", "/mcp", ""} {
		machines = append(machines, prefix+"/token", prefix+"/register", prefix+"/revoke", prefix+"/registration/x")
	}
	for _, path := range machines {
		preflight := h.Do(h.Request(http.MethodOptions, path, "", "Origin: https://app.example", "Access-Control-Request-Method: POST"))
		actual := h.Form(path, nil, "Origin: https://app.example")
		if preflight.StatusCode != http.StatusNoContent || !strings.Contains(preflight.Header.Get("Access-Control-Allow-Headers"), "Content-Type") {
			t.Errorf("preflight %s: %d %v", path, preflight.StatusCode, preflight.Header)
		}
		for _, a := range []apptest.Answer{preflight, actual} {
			if a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Access-Control-Allow-Credentials") != "" || a.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s %s: %v", a.Request.Method, path, a.Header)
			}
		}
	}
	for _, path := range []string{"/oauth/authorize", "/mcp/authorize", "/authorize", "/consent/x", "/return/x", "/login", "/setup", "/", "/assets/x"} {
		for _, method := range []string{http.MethodOptions, http.MethodGet} {
			a := h.Do(h.Request(method, path, "", "Origin: https://app.example", "Access-Control-Request-Method: GET"))
			for name := range a.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s answers %s", method, path, name)
				}
			}
		}
	}
}

// Attack 71: who else says which host this is, is not believed.
func TestIssuerIsTheConfiguredOne(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for _, forged := range []string{"X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: host=evil.example;proto=https", "X-Original-Host: evil.example"} {
		var m oauth.ServerMetadata
		h.Get("/.well-known/oauth-authorization-server", forged).JSON(t, &m)
		if m.Issuer != h.URL {
			t.Errorf("%s: issuer %s", forged, m.Issuer)
		}
		a := h.Get("/oauth/authorize?"+authorization(h, client, nil).Encode(), forged)
		if location, _ := a.Location(); location == nil || location.Query().Get("iss") != h.URL {
			t.Errorf("%s: %v", forged, a.Header)
		}
	}
	r := h.Request(http.MethodGet, "/.well-known/oauth-authorization-server", "")
	r.Host = "evil.example"
	if a := h.Do(r); a.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("Host: evil.example: %d %s", a.StatusCode, a.Text)
	}
}

// C01, R202, R302, R401: three families of paths, one behaviour.
func TestPathFamiliesAnswerAlike(t *testing.T) {
	h := start(t, apptest.Dev)
	for _, prefix := range []string{"/oauth", "/mcp", ""} {
		t.Run("prefix "+prefix, func(t *testing.T) {
			var r oauth.Registration
			h.PostJSON(prefix+"/register", `{"redirect_uris":["`+apptest.Callback+`"]}`).JSON(t, &r)
			query, verifier := h.Authorization(r.ClientID, nil)
			location, err := h.Get(prefix + "/authorize?" + query.Encode()).Location()
			if err != nil {
				t.Fatal(err)
			}
			answered(t, location.String(), apptest.Callback, with("code", "*", "state", "st&te/1", "iss", h.URL))
			form := with("grant_type", "authorization_code", "client_id", r.ClientID, "code", location.Query().Get("code"), "code_verifier", verifier)
			var tokens oauth.TokenResponse
			h.Form(prefix+"/token", form).JSON(t, &tokens)
			if !h.works(tokens.AccessToken) {
				t.Fatal("the token is not accepted")
			}
			a := h.Form(prefix+"/revoke", with("client_id", r.ClientID, "token", tokens.RefreshToken))
			if a.StatusCode != http.StatusOK || h.works(tokens.AccessToken) {
				t.Errorf("revoke: %d %s", a.StatusCode, a.Text)
			}

			refused(t, h.PostJSON(prefix+"/register", `{}`), oauth.InvalidRedirectURI)
			refused(t, h.Form(prefix+"/token", form), oauth.InvalidGrant)
			refused(t, h.Form(prefix+"/revoke", nil), oauth.InvalidClient)
			shown(t, h.Get(prefix+"/authorize"), http.StatusBadRequest)
		})
	}
}

// A GET of an endpoint that takes forms changes nothing, and says what is allowed.
func TestMachineEndpointsTakeOneMethod(t *testing.T) {
	h := start(t, apptest.Dev)
	for path, allowed := range map[string]string{
		"/oauth/token": http.MethodPost, "/oauth/register": http.MethodPost, "/oauth/revoke": http.MethodPost,
		"/.well-known/oauth-authorization-server": http.MethodGet, "/.well-known/jwks.json": http.MethodGet,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			a := h.Do(h.Request(method, path+"?client_id=x", ""))
			refused := a.StatusCode == http.StatusMethodNotAllowed && a.Header.Get("Allow") == allowed+", OPTIONS"
			if mayCall := method == allowed || allowed == http.MethodGet && method == http.MethodHead; refused == mayCall {
				t.Errorf("%s %s: %d %v", method, path, a.StatusCode, a.Header)
			}
		}
	}
}

// RFC 8414 §3.2: what is empty is left out, so no client reads null as a list.
func TestMetadataHasNoNulls(t *testing.T) {
	h := start(t)
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"} {
		var members map[string]json.RawMessage
		h.Get(path).JSON(t, &members)
		for name, value := range members {
			if string(value) == "null" || string(value) == "[]" || string(value) == `""` {
				t.Errorf("%s: %s is %s", path, name, value)
			}
		}
	}
}
