package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// deviced makes the fake offer the device grant. Each poll is answered with the next
// error of the list, and then with tokens.
func deviced(f *fake, d oauth.DeviceResponse, answers ...string) {
	f.as.DeviceEndpoint = f.URL + "/device_authorization"
	f.override["/device_authorization"] = func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.forms["/device_authorization"] = r.PostForm
		writeJSON(w, 200, d)
	}
	f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.forms["/token"] = r.PostForm
		switch {
		case len(answers) == 0:
			writeJSON(w, 200, oauth.TokenResponse{AccessToken: "access-of-a-device", TokenType: "Bearer", ExpiresIn: 3600, RefreshToken: "refresh-of-a-device"})
		case answers[0] == "":
			w.WriteHeader(http.StatusBadGateway)
		default:
			writeJSON(w, 400, oauth.ErrorResponse{Error: answers[0]})
		}
		answers = answers[min(1, len(answers)):]
	}
}

func codes(f *fake) oauth.DeviceResponse {
	return oauth.DeviceResponse{
		DeviceCode: "device-code", UserCode: "WDJB-MJHT", VerificationURI: f.URL + "/device", VerificationURIComplete: f.URL + "/device?user_code=WDJB-MJHT", ExpiresIn: 900, Interval: 1,
	}
}

// R914: the person is shown what to open and type, the rest is asked for until there
// are tokens, and they are for this server only.
func TestLoginFromAnotherDevice(t *testing.T) {
	f, c := newFake(t), newClient(t)
	deviced(f, codes(f), oauth.AuthorizationPending)
	for range 2 {
		var shown DeviceCode
		got, err := c.LoginDevice(short(t), f.server(), LoginOptions{}, func(d DeviceCode) { shown = d })
		if err != nil {
			t.Fatal(err)
		}
		if got.Issuer != f.URL || got.ClientID != "client-1" || got.Resource != f.server() || !got.Renews {
			t.Errorf("signed in as %+v", got)
		}
		if shown.Code != "WDJB-MJHT" || shown.URL != f.URL+"/device" || shown.Complete != f.URL+"/device?user_code=WDJB-MJHT" || time.Until(shown.Expires) > 15*time.Minute || time.Until(shown.Expires) < 14*time.Minute {
			t.Errorf("shown %+v", shown)
		}
	}
	if f.count("POST /register") != 1 || !slices.Equal(f.register.GrantTypes, []string{deviceGrant, "refresh_token"}) || len(f.register.RedirectURIs) != 1 {
		t.Errorf("registered %d times as %+v", f.count("POST /register"), f.register)
	}
	for path, want := range map[string]url.Values{
		"/device_authorization": {"client_id": {"client-1"}, "resource": {f.server()}, "scope": {"mcp:tools"}},
		"/token":                {"client_id": {"client-1"}, "resource": {f.server()}, "grant_type": {deviceGrant}, "device_code": {"device-code"}},
	} {
		if got := f.forms[path].Encode(); got != want.Encode() {
			t.Errorf("%s got %s", path, got)
		}
	}
	if logins, err := c.Logins(); err != nil || len(logins) != 1 {
		t.Error(logins, err)
	}
}

// RFC 8628 §3.5: slower when told so, and when nobody answers; and what ends it.
func TestPollingADevice(t *testing.T) {
	for name, row := range map[string]struct {
		interval int64
		answers  []string
		pauses   []time.Duration
		code     string
		why      string
	}{
		"pending":                  {2, []string{oauth.AuthorizationPending, oauth.AuthorizationPending}, []time.Duration{2, 2, 2}, "", ""},
		"no interval":              {0, []string{oauth.AuthorizationPending}, []time.Duration{5, 5}, "", ""},
		"an interval of less":      {-1, []string{oauth.AuthorizationPending}, []time.Duration{5, 5}, "", ""},
		"an interval of ages":      {1 << 40, nil, []time.Duration{1800}, "", ""},
		"slow down, for good":      {5, []string{oauth.SlowDown, oauth.AuthorizationPending, oauth.SlowDown}, []time.Duration{5, 10, 10, 15}, "", ""},
		"the server is restarting": {5, []string{"", "", oauth.AuthorizationPending}, []time.Duration{5, 10, 20, 20}, "", ""},
		"the person says no":       {5, []string{oauth.AccessDenied}, []time.Duration{5}, "SIGN_IN_NOT_ALLOWED", "you did not allow it"},
		"the code has expired":     {5, []string{oauth.ExpiredToken}, []time.Duration{5}, "SIGN_IN_FAILED", "the code has expired"},
		"the code is no good":      {5, []string{oauth.InvalidGrant}, []time.Duration{5}, "SIGN_IN_FAILED", "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newFake(t), newClient(t)
			answer := codes(f)
			answer.Interval = row.interval
			deviced(f, answer, row.answers...)
			s, err := c.discover(short(t), f.server(), Demand{})
			if err != nil {
				t.Fatal(err)
			}
			var pauses []time.Duration
			d := &device{c: c, site: s, as: registration{ClientID: "client-1"}, sleep: func(_ context.Context, d time.Duration) error {
				pauses = append(pauses, d/time.Second)
				return nil
			}}
			if err := d.start(short(t)); err != nil {
				t.Fatal(err)
			}
			l, err := d.poll(short(t))
			var e *Error
			if row.code == "" && (err != nil || l.AccessToken != "access-of-a-device") || row.code != "" && (!errors.As(err, &e) || e.Code != row.code || !strings.Contains(e.Why, row.why)) {
				t.Errorf("%+v, %v", l, err)
			}
			if !slices.Equal(pauses, row.pauses) {
				t.Errorf("paused %d", pauses)
			}
		})
	}
}

// What a server shows through us is harmless, and is not its choice alone: nothing
// that the person is told leads to a page that is none.
func TestDeviceAnswersAreJudged(t *testing.T) {
	for name, spoil := range map[string]func(f *fake, d *oauth.DeviceResponse){
		"no code":            func(_ *fake, d *oauth.DeviceResponse) { d.UserCode = "" },
		"no device code":     func(_ *fake, d *oauth.DeviceResponse) { d.DeviceCode = "" },
		"no address":         func(_ *fake, d *oauth.DeviceResponse) { d.VerificationURI = "" },
		"a script":           func(_ *fake, d *oauth.DeviceResponse) { d.VerificationURI = "javascript:alert(1)" },
		"a script, complete": func(_ *fake, d *oauth.DeviceResponse) { d.VerificationURIComplete = "javascript:alert(1)" },
		"plain http":         func(_ *fake, d *oauth.DeviceResponse) { d.VerificationURI = "http://evil.example/device" },
		"endpoint elsewhere": func(f *fake, _ *oauth.DeviceResponse) { f.as.DeviceEndpoint = "https://evil.example/device" },
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newFake(t), newClient(t)
			d := codes(f)
			deviced(f, d)
			spoil(f, &d)
			at := f.as.DeviceEndpoint
			deviced(f, d)
			f.as.DeviceEndpoint = at
			_, err := c.LoginDevice(short(t), f.server(), LoginOptions{}, func(DeviceCode) { t.Error("it is shown") })
			if err == nil || f.count("POST /token") > 0 {
				t.Errorf("%v", err)
			}
		})
	}
	f, c := newFake(t), newClient(t)
	d := codes(f)
	d.UserCode, d.ExpiresIn = "AB\x1b[31mCD\r\n", 1<<40
	deviced(f, d)
	var shown DeviceCode
	if _, err := c.LoginDevice(short(t), f.server(), LoginOptions{}, func(d DeviceCode) { shown = d }); err != nil || shown.Code != "AB[31mCD" || time.Until(shown.Expires) > deviceMost || time.Until(shown.Expires) < deviceMost-time.Minute {
		t.Errorf("%q until %v, %v", shown.Code, shown.Expires, err)
	}
}

// A server without the grant is told from one where it failed, so that a program can
// go on otherwise.
func TestDeviceGrantMayBeMissing(t *testing.T) {
	f, c := newFake(t), newClient(t)
	if _, err := c.LoginDevice(short(t), f.server(), LoginOptions{}, nil); !errors.Is(err, ErrNoDevice) || !errors.Is(err, ErrAuthentication) || f.count("POST /register") > 0 {
		t.Error(err)
	}
}
