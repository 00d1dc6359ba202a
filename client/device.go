package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// anywhere stands in the registration of a program to which no browser comes back;
// some servers want an address all the same.
const anywhere = "http://127.0.0.1/callback"

// Waits between two polls (RFC 8628 §3.2, §3.5).
const (
	devicePause = 5 * time.Second // where the server names none; and so much more when it says slow down
	deviceMost  = 30 * time.Minute
)

// ErrNoDevice is the reason of LoginDevice where the server offers no sign-in for
// devices: a browser on this computer is needed.
var ErrNoDevice = errors.New("the server offers no sign-in from another device")

// A DeviceCode is what a person needs who signs in on another device.
type DeviceCode struct {
	URL      string // to open there
	Code     string // to type there
	Complete string // URL with the code filled in; may be empty
	Expires  time.Time
}

// LoginDevice signs in where no browser can be opened, over SSH for instance (RFC
// 8628): show is given an address and a code, a person opens the one on any device
// and types the other, and meanwhile this waits. Of the options it uses Step, Scope,
// ClientID, ClientSecret, ClientIssuer, Demand and Timeout.
func (c *Client) LoginDevice(ctx context.Context, server string, o LoginOptions, show func(DeviceCode)) (Login, error) {
	server, err := ServerURL(server)
	if err != nil {
		return Login{}, err
	}
	if o.Step == nil {
		o.Step = func(string, string) {}
	}
	s, err := c.discover(ctx, server, o.Demand)
	if err != nil {
		return Login{}, err
	}
	o.Step("discover", s.as.Issuer)
	if s.as.DeviceEndpoint == "" {
		return Login{}, signInFailed.fail("can't sign in to %s from another device", server).because(ErrNoDevice).
			fix("sign in on a computer with a browser")
	}
	if s.offline(); o.Scope != "" {
		s.scope = o.Scope
	}
	l, err := c.byDevice(ctx, s, o, show)
	if err != nil {
		c.forgetDevice(ctx, s.as.Issuer, err)
		return Login{}, err
	}
	return l.public(server), nil
}

func (c *Client) byDevice(ctx context.Context, s *site, o LoginOptions, show func(DeviceCode)) (login, error) {
	cr, err := c.load()
	if err != nil {
		return login{}, err
	}
	as, err := c.client(ctx, s, cr.Devices[s.as.Issuer], o, "", deviceGrant, "refresh_token")
	if err != nil {
		return login{}, err
	}
	o.Step("register", as.ClientID)
	d := &device{c: c, site: s, as: as, sleep: sleep}
	if err := d.start(ctx); err != nil {
		return login{}, err
	}
	if o.Timeout > 0 && time.Until(d.expires) > o.Timeout {
		d.expires = time.Now().Add(o.Timeout)
	}
	show(DeviceCode{URL: d.got.VerificationURI, Code: d.got.UserCode, Complete: d.got.VerificationURIComplete, Expires: d.expires})
	l, err := d.poll(ctx)
	if err != nil {
		return login{}, err
	}
	o.Step("exchange", hint(l.AccessToken))
	return l, c.change(ctx, func(cr *credentials) error {
		if o.ClientID == "" {
			cr.Devices[s.as.Issuer] = as
		}
		return nil
	})
}

// forgetDevice drops the registration that a failed sign-in used; see forget.
func (c *Client) forgetDevice(ctx context.Context, issuer string, why error) {
	var no *refusal
	if errors.As(why, &no) && (no.Code == oauth.AccessDenied || no.Code == oauth.ExpiredToken) {
		return
	}
	_ = c.change(context.WithoutCancel(ctx), func(cr *credentials) error { // the login's own error is what matters
		delete(cr.Devices, issuer)
		return nil
	})
}

// device is one sign-in from another device.
type device struct {
	c       *Client
	site    *site
	as      registration
	got     oauth.DeviceResponse
	expires time.Time
	sleep   func(context.Context, time.Duration) error
}

// start asks for the codes. What the person is shown is text of the server's: an
// address of any other kind than the issuer may have is refused.
func (d *device) start(ctx context.Context) error {
	form := url.Values{"resource": {d.site.resource}}
	if d.site.scope != "" {
		form.Set("scope", d.site.scope)
	}
	a, err := d.c.postForm(ctx, d.site.as.DeviceEndpoint, d.as, form)
	if err != nil {
		return err
	}
	cannot := signInFailed.fail("not signed in to %s", d.site.server)
	if a.status != http.StatusOK {
		return cannot.because(a.refused("begin", d.site.as.DeviceEndpoint))
	}
	u, _ := url.Parse(d.site.server) // it came out of ServerURL
	if err := a.decode(&d.got); err != nil || d.got.DeviceCode == "" || d.got.UserCode == "" {
		return unreadable.fail("not signed in to %s", d.site.server).why("%s did not answer with a code", d.site.as.DeviceEndpoint)
	}
	for _, address := range []string{d.got.VerificationURI, d.got.VerificationURIComplete} {
		if _, err := safeURL(address, isLoopback(u)); err != nil && (address != "" || address == d.got.VerificationURI) {
			return notTrusted.fail("not signed in to %s", d.site.server).why("its page for codes %q is no safe address: %v", address, err)
		}
	}
	d.got.UserCode = clean(d.got.UserCode)
	d.expires = time.Now().Add(seconds(max(d.got.ExpiresIn, 1), deviceMost))
	return nil
}

// poll asks until the person has decided. A server that cannot be reached for a
// while is asked again, less often.
func (d *device) poll(ctx context.Context) (login, error) {
	pause := devicePause
	if d.got.Interval > 0 {
		pause = seconds(d.got.Interval, deviceMost)
	}
	cannot := signInFailed.fail("not signed in to %s", d.site.server)
	for {
		if err := d.sleep(ctx, min(pause, deviceMost)); err != nil {
			return login{}, cannot.because(err)
		}
		l, err := d.c.obtain(ctx, d.site, d.as, url.Values{"grant_type": {deviceGrant}, "device_code": {d.got.DeviceCode}})
		var no *refusal
		switch {
		case err == nil:
			return l, nil
		case errors.As(err, &no) && no.Code == oauth.AuthorizationPending:
		case errors.As(err, &no) && no.Code == oauth.SlowDown:
			pause += devicePause
		case errors.As(err, &no) && no.Code == oauth.AccessDenied:
			return login{}, notAllowed.fail("not signed in to %s", d.site.server).because(no).why("you did not allow it").fix("gatehouse login %s", d.site.server)
		case errors.As(err, &no) && no.Code == oauth.ExpiredToken:
			return login{}, cannot.because(no).why("the code has expired")
		case errors.Is(err, ErrUnreachable) && ctx.Err() == nil:
			pause *= 2
		case no != nil:
			return login{}, cannot.because(no)
		default:
			return login{}, err
		}
		if time.Now().Add(pause).After(d.expires) {
			return login{}, cannot.because(&refusal{Code: oauth.ExpiredToken}).why("nobody has typed the code in time")
		}
	}
}

// seconds is a time that a server names, or the most that it may.
func seconds(n int64, most time.Duration) time.Duration {
	return time.Duration(min(n, int64(most/time.Second))) * time.Second
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
