// Package issuer knows the authorization servers that the operator trusts: it
// finds their keys, verifies what they signed, and asks them what only they can
// read.
//
// An issuer is trusted because the configuration names it, never because a token
// does. What it says of itself must be about it, byte for byte, and it is followed
// to no other address.
package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Bounds of what an issuer is asked.
const (
	fresh   = 15 * time.Minute // then its metadata is read again
	timeout = 5 * time.Second
)

// Unreachable is the code of an issuer that could not be asked. The token may be
// good, so nobody has to sign in again for it.
var Unreachable = problem.Code{
	Name: "ISSUER_UNREACHABLE", Kind: problem.Unavailable,
	Why: "the server that signs tokens does not answer, or not with what it should",
	Fix: "try again; the operator finds the cause in the log",
}

// Codes are the problems of this package.
var Codes = []problem.Code{Unreachable}

func unreachable(cause error) error {
	return Unreachable.New("the token cannot be checked now").Because(cause)
}

// ErrToken is why a token is refused; its text is for the log.
type ErrToken string

func (e ErrToken) Error() string { return string(e) }

// Issuer is one that is trusted. Make it with New; it may be used by many at once.
type Issuer struct {
	URL string // issuer identifier, exactly as in iss

	hc   *http.Client
	keys *jwks.Source

	mu   sync.Mutex
	meta oauth.ServerMetadata
	read time.Time // when meta was
}

// New is the issuer at a URL. hc is how it is reached; nil for the usual way, which
// follows no redirect.
func New(url string, hc *http.Client) *Issuer {
	if hc == nil {
		hc = &http.Client{
			Timeout:       timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	i := &Issuer{URL: url, hc: hc}
	i.keys = &jwks.Source{Fetch: i.fetch}
	return i
}

// Reachable reports whether an address may be asked for anything that is believed:
// over TLS, or on this computer.
func Reachable(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Hostname() != "" && u.User == nil && (u.Scheme == "https" || u.Scheme == "http" && oauth.IsLoopback(address))
}

// Keyed is an issuer whose keys are elsewhere than its metadata says, or that
// publishes none.
func Keyed(url string, keys *jwks.Source) *Issuer { return &Issuer{URL: url, keys: keys} }

// Verify checks the form, type, algorithm, key and signature of a JWT, and that it
// is the issuer's (RFC 8725 §3). What typ may be says types; "" stands for none.
// Everything else that it claims is the caller's to judge. An error is an ErrToken,
// or Unreachable.
func (i *Issuer) Verify(ctx context.Context, j jwks.JWT, types ...string) (jwks.Claims, error) {
	if !slices.Contains(types, j.Type) {
		return jwks.Claims{}, ErrToken("its type is another")
	}
	set, err := i.keys.For(ctx, j)
	if err != nil {
		return jwks.Claims{}, unreachable(err)
	}
	c, err := j.Verify(set)
	switch {
	case err != nil:
		return jwks.Claims{}, ErrToken(err.Error())
	case c.Issuer != i.URL || i.URL == "":
		return jwks.Claims{}, ErrToken("its issuer is another")
	}
	return c, nil
}

// fetch gets the document of the keys from where the metadata says.
func (i *Issuer) fetch(ctx context.Context) ([]byte, error) {
	m, err := i.metadata(ctx)
	if err != nil {
		return nil, err
	}
	return i.get(ctx, m.JWKSURI)
}

// metadata is what the issuer says of itself (RFC 8414, OpenID Connect Discovery),
// now or a while ago at most.
func (i *Issuer) metadata(ctx context.Context) (oauth.ServerMetadata, error) {
	i.mu.Lock()
	m, age := i.meta, time.Since(i.read)
	i.mu.Unlock()
	if age < fresh {
		return m, nil
	}
	m, err := i.describe(ctx)
	if err == nil {
		i.mu.Lock()
		i.meta, i.read = m, time.Now()
		i.mu.Unlock()
	}
	return m, err
}

func (i *Issuer) describe(ctx context.Context) (m oauth.ServerMetadata, err error) {
	for _, address := range oauth.ServerMetadataURLs(i.URL) {
		var body []byte
		if body, err = i.get(ctx, address); err != nil {
			continue
		}
		m = oauth.ServerMetadata{}
		if json.Unmarshal(body, &m) != nil || m.Issuer != i.URL {
			return m, fmt.Errorf("%s is no metadata of this issuer", address)
		}
		return m, nil
	}
	return m, err
}

func (i *Issuer) get(ctx context.Context, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return i.send(r)
}

// send asks for a JSON document of bounded length, over TLS or on this computer.
func (i *Issuer) send(r *http.Request) ([]byte, error) {
	address := r.URL.String()
	if !Reachable(address) {
		return nil, fmt.Errorf("%q is neither https nor on this computer", address)
	}
	r.Header.Set("Accept", "application/json")
	answer, err := i.hc.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	t, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if answer.StatusCode != http.StatusOK || t != "application/json" && !strings.HasSuffix(t, "+json") {
		return nil, fmt.Errorf("%s answers %s with %q", address, answer.Status, t)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, jwks.MaxBytes+1))
	if err == nil && len(body) > jwks.MaxBytes {
		err = errors.New(address + " sends too much")
	}
	return body, err
}
