package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// pair is a private key and the set with its public one.
type pair struct {
	alg     jose.SignatureAlgorithm
	private any
	kid     string
}

func pairs(t *testing.T) map[string]pair {
	t.Helper()
	ec, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, err2 := ed25519.GenerateKey(rand.Reader)
	rs, err3 := rsa.GenerateKey(rand.Reader, 2048)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	return map[string]pair{
		"ES256": {jose.ES256, ec, "ec"}, "EdDSA": {jose.EdDSA, ed, "ed"}, "RS256": {jose.RS256, rs, "rs"}, "PS256": {jose.PS256, rs, "rs"},
	}
}

func (p pair) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: p.private.(crypto.Signer).Public(), KeyID: p.kid}
}

func document(keys ...any) []byte {
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	return b
}

func (p pair) sign(t *testing.T, payload string, extra ...string) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	for i := 0; i < len(extra); i += 2 {
		options = options.WithHeader(jose.HeaderKey(extra[i]), extra[i+1])
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.alg, Key: jose.JSONWebKey{Key: p.private, KeyID: p.kid}}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func verify(raw string, set Set) (Claims, error) {
	j, err := Read(raw)
	if err != nil {
		return Claims{}, err
	}
	return j.Verify(set)
}

// Each algorithm verifies by the type of key that it belongs to, and by no other
// (attacks 45, 86).
func TestAnAlgorithmIsPinnedToItsKey(t *testing.T) {
	all := pairs(t)
	for signs, p := range all {
		raw := p.sign(t, `{"iss":"i","sub":"s"}`)
		for holds, q := range all {
			public := q.public()
			public.KeyID = p.kid
			set, err := Parse(document(public))
			if err != nil || set.Empty() {
				t.Fatalf("%s: %v", holds, err)
			}
			c, err := verify(raw, set)
			if same := p.kid == q.kid; same != (err == nil && c.Issuer == "i" && c.Subject == "s") {
				t.Errorf("signed with %s, a key for %s: %v", signs, holds, err)
			}
			public.Algorithm = holds
			set, _ = Parse(document(public))
			if _, err := verify(raw, set); (err == nil) != (signs == holds) {
				t.Errorf("signed with %s, a key that says %s: %v", signs, holds, err)
			}
		}
	}
}

// What could verify something it should not is left out of a set, and the rest is
// good: issuers publish keys for other purposes as well.
func TestSetHoldsPublicKeysForSigning(t *testing.T) {
	p := pairs(t)
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	encrypts, other := p["ES256"].public(), p["ES256"].public()
	encrypts.Use, other.Algorithm = "enc", "HS256"
	for what, key := range map[string]any{
		"a private key":          jose.JSONWebKey{Key: p["ES256"].private, KeyID: "ec"},
		"a symmetric key":        map[string]string{"kty": "oct", "kid": "ec", "k": "c2VjcmV0"},
		"a key for encryption":   encrypts,
		"a key for another alg":  other,
		"a short RSA key":        jose.JSONWebKey{Key: small.Public(), KeyID: "ec"},
		"a curve that is not":    jose.JSONWebKey{Key: p384.Public(), KeyID: "ec"},
		"a type nobody knows":    map[string]string{"kty": "QQ", "kid": "ec"},
		"a point off the curve":  map[string]string{"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)},
		"no object":              "key",
		"a list in place of one": []int{1},
	} {
		set, err := Parse(document(key))
		if err != nil || !set.Empty() {
			t.Errorf("%s: %d keys, %v", what, len(set.keys), err)
		}
		if set, err = Parse(document(key, p["EdDSA"].public())); err != nil || len(set.keys) != 1 {
			t.Errorf("%s beside a good one: %d keys, %v", what, len(set.keys), err)
		}
	}
	for what, text := range map[string]string{
		"nothing": "", "a list": "[]", "text": `"keys"`, "keys that are none": `{"keys":{}}`, "a long one": `{"keys":[` + strings.Repeat(" ", MaxBytes) + `]}`,
		"many keys": `{"keys":[1` + strings.Repeat(",1", maxKeys) + `]}`,
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s is a set", what)
		}
	}
}

// Attacks 45, 86, 87, 89: what is no JWT signed with a key of the set is refused,
// whatever its header says.
func TestOnlyASignatureOfTheSetIsGood(t *testing.T) {
	all := pairs(t)
	ours, foreign := all["ES256"], pairs(t)["ES256"]
	set, _ := Parse(document(ours.public()))
	payload := `{"iss":"i"}`
	good := ours.sign(t, payload)
	parts := strings.Split(good, ".")
	b64 := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	der, _ := x509.MarshalPKIXPublicKey(ours.public().Key)
	hmac := pair{jose.HS256, der, "ec"}
	embedded, _ := json.Marshal(foreign.public())
	for what, raw := range map[string]string{
		"a foreign key":                foreign.sign(t, payload),
		"a foreign key in its header":  foreign.sign(t, payload, "jku", "https://evil.example/keys"),
		"a foreign key, embedded":      b64(`{"alg":"ES256","kid":"ec","jwk":`+string(embedded)+`}`) + "." + b64(payload) + "." + strings.Split(foreign.sign(t, payload), ".")[2],
		"HS256 with the public key":    hmac.sign(t, payload),
		"none":                         b64(`{"alg":"none"}`) + "." + b64(payload) + ".",
		"nOnE":                         b64(`{"alg":"nOnE","kid":"ec"}`) + "." + b64(payload) + ".",
		"no algorithm":                 b64(`{"kid":"ec"}`) + "." + parts[1] + "." + parts[2],
		"another algorithm":            b64(`{"alg":"RS256","kid":"ec"}`) + "." + parts[1] + "." + parts[2],
		"two algorithms":               b64(`{"alg":"none","alg":"ES256","kid":"ec"}`) + "." + parts[1] + "." + parts[2],
		"a critical extension":         ours.sign(t, payload, "crit", "exp"),
		"other claims":                 parts[0] + "." + b64(`{"iss":"j"}`) + "." + parts[2],
		"no signature":                 parts[0] + "." + parts[1] + ".",
		"another id of the key":        pair{jose.ES256, ours.private, "other"}.sign(t, payload),
		"a part too many":              good + ".",
		"an encrypted one":             good + ".a.b",
		"claims twice":                 ours.sign(t, `{"iss":"i","iss":"j"}`),
		"claims that are a list":       ours.sign(t, `["iss"]`),
		"claims that are nothing":      ours.sign(t, `null`),
		"an issuer that is a number":   ours.sign(t, `{"iss":1}`),
		"an id that is an object":      ours.sign(t, `{"iss":"i","jti":{}}`),
		"a time in words":              ours.sign(t, `{"iss":"i","exp":"tomorrow"}`),
		"a time beyond all":            ours.sign(t, `{"iss":"i","exp":1e18}`),
		"a time before all":            ours.sign(t, `{"iss":"i","exp":-1}`),
		"an audience that is a number": ours.sign(t, `{"iss":"i","aud":7}`),
		"an audience of objects":       ours.sign(t, `{"iss":"i","aud":[{}]}`),
		"a long one":                   ours.sign(t, `{"iss":"`+strings.Repeat("i", MaxJWT)+`"}`),
		"dots":                         strings.Repeat(".", 1<<20),
		"deep ones":                    b64(strings.Repeat("[", 5000)) + "." + parts[1] + "." + parts[2],
		"nothing":                      "",
	} {
		if c, err := verify(raw, set); err == nil {
			t.Errorf("%s: %+v", what, c)
		}
	}
	for what, raw := range map[string]string{
		"as it is":                 good,
		"without an id of the key": pair{jose.ES256, ours.private, ""}.sign(t, payload),
		"with a thumbprint":        ours.sign(t, payload, "x5t", "abc"),
	} {
		if _, err := verify(raw, set); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := verify(good, Set{}); err == nil {
		t.Error("the empty set verifies")
	}
}

func TestTypeOfAJWT(t *testing.T) {
	p := pairs(t)["ES256"]
	for header, want := range map[string]string{"JWT": "jwt", "application/oauth-id-jag+jwt": "oauth-id-jag+jwt", "": ""} {
		signer, _ := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.private}, (&jose.SignerOptions{}).WithType(jose.ContentType(header)))
		signed, _ := signer.Sign([]byte(`{}`))
		raw, _ := signed.CompactSerialize()
		if j, err := Read(raw); err != nil || j.Type != want {
			t.Errorf("typ %q is %q, %v", header, j.Type, err)
		}
	}
}

// Attack 45: what never expires, has expired, or lasts too long is refused, and a
// clock that differs by a few seconds is not.
func TestTimes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for name, r := range map[string]struct {
		c    Claims
		good bool
	}{
		"in order":                 {Claims{Expires: at(time.Minute), Issued: at(0), NotBefore: at(0)}, true},
		"exp alone":                {Claims{Expires: at(5 * time.Minute)}, true},
		"a clock that goes before": {Claims{Expires: at(5*time.Minute + 20*time.Second), Issued: at(20 * time.Second)}, true},
		"a clock that goes after":  {Claims{Expires: at(-20 * time.Second)}, true},
		"no exp":                   {Claims{Issued: at(0)}, false},
		"expired":                  {Claims{Expires: at(-30 * time.Second)}, false},
		"in an hour":               {Claims{Expires: at(time.Hour)}, false},
		"nbf ahead":                {Claims{Expires: at(5 * time.Minute), NotBefore: at(time.Minute)}, false},
		"iat ahead":                {Claims{Expires: at(5 * time.Minute), Issued: at(time.Minute)}, false},
	} {
		if err := r.c.Judge(now, 5*time.Minute); (err == nil) != r.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Attack 45: for us and for nobody else.
func TestOneAudience(t *testing.T) {
	for list, want := range map[string]bool{
		`"https://as.example"`: true, `["https://as.example"]`: true,
		`"https://as.example/"`: false, `"https://AS.example"`: false, `["https://as.example","https://other.example"]`: false,
		`["https://as.example","https://as.example"]`: false, `[]`: false, `""`: false, `null`: false,
	} {
		c, err := ParseClaims([]byte(fmt.Sprintf(`{"aud":%s}`, list)))
		if err != nil || c.Only("https://as.example") != want {
			t.Errorf("%s: %v", list, err)
		}
		if c.Only("") {
			t.Errorf("%s is for an issuer without a name", list)
		}
	}
}

// FuzzVerify: attacks 86 to 91. Nothing verifies that was not signed with a key of
// the set, and nothing breaks the reader.
func FuzzVerify(f *testing.F) {
	ours, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	set, err := Parse(document(jose.JSONWebKey{Key: ours.Public(), KeyID: "ec"}, jose.JSONWebKey{Key: edwards.Public(), KeyID: "ed"}))
	if err != nil {
		f.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for _, head := range []string{
		`{"alg":"ES256","kid":"ec","typ":"at+jwt"}`, `{"alg":"EdDSA"}`, `{"alg":"none"}`, `{"alg":"HS256","kid":"ec"}`, `{"alg":"ES256","crit":["b64"],"b64":false}`,
		`{"alg":"ES256","jwk":{"kty":"EC"}}`, `{"alg":["ES256"]}`, `{"alg":"ES256","alg":"none"}`,
	} {
		f.Add(b64([]byte(head)) + "." + b64([]byte(`{"iss":"i","sub":"s","aud":["a"],"exp":1e9}`)) + "." + b64(make([]byte, 64)))
	}
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		j, err := Read(raw)
		if err != nil {
			return
		}
		if c, err := j.Verify(set); err == nil {
			t.Errorf("%q verifies: %+v", raw, c)
		}
	})
}

// FuzzClaims: claims are read alike or refused, and times stay in their bounds.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"iss":"i","sub":"s","aud":["a","b"],"exp":1800000000.5,"iat":1,"nbf":2,"jti":"x"}`))
	f.Add([]byte(`{"aud":"a","exp":1e18}`))
	f.Add([]byte(`{"iss":"i","iss":"j"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := ParseClaims(payload)
		if err == nil && (c.Expires < 0 || c.Issued < 0 || c.NotBefore < 0 || c.Expires >= 1<<40) {
			t.Errorf("%q: %+v", payload, c)
		}
	})
}
