package attacks_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// Attacks 57 and 125: floods of strangers. What comes of 100,000 and of a million is
// in test/endurance.
func TestLoad(t *testing.T) { attack(t, loadRows()) }

// narrow is a house like the world's with limits that are soon used up.
func (w *world) narrow(change ...func(*app.Config)) *apptest.House {
	return apptest.Open(w.t, append(change, func(c *app.Config) {
		narrow := throttle.Limit{Each: 20, All: 100, Per: 24 * time.Hour}
		c.AuthorizeLimit, c.RegisterLimit, c.SignInLimit, c.TypedCodeLimit, c.FailureLimit = narrow, narrow, narrow, narrow, narrow
	})...)
}

// past is how many of n requests were let through, and whether each of the others was
// told when to come back.
func (w *world) past(n int, send func(i int) apptest.Answer) (through int) {
	w.t.Helper()
	for i := range n {
		switch a := send(i); {
		case a.StatusCode != http.StatusTooManyRequests:
			through++
		case a.Header.Get("Retry-After") == "":
			w.t.Errorf("no Retry-After: %v", a.Header)
		}
	}
	return through
}

func loadRows() []row {
	const app1 = `{"client_name":"Flood","redirect_uris":["https://b.example/cb"]}`
	from := func(i int) []string {
		return []string{fmt.Sprintf("X-Forwarded-For: 198.51.100.%d", i%250), fmt.Sprintf("Forwarded: for=198.51.100.%d", i%250), fmt.Sprintf("X-Real-IP: 198.51.100.%d", i%250), "Client-IP: 127.0.0.1"}
	}
	return []row{
		{number: 57, name: "registering without end, with headers that name other addresses", story: func(w *world) {
			h := w.narrow()
			if n := w.past(100, func(i int) apptest.Answer { return h.PostJSON("/oauth/register", app1, from(i)...) }); n != 20 {
				w.t.Errorf("%d of 100 registered", n)
			}
			if n := h.Count(`SELECT count(*) FROM client`); n != 20 {
				w.t.Errorf("%d rows", n)
			}
		}},
		{number: 57, name: "an app that is there goes on, and so do others at the address of an attacker behind a proxy", story: func(w *world) {
			h := w.narrow(func(c *app.Config) {
				c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
			})
			by := func(address string) string { return "X-Forwarded-For: 203.0.113.7, " + address } // the first is a lie
			if n := w.past(50, func(int) apptest.Answer { return h.PostJSON("/oauth/register", app1, by("192.0.2.1")) }); n != 20 {
				w.t.Errorf("%d of 50 registered", n)
			}
			if a := h.PostJSON("/oauth/register", app1, by("192.0.2.2")); a.StatusCode != http.StatusCreated {
				w.t.Errorf("somebody else: %d %s", a.StatusCode, a.Text)
			}
			all := w.past(200, func(i int) apptest.Answer {
				return h.PostJSON("/oauth/register", app1, by(fmt.Sprintf("198.51.100.%d", i)))
			})
			if all != 79 || h.Count(`SELECT count(*) FROM client`) != 100 {
				w.t.Errorf("%d more of ever new addresses", all)
			}
		}},
		{number: 125, name: "asking for authorization without end, at each of the doors", story: func(w *world) {
			for name, send := range map[string]func(h *apptest.House, client string, i int) apptest.Answer{
				"authorize": func(h *apptest.House, client string, i int) apptest.Answer {
					q, _ := h.Authorization(client, nil)
					return h.Get("/oauth/authorize?"+q.Encode(), append(from(i), "Accept: text/html")...)
				},
				"par": func(h *apptest.House, client string, i int) apptest.Answer {
					q, _ := h.Authorization(client, nil)
					return h.Form("/oauth/par", q, from(i)...)
				},
				"device": func(h *apptest.House, client string, i int) apptest.Answer {
					return h.Form("/oauth/device", with("client_id", client), from(i)...)
				},
			} {
				h := w.narrow()
				var r oauth.Registration
				h.PostJSON("/oauth/register", `{"redirect_uris":["`+apptest.Callback+`"],"grant_types":["authorization_code","`+deviceGrant+`"]}`).JSON(w.t, &r)
				if n := w.past(100, func(i int) apptest.Answer { return send(h, r.ClientID, i) }); n != 20 {
					w.t.Errorf("%s: %d of 100", name, n)
				}
				if n := h.Count(`SELECT (SELECT count(*) FROM flow) + (SELECT count(*) FROM pushed_request) + (SELECT count(*) FROM device_code)`); n != 20 {
					w.t.Errorf("%s: %d rows", name, n)
				}
			}
		}},
		{number: 125, name: "asking for sign-in links without end", story: func(w *world) {
			h := w.narrow()
			b := h.Browser()
			form := apptest.Fields(b.Open("/login").Text)
			n := w.past(60, func(i int) apptest.Answer {
				form.Set("email", fmt.Sprintf("somebody%d@acme.example", i))
				return b.Submit("/login", form)
			})
			if n != 20 {
				w.t.Errorf("%d of 60", n)
			}
			if a := h.Browser().Open("/login"); a.StatusCode != http.StatusOK { // which costs nothing
				w.t.Errorf("the page itself: %d", a.StatusCode)
			}
		}},
		{number: 125, name: "bodies without end", story: func(w *world) {
			h := w.narrow()
			for _, path := range []string{"/oauth/token", "/oauth/par", "/oauth/device", "/oauth/register", "/oauth/revoke"} {
				a := h.Form(path, with("client_id", "x", "x", string(make([]byte, 1<<20))))
				if a.StatusCode != http.StatusBadRequest && a.StatusCode != http.StatusRequestEntityTooLarge {
					w.t.Errorf("%s: %d", path, a.StatusCode)
				}
			}
		}},
	}
}
