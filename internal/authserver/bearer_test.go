package authserver_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const bearerGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// provider is somebody else who signs: an identity provider, or a platform.
type provider struct {
	*httptest.Server
	key *ecdsa.PrivateKey

	mu   sync.Mutex
	rude http.HandlerFunc // answers in place of it
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{key: newKey(t)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		rude := p.rude
		p.mu.Unlock()
		if rude != nil {
			rude(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write([]byte(published(p.key)))
	}))
	t.Cleanup(p.Close)
	return p
}

// sign signs claims with a type and a key.
func (p *provider) sign(t *testing.T, typ string, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	return signer{alg: jose.ES256, key: jose.JSONWebKey{Key: key, KeyID: "one"}}.signAs(t, typ, claims)
}

// jag is an assertion about a person in order, with the claims of change in place of
// its own.
func (p *provider) jag(t *testing.T, h house, client string, change map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": p.URL, "sub": "00u1", "aud": h.URL, "client_id": client, "jti": rand.Text(), "iat": now, "exp": now + 300,
		"resource": h.URL + "/mcp", "scope": "mcp:tools", "email": apptest.Owner, "email_verified": true,
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return p.sign(t, "oauth-id-jag+jwt", p.key, claims)
}

// workload is a token of a platform.
func (p *provider) workload(t *testing.T, h house, change map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{"iss": p.URL, "sub": "repo:acme/app:main", "aud": h.URL, "ref": "refs/heads/main", "iat": now, "exp": now + 3600}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return p.sign(t, "JWT", p.key, claims)
}

// trusting makes a house trust a provider, for people by what is written down and for
// workloads.
func trusting(p *provider, clients *[]string, emails bool) func(*app.Config) {
	return func(c *app.Config) {
		people := authserver.Trusted{Kind: authserver.TrustPeople, Clients: *clients, Emails: emails}
		if !emails {
			people.Members = map[string]string{"00u1": apptest.Owner, "00u2": "nobody@acme.example"}
		}
		c.Trusted = map[string]app.Trusted{
			"people": {URL: p.URL, JWKS: p.URL + "/keys", Trusted: people},
			"builds": {URL: p.URL, JWKS: p.URL + "/keys", Trusted: authserver.Trusted{
				Kind: authserver.TrustWorkloads, Account: "builder", Subject: "repo:acme/app:*", Claims: map[string]string{"ref": "refs/heads/main"},
			}},
			"deploys": {URL: p.URL, JWKS: p.URL + "/keys", Trusted: authserver.Trusted{Kind: authserver.TrustWorkloads, Account: "deployer", Subject: "repo:acme/app:deploy"}},
		}
	}
}

// bringing is the request of a client with an assertion.
func bringing(r oauth.Registration, assertion string, change url.Values) url.Values {
	form := with("grant_type", bearerGrant, "client_id", r.ClientID, "client_secret", r.ClientSecret, "assertion", assertion)
	for name, values := range change {
		form[name] = values
	}
	return form
}

// inFull are tokens as they are answered.
func inFull(t *testing.T, a apptest.Answer) (tokens oauth.TokenResponse) {
	t.Helper()
	a.JSON(t, &tokens)
	if a.StatusCode != http.StatusOK || tokens.AccessToken == "" || tokens.RefreshToken != "" {
		t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	return tokens
}

// owned is a house with an owner, and a confidential app that may bring assertions.
func (h house) owned() oauth.Registration {
	h.t.Helper()
	h.Browser().SetUp()
	app := h.confidential("client_secret_post")
	h.SQL(`UPDATE client SET grant_types = 'authorization_code `+bearerGrant+`' WHERE id = $1`, app.ClientID)
	return app
}

// Enterprise-managed authorization (SEP-990): an identity provider that the operator
// trusts lets an app act for a member, at the endpoint and for the scopes that it says.
func TestAnAssertionAboutAPerson(t *testing.T) {
	p := newProvider(t)
	onEach(t, func(t *testing.T, h house) {
		app := h.owned()
		tokens := inFull(t, h.Form("/oauth/token", bringing(app, p.jag(t, h, app.ClientID, nil), nil)))
		if a := h.Tool(tokens.AccessToken, "whoami", "{}"); !strings.Contains(a.Text, apptest.Owner) || tokens.Scope != "mcp:tools" {
			t.Errorf("%s %s", tokens.Scope, a.Text)
		}
		less := inFull(t, h.Form("/oauth/token", bringing(app, p.jag(t, h, app.ClientID, map[string]any{"scope": "mcp:tools nosuch:read"}), with("scope", "mcp:read"))))
		if less.Scope != "mcp:read" {
			t.Errorf("asked for less, got %q", less.Scope)
		}
		control := inFull(t, h.Form("/oauth/token", bringing(app, p.jag(t, h, app.ClientID, map[string]any{"resource": []string{h.URL + "/s/gatehouse/mcp"}, "scope": nil}), nil)))
		if c := payload(t, control.AccessToken); c["aud"] != h.URL+"/s/gatehouse/mcp" || c["scope"] != "mcp:read" {
			t.Errorf("%v", c)
		}
		var m oauth.ServerMetadata
		h.Get("/.well-known/oauth-authorization-server").JSON(t, &m)
		if strings.Join(m.GrantProfiles, " ") != "urn:ietf:params:oauth:grant-profile:id-jag" || !strings.Contains(strings.Join(m.GrantTypes, " "), bearerGrant) {
			t.Errorf("metadata: %v %v", m.GrantProfiles, m.GrantTypes)
		}
		h.Admin("stop_everything", "{}")
		if h.works(tokens.AccessToken) {
			t.Error("everything is stopped, and it works")
		}
	}, trusting(p, &[]string{}, false))
}

// Attack 123: what an identity provider did not sign for us, for this client, for now
// and for once is refused, and uses nothing up.
func TestAssertionsAboutPeopleAreRefused(t *testing.T) {
	p, other := newProvider(t), newProvider(t)
	listed := []string{"listed"}
	onEach(t, func(t *testing.T, h house) {
		app, stranger := h.owned(), h.confidential("client_secret_post")
		public := h.Register()
		h.SQL(`UPDATE client SET grant_types = grant_types || ' `+bearerGrant+`' WHERE id = $1`, public)
		now := time.Now().Unix()
		own := func(change map[string]any) string { return p.jag(t, h, app.ClientID, change) }
		for name, r := range map[string]struct {
			form url.Values
			code string
		}{
			"no assertion":            {bringing(app, "", nil), oauth.InvalidGrant},
			"no JWT":                  {bringing(app, "x.y.z", nil), oauth.InvalidGrant},
			"another type":            {bringing(app, p.sign(t, "JWT", p.key, jagClaims(t, p, h, app.ClientID)), nil), oauth.InvalidGrant},
			"an access token's type":  {bringing(app, p.sign(t, "at+jwt", p.key, jagClaims(t, p, h, app.ClientID)), nil), oauth.InvalidGrant},
			"two audiences":           {bringing(app, own(map[string]any{"aud": []string{h.URL, "https://other.example"}}), nil), oauth.InvalidGrant},
			"another audience":        {bringing(app, own(map[string]any{"aud": h.URL + "/oauth/token"}), nil), oauth.InvalidGrant},
			"no audience":             {bringing(app, own(map[string]any{"aud": nil}), nil), oauth.InvalidGrant},
			"another client":          {bringing(app, p.jag(t, h, stranger.ClientID, nil), nil), oauth.InvalidGrant},
			"no client":               {bringing(app, own(map[string]any{"client_id": nil}), nil), oauth.InvalidGrant},
			"an unknown issuer":       {bringing(app, other.jag(t, h, app.ClientID, nil), nil), oauth.InvalidGrant},
			"in the issuer's name":    {bringing(app, other.jag(t, h, app.ClientID, map[string]any{"iss": p.URL}), nil), oauth.InvalidGrant},
			"a foreign key":           {bringing(app, p.sign(t, "oauth-id-jag+jwt", other.key, jagClaims(t, p, h, app.ClientID)), nil), oauth.InvalidGrant},
			"a lifetime over the cap": {bringing(app, own(map[string]any{"exp": now + 3600}), nil), oauth.InvalidGrant},
			"no exp":                  {bringing(app, own(map[string]any{"exp": nil}), nil), oauth.InvalidGrant},
			"expired":                 {bringing(app, own(map[string]any{"exp": now - 60}), nil), oauth.InvalidGrant},
			"from the future":         {bringing(app, own(map[string]any{"iat": now + 120}), nil), oauth.InvalidGrant},
			"no iat":                  {bringing(app, own(map[string]any{"iat": nil}), nil), oauth.InvalidGrant},
			"no jti":                  {bringing(app, own(map[string]any{"jti": nil}), nil), oauth.InvalidGrant},
			"no subject":              {bringing(app, own(map[string]any{"sub": nil}), nil), oauth.InvalidGrant},
			"a subject nobody knows":  {bringing(app, own(map[string]any{"sub": "00u9"}), nil), oauth.InvalidGrant},
			"a subject who is gone":   {bringing(app, own(map[string]any{"sub": "00u2"}), nil), oauth.InvalidGrant},
			"two resources":           {bringing(app, own(map[string]any{"resource": []string{h.URL + "/mcp", h.URL + "/s/gatehouse/mcp"}}), nil), oauth.InvalidGrant},
			"a resource elsewhere":    {bringing(app, own(map[string]any{"resource": "https://evil.example/mcp"}), nil), oauth.InvalidTarget},
			"another resource asked":  {bringing(app, own(nil), with("resource", h.URL+"/s/gatehouse/mcp")), oauth.InvalidTarget},
			"scopes nobody knows":     {bringing(app, own(map[string]any{"scope": "nosuch:read"}), nil), oauth.InvalidScope},
			"a wider scope asked":     {bringing(app, own(map[string]any{"scope": "mcp:read"}), with("scope", "servers:admin")), oauth.InvalidScope},
			"a scope that is a list":  {bringing(app, own(map[string]any{"scope": []string{"mcp:read"}}), nil), oauth.InvalidGrant},
			"a client without it":     {bringing(stranger, p.jag(t, h, stranger.ClientID, nil), nil), oauth.UnauthorizedClient},
			"no secret":               {bringing(app, own(nil), with("client_secret", "")), oauth.InvalidClient},
			"a public client":         {with("grant_type", bearerGrant, "client_id", public, "assertion", p.jag(t, h, public, nil)), oauth.UnauthorizedClient},
			"a public client, alone":  {with("grant_type", bearerGrant, "assertion", p.jag(t, h, public, nil)), oauth.InvalidClient},
		} {
			h.unchanged(t, func() {
				a := h.Form("/oauth/token", r.form)
				if a.Error() != r.code || a.StatusCode >= 500 {
					t.Errorf("%s: want %s, got %d %s", name, r.code, a.StatusCode, a.Text)
				}
				if strings.Contains(a.Text, p.URL) {
					t.Errorf("%s: the answer tells about the issuer: %s", name, a.Text)
				}
			})
		}
		once := own(nil)
		h.unchanged(t, func() {
			refused(t, h.Form("/oauth/token", bringing(app, once, with("scope", `"`))), oauth.InvalidScope)
		})
		inFull(t, h.Form("/oauth/token", bringing(app, once, nil)))
		refused(t, h.Form("/oauth/token", bringing(app, once, nil)), oauth.InvalidGrant)
		h.SQL(`UPDATE client SET id = 'listed' WHERE id = $1`, public)
		inFull(t, h.Form("/oauth/token", with("grant_type", bearerGrant, "client_id", "listed", "assertion", p.jag(t, h, "listed", nil))))
	}, trusting(p, &listed, false))
}

// jagClaims are those of an assertion in order.
func jagClaims(t *testing.T, p *provider, h house, client string) map[string]any {
	return payload(t, p.jag(t, h, client, nil))
}

// A member is known by an address only where the operator said so, and only by one
// that the provider says it has verified (attack 118).
func TestAnAddressNamesAMemberIfItIsVerified(t *testing.T) {
	p := newProvider(t)
	h := start(t, trusting(p, &[]string{}, true))
	app := h.owned()
	for name, change := range map[string]map[string]any{
		"not verified":           {"email_verified": false},
		"nothing said":           {"email_verified": nil},
		"verified, in words":     {"email_verified": "true"},
		"verified, as a number":  {"email_verified": 1},
		"another address":        {"email": "eve@evil.example"},
		"two addresses":          {"email": apptest.Owner + ",eve@evil.example"},
		"no address":             {"email": nil},
		"an address of another":  {"email": map[string]string{"x": apptest.Owner}},
		"an address with a name": {"email": "Dana <" + apptest.Owner + ">"},
	} {
		h.unchanged(t, func() {
			a := h.Form("/oauth/token", bringing(app, p.jag(t, h, app.ClientID, change), nil))
			if a.Error() != oauth.InvalidGrant {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
			}
		})
	}
	inFull(t, h.Form("/oauth/token", bringing(app, p.jag(t, h, app.ClientID, map[string]any{"email": strings.ToUpper(apptest.Owner)}), nil)))
}

// Workload identity (SEP-1933): a program that its platform vouches for is a service
// account, without a secret, and as often as it shows what it was given.
func TestAWorkloadIsAServiceAccount(t *testing.T) {
	p := newProvider(t)
	onEach(t, func(t *testing.T, h house) {
		builder := h.account("builder", "whoami", "")
		token := p.workload(t, h, nil)
		for range 2 {
			tokens := inFull(t, h.Form("/oauth/token", with("grant_type", bearerGrant, "assertion", token)))
			if !h.works(tokens.AccessToken) || payload(t, tokens.AccessToken)["sub"] != builder.ID {
				t.Errorf("%v", payload(t, tokens.AccessToken))
			}
		}
		inFull(t, h.Form("/oauth/token", with("grant_type", bearerGrant, "assertion", token, "client_id", builder.ID, "client_secret", builder.Secret)))
		other := h.account("other", "whoami", "")
		for name, form := range map[string]url.Values{
			"another subject":       with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"sub": "repo:acme/apple:main"})),
			"no subject":            with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"sub": nil})),
			"another branch":        with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"ref": "refs/heads/x"})),
			"no branch":             with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"ref": nil})),
			"a branch that is none": with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"ref": []string{"refs/heads/main"}})),
			"for others":            with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"aud": "https://other.example"})),
			"for others as well":    with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"aud": []string{h.URL, "https://other.example"}})),
			"a week long":           with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"exp": time.Now().Unix() + 7*86400})),
			"two accounts at once":  with("grant_type", bearerGrant, "assertion", p.workload(t, h, map[string]any{"sub": "repo:acme/app:deploy"})),
			"about a person":        with("grant_type", bearerGrant, "assertion", p.jag(t, h, builder.ID, nil), "client_id", builder.ID, "client_secret", builder.Secret, "resource", h.URL+"/s/gatehouse/mcp"),
			"another account's":     with("grant_type", bearerGrant, "assertion", token, "client_id", other.ID, "client_secret", other.Secret),
		} {
			h.unchanged(t, func() {
				a := h.Form("/oauth/token", form)
				if a.StatusCode != http.StatusBadRequest || a.Error() != oauth.InvalidGrant && name != "about a person" {
					t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
				}
			})
		}
		refused(t, h.Form("/oauth/token", with("grant_type", bearerGrant, "assertion", token, "client_id", builder.ID)), oauth.InvalidClient)
		refused(t, h.Form("/oauth/token", with("grant_type", bearerGrant, "assertion", token, "client_id", builder.ID, "client_secret", "x")), oauth.InvalidClient)
		refused(t, h.Form("/oauth/token", with("grant_type", "client_credentials", "assertion", token)), oauth.InvalidClient)
		held := inFull(t, h.Form("/oauth/token", with("grant_type", bearerGrant, "assertion", token))).AccessToken
		h.Admin("change_service_account", `{"id":"`+builder.ID+`","active":false}`)
		refused(t, h.Form("/oauth/token", with("grant_type", bearerGrant, "assertion", token)), oauth.InvalidGrant)
		if h.works(held) {
			t.Error("the account is off, and its token works")
		}
	}, trusting(p, &[]string{}, false))
}

// An issuer that does not answer is no fault of the client: it may try again (R518).
func TestAnIssuerThatDoesNotAnswer(t *testing.T) {
	for name, rude := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"a page":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no keys":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"a secret": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[{"kty":"oct","kid":"one","k":"c2VjcmV0"}]}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.rude = rude
			h := start(t, trusting(p, &[]string{}, false))
			h.account("builder", "whoami", "")
			h.unchanged(t, func() {
				a := h.Form("/oauth/token", with("grant_type", bearerGrant, "assertion", p.workload(t, h, nil)))
				if a.StatusCode != http.StatusServiceUnavailable || a.Error() != oauth.TemporarilyUnavailable || strings.Contains(a.Text, "502") || strings.Contains(a.Text, p.URL) {
					t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			})
		})
	}
}
