package attacks_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Attack 121: the code that a device shows, and the one that it keeps.
func TestDevice(t *testing.T) { attack(t, deviceRows()) }

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// device registers a client for devices and starts one.
func (w *world) device() (party, oauth.DeviceResponse) {
	w.t.Helper()
	p := w.registered(`{"client_name":"Device","redirect_uris":["http://127.0.0.1/cb"],"grant_types":["authorization_code","refresh_token","` + deviceGrant + `"]}`)
	return p, w.started(p)
}

func (w *world) started(p party) (d oauth.DeviceResponse) {
	w.t.Helper()
	if w.Form("/oauth/device", with("client_id", p.id)).JSON(w.t, &d); d.DeviceCode == "" {
		w.t.Fatal("no device code")
	}
	w.keep("the device code", d.DeviceCode)
	return d
}

func (w *world) polling(p party, code string) *http.Request {
	return w.form("/oauth/token", with("grant_type", deviceGrant, "client_id", p.id, "device_code", code))
}

// typed sends the code as the page does.
func (w *world) typed(b *apptest.Browser, code string) apptest.Answer {
	w.t.Helper()
	form := apptest.Fields(b.Open("/device").Text)
	form.Set("user_code", code)
	return b.Submit("/device/code", form)
}

// approved is what the person in front of b says yes to.
func (w *world) approved(b *apptest.Browser, code string) {
	w.t.Helper()
	form := apptest.Fields(w.typed(b, code).Text)
	for name, value := range map[string]string{"decision": "allow", "started": "yes", "keep": "month"} {
		form.Set(name, value)
	}
	if a := b.Submit("/consent", form); !strings.Contains(a.Text, "go back to your device") {
		w.t.Fatalf("not allowed: %d %s", a.StatusCode, a.Text)
	}
}

func deviceRows() []row {
	return []row{
		{number: 121, name: "polling too fast", story: func(w *world) {
			p, d := w.device()
			if a := w.Do(w.polling(p, d.DeviceCode)); a.Error() != oauth.AuthorizationPending {
				w.t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			w.refusedWhatever(token(oauth.SlowDown, ""), w.polling(p, d.DeviceCode))
		}},
		{number: 121, name: "another client's device code", story: func(w *world) {
			p, d := w.device()
			thief, _ := w.device()
			w.approved(w.alice, d.UserCode)
			w.refused(token(oauth.InvalidGrant, "it was made for another client"), w.polling(thief, d.DeviceCode))
			w.works(w.polling(p, d.DeviceCode))
		}},
		{number: 40, name: "a device code as refresh token, bearer and code", story: func(w *world) {
			p, d := w.device()
			w.approved(w.alice, d.UserCode)
			w.refused(token(oauth.InvalidGrant, "it does not have the form of one"), w.refreshing(p, d.DeviceCode, nil))
			w.refused(token(oauth.InvalidGrant, "it does not have the form of a code"), w.redemption(p, d.DeviceCode, oauth.NewVerifier(), nil))
			if a := w.Do(w.list("/mcp", d.DeviceCode)); a.StatusCode != http.StatusUnauthorized {
				w.t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			w.counted["bearer token refused: the token is too long or no JWT"]++
			w.works(w.polling(p, d.DeviceCode))
		}},
		{number: 121, name: "∥ one device code", story: func(w *world) {
			p, d := w.device()
			w.approved(w.alice, d.UserCode)
			won := 0
			for _, a := range apptest.Together(64, func(i int) apptest.Answer { return w.at(i, w.polling(p, d.DeviceCode)) }) {
				switch {
				case a.StatusCode == http.StatusOK:
					won++
					w.granted(a)
				case a.Error() != oauth.InvalidGrant:
					w.t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			}
			if won != 1 {
				w.t.Errorf("%d got tokens", won)
			}
			w.counted["/oauth/token refused: invalid_grant, it was used before"] += 62 // one replay has the event, the rest changed nothing
		}},
		{number: 121, name: "a link with the code, opened with a session, and its form from elsewhere", story: func(w *world) {
			p, d := w.device()
			before := w.traces()
			a := w.alice.Open(strings.TrimPrefix(d.VerificationURIComplete, w.URL))
			if a.Request.URL.Path != "/device" || apptest.Fields(a.Text).Get("user_code") != d.UserCode {
				w.t.Errorf("at %s %s", a.Request.URL, a.Text)
			}
			r := w.form("/device/code", url.Values{"user_code": {d.UserCode}, "csrf": {apptest.Fields(a.Text).Get("csrf")}}, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
			for name, value := range w.alice.Cookies {
				r.AddCookie(&http.Cookie{Name: name, Value: value})
			}
			if a := w.Do(r); a.StatusCode != http.StatusForbidden {
				w.t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			w.counted["POST /device/code refused: FORM_FOREIGN"]++
			if after := w.traces(); after != before {
				w.t.Errorf("%s\nwas\n%s", after, before)
			}
			if a := w.Do(w.polling(p, d.DeviceCode)); a.Error() != oauth.AuthorizationPending {
				w.t.Errorf("it is answered: %d %s", a.StatusCode, a.Text)
			}
			if a := w.typed(w.alice, d.UserCode); apptest.Fields(a.Text).Get("request") == "" { // the twin: still a question
				w.t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}},
		{number: 121, name: "guessing codes", story: func(w *world) {
			h := w.narrow()
			b := h.Browser()
			form := apptest.Fields(b.Open("/device").Text)
			n := w.past(40, func(i int) apptest.Answer {
				form.Set("user_code", "BBBB-BBB"+"BCDFGHJKLMNPQRSTVWXZ"[i%20:i%20+1])
				r := h.Request(http.MethodPost, "/device/code", form.Encode(), "Content-Type: application/x-www-form-urlencoded", "X-Forwarded-For: 192.0.2."+"123456789"[i%9:i%9+1], "Origin: "+h.URL)
				for name, value := range b.Cookies {
					r.AddCookie(&http.Cookie{Name: name, Value: value})
				}
				return h.Do(r)
			})
			if n != 20 {
				w.t.Errorf("%d of 40 guesses were answered", n)
			}
		}},
	}
}
