package authn_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

const (
	session = "__Host-gatehouse-session"
	name    = "__Host-gatehouse-browser"
	known   = "__Host-gatehouse-known"
)

// R1208, attack 110: cookies are for this host, over TLS or this computer, out of
// reach of scripts and of other sites' requests.
func TestCookiesAreNarrow(t *testing.T) {
	h := start(t)
	b := h.Browser()
	code := h.Log.Wait("  code  ", nil)
	form := apptest.Fields(b.Open("/setup").Text)
	form.Set("code", code)
	form.Set("email", apptest.Owner)
	b.Submit("/setup", form)
	answer := h.post(b, "/login/link", apptest.Fields(b.Open(b.Link()).Text), ours)
	fresh := h.Do(h.Request(http.MethodGet, "/login", ""))
	for _, row := range []struct {
		name   string
		answer apptest.Answer
		nth    int
		of     int
		maxAge int
	}{{session, answer, 0, 2, 8 * 60 * 60}, {known, answer, 1, 2, 180 * 24 * 60 * 60}, {name, fresh, 0, 1, 0}} {
		cookies := row.answer.Cookies()
		if len(cookies) != row.of {
			t.Fatalf("%s: %v", row.name, row.answer.Header["Set-Cookie"])
		}
		c := cookies[row.nth]
		if c.Name != row.name || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != row.maxAge {
			t.Errorf("%s", c.Raw)
		}
	}
}

// Attack 111: a session that was there before is not the one after; a new one is
// made at every sign-in, and the old one is dead.
func TestSignInMakesANewSession(t *testing.T) {
	h := start(t)
	b := h.person()
	first := b.Cookies[session]
	b.Submit("/login/link", h.link(b, apptest.Owner))
	second := b.Cookies[session]
	if first == second || h.who(b) != apptest.Owner {
		t.Errorf("%q, %q, %q", first, second, h.who(b))
	}
	b.Cookies[session] = first
	if who := h.who(b); who != "" {
		t.Errorf("the session from before the sign-in is %s's", who)
	}
	planted := h.Browser()
	planted.Cookies[session] = "ses_00000000000000000000000000." + strings.Repeat("A", 43)
	planted.Submit("/login/link", h.link(planted, apptest.Owner))
	if got := planted.Cookies[session]; strings.Contains(got, "AAAA") || h.who(planted) != apptest.Owner {
		t.Errorf("a planted session was taken: %q", got)
	}
}

// R607: a session ends with its time, its membership, or with any change of its
// cookie.
func TestASessionIsCheckedAtEveryRequest(t *testing.T) {
	h := start(t)
	b := h.person()
	good := b.Cookies[session]
	if n := h.Count(`SELECT max(expires_at - created_at) FROM browser_session`); time.Duration(n)*time.Microsecond != 8*time.Hour {
		t.Errorf("it lives %d µs", n)
	}
	for _, bent := range []string{
		"", "x", good[:len(good)-1], good + "A", good[:len(good)-43] + strings.Repeat("A", 43), strings.Split(good, ".")[0],
		"lnk_" + strings.TrimPrefix(good, "ses_"), b.Cookies[name], strings.ToUpper(good),
	} {
		if b.Cookies[session] = bent; h.who(b) != "" {
			t.Errorf("%q is a session", bent)
		}
	}
	b.Cookies[session] = good
	for _, row := range []struct{ spoil, heal string }{
		{`UPDATE browser_session SET expires_at = expires_at - 28800000000`, `UPDATE browser_session SET expires_at = expires_at + 28800000000`},
		{`UPDATE member SET status = 'suspended'`, `UPDATE member SET status = 'active'`},
		{`UPDATE browser_session SET ended_at = 1`, `UPDATE browser_session SET ended_at = NULL`},
	} {
		h.SQL(row.spoil)
		if who := h.who(b); who != "" {
			t.Errorf("after %s it is %s's", row.spoil, who)
		}
		h.SQL(row.heal)
		if who := h.who(b); who != apptest.Owner {
			t.Errorf("after %s it is %q's", row.heal, who)
		}
	}
}

// R605: after a sign-out the cookie is worth nothing, in no browser; and only the
// person signs out.
func TestSignOut(t *testing.T) {
	h := start(t)
	b := h.person()
	form := apptest.Fields(b.Open("/login?switch=1").Text)
	h.refusesForeign(b, "/logout", form, func() bool { return h.who(b) == apptest.Owner })
	cookie := b.Cookies[session]
	other := h.Browser()
	other.Submit("/login/link", h.link(other, apptest.Owner))
	if a := b.Submit("/logout", form); a.StatusCode != http.StatusOK || b.Cookies[session] != "" {
		t.Errorf("%d %v", a.StatusCode, b.Cookies)
	}
	b.Cookies[session] = cookie
	if who := h.who(b); who != "" {
		t.Errorf("the cookie is still %s's", who)
	}
	if who := h.who(other); who != apptest.Owner {
		t.Error("the other browser was signed out as well")
	}
	if n := h.Count(`SELECT count(*) FROM audit_event WHERE action = 'session.end'`); n != 1 {
		t.Errorf("%d events", n)
	}
	b.Cookies[session] = ""
	again := apptest.Fields(b.Open("/login").Text)
	if a := b.Submit("/logout", again); a.StatusCode != http.StatusOK {
		t.Errorf("without a session: %d %s", a.StatusCode, a.Text)
	}
}
