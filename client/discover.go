package client

import (
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
}

// discover finds the authorization server of an MCP server: the server's
// challenge names its metadata, else it stands at a well-known address; it names
// the issuer, whose own metadata is at a well-known address again (MCP
// 2025-11-25 authorization, "Authorization Server Discovery").
func (c *Client) discover(ctx context.Context, server string) (*site, error) {
	challenge, err := c.challenge(ctx, server)
	if err != nil {
		return nil, err
	}
	prm, err := c.resourceMetadata(ctx, server, challenge.ResourceMetadata())
	if err != nil {
		return nil, err
	}
	as, err := c.serverMetadata(ctx, server, prm.AuthorizationServers[0])
	if err != nil {
		return nil, err
	}
	s := &site{server: server, resource: prm.Resource, name: prm.Name, scope: challenge.Params["scope"], as: as}
	if s.scope == "" {
		s.scope = strings.Join(prm.ScopesSupported, " ")
	}
	if s.scope != "" && slices.Contains(as.ScopesSupported, "offline_access") && !slices.Contains(strings.Fields(s.scope), "offline_access") {
		s.scope += " offline_access"
	}
	return s, nil
}

// challenge asks the server without a token and returns what it demands.
func (c *Client) challenge(ctx context.Context, server string) (oauth.AuthChallenge, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &Session{c: c, server: server, anonymous: true}
	res, err := s.send(ctx, s.initializeRequest(), handshake{})
	if err != nil {
		return oauth.AuthChallenge{}, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		s.end(ctx, handshake{session: res.Header.Get(sessionHeader)})
		return oauth.AuthChallenge{}, signInNotNeeded.fail("%s asks for no sign-in", server)
	}
	if res.StatusCode != http.StatusUnauthorized {
		return oauth.AuthChallenge{}, unreadable.fail("can't find out how to sign in to %s", server).why("it answers with status %d", res.StatusCode)
	}
	return bearerChallenge(res.Header), nil
}

func bearerChallenge(h http.Header) oauth.AuthChallenge {
	for _, ch := range oauth.ParseChallenges(h.Values("WWW-Authenticate")) {
		if ch.Scheme == "bearer" {
			return ch
		}
	}
	return oauth.AuthChallenge{}
}

// resourceMetadata finds the document that describes the server (RFC 9728). One
// that describes another address is refused, since a token for that would be
// shown to this server. A server without one is its own issuer, as revision
// 2025-03-26 had it.
func (c *Client) resourceMetadata(ctx context.Context, server, named string) (oauth.ResourceMetadata, error) {
	u, _ := url.Parse(server) // it came out of ServerURL
	urls := oauth.ResourceMetadataURLs(server)
	if named != "" {
		urls = []string{named}
	}
	for _, address := range urls {
		var prm oauth.ResourceMetadata
		found, err := c.document(ctx, address, isLoopback(u), &prm)
		if err != nil {
			return prm, err
		}
		if !found {
			continue
		}
		root := address == oauth.WellKnown(origin(u), oauth.ResourceSuffix) && oauth.SameResource(prm.Resource, origin(u))
		if !root && !oauth.SameResource(prm.Resource, server) {
			return prm, notTrusted.fail("can't sign in to %s", server).why("its metadata describes %q instead", prm.Resource)
		}
		if len(prm.AuthorizationServers) == 0 {
			return prm, notTrusted.fail("can't sign in to %s", server).why("its metadata names no authorization server")
		}
		return prm, nil
	}
	if named != "" {
		return oauth.ResourceMetadata{}, notTrusted.fail("can't sign in to %s", server).why("there is nothing at %s, where its metadata should be", named)
	}
	return oauth.ResourceMetadata{Resource: server, AuthorizationServers: []string{origin(u)}}, nil
}

// serverMetadata finds the metadata of an issuer (RFC 8414) and refuses what
// would send secrets elsewhere or weaken the flow.
func (c *Client) serverMetadata(ctx context.Context, server, issuer string) (oauth.ServerMetadata, error) {
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
	return oauth.ServerMetadata{}, notTrusted.fail("can't sign in to %s", server).why("the authorization server %s publishes no metadata", issuer)
}

func (c *Client) checkServer(as oauth.ServerMetadata, issuer string, local bool) error {
	if as.Issuer != issuer {
		return fmt.Errorf("the metadata of %s claims to be that of %q", issuer, as.Issuer)
	}
	if !slices.Contains(as.ChallengeMethods, "S256") {
		return fmt.Errorf("%s does not say that it supports PKCE with S256", issuer)
	}
	if _, err := safeURL(as.AuthorizationEndpoint, local); err != nil {
		return fmt.Errorf("its sign-in page %q is no safe address: %w", as.AuthorizationEndpoint, err)
	}
	if as.TokenEndpoint == "" {
		return errors.New("it names no token endpoint")
	}
	for _, endpoint := range []string{as.TokenEndpoint, as.RegistrationEndpoint, as.RevocationEndpoint} {
		if err := c.checkEndpoint(endpoint, issuer, local); err != nil {
			return err
		}
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
