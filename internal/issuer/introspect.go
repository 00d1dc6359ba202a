package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
)

// maxAsking is how many tokens an issuer is asked about at once: whoever sends
// random ones must not make us a burden to it.
const maxAsking = 16

// An Introspector asks an issuer about tokens that only it can read (RFC 7662).
// Make it with NewIntrospector.
type Introspector struct {
	*Issuer
	client string
	secret seal.Secret
	asking chan struct{}
}

// NewIntrospector asks i, as a client that it knows.
func NewIntrospector(i *Issuer, client string, secret seal.Secret) *Introspector {
	return &Introspector{Issuer: i, client: client, secret: secret, asking: make(chan struct{}, maxAsking)}
}

// Ask is what the issuer says about a token, if it is active and the issuer's own.
// Whether it may be used here is the caller's to judge. An error is an ErrToken, or
// Unreachable.
func (i *Introspector) Ask(ctx context.Context, raw string) (jwks.Claims, error) {
	if len(raw) > jwks.MaxJWT || !oauth.Readable(raw) {
		return jwks.Claims{}, ErrToken("it cannot be a token")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case i.asking <- struct{}{}:
		defer func() { <-i.asking }()
	case <-ctx.Done():
		return jwks.Claims{}, unreachable(ctx.Err())
	}
	answer, err := i.ask(ctx, raw)
	if err != nil {
		return jwks.Claims{}, unreachable(err)
	}
	var active struct {
		Active bool `json:"active"`
	}
	if err := json.Unmarshal(answer, &active); err != nil {
		return jwks.Claims{}, unreachable(err)
	}
	if !active.Active {
		return jwks.Claims{}, ErrToken("the issuer says that it is not active")
	}
	c, err := jwks.ParseClaims(answer)
	switch {
	case err != nil:
		return c, ErrToken(err.Error())
	case c.Issuer != "" && c.Issuer != i.URL:
		return c, ErrToken("its issuer is another")
	}
	c.Issuer = i.URL
	return c, nil
}

func (i *Introspector) ask(ctx context.Context, raw string) ([]byte, error) {
	m, err := i.metadata(ctx)
	if err != nil {
		return nil, err
	}
	if m.IntrospectionEndpoint == "" {
		return nil, errors.New("the issuer names no introspection_endpoint")
	}
	form := url.Values{"token": {raw}, "token_type_hint": {"access_token"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.IntrospectionEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(i.client), url.QueryEscape(i.secret.Reveal())) // RFC 6749 §2.3.1
	return i.send(r)
}
