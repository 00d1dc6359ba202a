package authn_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// house is one with its database open beside it.
type house struct {
	*apptest.House
	t *testing.T
}

// start makes a house. Tests in different houses run side by side.
func start(t *testing.T, change ...func(*app.Config)) house {
	t.Helper()
	t.Parallel()
	return house{apptest.Open(t, change...), t}
}

// onEach runs f in a house on SQLite and in one on PostgreSQL.
func onEach(t *testing.T, f func(t *testing.T, h house)) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) { f(t, house{h, t}) })
}

// bob makes a second member and says his address.
func (h house) bob() string {
	h.t.Helper()
	h.SQL(`INSERT INTO users (id, email, created_at) VALUES ('usr_bob', 'bob@acme.example', 0)`)
	h.SQL(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_bob', 'standard', 'active', 0)`)
	return "bob@acme.example"
}

// person is a browser in which the owner is signed in.
func (h house) person() *apptest.Browser {
	h.t.Helper()
	b := h.Browser()
	b.SetUp()
	if who := h.who(b); who != apptest.Owner {
		h.t.Fatalf("signed in as %q", who)
	}
	return b
}

// who is signed in in a browser; nobody is "".
func (h house) who(b *apptest.Browser) string {
	h.t.Helper()
	_, rest, found := strings.Cut(b.Open("/").Text, "Signed in as <b>")
	if !found {
		return ""
	}
	who, _, _ := strings.Cut(rest, "<")
	return who
}

// links is how many sign-in links were mailed.
func (h house) links() int { return strings.Count(h.Log.String(), "/login/link?token=") }

// ask asks for a link as somebody at a sign-in page does.
func (h house) ask(b *apptest.Browser, email string) apptest.Answer {
	h.t.Helper()
	form := apptest.Fields(b.Open("/login?switch=1").Text)
	form.Set("email", email)
	return b.Submit("/login", form)
}

// link asks for one and returns the form that its page has, for the browser.
func (h house) link(b *apptest.Browser, email string) url.Values {
	h.t.Helper()
	before := h.links()
	if a := h.ask(b, email); a.StatusCode != http.StatusOK || h.links() != before+1 {
		h.t.Fatalf("no link: %d %s", a.StatusCode, a.Text)
	}
	return apptest.Fields(b.Open(b.Link()).Text)
}

// post sends a form with the browser's cookies and follows nothing.
func (h house) post(b *apptest.Browser, path string, form url.Values, headers ...string) apptest.Answer {
	h.t.Helper()
	r := h.Request(http.MethodPost, path, form.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...)
	if b != nil {
		for name, value := range b.Cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
	}
	return h.Do(r)
}

const ours = "Sec-Fetch-Site: same-origin"

// foreign are the ways in which a form arrives that is not ours (R1208, attack
// 60): which browser sends it, with what headers, and what it changes.
func foreign(own, other *apptest.Browser, otherToken string) map[string]struct {
	browser *apptest.Browser
	token   *string
	headers []string
} {
	none := ""
	return map[string]struct {
		browser *apptest.Browser
		token   *string
		headers []string
	}{
		"no cookie":               {nil, nil, []string{ours}},
		"no form token":           {own, &none, []string{ours}},
		"another's form token":    {own, &otherToken, []string{ours}},
		"another browser":         {other, nil, []string{ours}},
		"a foreign Origin":        {own, nil, []string{"Origin: https://evil.example"}},
		"Origin null":             {own, nil, []string{"Origin: null"}},
		"Sec-Fetch-Site cross":    {own, nil, []string{"Sec-Fetch-Site: cross-site"}},
		"Sec-Fetch-Site the site": {own, nil, []string{"Sec-Fetch-Site: same-site"}},
	}
}

// refusesForeign posts form in every foreign way; ok reports that nothing happened.
func (h house) refusesForeign(own *apptest.Browser, path string, form url.Values, ok func() bool) {
	h.t.Helper()
	other := h.Browser()
	otherToken := apptest.Fields(other.Open("/login").Text).Get("csrf")
	for name, row := range foreign(own, other, otherToken) {
		h.t.Run(name, func(t *testing.T) {
			sent := url.Values{}
			for field := range form {
				sent.Set(field, form.Get(field))
			}
			if row.token != nil {
				sent.Set("csrf", *row.token)
			}
			a := h.post(row.browser, path, sent, row.headers...)
			if a.StatusCode != http.StatusForbidden || a.Header["Location"] != nil || len(a.Header["Set-Cookie"]) > 0 || !ok() {
				t.Errorf("%d %v", a.StatusCode, a.Header)
			}
		})
	}
}
