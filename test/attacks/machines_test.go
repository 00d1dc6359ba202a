package attacks_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	bearerGrant   = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
)

// Groups 6 and 16: how clients prove themselves, and tokens that come of other tokens
// and of what others signed, in a world that trusts an identity provider.
func TestMachines(t *testing.T) {
	for engine, at := range map[string]struct {
		database func(testing.TB) string
		nodes    int
	}{"sqlite": {storetest.SQLite, 1}, "postgres": {storetest.Postgres, 2}} {
		t.Run(engine, func(t *testing.T) {
			database := at.database(t)
			t.Parallel()
			idp := newIDP(t)
			w := furnish(t, database, at.nodes, idp.configure)
			w.machines = newMachines(w, idp)
			for _, r := range machineRows() {
				t.Run(fmt.Sprintf("%02d %s", r.number, r.name), func(t *testing.T) { w.in(t).run(r) })
			}
			w.t = t
			w.close()
		})
	}
}

// idp is an identity provider that the operator trusts with saying who is who.
type idp struct {
	url string
	key *ecdsa.PrivateKey
}

func newIDP(t *testing.T) *idp {
	p := &idp{key: newKey(t)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(publicSet(p.key))) }))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *idp) configure(c *app.Config) {
	c.Trusted = map[string]app.Trusted{"idp": {URL: p.url, JWKS: p.url + "/keys", Trusted: authserver.Trusted{
		Kind: authserver.TrustPeople, Members: map[string]string{"alice": apptest.Owner},
	}}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicSet(key *ecdsa.PrivateKey) string {
	set, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one"}}}) // a public key
	return string(set)
}

// machines are the clients of these groups.
type machines struct {
	idp         *idp
	robot       party          // a service account with a secret
	keyD, other party          // apps that sign
	keys        map[string]any // of those, by id
	app         party          // a confidential app with the grants that the operator gives
}

func newMachines(w *world, p *idp) *machines {
	m := &machines{idp: p, keys: map[string]any{}}
	var made struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	w.admin(0, "create_service_account", `{"name":"robot","allowed_tools":["whoami","list_audit_events"]}`).JSON(w.t, &made)
	m.robot = party{id: made.ID, secret: w.keep("the secret of the service account", made.Secret)}
	for _, p := range []*party{&m.keyD, &m.other} {
		key := newKey(w.t)
		*p = w.registered(`{"client_name":"D","redirect_uris":["https://d.example/cb"],"token_endpoint_auth_method":"private_key_jwt","jwks":` + publicSet(key) + `}`)
		m.keys[p.id] = key
	}
	m.app = w.registered(`{"client_name":"E","redirect_uris":["https://e.example/cb"],"token_endpoint_auth_method":"client_secret_post"}`)
	w.SQL(`UPDATE client SET grant_types = 'authorization_code refresh_token ` + exchangeGrant + ` ` + bearerGrant + `' WHERE id = '` + m.app.id + `'`)
	return m
}

// sealed is a JWT with these claims, of which those that are nil are left out.
func (w *world) sealed(alg jose.SignatureAlgorithm, key any, typ string, in, change map[string]any) string {
	w.t.Helper()
	c := maps.Clone(in)
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	payload, err := json.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		w.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.keep("an assertion", raw)
}

// proof is an assertion of a client about itself.
func (w *world) proof(p party, change map[string]any) string {
	w.t.Helper()
	return w.sealed(jose.ES256, w.machines.keys[p.id], "JWT", w.proofClaims(p), change)
}

func (w *world) proofClaims(p party) map[string]any {
	now := time.Now().Unix()
	return map[string]any{"iss": p.id, "sub": p.id, "aud": w.URL, "iat": now, "exp": now + 120, "jti": rand.Text()}
}

// jag is an assertion of the identity provider about alice.
func (w *world) jag(p party, change map[string]any) string {
	w.t.Helper()
	return w.sealed(jose.ES256, w.machines.idp.key, "oauth-id-jag+jwt", w.jagClaims(p), change)
}

func (w *world) jagClaims(p party) map[string]any {
	now := time.Now().Unix()
	return map[string]any{
		"iss": w.machines.idp.url, "sub": "alice", "aud": w.URL, "client_id": p.id, "jti": rand.Text(), "iat": now, "exp": now + 300,
		"resource": w.URL + "/mcp", "scope": "mcp:tools",
	}
}

// own is a request of a service account for a token.
func (w *world) own(change url.Values) *http.Request {
	return w.form("/oauth/token", edit(with("grant_type", "client_credentials", "client_id", w.machines.robot.id, "client_secret", w.machines.robot.secret), change))
}

// signedRefresh is a refresh of an app that signs.
func (w *world) signedRefresh(refresh, proof string, change url.Values) *http.Request {
	return w.form("/oauth/token", edit(with("grant_type", "refresh_token", "refresh_token", refresh, "client_assertion_type", assertionType, "client_assertion", proof), change))
}

// signedTokens goes through everything for an app that signs.
func (w *world) signedTokens(p party) oauth.TokenResponse {
	w.t.Helper()
	code, verifier := w.code(w.alice, p, nil)
	return w.granted(w.Do(w.redemption(p, code, verifier, with("client_assertion_type", assertionType, "client_assertion", w.proof(p, nil)))))
}

// exchanging is the exchange of an access token.
func (w *world) exchanging(p party, subject string, change url.Values) *http.Request {
	return w.form("/oauth/token", edit(with(
		"grant_type", exchangeGrant, "client_id", p.id, "client_secret", p.secret, "subject_token", subject, "subject_token_type", accessType), change))
}

// bringing is what an app brings of the identity provider.
func (w *world) bringing(p party, assertion string, change url.Values) *http.Request {
	return w.form("/oauth/token", edit(with("grant_type", bearerGrant, "client_id", p.id, "client_secret", p.secret, "assertion", assertion), change))
}

// oneToken asserts that the request gets an access token that works everywhere, and
// nothing to refresh with.
func (w *world) oneToken(r *http.Request) string {
	w.t.Helper()
	return w.isOneToken(w.Do(r))
}

func (w *world) isOneToken(a apptest.Answer) string {
	w.t.Helper()
	var tokens oauth.TokenResponse
	a.JSON(w.t, &tokens)
	if a.StatusCode != http.StatusOK || tokens.AccessToken == "" || tokens.RefreshToken != "" {
		w.t.Fatalf("no token, or more than one: %d %s", a.StatusCode, a.Text)
	}
	w.alive(tokens)
	return w.keep("the access token", tokens.AccessToken)
}

// alone is a row whose twin gets one token.
func alone(number int, name string, want want, build func(w *world) (attack, twin *http.Request)) row {
	return row{number: number, name: name, story: func(w *world) {
		w.t.Helper()
		attack, twin := build(w)
		w.refused(want, attack)
		w.oneToken(twin)
	}}
}

func machineRows() []row {
	return slices.Concat(authenticationRows(), assertionRows(), exchangeRows(), jagRows())
}

func authenticationRows() []row {
	const wrong = "its secret is wrong"
	basic := func(p party, secret string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.id+":"+secret))
	}
	rows := []row{
		{number: 41, name: "an unknown client and a wrong secret look the same", story: func(w *world) {
			send := func(id string) (string, time.Duration) {
				r := w.own(with("client_id", id, "client_secret", spoilt(w.machines.robot.secret)))
				began := time.Now()
				a := w.Do(r)
				took := time.Since(began)
				return fmt.Sprint(a.StatusCode, a.Header.Get("WWW-Authenticate"), a.Unreferenced()), took
			}
			var known, unknown []time.Duration
			const tries = 200
			for range tries {
				one, took := send(w.machines.robot.id)
				known = append(known, took)
				other, took := send("svc_00000000000000000000000000")
				if unknown = append(unknown, took); one != other {
					w.t.Fatalf("%s\n%s", one, other)
				}
			}
			w.counted["/oauth/token refused: invalid_client, "+wrong] += tries
			w.counted["/oauth/token refused: invalid_client, there is no such client"] += tries
			slices.Sort(known)
			slices.Sort(unknown)
			if a, b := known[tries/2], unknown[tries/2]; a > 3*b+time.Millisecond || b > 3*a+time.Millisecond {
				w.t.Errorf("a known one takes %v, an unknown one %v", a, b)
			}
		}},
		alone(43, "a header and a secret", refusal("/oauth/token", oauth.InvalidRequest, ""), func(w *world) (*http.Request, *http.Request) {
			r := w.own(nil)
			r.Header.Set("Authorization", strings.TrimPrefix(basic(w.machines.robot, w.machines.robot.secret), "Authorization: "))
			return r, w.form("/oauth/token", with("grant_type", "client_credentials"), basic(w.machines.robot, w.machines.robot.secret))
		}),
		{number: 43, name: "an assertion and a secret", want: refusal("/oauth/token", oauth.InvalidRequest, ""), build: func(w *world) (*http.Request, *http.Request) {
			refresh, proof := w.signedTokens(w.machines.keyD).RefreshToken, w.proof(w.machines.keyD, nil)
			return w.signedRefresh(refresh, proof, with("client_secret", w.secC.secret)), w.signedRefresh(refresh, proof, nil)
		}},
		{number: 43, name: "an assertion and a header", story: func(w *world) {
			refresh, proof := w.signedTokens(w.machines.keyD).RefreshToken, w.proof(w.machines.keyD, nil)
			r := w.signedRefresh(refresh, proof, nil)
			r.Header.Set("Authorization", strings.TrimPrefix(basic(w.machines.keyD, "x"), "Authorization: "))
			w.refused(refusal("/oauth/token", oauth.InvalidRequest, ""), r)
			w.works(w.signedRefresh(refresh, proof, nil))
		}},
		{number: 44, name: "secC without its secret", want: token(oauth.InvalidClient, wrong), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.secC, nil)
			return w.refreshing(w.secC, tokens.RefreshToken, without("client_secret")), w.refreshing(w.secC, tokens.RefreshToken, nil)
		}},
		{number: 44, name: "secC with an assertion", want: token(oauth.InvalidClient, "it signs, and did not register for that"), build: func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.secC, nil)
			proof := w.sealed(jose.ES256, newKey(w.t), "JWT", w.proofClaims(w.secC), nil)
			return w.signedRefresh(tokens.RefreshToken, proof, nil), w.refreshing(w.secC, tokens.RefreshToken, nil)
		}},
		{number: 44, name: "keyD without credentials", want: token(oauth.InvalidClient, "it has to sign, and did not"), build: func(w *world) (*http.Request, *http.Request) {
			refresh := w.signedTokens(w.machines.keyD).RefreshToken
			return w.refreshing(w.machines.keyD, refresh, nil), w.signedRefresh(refresh, w.proof(w.machines.keyD, nil), nil)
		}},
		{number: 44, name: "keyD with a secret", want: token(oauth.InvalidClient, "it has to sign, and did not"), build: func(w *world) (*http.Request, *http.Request) {
			refresh := w.signedTokens(w.machines.keyD).RefreshToken
			return w.refreshing(w.machines.keyD, refresh, with("client_secret", w.secC.secret)), w.signedRefresh(refresh, w.proof(w.machines.keyD, nil), nil)
		}},
		alone(44, "a public client on client_credentials", token(oauth.UnauthorizedClient, ""), func(w *world) (*http.Request, *http.Request) {
			return w.form("/oauth/token", with("grant_type", "client_credentials", "client_id", w.pubA.id)), w.own(nil)
		}),
		alone(44, "an app with a secret on client_credentials", token(oauth.UnauthorizedClient, ""), func(w *world) (*http.Request, *http.Request) {
			return w.form("/oauth/token", with("grant_type", "client_credentials", "client_id", w.secC.id, "client_secret", w.secC.secret)), w.own(nil)
		}),
		alone(44, "a service account with a code", token(oauth.UnauthorizedClient, ""), func(w *world) (*http.Request, *http.Request) {
			return w.own(with("grant_type", "authorization_code")), w.own(nil)
		}),
		alone(44, "a service account whose secret was rotated", token(oauth.InvalidClient, wrong), func(w *world) (*http.Request, *http.Request) {
			before := w.own(nil)
			var made struct {
				Secret string `json:"client_secret"`
			}
			w.admin(1, "rotate_service_account_secret", `{"id":"`+w.machines.robot.id+`"}`).JSON(w.t, &made)
			w.machines.robot.secret = w.keep("the secret of the service account", made.Secret)
			return before, w.own(nil)
		}),
		{number: 44, name: "a token of a service account that was switched off, at every node", story: func(w *world) {
			for i := range w.nodes {
				access := w.oneToken(w.own(nil))
				w.admin(i, "change_service_account", `{"id":"`+w.machines.robot.id+`","active":false}`)
				if !w.gone(i, access) {
					w.t.Error("it works for a moment where it was switched off")
				}
				w.refused(token(oauth.InvalidClient, "there is no such client"), w.own(nil))
				w.admin(i, "change_service_account", `{"id":"`+w.machines.robot.id+`","active":true}`)
				w.oneToken(w.own(nil))
			}
		}},
	}
	return rows
}

func assertionRows() (rows []row) {
	bad := func(why string) want { return token(oauth.InvalidClient, "its assertion is not good: "+why) }
	for _, r := range []struct {
		name  string
		want  want
		proof func(w *world, p party) string
	}{
		{"the token endpoint as audience", bad("its audience is not this issuer alone"), proven(func(w *world) map[string]any { return map[string]any{"aud": w.URL + "/oauth/token"} })},
		{"a slash behind the issuer", bad("its audience is not this issuer alone"), proven(func(w *world) map[string]any { return map[string]any{"aud": w.URL + "/"} })},
		{"a list with another audience", bad("its audience is not this issuer alone"), proven(func(w *world) map[string]any {
			return map[string]any{"aud": []string{w.URL, "https://evil.example"}}
		})},
		{"no audience", bad("its audience is not this issuer alone"), proven(func(*world) map[string]any { return map[string]any{"aud": nil} })},
		{"a subject that is not the issuer", bad("it is about another client"), proven(func(w *world) map[string]any { return map[string]any{"sub": w.machines.other.id} })},
		{"no exp", bad("it never expires"), proven(func(*world) map[string]any { return map[string]any{"exp": nil} })},
		{"exp in an hour", bad("it lives too long"), proven(func(*world) map[string]any { return map[string]any{"exp": time.Now().Unix() + 3600} })},
		{"exp a minute ago", bad("it has expired"), proven(func(*world) map[string]any { return map[string]any{"exp": time.Now().Unix() - 60} })},
		{"no jti", bad("it has no id"), proven(func(*world) map[string]any { return map[string]any{"jti": nil} })},
		{"a foreign key", bad("no key of its issuer verifies the signature"), func(w *world, p party) string {
			return w.sealed(jose.ES256, w.machines.keys[w.machines.other.id], "JWT", w.proofClaims(p), nil)
		}},
		{"HS256 with the public key", token(oauth.InvalidClient, "its assertion cannot be read: its algorithm or its extensions are not accepted"), func(w *world, p party) string {
			return w.sealed(jose.HS256, []byte(publicSet(w.machines.keys[p.id].(*ecdsa.PrivateKey))), "JWT", w.proofClaims(p), nil)
		}},
		{"no signature", token(oauth.InvalidClient, "its assertion cannot be read: its algorithm or its extensions are not accepted"), func(w *world, p party) string {
			parts := strings.Split(w.proof(p, nil), ".")
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
		}},
		{"an ID-JAG in place of it", token(oauth.InvalidClient, "there is no such client"), func(w *world, p party) string { return w.jag(p, nil) }},
	} {
		rows = append(rows, row{number: 45, name: r.name, want: r.want, build: func(w *world) (*http.Request, *http.Request) {
			refresh := w.signedTokens(w.machines.keyD).RefreshToken
			return w.signedRefresh(refresh, r.proof(w, w.machines.keyD), nil), w.signedRefresh(refresh, w.proof(w.machines.keyD, nil), nil)
		}})
	}
	return append(rows, row{number: 46, name: "64 with one assertion, over all nodes", story: func(w *world) {
		refresh, proof := w.signedTokens(w.machines.keyD).RefreshToken, w.proof(w.machines.keyD, nil)
		won := 0
		for _, a := range apptest.Together(64, func(i int) apptest.Answer { return w.at(i, w.signedRefresh(refresh, proof, nil)) }) {
			if a.StatusCode == http.StatusOK {
				won++
				w.alive(w.granted(a))
			} else if a.Error() != oauth.InvalidClient {
				w.t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		if w.counted["/oauth/token refused: invalid_client, its assertion was used before"] += 64 - won; won != 1 {
			w.t.Errorf("%d succeeded", won)
		}
		w.works(w.signedRefresh(refresh, w.proof(w.machines.keyD, nil), nil))
	}})
}

func proven(change func(w *world) map[string]any) func(*world, party) string {
	return func(w *world, p party) string { return w.proof(p, change(w)) }
}

func exchangeRows() []row {
	subject := func(why string) want { return token(oauth.InvalidRequest, why) }
	rows := []row{
		{number: 122, name: "a subject token that is revoked", story: func(w *world) {
			tokens := w.tokens(w.alice, w.machines.app, nil)
			w.oneToken(w.exchanging(w.machines.app, tokens.AccessToken, nil))
			if a := w.Do(w.form("/oauth/revoke", with("client_id", w.machines.app.id, "client_secret", w.machines.app.secret, "token", tokens.RefreshToken))); a.StatusCode != http.StatusOK {
				w.t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			w.refused(subject("the token is revoked"), w.exchanging(w.machines.app, tokens.AccessToken, nil))
		}},
		{number: 122, name: "the result outlives neither the subject token nor its family", story: func(w *world) {
			tokens := w.tokens(w.alice, w.machines.app, nil)
			access := w.oneToken(w.exchanging(w.machines.app, tokens.AccessToken, with("resource", w.URL+"/s/a/mcp", "scope", "a:read")))
			if was, is := claims(w.t, tokens.AccessToken)["exp"].(float64), claims(w.t, access)["exp"].(float64); is > was {
				w.t.Errorf("it lives %v s longer", is-was)
			}
			if a := w.Do(w.form("/oauth/revoke", with("client_id", w.machines.app.id, "client_secret", w.machines.app.secret, "token", tokens.RefreshToken))); a.StatusCode != http.StatusOK {
				w.t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			w.gone(0, access)
		}},
	}
	for _, r := range []struct {
		name   string
		want   want
		change func(w *world, t oauth.TokenResponse) url.Values
	}{
		{"an actor", subject(""), func(_ *world, t oauth.TokenResponse) url.Values {
			return with("actor_token", t.AccessToken, "actor_token_type", accessType)
		}},
		{"a wider scope", token(oauth.InvalidScope, ""), func(*world, oauth.TokenResponse) url.Values { return with("scope", "mcp:admin") }},
		{"a resource that its policy does not reach", token(oauth.InvalidTarget, ""), func(w *world, _ oauth.TokenResponse) url.Values {
			return with("resource", w.URL+"/s/gatehouse/mcp")
		}},
		{"a foreign resource", token(oauth.InvalidTarget, ""), func(*world, oauth.TokenResponse) url.Values { return with("resource", "https://evil.example/mcp") }},
		{"a refresh token in its place", subject("the token is too long or no JWT"), func(_ *world, t oauth.TokenResponse) url.Values {
			return with("subject_token", t.RefreshToken)
		}},
		{"a token of a foreign issuer", subject("the type, the algorithm or the key is not one of ours"), func(w *world, _ oauth.TokenResponse) url.Values {
			return with("subject_token", w.jag(w.machines.app, nil))
		}},
		{"a token of another client", subject("it was made for another client"), func(w *world, _ oauth.TokenResponse) url.Values {
			return with("subject_token", w.tokens(w.alice, w.pubA, nil).AccessToken)
		}},
		{"a token of a service account", subject("it was made for another client"), func(w *world, _ oauth.TokenResponse) url.Values {
			return with("subject_token", w.oneToken(w.own(nil)))
		}},
		{"a refresh token wanted", subject(""), func(*world, oauth.TokenResponse) url.Values {
			return with("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")
		}},
	} {
		rows = append(rows, alone(122, r.name, r.want, func(w *world) (*http.Request, *http.Request) {
			tokens := w.tokens(w.alice, w.machines.app, nil)
			return w.exchanging(w.machines.app, tokens.AccessToken, r.change(w, tokens)), w.exchanging(w.machines.app, tokens.AccessToken, nil)
		}))
	}
	return append(rows, alone(122, "from the endpoint of one server to that of another", token(oauth.InvalidTarget, ""), func(w *world) (*http.Request, *http.Request) {
		tokens := w.tokens(w.alice, w.machines.app, with("resource", w.URL+"/s/a/mcp"))
		return w.exchanging(w.machines.app, tokens.AccessToken, with("resource", w.URL+"/s/ab/mcp")), w.exchanging(w.machines.app, tokens.AccessToken, nil)
	}))
}

func jagRows() []row {
	bad := func(why string) want { return token(oauth.InvalidGrant, why) }
	rows := []row{
		{number: 123, name: "64 with one assertion, over all nodes", story: func(w *world) {
			assertion, won := w.jag(w.machines.app, nil), 0
			for _, a := range apptest.Together(64, func(i int) apptest.Answer { return w.at(i, w.bringing(w.machines.app, assertion, nil)) }) {
				if a.StatusCode == http.StatusOK {
					won++
					w.isOneToken(a)
				} else if a.Error() != oauth.InvalidGrant {
					w.t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			}
			if w.counted["/oauth/token refused: invalid_grant, it was used before"] += 64 - won; won != 1 {
				w.t.Errorf("%d succeeded", won)
			}
		}},
		alone(123, "a public client without permission", token(oauth.UnauthorizedClient, ""), func(w *world) (*http.Request, *http.Request) {
			r := w.form("/oauth/token", with("grant_type", bearerGrant, "client_id", w.pubA.id, "assertion", w.jag(w.pubA, nil)))
			return r, w.bringing(w.machines.app, w.jag(w.machines.app, nil), nil)
		}),
		alone(123, "an app without the grant", token(oauth.UnauthorizedClient, ""), func(w *world) (*http.Request, *http.Request) {
			return w.bringing(w.secC, w.jag(w.secC, nil), nil), w.bringing(w.machines.app, w.jag(w.machines.app, nil), nil)
		}),
	}
	for _, r := range []struct {
		name      string
		want      want
		assertion func(w *world) string
	}{
		{"a wrong type", bad("its issuer is not trusted, or not with this type"), func(w *world) string {
			return w.sealed(jose.ES256, w.machines.idp.key, "JWT", w.jagClaims(w.machines.app), nil)
		}},
		{"the type of an access token", bad("its issuer is not trusted, or not with this type"), func(w *world) string {
			return w.sealed(jose.ES256, w.machines.idp.key, "at+jwt", w.jagClaims(w.machines.app), nil)
		}},
		{"several audiences", bad("its audience is not this issuer alone"), said(func(w *world) map[string]any {
			return map[string]any{"aud": []string{w.URL, "https://evil.example"}}
		})},
		{"another client's", bad("it names another client"), func(w *world) string { return w.jag(w.secC, nil) }},
		{"an unknown issuer", bad("its issuer is not trusted, or not with this type"), said(func(*world) map[string]any {
			return map[string]any{"iss": "https://evil.example"}
		})},
		{"a foreign key", bad("no key of its issuer verifies the signature"), func(w *world) string {
			return w.sealed(jose.ES256, newKey(w.t), "oauth-id-jag+jwt", w.jagClaims(w.machines.app), nil)
		}},
		{"a lifetime over the cap", bad("it lives too long"), said(func(*world) map[string]any { return map[string]any{"exp": time.Now().Unix() + 3600} })},
		{"no id", bad("it has no subject, id or time of issue"), said(func(*world) map[string]any { return map[string]any{"jti": nil} })},
		{"a stranger", bad("its subject is no active member"), said(func(*world) map[string]any {
			return map[string]any{"sub": "eve", "email": apptest.Owner, "email_verified": true}
		})},
		{"a foreign resource", token(oauth.InvalidTarget, ""), said(func(*world) map[string]any { return map[string]any{"resource": "https://evil.example/mcp"} })},
		{"an access token in its place", bad("its issuer is not trusted, or not with this type"), func(w *world) string { return w.tokens(w.alice, w.machines.app, nil).AccessToken }},
	} {
		rows = append(rows, alone(123, r.name, r.want, func(w *world) (*http.Request, *http.Request) {
			return w.bringing(w.machines.app, r.assertion(w), nil), w.bringing(w.machines.app, w.jag(w.machines.app, nil), nil)
		}))
	}
	return rows
}

func said(change func(w *world) map[string]any) func(*world) string {
	return func(w *world) string { return w.jag(w.machines.app, change(w)) }
}
