package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const hosted = "https://b.example/cb"

// register registers an app of this name at an address.
func (h house) register(name, redirect string) (r oauth.Registration) {
	h.t.Helper()
	h.PostJSON("/oauth/register", `{"client_name":"`+name+`","redirect_uris":["`+redirect+`"]}`).JSON(h.t, &r)
	return r
}

// connect lets an app through the front door, and returns what it got.
func (h house) connect(b *apptest.Browser, name, redirect string, change url.Values) (tokens oauth.TokenResponse, client string) {
	h.t.Helper()
	client = h.register(name, redirect).ClientID
	query, verifier := h.Authorization(client, url.Values{"redirect_uri": {redirect}})
	for k, v := range change {
		query[k] = v
	}
	form := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
	form.Set("decision", "allow")
	form.Set("started", "yes")
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil {
		h.t.Fatal("no way back")
	}
	h.Redeem(client, target.Query().Get("code"), verifier, url.Values{"redirect_uri": {redirect}}).JSON(h.t, &tokens)
	if tokens.AccessToken == "" {
		h.t.Fatal("no token")
	}
	return tokens, client
}

func (h house) works(token string) bool {
	h.t.Helper()
	return h.Tool(token, "whoami", "{}").StatusCode == http.StatusOK
}

// entry is the form that removes the app that calls itself name.
func entry(t *testing.T, page, name string) url.Values {
	t.Helper()
	_, rest, found := strings.Cut(page, "<bdi>"+name+"</bdi>")
	if !found || !strings.Contains(rest, `action="/me/remove"`) {
		t.Fatalf("%s is not on the page: %s", name, page)
	}
	return apptest.Fields(rest[:strings.Index(rest, "</form>")])
}

// bob makes a second member and signs him in.
func (h house) bob(rank string) *apptest.Browser {
	h.t.Helper()
	h.SQL(`INSERT INTO users (id, email, created_at) VALUES ('usr_bob', 'bob@acme.example', 0)`)
	h.SQL(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_bob', $1, 'active', 0)`, rank)
	b := h.Browser()
	form := apptest.Fields(b.Open("/login").Text)
	form.Set("email", "bob@acme.example")
	before := strings.Count(h.Log.String(), "/login/link?token=")
	b.Submit("/login", form)
	if strings.Count(h.Log.String(), "/login/link?token=") != before+1 {
		h.t.Fatal("no link")
	}
	b.UseLink()
	return b
}

// R416, R1212: a person sees what can act for them and removes it; it stops at
// once, with everything it holds, and nothing else does.
func TestAPersonRemovesAnApp(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		dana := h.Browser()
		dana.SetUp()
		bob := h.bob("readonly")
		one, client := h.connect(dana, "One", apptest.Callback, nil)
		two, _ := h.connect(dana, "Two", hosted, nil)
		bobs, _ := h.connect(bob, "Bobs", apptest.Callback, nil)
		page := dana.Open("/me").Text
		for _, want := range []string{"Connected apps", "Unverified app", "A program on this computer", "b.example", "Last seen", "Stop everything"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		if strings.Contains(page, "Bobs") {
			t.Error("the page shows somebody else's app")
		}
		form := entry(t, page, "One")
		stolen := entry(t, bob.Open("/me").Text, "Bobs")
		stolen.Set("csrf", form.Get("csrf"))
		if a := dana.Submit("/me/remove", stolen); a.StatusCode != http.StatusOK || !h.works(bobs.AccessToken) {
			t.Errorf("somebody else's app: %d", a.StatusCode)
		}
		a := dana.Submit("/me/remove", form)
		if a.Request.URL.Path != "/me" || !strings.Contains(a.Text, "Removed. It stopped working at once.") {
			t.Errorf("%s %d %s", a.Request.URL, a.StatusCode, a.Text)
		}
		if h.works(one.AccessToken) || h.Refresh(client, one.RefreshToken).Error() != oauth.InvalidGrant {
			t.Error("it works on")
		}
		if !h.works(two.AccessToken) || !h.works(bobs.AccessToken) {
			t.Error("another app ended as well")
		}
		if live, ended, _ := strings.Cut(a.Text, "Ended in the last 90 days (1)"); strings.Contains(live, "<bdi>One</bdi>") || !strings.Contains(ended, "One") || !strings.Contains(ended, "you removed it") {
			t.Errorf("%s", a.Text)
		}
		if a := dana.Submit("/me/remove", form); !strings.Contains(a.Text, "ended already") {
			t.Errorf("pressed twice: %s", a.Text)
		}
		if h.Count(`SELECT count(*) FROM audit_event WHERE action = 'consent.end' AND client = $1 AND outcome = 'allowed'`, client) != 1 {
			t.Error("nothing is on record")
		}
		again, _ := h.connect(dana, "One", apptest.Callback, nil)
		if !h.works(again.AccessToken) {
			t.Error("what was allowed afterwards does not work")
		}
	})
}

// Attack 38, field.md §5 10: one form stops everything of a person, and nothing of
// anybody else; a code that is on its way is worth nothing.
func TestAPersonStopsEverything(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		dana := h.Browser()
		dana.SetUp()
		bob := h.bob("standard")
		one, _ := h.connect(dana, "One", apptest.Callback, nil)
		two, second := h.connect(dana, "Two", hosted, nil)
		bobs, _ := h.connect(bob, "Bobs", apptest.Callback, nil)
		query, verifier := h.Authorization(second, url.Values{"redirect_uri": {hosted}})
		onItsWay := apptest.Target(dana.Open("/oauth/authorize?" + query.Encode()).Text)
		if onItsWay == nil {
			t.Fatal("it was asked again")
		}
		ask := dana.Open("/me/stop")
		if !strings.Contains(ask.Text, "These 2 apps") || strings.Contains(ask.Text, "Bobs") || !h.works(one.AccessToken) {
			t.Errorf("%s", ask.Text)
		}
		if a := dana.Submit("/me/stop", apptest.Fields(ask.Text)); a.Request.URL.Path != "/me" || !strings.Contains(a.Text, "Everything is stopped") || !strings.Contains(a.Text, "Nothing is connected now") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if h.works(one.AccessToken) || h.works(two.AccessToken) || h.Refresh(second, two.RefreshToken).Error() != oauth.InvalidGrant {
			t.Error("something works on")
		}
		if a := h.Redeem(second, onItsWay.Query().Get("code"), verifier, url.Values{"redirect_uri": {hosted}}); a.Error() != oauth.InvalidGrant {
			t.Errorf("a code on its way: %d %s", a.StatusCode, a.Text)
		}
		if !h.works(bobs.AccessToken) {
			t.Error("somebody else's app ended")
		}
		if fields := apptest.Fields(dana.Open("/oauth/authorize?" + query.Encode()).Text); !fields.Has("request") {
			t.Error("a remembered consent survived")
		}
	})
}

// R1208, attack 60: these forms count from our own page only.
func TestFormsOfThePersonsPageAreOurs(t *testing.T) {
	h := start(t)
	dana := h.Browser()
	dana.SetUp()
	one, _ := h.connect(dana, "One", apptest.Callback, nil)
	form := entry(t, dana.Open("/me").Text, "One")
	nobody := h.Browser()
	nobodys := apptest.Fields(nobody.Open("/login").Text)
	sessions := func() int { return h.Count(`SELECT count(*) FROM browser_session WHERE ended_at IS NULL`) }
	before := sessions()
	for _, path := range []string{"/me/remove", "/me/stop", "/me/sign-out"} {
		spoilt := url.Values{"id": form["id"], "csrf": nobodys["csrf"]}
		for name, a := range map[string]apptest.Answer{
			"another's csrf token": h.post(dana, path, spoilt, "Sec-Fetch-Site: same-origin"),
			"no csrf token":        h.post(dana, path, url.Values{"id": form["id"]}, "Sec-Fetch-Site: same-origin"),
			"a foreign origin":     h.post(dana, path, form, "Origin: https://evil.example"),
			"cross-site":           h.post(dana, path, form, "Sec-Fetch-Site: cross-site"),
			"nobody signed in":     h.post(nobody, path, spoilt, "Sec-Fetch-Site: same-origin"),
		} {
			if a.StatusCode != http.StatusForbidden || a.Header["Location"] != nil {
				t.Errorf("%s, %s: %d", path, name, a.StatusCode)
			}
		}
	}
	if !h.works(one.AccessToken) || sessions() != before {
		t.Error("something happened")
	}
	for _, path := range []string{"/me", "/me/stop"} {
		if a := nobody.Open(path); a.Request.URL.Path != "/login" {
			t.Errorf("%s of nobody: %s %d", path, a.Request.URL, a.StatusCode)
		}
	}
}

// Attack 38: signing out everywhere ends every browser session of the person, and
// no sign-in link from before works.
func TestSignOutEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		dana := h.Browser()
		dana.SetUp()
		bob := h.bob("standard")
		link := func(b *apptest.Browser) string {
			form := apptest.Fields(b.Open("/login?switch=1").Text)
			form.Set("email", apptest.Owner)
			b.Submit("/login", form)
			return b.Link()
		}
		other := h.Browser()
		link(other)
		other.UseLink()
		pending := link(h.Browser())
		signedIn := func(b *apptest.Browser) bool { return b.Open("/me").Request.URL.Path == "/me" }
		if !signedIn(dana) || !signedIn(other) || !signedIn(bob) {
			t.Fatal("not signed in")
		}
		dana.Submit("/me/sign-out", apptest.Fields(dana.Open("/me").Text))
		if signedIn(dana) || signedIn(other) {
			t.Error("a session goes on")
		}
		if !signedIn(bob) {
			t.Error("somebody else was signed out")
		}
		third := h.Browser()
		if a := third.Submit("/login/link", apptest.Fields(third.Open(pending).Text)); a.StatusCode != http.StatusForbidden || signedIn(third) {
			t.Errorf("a link from before: %d", a.StatusCode)
		}
		link(third)
		if third.UseLink(); !signedIn(third) {
			t.Error("nobody can sign in any more")
		}
	})
}

// R413: the page says which app's sign-in was used twice.
func TestThePageTellsOfAReplay(t *testing.T) {
	h := start(t)
	dana := h.Browser()
	dana.SetUp()
	for name, redirect := range map[string]string{"One": apptest.Callback, "Two": hosted} {
		tokens, client := h.connect(dana, name, redirect, nil)
		var next oauth.TokenResponse
		h.Refresh(client, tokens.RefreshToken).JSON(t, &next)
		h.Refresh(client, next.RefreshToken)
		id, _, _ := strings.Cut(tokens.RefreshToken, ".")
		h.SQL(`UPDATE refresh_token SET child_used_at = 1 WHERE id = $1`, id)
		h.Refresh(client, tokens.RefreshToken)
	}
	page := dana.Open("/me").Text
	live, ended, _ := strings.Cut(page, "Ended in the last 90 days (1)")
	if !strings.Contains(live, "<bdi>Two</bdi>") || !strings.Contains(live, "it was used twice") || !strings.Contains(live, "Signed out") || strings.Contains(live, "<bdi>One</bdi>") {
		t.Errorf("%s", page)
	}
	if !strings.Contains(ended, "<bdi>One</bdi>") || !strings.Contains(ended, "its sign-in was used twice") {
		t.Errorf("%s", page)
	}
}

// What the tools say: everybody's own apps, and the operator's view of all.
func TestAppsAsTools(t *testing.T) {
	type listed struct {
		Apps []struct {
			ID, User, Name, State, Reason string
			Scopes                        []string
			Allowed                       time.Time `json:"allowed_at"`
			Seen                          time.Time `json:"last_seen"`
		}
	}
	onEach(t, func(t *testing.T, h house) {
		dana := h.Browser()
		dana.SetUp()
		bob := h.bob("standard")
		danas, _ := h.connect(dana, "One", apptest.Callback, url.Values{"scope": {"mcp:read"}})
		bobs, _ := h.connect(bob, "Bobs", apptest.Callback, url.Values{"scope": {"mcp:admin"}})
		rest := func(token, name, args string) apptest.Answer {
			return h.PostJSON("/mcp/tool/"+name, args, "Authorization: Bearer "+token)
		}
		var own, all listed
		rest(bobs.AccessToken, "list_apps", "{}").JSON(t, &own)
		if len(own.Apps) != 1 || own.Apps[0].Name != "Bobs" || own.Apps[0].State != "connected" || own.Apps[0].Seen.Before(own.Apps[0].Allowed.Add(-time.Minute)) {
			t.Errorf("%+v", own)
		}
		for _, name := range []string{"remove_app", "stop_everything"} { // no app ends apps
			if a := rest(bobs.AccessToken, name, `{"id":"`+own.Apps[0].ID+`"}`); a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusBadRequest {
				t.Errorf("%s by an app: %d %s", name, a.StatusCode, a.Text)
			}
		}
		h.Admin("list_apps", "").JSON(t, &all)
		if len(all.Apps) != 2 {
			t.Errorf("%+v", all)
		}
		if a := h.Admin("remove_app", `{"id":"`+own.Apps[0].ID+`"}`); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "the operator of this server removed it") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if h.works(bobs.AccessToken) || !h.works(danas.AccessToken) {
			t.Error("not exactly that one ended")
		}
		if a := h.Admin("remove_app", `{"id":"cns_nosuch"}`); a.StatusCode != http.StatusNotFound || !strings.Contains(a.Text, "APP_UNKNOWN") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		bobs, _ = h.connect(bob, "Bobs", apptest.Callback, nil)
		if a := h.Admin("stop_everything", ""); !strings.Contains(a.Text, `"stopped":2`) || h.works(bobs.AccessToken) || h.works(danas.AccessToken) {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	})
}
