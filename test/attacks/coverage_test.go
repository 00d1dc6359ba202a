package attacks_test

import "testing"

// catalogue are the attacks of the groups that this suite is about: redirect URI,
// parsing, device, load, PKCE, code, refresh, client authentication, exchange and assertions, registration, consent, issuer, audience, JWT, documents, introspection, transport. What of one cannot be
// attacked yet waits for the feature that it is about.
var catalogue = []struct {
	number int
	first  bool // nothing is released without it
	waits  string
}{
	{number: 1, first: true},
	{number: 2, first: true},
	{number: 3, first: true},
	{number: 4, first: true},
	{number: 5, first: true},
	{number: 7, first: true},
	{number: 8},
	{number: 10, first: true},
	{number: 11},

	{number: 12, first: true},
	{number: 14},
	{number: 15},
	{number: 16, first: true},
	{number: 17},

	{number: 18, first: true},
	{number: 19, first: true},
	{number: 21, first: true},
	{number: 22},

	{number: 23, first: true},
	{number: 24, first: true},
	{number: 25, first: true},
	{number: 26, first: true},
	{number: 27},
	{number: 28},
	{number: 29, first: true},
	{number: 30, first: true},
	{number: 31, waits: "a key store that can fail from outside; that nothing is spent when signing fails is tested in internal/token"},

	{number: 32, first: true},
	{number: 33, first: true},
	{number: 34, first: true},
	{number: 35, first: true},
	{number: 36},
	{number: 37, first: true, waits: "groups: there are none yet"},
	{number: 38, waits: "passwords: there are none to reset"},
	{number: 39},
	{number: 40, first: true},

	{number: 41},
	{number: 43},
	{number: 44, first: true},
	{number: 45, first: true},
	{number: 46},

	{number: 47},
	{number: 48},
	{number: 49},
	{number: 50},
	{number: 51, first: true},
	{number: 52},
	{number: 53, first: true},
	{number: 54},
	{number: 56},
	{number: 57, first: true},
	{number: 58},

	{number: 59, first: true},
	{number: 60, first: true},
	{number: 61},
	{number: 62, first: true},
	{number: 63},
	{number: 64, first: true},
	{number: 65, first: true},
	{number: 67},
	{number: 68},
	{number: 69},

	{number: 70, first: true, waits: "form_post: another response mode than query is not offered, and refused"},
	{number: 71, first: true},
	{number: 73},

	{number: 74},
	{number: 75, first: true},
	{number: 76, first: true, waits: "a gateway without an audience, which cannot be configured: it has its public address or none, and then the one where it listens"},
	{number: 77, first: true, waits: "none of the real ones exists but access, refresh and registration tokens; the others are forged with our own key"},
	{number: 79, first: true, waits: "policies: roles, scopes and endpoints stand for them"},
	{number: 80, first: true},
	{number: 81, first: true},
	{number: 82, first: true},
	{number: 83, first: true},
	{number: 84},

	{number: 86, first: true},
	{number: 87, first: true},
	{number: 88},
	{number: 89, waits: "one million dots: net/http refuses a header of that size before any token is looked at, 60,000 pass it"},
	{number: 91},
	{number: 92},

	{number: 97, first: true},
	{number: 98, first: true},
	{number: 99, first: true},
	{number: 100},
	{number: 101, first: true},
	{number: 102},
	{number: 103},
	{number: 104},
	{number: 105},
	{number: 106, waits: "webhooks: there are none yet"},
	{number: 107},

	{number: 108, first: true, waits: "administration pages: there are none yet"},
	{number: 109},
	{number: 110},
	{number: 121, first: true},
	{number: 122},
	{number: 123},
	{number: 113, waits: "passkeys and other ways to sign in: all have the same strength so far"},

	{number: 93},
	{number: 94},
	{number: 95},
	{number: 96},

	{number: 124, first: true},
	{number: 125, first: true, waits: "passwords: there are none, so none of 1 MB"},

	{number: 126, first: true, waits: "metrics: there are none yet"},
}

// No attack of these groups is forgotten, and none is tried that nobody listed.
func TestNoAttackIsForgotten(t *testing.T) {
	tried := map[int]int{}
	for _, rows := range [][]row{redirectRows(), parsingRows(), deviceRows(), loadRows(), pkceRows(), codeRows(), refreshRows(), registrationRows(), consentRows(), issuerRows(), audienceRows(), jwtRows(), transportRows(), thirdPartyRows(), documentRows(), closedRows(), introspectionRows(), proofRows(), machineRows(), leakRows()} {
		names := map[string]bool{}
		for _, r := range rows {
			tried[r.number]++
			if r.name == "" || names[r.name] && r.number != 18 || (r.build == nil) == (r.story == nil) {
				t.Errorf("%d %s: give it a name of its own, and either a request or a story", r.number, r.name)
			}
		}
	}
	listed := map[int]bool{}
	for _, a := range catalogue {
		listed[a.number] = true
		if tried[a.number] == 0 && a.waits == "" {
			t.Errorf("attack %d is not tried, and nothing says what it waits for", a.number)
		}
	}
	for number := range tried {
		if !listed[number] {
			t.Errorf("attack %d is tried but not listed; add it to the catalogue", number)
		}
	}
}
