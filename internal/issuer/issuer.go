// Package issuer verifies what other issuers signed: the authorization servers,
// identity providers and workload platforms that the operator trusts.
//
// An issuer is trusted because the configuration names it, never because a token
// does. Its keys are fetched when they are first needed and again when a token
// names one that is not known, but not more often than the issuer can bear; while
// it cannot be reached the keys that are known stay good for a day, and after
// that nothing of it verifies.
package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Bounds of how keys are kept and fetched (R518).
const (
	fresh       = 15 * time.Minute // then they are fetched again at the next use
	good        = 24 * time.Hour   // how long they verify while the issuer cannot be reached
	pause       = 10 * time.Second // between two attempts, whatever tokens name
	fetchTime   = 5 * time.Second
	maxDocument = 512 << 10 // bytes
	maxToken    = 16 << 10  // bytes, before anything is parsed
)

// Unreachable is the code of an issuer whose keys could not be fetched. The token
// may be good, so nobody has to sign in again for it.
var Unreachable = problem.Code{
	Name: "ISSUER_UNREACHABLE", Kind: problem.Unavailable,
	Why: "the keys of the server that signs tokens could not be fetched",
	Fix: "try again; the operator finds the cause in the log",
}

// Codes are the problems of this package.
var Codes = []problem.Code{Unreachable}

// ErrToken is why something signed is refused; its text is for the log.
type ErrToken string

func (e ErrToken) Error() string { return string(e) }

// Issuer is one that is trusted. Set the fields before the first use; it may then
// be used by many at once.
type Issuer struct {
	URL  string              // issuer identifier, exactly as in iss
	JWKS string              // address of its keys; empty: its metadata says
	Keys *jose.JSONWebKeySet // its keys, for an issuer that is never asked; nil: they are fetched
	HC   *http.Client        // nil: one that follows no redirect

	mu       sync.Mutex
	set      jose.JSONWebKeySet
	fetched  time.Time // when set was
	tried    time.Time
	failed   error // of the last attempt
	fetching chan struct{}
}

// Verify checks the form, type, algorithm, key and signature of a JWT, and its iss
// (RFC 7515, RFC 8725 §3). What typ may be says types; "" stands for none.
// Everything else it claims is the caller's to judge. An error is an ErrToken, or
// Unreachable.
func (i *Issuer) Verify(ctx context.Context, raw string, types ...string) (claims json.RawMessage, err error) {
	h, err := readHeader(raw, types)
	if err != nil {
		return nil, err
	}
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(h.Algorithm)})
	if err != nil {
		return nil, ErrToken("it is no signed JWT")
	}
	keys, err := i.keys(ctx, h)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if payload, err := signed.Verify(key); err == nil {
			return payload, i.own(payload)
		}
	}
	return nil, ErrToken("no key of the issuer fits")
}

func (i *Issuer) own(payload []byte) error {
	var c struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &c); err != nil || c.Issuer != i.URL || i.URL == "" {
		return ErrToken("the issuer is another")
	}
	return nil
}

// Claimed reads iss without believing it, to find the issuer that may verify it.
func Claimed(raw string) string {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || len(raw) > maxToken {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	plain, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(plain, &c) != nil {
		return ""
	}
	return c.Issuer
}

// header is what of a JWT's header is used. Other members (jku, jwk, x5u …) are
// not looked at; those that would have to be understood are refused.
type header struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Type      string          `json:"typ"`
	Critical  json.RawMessage `json:"crit"`
}

func readHeader(raw string, types []string) (h header, err error) {
	head, _, _ := strings.Cut(raw, ".")
	if len(raw) > maxToken || strings.Count(raw, ".") != 2 {
		return h, ErrToken("it is too long or no JWT")
	}
	plain, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil || json.Unmarshal(plain, &h) != nil {
		return h, ErrToken("the header cannot be read")
	}
	switch {
	case h.Critical != nil:
		return h, ErrToken("the header demands what is not understood")
	case !has(types, strings.TrimPrefix(strings.ToLower(h.Type), "application/")):
		return h, ErrToken("the type is another")
	case fits[h.Algorithm] == nil:
		return h, ErrToken("the algorithm is none that is accepted")
	}
	return h, nil
}

func has(types []string, t string) bool {
	for _, one := range types {
		if strings.EqualFold(one, t) {
			return true
		}
	}
	return false
}

// fits are the algorithms that are accepted, with the keys that they are for: an
// algorithm is the key's, not the token's to choose (RFC 8725 §3.1).
var fits = map[string]func(jose.JSONWebKey) bool{
	"ES256": isCurve("P-256"), "ES384": isCurve("P-384"), "ES512": isCurve("P-521"),
	"EdDSA": func(k jose.JSONWebKey) bool { _, is := k.Key.(ed25519.PublicKey); return is },
	"RS256": isRSA, "RS384": isRSA, "RS512": isRSA, "PS256": isRSA, "PS384": isRSA, "PS512": isRSA,
}

func isCurve(name string) func(jose.JSONWebKey) bool {
	return func(k jose.JSONWebKey) bool {
		key, is := k.Key.(*ecdsa.PublicKey)
		return is && key.Params().Name == name
	}
}

func isRSA(k jose.JSONWebKey) bool {
	key, is := k.Key.(*rsa.PublicKey)
	return is && key.N.BitLen() >= 2048
}

// matching are the keys of a set that may have made the signature: of the id that
// is named, or all where none is, and each for its own algorithm only.
func matching(set jose.JSONWebKeySet, h header) (keys []any) {
	for _, k := range set.Keys {
		switch {
		case h.KeyID != "" && k.KeyID != h.KeyID,
			k.Use != "" && k.Use != "sig",
			k.Algorithm != "" && k.Algorithm != h.Algorithm,
			!fits[h.Algorithm](k):
		default:
			keys = append(keys, k.Key)
		}
	}
	return keys
}

// keys are the ones that may have signed. Where none is known the issuer may have
// a new one, and is asked.
func (i *Issuer) keys(ctx context.Context, h header) ([]any, error) {
	if i.Keys != nil {
		return matching(*i.Keys, h), nil
	}
	set, age, err := i.known(ctx, fresh)
	if keys := matching(set, h); len(keys) > 0 && age < good {
		return keys, nil
	}
	if err == nil {
		set, age, err = i.known(ctx, 0)
	}
	if keys := matching(set, h); len(keys) > 0 && age < good {
		return keys, nil
	}
	if err != nil {
		return nil, Unreachable.New("the token cannot be checked now").Because(err)
	}
	return nil, nil
}

// known is the set of keys, fetched again if it is older than age, unless that was
// tried just now. One caller fetches, the others wait for it. err is why the last
// attempt failed.
func (i *Issuer) known(ctx context.Context, age time.Duration) (set jose.JSONWebKeySet, old time.Duration, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.fetching != nil {
		wait := i.fetching
		i.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-wait:
		}
		i.mu.Lock()
		if ctx.Err() != nil {
			return i.set, time.Since(i.fetched), ctx.Err()
		}
	}
	if time.Since(i.fetched) < age || time.Since(i.tried) < pause {
		return i.set, time.Since(i.fetched), i.failed
	}
	done := make(chan struct{})
	i.fetching = done
	i.mu.Unlock()
	fetched, err := i.fetch(ctx)
	i.mu.Lock()
	i.fetching = nil
	close(done)
	if err != nil && ctx.Err() != nil { // the caller went, which says nothing about the issuer
		return i.set, time.Since(i.fetched), err
	}
	if i.tried, i.failed = time.Now(), err; err == nil {
		i.set, i.fetched = fetched, i.tried
	}
	return i.set, time.Since(i.fetched), i.failed
}

func (i *Issuer) fetch(ctx context.Context) (set jose.JSONWebKeySet, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	address := i.JWKS
	if address == "" {
		m, err := i.Metadata(ctx)
		if err != nil {
			return set, err
		}
		address = m.JWKSURI
	}
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := i.get(ctx, address, &raw); err != nil {
		return set, err
	}
	for _, one := range raw.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(one) == nil && k.IsPublic() && k.Valid() { // of a kind that is not known, or none to publish
			set.Keys = append(set.Keys, k)
		}
	}
	return set, nil
}

// Metadata is what the issuer says of itself (RFC 8414, OpenID Connect Discovery).
// It must be about the issuer, byte for byte.
func (i *Issuer) Metadata(ctx context.Context) (m oauth.ServerMetadata, err error) {
	for _, address := range oauth.ServerMetadataURLs(i.URL) {
		m = oauth.ServerMetadata{}
		if err = i.get(ctx, address, &m); err != nil {
			continue
		}
		if m.Issuer != i.URL {
			return m, fmt.Errorf("%s is about another issuer, %q", address, m.Issuer)
		}
		return m, nil
	}
	return m, err
}

// plain follows no redirect: an issuer that moved has to be configured anew.
var plain = &http.Client{
	Timeout:       fetchTime,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (i *Issuer) get(ctx context.Context, address string, into any) error {
	if kind := oauth.RedirectKind(address); kind != oauth.RedirectWeb && kind != oauth.RedirectLoopback {
		return fmt.Errorf("%q is neither https nor on this computer", address)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	hc := i.HC
	if hc == nil {
		hc = plain
	}
	answer, err := hc.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	t, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if answer.StatusCode != http.StatusOK || t != "application/json" && !strings.HasSuffix(t, "+json") {
		return fmt.Errorf("%s answers %d with %q", address, answer.StatusCode, t)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err != nil || len(body) > maxDocument {
		return fmt.Errorf("%s sends too much, or not all of it", address)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s is not what it should be: %w", address, err)
	}
	return nil
}
