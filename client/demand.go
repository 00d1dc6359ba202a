package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// maxSignIns is how often one request may lead to a sign-in: once to get in, once
// for more scopes, and once more where a server names them one after the other.
const maxSignIns = 3

// Demand is what a server wants before it goes on.
type Demand struct {
	Server string
	// Scope is what to ask for, space separated: what the token had together with
	// what the server named, so that nothing is lost. Empty leaves it to the server.
	Scope string

	challenge *oauth.AuthChallenge // nil if the server has not been asked
}

// signIn has somebody sign in, one at a time: whoever waited meanwhile uses what
// the other one got. refused is the token that did not do.
func (c *Client) signIn(ctx context.Context, d Demand, refused string) (string, error) {
	select {
	case c.signing <- struct{}{}:
		defer func() { <-c.signing }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if l, _, err := c.stored(d.Server); err != nil || l.fresh() && l.AccessToken != refused {
		return l.AccessToken, err
	}
	if err := c.opts.SignIn(ctx, c, d); err != nil {
		return "", err
	}
	l, _, err := c.stored(d.Server)
	if err == nil && l.AccessToken == "" {
		err = notSignedIn.fail("not signed in to %s", d.Server)
	}
	return l.AccessToken, err
}

// demand is what a refusal asks for, if signing in again could help: a token for
// who has none that works, or scopes that it lacks. The same scopes again are
// not asked for twice: a server that has them and still refuses means it.
func (s *Session) demand(res *http.Response, granted string) (Demand, bool) {
	ch := bearerChallenge(res.Header)
	scope := union(granted, ch.Params["scope"])
	switch res.StatusCode {
	case http.StatusUnauthorized:
		return Demand{Server: s.server, Scope: scope, challenge: &ch}, true
	case http.StatusForbidden:
		return Demand{Server: s.server, Scope: scope, challenge: &ch}, scope != union(granted, "")
	}
	return Demand{}, false
}

// union is a, with what of b is not in it (MCP "Step-Up Authorization Flow").
func union(a, b string) string {
	all := strings.Fields(a)
	for scope := range strings.FieldsSeq(b) {
		if !slices.Contains(all, scope) {
			all = append(all, scope)
		}
	}
	return strings.Join(all, " ")
}

// isSignedOut reports whether a token could not be renewed.
func isSignedOut(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == signedOut.Name
}
