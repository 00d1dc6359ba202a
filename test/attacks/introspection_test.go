package attacks_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 17, revocation and introspection: what is not one's own is neither ended nor
// described.
func TestIntrospection(t *testing.T) { attack(t, introspectionRows()) }

// guard is a program that may ask about the tokens of one endpoint.
func (w *world) guard(endpoint string) party {
	w.t.Helper()
	var made struct{ ID, Secret string }
	w.admin(0, "add_introspector", `{"name":"guard","endpoint":"`+endpoint+`"}`).JSON(w.t, &made)
	return party{id: made.ID, secret: w.keep("the secret of the introspector", made.Secret)}
}

// asking asks about a token.
func (w *world) asking(p party, token string, change url.Values) *http.Request {
	form := url.Values{"token": {token}}
	if p.id != "" {
		form.Set("client_id", p.id)
	}
	if p.secret != "" {
		form.Set("client_secret", p.secret)
	}
	return w.form("/oauth/introspect", edit(form, change))
}

// active asks every node, each of which says the same.
func (w *world) active(p party, token string) (active bool) {
	w.t.Helper()
	for i := range w.nodes {
		a := w.at(i, w.asking(p, token, nil))
		says := strings.HasPrefix(a.Text, `{"active":true,`)
		if a.StatusCode != http.StatusOK || !says && strings.TrimSpace(a.Text) != `{"active":false}` || i > 0 && says != active {
			w.t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		active = says
	}
	return active
}

func introspectionRows() []row {
	refused := func(why string) want { return refusal("/oauth/introspect", oauth.InvalidClient, why) }
	return []row{
		{number: 124, name: "introspecting without credentials", want: refused("there is no such client"), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.secC, nil)
			return w.asking(party{}, tokens.AccessToken, nil), w.asking(w.secC, tokens.AccessToken, nil)
		}},
		{number: 124, name: "introspecting with an id alone", want: refused("its secret is wrong"), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.secC, nil)
			return w.asking(party{id: w.secC.id}, tokens.AccessToken, nil), w.asking(w.secC, tokens.AccessToken, nil)
		}},
		{number: 124, name: "introspecting as a public client", want: refused("a public client asks about a token"), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.pubA, nil)
			return w.asking(w.pubA, tokens.AccessToken, nil), w.asking(w.guard("mcp"), tokens.AccessToken, nil)
		}},
		{number: 124, name: "introspecting with the token as the credential", want: refused("its header is not Basic"), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.secC, nil)
			r := w.asking(party{}, tokens.AccessToken, nil)
			r.Header.Set("Authorization", "Bearer "+tokens.AccessToken)
			return r, w.asking(w.secC, tokens.AccessToken, nil)
		}},
		{number: 124, name: "introspecting with the secret of another guard", want: refused("its secret is wrong"), build: func(w *world) (*http.Request, *http.Request) {
			tokens, a, ab := w.tokens(w.alice, w.pubA, nil), w.guard("a"), w.guard("ab")
			return w.asking(party{id: a.id, secret: ab.secret}, tokens.AccessToken, nil), w.asking(a, tokens.AccessToken, nil)
		}},
		{number: 124, name: "introspecting a token meant for another resource server", story: func(w *world) {
			for _, endpoint := range []string{"a", "ab"} {
				tokens := w.tokens(w.alice, w.pubA, with("resource", w.URL+"/s/"+endpoint+"/mcp"))
				for _, guard := range []string{"a", "ab", "mcp", "gatehouse"} {
					if got := w.active(w.guard(guard), tokens.AccessToken); got != (guard == endpoint) {
						w.t.Errorf("a token for %s, asked by %s: active %v", endpoint, guard, got)
					}
				}
				if w.active(w.guard(endpoint), tokens.RefreshToken) {
					w.t.Error("a refresh token is described")
				}
			}
		}},
		{number: 124, name: "introspecting another client's tokens", story: func(w *world) {
			other := w.registered(`{"client_name":"D","redirect_uris":["https://d.example/cb"],"token_endpoint_auth_method":"client_secret_post"}`)
			tokens := w.tokens(w.alice, w.secC, nil)
			for _, token := range []string{tokens.AccessToken, tokens.RefreshToken} {
				if w.active(other, token) || !w.active(w.secC, token) {
					w.t.Error("another client learns of a token, or its own does not")
				}
			}
		}},
		{number: 124, name: "revoking another client's tokens, under both hints", story: func(w *world) {
			tokens := w.tokens(w.alice, w.secC, nil)
			for _, token := range []string{tokens.AccessToken, tokens.RefreshToken} {
				for _, hint := range []string{"access_token", "refresh_token", "", "nonsense"} {
					before := w.traces()
					a := w.Do(w.form("/oauth/revoke", with("client_id", w.pubB.id, "token", token, "token_type_hint", hint)))
					if a.StatusCode != http.StatusOK || w.traces() != before {
						w.t.Errorf("%s: %d %s", hint, a.StatusCode, a.Text)
					}
				}
			}
			w.alive(tokens)
			w.refresh(w.secC, tokens.RefreshToken)
		}},
		{number: 23, name: "introspecting what came of a code that was redeemed again", story: func(w *world) {
			code, verifier := w.code(w.alice, w.secC, nil)
			tokens := w.granted(w.Do(w.redemption(w.secC, code, verifier, nil)))
			guard := w.guard("mcp")
			if !w.active(w.secC, tokens.AccessToken) || !w.active(w.secC, tokens.RefreshToken) || !w.active(guard, tokens.AccessToken) {
				w.t.Error("not active before")
			}
			w.refusedWhatever(replayed, w.redemption(w.secC, code, verifier, nil))
			w.gone(0, tokens.AccessToken)
			if w.active(w.secC, tokens.AccessToken) || w.active(w.secC, tokens.RefreshToken) || w.active(guard, tokens.AccessToken) {
				w.t.Error("active afterwards")
			}
		}},
	}
}
