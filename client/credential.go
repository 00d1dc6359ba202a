package client

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"

	"github.com/go-jose/go-jose/v4"
)

// Credential is what a program shows a server that it reaches in another way than
// over HTTP, with the server on the same computer.
type Credential struct {
	Token string // the access token; empty without a sign-in
	Key   string // thumbprint (RFC 7638) of the key that the token is bound to, which is kept with it; empty if it is bound to none
}

// Credential is that of a stored sign-in, refreshed where it has run out, or
// Options.Token. refused is a token that the server did not take, or empty: then there
// is another one, or an error.
func (c *Client) Credential(ctx context.Context, server, refused string) (Credential, error) {
	token, err := c.bearer(ctx, server, refused)
	if err != nil || token == "" || c.opts.Token != "" {
		return Credential{Token: token}, err
	}
	l, _, err := c.stored(server)
	if err != nil || l.Key == nil || l.AccessToken != token {
		return Credential{Token: token}, err
	}
	key, err := thumbprint(l.Key)
	return Credential{token, key}, err
}

// thumbprint is that of the public half of a key.
func thumbprint(private []byte) (string, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return "", credentialsUnusable.fail("can't use the key that is kept with the token").because(err)
	}
	key := jose.JSONWebKey{Key: parsed}
	public := key.Public()
	sum, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", credentialsUnusable.fail("can't use the key that is kept with the token").because(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}
