package oauth_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth/oauthtest"
)

const endpoint = "https://gw.example/mcp"

// RFC 9449 §4.2: a proof of any algorithm that is promised is read, and names its key.
func TestProofsAreRead(t *testing.T) {
	for _, alg := range oauth.ProofAlgorithms {
		key := oauthtest.NewKey(t, alg)
		raw := key.Proof("POST", endpoint, "the token", map[string]any{"jti": "1", "nonce": "n", "#kid": "mine", "more": []int{1}, "iat": float64(time.Now().Unix()) + 0.5})
		p, err := oauth.ParseProof([]string{raw})
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if p.Key != key.Thumbprint() || p.ID != "1" || p.Nonce != "n" || !oauth.IsThumbprint(p.Key) || !p.For("the token") || p.For("another") || p.For("") {
			t.Errorf("%s: %+v", alg, p)
		}
		if err := p.Judge("POST", endpoint, time.Now()); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		again, _ := oauth.ParseProof([]string{raw})
		other, _ := oauth.ParseProof([]string{key.Proof("POST", endpoint, "", map[string]any{"jti": "2"})})
		if p.Mark() != again.Mark() || p.Mark() == other.Mark() {
			t.Errorf("%s: marks %s %s %s", alg, p.Mark(), again.Mark(), other.Mark())
		}
	}
}

// Attack 94: whatever is wrong with a proof itself.
func TestBadProofsAreRefused(t *testing.T) {
	key, rsa := oauthtest.NewKey(t, "ES256"), oauthtest.NewKey(t, "RS256")
	with := func(name string, value any) string {
		return key.Proof("POST", endpoint, "", map[string]any{name: value})
	}
	good := with("jti", "1")
	parts := strings.Split(good, ".")
	symmetric := json.RawMessage(`{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)
	twice := `{"typ":"dpop+jwt","alg":"ES256","jwk":` + string(rsa.JWK(false)) + `,"jwk":` + string(key.JWK(false)) + `}`
	for name, headers := range map[string][]string{
		"none":                   nil,
		"two":                    {good, good},
		"empty":                  {""},
		"no JWT":                 {"abc"},
		"two parts":              {parts[0] + "." + parts[1]},
		"four parts":             {good + ".x"},
		"no signature":           {parts[0] + "." + parts[1] + "."},
		"another's claims":       {parts[0] + "." + strings.Split(with("jti", "2"), ".")[1] + "." + parts[2]},
		"64 KB":                  {with("x", strings.Repeat("x", 64<<10))},
		"typ JWT":                {with("#typ", "JWT")},
		"no typ":                 {with("#typ", nil)},
		"typ at+jwt":             {with("#typ", "at+jwt")},
		"alg none":               {with("#alg", "none")},
		"alg HS256":              {with("#alg", "HS256")},
		"alg EdDSA":              {with("#alg", "EdDSA")},
		"alg of another curve":   {oauthtest.NewKey(t, "ES384").Proof("POST", endpoint, "", nil)},
		"no alg":                 {with("#alg", nil)},
		"alg a number":           {with("#alg", 256)},
		"no jwk":                 {with("#jwk", nil)},
		"a private jwk":          {with("#jwk", key.JWK(true))},
		"a symmetric jwk":        {with("#jwk", symmetric)},
		"another's jwk":          {with("#jwk", oauthtest.NewKey(t, "ES256").JWK(false))},
		"a jwk of another type":  {with("#jwk", rsa.JWK(false))},
		"a private RSA jwk":      {rsa.Proof("POST", endpoint, "", map[string]any{"#jwk": rsa.JWK(true)})},
		"jwk a string":           {with("#jwk", "x")},
		"two jwks":               {key.Sign(twice, `{"jti":"1","htm":"POST","htu":"`+endpoint+`","iat":1}`)},
		"crit":                   {with("#crit", []string{"exp"})},
		"no jti":                 {with("jti", nil)},
		"an empty jti":           {with("jti", "")},
		"a long jti":             {with("jti", strings.Repeat("x", 300))},
		"jti a number":           {with("jti", 1)},
		"no htm":                 {with("htm", nil)},
		"no htu":                 {with("htu", nil)},
		"no iat":                 {with("iat", nil)},
		"iat a string":           {with("iat", "1")},
		"iat of 1e300":           {with("iat", 1e300)},
		"iat negative":           {with("iat", -1)},
		"claims that are a list": {key.Sign(`{"typ":"dpop+jwt","alg":"ES256","jwk":`+string(key.JWK(false))+`}`, `[]`)},
		"htm twice":              {key.Sign(`{"typ":"dpop+jwt","alg":"ES256","jwk":`+string(key.JWK(false))+`}`, `{"jti":"1","htm":"GET","htm":"POST","htu":"`+endpoint+`","iat":1}`)},
	} {
		if p, err := oauth.ParseProof(headers); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if _, err := oauth.ParseProof([]string{good}); err != nil {
		t.Errorf("the positive twin: %v", err)
	}
}

// Attack 94: a proof is for one method, one address without its query, and now.
func TestProofsAreForOneRequest(t *testing.T) {
	key, now := oauthtest.NewKey(t, "EdDSA"), time.Now()
	for name, row := range map[string]struct {
		claim string
		value any
		ok    bool
	}{
		"as it is":            {"jti", "1", true},
		"with a query":        {"htu", endpoint + "?a=b#c", true},
		"in capitals":         {"htu", "HTTPS://GW.Example/mcp", true},
		"with the usual port": {"htu", "https://gw.example:443/mcp", true},
		"four minutes old":    {"iat", now.Add(-4 * time.Minute).Unix(), true},
		"four minutes ahead":  {"iat", now.Add(4 * time.Minute).Unix(), true},
		"ten minutes old":     {"iat", now.Add(-10 * time.Minute).Unix(), false},
		"ten minutes ahead":   {"iat", now.Add(10 * time.Minute).Unix(), false},
		"another method":      {"htm", "GET", false},
		"a small method":      {"htm", "post", false},
		"another host":        {"htu", "https://gw.example.evil.example/mcp", false},
		"another port":        {"htu", "https://gw.example:8443/mcp", false},
		"another scheme":      {"htu", "http://gw.example/mcp", false},
		"another path":        {"htu", "https://gw.example/mcp/", false},
		"a path in capitals":  {"htu", "https://gw.example/MCP", false},
		"no path":             {"htu", "https://gw.example", false},
		"a user":              {"htu", "https://a@gw.example/mcp", false},
		"no address":          {"htu", "mcp", false},
		"dots":                {"htu", "https://gw.example/x/../mcp", false},
	} {
		p, err := oauth.ParseProof([]string{key.Proof("POST", endpoint, "", map[string]any{row.claim: row.value})})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := p.Judge("POST", endpoint, now); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProofChallenge(t *testing.T) {
	want := `DPoP error="use_dpop_nonce", algs="ES256 EdDSA PS256 RS256"`
	if got := (oauth.ProofChallenge{Error: oauth.UseNonce}).String(); got != want {
		t.Errorf("%s", got)
	}
	c := oauth.ParseChallenges([]string{`Bearer realm="x"`, oauth.ProofChallenge{Error: "a\"b", ResourceMetadata: "https://x"}.String()})
	if len(c) != 2 || c[1].Scheme != "dpop" || c[1].Params["error"] != "a'b" || c[1].ResourceMetadata() != "https://x" {
		t.Errorf("%+v", c)
	}
}

func FuzzProof(f *testing.F) {
	key := oauthtest.NewKey(f, "ES256")
	f.Add(key.Proof("POST", endpoint, "x", nil))
	f.Add(key.Proof("POST", endpoint, "", map[string]any{"#jwk": json.RawMessage(`{"kty":"oct","k":"AA"}`), "iat": 1e300}))
	f.Add("a.b.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := oauth.ParseProof([]string{raw})
		if err == nil && (!oauth.IsThumbprint(p.Key) || p.ID == "" || p.Issued < 1 || len(p.Mark()) != 43) {
			t.Errorf("%q: %+v", raw, p)
		}
		_ = p.Judge("POST", endpoint, time.Now())
	})
}

func BenchmarkParseProof(b *testing.B) {
	for _, alg := range oauth.ProofAlgorithms {
		headers := []string{oauthtest.NewKey(b, alg).Proof("POST", endpoint, "x", nil)}
		b.Run(alg, func(b *testing.B) {
			for b.Loop() {
				if _, err := oauth.ParseProof(headers); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
