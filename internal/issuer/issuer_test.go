package issuer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// fake is an issuer that is reached without a network.
type fake struct {
	keys  []jose.JSONWebKey
	about string // issuer of its metadata
}

const url = "https://idp.example.org/realm"

// RoundTrip answers as the issuer.
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration/realm", "/realm/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": f.about, "jwks_uri": "https://idp.example.org/keys"})
	case "/keys":
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: f.keys})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	return w.Result(), nil
}

func (f *fake) issuer() *issuer.Issuer { return issuer.New(url, &http.Client{Transport: f}) }

// verify is what a caller does with the text of a token.
func verify(i *issuer.Issuer, raw string) error {
	j, err := jwks.Read(raw)
	if err != nil {
		return issuer.ErrToken(err.Error())
	}
	_, err = i.Verify(context.Background(), j, "at+jwt")
	return err
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(kid string, key crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: kid, Use: "sig"}
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, extra map[string]any, claims string) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for name, value := range extra {
		options = options.WithHeader(jose.HeaderKey(name), value)
	}
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const good = `{"iss":"` + url + `","sub":"s"}`

var at = map[string]any{"typ": "at+jwt"}

func newFake(t *testing.T) (*fake, *ecdsa.PrivateKey) {
	key := ecKey(t)
	return &fake{keys: []jose.JSONWebKey{public("k1", key)}, about: url}, key
}

// R505: the issuer byte for byte, and the type; package jwks does the rest.
func TestOnlyTheIssuersOwnTokensVerify(t *testing.T) {
	f, key := newFake(t)
	i := f.issuer()
	if err := verify(i, sign(t, jose.ES256, key, "k1", at, good)); err != nil {
		t.Error(err)
	}
	for name, raw := range map[string]string{
		"another key":             sign(t, jose.ES256, ecKey(t), "k1", at, good),
		"an unknown kid":          sign(t, jose.ES256, key, "k2", at, good),
		"another type":            sign(t, jose.ES256, key, "k1", map[string]any{"typ": "JWT"}, good),
		"no type":                 sign(t, jose.ES256, key, "k1", nil, good),
		"another issuer":          sign(t, jose.ES256, key, "k1", at, `{"iss":"https://evil.example"}`),
		"the issuer with a slash": sign(t, jose.ES256, key, "k1", at, `{"iss":"`+url+`/"}`),
		"no issuer":               sign(t, jose.ES256, key, "k1", at, `{}`),
		"no JWT":                  "opaque",
	} {
		if _, refused := errors.AsType[issuer.ErrToken](verify(i, raw)); !refused {
			t.Errorf("%s: %v", name, verify(i, raw))
		}
	}
}

// Attack 73: metadata of another issuer leads to no keys.
func TestMetadataOfAnotherIssuerIsNotFollowed(t *testing.T) {
	f, key := newFake(t)
	f.about = "https://evil.example"
	if err := verify(f.issuer(), sign(t, jose.ES256, key, "k1", at, good)); !problem.Is(err, issuer.Unreachable) {
		t.Error(err)
	}
}

// What is believed comes over TLS, or from this computer (RFC 8414 §2).
func TestReachable(t *testing.T) {
	for address, want := range map[string]bool{
		"https://idp.example.org/realm": true, "http://localhost:8080": true, "http://127.0.0.1:1/keys": true,
		"http://idp.example.org": false, "https://": false, "ftp://localhost": false, "https://dana:secret@idp.example.org": false, "http://localhost.evil.example": false, "": false,
	} {
		if issuer.Reachable(address) != want {
			t.Errorf("%q: %v", address, !want)
		}
	}
}
