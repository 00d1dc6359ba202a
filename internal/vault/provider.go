package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	RevokeURL    string // where a removed connection is told (RFC 7009); that of the metadata if empty
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
	for _, address := range []string{p.Issuer, p.AuthorizeURL, p.TokenURL, p.RevokeURL} {
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

// identity is what makes it another provider, although it has the same name: who
// grants, and to whom.
func (p Provider) identity() string {
	host := ""
	if u, err := url.Parse(p.TokenURL); err == nil {
		host = u.Host
	}
	return strings.Join([]string{p.Issuer, host, p.ClientID}, "\n")
}

// inForm reports whether the client shows itself in the form of a request.
func (p Provider) inForm() bool { return p.Auth == AuthPost || p.Secret.Empty() }

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
	err   error // why there is none
	until time.Time
}

const (
	metadataLife = time.Hour
	metadataTime = 5 * time.Second // to find it: a person waits
	absentLife   = 10 * time.Second
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
	if p.inForm() {
		c.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	if p.AuthorizeURL != "" {
		return c, false, nil
	}
	m, err := v.metadata(ctx, name, p.Issuer)
	if err != nil {
		return nil, false, ProviderFailed.New("%q can't be reached now, so no account there can be connected or used", name).
			WithWhy("its authorization server does not answer, or not as it should").WithFix("reload this page or try again in a moment; if it stays, the operator finds the cause in the log").Because(err)
	}
	c.Endpoint.AuthURL, c.Endpoint.TokenURL = m.AuthorizationEndpoint, m.TokenEndpoint
	return c, m.IssParameter, nil
}

// metadata finds the provider's metadata, at most once an hour. One that keeps people
// waiting is not asked again for a while.
func (v *Vault) metadata(ctx context.Context, name, issuer string) (oauth.ServerMetadata, error) {
	v.mu.Lock()
	known, found := v.found[name]
	v.mu.Unlock()
	if found && time.Now().Before(known.until) {
		return known.ServerMetadata, known.err
	}
	now, _, _ := v.asking.Do(name, func() (any, error) {
		began := time.Now()
		known := v.discover(context.WithoutCancel(ctx), issuer)
		if known.err == nil || time.Since(began) > time.Second {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.found[name] = known
		}
		return known, nil
	})
	known = now.(discovered)
	return known.ServerMetadata, known.err
}

// discover reads the provider's metadata where it may be.
func (v *Vault) discover(ctx context.Context, issuer string) discovered {
	ctx, cancel := context.WithTimeout(ctx, metadataTime)
	defer cancel()
	var faults []error
	for _, address := range oauth.ServerMetadataURLs(issuer) {
		m, err := v.fetch(ctx, address, issuer)
		if err == nil {
			return discovered{ServerMetadata: m, until: time.Now().Add(metadataLife)}
		}
		faults = append(faults, err)
	}
	return discovered{err: errors.Join(faults...), until: time.Now().Add(absentLife)}
}

// mayName reports whether a provider at an address may name an endpoint: only one on
// this computer names those on this computer.
func mayName(by *url.URL, endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && safe(u) && u.User == nil && u.Fragment == "" && (isLoopback(by.Hostname()) || !isLoopback(u.Hostname()))
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
	for _, endpoint := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, cmp.Or(m.RevocationEndpoint, m.TokenEndpoint)} {
		if !mayName(req.URL, endpoint) {
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

// maxCredential bounds what a provider sends and we send on in a header, in bytes;
// maxScopes what it says that it granted.
const (
	maxCredential = 16 << 10
	maxScopes     = 4 << 10
)

// granted is what a token response grants, or why it cannot be used. Scopes that
// it does not name are those that were asked for (RFC 6749 §5.1); some providers put
// commas between them.
func granted(t *oauth2.Token, asked []string) (scopes []string, err error) {
	for _, credential := range []string{t.AccessToken, t.RefreshToken} {
		if len(credential) > maxCredential || strings.ContainsFunc(credential, func(r rune) bool { return r <= ' ' || r > '~' }) { // RFC 6749 appendix A.12
			return nil, errors.New("the provider's token is too long, or cannot stand in a header")
		}
	}
	if t.AccessToken == "" || !strings.EqualFold(t.Type(), "Bearer") {
		return nil, fmt.Errorf("the provider's token is of type %.40q", t.TokenType)
	}
	switch said := t.Extra("scope").(type) {
	case nil:
		return asked, nil
	case string:
		if len(said) > maxScopes || !oauth.Readable(said) {
			return nil, errors.New("the provider's scopes cannot be read")
		}
		separates := func(r rune) bool { return r == ' ' || r == ',' && !strings.Contains(strings.Join(asked, " "), ",") }
		return strings.FieldsFunc(said, separates), nil
	}
	return nil, errors.New("the provider's scopes are no text")
}
