package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// loginTime is how long a person may take in the browser.
const loginTime = 10 * time.Minute

// LoginOptions say how the person is reached.
type LoginOptions struct {
	// Announce is given the address to open, so that it can be shown in full.
	Announce func(url string)
	// Open sends a browser there, OpenBrowser for instance; nil leaves that to
	// the person. That it fails does not end the login: the address has been
	// announced.
	Open func(url string) error
	// Step is told what has been done: "discover", "register", "authorize" or
	// "exchange", and about what. May be nil.
	Step func(name, about string)
	// Scope replaces what the server suggests to ask for, space separated.
	Scope string
	// ClientID is that of an app registered by hand, with its secret if it has
	// one; empty stands for Options.Document where the server takes it, else for
	// an app that is registered now.
	ClientID     string
	ClientSecret string
	// ClientIssuer is App.Issuer of that app.
	ClientIssuer string
	// Demand is what Options.SignIn was called with; the zero value asks the
	// server what it demands.
	Demand Demand
	// Timeout is how long the person may take; ten minutes if zero.
	Timeout time.Duration
}

// Login signs in to a server: it finds the authorization server, registers
// unless that was done before, waits for the person and the browser, and
// stores the tokens. It needs a free port on 127.0.0.1.
func (c *Client) Login(ctx context.Context, server string, o LoginOptions) (Login, error) {
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
	if err := s.checkBrowser(); err != nil {
		return Login{}, err
	}
	o.Step("discover", s.as.Issuer)
	if s.offline(); o.Scope != "" {
		s.scope = o.Scope
	}
	l, err := c.authorize(ctx, s, o)
	if err != nil {
		c.forget(ctx, s.as.Issuer, err)
		return Login{}, err
	}
	return l.public(server), nil
}

// forget drops the registration a failed login used, so the next login
// starts from nothing: a server that no longer knows us shows a page and
// sends nobody back. A person's no says nothing about the registration.
func (c *Client) forget(ctx context.Context, issuer string, why error) {
	var no *refusal
	if errors.As(why, &no) && no.Code == oauth.AccessDenied {
		return
	}
	_ = c.change(context.WithoutCancel(ctx), func(cr *credentials) error { // the login's own error is what matters
		delete(cr.Clients, issuer)
		return nil
	})
}

// attempt is one way through the browser. What it remembers is compared with
// what comes back.
type attempt struct {
	c        *Client
	site     *site
	as       registration
	state    string
	verifier string
	step     func(name, about string)
	login    login
}

func (c *Client) authorize(ctx context.Context, s *site, o LoginOptions) (login, error) {
	cr, err := c.load()
	if err != nil {
		return login{}, err
	}
	known := cr.Clients[s.as.Issuer]
	back, err := listen(known.RedirectURI)
	if err != nil {
		return login{}, signInFailed.fail("can't wait for the browser").because(err)
	}
	defer back.close()
	as, err := c.client(ctx, s, known, o, back.redirect(), "authorization_code", "refresh_token")
	if err != nil {
		return login{}, err
	}
	o.Step("register", as.ClientID)
	a := &attempt{c: c, site: s, as: as, state: rand.Text() + rand.Text(), verifier: oauth.NewVerifier(), step: o.Step}
	if o.Timeout == 0 {
		o.Timeout = loginTime
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	result := back.serve(a.state, s.title(), func(q url.Values) error { return a.finish(ctx, q) })
	address, err := a.address(ctx)
	if err != nil {
		return login{}, err
	}
	send(address, o)
	select {
	case err := <-result:
		return a.login, err
	case <-ctx.Done():
		return login{}, signInFailed.fail("not signed in to %s", s.server).because(ctx.Err())
	}
}

func send(address string, o LoginOptions) {
	if o.Announce != nil {
		o.Announce(address)
	}
	if o.Open != nil {
		_ = o.Open(address) // the person has the address
	}
}

// title is how the site is called in front of people.
func (s *site) title() string {
	u, err := url.Parse(s.server)
	if err != nil {
		return s.server
	}
	return u.Host
}

// client is who we are at the issuer, in the order of MCP 2025-11-25 "Client
// Registration Approaches": by hand, by the document that describes us, as
// registered before for the same redirect, or newly registered (RFC 7591) for
// grants.
func (c *Client) client(ctx context.Context, s *site, known registration, o LoginOptions, redirect string, grants ...string) (registration, error) {
	switch {
	case o.ClientID != "":
		if err := s.checkApp(o.ClientIssuer); err != nil {
			return registration{}, err
		}
		return App{ID: o.ClientID, Secret: o.ClientSecret}.at(s.as, redirect), nil
	case s.as.ClientDocuments && c.opts.Document != "":
		return registration{ClientID: c.opts.Document, RedirectURI: redirect}, nil
	case known.ClientID != "" && known.RedirectURI == redirect:
		return known, nil
	case s.as.RegistrationEndpoint == "":
		return registration{}, cannotRegister.fail("can't register with %s", s.as.Issuer)
	}
	method := askFor(s.as)
	body, err := json.Marshal(oauth.Registration{
		ClientName: c.opts.Name, RedirectURIs: []string{cmp.Or(redirect, anywhere)}, ApplicationType: "native",
		GrantTypes: grants, ResponseTypes: []string{"code"}, TokenAuthMethod: method, Scope: s.scope,
	})
	if err != nil {
		return registration{}, err
	}
	h := jsonHeader()
	h.Set("Content-Type", "application/json")
	a, err := c.fetch(ctx, http.MethodPost, s.as.RegistrationEndpoint, h, string(body))
	if err != nil {
		return registration{}, err
	}
	return a.registered(s.as, method, redirect)
}

// registered reads the answer of a registration endpoint; some say 200 where
// RFC 7591 says 201 (C02), and some do not repeat the method.
func (a answer) registered(as oauth.ServerMetadata, method, redirect string) (registration, error) {
	if a.status != http.StatusCreated && a.status != http.StatusOK {
		err := a.refused("register", as.RegistrationEndpoint)
		return registration{}, cannotRegister.fail("can't register with %s", as.Issuer).because(err)
	}
	var r oauth.Registration
	if err := a.decode(&r); err != nil || r.ClientID == "" {
		return registration{}, unreadable.fail("can't register with %s", as.Issuer).why("the answer has no client_id")
	}
	if method == public && r.ClientSecret != "" && !slices.Contains(as.TokenAuthMethods, public) {
		method = secretBasic // it was given for something (RFC 7591 §2)
	}
	return registration{ClientID: r.ClientID, Secret: r.ClientSecret, AuthMethod: cmp.Or(r.TokenAuthMethod, method), RedirectURI: redirect}, nil
}

// address is where the person decides. Where the issuer wants the request from us
// and not from the browser, it has been pushed, and the address names it (RFC 9126).
func (a *attempt) address(ctx context.Context) (string, error) {
	asked := url.Values{}
	for name, value := range map[string]string{
		"response_type": "code", "client_id": a.as.ClientID, "redirect_uri": a.as.RedirectURI, "state": a.state,
		"code_challenge": oauth.Challenge(a.verifier), "code_challenge_method": "S256", "resource": a.site.resource, "scope": a.site.scope,
	} {
		if value != "" {
			asked.Set(name, value)
		}
	}
	if a.site.as.PushedOnly {
		var err error
		if asked, err = a.push(ctx, asked); err != nil {
			return "", err
		}
	}
	u, _ := url.Parse(a.site.as.AuthorizationEndpoint) // checkBrowser has read it
	q := u.Query()
	maps.Copy(q, asked)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// push hands the issuer what is asked, and gives what the browser takes there in its
// place.
func (a *attempt) push(ctx context.Context, asked url.Values) (url.Values, error) {
	cannot := signInFailed.fail("not signed in to %s", a.site.server)
	endpoint := a.site.as.PushedEndpoint
	if endpoint == "" {
		return nil, cannot.why("%s takes pushed requests alone, and does not say where", a.site.as.Issuer)
	}
	got, err := a.c.postForm(ctx, endpoint, a.as, asked)
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusCreated && got.status != http.StatusOK {
		return nil, cannot.because(got.refused("begin", endpoint))
	}
	var pushed oauth.PushedResponse
	if err := got.decode(&pushed); err != nil || pushed.RequestURI == "" {
		return nil, unreadable.fail("not signed in to %s", a.site.server).why("%s did not answer with a request_uri", endpoint)
	}
	return url.Values{"client_id": {a.as.ClientID}, "request_uri": {pushed.RequestURI}}, nil
}

// finish takes what the browser brought back. The issuer is compared before
// anything is sent anywhere, also when the answer is an error (RFC 9207).
func (a *attempt) finish(ctx context.Context, q url.Values) error {
	cannot := signInFailed.fail("not signed in to %s", a.site.server)
	if err := a.checkIssuer(q); err != nil {
		return notTrusted.fail("not signed in to %s", a.site.server).why("%v", err)
	}
	if q.Get("error") == oauth.AccessDenied {
		return notAllowed.fail("not signed in to %s", a.site.server).because(&refusal{Code: oauth.AccessDenied}).
			why("you did not allow it").fix("gatehouse login %s", a.site.server)
	}
	if code := q.Get("error"); code != "" {
		return cannot.because(&refusal{Code: code, Description: q.Get("error_description")})
	}
	if q.Get("code") == "" {
		return cannot.why("the browser brought no code")
	}
	a.step("authorize", a.site.scope)
	if err := a.exchange(ctx, q.Get("code")); err != nil {
		var no *refusal
		if errors.As(err, &no) {
			return cannot.because(no)
		}
		return err
	}
	a.step("exchange", hint(a.login.AccessToken))
	return nil
}

// checkIssuer keeps a code that another server issued from being sent to this
// one, and the other way round.
func (a *attempt) checkIssuer(q url.Values) error {
	iss, given := q["iss"]
	switch {
	case len(iss) > 1 || given && subtle.ConstantTimeCompare([]byte(iss[0]), []byte(a.site.as.Issuer)) != 1:
		return fmt.Errorf("the browser came back from %q instead of %q", clean(strings.Join(iss, " ")), a.site.as.Issuer)
	case !given && a.site.as.IssParameter:
		return fmt.Errorf("the browser came back without the name of the issuer, which %s promised", a.site.as.Issuer)
	}
	return nil
}

// exchange trades the code for tokens and stores them.
func (a *attempt) exchange(ctx context.Context, code string) (err error) {
	a.login, err = a.c.obtain(ctx, a.site, a.as, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.as.RedirectURI}, "code_verifier": {a.verifier},
	})
	return err
}

// obtain trades a grant for tokens and stores them with the client they belong
// to. A client without a redirect is that of a program, and given each time.
func (c *Client) obtain(ctx context.Context, s *site, as registration, grant url.Values) (login, error) {
	l := login{
		Issuer: s.as.Issuer, TokenEndpoint: s.as.TokenEndpoint, RevocationEndpoint: s.as.RevocationEndpoint,
		Resource: s.resource, Client: as, Scope: s.scope,
	}
	if s.bound {
		var err error
		if l.Key, err = newKey(); err != nil {
			return login{}, err
		}
	}
	got, err := c.redeem(ctx, l, grant)
	if err != nil {
		return login{}, err
	}
	l.take(got)
	return l, c.change(ctx, func(cr *credentials) error {
		if as.RedirectURI != "" {
			cr.Clients[l.Issuer] = as
		}
		cr.Logins[s.server] = l
		return nil
	})
}
