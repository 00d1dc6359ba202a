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
