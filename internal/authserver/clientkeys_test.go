package authserver_test

import (
	"crypto/ecdsa"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound/outboundtest"
)

// keyring publishes the key of a client.
type keyring struct {
	mu     sync.Mutex
	key    *ecdsa.PrivateKey
	status int
	asked  atomic.Int32
}

func (k *keyring) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	k.asked.Add(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(k.status)
	_, _ = w.Write([]byte(published(k.key)))
}

// signedCode goes through everything as a client that signs.
func (h house) signedCode(t *testing.T, s signer) apptest.Answer {
	t.Helper()
	code, verifier := h.Code(s.id, nil)
	form := s.proof(t, h.URL, nil)
	maps.Copy(form, with("grant_type", "authorization_code", "code", code, "code_verifier", verifier))
	return h.Form("/oauth/token", form)
}

// A client may say where its keys are, when it registers and in its document: they
// are fetched when it first signs, and kept; a document that says so has to sign
// (CIMD draft §4, attack 44).
func TestKeysAtAnAddressOfTheClient(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		k := &keyring{key: newKey(t), status: http.StatusOK}
		at := world.Serve("keys.example", k) + "/jwks"
		s := newSite(world, "app.example")
		s.say(`"client_name":"Doc app","redirect_uris":["` + apptest.Callback + `"],"token_endpoint_auth_method":"private_key_jwt",` +
			`"token_endpoint_auth_methods_supported":["none","private_key_jwt"],"jwks_uri":"` + at + `"`)
		k.asked.Store(0)
		r := h.register(`{"redirect_uris":["` + apptest.Callback + `"],"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"` + at + `"}`)
		for name, id := range map[string]string{"registered": r.ClientID, "a document": s.id} {
			c := signer{id: id, alg: jose.ES256, key: k.key}
			for range 2 {
				a := h.signedCode(t, c)
				var tokens oauth.TokenResponse
				a.JSON(t, &tokens)
				if a.StatusCode != http.StatusOK || !h.works(tokens.AccessToken) {
					t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
				}
			}
			code, verifier := h.Code(id, nil)
			refused(t, h.Redeem(id, code, verifier, nil), oauth.InvalidClient)
			refused(t, h.signedCode(t, signer{id: id, alg: jose.ES256, key: newKey(t)}), oauth.InvalidClient)
		}
		if n := k.asked.Load(); n != 1 {
			t.Errorf("the keys were fetched %d times", n)
		}
		push := signer{id: s.id, alg: jose.ES256, key: k.key}.proof(t, h.URL, nil)
		query, _ := h.Authorization(s.id, nil)
		maps.Copy(push, query)
		if a := h.Form("/oauth/par", push); a.StatusCode != http.StatusCreated {
			t.Errorf("pushed: %d %s", a.StatusCode, a.Text)
		}
	}, apptest.Dev)
}

// Attacks 49, 97, 107: keys are fetched from public addresses only; that they cannot
// be had says nothing about why, and is not the end of the client.
func TestKeysThatCannotBeHad(t *testing.T) {
	world := outboundtest.New(t)
	k := &keyring{key: newKey(t), status: http.StatusNotFound}
	at := world.Serve("keys.example", k) + "/jwks"
	h := start(t, apptest.Dev, documented(world))
	r := h.register(`{"redirect_uris":["` + apptest.Callback + `"],"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"` + at + `"}`)
	form := signer{id: r.ClientID, alg: jose.ES256, key: k.key}.proof(t, h.URL, nil)
	form.Set("token", "x")
	h.unchanged(t, func() {
		a := h.Form("/oauth/revoke", form)
		if a.StatusCode != http.StatusServiceUnavailable || a.Error() != oauth.TemporarilyUnavailable {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	})
	for name, body := range map[string]string{
		"inner":             `"jwks_uri":"https://10.0.0.1/jwks"`,
		"http":              `"jwks_uri":"http://keys.example/jwks"`,
		"both":              `"jwks_uri":"` + at + `","jwks":` + published(k.key),
		"neither":           `"client_name":"x"`,
		"keys without use":  `"jwks":{"keys":[{"kty":"EC","crv":"P-384","x":"A","y":"A"}]}`,
		"a private key":     `"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"A","y":"A","d":"A"}]}`,
		"keys in no list":   `"jwks":{"keys":"one"}`,
		"an address in one": `"jwks_uri":["` + at + `"]`,
	} {
		h.unchanged(t, func() {
			a := h.PostJSON("/oauth/register", `{"redirect_uris":["`+apptest.Callback+`"],"token_endpoint_auth_method":"private_key_jwt",`+body+`}`)
			if a.StatusCode != http.StatusBadRequest || a.Error() != oauth.InvalidClientMetadata {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
			}
		})
	}
}
