package authserver_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth/oauthtest"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// screenless registers an app that may use the device grant.
func (h house) screenless() string {
	h.t.Helper()
	return h.register(`{"client_name":"Screenless","redirect_uris":["` + apptest.Callback + `"],"grant_types":["authorization_code","refresh_token","` + deviceGrant + `"]}`).ClientID
}

// ask starts a device.
func (h house) device(client string, change url.Values) (d oauth.DeviceResponse) {
	h.t.Helper()
	form := with("client_id", client)
	for name, values := range change {
		form[name] = values
	}
	a := h.Form("/oauth/device", form, "User-Agent: tv/1.0")
	a.JSON(h.t, &d)
	if a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" || d.DeviceCode == "" || d.UserCode == "" {
		h.t.Fatalf("no device code: %d %v %s", a.StatusCode, a.Header, a.Text)
	}
	return d
}

// poll is what the device asks again and again.
func (h house) poll(client, code string) apptest.Answer {
	h.t.Helper()
	return h.Form("/oauth/token", with("grant_type", deviceGrant, "client_id", client, "device_code", code))
}

// patient lets the device ask at once without being too early.
func (h house) patient() { h.SQL(`UPDATE device_code SET polled_at = NULL`) }

// typed sends a code as the page does, and returns what comes after it.
func (h house) typed(b *apptest.Browser, code string) apptest.Answer {
	h.t.Helper()
	form := apptest.Fields(b.Open("/device").Text)
	form.Set("user_code", code)
	return b.Submit("/device/code", form)
}

// decide answers the question about a device.
func (h house) decide(b *apptest.Browser, page apptest.Answer, decision string) apptest.Answer {
	h.t.Helper()
	form := apptest.Fields(page.Text)
	if form.Get("request") == "" {
		h.t.Fatalf("nobody is asked: %d at %s %s", page.StatusCode, page.Request.URL, page.Text)
	}
	form.Set("decision", decision)
	form.Set("started", "yes")
	form.Set("keep", "month")
	return b.Submit("/consent", form)
}

// R914, RFC 8628: a program without a browser shows a code; a person types it however
// they like, signs in, compares it and allows as much as they like; the program gets
// tokens that do everything those of a code do.
func TestADeviceIsConnected(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		h.Browser().SetUp()
		client := h.screenless()
		d := h.device(client, with("scope", "audit:read servers:read", "resource", h.URL+"/mcp"))
		if d.VerificationURI != h.URL+"/device" || d.VerificationURIComplete != h.URL+"/device?user_code="+d.UserCode || d.ExpiresIn != 900 || d.Interval != 5 || len(d.UserCode) != 9 {
			t.Errorf("%+v", d)
		}
		refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending)
		b := h.Browser()
		page := h.typed(b, " "+strings.ToLower(strings.ReplaceAll(d.UserCode, "-", " ")))
		if page.Request.URL.Path != "/login" || !strings.Contains(page.Text, "A device that shows a code") {
			t.Fatalf("at %s %s", page.Request.URL, page.Text)
		}
		form := apptest.Fields(page.Text)
		form.Set("email", apptest.Owner)
		b.Submit("/login", form)
		page = b.UseLink()
		for _, want := range []string{d.UserCode, "tv/1.0", "on another device", "list_audit_events", "list_servers"} {
			if !strings.Contains(page.Text, want) {
				t.Errorf("the question does not say %s: %s", want, page.Text)
			}
		}
		h.patient()
		refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending)
		form = apptest.Fields(page.Text)
		form.Set("decision", "allow")
		form.Del("started")
		if a := b.Submit("/consent", form); a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "Say first that your device shows this code") {
			t.Errorf("it counts without the codes being compared: %d %s", a.StatusCode, a.Text)
		}
		form.Set("started", "yes")
		form.Del("scope:servers:read")
		if a := b.Submit("/consent", form); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "go back to your device") || apptest.Target(a.Text) != nil {
			t.Errorf("%d %v %s", a.StatusCode, a.Header, a.Text)
		}
		var tokens oauth.TokenResponse
		h.poll(client, d.DeviceCode).JSON(t, &tokens)
		if tokens.Scope != "audit:read" || !h.works(tokens.AccessToken) {
			t.Fatalf("%+v", tokens)
		}
		tokens = h.refresh(client, tokens.RefreshToken)
		if h.events("consent") != 1 || h.Count(`SELECT count(*) FROM audit_event WHERE action = 'token.issue' AND detail LIKE '%`+deviceGrant+`%'`) != 1 {
			t.Error("it is not on record")
		}
		if me := b.Open("/me"); !strings.Contains(me.Text, "The device that shows a code") {
			t.Errorf("the person does not see it: %s", me.Text)
		}
		if a := h.Admin("stop_everything", `{}`); a.StatusCode != http.StatusOK || h.works(tokens.AccessToken) {
			t.Error("it does not end with the rest")
		}
	})
}

// RFC 8628 §3.5: what a device is told while it waits, and at the end.
func TestWhatADeviceIsTold(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.screenless()
		d := h.device(client, nil)
		refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending)
		for range 2 { // attack 121: too early; it has to become slower each time
			refused(t, h.poll(client, d.DeviceCode), oauth.SlowDown)
		}
		if n := h.Count(`SELECT pause FROM device_code`); n != 15_000_000 {
			t.Errorf("it has to pause for %d µs", n)
		}
		h.SQL(`UPDATE device_code SET polled_at = polled_at - 14500000`) // a little early is early enough
		refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending)
		for range 20 {
			h.poll(client, d.DeviceCode)
		}
		if n := h.Count(`SELECT pause FROM device_code`); n != 60_000_000 {
			t.Errorf("it has to pause for %d µs", n)
		}
		if a := h.decide(b, h.typed(b, d.UserCode), "deny"); !strings.Contains(a.Text, "You didn’t allow it") || apptest.Target(a.Text) != nil {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		for range 2 {
			refused(t, h.poll(client, d.DeviceCode), oauth.AccessDenied)
		}
		late := h.device(client, nil)
		page := h.typed(b, late.UserCode)
		h.SQL(`UPDATE device_code SET expires_at = $1`, 1_000_000*(int64(h.Count(`SELECT max(created_at) FROM device_code`))/1_000_000)-1_000_000)
		refused(t, h.poll(client, late.DeviceCode), oauth.ExpiredToken)
		if a := h.decide(b, page, "allow"); a.StatusCode != http.StatusForbidden || !strings.Contains(a.Text, "DEVICE_CODE_GONE") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if a := h.typed(b, late.UserCode); a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "There is no such code") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if n := h.Count(`SELECT count(*) FROM token_family`); n != 0 {
			t.Errorf("%d families", n)
		}
	})
}

// Attack 121: only the client that asked gets anything, once, and with the whole code.
func TestADeviceCodeIsItsClients(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client, other := h.person(), h.screenless(), h.screenless()
		plain := h.Register()
		d := h.device(client, nil)
		h.decide(b, h.typed(b, d.UserCode), "allow")
		id, secret, _ := strings.Cut(d.DeviceCode, ".")
		h.unchanged(t, func() {
			refused(t, h.poll(other, d.DeviceCode), oauth.InvalidGrant)
			refused(t, h.poll(plain, d.DeviceCode), oauth.UnauthorizedClient)
			refused(t, h.poll(client, id+"."+strings.Repeat("A", 43)), oauth.InvalidGrant)
			refused(t, h.poll(client, id), oauth.InvalidGrant)
			refused(t, h.poll(client, "code_"+strings.TrimPrefix(id, "dev_")+"."+secret), oauth.InvalidGrant)
			refused(t, h.poll(client, d.UserCode), oauth.InvalidGrant)
			refused(t, h.poll(client, ""), oauth.InvalidGrant)
			a := h.Form("/oauth/token", with("grant_type", "refresh_token", "client_id", client, "refresh_token", d.DeviceCode)) // attack 40
			refused(t, a, oauth.InvalidGrant)
		})
		answers := apptest.Together(32, func(int) apptest.Answer { return h.poll(client, d.DeviceCode) })
		if got := statuses(answers); got[http.StatusOK] != 1 || got[http.StatusBadRequest] != 31 {
			t.Errorf("%v", got)
		}
		if n := h.Count(`SELECT count(*) FROM token_family WHERE revoked_at IS NULL`); n != 0 { // as with a code
			t.Errorf("%d families live after it was used twice", n)
		}
		dump := h.Dump()
		for _, secret := range []string{secret, d.UserCode, strings.ReplaceAll(d.UserCode, "-", "")} {
			if strings.Contains(dump, secret) {
				t.Errorf("%s is kept", secret)
			}
		}
	})
}

// Attack 29 for devices: what was withdrawn between the answer and the poll, or by
// removing client or member, gives nothing.
func TestAWithdrawnDeviceGetsNothing(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.screenless()
		for name, withdraw := range map[string]func(){
			"the consent": func() { h.Admin("stop_everything", `{}`) },
			"the member":  func() { h.SQL(`UPDATE member SET status = 'suspended'`) },
		} {
			t.Run(name, func(t *testing.T) {
				defer h.SQL(`UPDATE member SET status = 'active'`)
				d := h.device(client, nil)
				h.decide(b, h.typed(b, d.UserCode), "allow")
				withdraw()
				if a := h.poll(client, d.DeviceCode); a.StatusCode != http.StatusBadRequest || h.Count(`SELECT count(*) FROM token_family WHERE revoked_at IS NULL`) != 0 {
					t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			})
		}
	})
}

// Attack 121, U12: a code in a link fills the field and does nothing; the page posts
// in the same browser only, and a person who has signed in is asked all the same.
func TestALinkWithACodeConnectsNothing(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.screenless()
	h.decide(b, h.typed(b, h.device(client, nil).UserCode), "allow") // allowed before: no reason not to ask
	d := h.device(client, nil)
	h.unchanged(t, func() {
		page := b.Open(strings.TrimPrefix(d.VerificationURIComplete, h.URL))
		if got := apptest.Fields(page.Text).Get("user_code"); got != d.UserCode || page.Request.URL.Path != "/device" {
			t.Errorf("%q at %s", got, page.Request.URL)
		}
		form := apptest.Fields(page.Text)
		form.Set("csrf", "x")
		if a := b.Submit("/device/code", form); a.StatusCode != http.StatusForbidden {
			t.Errorf("a foreign form counts: %d %s", a.StatusCode, a.Text)
		}
		for _, code := range []string{"%22%3E%3Cscript%3Ealert(1)%3C/script%3E", strings.Repeat("B", 100), "%00", "%ff"} {
			page := b.Open("/device?user_code=" + code)
			if page.StatusCode != http.StatusOK || strings.Contains(page.Text, "<script>alert") || strings.Contains(page.Text, "BBBBBBBBBB") {
				t.Errorf("%s: %d %s", code, page.StatusCode, page.Text)
			}
		}
		if a := h.Get("/device", "Accept: text/html"); a.StatusCode != http.StatusOK || a.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%d %v", a.StatusCode, a.Header)
		}
	})
	page := h.typed(b, d.UserCode)
	if apptest.Fields(page.Text).Get("request") == "" || !strings.Contains(page.Text, "You allowed it") {
		t.Errorf("at %s %s", page.Request.URL, page.Text)
	}
	h.patient()
	refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending)
}

// Attack 121: codes cannot be tried out: right or wrong, an address has so many tries.
func TestGuessingCodesIsThrottled(t *testing.T) {
	h := start(t, func(c *app.Config) { c.TypedCodeLimit = throttle.Limit{Each: 30, All: 3000, Per: day} })
	b, client := h.person(), h.screenless()
	d := h.device(client, nil)
	for i := 0; ; i++ {
		if i > 60 {
			t.Fatal("guesses are not limited")
		}
		a := h.typed(b, "BBBB-BBBB")
		if a.StatusCode == http.StatusTooManyRequests {
			if i < 20 || a.Header.Get("Retry-After") == "" || !strings.Contains(a.Text, "TOO_OFTEN") {
				t.Errorf("after %d: %v %s", i, a.Header, a.Text)
			}
			break
		}
		if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "There is no such code") || !strings.Contains(a.Text, "BBBB-BBBB") {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
	}
	fresh := h.Browser() // of the same address
	if a := h.typed(fresh, d.UserCode); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("another browser: %d", a.StatusCode)
	}
	refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending) // the device itself is not held up
}

// The device authorization endpoint judges what it is asked, at all its addresses, and
// keeps nothing of what it refuses.
func TestTheDeviceEndpointJudges(t *testing.T) {
	h := start(t)
	client, plain := h.screenless(), h.Register()
	for name, row := range map[string]struct {
		change url.Values
		code   string
	}{
		"no client":                   {without("client_id"), oauth.InvalidClient},
		"an unknown client":           {with("client_id", "x"), oauth.InvalidClient},
		"a secret that it has not":    {with("client_secret", "cs_x"), oauth.InvalidClient},
		"a client that did not ask":   {with("client_id", plain), oauth.UnauthorizedClient},
		"no scope that exists":        {with("scope", "photos:read"), oauth.InvalidScope},
		"a scope with a quote":        {with("scope", `"`), oauth.InvalidScope},
		"an unknown resource":         {with("resource", "https://evil.example/mcp"), oauth.InvalidTarget},
		"a resource that is none":     {with("resource", "x"), oauth.InvalidTarget},
		"two resources":               {url.Values{"resource": {h.URL + "/mcp", h.URL + "/s/gatehouse/mcp"}}, oauth.InvalidTarget},
		"a parameter twice":           {url.Values{"scope": {"a", "b"}}, oauth.InvalidRequest},
		"text that is not UTF-8":      {with("scope", "\xff"), oauth.InvalidRequest},
		"a user code of its own wish": {with("client_id", plain, "user_code", "BBBB-BBBB"), oauth.UnauthorizedClient},
	} {
		t.Run(name, func(t *testing.T) {
			form := with("client_id", client)
			for k, v := range row.change {
				form[k] = v
			}
			h.unchanged(t, func() { refused(t, h.Form("/oauth/device", form), row.code) })
		})
	}
	for _, path := range []string{"/oauth/device", "/mcp/device", "/device"} {
		if a := h.Form(path, with("client_id", client)); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
		}
	}
	if r := h.register(`{"redirect_uris":["` + apptest.Callback + `"]}`); strings.Contains(strings.Join(r.GrantTypes, " "), deviceGrant) {
		t.Errorf("it is granted to who did not ask: %v", r.GrantTypes)
	}
}

// R630: in development mode there is no sign-in, but the question is asked: no
// redirect proves that the program is on this computer.
func TestDevelopmentModeAsksAboutDevices(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.screenless()
	d := h.device(client, nil)
	b := h.Browser()
	b.Open(strings.TrimPrefix(d.VerificationURIComplete, h.URL))
	refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending)
	h.decide(b, h.typed(b, d.UserCode), "allow")
	var tokens oauth.TokenResponse
	if h.poll(client, d.DeviceCode).JSON(t, &tokens); !h.works(tokens.AccessToken) {
		t.Errorf("%+v", tokens)
	}
}

// R307, R914: also for a device an account elsewhere is connected on the way, after
// the person has allowed it; without the account the device gets nothing.
func TestADeviceWaitsForAnAccount(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b, client := h.person(), h.screenless()
		d := h.device(client, nil)
		page := h.decide(b, h.typed(b, d.UserCode), "allow")
		if apptest.Departs(page.Text) == "" {
			t.Fatalf("no account is asked for: %d %s", page.StatusCode, page.Text)
		}
		refused(t, h.poll(client, d.DeviceCode), oauth.AuthorizationPending)
		if page = b.Connect(h.k, page, "mira", nil); !strings.Contains(page.Text, "go back to your device") {
			t.Errorf("%d at %s %s", page.StatusCode, page.Request.URL, page.Text)
		}
		var tokens oauth.TokenResponse
		if h.poll(client, d.DeviceCode).JSON(t, &tokens); tokens.AccessToken == "" {
			t.Fatal("no token")
		}
		own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
	})
}

// RFC 9449: a device that proves to have a key gets tokens that are bound to it.
func TestTokensOfADeviceAreBoundToItsKey(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.screenless()
	d := h.device(client, nil)
	h.decide(b, h.typed(b, d.UserCode), "allow")
	key := oauthtest.NewKey(t, "ES256")
	var tokens oauth.TokenResponse
	h.proving("/oauth/token", key, with("grant_type", deviceGrant, "client_id", client, "device_code", d.DeviceCode), nil).JSON(t, &tokens)
	if tokens.TokenType != "DPoP" || h.works(tokens.AccessToken) {
		t.Errorf("%+v", tokens)
	}
	if a := h.Refresh(client, tokens.RefreshToken); a.StatusCode == http.StatusOK {
		t.Error("it is renewed without the key")
	}
}
