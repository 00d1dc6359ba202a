package authserver_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound/outboundtest"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// house is one with its database open beside it.
type house struct {
	*apptest.House
	t *testing.T
}

// start makes a house. Tests in different houses run side by side.
func start(t *testing.T, change ...func(*app.Config)) house {
	t.Helper()
	t.Parallel()
	return house{apptest.Open(t, change...), t}
}

// onEach runs f in a house on SQLite and in one on PostgreSQL.
func onEach(t *testing.T, f func(t *testing.T, h house), change ...func(*app.Config)) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) { f(t, house{h, t}) }, change...)
}

// onEachIn is onEach for what fetches: each house has a world of its own, in which f
// says what others serve.
func onEachIn(t *testing.T, f func(t *testing.T, h house, world *outboundtest.World), change ...func(*app.Config)) {
	for engine, open := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(engine, func(t *testing.T) {
			address, world := open(t), outboundtest.New(t)
			t.Parallel()
			h := apptest.Open(t, append(slices.Clone(change), documented(world), func(c *app.Config) { c.Database = address })...)
			f(t, house{h, t}, world)
		})
	}
}

// traces are what a refused request must not have made, spent or revoked.
var traces = []string{
	"client", "flow", "flow WHERE decided_at IS NOT NULL", "consent", "authorization_code", "authorization_code WHERE used_at IS NOT NULL",
	"device_code WHERE decided_at IS NOT NULL", "device_code WHERE used_at IS NOT NULL", "pushed_request", "pushed_request WHERE used_at IS NOT NULL", "used_assertion", "token_family", "token_family WHERE revoked_at IS NOT NULL", "refresh_token", "refresh_token WHERE used_at IS NOT NULL", "revocation",
}

// trace counts them.
func (h house) trace() (text string) {
	h.t.Helper()
	var counts []string
	for _, what := range traces {
		counts = append(counts, fmt.Sprintf("'%s: ' || (SELECT count(*) FROM %s)", strings.ReplaceAll(what, "'", "''"), what))
	}
	query := "SELECT " + strings.Join(counts, ` || ', ' || `)
	if err := h.DB.View(h.t.Context(), func(tx *store.Tx) error { return tx.QueryRow(query).Scan(&text) }); err != nil {
		h.t.Fatal(err)
	}
	return text
}

// unchanged runs f and fails if it left a trace.
func (h house) unchanged(t *testing.T, f func()) {
	t.Helper()
	before := h.trace()
	f()
	if after := h.trace(); after != before {
		t.Errorf("it left a trace:\n%s\nwas\n%s", after, before)
	}
}

// authorize sends an authorization request without cookies, as a browser.
func (h house) authorize(query url.Values) apptest.Answer {
	h.t.Helper()
	return h.Get("/oauth/authorize?"+query.Encode(), "Accept: text/html", "Sec-Fetch-Dest: document")
}

// register registers what body says and returns the answer decoded.
func (h house) register(body string) (r oauth.Registration) {
	h.t.Helper()
	a := h.PostJSON("/oauth/register", body)
	if a.StatusCode != http.StatusCreated {
		h.t.Fatalf("not registered: %d %s", a.StatusCode, a.Text)
	}
	a.JSON(h.t, &r)
	return r
}

// confidential registers a client with a secret.
func (h house) confidential(method string) oauth.Registration {
	h.t.Helper()
	return h.register(`{"client_name":"Secret app","redirect_uris":["` + apptest.Callback + `"],"token_endpoint_auth_method":"` + method + `"}`)
}

// tokens goes through everything for a client (development mode).
func (h house) tokens(client string, change url.Values) (tokens oauth.TokenResponse) {
	h.t.Helper()
	code, verifier := h.Code(client, change)
	h.Redeem(client, code, verifier, nil).JSON(h.t, &tokens)
	if tokens.AccessToken == "" || tokens.RefreshToken == "" {
		h.t.Fatal("no tokens")
	}
	return tokens
}

// works reports whether the MCP endpoint accepts the access token.
func (h house) works(token string) bool {
	h.t.Helper()
	a := h.Tool(token, "whoami", "{}")
	if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusUnauthorized {
		h.t.Fatalf("whoami: %d %s", a.StatusCode, a.Text)
	}
	return a.StatusCode == http.StatusOK
}

// sweep deletes what has expired, to the end.
func (h house) sweep() {
	h.t.Helper()
	var s authserver.Server
	for more := true; more; {
		if err := h.DB.Do(h.t.Context(), func(tx *store.Tx) (err error) {
			_, more, err = s.Sweep(tx)
			return err
		}); err != nil {
			h.t.Fatal(err)
		}
	}
}

// event counts audit events of an action.
func (h house) events(action string) int {
	h.t.Helper()
	return h.Count(`SELECT count(*) FROM audit_event WHERE action = $1`, action)
}

// refused fails unless the answer is this OAuth error in JSON (R407): never
// cached, 401 where the client itself was not believed, 400 otherwise.
func refused(t *testing.T, a apptest.Answer, code string) {
	t.Helper()
	want := http.StatusBadRequest
	if code == oauth.InvalidClient || code == oauth.InvalidToken {
		want = http.StatusUnauthorized
	}
	if a.StatusCode != want || a.Error() != code || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("want %d %s, got %d %q %v", want, code, a.StatusCode, a.Text, a.Header)
	}
	if challenged := a.Header.Get("WWW-Authenticate") != ""; challenged != (want == http.StatusUnauthorized) {
		t.Errorf("WWW-Authenticate: %q", a.Header.Get("WWW-Authenticate"))
	}
}

// shown fails unless the answer is a page for people that leads nowhere (R305).
func shown(t *testing.T, a apptest.Answer, status int) {
	t.Helper()
	if a.StatusCode != status || a.Header["Location"] != nil || a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("want page %d, got %d %v %s", status, a.StatusCode, a.Header, a.Text)
	}
	if strings.Contains(a.Text, "http-equiv=\"refresh\"") || strings.Contains(a.Text, "<script") {
		t.Errorf("the page moves or runs: %s", a.Text)
	}
}

// answered fails unless the location is the redirect URI with exactly these
// parameters added, each once (R312, R313, R116).
func answered(t *testing.T, location, redirect string, want url.Values) {
	t.Helper()
	rest, ok := strings.CutPrefix(location, redirect)
	if !ok || rest == "" || !strings.Contains("?&", rest[:1]) {
		t.Errorf("Location: %s", location)
		return
	}
	got, err := url.ParseQuery(rest[1:])
	if err != nil {
		t.Error(err)
	}
	for name := range got {
		if len(got[name]) != 1 || want[name] == nil || (want.Get(name) != "*" && want.Get(name) != got.Get(name)) {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
	for name := range want {
		if !got.Has(name) {
			t.Errorf("%s is missing in %s", name, location)
		}
	}
}

// redirected fails unless the client is told the error at its redirect URI.
func redirected(t *testing.T, h house, a apptest.Answer, redirect, state, code string) {
	t.Helper()
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("want a redirect, got %d %v %s", a.StatusCode, a.Header, a.Text)
	}
	want := url.Values{"error": {code}, "error_description": {"*"}, "iss": {h.URL}}
	if state != "" {
		want.Set("state", state)
	}
	answered(t, a.Header.Get("Location"), redirect, want)
}

func statuses(answers []apptest.Answer) map[int]int {
	counts := map[int]int{}
	for _, a := range answers {
		counts[a.StatusCode]++
	}
	return counts
}

// with is url.Values in one line: name, value, name, value.
func with(pairs ...string) url.Values {
	v := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		v.Add(pair[0], pair[1])
	}
	return v
}

func without(names ...string) url.Values {
	v := url.Values{}
	for _, name := range names {
		v[name] = nil
	}
	return v
}
