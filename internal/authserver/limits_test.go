package authserver_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound/outboundtest"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// day is a window that ends in no test.
const day = 24 * time.Hour

// limited fails unless an endpoint for programs says how long to wait (R418).
func limited(t *testing.T, a apptest.Answer) {
	t.Helper()
	wait, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.StatusCode != http.StatusTooManyRequests || a.Error() != oauth.TemporarilyUnavailable || wait <= 0 || wait > 86400 || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.Text)
	}
}

// R219, attack 57: registrations of one address are limited, and their rows with them,
// whatever headers say; apps that are there go on.
func TestRegistrationsAreLimited(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client := h.person(), h.hosted("Claude")
		tokens := h.allowed(b, client, "always", with("redirect_uri", web))
		for i := range 30 {
			a := h.PostJSON("/oauth/register", `{"redirect_uris":["https://b.example/cb"]}`, fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i), fmt.Sprintf("Forwarded: for=192.0.2.%d", i))
			if i < 9 && a.StatusCode != http.StatusCreated {
				t.Errorf("%d: %d %s", i, a.StatusCode, a.Text)
			}
			if i >= 9 {
				limited(t, a)
			}
		}
		if n := h.Count(`SELECT count(*) FROM client`); n != 10 {
			t.Errorf("%d clients", n)
		}
		tokens = h.refresh(client, tokens.RefreshToken)
		if !h.works(tokens.AccessToken) {
			t.Error("an app that is there does not go on")
		}
		h.silent(b, client, with("redirect_uri", web))
		if n := h.Strangers()["/oauth/register refused: temporarily_unavailable"]; n == 0 {
			t.Log(h.Strangers()) // recorded once a minute
		}
	}, func(c *app.Config) { c.RegisterLimit = throttle.Limit{Each: 10, All: 1000, Per: day} })
}

// Attack 57: where a token of the operator is needed, those who have none keep nobody
// from registering who has one.
func TestStrangersTakeNoRegistrations(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		var made struct{ Token string }
		h.do("make_registration_token", map[string]any{"note": "build", "days": 7}, &made)
		register := func(headers ...string) apptest.Answer {
			return h.PostJSON("/oauth/register", `{"redirect_uris":["https://b.example/cb"]}`, headers...)
		}
		for i := range 8 {
			a := register("Authorization: Bearer " + made.Token[:len(made.Token)-3] + "xxx")
			if i < 3 && a.StatusCode != http.StatusUnauthorized {
				t.Errorf("%d: %d %s", i, a.StatusCode, a.Text)
			}
			if i >= 3 {
				limited(t, a)
			}
		}
		for range 3 {
			if a := register("Authorization: Bearer " + made.Token); a.StatusCode != http.StatusCreated {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		limited(t, register("Authorization: Bearer "+made.Token))
	}, func(c *app.Config) {
		c.Registration = authserver.RegistrationToken
		c.RegisterLimit = throttle.Limit{Each: 3, All: 3, Per: day}
	})
}

// Attack 125: an app that registered itself changes as often as it may register, and
// no more: each change is an event.
func TestChangesOfRegistrationsAreLimited(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r := h.register(someApp + `}`)
		for i := range 15 {
			a := h.manage(http.MethodPut, "/registration/"+r.ClientID, r.RegistrationToken, fmt.Sprintf(`{"client_name":"App %d","redirect_uris":["https://b.example/cb"]}`, i))
			if i < 10 && a.StatusCode != http.StatusOK {
				t.Errorf("%d: %d %s", i, a.StatusCode, a.Text)
			}
			if i >= 10 {
				limited(t, a)
			}
		}
		if n := h.events("client.change"); n != 10 {
			t.Errorf("%d events", n)
		}
		h.register(someApp + `}`) // which is counted by itself
		managed(t, h, h.manage(http.MethodGet, "/registration/"+r.ClientID, r.RegistrationToken, ""), r.RegistrationToken)
		if a := h.manage(http.MethodDelete, "/registration/"+r.ClientID, r.RegistrationToken, ""); a.StatusCode != http.StatusNoContent {
			t.Errorf("it cannot be removed: %d %s", a.StatusCode, a.Text)
		}
	}, func(c *app.Config) { c.RegisterLimit = throttle.Limit{Each: 10, All: 1000, Per: day} })
}

// Attack 125: authorizations that begin are limited at all three doors together, and
// with them the rows that they make; who is known goes on: a person who is signed in,
// and an app that somebody has allowed.
func TestAuthorizationsAreLimited(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, known := h.person(), h.hosted("Claude")
		h.allowed(b, known, "always", with("redirect_uri", web)) // 1
		stranger, device := h.Register(), h.screenless()
		query := authorization(h, stranger, nil)
		for i := range 8 {
			if a := h.authorize(query); a.StatusCode != http.StatusSeeOther {
				t.Fatalf("%d: %d %s", i, a.StatusCode, a.Text)
			}
		}
		h.push(stranger, nil)
		h.unchanged(t, func() {
			for i := range 20 {
				a := h.Get("/oauth/authorize?"+query.Encode(), "Accept: text/html", fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i), fmt.Sprintf("X-Real-IP: 192.0.2.%d", i))
				shown(t, a, http.StatusTooManyRequests)
				if a.Header.Get("Retry-After") == "" {
					t.Errorf("%v", a.Header)
				}
			}
			limited(t, h.Form("/oauth/par", query))
			limited(t, h.Form("/oauth/device", with("client_id", device)))
		})
		if n := h.Count(`SELECT count(*) FROM flow`); n != 9 {
			t.Errorf("%d flows", n)
		}
		h.silent(b, known, with("redirect_uri", web))
		h.asked(b, authorization(h, stranger, nil)) // this person is known
		if a := h.authorize(authorization(h, known, with("redirect_uri", web))); a.StatusCode != http.StatusSeeOther {
			t.Errorf("the app is known: %d %s", a.StatusCode, a.Text)
		}
		h.push(known, with("redirect_uri", web))
		for range 20 {
			h.authorize(authorization(h, known, with("redirect_uri", web)))
		}
		if a := h.authorize(authorization(h, known, with("redirect_uri", web))); a.StatusCode != http.StatusTooManyRequests {
			t.Errorf("the app is unlimited: %d", a.StatusCode)
		}
		h.silent(b, known, with("redirect_uri", web)) // and that holds up nobody who is signed in
	}, func(c *app.Config) { c.AuthorizeLimit = throttle.Limit{Each: 10, All: 1000, Per: day} })
}

// Attacks 57, 104, 125: a document that is fetched counts like a registration, at every
// door: each makes a row, and holds a slot. One that somebody has allowed is fetched
// again all the same.
func TestDocumentsAreLimited(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		var asked atomic.Int32
		var host string
		host = world.Serve("many.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"client_id":%q,"client_name":"Doc app","redirect_uris":[%q]}`, host+r.URL.Path, host+"/cb")
		}))
		asked.Store(0)
		at := func(name string) string { return host + "/" + name + ".json" }
		b, known := h.person(), at("known")
		change := with("redirect_uri", host+"/cb")
		tokens := h.allowed(b, known, "always", change) // 1
		for i := range 9 {
			if a := h.authorize(authorization(h, at(fmt.Sprint(i)), change)); a.StatusCode != http.StatusSeeOther {
				t.Fatalf("%d: %d %s", i, a.StatusCode, a.Text)
			}
		}
		h.unchanged(t, func() {
			for i := range 5 {
				unknown := at(fmt.Sprint("new", i))
				a := h.authorize(authorization(h, unknown, change))
				shown(t, a, http.StatusTooManyRequests)
				if a.Header.Get("Retry-After") == "" {
					t.Errorf("%v", a.Header)
				}
				limited(t, h.Form("/oauth/par", authorization(h, unknown, change)))
				limited(t, h.Form("/oauth/device", with("client_id", unknown)))
				claims := map[string]any{"iss": unknown, "sub": unknown, "aud": h.URL, "jti": fmt.Sprint(i), "exp": time.Now().Add(time.Minute).Unix()}
				limited(t, h.Form("/oauth/token", with("grant_type", "client_credentials", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
					"client_assertion", signer{alg: jose.ES256, key: newKey(t)}.signAs(t, "JWT", claims))))
			}
		})
		if asked.Load() != 10 {
			t.Errorf("fetched %d times", asked.Load())
		}
		h.later(2 * time.Hour)
		h.silent(b, known, change)
		if asked.Load() != 11 {
			t.Error("what somebody allowed is not fetched again")
		}
		shown(t, h.authorize(authorization(h, at("0"), change)), http.StatusTooManyRequests)
		h.later(2 * time.Hour)
		if tokens = h.refresh(known, tokens.RefreshToken); !h.works(tokens.AccessToken) || asked.Load() != 12 {
			t.Errorf("the app does not go on, or was fetched %d times", asked.Load())
		}
	}, func(c *app.Config) { c.RegisterLimit = throttle.Limit{Each: 10, All: 1000, Per: day} })
}

// R418: what fails too often at the endpoints for programs is told to wait; what does
// not fail is answered, from the same address too, and honest waiting is no failure.
func TestFailuresAreLimitedAndNothingElse(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b, client, device := h.person(), h.hosted("Claude"), h.screenless()
		tokens := h.allowed(b, client, "always", with("redirect_uri", web))
		d := h.device(device, nil)
		for range 20 {
			h.patient()
			if a := h.poll(device, d.DeviceCode); a.Error() != oauth.AuthorizationPending {
				t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
		}
		for i, send := range []func() apptest.Answer{
			func() apptest.Answer { return h.Refresh(client, "rt_x") },
			func() apptest.Answer { return h.Redeem(client, "code_x", oauth.NewVerifier(), nil) },
			func() apptest.Answer { return h.Form("/oauth/token", with("grant_type", "password", "client_id", "x")) },
			func() apptest.Answer { return h.Form("/oauth/revoke", with("token", "x", "client_id", "x")) },
			func() apptest.Answer { return h.poll(device, "dev_x") },
		} {
			for j := range 2 {
				if a := send(); a.StatusCode == http.StatusTooManyRequests {
					t.Errorf("%d, %d: %s", i, j, a.Text)
				}
			}
		}
		for range 10 {
			limited(t, h.Refresh(client, "rt_x"))
		}
		limited(t, h.Form("/oauth/token", url.Values{}))
		tokens = h.refresh(client, tokens.RefreshToken) // at the same address
		if !h.works(tokens.AccessToken) {
			t.Error("an honest one does not go on")
		}
		h.patient()
		refused(t, h.poll(device, d.DeviceCode), oauth.AuthorizationPending)
		h.silent(b, client, with("redirect_uri", web))
	}, func(c *app.Config) { c.FailureLimit = throttle.Limit{Each: 10, Per: day} })
}
