package client

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// How a client proves at the token endpoint who it is (RFC 7591 §2).
const (
	secretBasic   = "client_secret_basic"
	secretPost    = "client_secret_post"
	privateKeyJWT = "private_key_jwt"
	public        = "none"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// App is a program that is known to an issuer by itself, registered there by
// hand. It has a secret, or better a key.
type App struct {
	ID     string
	Secret string
	// Issuer is the one it is registered with. Where a server names another, nothing
	// is shown to that one. Empty believes the server.
	Issuer string
	// Key signs (private_key_jwt, RFC 7523): *ecdsa.PrivateKey,
	// ed25519.PrivateKey or *rsa.PrivateKey. It is never stored.
	Key   crypto.Signer
	KeyID string // by which the issuer finds the public key; may be empty
}

// at is the app as it shows itself to one issuer: with its key, or with its
// secret in the way the issuer takes it. An issuer that does not say takes
// client_secret_basic (RFC 8414 §2).
func (a App) at(as oauth.ServerMetadata, redirect string) registration {
	r := registration{ClientID: a.ID, Secret: a.Secret, RedirectURI: redirect, AuthMethod: public}
	switch {
	case a.Key != nil:
		r.Secret, r.AuthMethod, r.key, r.keyID, r.audience = "", privateKeyJWT, a.Key, a.KeyID, as.Issuer
	case a.Secret != "" && !slices.Contains(as.TokenAuthMethods, secretBasic) && slices.Contains(as.TokenAuthMethods, secretPost):
		r.AuthMethod = secretPost
	case a.Secret != "":
		r.AuthMethod = secretBasic
	}
	return r
}

// askFor is the method to register with: none, since a program on a person's
// computer keeps no secret, unless the issuer wants one.
func askFor(as oauth.ServerMetadata) string {
	if len(as.TokenAuthMethods) > 0 {
		for _, method := range []string{public, secretBasic, secretPost} {
			if slices.Contains(as.TokenAuthMethods, method) {
				return method
			}
		}
	}
	return public
}

// assertionTime is how long an assertion is good for.
const assertionTime = time.Minute

// assertion is a JWT that says who the client is, once and to this issuer only
// (RFC 7523 §3; its audience is the issuer, so that no other server can use it).
func (r registration) assertion() (string, error) {
	cannot := signInFailed.fail("can't prove who %s is", r.ClientID)
	if r.key == nil {
		return "", cannot.why("its key is not at hand")
	}
	alg, err := algorithm(r.key)
	if err != nil {
		return "", cannot.because(err)
	}
	o := (&jose.SignerOptions{}).WithType("JWT")
	if r.keyID != "" {
		o = o.WithHeader("kid", r.keyID)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: r.key}, o)
	if err != nil {
		return "", cannot.because(err)
	}
	now := time.Now()
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: r.ClientID, Subject: r.ClientID, Audience: jwt.Audience{r.audience}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(assertionTime)),
	}).Serialize()
	if err != nil {
		return "", cannot.because(err)
	}
	return token, nil
}

func algorithm(key crypto.Signer) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	case *rsa.PrivateKey:
		return jose.RS256, nil
	case *ecdsa.PrivateKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return jose.ES256, nil
		case 384:
			return jose.ES384, nil
		case 521:
			return jose.ES512, nil
		}
	}
	return "", fmt.Errorf("a key of type %T cannot sign here", key)
}

// LoginAsApp signs in as the program itself, for no person (client credentials,
// RFC 6749 §4.4; MCP extension oauth-client-credentials). d is the demand that
// Options.SignIn was called with, or the zero value, perhaps with a Scope. There
// is no refresh token: when the access token runs out, sign in again.
func (c *Client) LoginAsApp(ctx context.Context, server string, app App, d Demand) (Login, error) {
	return c.loginAs(ctx, server, app, d, func(*site) (url.Values, error) {
		return url.Values{"grant_type": {"client_credentials"}}, nil
	})
}

// LoginByAssertion signs in with a signed statement of somebody the issuer trusts
// (JWT bearer, RFC 7523 §2.1), such as the identity of a workload that its
// platform gives it. It is tried once. For d see LoginAsApp.
func (c *Client) LoginByAssertion(ctx context.Context, server string, app App, assertion string, d Demand) (Login, error) {
	return c.loginAs(ctx, server, app, d, func(*site) (url.Values, error) { return byAssertion(assertion), nil })
}

// checkApp keeps what an app proves itself with at its issuer, if that is known: a
// server can name any (MCP 2026-07-28, SEP-2352).
func (s *site) checkApp(issuer string) error {
	if issuer == "" || issuer == s.as.Issuer {
		return nil
	}
	return notTrusted.fail("can't sign in to %s", s.server).why("its issuer is %q, and the app is registered with %q", s.as.Issuer, issuer)
}

func byAssertion(assertion string) url.Values {
	return url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
}

// Enterprise is a sign-in at an organisation's identity provider, which vouches
// for the person to other servers.
type Enterprise struct {
	Issuer string // of the identity provider
	App    App    // the program, as the identity provider knows it
	// SubjectToken is what the identity provider gave the program for the person:
	// an ID token, unless SubjectTokenType says otherwise (RFC 8693 §3).
	SubjectToken     string
	SubjectTokenType string
}

const (
	idToken = "urn:ietf:params:oauth:token-type:id_token"
	idJAG   = "urn:ietf:params:oauth:token-type:id-jag"
)

// LoginByEnterprise signs in for a person without asking them again: the identity
// provider exchanges its token for an assertion that is good for this server's
// issuer and this server only, and the issuer takes that (MCP extension
// enterprise-managed-authorization; RFC 8693, RFC 7523). app is the program as
// the issuer knows it. For d see LoginAsApp.
func (c *Client) LoginByEnterprise(ctx context.Context, server string, app App, e Enterprise, d Demand) (Login, error) {
	return c.loginAs(ctx, server, app, d, func(s *site) (url.Values, error) {
		assertion, err := c.vouch(ctx, s, e)
		return byAssertion(assertion), err
	})
}

// loginAs signs in without a browser.
func (c *Client) loginAs(ctx context.Context, server string, app App, d Demand, grant func(*site) (url.Values, error)) (Login, error) {
	server, err := ServerURL(server)
	if err != nil {
		return Login{}, err
	}
	s, err := c.discover(ctx, server, d)
	if err != nil {
		return Login{}, err
	}
	if err := s.checkApp(app.Issuer); err != nil {
		return Login{}, err
	}
	form, err := grant(s)
	if err != nil {
		return Login{}, err
	}
	if s.scope != "" {
		form.Set("scope", s.scope)
	}
	l, err := c.obtain(ctx, s, app.at(s.as, ""), form)
	if no, ok := errors.AsType[*refusal](err); ok {
		return Login{}, signInFailed.fail("not signed in to %s", server).because(no).fix("check the id and the secret or key, and what the app may do there")
	}
	if err != nil {
		return Login{}, err
	}
	return l.public(server), nil
}

// vouch asks the identity provider for an assertion about the person (ID-JAG).
func (c *Client) vouch(ctx context.Context, s *site, e Enterprise) (string, error) {
	idp, err := c.serverMetadata(ctx, s.server, e.Issuer, false)
	if err != nil {
		return "", err
	}
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "requested_token_type": {idJAG},
		"subject_token": {e.SubjectToken}, "subject_token_type": {cmp.Or(e.SubjectTokenType, idToken)},
		"audience": {s.as.Issuer}, "resource": {s.resource},
	}
	if s.scope != "" {
		form.Set("scope", s.scope)
	}
	cannot := signInFailed.fail("not signed in to %s", s.server)
	a, err := c.postForm(ctx, idp.TokenEndpoint, e.App.at(idp, ""), form)
	if err != nil {
		return "", err
	}
	if a.status != http.StatusOK {
		return "", cannot.because(a.refused("ask "+e.Issuer+" to vouch for the person", idp.TokenEndpoint))
	}
	var t struct {
		Token string `json:"access_token"`
		Type  string `json:"issued_token_type"`
	}
	if a.decode(&t) != nil || t.Token == "" || t.Type != idJAG {
		return "", cannot.why("%s answered with something else than an assertion about the person", e.Issuer)
	}
	return t.Token, nil
}
