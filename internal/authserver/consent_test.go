package authserver_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// person is a browser in which the owner is signed in.
func (h house) person() *apptest.Browser {
	h.t.Helper()
	b := h.Browser()
	b.SetUp()
	return b
}

// again is another browser of somebody who has set up before.
func (h house) again(email string) *apptest.Browser {
	h.t.Helper()
	b := h.Browser()
	h.signIn(b, email)
	return b
}

func (h house) signIn(b *apptest.Browser, email string) apptest.Answer {
	h.t.Helper()
	form := apptest.Fields(b.Open("/login?switch=1").Text)
	form.Set("email", email)
	before := strings.Count(h.Log.String(), "/login/link?token=")
	if a := b.Submit("/login", form); a.StatusCode != http.StatusOK || strings.Count(h.Log.String(), "/login/link?token=") != before+1 {
		h.t.Fatalf("no link: %d %s", a.StatusCode, a.Text)
	}
	return b.UseLink()
}

// bob makes a second member.
func (h house) bob() string {
	h.t.Helper()
	h.SQL(`INSERT INTO users (id, email, created_at) VALUES ('usr_bob', 'bob@acme.example', 0)`)
	h.SQL(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_bob', 'standard', 'active', 0)`)
	return "bob@acme.example"
}

// asked opens an authorization and returns the consent form, with yes.
func (h house) asked(b *apptest.Browser, query url.Values) url.Values {
	h.t.Helper()
	page := b.Open("/oauth/authorize?" + query.Encode())
	form := apptest.Fields(page.Text)
	if !form.Has("request") || !form.Has("csrf") {
		h.t.Fatalf("no consent page: %d %s", page.StatusCode, page.Text)
	}
	form.Set("decision", "allow")
	form.Set("started", "yes")
	return form
}

// post sends a form with the browser's cookies and follows nothing.
func (h house) post(b *apptest.Browser, form url.Values, headers ...string) apptest.Answer {
	h.t.Helper()
	r := h.Request(http.MethodPost, "/consent", form.Encode(), append(headers, formType)...)
	if b != nil {
		for name, value := range b.Cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
	}
	return h.Do(r)
}

const (
	ours    = "Sec-Fetch-Site: same-origin"
	browser = "Sec-Fetch-Dest: document"
)

// R308, R1208, attacks 60, 61: an answer counts from the page it was shown on, in
// the browser and by the person it was shown to, and from nowhere else.
func TestForeignAnswersDoNotCount(t *testing.T) {
	h := start(t)
	b := h.person()
	client := h.Register()
	stranger, elsewhere := h.Browser(), h.again(apptest.Owner)
	stranger.Open("/login")
	strangerForm := h.asked(elsewhere, authorization(h, client, nil))
	set := func(name, value string) func(url.Values) url.Values {
		return func(form url.Values) url.Values {
			form = maps.Clone(form)
			form[name] = []string{value}
			if value == "" {
				form.Del(name)
			}
			return form
		}
	}
	same := func(form url.Values) url.Values { return form }
	for name, row := range map[string]struct {
		browser *apptest.Browser
		change  func(url.Values) url.Values
		headers []string
		status  int
	}{
		"attack 60: no cookie":                             {nil, same, []string{ours}, http.StatusForbidden},
		"attack 60: no cookie, and no browser either":      {nil, same, nil, http.StatusForbidden},
		"attack 60: no csrf token":                         {b, set("csrf", ""), []string{ours}, http.StatusForbidden},
		"attack 60: a csrf token of another browser":       {b, set("csrf", strangerForm.Get("csrf")), []string{ours}, http.StatusForbidden},
		"attack 60: a foreign handle":                      {b, set("request", strangerForm.Get("request")), []string{ours}, http.StatusForbidden},
		"attack 60: an unknown handle":                     {b, set("request", "flow_00000000000000000000000000"), []string{ours}, http.StatusForbidden},
		"attack 60: no handle":                             {b, set("request", ""), []string{ours}, http.StatusForbidden},
		"attack 60: a foreign Origin":                      {b, same, []string{"Origin: https://evil.example"}, http.StatusForbidden},
		"attack 60: Origin null":                           {b, same, []string{"Origin: null"}, http.StatusForbidden},
		"attack 60: our host by another port":              {b, same, []string{"Origin: http://localhost:1"}, http.StatusForbidden},
		"attack 60: Sec-Fetch-Site cross-site":             {b, same, []string{"Sec-Fetch-Site: cross-site"}, http.StatusForbidden},
		"attack 60: Sec-Fetch-Site same-site":              {b, same, []string{"Sec-Fetch-Site: same-site"}, http.StatusForbidden},
		"attack 60: cross-site that claims our Origin":     {b, same, []string{"Sec-Fetch-Site: cross-site", "Origin: " + h.URL}, http.StatusForbidden},
		"attack 61: in a browser where nobody is":          {stranger, same, []string{ours}, http.StatusForbidden},
		"attack 61: in another browser of the same person": {elsewhere, set("csrf", strangerForm.Get("csrf")), []string{ours}, http.StatusForbidden},
		"R1204: neither yes nor no":                        {b, set("decision", ""), []string{ours}, http.StatusBadRequest},
		"R1204: something else":                            {b, set("decision", "Allow"), []string{ours}, http.StatusBadRequest},
		"R316: no tick for a program on this computer":     {b, set("started", ""), []string{ours}, http.StatusBadRequest},
		"over 64 KB": {b, set("x", strings.Repeat("x", 65<<10)), []string{ours}, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			form := h.asked(b, authorization(h, client, nil))
			h.unchanged(t, func() { shown(t, h.post(row.browser, row.change(form), append(row.headers, browser)...), row.status) })
			if target := apptest.Target(b.Submit("/consent", form).Text); target == nil || !target.Query().Has("code") { // the twin
				t.Errorf("the question is spoilt: %v", target)
			}
		})
	}
	for name, send := range map[string]func(form url.Values) apptest.Answer{
		"by GET":       func(form url.Values) apptest.Answer { return b.Open("/consent?" + form.Encode()) },
		"in the query": func(form url.Values) apptest.Answer { return b.Submit("/consent?"+form.Encode(), nil) },
		"as JSON": func(form url.Values) apptest.Answer {
			return h.PostJSON("/consent", `{"request":"`+form.Get("request")+`"}`, ours)
		},
		"with an Origin that is another scheme and host": func(form url.Values) apptest.Answer { return h.post(b, form, "Origin: https://localhost") },
	} {
		t.Run(name, func(t *testing.T) {
			form := h.asked(b, authorization(h, client, nil))
			h.unchanged(t, func() {
				if a := send(form); a.StatusCode < 400 || a.Header["Location"] != nil {
					t.Errorf("%d %v", a.StatusCode, a.Header)
				}
			})
		})
	}
}

// Attack 61: a question that was shown to one person is not answered by the next
// one in the same browser.
func TestAQuestionBelongsToWhoSawIt(t *testing.T) {
	h := start(t)
	b, client, bob := h.person(), h.Register(), h.bob()
	form := h.asked(b, authorization(h, client, nil))
	h.signIn(b, bob)
	h.unchanged(t, func() { shown(t, h.post(b, form, ours, browser), http.StatusForbidden) })
	// Bob may answer the page that is shown to him.
	page := b.Open("/consent/" + form.Get("request"))
	if !strings.Contains(page.Text, bob) {
		t.Fatalf("%d %s", page.StatusCode, page.Text)
	}
	own := apptest.Fields(page.Text)
	own.Set("decision", "allow")
	own.Set("started", "yes")
	if target := apptest.Target(b.Submit("/consent", own).Text); target == nil || h.Count(`SELECT count(*) FROM consent WHERE user_id = 'usr_bob'`) != 1 {
		t.Errorf("%v", target)
	}
}

// R306: it waits ten minutes and not longer.
func TestAWaitingAuthorizationExpires(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.Register()
	form := h.asked(b, authorization(h, client, nil))
	id := form.Get("request")
	if n := h.Count(`SELECT expires_at - created_at FROM flow WHERE id = $1`, id); time.Duration(n)*time.Microsecond != 10*time.Minute {
		t.Errorf("it lives %d µs", n)
	}
	h.SQL(`UPDATE flow SET expires_at = $1 WHERE id = $2`, time.Now().UnixMicro(), id)
	h.unchanged(t, func() {
		shown(t, h.post(b, form, ours, browser), http.StatusForbidden)
		shown(t, b.Open("/consent/"+id), http.StatusForbidden)
		shown(t, b.Open("/return/"+id), http.StatusForbidden)
		shown(t, b.Open("/login?flow="+id), http.StatusForbidden)
	})
	if a := h.Browser().Open("/login?flow=" + id); a.StatusCode != http.StatusOK || apptest.Fields(a.Text).Has("flow") {
		t.Errorf("somebody else's sign-in page: %d %s", a.StatusCode, a.Text)
	}
	h.SQL(`UPDATE flow SET expires_at = $1 WHERE id = $2`, time.Now().Add(time.Minute).UnixMicro(), id)
	if target := apptest.Target(b.Submit("/consent", form).Text); target == nil {
		t.Error("the twin does not work")
	}
}

// Attacks 60, 69: a used handle, a double click, and yes against no: one answer,
// one code, one page for all.
func TestOneAnswerCounts(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.Register()
		form := h.asked(b, authorization(h, client, nil))
		for _, a := range apptest.Together(16, func(int) apptest.Answer { return h.post(b, form, ours, browser) }) {
			if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/return/"+form.Get("request") {
				t.Errorf("%d %v", a.StatusCode, a.Header)
			}
		}
		if codes, consents, events := h.Count(`SELECT count(*) FROM authorization_code`), h.Count(`SELECT count(*) FROM consent`), h.events("consent"); codes != 1 || consents != 1 || events != 1 {
			t.Errorf("%d codes, %d consents, %d events", codes, consents, events)
		}
		h.unchanged(t, func() { h.post(b, form, ours, browser) })

		form = h.asked(b, authorization(h, client, nil))
		no := maps.Clone(form)
		no["decision"] = []string{"deny"}
		apptest.Together(16, func(i int) apptest.Answer {
			if i%2 == 0 {
				return h.post(b, no, ours, browser)
			}
			return h.post(b, form, ours, browser)
		})
		target := apptest.Target(b.Open("/return/" + form.Get("request")).Text)
		if target == nil {
			t.Fatal("no way back")
		}
		if allowed := target.Query().Has("code"); (h.Count(`SELECT count(*) FROM authorization_code`) == 2) != allowed || h.events("consent") != 2 {
			t.Errorf("%v, %d events", target, h.events("consent"))
		}
	})
}

// Attack 69: two tabs, and a page loaded twice, both finish.
func TestTwoTabsBothFinish(t *testing.T) {
	h := start(t)
	b, one, two := h.person(), h.Register(), h.Register()
	query1, verifier1 := h.Authorization(one, nil)
	query2, verifier2 := h.Authorization(two, nil)
	form1 := h.asked(b, query1)
	form2 := h.asked(b, query2)
	b.Open("/consent/" + form1.Get("request"))
	for _, tab := range []struct {
		client, verifier string
		form             url.Values
	}{{two, verifier2, form2}, {one, verifier1, form1}} {
		target := apptest.Target(b.Submit("/consent", tab.form).Text)
		if target == nil {
			t.Fatal("no way back")
		}
		if a := h.Redeem(tab.client, target.Query().Get("code"), tab.verifier, nil); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}
}

// R309, attack 67: the client is told no, and nothing is granted.
func TestNoIsToldTheClient(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.Register()
	form := h.asked(b, authorization(h, client, nil))
	form.Set("decision", "deny")
	form.Del("started") // a no needs no tick
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil {
		t.Fatal("no way back")
	}
	answered(t, target.String(), apptest.Callback, with("error", "access_denied", "error_description", "*", "state", "st&te/1", "iss", h.URL))
	if h.Count(`SELECT count(*) FROM consent`)+h.Count(`SELECT count(*) FROM authorization_code`) != 0 || h.Count(`SELECT count(*) FROM audit_event WHERE action = 'consent' AND outcome = 'denied'`) != 1 {
		t.Error("something was granted, or nothing recorded")
	}
	again := b.Open("/return/" + form.Get("request"))
	if apptest.Target(again.Text) != nil || !strings.Contains(again.Text, "allow it") {
		t.Errorf("the second view: %s", again.Text)
	}
}

// The way back: once by itself, later on request, for the browser that asked and no
// other, and as a plain redirect for programs.
func TestHandBack(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.Register()
	query, verifier := h.Authorization(client, nil)
	form := h.asked(b, query)
	page := "/return/" + form.Get("request")
	if a := b.Open(page); apptest.Target(a.Text) != nil || !apptest.Fields(a.Text).Has("request") {
		t.Fatalf("before the answer: %d %s", a.StatusCode, a.Text)
	}
	if a := h.post(b, form, ours, browser); a.Header.Get("Location") != page || a.Text != "" {
		t.Fatalf("%d %v", a.StatusCode, a.Header)
	}
	for name, other := range map[string]*apptest.Browser{"of nobody": h.Browser(), "of the same person": h.again(apptest.Owner)} {
		if a := other.Open(page); a.StatusCode != http.StatusForbidden || strings.Contains(a.Text, "code=") || a.Header["Location"] != nil {
			t.Errorf("another browser %s: %d %s", name, a.StatusCode, a.Text)
		}
	}
	if a := h.Do(h.Request(http.MethodHead, page, "")); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("HEAD: %d", a.StatusCode)
	}
	first := b.Open(page)
	target := apptest.Target(first.Text)
	if target == nil {
		t.Fatalf("the first view does not move: %s", first.Text)
	}
	answered(t, target.String(), apptest.Callback, with("code", "*", "state", "st&te/1", "iss", h.URL))
	second := b.Open(page)
	if apptest.Target(second.Text) != nil || !strings.Contains(second.Text, "You already allowed") || !strings.Contains(second.Text, "code=") {
		t.Errorf("the second view: %s", second.Text)
	}
	for _, csp := range []string{first.Header.Get("Content-Security-Policy"), second.Header.Get("Content-Security-Policy")} {
		if !strings.Contains(csp, "form-action 'none'") {
			t.Errorf("policy %s", csp)
		}
	}
	if a := b.Open("/consent/" + form.Get("request")); apptest.Target(a.Text) != nil || !strings.Contains(a.Text, "You already allowed") {
		t.Errorf("the question after the answer: %s", a.Text)
	}
	if a := h.Redeem(client, target.Query().Get("code"), verifier, nil); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	h.SQL(`UPDATE flow SET decided_at = decided_at - 180000000`)
	if a := b.Open(page); strings.Contains(a.Text, "code=") || !strings.Contains(a.Text, "expired") {
		t.Errorf("after the code's life: %s", a.Text)
	}
	h.SQL(`UPDATE flow SET expires_at = 1`)
	shown(t, b.Open(page), http.StatusForbidden)
}

// A script is redirected, also from the page of the way back.
func TestProgramsAreRedirected(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.Register()
	form := h.asked(b, authorization(h, client, nil))
	want := with("code", "*", "state", "st&te/1", "iss", h.URL)
	a := h.post(b, form)
	if a.StatusCode != http.StatusSeeOther || a.Text != "" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.Text)
	}
	answered(t, a.Header.Get("Location"), apptest.Callback, want)
	r := h.Request(http.MethodGet, "/return/"+form.Get("request"), "")
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	answered(t, h.Do(r).Header.Get("Location"), apptest.Callback, want)
	if h.Count(`SELECT count(*) FROM authorization_code`) != 1 {
		t.Error("a second code")
	}
}

// R306, R1209: whoever is not signed in signs in first and comes back to the
// question; only the browser that asked is taken along.
func TestSignInLeadsBackToTheQuestion(t *testing.T) {
	h := start(t)
	h.person()
	client := h.Register()
	b, other := h.Browser(), h.Browser()
	page := b.Open("/oauth/authorize?" + authorization(h, client, nil).Encode())
	form := apptest.Fields(page.Text)
	if !form.Has("flow") || !strings.Contains(page.Text, "is waiting to connect") || len(b.Cookies) != 2 {
		t.Fatalf("%d %s %v", page.StatusCode, page.Text, b.Cookies)
	}
	if a := other.Open("/login?flow=" + form.Get("flow")); apptest.Fields(a.Text).Has("flow") {
		t.Error("another browser is told about it")
	}
	form.Set("email", apptest.Owner)
	if a := b.Submit("/login", form); a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	if a := b.UseLink(); !apptest.Fields(a.Text).Has("request") || a.Request.URL.Path != "/consent/"+form.Get("flow") {
		t.Errorf("not at the question: %s %d %s", a.Request.URL, a.StatusCode, a.Text)
	}
	// The same link flow, used in another browser: signed in there, nothing else.
	page = b.Open("/login?switch=1&flow=" + form.Get("flow"))
	form = apptest.Fields(page.Text)
	form.Set("email", apptest.Owner)
	b.Submit("/login", form)
	if a := other.UseLink(); a.Request.URL.Path != "/login" || apptest.Fields(a.Text).Has("request") {
		t.Errorf("the other browser is at %s", a.Request.URL)
	}
	shown(t, other.Open("/consent/"+form.Get("flow")), http.StatusForbidden)
}

// Attack 69: a client that signs in to several servers opens several tabs at
// once, in a browser that knows us not yet. Each tab gets to its question.
func TestTabsOfANewBrowserDoNotLoseEachOther(t *testing.T) {
	h := start(t)
	h.person()
	client := h.Register()
	b := h.Browser()
	var flows []string
	for range 3 {
		tab := h.Browser() // answered before the cookies of the others arrived
		flows = append(flows, apptest.Fields(tab.Open("/oauth/authorize?"+authorization(h, client, nil).Encode()).Text).Get("flow"))
		maps.Copy(b.Cookies, tab.Cookies)
	}
	form := apptest.Fields(b.Open("/login?flow=" + flows[2]).Text)
	form.Set("email", apptest.Owner)
	b.Submit("/login", form)
	b.UseLink()
	for i, flow := range flows {
		if a := b.Open("/consent/" + flow); apptest.Fields(a.Text).Get("request") != flow {
			t.Errorf("tab %d: %d %s", i, a.StatusCode, a.Text)
		}
	}
}

// R1209: a browser in which nobody is signed in has a form token as well, on its
// sign-in page. It answers nothing with it.
func TestNobodyAnswersNothing(t *testing.T) {
	h := start(t)
	h.person()
	b := h.Browser()
	waiting := apptest.Fields(b.Open("/oauth/authorize?" + authorization(h, h.Register(), nil).Encode()).Text)
	for _, decision := range []string{"allow", "deny"} {
		form := with("request", waiting.Get("flow"), "csrf", waiting.Get("csrf"), "decision", decision, "started", "yes")
		h.unchanged(t, func() {
			for _, headers := range [][]string{{ours, browser}, nil} {
				if a := h.post(b, form, headers...); !strings.HasPrefix(a.Header.Get("Location"), "/login?flow=") {
					t.Errorf("%s: %d %v", decision, a.StatusCode, a.Header)
				}
			}
		})
	}
}

// A session ends with the membership: the next step asks for a sign-in, and an
// answer does not count.
func TestASuspendedPersonAnswersNothing(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.Register()
	form := h.asked(b, authorization(h, client, nil))
	h.SQL(`UPDATE member SET status = 'suspended'`)
	h.unchanged(t, func() {
		a := h.post(b, form, ours, browser)
		if a.StatusCode != http.StatusForbidden && !strings.HasPrefix(a.Header.Get("Location"), "/login?") {
			t.Errorf("%d %v", a.StatusCode, a.Header)
		}
	})
	if a := b.Open("/consent/" + form.Get("request")); a.Request.URL.Path != "/login" {
		t.Errorf("at %s", a.Request.URL)
	}
	h.SQL(`UPDATE member SET status = 'active'`)
	if apptest.Target(b.Submit("/consent", form).Text) == nil {
		t.Error("the twin does not work")
	}
}

// R1203: a scope may stand for tools that are not there yet. The page says so, also
// where nothing is there.
func TestTheQuestionSaysWhatComesLater(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.Register()
	says := func(scope string) (said string) {
		t.Helper()
		page := b.Open("/oauth/authorize?" + authorization(h, client, with("scope", scope)).Encode())
		if apptest.Fields(page.Text).Get("request") == "" {
			t.Fatalf("%d %s", page.StatusCode, page.Text)
		}
		for _, one := range []string{"no tools that you have now", "every server that is added later", "the app may also use tools", "may use tools that are added here later"} {
			if strings.Contains(page.Text, one) {
				said += one + "|"
			}
		}
		return said
	}
	all := map[string]string{
		"audit:read": "", "mcp:tools": "every server that is added later|", "audit:read servers:read": "",
	}
	for scope, want := range all {
		if got := says(scope); got != want {
			t.Errorf("%s: %q", scope, got)
		}
	}
	h.SQL(`UPDATE member SET role = 'readonly'`)
	all = map[string]string{
		"audit:read":              "no tools that you have now|may use tools that are added here later|",
		"mcp:admin":               "every server that is added later|",
		"audit:read servers:read": "the app may also use tools|",
	}
	for scope, want := range all {
		if got := says(scope); got != want {
			t.Errorf("readonly, %s: %q", scope, got)
		}
	}
}

// Attack 52: what a client says of itself is shown as text.
func TestClaimsOfClientsAreShownAsText(t *testing.T) {
	h := start(t)
	b := h.person()
	client := h.register(`{"client_name":"<script>alert(1)</script>\u202e\"><img src=x onerror=alert(2)>","redirect_uris":["https://b.example/cb?x='(alert)"],"logo_uri":"https://evil.example/l.png","client_uri":"https://evil.example/"}`)
	page := b.Open("/oauth/authorize?" + authorization(h, client.ClientID, with("redirect_uri", client.RedirectURIs[0], "state", `"><script>alert(3)</script>`)).Encode())
	if !strings.Contains(page.Text, "&lt;script&gt;") {
		t.Errorf("the name is not shown: %s", page.Text)
	}
	for _, evil := range []string{"<script", "<img", "\u202e", "evil.example", "alert(3)"} {
		if strings.Contains(page.Text, evil) {
			t.Errorf("the page contains %q", evil)
		}
	}
}
