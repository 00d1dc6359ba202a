// Package s4_test does what the guide S4 says of MCP and OAuth, step by step and
// with its paths and bodies, against a running house: a client that nobody has
// announced, a person who signs in with a link and decides, tokens, what they may
// not do, and programs that act for nobody. Sessions of the link sign-in over REST
// and the other transports are not part of it yet.
package s4_test

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

// The addresses of a hosted client and of one on the person's computer.
const (
	web   = "https://client.example.com/callback"
	local = "http://localhost:33418/callback"
)

// profile is one client on its way, which meets everything in the order of S4.
type profile struct {
	*apptest.House
	t     *testing.T
	dana  *apptest.Browser
	tools *apptest.Upstream

	resource oauth.ResourceMetadata
	meta     oauth.ServerMetadata
	app      oauth.Registration
	tokens   oauth.TokenResponse
}

// parts are S4's own, in its order.
var parts = []struct {
	name string
	do   func(*profile, *testing.T)
}{
	{"R501 R502 R504 C17: a request without a token says where to begin", (*profile).isChallenged},
	{"R107 R108 R109 R111: the resource names its authorization server", (*profile).findsTheResource},
	{"R101 R102 R104 R106 R112 R116: the server describes itself, with its keys", (*profile).findsTheServer},
	{"R201 R203 R204 R205 R215 R216: a client registers itself", (*profile).registers},
	{"R305 C11: an unknown client, or an unknown address, is never answered by a redirect", (*profile).isNotSentAway},
	{"R306 R601 R606: nobody is signed in, so a link is mailed, and the flow goes on from there", (*profile).signsIn},
	{"R308 R309 R312: the person sees who asks for what, and may say no", (*profile).isDenied},
	{"R310 R314 R401 R403 R406 R408 R420: the person says yes, and the code becomes a token for the resource", (*profile).isAllowed},
	{"R405 R407: a code is good once, and what is wrong is said in JSON", (*profile).errs},
	{"R1213 R1022 C27 R316: consent is remembered for a hosted client, and asked of a local one each time", (*profile).isRemembered},
	{"R508 R509 C18: what the scope does not cover is refused with the scope that would", (*profile).stepsUp},
	{"R412 R413: the refresh token rotates, and its return ends the family", (*profile).refreshes},
	{"R319: a code that is used again ends what it became", (*profile).usesTwice},
	{"R503 R514: a bad token, or one in the address, is refused", (*profile).isRefused},
	{"R519: the server behind never sees the token", (*profile).staysUnknown},
	{"R416: a revoked token stops working at once", (*profile).revokes},
}

// S4's guide, from end to end (R1503).
func TestProfileOfS4(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		p := &profile{House: h, t: t, dana: h.Browser(), tools: apptest.NewUpstream(t)}
		p.dana.SetUp()
		p.Add("docs", p.tools)
		for _, part := range parts {
			if !t.Run(part.name, func(t *testing.T) { part.do(p, t) }) {
				t.FailNow()
			}
		}
	})
}

func (p *profile) isChallenged(t *testing.T) {
	a := p.RPC("/s/docs/mcp", "", "tools/list", "")
	challenge := a.Header.Get("WWW-Authenticate")
	metadata := p.URL + "/.well-known/oauth-protected-resource/s/docs/mcp"
	for _, want := range []string{"Bearer ", `realm="`, `resource_metadata="` + metadata + `"`, `resource_metadata_uri="` + metadata + `"`, `scope="docs:read docs:write"`} {
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, want) {
			t.Errorf("%d, without %s: %s", a.StatusCode, want, challenge)
		}
	}
	if !json.Valid([]byte(a.Text)) || strings.Contains(challenge, "error=") {
		t.Errorf("%s: %s", challenge, a.Text)
	}
}

func (p *profile) findsTheResource(t *testing.T) {
	p.Get("/.well-known/oauth-protected-resource/s/docs/mcp", "Origin: https://app.example").JSON(t, &p.resource)
	if p.resource.Resource != p.URL+"/s/docs/mcp" || !slices.Equal(p.resource.AuthorizationServers, []string{p.URL}) || !slices.Equal(p.resource.BearerMethods, []string{"header"}) ||
		slices.Contains(p.resource.ScopesSupported, "offline_access") {
		t.Errorf("%+v", p.resource)
	}
	var common oauth.ResourceMetadata
	if p.Get("/.well-known/oauth-protected-resource").JSON(t, &common); common.Resource != p.URL+"/mcp" {
		t.Errorf("%+v", common)
	}
}

func (p *profile) findsTheServer(t *testing.T) {
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		a := p.Get(path, "Origin: https://app.example")
		a.JSON(t, &p.meta)
		if a.Header.Get("Access-Control-Allow-Origin") != "*" || p.meta.Issuer != p.resource.AuthorizationServers[0] || !p.meta.IssParameter ||
			!slices.Equal(p.meta.ChallengeMethods, []string{"S256"}) || !slices.Equal(p.meta.ResponseTypes, []string{"code"}) {
			t.Errorf("%s: %v %+v", path, a.Header, p.meta)
		}
	}
	var set struct{ Keys []map[string]string }
	if a := p.Get(strings.TrimPrefix(p.meta.JWKSURI, p.URL)); a.Header.Get("Cache-Control") == "" {
		t.Errorf("the keys are not to be kept: %v", a.Header)
	} else if a.JSON(t, &set); len(set.Keys) == 0 || set.Keys[0]["kid"] == "" || set.Keys[0]["d"] != "" {
		t.Errorf("keys %v", set.Keys)
	}
}

func (p *profile) registers(t *testing.T) {
	at := strings.TrimPrefix(p.meta.RegistrationEndpoint, p.URL)
	for body, fault := range map[string]string{
		`{"client_name":"x"}`: oauth.InvalidRedirectURI,
		`{"client_name":"x","redirect_uris":["http://client.example.com/callback"]}`:                         oauth.InvalidRedirectURI,
		`{"client_name":"x","redirect_uris":["` + web + `#part"]}`:                                           oauth.InvalidRedirectURI,
		`{"client_name":"x","redirect_uris":["` + web + `"],"logo_uri":"javascript:alert(1)"}`:               oauth.InvalidClientMetadata,
		`{"client_name":"x","redirect_uris":["` + web + `"],"grant_types":"authorization_code"}`:             oauth.InvalidClientMetadata,
		`{"client_name":"x","redirect_uris":["` + web + `"],"response_types":["token"]}`:                     oauth.InvalidClientMetadata,
		`{"client_name":"x","redirect_uris":["` + web + `"],"jwks":{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}}`: oauth.InvalidClientMetadata,
	} {
		if a := p.PostJSON(at, body); a.StatusCode != http.StatusBadRequest || a.Error() != fault {
			t.Errorf("%s: %d %s", body, a.StatusCode, a.Text)
		}
	}
	a := p.PostJSON(at, `{"client_name":"Hosted Client","redirect_uris":["`+web+`","`+local+`"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],
		"token_endpoint_auth_method":"none","scope":"docs:read docs:write","logo_uri":"https://client.example.com/logo.png","client_uri":"https://client.example.com","application_type":"web","x_vendor":1}`)
	a.JSON(t, &p.app)
	if a.StatusCode != http.StatusCreated || p.app.ClientID == "" || p.app.ClientSecret != "" || a.Header.Get("Cache-Control") != "no-store" || p.app.LogoURI == "" {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
}

// request is an authorization request as the guide has it, with what is changed.
func (p *profile) request(change url.Values) (path, verifier string) {
	query, verifier := p.Authorization(p.app.ClientID, url.Values{"redirect_uri": {web}, "resource": {p.resource.Resource}, "scope": {"docs:read"}})
	for name, values := range change {
		query[name] = values
	}
	return strings.TrimPrefix(p.meta.AuthorizationEndpoint, p.URL) + "?" + query.Encode(), verifier
}

// ask opens a request in a browser and returns the form of the question.
func (p *profile) ask(t *testing.T, b *apptest.Browser, path string) (page string, form url.Values) {
	t.Helper()
	a := b.Open(path)
	form = apptest.Fields(a.Text)
	if !form.Has("request") {
		t.Fatalf("nobody is asked: %d %s", a.StatusCode, a.Text)
	}
	form.Set("started", "yes")
	return a.Text, form
}

// answer posts what the person decided, and returns where the browser goes.
func (p *profile) answer(t *testing.T, b *apptest.Browser, form url.Values, decision string) url.Values {
	t.Helper()
	form.Set("decision", decision)
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil {
		t.Fatal("no way back")
	}
	return target.Query()
}

func (p *profile) redeem(code, verifier, redirect string) apptest.Answer {
	return p.Form(strings.TrimPrefix(p.meta.TokenEndpoint, p.URL), url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {redirect}, "client_id": {p.app.ClientID}, "resource": {p.resource.Resource},
	})
}

func (p *profile) works(token string) bool {
	return p.RPC("/s/docs/mcp", token, "tools/list", "").StatusCode == http.StatusOK
}

func (p *profile) isNotSentAway(t *testing.T) {
	for name, change := range map[string]url.Values{
		"an unknown client":   {"client_id": {"nobody"}},
		"an unknown address":  {"redirect_uri": {"https://evil.example/callback"}},
		"an address below it": {"redirect_uri": {web + "/x"}},
	} {
		path, _ := p.request(change)
		if a := p.Get(path, "Accept: text/html"); a.StatusCode != http.StatusBadRequest || a.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
		}
	}
	path, _ := p.request(url.Values{"resource": {"https://elsewhere.example/mcp"}})
	if location, err := p.Get(path).Location(); err != nil || location.Query().Get("error") != oauth.InvalidTarget || location.Query().Get("iss") != p.URL {
		t.Errorf("another resource: %v, %v", location, err)
	}
}

func (p *profile) signsIn(t *testing.T) {
	b := p.Browser()
	path, _ := p.request(nil)
	page := b.Open(path)
	form := apptest.Fields(page.Text)
	if page.Request.URL.Path != "/login" || !strings.Contains(page.Text, "waiting") {
		t.Fatalf("at %s: %s", page.Request.URL, page.Text)
	}
	form.Set("email", apptest.Owner)
	b.Submit("/login", form)
	link := b.Link()
	if a := b.UseLink(); !strings.Contains(a.Text, "Hosted Client") || apptest.Fields(a.Text).Get("request") == "" {
		t.Errorf("after the link: %d %s", a.StatusCode, a.Text)
	}
	again := b.Open(link)
	if a := b.Submit("/login/link", apptest.Fields(again.Text)); a.StatusCode == http.StatusOK && p.Browser().Open("/me").StatusCode == http.StatusOK && strings.Contains(a.Text, "Connected apps") {
		t.Error("the link works twice")
	}
}

func (p *profile) isDenied(t *testing.T) {
	path, _ := p.request(nil)
	page, form := p.ask(t, p.dana, path)
	for _, want := range []string{"Hosted Client", "client.example.com", "docs"} {
		if !strings.Contains(page, want) {
			t.Errorf("the question does not say %s", want)
		}
	}
	back := p.answer(t, p.dana, form, "deny")
	if back.Get("error") != oauth.AccessDenied || back.Get("state") != "st&te/1" || back.Has("code") {
		t.Errorf("%v", back)
	}
}

func (p *profile) isAllowed(t *testing.T) {
	path, verifier := p.request(nil)
	_, form := p.ask(t, p.dana, path)
	back := p.answer(t, p.dana, form, "allow")
	if back.Get("state") != "st&te/1" || back.Get("iss") != p.URL {
		t.Errorf("%v", back)
	}
	for name, a := range map[string]apptest.Answer{ // none of these spoils the code
		"another verifier": p.redeem(back.Get("code"), oauth.NewVerifier(), web),
		"another address":  p.redeem(back.Get("code"), verifier, local),
	} {
		if a.StatusCode != http.StatusBadRequest || a.Error() != oauth.InvalidGrant {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
		}
	}
	a := p.redeem(back.Get("code"), verifier, web)
	a.JSON(t, &p.tokens)
	if p.tokens.TokenType != "Bearer" || p.tokens.ExpiresIn != 3600 || p.tokens.RefreshToken == "" || p.tokens.Scope != "docs:read" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%+v", p.tokens)
	}
	if !p.works(p.tokens.AccessToken) || p.Tool(p.tokens.AccessToken, "whoami", "{}").StatusCode != http.StatusUnauthorized {
		t.Error("the token is not good at its resource, or at another one")
	}
}

func (p *profile) errs(t *testing.T) {
	for name, a := range map[string]apptest.Answer{
		oauth.InvalidGrant:         p.redeem("code_made-up.x", oauth.NewVerifier(), web),
		oauth.UnsupportedGrantType: p.Form("/oauth/token", url.Values{"grant_type": {"password"}, "client_id": {p.app.ClientID}}),
		oauth.InvalidClient:        p.Form("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {"nobody"}}),
		oauth.InvalidRequest:       p.Form("/oauth/token", url.Values{"client_id": {p.app.ClientID}}),
	} {
		if a.Error() != name || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("want %s, got %d %s", name, a.StatusCode, a.Text)
		}
	}
}

func (p *profile) isRemembered(t *testing.T) {
	path, _ := p.request(nil)
	if target := apptest.Target(p.dana.Open(path).Text); target == nil || !target.Query().Has("code") {
		t.Error("the hosted client is asked about again")
	}
	path, _ = p.request(url.Values{"redirect_uri": {local}})
	for range 2 {
		_, form := p.ask(t, p.dana, path)
		p.answer(t, p.dana, form, "allow")
	}
}

func (p *profile) stepsUp(t *testing.T) {
	a := p.RPC("/s/docs/mcp", p.tokens.AccessToken, "tools/call", `{"name":"write","arguments":{}}`)
	challenge := a.Header.Get("WWW-Authenticate")
	if a.StatusCode != http.StatusForbidden || !strings.Contains(challenge, `error="insufficient_scope"`) || !strings.Contains(challenge, "docs:") {
		t.Fatalf("%d %s %s", a.StatusCode, challenge, a.Text)
	}
	_, rest, _ := strings.Cut(challenge, `scope="`)
	needed, _, _ := strings.Cut(rest, `"`)
	path, verifier := p.request(url.Values{"scope": {needed}})
	_, form := p.ask(t, p.dana, path)
	if form.Has("scope:docs:read") {
		t.Error("what was allowed before is asked again")
	}
	var tokens oauth.TokenResponse
	p.redeem(p.answer(t, p.dana, form, "allow").Get("code"), verifier, web).JSON(t, &tokens)
	if a := p.RPC("/s/docs/mcp", tokens.AccessToken, "tools/call", `{"name":"write","arguments":{}}`); a.StatusCode != http.StatusOK {
		t.Errorf("with %q: %d %s", tokens.Scope, a.StatusCode, a.Text)
	}
}

func (p *profile) refresh(refresh string) apptest.Answer {
	return p.Form("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {p.app.ClientID}})
}

func (p *profile) refreshes(t *testing.T) {
	first := p.tokens.RefreshToken
	var second, third oauth.TokenResponse
	p.refresh(first).JSON(t, &second)
	if second.RefreshToken == "" || second.RefreshToken == first || !p.works(second.AccessToken) || !p.works(p.tokens.AccessToken) {
		t.Fatalf("%+v", second)
	}
	p.refresh(second.RefreshToken).JSON(t, &third)
	p.SQL(`UPDATE refresh_token SET child_used_at = child_used_at - 120000000 WHERE child_used_at IS NOT NULL`) // two minutes later
	if a := p.refresh(first); a.Error() != oauth.InvalidGrant {
		t.Errorf("used again: %d %s", a.StatusCode, a.Text)
	}
	if a := p.refresh(third.RefreshToken); a.Error() != oauth.InvalidGrant || p.works(third.AccessToken) {
		t.Errorf("its family lives on: %d %s", a.StatusCode, a.Text)
	}
}

func (p *profile) usesTwice(t *testing.T) {
	path, verifier := p.request(nil)
	target := apptest.Target(p.dana.Open(path).Text)
	if target == nil {
		t.Fatal("no code")
	}
	p.redeem(target.Query().Get("code"), verifier, web).JSON(t, &p.tokens)
	if !p.works(p.tokens.AccessToken) {
		t.Fatal("the token does not work")
	}
	if a := p.redeem(target.Query().Get("code"), verifier, web); a.Error() != oauth.InvalidGrant || p.works(p.tokens.AccessToken) {
		t.Errorf("used again: %d %s", a.StatusCode, a.Text)
	}
}

func (p *profile) isRefused(t *testing.T) {
	a := p.RPC("/s/docs/mcp", "ey.made.up", "tools/list", "")
	if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	path, verifier := p.request(nil)
	p.redeem(apptest.Target(p.dana.Open(path).Text).Query().Get("code"), verifier, web).JSON(t, &p.tokens)
	if a := p.RPC("/s/docs/mcp?access_token="+p.tokens.AccessToken, "", "tools/list", ""); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("in the address: %d", a.StatusCode)
	}
	if !p.works(p.tokens.AccessToken) {
		t.Error("in the header it does not work either")
	}
}

func (p *profile) staysUnknown(t *testing.T) {
	p.RPC("/s/docs/mcp", p.tokens.AccessToken, "tools/call", `{"name":"read","arguments":{}}`)
	received := p.tools.Received("tools/call")
	if len(received) == 0 {
		t.Fatal("nothing was called")
	}
	for _, r := range received {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("it saw %v", r.Header)
		}
	}
}

func (p *profile) revokes(t *testing.T) {
	if a := p.Form("/oauth/revoke", url.Values{"token": {p.tokens.AccessToken}, "client_id": {p.app.ClientID}}); a.StatusCode != http.StatusOK || p.works(p.tokens.AccessToken) {
		t.Errorf("revoked: %d %s", a.StatusCode, a.Text)
	}
}

// R620, R621, R622, R414, R609: a program that acts for nobody gets a token with
// its id and secret, and may do what is on its list and nothing else.
func TestMachines(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		h.Add("docs", apptest.NewUpstream(t))
		var made struct {
			ID     string `json:"client_id"`
			Secret string `json:"client_secret"`
		}
		h.Admin("create_service_account", `{"name":"nightly","allowed_tools":["docs_read"]}`).JSON(t, &made)
		var tokens struct {
			Access  string `json:"access_token"`
			Expires int    `json:"expires_in"`
			Tier    string `json:"tier"`
		}
		h.PostJSON("/auth/m2m/token", `{"client_id":"`+made.ID+`","client_secret":"`+made.Secret+`"}`).JSON(t, &tokens)
		if tokens.Access == "" || tokens.Expires <= 0 || tokens.Tier != "service" {
			t.Fatalf("%+v", tokens)
		}
		if a := h.Tool(tokens.Access, "docs_read", "{}"); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "did read") {
			t.Errorf("what it may: %d %s", a.StatusCode, a.Text)
		}
		if a := h.Tool(tokens.Access, "docs_write", "{}"); strings.Contains(a.Text, "did write") {
			t.Errorf("what it may not: %d %s", a.StatusCode, a.Text)
		}
		if a := h.PostJSON("/auth/m2m/token", `{"client_id":"`+made.ID+`","client_secret":"wrong"}`); a.StatusCode != http.StatusUnauthorized || a.Error() != oauth.InvalidClient {
			t.Errorf("another secret: %d %s", a.StatusCode, a.Text)
		}
	})
}
