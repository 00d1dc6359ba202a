package attacks_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// state is what the clients here send as theirs.
const state = "st&te/1"

// world is a house under attack, with two people, three clients and two servers
// whose names begin alike.
type world struct {
	*apptest.House                  // the first node: address, HTTP client, and a look inside
	nodes          []*apptest.House // all of them
	t              *testing.T

	alice, bob       *apptest.Browser
	pubA, pubB, secC party
	up, other        *apptest.Upstream  // behind /s/a/mcp and /s/ab/mcp
	key              string             // file of the master key
	known            *apptest.Knowledge // behind it in the world of third parties
	strange          *strange           // another provider there
	machines         *machines          // in the world of machines
	maker            *maker             // of apps that are known by their documents

	secrets map[string]string // secret → what it is
	mailed  map[string]string // the same of those that are printed on purpose
	counted map[string]int    // refusals that must have been counted, by reason
	raced   int               // those that must have been counted under one of the next
	racing  map[string]bool
}

// party is an OAuth client, where it is answered, and the token with which it
// manages its registration.
type party struct{ id, secret, redirect, manage string }

func onSQLite(t *testing.T) *world { return furnish(t, storetest.SQLite(t), 1) }

func onPostgres(t *testing.T) *world { return furnish(t, storetest.Postgres(t), 2) }

func furnish(t *testing.T, database string, nodes int, change ...func(*app.Config)) *world {
	w := &world{t: t, key: filepath.Join(t.TempDir(), "master.key"), secrets: map[string]string{}, mailed: map[string]string{}, counted: map[string]int{}, racing: map[string]bool{}, maker: newMaker(t)}
	w.House = apptest.Open(t, append(change, w.maker.configure, func(c *app.Config) { c.Database, c.MasterKeyFile = database, w.key })...)
	w.nodes = []*apptest.House{w.House}
	w.mailed[w.Log.Wait("  code  ", nil)] = "the setup code"
	w.alice = w.Browser()
	w.alice.SetUp()
	w.keepBrowser(w.alice)
	for range nodes - 1 { // once there is an owner, it makes no setup code of its own
		port := freePort(t)
		n := apptest.Start(t, append(change, w.maker.configure, func(c *app.Config) {
			c.Database, c.MasterKeyFile, c.PublicURL, c.Listen = database, w.key, w.URL, "localhost:"+port
		})...)
		n.URL = "http://localhost:" + port // where it is, not what it is called
		w.nodes = append(w.nodes, n)
	}
	w.SQL(`INSERT INTO users (id, email, created_at) VALUES ('usr_bob', 'bob@acme.example', 1)`)
	w.SQL(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_bob', 'standard', 'active', 1)`)
	w.bob = w.signIn("bob@acme.example")
	w.up, w.other = apptest.NewUpstream(t), apptest.NewUpstream(t)
	w.Add("a", w.up)
	w.Add("ab", w.other)
	for _, n := range w.nodes[1:] { // it looks every few seconds
		within(t, 20*time.Second, "served by the other node", func() bool {
			const described = "/.well-known/oauth-protected-resource"
			return n.Get(described+"/s/a/mcp").StatusCode == http.StatusOK && n.Get(described+"/s/ab/mcp").StatusCode == http.StatusOK
		})
	}
	w.pubA = w.register("http://127.0.0.1/cb", "http://localhost/cb")
	w.pubB = w.register("https://b.example/cb")
	w.secC = w.registered(`{"client_name":"C","redirect_uris":["https://c.example/cb"],"token_endpoint_auth_method":"client_secret_post"}`)
	return w
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// within waits until it is so.
func within(t *testing.T, limit time.Duration, what string, so func() bool) {
	t.Helper()
	for began := time.Now(); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > limit {
			t.Fatalf("not %s within %v", what, limit)
		}
	}
}

// signIn signs a member in, in a browser of its own.
func (w *world) signIn(email string) *apptest.Browser {
	w.t.Helper()
	b := w.Browser()
	form := apptest.Fields(b.Open("/login").Text)
	form.Set("email", email)
	b.Submit("/login", form)
	if a := b.UseLink(); a.StatusCode != http.StatusOK {
		w.t.Fatalf("sign-in: %d %s", a.StatusCode, a.Text)
	}
	w.keepBrowser(b)
	return b
}

// keep notes a secret, for the search.
func (w *world) keep(what, secret string) string {
	if len(secret) < 20 {
		w.t.Fatalf("the %s is %q", what, secret)
	}
	w.secrets[secret] = what
	return secret
}

func (w *world) keepBrowser(b *apptest.Browser) {
	for name, value := range b.Cookies {
		w.keep("the cookie "+name, value)
	}
	w.mailed[strings.TrimPrefix(b.Link(), w.URL+"/login/link?token=")] = "the link"
}

func (w *world) register(redirects ...string) party {
	w.t.Helper()
	body, _ := json.Marshal(oauth.Registration{ClientName: "Test app", RedirectURIs: redirects}) // strings
	return w.registered(string(body))
}

func (w *world) registered(body string) party {
	w.t.Helper()
	var r oauth.Registration
	w.PostJSON("/oauth/register", body).JSON(w.t, &r)
	if r.ClientID == "" {
		w.t.Fatal("not registered")
	}
	for what, secret := range map[string]string{"the client secret": r.ClientSecret, "the registration token": r.RegistrationToken} {
		if secret != "" {
			w.keep(what, secret)
		}
	}
	return party{r.ClientID, r.ClientSecret, r.RedirectURIs[0], r.RegistrationToken}
}

// query is an authorization request in order. change may spoil it.
func (w *world) query(p party, change url.Values) (q url.Values, verifier string) {
	verifier = w.keep("the verifier", oauth.NewVerifier())
	return edit(url.Values{
		"client_id": {p.id}, "response_type": {"code"}, "redirect_uri": {p.redirect}, "state": {state},
		"code_challenge": {oauth.Challenge(verifier)}, "code_challenge_method": {"S256"},
	}, change), verifier
}

func edit(form, change url.Values) url.Values {
	form = maps.Clone(form)
	for name, values := range change {
		if values == nil {
			form.Del(name)
		} else {
			form[name] = values
		}
	}
	return form
}

// authorize is the request of a browser in which nobody has signed in.
func (w *world) authorize(q url.Values) *http.Request {
	return w.Request(http.MethodGet, "/oauth/authorize?"+q.Encode(), "", "Accept: text/html", "Sec-Fetch-Dest: document")
}

// asked is the form with which b is asked for consent.
func (w *world) asked(b *apptest.Browser, q url.Values) url.Values {
	w.t.Helper()
	form := apptest.Fields(b.Open("/oauth/authorize?" + q.Encode()).Text)
	if form.Get("request") == "" {
		w.t.Fatalf("nobody is asked: %v", form)
	}
	form.Set("decision", "allow")
	form.Set("started", "yes")
	return form
}

// code is one that the person in front of b allowed.
func (w *world) code(b *apptest.Browser, p party, change url.Values) (code, verifier string) {
	w.t.Helper()
	q, verifier := w.query(p, change)
	a := b.Open("/oauth/authorize?" + q.Encode())
	if apptest.Fields(a.Text).Get("request") != "" { // else the consent is remembered
		form := apptest.Fields(a.Text)
		form.Set("decision", "allow")
		form.Set("started", "yes")
		a = b.Submit("/consent", form)
	}
	if code = sentWith(a).Get("code"); code == "" {
		w.t.Fatalf("no code: %d %v %s", a.StatusCode, a.Header, a.Text)
	}
	return w.keep("the code", code), verifier
}

// sentWith is what the browser takes to the client, by a hand-back page or by a
// redirect; nothing if it stays.
func sentWith(a apptest.Answer) url.Values {
	target := apptest.Target(a.Text)
	if target == nil {
		target, _ = url.Parse(a.Header.Get("Location")) // an answer of the server's
	}
	return target.Query()
}

// redemption is the exchange of a code.
func (w *world) redemption(p party, code, verifier string, change url.Values) *http.Request {
	form := url.Values{"grant_type": {"authorization_code"}, "client_id": {p.id}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {p.redirect}}
	if p.secret != "" {
		form.Set("client_secret", p.secret)
	}
	return w.form("/oauth/token", edit(form, change))
}

// refreshing is the exchange of a refresh token.
func (w *world) refreshing(p party, refresh string, change url.Values) *http.Request {
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {p.id}, "refresh_token": {refresh}}
	if p.secret != "" {
		form.Set("client_secret", p.secret)
	}
	return w.form("/oauth/token", edit(form, change))
}

func (w *world) form(path string, form url.Values, headers ...string) *http.Request {
	return w.Request(http.MethodPost, path, form.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...)
}

func (w *world) json(path, body string, headers ...string) *http.Request {
	return w.Request(http.MethodPost, path, body, append(headers, "Content-Type: application/json", "Accept: application/json, text/event-stream")...)
}

// at sends the request to one node of all, in turn.
func (w *world) at(i int, r *http.Request) apptest.Answer {
	node := w.nodes[i%len(w.nodes)]
	r.URL.Host = strings.TrimPrefix(node.URL, "http://")
	r.Host = r.URL.Host
	return node.Do(r)
}

// granted are the tokens of an answer.
func (w *world) granted(a apptest.Answer) (tokens oauth.TokenResponse) {
	w.t.Helper()
	a.JSON(w.t, &tokens)
	if a.StatusCode != http.StatusOK || tokens.AccessToken == "" || tokens.RefreshToken == "" {
		w.t.Fatalf("no tokens: %d %s", a.StatusCode, a.Text)
	}
	w.keep("the access token", tokens.AccessToken)
	w.keep("the signature of the access token", tokens.AccessToken[strings.LastIndex(tokens.AccessToken, ".")+1:])
	w.keep("the refresh token", tokens.RefreshToken)
	return tokens
}

// tokens goes through everything.
func (w *world) tokens(b *apptest.Browser, p party, change url.Values) oauth.TokenResponse {
	w.t.Helper()
	code, verifier := w.code(b, p, change)
	return w.granted(w.Do(w.redemption(p, code, verifier, nil)))
}

// refresh is one that works.
func (w *world) refresh(p party, refresh string) oauth.TokenResponse {
	w.t.Helper()
	return w.granted(w.Do(w.refreshing(p, refresh, nil)))
}

// claims are those of an access token, as they are.
func claims(t testing.TB, access string) map[string]any {
	t.Helper()
	parts := strings.Split(access, ".")
	plain, err := base64.RawURLEncoding.DecodeString(parts[1])
	c := map[string]any{}
	if err == nil {
		err = json.Unmarshal(plain, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// home is the path of the endpoint that an access token is for.
func (w *world) home(access string) string {
	w.t.Helper()
	return strings.TrimPrefix(claims(w.t, access)["aud"].(string), w.URL)
}

// list is a request for the tools of an endpoint.
func (w *world) list(path, access string, headers ...string) *http.Request {
	if access != "" {
		headers = append(headers, "Authorization: Bearer "+access)
	}
	return w.json(path, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}`, headers...)
}

// call is a request to call a tool.
func (w *world) call(path, access, name string, headers ...string) *http.Request {
	return w.json(path, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+name+`","arguments":{}}}`, append(headers, "Authorization: Bearer "+access)...)
}

// alive asserts that the tokens work, at every node.
func (w *world) alive(tokens oauth.TokenResponse) {
	w.t.Helper()
	for i, n := range w.nodes {
		if a := w.at(i, w.list(w.home(tokens.AccessToken), tokens.AccessToken)); a.StatusCode != http.StatusOK {
			w.t.Errorf("the access token does not work at %s: %d %s", n.URL, a.StatusCode, a.Text)
		}
	}
}

// dead asserts that nothing of the tokens works at any node, a second later at the
// latest; that it is refused at once where it was revoked is attack 81.
func (w *world) dead(p party, tokens oauth.TokenResponse, whyRefresh string) {
	w.t.Helper()
	w.gone(0, tokens.AccessToken)
	w.refused(token(oauth.InvalidGrant, whyRefresh), w.refreshing(p, tokens.RefreshToken, nil))
}

// gone waits until every node refuses the access token, from one on, and reports
// whether that one did so at once.
func (w *world) gone(first int, access string) (atOnce bool) {
	w.t.Helper()
	path := w.home(access)
	atOnce = true
	for i := range w.nodes {
		within(w.t, 5*time.Second, "refused", func() bool {
			refused := w.at(first+i, w.list(path, access)).StatusCode == http.StatusUnauthorized
			atOnce = atOnce && (refused || i > 0)
			return refused
		})
		w.counted["bearer token refused: the token is revoked"]++
	}
	return atOnce
}

// withdraw ends what a client was allowed, at one node.
func (w *world) withdraw(i int, p party) {
	w.t.Helper()
	w.admin(i, "remove_app", `{"id":"`+w.consent(p)+`"}`)
}

// consent is the id of the one that a client lives on.
func (w *world) consent(p party) (id string) {
	w.t.Helper()
	err := w.DB.View(w.t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT id FROM consent WHERE client = $1 AND ended_at IS NULL`, p.id).Scan(&id)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// admin is what whoever has the server does at one node.
func (w *world) admin(i int, tool, args string) apptest.Answer {
	w.t.Helper()
	a := w.nodes[i%len(w.nodes)].Admin(tool, args)
	if a.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %d %s", tool, a.StatusCode, a.Text)
	}
	return a
}

// marks are what a refused request must not have made, spent or revoked.
var marks = []string{
	"client", "flow", "flow WHERE decided_at IS NOT NULL", "consent", "authorization_code", "authorization_code WHERE used_at IS NOT NULL",
	"device_code WHERE decided_at IS NOT NULL", "device_code WHERE used_at IS NOT NULL", "pushed_request", "pushed_request WHERE used_at IS NOT NULL", "token_family", "token_family WHERE revoked_at IS NOT NULL", "refresh_token", "refresh_token WHERE used_at IS NOT NULL", "revocation",
	"introspector", "dpop_proof", "upstream_grant", "departure WHERE used_at IS NOT NULL", "used_assertion", "browser_session", "browser_session WHERE ended_at IS NOT NULL", "sign_in_link WHERE used_at IS NOT NULL",
}

func (w *world) traces() (text string) {
	w.t.Helper()
	var counts []string
	for _, what := range marks {
		counts = append(counts, fmt.Sprintf("'%s: ' || (SELECT count(*) FROM %s)", what, what))
	}
	query := "SELECT " + strings.Join(counts, ` || ', ' || `)
	if err := w.DB.View(w.t.Context(), func(tx *store.Tx) error { return tx.QueryRow(query).Scan(&text) }); err != nil {
		w.t.Fatal(err)
	}
	return text
}

// events are those on record, without the counts of strangers.
func (w *world) events() int {
	w.t.Helper()
	return w.Count(`SELECT count(*) FROM audit_event WHERE action <> 'stranger'`)
}

func (w *world) lastEvent() (text string) {
	w.t.Helper()
	err := w.DB.View(w.t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT action || ' ' || outcome || ' ' || code FROM audit_event WHERE action <> 'stranger' ORDER BY time_us DESC, id DESC LIMIT 1`).Scan(&text)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func (w *world) printed() string {
	var b strings.Builder
	for _, n := range w.nodes {
		b.WriteString(n.Log.String())
	}
	return b.String()
}

// leak names a secret that a text has as it is; the search in every spelling is
// made once, at the end.
func (w *world) leak(text string) string {
	for secret, what := range w.secrets {
		if strings.Contains(text, secret) {
			return what
		}
	}
	return ""
}

// countAny is for refusals of a race, of which nobody can know which of some
// reasons they had: at the end they are all there, under one of these.
func (w *world) countAny(prefix string, whys ...string) {
	w.raced++
	for _, why := range whys {
		w.racing[prefix+why] = true
	}
}

// settle finds the refusals of races among the counts.
func (w *world) settle(got map[string]int) {
	w.t.Helper()
	for reason := range w.racing {
		w.raced -= got[reason] - w.counted[reason]
		if w.counted[reason] = got[reason]; got[reason] == 0 {
			delete(w.counted, reason)
		}
	}
	if w.raced != 0 {
		w.t.Errorf("of refusals in races %d were not counted", w.raced)
	}
}

// close stops the house and holds it to what was seen: every refusal counted, once
// and under its reason, and no secret kept in the clear (attack 126).
func (w *world) close() {
	w.t.Helper()
	for _, n := range w.nodes {
		if err := n.Stop(); err != nil {
			w.t.Error(err)
		}
	}
	if w.t.Failed() {
		return // what is missing is told above
	}
	got := w.Strangers()
	w.settle(got)
	for _, reason := range slices.Sorted(maps.Keys(got)) {
		if w.counted[reason] != got[reason] {
			w.t.Errorf("%q was counted %d times, want %d", reason, got[reason], w.counted[reason])
		}
	}
	for reason, n := range w.counted {
		if _, counted := got[reason]; !counted {
			w.t.Errorf("%q was not counted, want %d", reason, n)
		}
	}
	dump, printed := w.Dump()+w.Files(), w.printed()
	for secret, what := range w.secrets {
		if where := apptest.Find(secret, printed); where != "" {
			w.t.Errorf("the log holds %s %s", what, where)
		}
		if where := apptest.Find(secret, dump); where != "" {
			w.t.Errorf("the database holds %s %s", what, where)
		}
	}
	for secret, what := range w.mailed {
		if n := strings.Count(printed, secret); n > 1 {
			w.t.Errorf("the log holds %s %d times, and it was printed once", what, n)
		}
		if where := apptest.Find(secret, dump); where != "" {
			w.t.Errorf("the database holds %s %s", what, where)
		}
	}
}

// with is url.Values in one line: name, value, name, value.
func with(pairs ...string) url.Values {
	v := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		v.Add(pair[0], pair[1])
	}
	return v
}

// without leaves parameters out.
func without(names ...string) url.Values {
	v := url.Values{}
	for _, name := range names {
		v[name] = nil
	}
	return v
}
