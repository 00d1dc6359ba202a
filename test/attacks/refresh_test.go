package attacks_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 5, refresh tokens: a thief is found out, an honest client is never signed
// out.
func TestRefresh(t *testing.T) { attack(t, refreshRows()) }

func refreshRows() []row {
	rows := []row{
		{number: 32, name: "an old token after its window", story: func(w *world) {
			bystander := w.tokens(w.alice, w.pubA, nil)
			first := w.tokens(w.alice, w.pubA, nil)
			second := w.refresh(w.pubA, first.RefreshToken)
			third := w.refresh(w.pubA, second.RefreshToken) // the first use of a child of the first
			w.age(first.RefreshToken, 61*time.Second)
			w.refusedWhatever(replayed, w.refreshing(w.pubA, first.RefreshToken, nil))
			for _, tokens := range []oauth.TokenResponse{first, second, third} {
				w.dead(w.pubA, tokens, "its family is revoked")
			}
			w.alive(bystander)
			w.refresh(w.pubA, bystander.RefreshToken)
		}},
		{number: 32, name: "an old token, presented by somebody else, revokes nothing", story: func(w *world) {
			first := w.tokens(w.alice, w.pubA, nil)
			second := w.refresh(w.pubA, first.RefreshToken)
			third := w.refresh(w.pubA, second.RefreshToken)
			w.age(first.RefreshToken, 61*time.Second)
			w.refused(token(oauth.InvalidGrant, "it was made for another client"), w.refreshing(w.pubB, first.RefreshToken, nil))
			w.refused(token(oauth.InvalidGrant, "its secret is wrong"), w.refreshing(w.pubA, spoilt(first.RefreshToken), nil))
			w.alive(third)
			w.refresh(w.pubA, third.RefreshToken)
		}},
		{number: 33, name: "an old token while no child was used, however old", story: func(w *world) {
			first := w.tokens(w.alice, w.pubA, nil)
			lost := w.refresh(w.pubA, first.RefreshToken)
			id, _, _ := strings.Cut(first.RefreshToken, ".")
			w.SQL(`UPDATE refresh_token SET used_at = used_at - 3600000000 WHERE id = $1`, id)
			again := w.refresh(w.pubA, first.RefreshToken)
			w.alive(first)
			w.alive(lost)
			w.alive(again)
			w.refresh(w.pubA, lost.RefreshToken)
		}},
		{number: 33, name: "an old token inside its window, at any depth", story: func(w *world) {
			chain := []oauth.TokenResponse{w.tokens(w.alice, w.pubA, nil)}
			for range 4 {
				chain = append(chain, w.refresh(w.pubA, chain[len(chain)-1].RefreshToken))
			}
			for depth := range chain[:4] {
				w.age(chain[depth].RefreshToken, 50*time.Second)
				chain = append(chain, w.refresh(w.pubA, chain[depth].RefreshToken))
			}
			for _, tokens := range chain {
				w.alive(tokens)
			}
			w.refresh(w.pubA, chain[len(chain)-1].RefreshToken)
		}},
		{number: 34, name: "64 at once, over all nodes", story: func(w *world) {
			revoked := w.Count(`SELECT count(*) FROM token_family WHERE revoked_at IS NOT NULL`)
			first := w.tokens(w.alice, w.pubA, nil)
			answers := apptest.Together(64, func(i int) apptest.Answer { return w.at(i, w.refreshing(w.pubA, first.RefreshToken, nil)) })
			var all []oauth.TokenResponse
			for _, a := range answers {
				all = append(all, w.granted(a))
			}
			for i, a := range apptest.Together(len(all), func(i int) apptest.Answer { return w.at(i+1, w.list("/mcp", all[i].AccessToken)) }) {
				if a.StatusCode != http.StatusOK {
					w.t.Errorf("answer %d does not work: %d %s", i, a.StatusCode, a.Text)
				}
			}
			last := w.refresh(w.pubA, all[17].RefreshToken) // the first use of any child
			w.age(first.RefreshToken, 61*time.Second)
			w.alive(last)
			if n := w.Count(`SELECT count(*) FROM token_family WHERE revoked_at IS NOT NULL`); n != revoked {
				w.t.Error("a family was revoked")
			}
			w.refusedWhatever(replayed, w.refreshing(w.pubA, first.RefreshToken, nil))
			w.dead(w.pubA, last, "its family is revoked")
		}},
		{number: 37, name: "the person is suspended", story: func(w *world) {
			tokens := w.tokens(w.bob, w.pubA, nil)
			w.SQL(`UPDATE member SET status = 'suspended' WHERE user_id = 'usr_bob'`)
			w.refused(token(oauth.InvalidGrant, "the person is no active member"), w.refreshing(w.pubA, tokens.RefreshToken, nil))
			w.SQL(`UPDATE member SET status = 'active' WHERE user_id = 'usr_bob'`)
			w.works(w.refreshing(w.pubA, tokens.RefreshToken, nil))
		}},
		{number: 37, name: "the consent is withdrawn", story: func(w *world) {
			for i := range len(w.nodes) {
				p := w.register("https://w.example/cb")
				tokens, again := w.tokens(w.alice, p, nil), w.tokens(w.alice, p, nil)
				w.withdraw(i, p)
				w.dead(p, tokens, "its family is revoked")
				w.dead(p, again, "its family is revoked")
				w.alive(w.tokens(w.alice, p, nil)) // allowed anew
			}
		}},
		{number: 37, name: "the client is removed", story: func(w *world) {
			p := w.register("https://w.example/cb")
			tokens := w.tokens(w.alice, p, nil)
			if a := w.Do(w.manage(http.MethodDelete, p.id, p.manage)); a.StatusCode != http.StatusNoContent {
				w.t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			w.refused(token(oauth.InvalidClient, "there is no such client"), w.refreshing(p, tokens.RefreshToken, nil))
			w.refused(unauthorized("the token is revoked"), w.list("/mcp", tokens.AccessToken))
		}},
		{number: 38, name: "after everything was stopped", story: func(w *world) {
			p, q := w.register("https://w.example/cb"), w.register("http://127.0.0.1/cb")
			web, local := w.tokens(w.alice, p, nil), w.tokens(w.bob, q, nil)
			code, verifier := w.code(w.alice, q, nil)
			w.admin(0, "stop_everything", "{}")
			w.dead(p, web, "its family is revoked")
			w.dead(q, local, "its family is revoked")
			w.refused(token(oauth.InvalidGrant, "it has expired"), w.redemption(q, code, verifier, nil))
		}},
		{number: 38, name: "after the client revoked it", story: func(w *world) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			if a := w.Do(w.form("/oauth/revoke", with("client_id", w.pubA.id, "token", tokens.RefreshToken))); a.StatusCode != http.StatusOK {
				w.t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			w.dead(w.pubA, tokens, "its family is revoked")
		}},
		{number: 39, name: "unused for too long", story: func(w *world) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			id, _, _ := strings.Cut(tokens.RefreshToken, ".")
			const month = "2592000000000"
			w.SQL(`UPDATE refresh_token SET expires_at = expires_at - `+month+` WHERE id = $1`, id)
			w.refused(token(oauth.InvalidGrant, "it has expired"), w.refreshing(w.pubA, tokens.RefreshToken, nil))
			w.SQL(`UPDATE refresh_token SET expires_at = expires_at + `+month+` WHERE id = $1`, id)
			w.works(w.refreshing(w.pubA, tokens.RefreshToken, nil))
		}},
		{number: 39, name: "at the end of its family", story: func(w *world) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			family := claims(w.t, tokens.AccessToken)["family"]
			const year = "31536000000000"
			w.SQL(`UPDATE token_family SET expires_at = expires_at - `+year+` WHERE id = $1`, family)
			w.refused(token(oauth.InvalidGrant, "it has expired"), w.refreshing(w.pubA, tokens.RefreshToken, nil))
			w.SQL(`UPDATE token_family SET expires_at = expires_at + `+year+` WHERE id = $1`, family)
			w.works(w.refreshing(w.pubA, tokens.RefreshToken, nil))
		}},
		{number: 40, name: "a refresh token as a bearer", want: unauthorized("the token is too long or no JWT"), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			return w.list("/mcp", tokens.RefreshToken), w.list("/mcp", tokens.AccessToken)
		}},
		{number: 40, name: "a code as a bearer", want: unauthorized("the token is too long or no JWT"), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			return w.list("/mcp", code), w.redemption(w.pubA, code, verifier, nil)
		}},
		{number: 40, name: "a refresh token as a code", want: token(oauth.InvalidGrant, "it does not have the form of a code"), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			return w.redemption(w.pubA, tokens.RefreshToken, oauth.NewVerifier(), nil), w.refreshing(w.pubA, tokens.RefreshToken, nil)
		}},
	}
	for _, r := range []struct {
		number     int
		name       string
		code, why  string
		thief      func(w *world) party
		change     func(w *world, t oauth.TokenResponse) url.Values
		presenting func(w *world, t oauth.TokenResponse) string
	}{
		{35, "another public client", oauth.InvalidGrant, "it was made for another client", func(w *world) party { return w.pubB }, nil, nil},
		{35, "another client with its secret", oauth.InvalidGrant, "it was made for another client", func(w *world) party { return w.secC }, nil, nil},
		{35, "a client that has just registered", oauth.InvalidGrant, "it was made for another client", func(w *world) party { return w.register("http://127.0.0.1/cb") }, nil, nil},
		{35, "nobody", oauth.InvalidClient, "there is no such client", nil, func(*world, oauth.TokenResponse) url.Values { return without("client_id") }, nil},
		{36, "a wider scope", oauth.InvalidScope, "", nil, func(*world, oauth.TokenResponse) url.Values { return with("scope", "mcp:tools mcp:admin") }, nil},
		{36, "another resource", oauth.InvalidTarget, "", nil, func(w *world, _ oauth.TokenResponse) url.Values { return with("resource", w.URL+"/s/a/mcp") }, nil},
		{36, "a foreign resource", oauth.InvalidTarget, "", nil, func(*world, oauth.TokenResponse) url.Values { return with("resource", "https://evil.example/") }, nil},
		{36, "a resource that is none", oauth.InvalidTarget, "", nil, func(*world, oauth.TokenResponse) url.Values { return with("resource", "javascript:x") }, nil},
		{40, "an access token", oauth.InvalidGrant, "it does not have the form of one", nil, nil, func(_ *world, t oauth.TokenResponse) string { return t.AccessToken }},
		{40, "a code", oauth.InvalidGrant, "it does not have the form of one", nil, nil, func(w *world, _ oauth.TokenResponse) string {
			code, _ := w.code(w.alice, w.pubA, nil)
			return code
		}},
		{40, "a client secret", oauth.InvalidGrant, "it does not have the form of one", nil, nil, func(w *world, _ oauth.TokenResponse) string { return w.secC.secret }},
		{40, "a browser session", oauth.InvalidGrant, "it does not have the form of one", nil, nil, func(w *world, _ oauth.TokenResponse) string {
			return w.alice.Cookies["__Host-gatehouse-session"]
		}},
		{40, "nothing", oauth.InvalidGrant, "it does not have the form of one", nil, nil, func(*world, oauth.TokenResponse) string { return "" }},
		{40, "a wrong secret part", oauth.InvalidGrant, "its secret is wrong", nil, nil, func(_ *world, t oauth.TokenResponse) string { return spoilt(t.RefreshToken) }},
		{40, "no secret part", oauth.InvalidGrant, "it does not have the form of one", nil, nil, func(_ *world, t oauth.TokenResponse) string { return strings.Split(t.RefreshToken, ".")[0] }},
	} {
		rows = append(rows, row{number: r.number, name: r.name, want: token(r.code, r.why), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			thief, presented, change := w.pubA, tokens.RefreshToken, url.Values(nil)
			if r.thief != nil {
				thief = r.thief(w)
			}
			if r.change != nil {
				change = r.change(w, tokens)
			}
			if r.presenting != nil {
				presented = r.presenting(w, tokens)
			}
			return w.refreshing(thief, presented, change), w.refreshing(w.pubA, tokens.RefreshToken, nil)
		}})
	}
	return rows
}

// age moves the first use of a child of the refresh token into the past.
func (w *world) age(refresh string, by time.Duration) {
	w.t.Helper()
	id, _, _ := strings.Cut(refresh, ".")
	w.SQL(`UPDATE refresh_token SET child_used_at = $1 WHERE id = $2 AND child_used_at IS NOT NULL`, time.Now().Add(-by).UnixMicro(), id)
}
