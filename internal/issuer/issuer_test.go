package issuer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// fake is an issuer that can be changed, and be down. It is reached without a
// network, so that a test may let time pass.
type fake struct {
	mu    sync.Mutex
	keys  []jose.JSONWebKey
	down  bool
	about string // issuer of its metadata
	asked atomic.Int64
}

const url = "https://idp.example.org/realm"

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked.Add(1)
	if f.down {
		return nil, errors.New("down")
	}
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

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) issuer() *issuer.Issuer {
	return &issuer.Issuer{URL: url, HC: &http.Client{Transport: f}}
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

// R505: signature by kid, pinned algorithms, the issuer byte for byte.
func TestOnlyTheIssuersOwnTokensVerify(t *testing.T) {
	f, key := newFake(t)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f.keys = append(f.keys, public("ed", edwards), public("rsa", big), jose.JSONWebKey{Key: ecKey(t).Public(), KeyID: "enc", Use: "enc"})
	i := f.issuer()
	for name, raw := range map[string]string{
		"ES256":                        sign(t, jose.ES256, key, "k1", at, good),
		"EdDSA":                        sign(t, jose.EdDSA, edwards, "ed", at, good),
		"RS256":                        sign(t, jose.RS256, big, "rsa", at, good),
		"PS256":                        sign(t, jose.PS256, big, "rsa", at, good),
		"no kid, so any key that fits": sign(t, jose.ES256, key, "", at, good),
		"the long form of the type":    sign(t, jose.ES256, key, "k1", map[string]any{"typ": "application/at+jwt"}, good),
	} {
		if claims, err := i.Verify(t.Context(), raw, "at+jwt"); err != nil || string(claims) != good {
			t.Errorf("%s: %s, %v", name, claims, err)
		}
	}
	der := []byte("the public key as a secret, which is what a confused verifier would take")
	whole := sign(t, jose.ES256, key, "k1", at, good)
	for name, raw := range map[string]string{
		"another key":             sign(t, jose.ES256, ecKey(t), "k1", at, good),
		"an unknown kid":          sign(t, jose.ES256, key, "k2", at, good),
		"another key's kid":       sign(t, jose.RS256, big, "k1", at, good),
		"a key for encryption":    sign(t, jose.ES256, key, "enc", at, good),
		"HS256":                   sign(t, jose.HS256, der, "k1", at, good),
		"another type":            sign(t, jose.ES256, key, "k1", map[string]any{"typ": "JWT"}, good),
		"no type":                 sign(t, jose.ES256, key, "k1", nil, good),
		"another issuer":          sign(t, jose.ES256, key, "k1", at, `{"iss":"https://evil.example"}`),
		"the issuer with a slash": sign(t, jose.ES256, key, "k1", at, `{"iss":"`+url+`/"}`),
		"no issuer":               sign(t, jose.ES256, key, "k1", at, `{}`),
		"alg none":                "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0." + strings.Split(whole, ".")[1] + ".",
		"no signature":            whole[:strings.LastIndexByte(whole, '.')+1],
		"no JWT":                  "opaque",
		"too long":                whole + strings.Repeat("A", 20<<10),
		"a million dots":          strings.Repeat(".", 1_000_000),
		"what must be understood": "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiYXQrand0IiwiY3JpdCI6WyJiNjQiXX0" + whole[strings.IndexByte(whole, '.'):],
	} {
		var refused issuer.ErrToken
		if _, err := i.Verify(t.Context(), raw, "at+jwt"); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// R518: keys are kept; one that is not known is looked for at once, and then not
// again for a while, however many tokens name others.
func TestUnknownKeysAreLookedForOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, key := newFake(t)
		i := f.issuer()
		verify := func(raw string) error { _, err := i.Verify(t.Context(), raw, "at+jwt"); return err }
		first := sign(t, jose.ES256, key, "k1", at, good)
		for range 100 {
			if err := verify(first); err != nil {
				t.Fatal(err)
			}
		}
		began := f.asked.Load()
		if began > 3 {
			t.Errorf("asked %d times for the first keys", began)
		}
		second := ecKey(t)
		f.set(func() { f.keys = []jose.JSONWebKey{public("k2", second)} })
		time.Sleep(11 * time.Second)
		if err := verify(sign(t, jose.ES256, second, "k2", at, good)); err != nil {
			t.Errorf("after a rotation: %v", err)
		}
		if err := verify(first); err == nil {
			t.Error("the key that the issuer took back still verifies")
		}
		began = f.asked.Load()
		for range 1000 {
			if verify(sign(t, jose.ES256, key, rand.Text(), at, good)) == nil {
				t.Fatal("an unknown key verifies")
			}
		}
		if asked := f.asked.Load() - began; asked > 0 {
			t.Errorf("1000 unknown keys made %d requests", asked)
		}
	})
}

// R518: an issuer that cannot be reached stops nobody at once; but in the end
// nothing of it is believed, and that is no fault of the token.
func TestAnOutageIsSurvivedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, key := newFake(t)
		i := f.issuer()
		raw := sign(t, jose.ES256, key, "k1", at, good)
		verify := func() error { _, err := i.Verify(t.Context(), raw, "at+jwt"); return err }
		if err := verify(); err != nil {
			t.Fatal(err)
		}
		f.set(func() { f.down = true })
		time.Sleep(23 * time.Hour)
		if err := verify(); err != nil {
			t.Errorf("after 23 hours: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if err := verify(); !problem.Is(err, issuer.Unreachable) {
			t.Errorf("after 25 hours: %v", err)
		}
		f.set(func() { f.down = false })
		time.Sleep(11 * time.Second)
		if err := verify(); err != nil {
			t.Errorf("when it is back: %v", err)
		}
	})
}

// Attack 73: metadata of another issuer leads to no keys.
func TestMetadataOfAnotherIssuerIsNotFollowed(t *testing.T) {
	f, key := newFake(t)
	f.about = "https://evil.example"
	_, err := f.issuer().Verify(t.Context(), sign(t, jose.ES256, key, "k1", at, good), "at+jwt")
	if !problem.Is(err, issuer.Unreachable) {
		t.Error(err)
	}
}

// One caller asks for all.
func TestManyAtOnceAskOnce(t *testing.T) {
	f, key := newFake(t)
	i := f.issuer()
	raw := sign(t, jose.ES256, key, "k1", at, good)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			if _, err := i.Verify(context.Background(), raw, "at+jwt"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if asked := f.asked.Load(); asked > 3 {
		t.Errorf("64 callers made %d requests", asked)
	}
}

// FuzzVerify: nothing that is not signed by the issuer verifies, and nothing
// panics.
func FuzzVerify(f *testing.F) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	i := &issuer.Issuer{URL: url, Keys: &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("k1", key)}}}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Add("eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImsxIn0.e30.AAAA")
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := i.Verify(t.Context(), raw, "at+jwt", ""); err == nil {
			t.Error(raw)
		}
		issuer.Claimed(raw)
	})
}
