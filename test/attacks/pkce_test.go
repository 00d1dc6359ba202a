package attacks_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 3, PKCE: whoever caught a code cannot redeem it.
func TestPKCE(t *testing.T) { attack(t, pkceRows()) }

func pkceRows() []row {
	var rows []row
	for client, who := range map[string]func(*world) party{
		"a public client": func(w *world) party { return w.pubA }, "a client with a secret": func(w *world) party { return w.secC },
	} {
		for _, r := range []struct {
			number int
			name   string
			change url.Values
		}{
			{18, "no challenge", without("code_challenge")},
			{18, "neither challenge nor method", without("code_challenge", "code_challenge_method")},
			{18, "an empty challenge", with("code_challenge", "")},
			{18, "a challenge of 42 characters", with("code_challenge", strings.Repeat("a", 42))},
			{18, "a challenge of 44 characters", with("code_challenge", strings.Repeat("a", 44))},
			{18, "a challenge with padding", with("code_challenge", strings.Repeat("a", 43)+"=")},
			{18, "a challenge that is no base64url", with("code_challenge", strings.Repeat("+", 43))},
			{19, "plain", with("code_challenge_method", "plain")},
			{19, "no method, which means plain", without("code_challenge_method")},
			{19, "an empty method", with("code_challenge_method", "")},
			{19, "an unknown method", with("code_challenge_method", "S512")},
			{19, "small letters", with("code_challenge_method", "s256")},
			{19, "S256 and plain", url.Values{"code_challenge_method": {"S256", "plain"}}},
		} {
			rows = append(rows, row{number: r.number, name: r.name + " of " + client, want: redirect(oauth.InvalidRequest), build: func(w *world) (*http.Request, *http.Request) {
				q, _ := w.query(who(w), r.change)
				twin, _ := w.query(who(w), nil)
				return w.authorize(q), w.authorize(twin)
			}})
		}
		for name, change := range map[string]func(verifier string) url.Values{
			"no verifier":       func(string) url.Values { return without("code_verifier") },
			"an empty verifier": func(string) url.Values { return with("code_verifier", "") },
			"a wrong verifier":  func(string) url.Values { return with("code_verifier", oauth.NewVerifier()) },
			"42 characters":     func(v string) url.Values { return with("code_verifier", v[:42]) },
			"129 characters, three times the right one": func(v string) url.Values { return with("code_verifier", strings.Repeat(v, 3)) },
			"an illegal character":                      func(v string) url.Values { return with("code_verifier", v[:42]+"!") },
			"a blank after it":                          func(v string) url.Values { return with("code_verifier", v+" ") },
			"the challenge itself":                      func(v string) url.Values { return with("code_verifier", oauth.Challenge(v)) },
			"the same in other cases":                   func(v string) url.Values { return with("code_verifier", strings.ToUpper(v)) },
		} {
			rows = append(rows, row{number: 21, name: name + " of " + client, want: token(oauth.InvalidGrant, "the verifier is wrong"), build: func(w *world) (*http.Request, *http.Request) {
				code, verifier := w.code(w.alice, who(w), nil)
				return w.redemption(who(w), code, verifier, change(verifier)), w.redemption(who(w), code, verifier, nil)
			}})
		}
	}
	return append(rows,
		row{number: 21, name: "four wrong tries are forgiven, five are not", story: func(w *world) {
			for _, tries := range []int{4, 5} {
				code, verifier := w.code(w.alice, w.pubA, nil)
				for range tries {
					w.refused(token(oauth.InvalidGrant, "the verifier is wrong"), w.redemption(w.pubA, code, oauth.NewVerifier(), nil))
				}
				if tries < 5 {
					w.works(w.redemption(w.pubA, code, verifier, nil))
				} else {
					w.refused(token(oauth.InvalidGrant, "it came with too many wrong verifiers"), w.redemption(w.pubA, code, verifier, nil))
				}
			}
		}},
		row{number: 22, name: "the victim's code with the attacker's verifier, same client", want: token(oauth.InvalidGrant, "the verifier is wrong"), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			_, attackers := w.code(w.bob, w.pubA, nil)
			return w.redemption(w.pubA, code, attackers, nil), w.redemption(w.pubA, code, verifier, nil)
		}})
}
