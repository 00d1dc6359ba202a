package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// refusal is an OAuth error that a server answered with.
type refusal struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (r *refusal) Error() string {
	if r.Description == "" {
		return "the server says " + clean(r.Code)
	}
	return "the server says " + clean(r.Code+": "+r.Description)
}

// clean keeps what a server says from drawing on a terminal.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// bearer is the token to send to a server, refreshed where it has run out.
// stale is one that the server has refused, or empty. Without any sign-in the
// token is empty.
func (c *Client) bearer(ctx context.Context, server, stale string) (string, error) {
	if c.opts.Token != "" {
		return c.opts.Token, nil
	}
	l, ok, err := c.stored(server)
	if err != nil || !ok {
		return "", err
	}
	if l.fresh() && l.AccessToken != stale {
		return l.AccessToken, nil
	}
	return c.refresh(ctx, server, stale)
}

// refresh gets a new token, once for everybody: whoever comes second, in
// whatever process, finds the new one in the file. The lock is held meanwhile,
// so a refresh token is never used twice and a newer one never overwritten. Once
// it is sent the answer is waited for and kept, even if the caller has gone.
func (c *Client) refresh(ctx context.Context, server, stale string) (string, error) {
	var token string
	var refused error
	err := c.change(ctx, func(cr *credentials) error {
		l, ok := cr.Logins[server]
		if ok && l.fresh() && l.AccessToken != stale {
			token = l.AccessToken
			return nil
		}
		if ok && l.RefreshToken != "" {
			got, err := c.redeem(context.WithoutCancel(ctx), l, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {l.RefreshToken}})
			var no *refusal
			if err == nil {
				l.take(got)
				cr.Logins[server], token = l, l.AccessToken
				return nil
			}
			if !errors.As(err, &no) || !final[no.Code] {
				return err
			}
			refused = err
		}
		delete(cr.Logins, server)
		return nil
	})
	if err == nil && token == "" {
		e := signedOut.fail("signed out of %s", server).fix("gatehouse login %s", server)
		if refused != nil {
			e.Cause = refused
		}
		return "", e
	}
	return token, err
}

// final are the refusals after which a login is of no use any more. Any other may
// pass (RFC 6749 §5.2).
var final = map[string]bool{oauth.InvalidGrant: true, oauth.InvalidClient: true, oauth.UnauthorizedClient: true}

// tokenMost is the longest that a token is taken to be good; some servers say ages
// and mean for ever.
const tokenMost = 100 * 365 * 24 * time.Hour

// take replaces the tokens by newer ones. A refresh token that is not replaced
// stays good (RFC 6749 §6).
func (l *login) take(t oauth.TokenResponse) {
	if !isBound(t) {
		l.Key = nil // the issuer binds it to nothing, and says so
	}
	l.AccessToken, l.Expires = t.AccessToken, 0
	if t.ExpiresIn > 0 {
		l.Expires = time.Now().Add(seconds(t.ExpiresIn, tokenMost)).Unix()
	}
	if t.RefreshToken != "" {
		l.RefreshToken = t.RefreshToken
	}
	if t.Scope != "" {
		l.Scope = t.Scope
	}
}

// redeem asks the token endpoint. The resource is named every time, so the
// token is good for this server only (RFC 8707).
func (c *Client) redeem(ctx context.Context, l login, form url.Values) (oauth.TokenResponse, error) {
	form.Set("resource", l.Resource)
	var t oauth.TokenResponse
	a, err := c.postProving(ctx, l.TokenEndpoint, l.Client, form, l.Key)
	if err != nil {
		return t, err
	}
	if a.status != http.StatusOK {
		return t, a.refused("get a token", l.TokenEndpoint)
	}
	if a.decode(&t) != nil || !strings.EqualFold(t.TokenType, "Bearer") && !(l.Key != nil && isBound(t)) || !isBearer(t.AccessToken) {
		return t, unreadable.fail("can't get a token").why("%s did not answer with a bearer token", l.TokenEndpoint)
	}
	return t, nil
}

// isBound reports whether a token is of use only with a key (RFC 9449 §5).
func isBound(t oauth.TokenResponse) bool { return strings.EqualFold(t.TokenType, proofScheme) }

// isBearer reports whether a token can be put into a header (RFC 6750 §2.1).
func isBearer(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return token != ""
}

// refused is the OAuth error of an answer, or what came in its place.
func (a answer) refused(what, address string) error {
	var no refusal
	if json.Unmarshal(a.body, &no) == nil && no.Code != "" {
		return &no
	}
	return unreadable.fail("can't %s", what).why("%s answers with status %d", address, a.status)
}

// postForm authenticates as the client: by its id, by its secret in the way the
// registration said, or by a signature.
func (c *Client) postForm(ctx context.Context, address string, as registration, form url.Values) (answer, error) {
	h, err := as.authenticate(form)
	if err != nil {
		return answer{}, err
	}
	return c.fetch(ctx, http.MethodPost, address, h, form.Encode())
}

// postProving is postForm with a proof of the key that tokens are bound to; nil
// binds them to none. A server that wants a nonce in it is asked twice.
func (c *Client) postProving(ctx context.Context, address string, as registration, form url.Values, key []byte) (answer, error) {
	if key == nil {
		return c.postForm(ctx, address, as, form)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for again := false; ; again = true {
		h, err := as.authenticate(form) // an assertion counts once
		if err != nil {
			return answer{}, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
		if err != nil {
			return answer{}, err
		}
		req.Header = h
		if err := c.prove(key, req, ""); err != nil {
			return answer{}, err
		}
		a, err := c.complete(req)
		var no refusal
		if err == nil && a.status != http.StatusOK {
			_ = json.Unmarshal(a.body, &no) // what is no refusal is judged later
		}
		if err != nil || !c.noteNonce(req, a.header, no.Code) || again {
			return a, err
		}
	}
}

// authenticate adds to a form who we are, and makes the headers.
func (as registration) authenticate(form url.Values) (http.Header, error) {
	h := jsonHeader()
	h.Set("Content-Type", "application/x-www-form-urlencoded")
	switch {
	case as.AuthMethod == privateKeyJWT:
		assertion, err := as.assertion()
		if err != nil {
			return nil, err
		}
		form.Set("client_id", as.ClientID)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
	case as.AuthMethod == secretBasic && as.Secret != "":
		pair := url.QueryEscape(as.ClientID) + ":" + url.QueryEscape(as.Secret)
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	case as.AuthMethod == secretPost && as.Secret != "":
		form.Set("client_secret", as.Secret)
		form.Set("client_id", as.ClientID)
	default:
		form.Set("client_id", as.ClientID)
	}
	return h, nil
}

// Logout forgets the sign-in for a server and asks the issuer to revoke its
// tokens, first the refresh token, then the access token (RFC 7009). When that
// fails the sign-in is forgotten all the same.
func (c *Client) Logout(ctx context.Context, server string) error {
	server, err := ServerURL(server)
	if err != nil {
		return err
	}
	var l login
	err = c.change(ctx, func(cr *credentials) error {
		var ok bool
		if l, ok = cr.Logins[server]; !ok {
			return notSignedIn.fail("not signed in to %s", server).why("there is no token for it here")
		}
		delete(cr.Logins, server)
		return nil
	})
	if err != nil || l.RevocationEndpoint == "" {
		return err
	}
	return errors.Join(c.revoke(ctx, l, l.RefreshToken, "refresh_token"), c.revoke(ctx, l, l.AccessToken, "access_token"))
}

func (c *Client) revoke(ctx context.Context, l login, token, kind string) error {
	if token == "" {
		return nil
	}
	a, err := c.postForm(ctx, l.RevocationEndpoint, l.Client, url.Values{"token": {token}, "token_type_hint": {kind}})
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return a.refused("revoke the token", l.RevocationEndpoint)
	}
	return nil
}
