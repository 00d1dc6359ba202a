package attacks_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Group 11, JWTs: nothing that a token says about itself is believed before its
// signature, and little after it.
func TestJWT(t *testing.T) { attack(t, jwtRows()) }

// The reasons on record of tokens that are not good.
const (
	notJWT     = "the token is too long or no JWT"
	notHeader  = "the header cannot be read"
	foreignHdr = "the header is not one of ours"
	foreignKey = "the type, the algorithm or the key is not one of ours"
	badSign    = "the signature does not match"
	badClaims  = "the claims cannot be read"
	otherAud   = "the token was made for another resource"
)

// forging presents what forge makes of a good token; the good one is the twin.
func forging(forge func(f forger) string) func(*world) (*http.Request, *http.Request) {
	return func(w *world) (*http.Request, *http.Request) {
		tokens := w.tokens(w.alice, w.pubA, nil)
		return w.list("/mcp", forge(w.forger(tokens.AccessToken))), w.list("/mcp", tokens.AccessToken)
	}
}

// kid names the key that signed a token.
func kid(t *testing.T, access string) string {
	t.Helper()
	head, _, _ := strings.Cut(access, ".")
	var h struct{ Kid string }
	plain, err := base64.RawURLEncoding.DecodeString(head)
	if err == nil {
		err = json.Unmarshal(plain, &h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h.Kid
}

func jwtRows() []row {
	var rows []row
	add := func(number int, name, why string, forge func(f forger) string) {
		rows = append(rows, row{number: number, name: name, want: unauthorized(why), build: forging(forge)})
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		add(86, "alg "+alg+", empty signature", foreignKey, func(f forger) string { return encode(f.header("alg", alg)) + "." + encode(f.claims) + "." })
		add(86, "alg "+alg+", the old signature", foreignKey, func(f forger) string {
			return encode(f.header("alg", alg)) + "." + encode(f.claims) + "." + f.signature
		})
	}
	for _, alg := range []string{"RS256", "PS256", "ES384", "ES512", "EdDSA", "es256", "ES256K"} {
		add(86, "alg "+alg+" naming our kid", foreignKey, func(f forger) string { return f.sign(f.header("alg", alg), f.claims) })
	}
	add(86, "ES256, empty signature", badSign, func(f forger) string { return encode(f.head) + "." + encode(f.claims) + "." })
	add(86, "two parts", notJWT, func(f forger) string { return encode(f.head) + "." + encode(f.claims) })
	add(86, "another's claims under the old signature", badSign, func(f forger) string {
		return encode(f.head) + "." + encode(f.with("sub", "usr_bob")) + "." + f.signature
	})
	add(86, "a signature of zeros", badSign, func(f forger) string {
		return encode(f.head) + "." + encode(f.claims) + "." + encode(string(make([]byte, 64)))
	})
	add(86, "a signature of 63 bytes", badSign, func(f forger) string { return f.whole[:len(f.whole)-2] })
	add(86, "a signature of 128 bytes", badSign, func(f forger) string {
		return encode(f.head) + "." + encode(f.claims) + "." + encode(string(make([]byte, 128)))
	})
	add(86, "signed with a key of the attacker's", badSign, func(f forger) string { return f.by(attackersKey()).sign(f.head, f.claims) })
	for name, key := range map[string]func(f forger) []byte{
		"PEM": func(f forger) []byte { return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: f.der()}) }, "DER": forger.der,
		"JWK": func(f forger) []byte { return []byte(f.jwk) }, "no": func(forger) []byte { return nil }, "the kid as": func(f forger) []byte { return []byte(f.kid) },
	} {
		add(86, "HS256 keyed with the public key: "+name, foreignKey, func(f forger) string {
			signed := encode(f.header("alg", "HS256")) + "." + encode(f.claims)
			mac := hmac.New(sha256.New, key(f))
			mac.Write([]byte(signed))
			return signed + "." + encode(string(mac.Sum(nil)))
		})
	}

	var visits atomic.Int64
	trap := func(w *world) string {
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
		w.t.Cleanup(s.Close)
		return s.URL
	}
	for _, member := range []string{"jku", "x5u", "jwk", "x5c", "crit", "x5t", "b64", "cty", "zip", "kid2"} {
		for name, signer := range map[string]func(forger) forger{"our key": func(f forger) forger { return f }, "the attacker's key": func(f forger) forger { return f.by(attackersKey()) }} {
			rows = append(rows, row{number: 87, name: member + " in the header, signed with " + name, story: func(w *world) {
				tokens := w.tokens(w.alice, w.pubA, nil)
				f := signer(w.forger(tokens.AccessToken))
				value := map[string]any{"jku": trap(w) + "/jwks", "x5u": trap(w) + "/x5u", "jwk": json.RawMessage(f.jwk), "x5c": []string{"MIIB"}, "crit": []string{"exp"}, "zip": "DEF"}[member]
				if value == nil {
					value = "x"
				}
				why := foreignHdr
				w.refused(unauthorized(why), w.list("/mcp", f.sign(f.header(member, value), f.claims)))
				w.works(w.list("/mcp", tokens.AccessToken))
				if visits.Load() > 0 {
					w.t.Error("something was fetched")
				}
			}})
		}
	}

	for name, kid := range map[string]string{"unknown": "nobody", "empty": "", "a path": "../../../../dev/null", "SQL": "' or 1=1 --", "an address": "https://evil.example/jwks"} {
		add(88, "kid "+name, foreignKey, func(f forger) string { return f.sign(f.header("kid", kid), f.claims) })
	}
	add(88, "no kid", foreignHdr, func(f forger) string { return f.sign(f.header("kid", nil), f.claims) })
	add(88, "kid a list", foreignHdr, func(f forger) string { return f.sign(f.header("kid", []string{f.kid}), f.claims) })
	add(88, "two kids", foreignKey, func(f forger) string {
		return f.sign(`{"kid":"`+f.kid+`","alg":"ES256","typ":"at+jwt","kid":"nobody"}`, f.claims)
	})
	add(88, "kid of 10 KB", notJWT, func(f forger) string { return f.sign(f.header("kid", strings.Repeat("k", 10<<10)), f.claims) })

	add(89, "40 KB", notJWT, func(f forger) string { return f.sign(f.head, f.with("x", strings.Repeat("x", 40<<10))) })
	add(89, "60,000 dots", notJWT, func(forger) string { return strings.Repeat(".", 60_000) })
	add(89, "a dot", notJWT, func(forger) string { return "." })
	add(89, "nested JSON for a header", foreignHdr, func(f forger) string {
		return encode(strings.Repeat(`{"a":`, 500)+"1"+strings.Repeat("}", 500)) + "." + encode(f.claims) + "." + f.signature
	})
	add(89, "nested JSON for claims", badClaims, func(f forger) string {
		return f.sign(f.head, `{"aud":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+"}")
	})
	add(89, "claims that are a list", badClaims, func(f forger) string { return f.sign(f.head, "[]") })
	add(89, "claims that are no JSON", badClaims, func(f forger) string { return f.sign(f.head, "\x00") })
	add(89, "an encrypted token", notJWT, func(f forger) string { return encode(`{"alg":"dir","enc":"A256GCM"}`) + "..AAAA.AAAA.AAAA" })
	add(89, "PBES2 with a huge count", foreignHdr, func(f forger) string {
		return encode(`{"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":2147483647,"p2s":"AAAA"}`) + ".AAAA.AAAA"
	})
	add(89, "a header that is no base64", notHeader, func(f forger) string { return "!!!." + encode(f.claims) + "." + f.signature })

	now := time.Now()
	for _, r := range []struct {
		name, why string
		claim     string
		value     any
	}{
		{"no exp", "the token has expired", "exp", nil},
		{"exp a string", badClaims, "exp", fmt.Sprint(now.Add(time.Hour).Unix())},
		{"exp in the past", "the token has expired", "exp", now.Add(-time.Second).Unix()},
		{"exp of 1e18", "the token lives longer than any of ours", "exp", json.RawMessage("1000000000000000000")},
		{"exp of 1e18 as a float", badClaims, "exp", json.RawMessage("1e18")},
		{"exp of 1e400", badClaims, "exp", json.RawMessage("1e400")},
		{"exp negative", "the token has expired", "exp", -1},
		{"exp in a year", "the token lives longer than any of ours", "exp", now.Add(365 * 24 * time.Hour).Unix()},
		{"nbf in the future", "the token is from the future", "nbf", now.Add(10 * time.Minute).Unix()},
		{"iat in the future", "the token is from the future", "iat", now.Add(10 * time.Minute).Unix()},
		{"no iat", "the token is from the future", "iat", nil},
		{"no sub", "the token names no subject, client, family, workspace or id", "sub", nil},
		{"an empty sub", "the token names no subject, client, family, workspace or id", "sub", ""},
		{"sub a list", badClaims, "sub", []string{"usr_bob"}},
		{"a sub that is nobody", "the subject is no member", "sub", "usr_nobody"},
		{"the sub of the development identity", "the subject is no member", "sub", "usr_dev"},
		{"another workspace", "the subject is no member", "workspace", "other"},
		{"no workspace", "the token names no subject, client, family, workspace or id", "workspace", nil},
		{"no jti", "the token names no subject, client, family, workspace or id", "jti", nil},
		{"no client", "the token names no subject, client, family, workspace or id", "client_id", nil},
		{"no family", "the token names no subject, client, family, workspace or id", "family", nil},
		{"no iss", "the issuer is another", "iss", nil},
		{"another iss", "the issuer is another", "iss", "https://evil.example"},
	} {
		add(91, r.name, r.why, func(f forger) string { return f.sign(f.head, f.with(r.claim, r.value)) })
	}
	add(91, "iss with a slash at its end", "the issuer is another", func(f forger) string { return f.sign(f.head, f.with("iss", f.issuer+"/")) })
	add(91, "iss in capitals", "the issuer is another", func(f forger) string { return f.sign(f.head, f.with("iss", strings.ToUpper(f.issuer))) })

	return append(rows,
		row{number: 86, name: "the forger can sign at all", story: func(w *world) { // or nothing above means anything
			f := w.forger(w.tokens(w.alice, w.pubA, nil).AccessToken)
			w.works(w.list("/mcp", w.keep("the forged token", f.sign(f.head, f.claims))))
		}},
		row{number: 92, name: "a key that was revoked, at each node in turn", story: func(w *world) {
			for i := range len(w.nodes) {
				tokens := w.tokens(w.alice, w.pubA, nil)
				w.alive(tokens)
				f := w.forger(tokens.AccessToken)
				w.admin(i, "revoke_signing_key", `{"kid":"`+f.kid+`"}`)
				for j := range w.nodes {
					within(w.t, 5*time.Second, "refused", func() bool {
						return w.at(i+j, w.list("/mcp", tokens.AccessToken)).StatusCode == http.StatusUnauthorized
					})
					w.countAny("bearer token refused: ", "the token is revoked", foreignKey)
					if a := w.at(i+j, w.Request(http.MethodGet, "/.well-known/jwks.json", "")); a.StatusCode != http.StatusOK || strings.Contains(a.Text, f.kid) {
						w.t.Errorf("it is still published: %s", a.Text)
					}
				}
				later := w.refresh(w.pubA, tokens.RefreshToken)
				if w.forger(later.AccessToken).kid == f.kid {
					w.t.Error("it still signs")
				}
				w.alive(later)
			}
		}},
		row{number: 92, name: "a key that is retired past its grace, rotated at each node in turn", story: func(w *world) {
			for i := range len(w.nodes) {
				tokens, unseen := w.tokens(w.alice, w.pubA, nil), w.tokens(w.alice, w.pubB, nil)
				f := w.forger(tokens.AccessToken)
				w.SQL(`UPDATE signing_key SET created_at = 0 WHERE active_at IS NULL`)
				w.admin(i, "rotate_signing_key", `{}`)
				w.alive(tokens) // retiring: what it signed is good
				later := w.refresh(w.pubA, tokens.RefreshToken)
				within(w.t, 5*time.Second, "not signed by it", func() bool {
					later = w.refresh(w.pubA, later.RefreshToken)
					return kid(w.t, later.AccessToken) != f.kid
				})
				w.alive(later)
				w.SQL(`UPDATE signing_key SET retired_at = 0 WHERE kid = $1`, f.kid)
				w.SQL(`UPDATE revocation_head SET keys = keys + 1`) // no node has to wait an hour
				for j := range w.nodes {
					within(w.t, 5*time.Second, "gone", func() bool {
						a := w.at(i+j, w.Request(http.MethodGet, "/.well-known/jwks.json", ""))
						return a.StatusCode == http.StatusOK && !strings.Contains(a.Text, f.kid)
					})
					if a := w.at(i+j, w.list("/mcp", unseen.AccessToken)); a.StatusCode != http.StatusUnauthorized {
						w.t.Errorf("what it signed is good: %d %s", a.StatusCode, a.Text)
					}
					w.counted["bearer token refused: "+foreignKey]++
				}
				w.alive(later)
			}
		}},
		row{number: 92, name: "the published keys have no private half", story: func(w *world) {
			var set struct{ Keys []map[string]any }
			w.Get("/.well-known/jwks.json").JSON(w.t, &set)
			if len(set.Keys) == 0 {
				w.t.Fatal("no keys")
			}
			for _, key := range set.Keys {
				for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k", "oth"} {
					if _, there := key[private]; there {
						w.t.Errorf("%s is published", private)
					}
				}
			}
		}})
}

// forger has what whoever stole the signing key has, and a good token to change.
type forger struct {
	key                                    *ecdsa.PrivateKey
	kid, jwk                               string // of our key
	issuer, whole, head, claims, signature string
}

func (w *world) forger(access string) forger {
	w.t.Helper()
	parts := strings.Split(access, ".")
	f := forger{issuer: w.URL, whole: access, head: decode(w.t, parts[0]), claims: decode(w.t, parts[1]), signature: parts[2]}
	var head struct{ Kid string }
	if err := json.Unmarshal([]byte(f.head), &head); err != nil {
		w.t.Fatal(err)
	}
	f.kid = head.Kid
	var sealed []byte
	err := w.DB.View(w.t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT public, private FROM signing_key WHERE kid = $1`, f.kid).Scan(&f.jwk, &sealed)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	master, err := seal.LoadKey(w.key, false)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := seal.Box{Keeper: master}.Open("signing_key/"+f.kid+"/private", sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		w.t.Fatal(err)
	}
	f.key = key.(*ecdsa.PrivateKey)
	return f
}

func attackersKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // never
	}
	return key
}

func (f forger) by(key *ecdsa.PrivateKey) forger {
	f.key = key
	return f
}

func (f forger) der() []byte {
	der, err := x509.MarshalPKIXPublicKey(f.key.Public())
	if err != nil {
		panic(err) // never, of a curve that is known
	}
	return der
}

// header is the header with a member changed, or left out.
func (f forger) header(name string, value any) string { return changed(f.head, name, value) }

// with is the claims with one changed, or left out.
func (f forger) with(name string, value any) string { return changed(f.claims, name, value) }

func changed(object, name string, value any) string {
	members := map[string]any{}
	if err := json.Unmarshal([]byte(object), &members); err != nil {
		panic(err) // it is our own
	}
	for name, v := range members {
		if n, isNumber := v.(float64); isNumber {
			members[name] = int64(n)
		}
	}
	members = maps.Clone(members)
	if members[name] = value; value == nil {
		delete(members, name)
	}
	out, err := json.Marshal(members)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(out)
}

// sign makes a token of any header and claims, signed with ES256.
func (f forger) sign(header, claims string) string {
	signed := encode(header) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, f.key, sum[:])
	if err != nil {
		panic(err) // never
	}
	return signed + "." + encode(string(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)))
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func decode(t testing.TB, s string) string {
	t.Helper()
	plain, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}
