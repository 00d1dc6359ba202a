package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// site is what is known about signing in at one server.
type site struct {
	server   string
	resource string // as the server spells itself; what tokens are asked for
	name     string // for people
	scope    string // what to ask for; empty means the server decides
	as       oauth.ServerMetadata
	bound    bool // tokens are bound to a key
}

// discover finds the authorization server of an MCP server: the server's
// challenge names its metadata, else it stands at a well-known address; it names
// the issuer, whose own metadata is at a well-known address again (MCP
// 2025-11-25 authorization, "Authorization Server Discovery"). It is done anew for
// each sign-in, since a server may move to another issuer. What to ask for: what
// is demanded, else all that the server lists, else nothing ("Scope Selection
// Strategy").
func (c *Client) discover(ctx context.Context, server string, d Demand) (*site, error) {
	challenge, notNeeded, err := c.demanded(ctx, server, d)
	if err != nil {
		return nil, err
	}
	prm, found, err := c.resourceMetadata(ctx, server, challenge.ResourceMetadata())
	if err != nil {
		return nil, err
	}
	if notNeeded != nil && !found { // it is open, and says nothing about doors inside
		return nil, notNeeded
	}
	s := &site{server: server, resource: prm.Resource, name: prm.Name, scope: cmp.Or(d.Scope, challenge.Params["scope"], strings.Join(prm.ScopesSupported, " "))}
	if s.as, err = c.serverMetadata(ctx, server, prm.AuthorizationServers[0], !found); err != nil {
		return nil, err
	}
	s.bind(prm, challenge)
	return s, nil
}

// demanded is the challenge of the server. Some answer the first message to
// anybody and demand a token later, some want another first message; then there
// is no challenge yet, and an error that counts if nothing else says that one can
// sign in.
func (c *Client) demanded(ctx context.Context, server string, d Demand) (ch oauth.AuthChallenge, notNeeded, err error) {
	if d.challenge != nil {
		return *d.challenge, nil, nil
	}
	ch, err = c.challenge(ctx, server)
	if e, ok := errors.AsType[*Error](err); ok && (e.Code == signInNotNeeded.Name || e.Code == noSignIn.Name) {
		return ch, err, nil
	}
	return ch, nil, err
}

// offline adds the scope for refresh tokens where the issuer lists it, and only
// there.
func (s *site) offline() {
	if s.scope != "" && slices.Contains(s.as.ScopesSupported, "offline_access") {
		s.scope = union(s.scope, "offline_access")
	}
}

// challenge asks the server without a token and returns what it demands.
func (c *Client) challenge(ctx context.Context, server string) (oauth.AuthChallenge, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &Session{c: c, server: server, anonymous: true}
	res, err := s.send(ctx, s.initializeRequest(), handshake{}, nil)
	if err != nil {
		return oauth.AuthChallenge{}, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		s.end(ctx, handshake{session: res.Header.Get(sessionHeader)})
		return oauth.AuthChallenge{}, signInNotNeeded.fail("%s asks for no sign-in", server)
	}
	if res.StatusCode >= 400 && res.StatusCode < 500 && res.StatusCode != http.StatusUnauthorized {
		return oauth.AuthChallenge{}, noSignIn.fail("can't find out how to sign in to %s", server).why("it answers with status %d and describes no sign-in", res.StatusCode)
	}
	if res.StatusCode != http.StatusUnauthorized {
		return oauth.AuthChallenge{}, unreadable.fail("can't find out how to sign in to %s", server).why("it answers with status %d", res.StatusCode)
	}
	return bearerChallenge(res.Header), nil
}

// bearerChallenge is the challenge for a token. A server that takes only tokens that
// are bound to a key has one of that scheme.
func bearerChallenge(h http.Header) oauth.AuthChallenge {
	if ch := challengeOf(h, "bearer"); ch.Scheme != "" {
		return ch
	}
	return challengeOf(h, "dpop")
}

func challengeOf(h http.Header, scheme string) oauth.AuthChallenge {
	for _, ch := range oauth.ParseChallenges(h.Values("WWW-Authenticate")) {
		if ch.Scheme == scheme {
			return ch
		}
	}
	return oauth.AuthChallenge{}
}

// resourceMetadata finds the document that describes the server (RFC 9728). One
// that describes another address is refused, since a token for that would be
// shown to this server. A server without one is its own issuer, as revision
// 2025-03-26 had it; then found is false.
func (c *Client) resourceMetadata(ctx context.Context, server, named string) (prm oauth.ResourceMetadata, found bool, err error) {
	u, _ := url.Parse(server) // it came out of ServerURL
	urls := oauth.ResourceMetadataURLs(server)
	if named != "" {
		urls = []string{named}
	}
	for _, address := range urls {
		prm = oauth.ResourceMetadata{}
		if found, err = c.document(ctx, address, isLoopback(u), &prm); err != nil {
			return prm, false, err
		}
		if !found {
			continue
		}
		root := address == oauth.WellKnown(origin(u), oauth.ResourceSuffix) && oauth.SameResource(prm.Resource, origin(u))
		if !root && !oauth.SameResource(prm.Resource, server) {
			return prm, false, notTrusted.fail("can't sign in to %s", server).why("its metadata describes %q instead", prm.Resource)
		}
		if len(prm.AuthorizationServers) == 0 {
			return prm, false, notTrusted.fail("can't sign in to %s", server).why("its metadata names no authorization server")
		}
		return prm, true, nil
	}
	if named != "" {
		return prm, false, notTrusted.fail("can't sign in to %s", server).why("there is nothing at %s, where its metadata should be", named)
	}
	return oauth.ResourceMetadata{Resource: server, AuthorizationServers: []string{origin(u)}}, false, nil
}

// serverMetadata finds the metadata of an issuer (RFC 8414, OpenID Connect
// Discovery) and refuses what would send secrets elsewhere. Where the MCP server
// is its own issuer and publishes none, its endpoints have the names that
// revision 2025-03-26 gave them.
func (c *Client) serverMetadata(ctx context.Context, server, issuer string, own bool) (oauth.ServerMetadata, error) {
	u, _ := url.Parse(server)
	local := isLoopback(u)
	if _, err := safeURL(issuer, local); err != nil {
		return oauth.ServerMetadata{}, notTrusted.fail("can't sign in to %s", server).why("its issuer %q is no safe address: %v", issuer, err)
	}
	for _, address := range oauth.ServerMetadataURLs(issuer) {
		var as oauth.ServerMetadata
		found, err := c.document(ctx, address, local, &as)
		if err != nil {
			return as, err
		}
		if found {
			if err := c.checkServer(as, issuer, local); err != nil {
				return as, notTrusted.fail("can't sign in to %s", server).why("%v", err)
			}
			return as, nil
		}
	}
	if own {
		return oauth.ServerMetadata{
			Issuer: issuer, AuthorizationEndpoint: issuer + "/authorize", TokenEndpoint: issuer + "/token", RegistrationEndpoint: issuer + "/register",
			ChallengeMethods: []string{"S256"},
		}, nil
	}
	return oauth.ServerMetadata{}, notTrusted.fail("can't sign in to %s", server).why("the authorization server %s publishes no metadata", issuer)
}

func (c *Client) checkServer(as oauth.ServerMetadata, issuer string, local bool) error {
	if as.Issuer != issuer {
		return fmt.Errorf("the metadata of %s claims to be that of %q", issuer, as.Issuer)
	}
	if as.TokenEndpoint == "" {
		return errors.New("it names no token endpoint")
	}
	for _, endpoint := range []string{as.TokenEndpoint, as.RegistrationEndpoint, as.PushedEndpoint, as.DeviceEndpoint, as.RevocationEndpoint} {
		if err := c.checkEndpoint(endpoint, issuer, local); err != nil {
			return err
		}
	}
	return nil
}

// checkBrowser refuses to send a person to a page that is none, or with a flow
// that anybody who sees the code could finish.
func (s *site) checkBrowser() error {
	u, _ := url.Parse(s.server)
	cannot := notTrusted.fail("can't sign in to %s", s.server)
	if !slices.Contains(s.as.ChallengeMethods, "S256") {
		return cannot.why("%s does not say that it supports PKCE with S256", s.as.Issuer)
	}
	if _, err := safeURL(s.as.AuthorizationEndpoint, isLoopback(u)); err != nil {
		return cannot.why("its sign-in page %q is no safe address: %v", s.as.AuthorizationEndpoint, err)
	}
	return nil
}

// checkEndpoint keeps secrets at the issuer's own origin, unless others are
// allowed by name.
func (c *Client) checkEndpoint(endpoint, issuer string, local bool) error {
	if endpoint == "" {
		return nil
	}
	u, err := safeURL(endpoint, local)
	if err != nil {
		return fmt.Errorf("its endpoint %q is no safe address: %w", endpoint, err)
	}
	i, _ := url.Parse(issuer) // serverMetadata has checked it
	if origin(u) != origin(i) && !slices.Contains(c.opts.EndpointOrigins, origin(u)) {
		return fmt.Errorf("its endpoint %s is on another origin than the issuer %s", endpoint, issuer)
	}
	return nil
}

// document fetches JSON metadata. A refusal of any kind means that there is no
// such document; anything else but the document is an error.
func (c *Client) document(ctx context.Context, address string, local bool, v any) (found bool, err error) {
	u, err := safeURL(address, local)
	if err != nil {
		return false, notTrusted.fail("can't fetch the metadata at %q", address).because(err)
	}
	a, err := c.fetch(ctx, http.MethodGet, address, jsonHeader(), "")
	switch {
	case err != nil:
		return false, err
	case a.status >= 400 && a.status < 500:
		return false, nil
	case a.status != http.StatusOK:
		return false, unreadable.fail("can't read the metadata of %s", u.Host).why("%s answers with status %d", address, a.status)
	}
	if err := a.decode(v); err != nil {
		return false, unreadable.fail("can't read the metadata of %s", u.Host).because(err)
	}
	return true, nil
}
