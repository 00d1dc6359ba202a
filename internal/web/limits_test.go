package web_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// Attack 125: a stranger who asks for a person's letters again and again does not keep
// the person out: a browser in which that person signed in before gets them still, as
// many again, and for nobody else.
func TestStrangersKeepNobodyOut(t *testing.T) {
	h := apptest.Open(t)
	owner := h.Browser()
	owner.SetUp()
	owner.Submit("/logout", apptest.Fields(owner.Open("/").Text))
	ask := func(b *apptest.Browser, email string) int {
		form := apptest.Fields(b.Open("/login?switch=1").Text)
		form.Set("email", email)
		return b.Submit("/login", form).StatusCode
	}
	for i := range 15 {
		for _, email := range []string{apptest.Owner, "nobody@acme.example"} {
			if got, want := ask(h.Browser(), email), map[bool]int{true: http.StatusOK, false: http.StatusTooManyRequests}[i < 10]; got != want {
				t.Fatalf("%s, %d: %d", email, i, got)
			}
		}
	}
	if got := ask(owner, "nobody@acme.example"); got != http.StatusTooManyRequests {
		t.Errorf("for somebody else: %d", got)
	}
	bent := h.Browser()
	bent.Cookies["__Host-gatehouse-known"] = owner.Cookies["__Host-gatehouse-known"] + "A"
	if got := ask(bent, apptest.Owner); got != http.StatusTooManyRequests {
		t.Errorf("with a bent cookie: %d", got)
	}
	if got := ask(owner, strings.ToUpper(apptest.Owner)); got != http.StatusOK {
		t.Fatalf("the person is kept out: %d", got)
	}
	if a := owner.UseLink(); a.StatusCode != http.StatusOK || !strings.Contains(owner.Open("/me").Text, "Connected apps") {
		t.Errorf("the letter does not work: %d", a.StatusCode)
	}
	for range 9 {
		ask(owner, apptest.Owner)
	}
	if got := ask(owner, apptest.Owner); got != http.StatusTooManyRequests {
		t.Errorf("a browser that is known has no limit: %d", got)
	}
}

// R418, attacks 117, 125: asking for sign-in links is limited by address, and by whom
// the letters go to, known or not; a session is not touched by it.
func TestSignInIsLimited(t *testing.T) {
	h := apptest.Open(t, func(c *app.Config) { c.SignInLimit = throttle.Limit{Each: 30, All: 1000, Per: 24 * time.Hour} })
	owner := h.Browser()
	owner.SetUp() // 2
	ask := func(email string) apptest.Answer {
		b := h.Browser()
		form := apptest.Fields(b.Open("/login").Text)
		form.Set("email", email)
		return b.Submit("/login", form)
	}
	var texts []string
	for _, email := range []string{apptest.Owner, "nobody@acme.example"} {
		for i := range 12 {
			a := ask(" " + strings.ToUpper(email[:i]) + email[i:])
			if i < 10 && a.StatusCode != http.StatusOK || i >= 10 && a.StatusCode != http.StatusTooManyRequests {
				t.Errorf("%s, %d: %d %s", email, i, a.StatusCode, a.Text)
			}
			if i == 11 {
				texts = append(texts, strings.ReplaceAll(a.Unreferenced(), email, ""))
				if a.Header.Get("Retry-After") == "" || !strings.Contains(a.Text, "TOO_OFTEN") || !strings.Contains(a.Text, "minutes, then try again") {
					t.Errorf("%v %s", a.Header, a.Text)
				}
			}
		}
	}
	if texts[0] != texts[1] {
		t.Errorf("the page tells whether the address is known:\n%s\n%s", texts[0], texts[1])
	}
	for range 10 {
		ask("somebody@acme.example")
	}
	if a := ask("somebody.else@acme.example"); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("an address is not limited: %d", a.StatusCode)
	}
	b := h.Browser()
	form := apptest.Fields(b.Open("/login").Text)
	form.Set("token", "lnk_x")
	if a := b.Submit("/login/link", form); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("links are not limited: %d", a.StatusCode)
	}
	if a := owner.Open("/me"); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "Connected apps") {
		t.Errorf("who is signed in is held up: %d", a.StatusCode)
	}
}
