package attacks_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth/oauthtest"
)

// Group 12, DPoP: a token that is bound to a key is worth nothing without it, and a
// proof of the key nothing but for one request.
func TestProofs(t *testing.T) { attack(t, proofRows()) }

// prove adds a proof to a request. change may spoil it.
func (w *world) prove(r *http.Request, key oauthtest.Key, access string, change map[string]any) *http.Request {
	r.Header.Add("DPoP", key.Proof(r.Method, w.URL+r.URL.Path, access, change))
	return r
}

// boundTokens are tokens of a client that are bound to a key.
func (w *world) boundTokens(p party, key oauthtest.Key) oauth.TokenResponse {
	w.t.Helper()
	code, verifier := w.code(w.alice, p, nil)
	tokens := w.granted(w.Do(w.prove(w.redemption(p, code, verifier, nil), key, "", nil)))
	if tokens.TokenType != "DPoP" {
		w.t.Fatalf("%+v", tokens)
	}
	return tokens
}

// asBound is a request for the tools under the scheme of bound tokens.
func (w *world) asBound(access string) *http.Request {
	r := w.list("/mcp", access)
	r.Header.Set("Authorization", "DPoP "+access)
	return r
}

// unproved is an endpoint's answer to a token whose proof is not good.
func unproved(code, why string) want {
	return want{status: http.StatusUnauthorized, reason: "bearer token refused: " + why, check: func(w *world, a apptest.Answer) {
		for _, c := range oauth.ParseChallenges(a.Header.Values("WWW-Authenticate")) {
			if c.Scheme == "dpop" && c.Params["error"] == code && c.Params["algs"] != "" && !strings.Contains(a.Text, why) {
				return
			}
		}
		w.t.Errorf("want a challenge with %s, got %q %s", code, a.Header.Values("WWW-Authenticate"), a.Text)
	}}
}

func proofRows() []row {
	const (
		notOne   = "there is no DPoP proof, more than one, or a very long one"
		badType  = "the type or the algorithm of the DPoP proof is not accepted"
		badKey   = "the key of the DPoP proof is not a public one for its algorithm"
		badSign  = "the signature of the DPoP proof does not match"
		badClaim = "the claims of the DPoP proof are not complete"
		method   = "the DPoP proof is for another method"
		address  = "the DPoP proof is for another address"
		notNow   = "the DPoP proof is not from now"
		otherTok = "the DPoP proof goes with another token"
		otherKey = "the DPoP proof is of another key"
		bearer   = "the token is bound to a key, and came as a bearer token"
		unbound  = "it is bound to a key, and came without a proof of it"
		stale    = "the DPoP proof has no nonce that is good now"
		used     = "the DPoP proof was used before"
	)
	var rows []row
	door := func(number int, name string, want want, spoil func(w *world, key oauthtest.Key, access string) *http.Request) {
		rows = append(rows, row{number: number, name: name, want: want, build: func(w *world) (*http.Request, *http.Request) {
			key := oauthtest.NewKey(w.t, "ES256")
			access := w.boundTokens(w.pubA, key).AccessToken
			return spoil(w, key, access), w.prove(w.asBound(access), key, access, nil)
		}})
	}
	// The same proof at the token endpoint, where it gets nothing and spends nothing.
	both := func(name, why string, change func(w *world, key oauthtest.Key) map[string]any) {
		door(94, name, unproved(oauth.InvalidProof, why), func(w *world, key oauthtest.Key, access string) *http.Request {
			return w.prove(w.asBound(access), key, access, change(w, key))
		})
		rows = append(rows, row{number: 94, name: name + ", for tokens", story: func(w *world) {
			key := oauthtest.NewKey(w.t, "ES256")
			code, verifier := w.code(w.alice, w.pubA, nil)
			w.refused(token(oauth.InvalidProof, why), w.prove(w.redemption(w.pubA, code, verifier, nil), key, "", change(w, key)))
			w.granted(w.Do(w.prove(w.redemption(w.pubA, code, verifier, nil), key, "", nil)))
		}})
	}
	value := func(name string, v any) func(*world, oauthtest.Key) map[string]any {
		return func(*world, oauthtest.Key) map[string]any { return map[string]any{name: v} }
	}
	host := func(change func(address string) string) func(*world, oauthtest.Key) map[string]any {
		return func(w *world, _ oauthtest.Key) map[string]any { return map[string]any{"htu": change(w.URL + "/mcp")} }
	}

	door(93, "a bound token as a bearer token", unproved(oauth.InvalidToken, bearer), func(w *world, _ oauthtest.Key, access string) *http.Request {
		return w.list("/mcp", access)
	})
	door(93, "a bound token as a bearer token, with a proof", unproved(oauth.InvalidToken, bearer), func(w *world, key oauthtest.Key, access string) *http.Request {
		return w.prove(w.list("/mcp", access), key, access, nil)
	})
	door(93, "a bound token without a proof", unproved(oauth.InvalidProof, notOne), func(w *world, _ oauthtest.Key, access string) *http.Request {
		return w.asBound(access)
	})
	door(93, "a bound token with a proof of the thief's key", unproved(oauth.InvalidProof, otherKey), func(w *world, _ oauthtest.Key, access string) *http.Request {
		return w.prove(w.asBound(access), oauthtest.NewKey(w.t, "ES256"), access, nil)
	})
	for name, thief := range map[string]bool{"without a proof": false, "with a proof of another key": true} {
		rows = append(rows, row{number: 93, name: "a bound refresh token " + name, story: func(w *world) {
			key := oauthtest.NewKey(w.t, "ES256")
			refresh := w.boundTokens(w.pubA, key).RefreshToken
			attack := w.refreshing(w.pubA, refresh, nil)
			if thief {
				attack = w.prove(attack, oauthtest.NewKey(w.t, "EdDSA"), "", nil)
			}
			w.refused(token(oauth.InvalidGrant, unbound), attack)
			w.granted(w.Do(w.prove(w.refreshing(w.pubA, refresh, nil), key, "", nil)))
		}})
	}

	door(94, "two headers", unproved(oauth.InvalidProof, notOne), func(w *world, key oauthtest.Key, access string) *http.Request {
		return w.prove(w.prove(w.asBound(access), key, access, nil), key, access, nil)
	})
	door(94, "another token's hash", unproved(oauth.InvalidProof, otherTok), func(w *world, key oauthtest.Key, access string) *http.Request {
		return w.prove(w.asBound(access), key, access+"x", nil)
	})
	door(94, "no hash", unproved(oauth.InvalidProof, otherTok), func(w *world, key oauthtest.Key, access string) *http.Request {
		return w.prove(w.asBound(access), key, "", nil)
	})
	door(94, "htu of another path", unproved(oauth.InvalidProof, address), func(w *world, key oauthtest.Key, access string) *http.Request {
		return w.prove(w.asBound(access), key, access, map[string]any{"htu": w.URL + "/s/a/mcp"})
	})
	both("htm GET", method, value("htm", "GET"))
	both("htm in small letters", method, value("htm", "post"))
	both("htu of another host", address, host(func(a string) string { return strings.Replace(a, "localhost", "localhost.evil.example", 1) }))
	both("htu of another port", address, host(func(a string) string { return strings.Replace(a, "/mcp", "1/mcp", 1) }))
	both("htu of another scheme", address, host(func(a string) string { return strings.Replace(a, "http:", "https:", 1) }))
	both("htu with a user", address, host(func(a string) string { return strings.Replace(a, "://", "://a@", 1) }))
	both("typ JWT", badType, value("#typ", "JWT"))
	both("typ at+jwt", badType, value("#typ", "at+jwt"))
	both("no typ", badType, value("#typ", nil))
	both("alg none", badType, value("#alg", "none"))
	both("alg HS256", badType, value("#alg", "HS256"))
	both("alg RS256 with an EC key", badKey, value("#alg", "RS256"))
	both("no jwk", badKey, value("#jwk", nil))
	both("a symmetric jwk", badKey, value("#jwk", json.RawMessage(`{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)))
	both("a private jwk", badKey, func(_ *world, key oauthtest.Key) map[string]any { return map[string]any{"#jwk": key.JWK(true)} })
	both("another's jwk", badSign, func(w *world, _ oauthtest.Key) map[string]any {
		return map[string]any{"#jwk": oauthtest.NewKey(w.t, "ES256").JWK(false)}
	})
	both("no jti", badClaim, value("jti", nil))
	both("no iat", badClaim, value("iat", nil))
	both("iat ten minutes ago", notNow, func(*world, oauthtest.Key) map[string]any {
		return map[string]any{"iat": time.Now().Add(-10 * time.Minute).Unix()}
	})
	both("iat in ten minutes", notNow, func(*world, oauthtest.Key) map[string]any {
		return map[string]any{"iat": time.Now().Add(10 * time.Minute).Unix()}
	})

	for name, query := range map[string]string{"a query": "?a=b", "a fragment": "#x"} {
		rows = append(rows, row{number: 94, name: "htu with " + name + " is the same address", story: func(w *world) { // no attack: over-strictness
			key := oauthtest.NewKey(w.t, "EdDSA")
			access := w.boundTokens(w.pubA, key).AccessToken
			w.works(w.prove(w.asBound(access), key, access, map[string]any{"htu": w.URL + "/mcp" + query}))
		}})
	}
	return append(rows,
		row{number: 94, name: "a stale nonce, and the one that the answer gives instead", story: func(w *world) {
			key := oauthtest.NewKey(w.t, "ES256")
			access := w.boundTokens(w.pubA, key).AccessToken
			a := w.refused(unproved(oauth.UseNonce, stale), w.prove(w.asBound(access), key, access, map[string]any{"nonce": "stale"}))
			nonce := a.Header.Get("DPoP-Nonce")
			for i := range w.nodes { // what one gives, each knows
				r := w.prove(w.asBound(access), key, access, map[string]any{"nonce": nonce})
				if a := w.at(i, r); a.StatusCode != http.StatusOK {
					w.t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			}
			code, verifier := w.code(w.alice, w.pubA, nil)
			a = w.refused(token(oauth.UseNonce, stale), w.prove(w.redemption(w.pubA, code, verifier, nil), key, "", map[string]any{"nonce": "stale"}))
			w.granted(w.Do(w.prove(w.redemption(w.pubA, code, verifier, nil), key, "", map[string]any{"nonce": a.Header.Get("DPoP-Nonce")})))
		}},
		row{number: 95, name: "forty replays of a proof at all nodes at once", story: func(w *world) {
			key := oauthtest.NewKey(w.t, "ES256")
			access := w.boundTokens(w.pubA, key).AccessToken
			proof := key.Proof(http.MethodPost, w.URL+"/mcp", access, nil)
			for _, n := range w.nodes { // whoever asks knows the token already
				if a := n.Do(rehost(n, w.prove(w.asBound(access), key, access, nil))); a.StatusCode != http.StatusOK {
					w.t.Fatalf("%d %s", a.StatusCode, a.Text)
				}
			}
			answers := apptest.Together(40, func(i int) apptest.Answer {
				r := w.asBound(access)
				r.Header.Set("DPoP", proof)
				n := w.nodes[i%len(w.nodes)]
				return n.Do(rehost(n, r))
			})
			var good int
			for _, a := range answers {
				if a.StatusCode == http.StatusOK {
					good++
				} else {
					w.counted["bearer token refused: "+used]++
				}
			}
			if good != 1 {
				w.t.Errorf("%d were answered", good)
			}
		}},
		row{number: 95, name: "forty replays of a proof for tokens", story: func(w *world) {
			key := oauthtest.NewKey(w.t, "ES256")
			proof := key.Proof(http.MethodPost, w.URL+"/oauth/token", "", nil)
			requests := make([]*http.Request, 40)
			for i := range requests {
				code, verifier := w.code(w.alice, w.pubB, nil)
				requests[i] = w.redemption(w.pubB, code, verifier, nil)
				requests[i].Header.Set("DPoP", proof)
			}
			var good int
			for _, a := range apptest.Together(40, func(i int) apptest.Answer {
				n := w.nodes[i%len(w.nodes)]
				return n.Do(rehost(n, requests[i]))
			}) {
				switch {
				case a.StatusCode == http.StatusOK:
					w.granted(a)
					good++
				case a.Error() == oauth.InvalidProof:
					w.counted["/oauth/token refused: "+oauth.InvalidProof+", "+used]++
				default:
					w.t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			}
			if good != 1 {
				w.t.Errorf("%d got tokens", good)
			}
		}},
		row{number: 96, name: "dpop_jkt at the authorization, another key at the token endpoint", story: func(w *world) {
			key := oauthtest.NewKey(w.t, "ES256")
			code, verifier := w.code(w.alice, w.pubA, with("dpop_jkt", key.Thumbprint()))
			redemption := func() *http.Request { return w.redemption(w.pubA, code, verifier, nil) }
			w.refused(token(oauth.InvalidGrant, unbound), redemption())
			w.refused(token(oauth.InvalidGrant, unbound), w.prove(redemption(), oauthtest.NewKey(w.t, "ES256"), "", nil))
			w.granted(w.Do(w.prove(redemption(), key, "", nil)))
		}},
		row{number: 96, name: "a proof with the pushed request, another key at the token endpoint", story: func(w *world) {
			key := oauthtest.NewKey(w.t, "ES256")
			query, verifier := w.query(w.pubA, nil)
			var pushed oauth.PushedResponse
			w.Do(w.prove(w.form("/oauth/par", query), key, "", nil)).JSON(w.t, &pushed)
			form := w.asked(w.alice, url.Values{"client_id": {w.pubA.id}, "request_uri": {pushed.RequestURI}})
			code := w.keep("the code", sentWith(w.alice.Submit("/consent", form)).Get("code"))
			w.refused(token(oauth.InvalidGrant, unbound), w.prove(w.redemption(w.pubA, code, verifier, nil), oauthtest.NewKey(w.t, "ES256"), "", nil))
			w.granted(w.Do(w.prove(w.redemption(w.pubA, code, verifier, nil), key, "", nil)))
		}},
	)
}

// rehost is a request for one node.
func rehost(n *apptest.House, r *http.Request) *http.Request {
	r.URL.Host = strings.TrimPrefix(n.URL, "http://")
	r.Host = r.URL.Host
	return r
}
