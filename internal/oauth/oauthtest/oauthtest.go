// Package oauthtest makes DPoP proofs for tests, good ones and spoiled ones.
//
// It signs by hand: what a library would refuse to sign has to be tried too.
package oauthtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Key is the key of a client that uses DPoP.
type Key struct {
	Alg     string
	private crypto.Signer
	tb      testing.TB
}

// NewKey makes a key for an algorithm: ES256, ES384, EdDSA, RS256 or PS256.
func NewKey(tb testing.TB, alg string) Key {
	tb.Helper()
	var private crypto.Signer
	var err error
	switch alg {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return Key{alg, private, tb}
}

// JWK is the public key, or both halves.
func (k Key) JWK(private bool) json.RawMessage {
	k.tb.Helper()
	jwk := jose.JSONWebKey{Key: k.private.Public()}
	if private {
		jwk.Key = k.private
	}
	raw, err := jwk.MarshalJSON()
	if err != nil {
		k.tb.Fatal(err)
	}
	return raw
}

// Thumbprint is that of the key (RFC 7638, SHA-256).
func (k Key) Thumbprint() string {
	k.tb.Helper()
	jwk := jose.JSONWebKey{Key: k.private.Public()}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		k.tb.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// Proof is one for a request, with an access token or without. change puts other
// values in place of claims, and of header members whose names begin with #; nil
// takes them away.
func (k Key) Proof(method, address, access string, change map[string]any) string {
	k.tb.Helper()
	header := map[string]any{"typ": "dpop+jwt", "alg": k.Alg, "jwk": k.JWK(false)}
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": address, "iat": time.Now().Unix()}
	if access != "" {
		sum := sha256.Sum256([]byte(access))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	for name, value := range change {
		into := claims
		if member, inHeader := strings.CutPrefix(name, "#"); inHeader {
			into, name = header, member
		}
		into[name] = value
	}
	for _, part := range []map[string]any{header, claims} {
		maps.DeleteFunc(part, func(_ string, v any) bool { return v == nil })
	}
	h, err := json.Marshal(header)
	if err != nil {
		k.tb.Fatal(err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		k.tb.Fatal(err)
	}
	return k.Sign(string(h), string(c))
}

// Sign signs a header and claims as they are.
func (k Key) Sign(header, claims string) string {
	k.tb.Helper()
	input := encode([]byte(header)) + "." + encode([]byte(claims))
	sum := sha256.Sum256([]byte(input))
	var signature []byte
	var err error
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		size := (private.Curve.Params().BitSize + 7) / 8
		r, s, failed := ecdsa.Sign(rand.Reader, private, sum[:])
		if failed != nil {
			k.tb.Fatal(failed)
		}
		signature = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case ed25519.PrivateKey:
		signature = ed25519.Sign(private, []byte(input))
	case *rsa.PrivateKey:
		if k.Alg == "PS256" {
			signature, err = rsa.SignPSS(rand.Reader, private, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			signature, err = rsa.SignPKCS1v15(nil, private, crypto.SHA256, sum[:])
		}
	}
	if err != nil {
		k.tb.Fatal(err)
	}
	return input + "." + encode(signature)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
