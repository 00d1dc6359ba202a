package authn_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
)

const wrongCode = "2222-2222-2222"

// setup is the form of the set-up page, filled in.
func (h house) setup(b *apptest.Browser, code, email string) url.Values {
	h.t.Helper()
	form := apptest.Fields(b.Open("/setup").Text)
	form.Set("code", code)
	form.Set("email", email)
	return form
}

func (h house) code() string { return strings.TrimSpace(h.Log.Wait("  code  ", nil)) }

func (h house) owners() int { return h.Count(`SELECT count(*) FROM member WHERE role = 'owner'`) }

// The code is typed as people type.
func TestTheSetupCodeIsReadKindly(t *testing.T) {
	for how, spell := range map[string]func(string) string{
		"as printed":   func(code string) string { return code },
		"lower case":   strings.ToLower,
		"no dashes":    func(code string) string { return strings.ReplaceAll(code, "-", "") },
		"with blanks":  func(code string) string { return " " + strings.ReplaceAll(code, "-", " ") + " " },
		"blanks, post": func(code string) string { return code + "  " },
	} {
		t.Run(how, func(t *testing.T) {
			h := start(t)
			b := h.Browser()
			if a := b.Submit("/setup", h.setup(b, spell(h.code()), " Dana@ACME.example ")); a.StatusCode != http.StatusOK || h.owners() != 1 {
				t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			if b.UseLink(); h.who(b) != apptest.Owner {
				t.Errorf("signed in as %q", h.who(b))
			}
		})
	}
}

// Nine wrong codes are forgiven, ten are not; nobody becomes the owner by guessing.
func TestTheSetupCodeDiesOfTenWrongOnes(t *testing.T) {
	for _, wrong := range []int{9, 10} {
		t.Run(fmt.Sprint(wrong), func(t *testing.T) {
			h := start(t)
			b := h.Browser()
			for range wrong {
				a := b.Submit("/setup", h.setup(b, wrongCode, "evil@evil.example"))
				if a.StatusCode != http.StatusForbidden || !apptest.Fields(a.Text).Has("csrf") || h.owners() != 0 || h.links() != 0 {
					t.Fatalf("%d %s", a.StatusCode, a.Text)
				}
			}
			a := b.Submit("/setup", h.setup(b, h.code(), apptest.Owner))
			if good := a.StatusCode == http.StatusOK && h.owners() == 1; good != (wrong < 10) {
				t.Errorf("%d, %d owners", a.StatusCode, h.owners())
			}
		})
	}
}

// Many guesses at once are counted one by one.
func TestManyGuessesAtOnceAreCounted(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b := h.Browser()
		form, right := h.setup(b, wrongCode, apptest.Owner), h.setup(b, h.code(), apptest.Owner)
		for _, a := range apptest.Together(32, func(int) apptest.Answer { return h.post(b, "/setup", form, ours) }) {
			if a.StatusCode != http.StatusForbidden {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		if n := h.Count(`SELECT tries FROM setup_code`); n != 10 {
			t.Errorf("%d tries", n)
		}
		if a := b.Submit("/setup", right); a.StatusCode != http.StatusForbidden || h.owners() != 0 {
			t.Errorf("%d, %d owners", a.StatusCode, h.owners())
		}
	})
}

// Of many with the right code one becomes the owner.
func TestThereIsOneFirstOwner(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b := h.Browser()
		form := h.setup(b, h.code(), "")
		answers := apptest.Together(16, func(i int) apptest.Answer {
			mine := url.Values{"csrf": form["csrf"], "code": form["code"], "email": {fmt.Sprintf("p%d@acme.example", i)}}
			return h.post(b, "/setup", mine, ours)
		})
		won := 0
		for _, a := range answers {
			switch a.StatusCode {
			case http.StatusOK:
				won++
			case http.StatusForbidden, http.StatusNotFound:
			default:
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		if won != 1 || h.owners() != 1 || h.links() != 1 {
			t.Errorf("%d answers, %d owners, %d links", won, h.owners(), h.links())
		}
	})
}

// What is typed wrong besides the code spends nothing.
func TestABadAddressDoesNotSpendTheCode(t *testing.T) {
	h := start(t)
	b := h.Browser()
	for _, email := range []string{"", "dana", "dana@", "@acme.example", "dev@localhost", "a@b\r\nBcc: c@d", "Dana <dana@acme.example>", strings.Repeat("a", 300) + "@acme.example"} {
		if a := b.Submit("/setup", h.setup(b, h.code(), email)); a.StatusCode != http.StatusBadRequest || h.owners() != 0 || h.links() != 0 {
			t.Errorf("%.40q: %d %s", email, a.StatusCode, a.Text)
		}
	}
	if n := h.Count(`SELECT tries FROM setup_code`); n != 0 {
		t.Errorf("%d tries were counted", n)
	}
	h.refusesForeign(b, "/setup", h.setup(b, h.code(), apptest.Owner), func() bool { return h.owners() == 0 })
	if a := b.Submit("/setup", h.setup(b, h.code(), apptest.Owner)); a.StatusCode != http.StatusOK {
		t.Errorf("the twin: %d %s", a.StatusCode, a.Text)
	}
}

// Once there is an owner the page does not exist, for nobody and no code.
func TestSetupIsOverWithTheOwner(t *testing.T) {
	h := start(t)
	b := h.Browser()
	form := h.setup(b, h.code(), apptest.Owner)
	b.Submit("/setup", form)
	second := url.Values{"csrf": form["csrf"], "code": form["code"], "email": {"evil@evil.example"}}
	if a := b.Submit("/setup", second); a.StatusCode != http.StatusNotFound || h.owners() != 1 {
		t.Errorf("POST: %d, %d owners", a.StatusCode, h.owners())
	}
	if a := b.Open("/setup"); a.StatusCode != http.StatusNotFound {
		t.Errorf("GET: %d", a.StatusCode)
	}
	h.SQL(`UPDATE setup_code SET used_at = NULL, tries = 0`) // not even if the code were good again
	if a := b.Submit("/setup", second); a.StatusCode != http.StatusNotFound || h.owners() != 1 {
		t.Errorf("POST with a good code: %d, %d owners", a.StatusCode, h.owners())
	}
}

// In development mode there is nothing to set up.
func TestDevelopmentModeHasNoSetup(t *testing.T) {
	h := start(t, apptest.Dev)
	b := h.Browser()
	form := url.Values{"csrf": {apptest.Fields(b.Open("/login").Text).Get("csrf")}, "code": {wrongCode}, "email": {apptest.Owner}}
	if a := b.Submit("/setup", form); a.StatusCode != http.StatusNotFound {
		t.Errorf("POST: %d", a.StatusCode)
	}
	if a := b.Open("/setup"); a.StatusCode != http.StatusNotFound || strings.Contains(h.Log.String(), h.URL+"/setup") {
		t.Errorf("GET: %d", a.StatusCode)
	}
}

// U12: thirty minutes; a restart prints a new code and kills the old one, and
// prints none once there is an owner.
func TestTheSetupCodeExpiresAndIsReplaced(t *testing.T) {
	h := start(t)
	b := h.Browser()
	old := h.code()
	left := time.Until(time.UnixMicro(int64(h.Count(`SELECT expires_at FROM setup_code`))))
	if left > authn.SetupLife || left < authn.SetupLife-time.Minute || authn.SetupLife != 30*time.Minute {
		t.Errorf("it lives %v", left)
	}
	h.SQL(`UPDATE setup_code SET expires_at = $1`, time.Now().UnixMicro())
	if a := b.Submit("/setup", h.setup(b, old, apptest.Owner)); a.StatusCode != http.StatusForbidden || h.owners() != 0 {
		t.Errorf("expired: %d, %d owners", a.StatusCode, h.owners())
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	h.House = apptest.Open(t, func(c *app.Config) { c.DataDir = h.Dir })
	if h.code() == old {
		t.Fatal("the same code again")
	}
	b = h.Browser()
	if a := b.Submit("/setup", h.setup(b, old, apptest.Owner)); a.StatusCode != http.StatusForbidden || h.owners() != 0 {
		t.Errorf("replaced: %d, %d owners", a.StatusCode, h.owners())
	}
	b.SetUp()
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	h.House = apptest.Open(t, func(c *app.Config) { c.DataDir = h.Dir })
	if log := h.Log.String(); strings.Contains(log, "  code  ") {
		t.Errorf("a code although there is an owner:\n%s", log)
	}
	session := b.Cookies // and the session outlives the restart
	b = h.Browser()
	if b.Cookies = session; h.who(b) != apptest.Owner {
		t.Error("the restart signed the owner out")
	}
}
