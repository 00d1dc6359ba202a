package authn_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
)

// R602, attack 117: the answer does not tell whether an address is known, and
// nothing but a known one gets mail.
func TestUnknownAddressesAreAnsweredAlike(t *testing.T) {
	h := start(t)
	h.person()
	b := h.Browser()
	known := h.ask(b, apptest.Owner)
	links, rows := h.links(), h.Count(`SELECT count(*) FROM sign_in_link`)
	for _, email := range []string{
		"nobody@acme.example", "dana@acme.example.evil.example", apptest.Owner + "\r\nBcc: evil@evil.example", "dana@acme.example, evil@evil.example",
		"Dana <dana@acme.example>", "d\u0430na@acme.example", "dev@localhost", "'or 1=1--@x", strings.Repeat("a", 5000) + "@acme.example", "@",
	} {
		a := h.ask(b, email)
		if a.StatusCode != known.StatusCode || len(a.Header) != len(known.Header) || h.links() != links || h.Count(`SELECT count(*) FROM sign_in_link`) != rows {
			t.Errorf("%.60q: %d, %d links, %v", email, a.StatusCode, h.links()-links, a.Header)
		}
		if strings.HasSuffix(email, "@acme.example") && len(email) < 40 {
			if got, want := steady(a.Text, email), steady(known.Text, apptest.Owner); got != want {
				t.Errorf("%q: the pages differ:\n%s\n%s", email, got, want)
			}
		}
	}
	for _, email := range []string{" Dana@ACME.example \r\n", "DANA@acme.example"} {
		links = h.links()
		if h.ask(b, email); h.links() != links+1 {
			t.Errorf("%q is not known", email)
		}
	}
	for _, email := range []string{"", "dana", "   "} {
		if a := h.ask(b, email); a.StatusCode != http.StatusBadRequest || !apptest.Fields(a.Text).Has("csrf") {
			t.Errorf("%q: %d %s", email, a.StatusCode, a.Text)
		}
	}
}

// steady leaves out what differs between any two answers.
func steady(page, email string) string {
	page = strings.ReplaceAll(page, email, "EMAIL")
	if i := strings.Index(page, "req_"); i >= 0 {
		page = strings.ReplaceAll(page, page[i:i+30], "REF")
	}
	return page
}

// R603, attack 116: mail scanners look at links. Looking spends nothing.
func TestLookingAtALinkNeverSpendsIt(t *testing.T) {
	h := start(t)
	h.person()
	b, scanner := h.Browser(), h.Browser()
	form := h.link(b, apptest.Owner)
	path := strings.TrimPrefix(b.Link(), h.URL)
	for range 3 {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			a := h.Do(h.Request(method, path, ""))
			if a.StatusCode != http.StatusOK || strings.Contains(a.Header.Get("Set-Cookie"), "session") {
				t.Errorf("%s: %d %v", method, a.StatusCode, a.Header)
			}
		}
		scanner.Open(path)
	}
	if who := h.who(scanner) + h.who(b); who != "" || h.Count(`SELECT count(*) FROM sign_in_link WHERE used_at IS NULL`) != 1 {
		t.Errorf("looking signed %q in, or spent the link", who)
	}
	if b.Submit("/login/link", form); h.who(b) != apptest.Owner {
		t.Error("the button does not sign in")
	}
}

// R606, attack 116: one use, whoever comes later sees why.
func TestALinkWorksOnce(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		h.person()
		b := h.Browser()
		form := h.link(b, apptest.Owner)
		sessions := h.Count(`SELECT count(*) FROM browser_session`)
		won := 0
		for _, a := range apptest.Together(32, func(int) apptest.Answer { return h.post(b, "/login/link", form, ours) }) {
			switch signedIn := strings.Contains(a.Header.Get("Set-Cookie"), "__Host-gatehouse-session=ses_"); {
			case a.StatusCode == http.StatusSeeOther && signedIn:
				won++
			case a.StatusCode != http.StatusForbidden || signedIn || !strings.Contains(a.Text, "SIGN_IN_LINK_USED"):
				t.Errorf("%d %v", a.StatusCode, a.Header)
			}
		}
		if n := h.Count(`SELECT count(*) FROM browser_session`) - sessions; won != 1 || n != 1 {
			t.Errorf("%d signed in, %d sessions", won, n)
		}
		if h.who(b) != "" {
			t.Error("the browser took a cookie that it was not given")
		}
	})
}

// R606: fifteen minutes and not longer.
func TestALinkExpires(t *testing.T) {
	h := start(t)
	h.person()
	b := h.Browser()
	form := h.link(b, apptest.Owner)
	if n := h.Count(`SELECT max(expires_at - created_at) FROM sign_in_link`); time.Duration(n)*time.Microsecond != authn.LinkLife || authn.LinkLife != 15*time.Minute {
		t.Errorf("it lives %d µs", n)
	}
	h.SQL(`UPDATE sign_in_link SET expires_at = $1 WHERE used_at IS NULL`, time.Now().UnixMicro())
	if a := b.Submit("/login/link", form); a.StatusCode != http.StatusForbidden || h.who(b) != "" {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	h.SQL(`UPDATE sign_in_link SET expires_at = $1 WHERE used_at IS NULL`, time.Now().Add(time.Minute).UnixMicro())
	if b.Submit("/login/link", form); h.who(b) != apptest.Owner {
		t.Error("the twin does not work")
	}
}

// Attacks 26, 40: a guess, a part, or a token of another kind opens nothing, on
// both engines, and spends nothing.
func TestABentLinkOpensNothing(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		session := h.person().Cookies["__Host-gatehouse-session"]
		b := h.Browser()
		form := h.link(b, apptest.Owner)
		good := form.Get("token")
		for name, bent := range map[string]string{
			"nothing":                "",
			"a wrong secret part":    good[:len(good)-43] + strings.Repeat("A", 43),
			"cut short":              good[:len(good)-1],
			"no secret part":         strings.Split(good, ".")[0],
			"an unknown id":          "lnk_00000000000000000000000000" + good[len(good)-44:],
			"a session":              session,
			"a session as a link":    "lnk_" + strings.TrimPrefix(session, "ses_"),
			"another case":           strings.ToUpper(good),
			"bytes that are no text": "lnk_0000000000000000000000000\xff." + strings.Repeat("A", 43),
			"a NUL":                  "lnk_0000000000000000000000000\x00." + strings.Repeat("A", 43),
			"markup":                 `"><script>alert(1)</script>`,
		} {
			bad := url.Values{"token": {bent}, "csrf": form["csrf"]}
			want := http.StatusForbidden
			if name == "a NUL" || name == "bytes that are no text" {
				want = http.StatusBadRequest
			}
			if a := h.post(b, "/login/link", bad, ours); a.StatusCode != want || len(a.Header["Set-Cookie"]) > 0 {
				t.Errorf("%s: %d %v %s", name, a.StatusCode, a.Header, a.Text)
			}
			if a := b.Open("/login/link?token=" + url.QueryEscape(bent)); a.StatusCode != http.StatusOK || strings.Contains(a.Text, "<script") {
				t.Errorf("the page of %s: %d %s", name, a.StatusCode, a.Text)
			}
		}
		if b.Submit("/login/link", form); h.who(b) != apptest.Owner {
			t.Error("the twin does not work")
		}
	})
}

// R1208: nobody is signed in, or mailed, by a form of another site.
func TestForeignFormsNeitherMailNorSignIn(t *testing.T) {
	h := start(t)
	h.person()
	b := h.Browser()
	form := h.link(b, apptest.Owner)
	h.refusesForeign(b, "/login/link", form, func() bool { return h.who(b) == "" })
	mailed := apptest.Fields(b.Open("/login").Text)
	mailed.Set("email", apptest.Owner)
	links := h.links()
	h.refusesForeign(b, "/login", mailed, func() bool { return h.links() == links })
	if b.Submit("/login", mailed); h.links() != links+1 {
		t.Error("the twin mails nothing")
	}
	if b.Submit("/login/link", form); h.who(b) != apptest.Owner {
		t.Error("the twin does not sign in")
	}
}

// A stranger who asks for links keeps nobody out, and cannot fill the table: the
// newest link always works, and others get theirs.
func TestLinksAreBounded(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		h.person()
		b := h.Browser()
		form := apptest.Fields(b.Open("/login").Text)
		form.Set("email", apptest.Owner)
		before, sent := h.links(), 0
		for _, a := range apptest.Together(24, func(int) apptest.Answer { return h.post(b, "/login", form, ours) }) {
			switch {
			case a.StatusCode == http.StatusOK:
				sent++
			case a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "":
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		if n := h.Count(`SELECT count(*) FROM sign_in_link`); n > 20 || sent == 0 || sent > 10 || h.links() != before+sent {
			t.Errorf("%d rows, %d answered with yes, %d letters", n, sent, h.links()-before)
		}
		if b.UseLink(); h.who(b) != apptest.Owner {
			t.Fatal("the newest link does not work")
		}
		bob := h.bob() // others are not concerned
		if links := h.links(); h.ask(h.Browser(), bob).StatusCode != http.StatusOK || h.links() != links+1 {
			t.Error("bob gets no link")
		}
	})
}

// Attack 117: how long the answer takes does not tell either.
func TestTheAnswerTakesItsTime(t *testing.T) {
	h := start(t)
	h.person()
	b := h.Browser()
	form := apptest.Fields(b.Open("/login").Text)
	for _, email := range []string{apptest.Owner, "nobody@acme.example", "dana@"} {
		form.Set("email", email)
		began := time.Now()
		h.post(b, "/login", form, ours)
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("%s: %v", email, took)
		}
	}
}

// Who is no member any more gets no link, and one from before does not work.
func TestASuspendedPersonDoesNotSignIn(t *testing.T) {
	h := start(t)
	h.person()
	b := h.Browser()
	form := h.link(b, apptest.Owner)
	for _, status := range []string{"suspended", "revoked"} {
		h.SQL(`UPDATE member SET status = $1`, status)
		links := h.links()
		if a := h.ask(b, apptest.Owner); a.StatusCode != http.StatusOK || h.links() != links {
			t.Errorf("%s: %d, %d links", status, a.StatusCode, h.links()-links)
		}
		if a := b.Submit("/login/link", form); a.StatusCode != http.StatusForbidden || h.who(b) != "" {
			t.Errorf("%s: %d %s", status, a.StatusCode, a.Text)
		}
	}
	h.SQL(`UPDATE member SET status = 'active'`)
	if b.Submit("/login/link", form); h.who(b) != apptest.Owner {
		t.Error("the twin does not work")
	}
}

// Attack 116: a link for bob in alice's browser says so first, and after it her
// session is over.
func TestAccountsAreNotSwitchedSilently(t *testing.T) {
	h := start(t)
	b, bob := h.person(), h.bob()
	before := b.Cookies["__Host-gatehouse-session"]
	h.ask(h.Browser(), bob)
	page := b.Open(b.Link())
	if !strings.Contains(page.Text, apptest.Owner) || h.who(b) != apptest.Owner {
		t.Errorf("the page does not say who is signed in: %s", page.Text)
	}
	b.Submit("/login/link", apptest.Fields(page.Text))
	if who := h.who(b); who != bob {
		t.Errorf("signed in as %q", who)
	}
	old := h.Browser()
	old.Cookies["__Host-gatehouse-session"] = before
	if who := h.who(old); who != "" {
		t.Errorf("the session of %s goes on", who)
	}
}
