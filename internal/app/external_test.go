package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// elsewhere is the authorization server of somebody else: it publishes a key, and
// knows opaque tokens.
type elsewhere struct {
	*httptest.Server
	t      *testing.T
	key    *ecdsa.PrivateKey
	opaque map[string]map[string]any
	asked  atomic.Int64
}

func newElsewhere(t *testing.T) *elsewhere {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := &elsewhere{t: t, key: key, opaque: map[string]map[string]any{}}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var answer any
		switch r.URL.Path {
		case "/.well-known/oauth-authorization-server":
			answer = map[string]string{"issuer": e.URL, "jwks_uri": e.URL + "/keys", "introspection_endpoint": e.URL + "/introspect"}
		case "/keys":
			answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Use: "sig", Algorithm: "ES256"}}}
		case "/introspect":
			e.asked.Add(1)
			if user, secret, _ := r.BasicAuth(); user != "gatehouse" || secret != "s3cret%21" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			answer = map[string]any{"active": false}
			if claims, known := e.opaque[r.FormValue("token")]; known {
				answer = claims
			}
		default:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(e.Close)
	return e
}

// token is one of the issuer's, with claims changed; nil takes one away.
func (e *elsewhere) token(typ string, change map[string]any) string {
	claims := e.claims(change)
	options := (&jose.SignerOptions{}).WithHeader("kid", "k")
	if typ != "" {
		options = options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: e.key}, options)
	if err != nil {
		e.t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	signed, err := signer.Sign(payload)
	if err != nil {
		e.t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		e.t.Fatal(err)
	}
	return raw
}

func (e *elsewhere) claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": e.URL, "sub": "alice", "aud": "gatehouse", "exp": now + 300, "iat": now, "jti": rand.Text(), "client_id": "app", "scope": "mcp:tools",
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// trusting is a house whose tokens are those of e.
func trusting(t *testing.T, e *elsewhere, change ...func(*app.Config)) *apptest.House {
	return apptest.Open(t, append([]func(*app.Config){func(c *app.Config) {
		c.External = app.External{
			Issuers: []string{e.URL}, Audiences: []string{"gatehouse"}, RankClaim: "realm_access.roles", Admins: []string{"gate-admins"}, Standards: []string{"staff"},
		}
	}}, change...)...)
}

// whoami asks the house who comes with a token; empty if it is nobody.
func whoami(t *testing.T, h *apptest.House, raw string) (status int, who map[string]any) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, h.URL+"/mcp/tool/whoami", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+raw)
	answer := h.Do(r)
	if answer.StatusCode == http.StatusOK {
		answer.JSON(t, &who)
	}
	return answer.StatusCode, who
}

// R517: with external issuers there is no authorization server of ours, and every
// document leads to theirs.
func TestExternalIssuersReplaceOurs(t *testing.T) {
	e := newElsewhere(t)
	h := trusting(t, e)
	for _, path := range []string{"/oauth/authorize", "/oauth/token", "/token", "/oauth/register", "/oauth/revoke", "/.well-known/oauth-authorization-server", "/.well-known/jwks.json"} {
		if answer := h.Get(path); answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s answers %d", path, answer.StatusCode)
		}
	}
	for _, path := range []string{"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"} {
		var m struct {
			Servers []string `json:"authorization_servers"`
		}
		if h.Get(path).JSON(t, &m); len(m.Servers) != 1 || m.Servers[0] != e.URL {
			t.Errorf("%s names %q", path, m.Servers)
		}
	}
}

// R517, R505: whose token it is, with which rank, and what is no token for here.
func TestTokensOfAnExternalIssuer(t *testing.T) {
	e := newElsewhere(t)
	h := trusting(t, e)
	mcp := h.URL + "/mcp"
	roles := func(names ...string) map[string]any {
		return map[string]any{"realm_access": map[string]any{"roles": names}}
	}
	for name, want := range map[string]struct {
		typ    string
		change map[string]any
		rank   string // empty: 401
	}{
		"plain":                        {"at+jwt", nil, "readonly"},
		"as many issuers type it":      {"JWT", nil, "readonly"},
		"without a type":               {"", nil, "readonly"},
		"a bearer by its own claim":    {"JWT", map[string]any{"typ": "Bearer"}, "readonly"},
		"for the endpoint itself":      {"at+jwt", map[string]any{"aud": []string{"other", mcp}}, "readonly"},
		"scopes as a list":             {"at+jwt", map[string]any{"scope": nil, "scp": []string{"mcp:read"}}, "readonly"},
		"an admin":                     {"at+jwt", roles("x", "gate-admins"), "admin"},
		"a standard member":            {"at+jwt", roles("staff"), "standard"},
		"a role like another's":        {"at+jwt", roles("staff2"), "readonly"},
		"roles that are none":          {"at+jwt", map[string]any{"realm_access": "gate-admins"}, "readonly"},
		"a claim with a dotted name":   {"at+jwt", map[string]any{"realm_access.roles": "gate-admins"}, "admin"},
		"an ID token":                  {"JWT", map[string]any{"nonce": "n"}, ""},
		"an ID token without nonce":    {"JWT", map[string]any{"at_hash": "h"}, ""},
		"an ID token by its own claim": {"JWT", map[string]any{"typ": "ID"}, ""},
		"a logout token":               {"logout+jwt", nil, ""},
		"a client assertion's type":    {"client-authentication+jwt", nil, ""},
		"for another audience":         {"at+jwt", map[string]any{"aud": "other"}, ""},
		"for another endpoint":         {"at+jwt", map[string]any{"aud": h.URL + "/s/a/mcp"}, ""},
		"for a prefix of it":           {"at+jwt", map[string]any{"aud": h.URL}, ""},
		"without an audience":          {"at+jwt", map[string]any{"aud": nil}, ""},
		"audience of another form":     {"at+jwt", map[string]any{"aud": 7}, ""},
		"an empty list of audiences":   {"at+jwt", map[string]any{"aud": []string{}}, ""},
		"expired":                      {"at+jwt", map[string]any{"exp": time.Now().Unix() - 60}, ""},
		"without an end":               {"at+jwt", map[string]any{"exp": nil}, ""},
		"an end of another form":       {"at+jwt", map[string]any{"exp": "soon"}, ""},
		"not yet good":                 {"at+jwt", map[string]any{"nbf": time.Now().Unix() + 600}, ""},
		"from the future":              {"at+jwt", map[string]any{"iat": time.Now().Unix() + 600}, ""},
		"without a subject":            {"at+jwt", map[string]any{"sub": ""}, ""},
		"without an end in sight":      {"at+jwt", map[string]any{"exp": time.Now().Unix() + 400*86400}, ""},
		"of another issuer":            {"at+jwt", map[string]any{"iss": e.URL + "/"}, ""},
	} {
		status, who := whoami(t, h, e.token(want.typ, want.change))
		switch {
		case want.rank == "" && status != http.StatusUnauthorized:
			t.Errorf("%s: %d %v", name, status, who)
		case want.rank != "" && (status != http.StatusOK || who["rank"] != want.rank):
			t.Errorf("%s: %d %v, want rank %s", name, status, who, want.rank)
		}
	}
	if status, _ := whoami(t, h, newElsewhere(t).token("at+jwt", map[string]any{"iss": e.URL})); status != http.StatusUnauthorized {
		t.Errorf("a key of somebody else: %d", status)
	}
}

// R517: issuer and subject name a person, and nothing else does.
func TestExternalSubjectsAreTheSamePersonEachTime(t *testing.T) {
	e := newElsewhere(t)
	other := newElsewhere(t)
	h := trusting(t, e, func(c *app.Config) { c.External.Issuers = append(c.External.Issuers, other.URL) })
	id := func(raw string) any {
		status, who := whoami(t, h, raw)
		if status != http.StatusOK || who["user"] == "" {
			t.Fatal(status, who)
		}
		return who["user"]
	}
	alice := id(e.token("at+jwt", nil))
	if again := id(e.token("at+jwt", map[string]any{"client_id": "another"})); again != alice {
		t.Errorf("alice is %v, and then %v", alice, again)
	}
	if bob := id(e.token("at+jwt", map[string]any{"sub": "bob", "email": "alice@example.org"})); bob == alice {
		t.Error("another subject is the same person")
	}
	if her := id(other.token("at+jwt", nil)); her == alice {
		t.Error("the same name at another issuer is the same person")
	}
	if n := h.Count(`SELECT count(*) FROM member`); n != 3 {
		t.Errorf("%d members", n)
	}
	h.SQL(`UPDATE member SET status = 'suspended' WHERE user_id = $1`, alice)
	if status, _ := whoami(t, h, e.token("at+jwt", nil)); status != http.StatusUnauthorized {
		t.Errorf("suspended: %d", status)
	}
}

// RFC 7662: a token that only its issuer can read is asked about, as a client that
// the issuer knows.
func TestOpaqueTokensOfAnExternalIssuer(t *testing.T) {
	e := newElsewhere(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := trusting(t, e, func(c *app.Config) { c.External.ClientID, c.External.SecretFile = "gatehouse", secret })
	active := func(change map[string]any) map[string]any {
		claims := e.claims(change)
		claims["active"] = true
		return claims
	}
	e.opaque["good"] = active(map[string]any{"iss": nil, "token_type": "Bearer"})
	e.opaque["inactive"] = map[string]any{"active": false, "sub": "alice"}
	e.opaque["for-another"] = active(map[string]any{"aud": "other"})
	e.opaque["of-another"] = active(map[string]any{"iss": "https://evil.example"})
	e.opaque["endless"] = active(map[string]any{"exp": nil})
	for raw, want := range map[string]int{
		"good": 200, "inactive": 401, "unknown": 401, "for-another": 401, "of-another": 401, "endless": 401,
	} {
		if status, who := whoami(t, h, raw); status != want {
			t.Errorf("%s: %d %v", raw, status, who)
		}
	}
	before := e.asked.Load()
	for range 20 {
		whoami(t, h, "good")
	}
	if asked := e.asked.Load() - before; asked != 0 {
		t.Errorf("20 calls with a known token asked %d times", asked)
	}
	e.Close()
	if status, _ := whoami(t, h, "another"); status != http.StatusServiceUnavailable {
		t.Errorf("while the issuer is away: %d", status)
	}
}
