// Package s0_test does what the article S0 says a client and a server of its kind
// do, in its order and with its paths and bodies, against a running house whose
// server answers for accounts at a service of others. Each part is named by the
// requirements that it shows.
package s0_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/qa"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// The addresses of S0's sample registration.
const (
	web   = "https://client.example.com/callback"
	local = "http://localhost:3000/callback"
)

// profile is one client on its way, which meets everything in the order of S0.
type profile struct {
	*apptest.House
	t    *testing.T
	k    *apptest.Knowledge
	mira *apptest.Browser // a person, who is called so at the service

	meta     oauth.ServerMetadata
	app      oauth.Registration
	verifier string
	code     string
	tokens   oauth.TokenResponse
}

// parts are S0's own, in its order.
var parts = []struct {
	name string
	do   func(*profile, *testing.T)
}{
	{"R101 R102 R103 R104 C01 C05: the metadata is public and names the paths of S0", (*profile).discovers},
	{"R105: what is switched off is not in the metadata", (*profile).mirrors},
	{"R201 R202 R204 R205 R206 R207: a client registers itself at /mcp/register", (*profile).registers},
	{"R209 R210 R211 R214: it manages its registration at /registration/{client_id} with reg-", (*profile).manages},
	{"R301 R302 R303 R304 R305: the authorization request has S0's parameters, and those alone", (*profile).asks},
	{"R307 R308 R551 R552: consent, then the service's own OAuth with a verifier of ours, then our code", (*profile).goesThrough},
	{"R401 R403 R405 R406: the code is exchanged at /mcp/token, with PKCE, once", (*profile).redeems},
	{"R408 R410 C16: the JWT has a public_token, which nobody else can use", (*profile).looks},
	{"R501 R503: the bearer token is needed, and judged", (*profile).isJudged},
	{"R519 R553 R554 R557: each call of a tool reaches the service as the person, without our token", (*profile).calls},
	{"R212: it leaves, and everything it got ends", (*profile).leaves},
}

func TestProfileS0(t *testing.T) {
	for engine, database := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(engine, func(t *testing.T) {
			address := database(t)
			k := apptest.NewKnowledge(t)
			p := &profile{t: t, k: k, House: apptest.Open(t, k.Behind, func(c *app.Config) { c.Database, c.EndpointStyle = address, "mcp" })}
			k.Knows(p.House)
			p.mira = p.Browser()
			p.mira.SetUp()
			for _, part := range parts {
				if !t.Run(part.name, func(t *testing.T) { part.do(p, t) }) {
					return // the rest stands on it
				}
			}
		})
	}
}

func (p *profile) discovers(t *testing.T) {
	const path = "/.well-known/oauth-authorization-server"
	a := p.Get(path, "Origin: https://anywhere.example")
	a.JSON(t, &p.meta)
	if a.StatusCode != http.StatusOK || a.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	preflight := p.Do(p.Request(http.MethodOptions, path, "", "Origin: https://anywhere.example", "Access-Control-Request-Method: GET"))
	if preflight.StatusCode >= 300 || preflight.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("preflight: %d %v", preflight.StatusCode, preflight.Header)
	}
	m := p.meta
	for what, is := range map[string][2]string{
		"issuer": {m.Issuer, p.URL}, "authorization_endpoint": {m.AuthorizationEndpoint, p.URL + "/mcp/authorize"},
		"token_endpoint": {m.TokenEndpoint, p.URL + "/mcp/token"}, "registration_endpoint": {m.RegistrationEndpoint, p.URL + "/mcp/register"},
		"response_types_supported": {strings.Join(m.ResponseTypes, " "), "code"}, "code_challenge_methods_supported": {strings.Join(m.ChallengeMethods, " "), "S256"},
		// S0 prints "code" here, which is no response mode (C05).
		"response_modes_supported": {strings.Join(m.ResponseModes, " "), "query"},
	} {
		if is[0] != is[1] {
			t.Errorf("%s is %q, want %q", what, is[0], is[1])
		}
	}
	if !slices.Contains(m.GrantTypes, "authorization_code") || !slices.Contains(m.TokenAuthMethods, "none") || m.JWKSURI == "" || len(m.ScopesSupported) == 0 {
		t.Errorf("%+v", m)
	}
}

func (p *profile) mirrors(t *testing.T) {
	closed := apptest.Start(t, func(c *app.Config) { c.Registration = "off" })
	var m oauth.ServerMetadata
	closed.Get("/.well-known/oauth-authorization-server").JSON(t, &m)
	if m.RegistrationEndpoint != "" {
		t.Errorf("registration is off, and advertised at %s", m.RegistrationEndpoint)
	}
}

func (p *profile) registers(t *testing.T) {
	a := p.PostJSON("/mcp/register", `{
		"client_name": "MCP Client",
		"redirect_uris": ["`+web+`", "`+local+`"],
		"grant_types": ["authorization_code"],
		"response_types": ["code"],
		"token_endpoint_auth_method": "none"
	}`)
	a.JSON(t, &p.app)
	guid := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	reg := regexp.MustCompile(`^reg-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	r := p.app
	if a.StatusCode != http.StatusCreated || a.Header.Get("Cache-Control") != "no-store" || !guid.MatchString(r.ClientID) || !reg.MatchString(r.RegistrationToken) ||
		r.RegistrationURI != p.URL+"/registration/"+r.ClientID || r.ClientName != "MCP Client" || r.TokenAuthMethod != "none" ||
		!slices.Equal(r.RedirectURIs, []string{web, local}) || !slices.Contains(r.GrantTypes, "authorization_code") || r.ClientSecret != "" {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.Text)
	}
}

// manage sends a request of RFC 7592.
func (p *profile) manage(method, token, body string) apptest.Answer {
	headers := []string{"Content-Type: application/json"}
	if token != "" {
		headers = append(headers, "Authorization: Bearer "+token)
	}
	return p.Do(p.Request(method, "/registration/"+p.app.ClientID, body, headers...))
}

func (p *profile) manages(t *testing.T) {
	var is oauth.Registration
	p.manage(http.MethodGet, p.app.RegistrationToken, "").JSON(t, &is)
	if is.ClientID != p.app.ClientID || !slices.Equal(is.RedirectURIs, p.app.RedirectURIs) {
		t.Errorf("it is %+v", is)
	}
	p.manage(http.MethodPut, p.app.RegistrationToken, `{"client_name":"Renamed Client","redirect_uris":["`+web+`","`+local+`"]}`).JSON(t, &is)
	if is.ClientName != "Renamed Client" || is.ClientID != p.app.ClientID || !slices.Equal(is.GrantTypes, p.app.GrantTypes) {
		t.Errorf("changed to %+v", is)
	}
	for _, token := range []string{"", "reg-00000000-0000-0000-0000-000000000000"} {
		if a := p.manage(http.MethodGet, token, ""); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("with %q: %d", token, a.StatusCode)
		}
	}
	if a := p.RPC("/mcp", p.app.RegistrationToken, "tools/list", ""); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the registration token opens the endpoint: %d", a.StatusCode)
	}
}

// request is S0's authorization request: client_id, code_challenge,
// code_challenge_method, redirect_uri, and state, which is optional.
func (p *profile) request(change url.Values) string {
	p.verifier = oauth.NewVerifier()
	query := url.Values{
		"client_id": {p.app.ClientID}, "code_challenge": {oauth.Challenge(p.verifier)}, "code_challenge_method": {"S256"},
		"redirect_uri": {web}, "state": {"a state/1"},
	}
	for name, values := range change {
		if query[name] = values; values == nil {
			query.Del(name)
		}
	}
	return "/mcp/authorize?" + query.Encode()
}

func (p *profile) asks(t *testing.T) {
	for why, change := range map[string]url.Values{"no challenge": {"code_challenge": nil}, "plain": {"code_challenge_method": {"plain"}}} {
		a := p.Get(p.request(change), "Accept: text/html", "Sec-Fetch-Dest: document")
		location, err := a.Location()
		if err != nil || location.Query().Get("error") != oauth.InvalidRequest || location.Query().Get("state") != "a state/1" || !strings.HasPrefix(location.String(), web) {
			t.Errorf("%s: %d %v", why, a.StatusCode, location)
		}
	}
	a := p.Get(p.request(url.Values{"state": nil, "code_challenge": nil})) // state is optional, and not made up
	if location, err := a.Location(); err != nil || location.Query().Has("state") || location.Query().Get("error") != oauth.InvalidRequest {
		t.Errorf("without state: %d %v", a.StatusCode, location)
	}
	for why, change := range map[string]url.Values{
		"another address": {"redirect_uri": {"https://client.example.com/callback/"}}, "no client": {"client_id": {"6a7ec2ba-0000-4000-8000-000000000000"}},
	} {
		if a := p.Get(p.request(change), "Accept: text/html", "Sec-Fetch-Dest: document"); a.StatusCode != http.StatusBadRequest || a.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", why, a.StatusCode, a.Header)
		}
	}
}

func (p *profile) goesThrough(t *testing.T) {
	page := p.mira.Open(p.request(nil))
	form := apptest.Fields(page.Text)
	if form.Get("request") == "" || !strings.Contains(page.Text, "Renamed Client") || apptest.Departs(page.Text) != "" {
		t.Fatalf("no consent: %d %s", page.StatusCode, page.Text)
	}
	form.Set("decision", "allow")
	page = p.mira.Submit("/consent", form)
	to, err := url.Parse(apptest.Departs(page.Text))
	if err != nil || to.Host == "" {
		t.Fatalf("nobody is sent to the service: %s", page.Text)
	}
	q := to.Query()
	if !strings.HasPrefix(to.String(), p.k.Issuer+"/oauth/authorize?") || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == oauth.Challenge(p.verifier) ||
		q.Get("state") == "a state/1" || q.Get("state") == "" || q.Get("redirect_uri") != p.URL+"/connect/knowledge/callback" || q.Get("scope") != qa.Read+" "+qa.Write {
		t.Errorf("the service is asked with %v", q)
	}
	if n := p.Count(`SELECT count(*) FROM authorization_code`); n != 0 {
		t.Errorf("%d codes before the service has answered", n)
	}
	page = p.mira.Connect(p.k, page, "mira", nil)
	back := apptest.Target(page.Text)
	if back == nil || !strings.HasPrefix(back.String(), web+"?") || back.Query().Get("state") != "a state/1" || back.Query().Get("iss") != p.URL {
		t.Fatalf("answered at %v: %s", back, page.Text)
	}
	if p.code = back.Query().Get("code"); p.code == "" || len(p.k.Tokens()) != 2 {
		t.Errorf("code %q, %d tokens of the service", p.code, len(p.k.Tokens()))
	}
}

// exchange is S0's token request.
func (p *profile) exchange(change url.Values) apptest.Answer {
	form := url.Values{"grant_type": {"authorization_code"}, "code": {p.code}, "code_verifier": {p.verifier}, "redirect_uri": {web}, "client_id": {p.app.ClientID}}
	for name, values := range change {
		form[name] = values
	}
	return p.Form("/mcp/token", form)
}

func (p *profile) redeems(t *testing.T) {
	for why, change := range map[string]url.Values{"another verifier": {"code_verifier": {oauth.NewVerifier()}}, "another address": {"redirect_uri": {local}}} {
		if a := p.exchange(change); a.StatusCode != http.StatusBadRequest || a.Error() != oauth.InvalidGrant {
			t.Errorf("%s: %d %s", why, a.StatusCode, a.Text)
		}
	}
	a := p.exchange(nil)
	if a.JSON(t, &p.tokens); a.StatusCode != http.StatusOK || p.tokens.TokenType != "Bearer" || p.tokens.ExpiresIn <= 0 || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
}

func (p *profile) looks(t *testing.T) {
	plain, err := base64.RawURLEncoding.DecodeString(strings.Split(p.tokens.AccessToken, ".")[1])
	claims := map[string]any{}
	if err == nil {
		err = json.Unmarshal(plain, &claims)
	}
	handle, _ := claims["public_token"].(string)
	if err != nil || handle == "" || claims["iss"] != p.URL || claims["aud"] != p.URL+"/mcp" || claims["sub"] == nil || claims["scope"] == nil || claims["exp"] == nil || claims["client_id"] != p.app.ClientID {
		t.Fatalf("%v %s", err, plain)
	}
	for _, token := range p.k.Tokens() {
		if how := apptest.Find(token, p.tokens.AccessToken+" "+string(plain)); how != "" {
			t.Errorf("the token holds what the service granted, %s", how)
		}
	}
	for _, token := range []string{handle, p.tokens.AccessToken} {
		r, err := http.NewRequest(http.MethodGet, p.k.Issuer+"/api/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		if a := p.Do(r); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("it opens the service: %d %s", a.StatusCode, a.Text)
		}
	}
	if a := p.RPC("/mcp", handle, "tools/list", ""); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the handle opens the endpoint: %d", a.StatusCode)
	}
}

func (p *profile) isJudged(t *testing.T) {
	for token, says := range map[string]string{"": "resource_metadata=", p.tokens.AccessToken + "A": `error="invalid_token"`} {
		a := p.RPC("/mcp", token, "tools/list", "")
		if challenge := a.Header.Get("WWW-Authenticate"); a.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(challenge, "Bearer ") || !strings.Contains(challenge, says) {
			t.Errorf("%d %s", a.StatusCode, challenge)
		}
	}
}

func (p *profile) calls(t *testing.T) {
	if a := p.RPC("/mcp", p.tokens.AccessToken, "tools/list", ""); !strings.Contains(a.Text, `"knowledge_kb_search"`) || !strings.Contains(a.Text, `"knowledge_kb_get"`) || !strings.Contains(a.Text, `"knowledge_kb_create_draft"`) {
		t.Errorf("the tools are %s", a.Text)
	}
	found := p.Tool(p.tokens.AccessToken, "knowledge_kb_search", `{"query":"invoices"}`).Text
	if !strings.Contains(found, "(support)") || strings.Contains(found, "(platform)") {
		t.Errorf("found %s", found)
	}
	p.k.Expire() // which is refreshed without a word
	if made := p.Tool(p.tokens.AccessToken, "knowledge_kb_create_draft", `{"title":"New","body":"text"}`).Text; !strings.Contains(made, "mira") {
		t.Errorf("drafted %s", made)
	}
	ours := 0
	for _, header := range p.k.Got() {
		for name, values := range header {
			value := strings.Join(values, " ")
			if apptest.Find(p.tokens.AccessToken, value) != "" || name == "Cookie" || name == "Dpop" {
				t.Errorf("the server got %s: %s", name, value)
			}
			if name == "Authorization" && slices.Contains(p.k.Tokens(), strings.TrimPrefix(value, "Bearer ")) {
				ours++
			}
		}
	}
	if ours == 0 {
		t.Error("the server got no token of the service")
	}
}

func (p *profile) leaves(t *testing.T) {
	if a := p.manage(http.MethodDelete, p.app.RegistrationToken, ""); a.StatusCode != http.StatusNoContent {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if a := p.RPC("/mcp", p.tokens.AccessToken, "tools/list", ""); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("its token still works: %d", a.StatusCode)
	}
	if a := p.manage(http.MethodGet, p.app.RegistrationToken, ""); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("it is still there: %d", a.StatusCode)
	}
}
