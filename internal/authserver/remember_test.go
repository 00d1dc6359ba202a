package authserver_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// one is the one text that a query gives.
func (h house) one(query string) (text string) {
	h.t.Helper()
	if err := h.DB.View(h.t.Context(), func(tx *store.Tx) error { return tx.QueryRow(query).Scan(&text) }); err != nil {
		h.t.Fatal(err)
	}
	return text
}

// hosted registers an app at an https address.
func (h house) hosted(name string, redirects ...string) string {
	h.t.Helper()
	if len(redirects) == 0 {
		redirects = []string{web}
	}
	return h.register(`{"client_name":"` + name + `","redirect_uris":["` + strings.Join(redirects, `","`) + `"]}`).ClientID
}

// allowed answers a question with yes and redeems the code. change may spoil the
// request, and keep is for how long.
func (h house) allowed(b *apptest.Browser, client, keep string, change url.Values) (tokens oauth.TokenResponse) {
	h.t.Helper()
	query, verifier := h.Authorization(client, change)
	form := h.asked(b, query)
	form.Set("keep", keep)
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil {
		h.t.Fatal("no way back")
	}
	a := h.Redeem(client, target.Query().Get("code"), verifier, with("redirect_uri", query.Get("redirect_uri")))
	if a.JSON(h.t, &tokens); tokens.AccessToken == "" {
		h.t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	return tokens
}

// silent opens an authorization that nobody is asked about, and redeems its code.
func (h house) silent(b *apptest.Browser, client string, change url.Values) (tokens oauth.TokenResponse) {
	h.t.Helper()
	query, verifier := h.Authorization(client, change)
	a := b.Open("/oauth/authorize?" + query.Encode())
	location := apptest.Target(a.Text) // by the page of our own, as after a question
	if query.Get("prompt") == "none" {
		location, _ = a.Location()
	}
	if location == nil || !location.Query().Has("code") {
		h.t.Fatalf("not silent: %d %v %s", a.StatusCode, a.Header, a.Text)
	}
	answered(h.t, location.String(), query.Get("redirect_uri"), with("code", "*", "state", "st&te/1", "iss", h.URL))
	h.Redeem(client, location.Query().Get("code"), verifier, with("redirect_uri", query.Get("redirect_uri"))).JSON(h.t, &tokens)
	return tokens
}

// R1213, C27, R1022: what was allowed at an https address is not asked again, nor
// for less; it is on record, and there is one consent, however often.
func TestARememberedConsentIsNotAskedAgain(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.hosted("Claude")
		at := with("redirect_uri", web)
		first := h.allowed(b, client, "always", at)
		for _, change := range []url.Values{at, with("redirect_uri", web, "scope", "mcp:read"), with("redirect_uri", web, "prompt", "none")} {
			if tokens := h.silent(b, client, change); !h.works(tokens.AccessToken) || tokens.RefreshToken == "" {
				t.Errorf("%v: no good tokens", change)
			}
		}
		if n := h.Count(`SELECT count(*) FROM consent`); n != 1 || h.events("consent") != 4 {
			t.Errorf("%d consents, %d events", n, h.events("consent"))
		}
		if h.Count(`SELECT count(*) FROM audit_event WHERE action = 'consent' AND detail LIKE '%remembered%'`) != 3 {
			t.Error("the log does not say that it was remembered")
		}
		if !h.works(first.AccessToken) {
			t.Error("an earlier token stopped working")
		}
		// A second look at the answer asks nothing and makes no second code.
		query := authorization(h, client, at)
		codes := h.Count(`SELECT count(*) FROM authorization_code`)
		r := h.Request(http.MethodGet, "/oauth/authorize?"+query.Encode(), "")
		for name, value := range b.Cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		step := h.Do(r)
		for _, c := range step.Cookies() {
			b.Cookies[c.Name] = c.Value
		}
		b.Open(step.Header.Get("Location"))
		if again := b.Open(step.Header.Get("Location")); again.StatusCode != http.StatusOK || h.Count(`SELECT count(*) FROM authorization_code`) != codes+1 {
			t.Errorf("%d %s", again.StatusCode, again.Text)
		}
	})
}

// R316, R1213, attacks 16, 54, 59, 65: whatever differs from what was allowed is
// asked, and nobody is told by prompt=none that it was allowed.
func TestWhatIsNotRememberedIsAsked(t *testing.T) {
	const elsewhere = "https://b.example/other"
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.hosted("Claude", web, elsewhere)
		local := h.Register()
		editor := h.hosted("Editor", "cursor://x/cb")
		h.allowed(b, client, "always", with("redirect_uri", web, "scope", "mcp:read"))
		h.allowed(b, local, "always", nil)
		h.allowed(b, editor, "always", with("redirect_uri", "cursor://x/cb"))
		other := h.again(apptest.Owner)
		h.signIn(other, h.bob())
		for name, row := range map[string]struct {
			browser *apptest.Browser
			client  string
			change  url.Values
			none    string // what prompt=none is told
		}{
			"attack 65: more scopes":            {b, client, with("redirect_uri", web, "scope", "mcp:tools"), oauth.ConsentRequired},
			"attack 65: another resource":       {b, client, with("redirect_uri", web, "scope", "mcp:read", "resource", h.URL+"/s/gatehouse/mcp"), oauth.ConsentRequired},
			"attack 65: another address":        {b, client, with("redirect_uri", elsewhere, "scope", "mcp:read"), oauth.ConsentRequired},
			"attack 65: another person":         {other, client, with("redirect_uri", web, "scope", "mcp:read"), oauth.ConsentRequired},
			"attack 59: the same name":          {b, h.hosted("Claude"), with("redirect_uri", web, "scope", "mcp:read"), oauth.ConsentRequired},
			"attack 59: the attacker's address": {b, h.hosted("Claude", "https://evil.example/cb"), with("redirect_uri", "https://evil.example/cb", "scope", "mcp:read"), oauth.ConsentRequired},
			"R316: this computer":               {b, local, nil, oauth.InteractionRequired},
			"R316: another port of it":          {b, local, with("redirect_uri", "http://127.0.0.1:5/callback"), oauth.InteractionRequired},
			"R316: an app link":                 {b, editor, with("redirect_uri", "cursor://x/cb"), oauth.InteractionRequired},
			"R318: prompt=consent":              {b, client, with("redirect_uri", web, "scope", "mcp:read", "prompt", "consent"), ""},
		} {
			t.Run(name, func(t *testing.T) {
				query := authorization(h, row.client, row.change)
				if row.none != "" {
					query.Set("prompt", "none")
					h.unchanged(t, func() {
						redirected(t, h, row.browser.Open("/oauth/authorize?"+query.Encode()), query.Get("redirect_uri"), "st&te/1", row.none)
					})
					query.Del("prompt")
				}
				h.asked(row.browser, query)
			})
		}
		h.silent(b, client, with("redirect_uri", web, "scope", "mcp:read")) // the twin
		for _, is := range []struct{ name, redirects string }{{"Claude 2", web + "\n" + elsewhere}, {"Claude", web + "\nhttps://evil.example/cb"}} {
			h.SQL(`UPDATE client SET name = $1, redirect_uris = $2 WHERE id = $3`, is.name, is.redirects, client)
			h.asked(b, authorization(h, client, with("redirect_uri", web, "scope", "mcp:read"))) // attack 54
		}
		h.unchanged(t, func() {
			for _, prompt := range []string{"none", "none login", "consent none"} {
				a := h.authorize(authorization(h, client, with("redirect_uri", web, "prompt", prompt)))
				redirected(t, h, a, web, "st&te/1", oauth.LoginRequired)
			}
		})
	})
}

// R318, attack 113: prompt=login and max_age sign in again, whoever is signed in, if
// the sign-in is too old; then what is remembered counts again.
func TestAnOlderSignInDoesNotAnswer(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.hosted("Claude")
	h.allowed(b, client, "always", with("redirect_uri", web))
	old := func() { h.SQL(`UPDATE browser_session SET created_at = created_at - 600000000`) } // ten minutes ago
	for name, change := range map[string]url.Values{
		"prompt=login": with("redirect_uri", web, "prompt", "login"), "max_age=0": with("redirect_uri", web, "max_age", "0"),
		"max_age": with("redirect_uri", web, "max_age", "599"), "both": with("redirect_uri", web, "max_age", "3600", "prompt", "login"),
	} {
		t.Run(name, func(t *testing.T) {
			old()
			h.signsInAgain(t, b, client, change)
		})
	}
	old()
	// The twins.
	h.silent(b, client, with("redirect_uri", web, "max_age", "3600"))
	h.silent(b, client, with("redirect_uri", web, "max_age", "3600", "prompt", "none"))
	h.unchanged(t, func() {
		a := b.Open("/oauth/authorize?" + authorization(h, client, with("redirect_uri", web, "max_age", "599", "prompt", "none")).Encode())
		redirected(t, h, a, web, "st&te/1", oauth.LoginRequired)
	})
}

// signsInAgain opens an authorization and fails unless it asks for a sign-in,
// whatever is tried, and goes on after it.
func (h house) signsInAgain(t *testing.T, b *apptest.Browser, client string, change url.Values) {
	t.Helper()
	page := b.Open("/oauth/authorize?" + authorization(h, client, change).Encode())
	form := apptest.Fields(page.Text)
	if page.Request.URL.Path != "/login" || !form.Has("flow") {
		t.Fatalf("at %s", page.Request.URL)
	}
	for range 2 { // asking again changes nothing
		if a := b.Open("/consent/" + form.Get("flow")); a.Request.URL.Path != "/login" {
			t.Fatalf("at %s", a.Request.URL)
		}
	}
	consent := url.Values{"request": {form.Get("flow")}, "csrf": {form.Get("csrf")}, "decision": {"allow"}, "keep": {"month"}}
	if a := b.Submit("/consent", consent); a.Request.URL.Path != "/login" {
		t.Fatalf("an answer without the question counts: at %s %s", a.Request.URL, a.Text)
	}
	form.Set("email", apptest.Owner)
	b.Submit("/login", form)
	// From the form of the sign-in a browser would not follow a redirect to the
	// client (U3): it goes by the page that leads back.
	a := b.UseLink()
	if target := apptest.Target(a.Text); !strings.HasPrefix(a.Request.URL.Path, "/return/") || target == nil || !target.Query().Has("code") {
		t.Errorf("%d at %s %s", a.StatusCode, a.Request.URL, a.Text)
	}
}

// A client may say whom it expects: the page has the address in its field, known or
// not, and does nothing else with it.
func TestLoginHintFillsTheSignInPage(t *testing.T) {
	h := start(t)
	h.Browser().SetUp()
	client := h.Register()
	texts := map[string]bool{}
	for hint, shown := range map[string]string{
		apptest.Owner: apptest.Owner, "nobody@acme.example": "nobody@acme.example", `"><script>alert(1)</script>@x`: `"><script>alert(1)</script>@x`,
		"usr_4711": "", strings.Repeat("a", 250) + "@acme.example": "",
	} {
		page := h.Browser().Open("/oauth/authorize?" + authorization(h, client, with("login_hint", hint)).Encode())
		if got := apptest.Fields(page.Text).Get("email"); got != shown || strings.Contains(page.Text, "<script>alert") {
			t.Errorf("%s: the field has %q\n%s", hint, got, page.Text)
		}
		if strings.HasSuffix(hint, "@acme.example") && shown != "" {
			fields := apptest.Fields(page.Text)
			texts[strings.NewReplacer(hint, "", fields.Get("flow"), "", fields.Get("csrf"), "").Replace(page.Unreferenced())] = true
		}
	}
	if len(texts) != 1 {
		t.Errorf("the page tells whether the address is known: %v", texts)
	}
}

// R1213: where more is asked, only that is asked, above what is allowed already;
// leaving it out takes nothing back.
func TestWiderScopesAskOnlyForWhatIsNew(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.hosted("Claude")
		before := h.allowed(b, client, "always", with("redirect_uri", web, "scope", "audit:read"))
		page := b.Open("/oauth/authorize?" + authorization(h, client, with("redirect_uri", web, "scope", "audit:read servers:read apps:read")).Encode())
		fresh, known, split := strings.Cut(page.Text, "Already allowed")
		if !split || !strings.Contains(fresh, "What is new") || !strings.Contains(fresh, "list_servers") || strings.Contains(fresh, "list_audit_events") || !strings.Contains(known, "list_audit_events") {
			t.Fatalf("%s", page.Text)
		}
		form := apptest.Fields(page.Text)
		form.Set("decision", "allow")
		form.Del("scope:apps:read") // not ticked
		target := apptest.Target(b.Submit("/consent", form).Text)
		if target == nil {
			t.Fatal("no way back")
		}
		if got := h.one(`SELECT scopes FROM consent`); got != "audit:read servers:read" {
			t.Errorf("the consent is for %s", got)
		}
		if !h.works(before.AccessToken) {
			t.Error("something was taken back")
		}
		h.refresh(client, before.RefreshToken)
		if all := h.silent(b, client, with("redirect_uri", web, "scope", "servers:read audit:read")); all.Scope != "servers:read audit:read" {
			t.Errorf("the token is for %q", all.Scope)
		}
		h.asked(b, authorization(h, client, with("redirect_uri", web, "scope", "apps:read")))
	})
}

// The person may allow less than was asked, the token says so, and allowing less
// than before ends what holds more (R1212): authority only shrinks.
func TestAllowingLessTakesTheRestBack(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.Register()
		wide := h.allowed(b, client, "always", with("scope", "audit:read servers:read"))
		read := h.allowed(b, client, "always", with("scope", "audit:read"))
		if read.Scope != "audit:read" || !h.works(wide.AccessToken) {
			t.Fatalf("%q: asking for less took something back", read.Scope)
		}
		query, verifier := h.Authorization(client, with("scope", "audit:read servers:read"))
		form := h.asked(b, query)
		late, lateVerifier := h.Authorization(client, with("scope", "servers:read")) // on its way when it is taken back
		lateTarget := apptest.Target(b.Submit("/consent", h.asked(b, late)).Text)
		form.Del("scope:servers:read")
		target := apptest.Target(b.Submit("/consent", form).Text)
		if target == nil || lateTarget == nil {
			t.Fatal("no way back")
		}
		var tokens oauth.TokenResponse
		h.Redeem(client, target.Query().Get("code"), verifier, nil).JSON(t, &tokens)
		if tokens.Scope != "audit:read" || !h.works(tokens.AccessToken) {
			t.Errorf("the token is for %q", tokens.Scope)
		}
		if h.works(wide.AccessToken) || !h.works(read.AccessToken) {
			t.Error("what holds more goes on, or what holds as much ended")
		}
		refused(t, h.Refresh(client, wide.RefreshToken), oauth.InvalidGrant)
		refused(t, h.Redeem(client, lateTarget.Query().Get("code"), lateVerifier, nil), oauth.InvalidGrant)
		h.refresh(client, read.RefreshToken)
		if n := h.Count(`SELECT count(*) FROM consent`); n != 1 {
			t.Errorf("%d consents", n)
		}
	})
}

// ux.md §9.3: how long the connection is kept is the person's choice: for an hour
// there is no refresh token, and no token outlives the connection.
func TestAConnectionLastsAsLongAsItIsKept(t *testing.T) {
	h := start(t)
	b, client := h.person(), h.hosted("Claude")
	at := with("redirect_uri", web)
	hour := h.allowed(b, client, "hour", at)
	if hour.RefreshToken != "" || hour.ExpiresIn > 3600 || hour.ExpiresIn < 3500 || !h.works(hour.AccessToken) {
		t.Errorf("an hour: %+v", hour)
	}
	h.SQL(`UPDATE consent SET ends_at = $1`, time.Now().Add(10*time.Minute).UnixMicro())
	if late := h.silent(b, client, at); late.ExpiresIn > 600 || late.RefreshToken != "" {
		t.Errorf("it outlives the connection: %+v", late)
	}
	h.SQL(`UPDATE consent SET ends_at = $1`, time.Now().UnixMicro())
	month := h.allowed(b, client, "month", at) // asks again
	if month.RefreshToken == "" {
		t.Error("30 days without a refresh token")
	}
	if n := h.Count(`SELECT max(expires_at - created_at) FROM token_family`); time.Duration(n)*time.Microsecond > 30*24*time.Hour {
		t.Errorf("30 days are %v", time.Duration(n)*time.Microsecond)
	}
	month = h.refresh(client, month.RefreshToken)
	h.SQL(`UPDATE consent SET ends_at = 1`)
	refused(t, h.Refresh(client, month.RefreshToken), oauth.InvalidGrant)
	always := h.allowed(b, client, "always", at)
	if n := h.Count(`SELECT max(expires_at - created_at) FROM token_family`); time.Duration(n)*time.Microsecond != token.FamilyLife || always.RefreshToken == "" {
		t.Errorf("until removed: %v", time.Duration(n)*time.Microsecond)
	}
	// A shorter time is one for what was allowed before as well.
	h.allowed(b, client, "hour", with("redirect_uri", web, "prompt", "consent"))
	if n := h.Count(`SELECT max(expires_at) FROM token_family WHERE revoked_at IS NULL`); time.UnixMicro(int64(n)).After(time.Now().Add(time.Hour)) {
		t.Error("an earlier sign-in outlives the hour")
	}
	form := h.asked(b, authorization(h, client, with("redirect_uri", web, "prompt", "consent")))
	for name, change := range map[string]func(url.Values){
		"no time":    func(f url.Values) { f.Del("keep") },
		"other time": func(f url.Values) { f.Set("keep", "forever") },
		"no tick": func(f url.Values) {
			for name := range f {
				if strings.HasPrefix(name, "scope:") {
					f.Del(name)
				}
			}
		},
	} {
		spoilt := url.Values{}
		for name := range form {
			spoilt[name] = slices.Clone(form[name])
		}
		change(spoilt)
		h.unchanged(t, func() {
			if a := b.Submit("/consent", spoilt); a.StatusCode != http.StatusBadRequest || !apptest.Fields(a.Text).Has("request") {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
			}
		})
	}
}

// Attacks 29, 37: what ended between the answer and the token, or since the last
// one, gives no token; whatever was presented stays unspent.
func TestEveryGrantChecksWhatItStandsOn(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		for name, row := range map[string]struct{ end, undo string }{
			"the person is suspended":  {`UPDATE member SET status = 'suspended'`, `UPDATE member SET status = 'active'`},
			"the consent is withdrawn": {`UPDATE consent SET ended_at = 1`, `UPDATE consent SET ended_at = NULL`},
			"the consent is over":      {`UPDATE consent SET ends_at = 1`, `UPDATE consent SET ends_at = NULL`},
			"the consent covers less":  {`UPDATE consent SET scopes = 'audit:read'`, `UPDATE consent SET scopes = 'mcp:tools'`},
		} {
			t.Run(name, func(t *testing.T) {
				tokens := h.tokens(client, nil)
				code, verifier := h.Code(client, nil)
				h.SQL(row.end)
				h.unchanged(t, func() {
					refused(t, h.Redeem(client, code, verifier, nil), oauth.InvalidGrant)
					refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant)
				})
				h.SQL(row.undo)
				if a := h.Redeem(client, code, verifier, nil); a.StatusCode != http.StatusOK {
					t.Errorf("the twin: %d %s", a.StatusCode, a.Text)
				}
				h.refresh(client, tokens.RefreshToken)
			})
		}
	}, apptest.Dev)
}

// R413: the person is told, once.
func TestThePersonIsToldOfAReplay(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		told := func() int { return strings.Count(h.Log.String(), "its sign-in was used twice") }
		first := h.tokens(client, nil)
		h.refresh(client, h.refresh(client, first.RefreshToken).RefreshToken)
		id, _, _ := strings.Cut(first.RefreshToken, ".")
		h.SQL(`UPDATE refresh_token SET child_used_at = 1 WHERE id = $1`, id)
		if told() != 0 {
			t.Fatal("told before anything happened")
		}
		for range 3 {
			refused(t, h.Refresh(client, first.RefreshToken), oauth.InvalidGrant)
		}
		if told() != 1 || !strings.Contains(h.Log.String(), "Mail to dev@localhost") || h.events("token.replay") != 1 {
			t.Errorf("told %d times, %d events", told(), h.events("token.replay"))
		}
		code, verifier := h.Code(client, nil)
		h.Redeem(client, code, verifier, nil)
		for range 3 {
			refused(t, h.Redeem(client, code, verifier, nil), oauth.InvalidGrant)
		}
		if told() != 2 {
			t.Errorf("told %d times", told())
		}
	}, apptest.Dev)
}

// Attack 69: of tabs that are answered at the same time, each gets what it was
// allowed, and the consent covers all of it, so that no refresh is refused later.
func TestTabsAnsweredTogetherAddUp(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.Register()
		scopes := []string{"audit:read", "servers:read", "apps:read", "mcp:read", "audit:read servers:read"}
		forms, verifiers := make([]url.Values, 10), make([]string, 10)
		for i := range forms {
			var query url.Values
			query, verifiers[i] = h.Authorization(client, with("scope", scopes[i%len(scopes)]))
			forms[i] = h.asked(b, query)
		}
		codes := apptest.Together(len(forms), func(i int) string {
			location, err := h.post(b, forms[i], ours).Location()
			if err != nil {
				return ""
			}
			return location.Query().Get("code")
		})
		for i, code := range codes {
			var tokens oauth.TokenResponse
			h.Redeem(client, code, verifiers[i], nil).JSON(t, &tokens)
			if tokens.Scope != scopes[i%len(scopes)] || !h.works(tokens.AccessToken) {
				t.Errorf("tab %d: %+v", i, tokens)
				continue
			}
			h.refresh(client, tokens.RefreshToken)
		}
		if n := h.Count(`SELECT count(*) FROM consent`); n != 1 {
			t.Errorf("%d consents", n)
		}
	})
}

// Attack 65: whoever ends a consent does not miss the code that is being made of
// it: the one waits for the other.
func TestNoCodeIsMadeOfAConsentThatIsJustEnding(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.hosted("Claude")
		at := with("redirect_uri", web)
		h.allowed(b, client, "always", at)
		query, _ := h.Authorization(client, at)
		answer := make(chan apptest.Answer, 1)
		err := h.DB.Do(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.Exec(`UPDATE consent SET ended_at = 1`); err != nil {
				return err
			}
			go func() { answer <- b.Open("/oauth/authorize?" + query.Encode()) }()
			select {
			case a := <-answer:
				t.Errorf("it did not wait: %d %s", a.StatusCode, a.Text)
				answer <- a
			case <-time.After(300 * time.Millisecond):
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if a := <-answer; apptest.Target(a.Text) != nil || apptest.Fields(a.Text).Get("request") == "" {
			t.Errorf("nobody is asked: %d %s", a.StatusCode, a.Text)
		}
	})
}
