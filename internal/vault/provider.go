package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Provider is the authorization server of a service behind us, of which we are a
// client, as the operator configured it (R551, R555).
type Provider struct {
	Issuer       string // where its metadata is, unless both addresses are given; what iss must be
	AuthorizeURL string
	TokenURL     string
	ClientID     string
	Secret       seal.Secret       // none for a public client
	Auth         string            // how the client shows itself: AuthBasic, AuthPost
	Scopes       []string          // asked for in any case
	Reads        []string          // those without which tools that read are not called (R556)
	Writes       []string          // the same of tools that change, in addition
	Destroys     []string          // the same of tools whose effect is hard to undo, in addition
	Params       map[string]string // of the authorization request, in addition
	Hosts        []string          // HOST or HOST:PORT to which a credential may go
}

// How a client shows itself to a provider (RFC 6749 §2.3.1).
const (
	AuthBasic = "basic"
	AuthPost  = "post"
)

var providerName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// ours are the parameters of the authorization request that nobody sets for us.
var ours = []string{"client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "response_mode", "scope", "state"}

// Check says what is wrong with a provider called name.
func (p Provider) Check(name string) error {
	invalid := providerInvalid.New("the provider %.40q can't be used", name)
	for _, address := range []string{p.Issuer, p.AuthorizeURL, p.TokenURL} {
		if u, err := url.Parse(address); address != "" && (err != nil || !safe(u) || u.User != nil || u.Fragment != "") {
			return invalid.WithWhy("%.200s is not an https address, or http on this computer", address)
		}
	}
	for _, host := range p.Hosts {
		if !isHost(host) {
			return invalid.WithWhy("%.100q is not HOST or HOST:PORT", host)
		}
	}
	switch {
	case !providerName.MatchString(name):
		return invalid.WithWhy("a name has up to 32 small letters, digits and hyphens, and begins with a letter")
	case (p.AuthorizeURL == "") != (p.TokenURL == ""):
		return invalid.WithWhy("authorize_url and token_url go together")
	case p.AuthorizeURL == "" && p.Issuer == "":
		return invalid.WithWhy("it needs an issuer, or authorize_url and token_url")
	case p.ClientID == "":
		return invalid.WithWhy("it needs a client_id, which the service gives when a client is registered there")
	case p.Auth != AuthBasic && p.Auth != AuthPost:
		return invalid.WithWhy("client_auth is one of %s, %s", AuthBasic, AuthPost)
	case len(p.Hosts) == 0:
		return invalid.WithWhy("it needs hosts: those to which its credentials may be sent")
	}
	for param := range p.Params {
		if slices.Contains(ours, param) {
			return invalid.WithWhy("the parameter %s is set by the gateway", param)
		}
	}
	return nil
}

// CheckAddress says why a credential of the provider would not go to an address.
func (p Provider) CheckAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || !allows(p.Hosts, u) {
		return hostNotAllowed.New("no credential goes to %.200s", address)
	}
	return nil
}

// isHost reports whether text is the name of a host, with or without a port.
func isHost(text string) bool {
	u, err := url.Parse("https://" + text)
	return err == nil && u.Host == text && u.Hostname() != "" && strings.ToLower(text) == text && !strings.HasSuffix(text, ":")
}

// safe reports whether nobody on the way can read what is sent to an address.
func safe(u *url.URL) bool {
	return u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// allows reports whether a credential may go to an address: its host is on the
// list, with its port where that is not the usual one, and it is safe.
func allows(hosts []string, u *url.URL) bool {
	if !safe(u) {
		return false
	}
	usual := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]
	plain := func(host string) string { return strings.TrimSuffix(strings.ToLower(host), usual) }
	return slices.ContainsFunc(hosts, func(h string) bool { return plain(h) == plain(u.Host) })
}

// wants are all scopes that are asked for.
func (p Provider) wants() []string {
	all := slices.Concat(p.Scopes, p.Reads, p.Writes, p.Destroys)
	slices.Sort(all)
	return slices.Compact(all)
}

// needs are the scopes without which a tool of this effect is not called.
func (p Provider) needs(e tool.Effect) []string {
	switch e {
	case tool.Reads:
		return p.Reads
	case tool.Writes:
		return slices.Concat(p.Reads, p.Writes)
	}
	return slices.Concat(p.Reads, p.Writes, p.Destroys)
}

// discovered is what the metadata of a provider says.
type discovered struct {
	oauth.ServerMetadata
	until time.Time
}

const (
	metadataLife = time.Hour
	maxMetadata  = 256 << 10
)

// config is the provider as the OAuth library takes it. iss says that its answers
// carry their issuer (RFC 9207).
func (v *Vault) config(ctx context.Context, name string) (c *oauth2.Config, iss bool, err error) {
	p := v.Providers[name]
	c = &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.Secret.Reveal(), Scopes: p.wants(), RedirectURL: v.Issuer + "/connect/" + name + "/callback",
		Endpoint: oauth2.Endpoint{AuthURL: p.AuthorizeURL, TokenURL: p.TokenURL, AuthStyle: oauth2.AuthStyleInHeader},
	}
	if p.Auth == AuthPost || p.Secret.Empty() {
		c.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	if p.AuthorizeURL != "" {
		return c, false, nil
	}
	m, err := v.metadata(ctx, name, p.Issuer)
	if err != nil {
		return nil, false, providerFailed.New("%q can't be asked", name).WithWhy("its metadata can't be used").Because(err)
	}
	c.Endpoint.AuthURL, c.Endpoint.TokenURL = m.AuthorizationEndpoint, m.TokenEndpoint
	return c, m.IssParameter, nil
}

// metadata finds the provider's metadata, at most once an hour.
func (v *Vault) metadata(ctx context.Context, name, issuer string) (oauth.ServerMetadata, error) {
	v.mu.Lock()
	known, found := v.found[name]
	v.mu.Unlock()
	if found && time.Now().Before(known.until) {
		return known.ServerMetadata, nil
	}
	var faults []error
	for _, address := range oauth.ServerMetadataURLs(issuer) {
		m, err := v.fetch(ctx, address, issuer)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		next := maps.Clone(v.found)
		if next == nil {
			next = map[string]discovered{}
		}
		next[name] = discovered{m, time.Now().Add(metadataLife)}
		v.found = next
		return m, nil
	}
	return oauth.ServerMetadata{}, errors.Join(faults...)
}

// fetch reads one document and judges it (RFC 8414 §3.3, attack 73).
func (v *Vault) fetch(ctx context.Context, address, issuer string) (m oauth.ServerMetadata, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return m, err
	}
	res, err := v.hc.Do(req)
	if err != nil {
		return m, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return m, fmt.Errorf("%s answered %d", address, res.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxMetadata)).Decode(&m); err != nil {
		return m, fmt.Errorf("%s: %w", address, err)
	}
	if m.Issuer != issuer {
		return m, fmt.Errorf("%s is of the issuer %.200q", address, m.Issuer)
	}
	for _, endpoint := range []string{m.AuthorizationEndpoint, m.TokenEndpoint} {
		if u, err := url.Parse(endpoint); err != nil || !safe(u) {
			return m, fmt.Errorf("%s names the endpoint %.200q", address, endpoint)
		}
	}
	if !slices.Contains(m.ChallengeMethods, "S256") && m.ChallengeMethods != nil {
		return m, fmt.Errorf("%s does not take S256 challenges", address)
	}
	return m, nil
}

// within is a context with which the OAuth library uses our client. It outlives the
// caller: what a provider has sent must be kept, whoever waits for it.
func (v *Vault) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	return context.WithValue(ctx, oauth2.HTTPClient, v.hc), cancel
}

// granted is what a token response grants, or why it cannot be used. Scopes that
// it does not name are those that were asked for (RFC 6749 §5.1).
func granted(t *oauth2.Token, asked []string) (scopes []string, err error) {
	if t.AccessToken == "" || !strings.EqualFold(t.Type(), "Bearer") {
		return nil, fmt.Errorf("the provider's token is of type %.40q", t.TokenType)
	}
	if said, ok := t.Extra("scope").(string); ok {
		return strings.Fields(said), nil
	}
	return asked, nil
}
