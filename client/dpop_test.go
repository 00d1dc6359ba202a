package client

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// binding is a server and an issuer that bind tokens to keys, and judge each proof.
type binding struct {
	*fake
	mu     sync.Mutex
	kind   string            // token_type of the answer
	nonces map[string]string // wanted, by path; "" wants none
	keys   map[string]bool   // thumbprints seen
	ids    map[string]bool
	faults []string
	asked  int // of the token endpoint
}

func newBinding(t *testing.T) *binding {
	b := &binding{fake: newFake(t), kind: "DPoP", nonces: map[string]string{}, keys: map[string]bool{}, ids: map[string]bool{}}
	b.as.ProofAlgs, b.prm.ProofAlgs = []string{"ES256"}, []string{"ES256"}
	b.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		b.asked++
		if !b.judge(w, r, "") {
			return
		}
		rec := &typed{ResponseWriter: w, kind: b.kind}
		b.token(rec, r)
	}
	b.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
		token, bound := strings.CutPrefix(r.Header.Get("Authorization"), "DPoP ")
		if bound && !b.judge(w, r, token) {
			return
		}
		if bound {
			r.Header.Set("Authorization", "Bearer "+token)
		} else if token != "" && b.kind == "DPoP" {
			b.fault("a bound token was sent as %.10s", token)
		}
		b.fake.mcp(w, r)
	}
	return b
}

// typed writes a token answer with another type.
type typed struct {
	http.ResponseWriter
	kind string
}

func (w *typed) Write(p []byte) (int, error) {
	return w.ResponseWriter.Write([]byte(strings.Replace(string(p), `"token_type":"bearer"`, `"token_type":"`+w.kind+`"`, 1)))
}

func (b *binding) fault(format string, args ...any) {
	b.faults = append(b.faults, fmt.Sprintf(format, args...))
}

// judge checks a proof (RFC 9449 §4.3).
func (b *binding) judge(w http.ResponseWriter, r *http.Request, token string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	proof, err := jwt.ParseSigned(r.Header.Get("DPoP"), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		b.fault("%s %s: %v", r.Method, r.URL.Path, err)
		return true
	}
	var claims struct {
		ID     string `json:"jti"`
		Method string `json:"htm"`
		URL    string `json:"htu"`
		Issued int64  `json:"iat"`
		Token  string `json:"ath"`
		Nonce  string `json:"nonce"`
	}
	key := proof.Headers[0].JSONWebKey
	if key == nil || !key.IsPublic() || proof.Claims(key, &claims) != nil {
		b.fault("%s: no key, or not its signature", r.URL.Path)
		return true
	}
	print, _ := key.Thumbprint(crypto.SHA256)
	sum := sha256.Sum256([]byte(token))
	switch {
	case proof.Headers[0].ExtraHeaders["typ"] != "dpop+jwt", claims.Method != r.Method, claims.URL != b.URL+r.URL.Path, time.Since(time.Unix(claims.Issued, 0)).Abs() > time.Minute:
		b.fault("%s: %+v", r.URL.Path, claims)
	case b.ids[claims.ID]:
		b.fault("%s: a proof was used twice", r.URL.Path)
	case (token == "") != (claims.Token == ""), token != "" && claims.Token != base64.RawURLEncoding.EncodeToString(sum[:]):
		b.fault("%s: for another token", r.URL.Path)
	}
	b.ids[claims.ID], b.keys[string(print)] = true, true
	if want := b.nonces[r.URL.Path]; claims.Nonce != want {
		w.Header().Set("DPoP-Nonce", want)
		w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
		status := http.StatusUnauthorized
		if token == "" {
			status = http.StatusBadRequest
		}
		writeJSON(w, status, oauth.ErrorResponse{Error: "use_dpop_nonce"})
		return false
	}
	return true
}

// Where both sides take bound tokens each request is proven anew, with the same key
// for as long as the sign-in lasts, and with the nonce a server wants.
func TestTokensAreBoundToAKey(t *testing.T) {
	for name, nonces := range map[string]map[string]string{
		"plain":  {},
		"nonces": {"/token": "n1", "/mcp": "n2"},
	} {
		b := newBinding(t)
		b.nonces = nonces
		c := signedIn(t, b.fake)
		s, err := c.Connect(short(t), b.server())
		if err != nil {
			t.Fatal(name, err)
		}
		b.set(func() { b.valid = "another" }) // a refresh is proven too
		if _, err := s.Call(short(t), "echo", nil, nil); err != nil {
			t.Error(name, err)
		}
		s.Close(short(t))
		if len(b.faults) != 0 || len(b.keys) != 1 || b.count("token refresh_token") != 1 {
			t.Errorf("%s: %d keys, %q", name, len(b.keys), b.faults)
		}
		logins, _ := c.Logins()
		if text, _ := os.ReadFile(c.file()); !strings.Contains(string(text), "dpop_key") || len(logins) != 1 {
			t.Errorf("%s: the key is not kept: %s", name, text)
		}
	}
}

// A server that always wants another nonce is asked twice and no more.
func TestNonceThatNeverFits(t *testing.T) {
	b := newBinding(t)
	n := 0
	inner := b.override["/token"]
	b.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		n++
		b.nonces["/token"] = fmt.Sprint("n", n)
		inner(w, r)
	}
	_, err := newClient(t).Login(short(t), b.server(), LoginOptions{Open: new(browser).open})
	if !errors.Is(err, ErrAuthentication) || !strings.Contains(err.Error(), "use_dpop_nonce") || b.asked != 2 {
		t.Errorf("asked %d times, %v", b.asked, err)
	}
}

// Tokens are bound only where both can, and where the issuer did; a token that is
// bound to nothing of ours is refused.
func TestTokensThatAreNotBound(t *testing.T) {
	tests := []struct {
		name   string
		change func(*binding)
		proofs bool
		bound  bool
		fails  bool
	}{
		{"both", func(*binding) {}, true, true, false},
		{"required", func(b *binding) { b.prm.ProofAlgs, b.prm.ProofRequired = nil, true }, true, true, false},
		{"by challenge", func(b *binding) {
			b.prm.ProofAlgs, b.challenge = nil, strings.Replace(b.challenge, "Bearer", "DPoP", 1)
		}, true, true, false},
		{"issuer did not", func(b *binding) { b.kind = "Bearer" }, true, false, false},
		{"server does not", func(b *binding) { b.prm.ProofAlgs, b.kind = nil, "Bearer" }, false, false, false},
		{"issuer does not", func(b *binding) { b.as.ProofAlgs, b.kind = nil, "Bearer" }, false, false, false},
		{"issuer has other keys", func(b *binding) { b.as.ProofAlgs, b.kind = []string{"RS256"}, "Bearer" }, false, false, false},
		{"bound unasked", func(b *binding) { b.as.ProofAlgs = nil }, false, false, true},
	}
	for _, tt := range tests {
		b := newBinding(t)
		tt.change(b)
		proofs := false
		inner := b.override["/token"]
		b.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
			if proofs = r.Header.Get("DPoP") != ""; proofs {
				inner(w, r)
				return
			}
			b.token(&typed{ResponseWriter: w, kind: b.kind}, r)
		}
		c := newClient(t)
		_, err := c.Login(short(t), b.server(), LoginOptions{Open: new(browser).open})
		cr, _ := c.load()
		if (err != nil) != tt.fails || proofs != tt.proofs || (cr.Logins[b.server()].Key != nil) != tt.bound {
			t.Errorf("%s: proofs %t, bound %t, %v", tt.name, proofs, cr.Logins[b.server()].Key != nil, err)
		}
		if err != nil {
			continue
		}
		if _, err := c.Connect(short(t), b.server()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
