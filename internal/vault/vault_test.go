package vault_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/qa"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

const issuer = "https://gatehouse.example"

// world is a vault, on any number of nodes, with a service that people connect.
type world struct {
	t       *testing.T
	db      *store.DB
	service *qa.Service
	url     string // of the service
	nodes   []*vault.Vault
	tokens  []string // that the service has handed out
	mu      sync.Mutex
	refused int // exchanges that were refused

	lie atomic.Pointer[http.HandlerFunc] // answers in place of the service
}

var secret = regexp.MustCompile(`qa-(?:access|refresh)-[a-z0-9]+`)

func onEach(t *testing.T, nodes int, f func(t *testing.T, w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { f(t, furnish(t, db, nodes)) })
}

func furnish(t *testing.T, db *store.DB, nodes int) *world {
	w := &world{t: t, db: db}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if lie := w.lie.Load(); lie != nil {
			(*lie)(rw, r)
			return
		}
		rec := httptest.NewRecorder()
		w.service.ServeHTTP(rec, r)
		w.mu.Lock()
		if r.URL.Path == "/oauth/token" {
			w.tokens = append(w.tokens, secret.FindAllString(rec.Body.String(), -1)...)
			if rec.Code >= 300 {
				w.refused++
			}
		}
		w.mu.Unlock()
		for name, values := range rec.Header() {
			rw.Header()[name] = values
		}
		rw.WriteHeader(rec.Code)
		_, _ = rw.Write(rec.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	w.service = qa.New(w.url, qa.Client{ID: "gatehouse", Secret: "hush", Redirect: issuer + "/connect/kb/callback"})
	key, err := seal.LoadKey(filepath.Join(t.TempDir(), "key"), true)
	if err != nil {
		t.Fatal(err)
	}
	box := &seal.Box{Keeper: key}
	log := &audit.Log{DB: db, Box: *box}
	db.BeforeCommit = log.Seal
	if err := log.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(w.url, "http://")
	people := &identity.People{DB: db}
	if err := people.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"usr_dana", "usr_erin"} {
		w.exec(`INSERT INTO users (id, email, created_at) VALUES ($1, $2, 1)`, id, id+"@gatehouse.example")
		w.exec(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ($1, $2, 'standard', 'active', 1)`, identity.Workspace, id)
	}
	for range nodes {
		v := &vault.Vault{
			DB: db, Box: box, Audit: log, People: people, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Issuer: issuer, Node: store.ID("node_"), Workspace: identity.Workspace,
			Providers: map[string]vault.Provider{"kb": {
				Issuer: w.url, ClientID: "gatehouse", Secret: seal.Hide("hush"), Auth: vault.AuthBasic, Reads: []string{qa.Read}, Writes: []string{qa.Write}, Hosts: []string{host},
			}},
			For: func(origin string) []string {
				if origin == "other" {
					return nil
				}
				return []string{"kb"}
			},
		}
		if err := v.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, v)
	}
	return w
}

func person(id string) principal.Principal {
	return principal.Principal{Kind: principal.Member, Workspace: identity.Workspace, User: "usr_" + id, Rank: principal.Standard}
}

// answered goes to the service for a person, who is called name there, and returns
// the answer that their browser brings back.
func (w *world) answered(p principal.Principal, name string, change url.Values) (url.Values, func(string, []byte) bool) {
	w.t.Helper()
	d, err := w.nodes[0].Begin(w.t.Context(), p, "kb", "")
	if err != nil {
		w.t.Fatal(err)
	}
	form := url.Values{"person": {name}, "decision": {"allow"}, "allow": {qa.Read, qa.Write}}
	for k, v := range change {
		form[k] = v
	}
	return w.answer(d.URL, form), holding(d.Key)
}

// holding is a browser that was given the key.
func holding(key token.Split) func(string, []byte) bool {
	return func(id string, hash []byte) bool {
		of, presented, ok := token.Parse("key_", key.Token)
		return ok && of == id && presented.Matches(hash)
	}
}

// answer fills in the form of the service.
func (w *world) answer(address string, form url.Values) url.Values {
	w.t.Helper()
	hc := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := hc.Get(address)
	if err != nil {
		w.t.Fatal(err)
	}
	page, _ := io.ReadAll(res.Body) // a form or none
	_ = res.Body.Close()
	for name, values := range apptest.Fields(string(page)) {
		if name != "allow" {
			form[name] = values
		}
	}
	if res, err = hc.PostForm(w.url+"/oauth/authorize", form); err != nil {
		w.t.Fatal(err)
	}
	_ = res.Body.Close()
	back, err := res.Location()
	if err != nil {
		w.t.Fatalf("%d %s", res.StatusCode, page)
	}
	return back.Query()
}

// connect connects an account.
func (w *world) connect(p principal.Principal, name string, change url.Values) {
	w.t.Helper()
	query, bound := w.answered(p, name, change)
	a, err := w.nodes[0].Arrive(w.t.Context(), p, "kb", query, "req_x", bound)
	if err != nil || a.Err != nil {
		w.t.Fatal(err, a.Err)
	}
}

// get asks the service as a person, by way of one node.
func (w *world) get(v *vault.Vault, p principal.Principal, path string) (*http.Response, string, error) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := v.Lend(p, "kb", http.DefaultTransport).RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	body, _ := io.ReadAll(res.Body) // what there is
	_ = res.Body.Close()
	return res, string(body), nil
}

func (w *world) sees(v *vault.Vault, p principal.Principal, name string) {
	w.t.Helper()
	if res, text, err := w.get(v, p, "/api/me"); err != nil || res.StatusCode != http.StatusOK || !strings.Contains(text, `"`+name+`"`) {
		w.t.Errorf("%s is not %s: %s %v", p.User, name, text, err)
	}
}

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	err := w.db.Do(w.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(statement, args...)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) text(query string) (text string) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(tx *store.Tx) error { return tx.QueryRow(query).Scan(&text) }); err != nil {
		w.t.Fatal(err)
	}
	return text
}

func is(t *testing.T, err error, code string) {
	t.Helper()
	if e := problem.From(err); e == nil || e.Name != code {
		t.Errorf("want %s, got %v", code, err)
	}
}

// R551, R553, R554, R557: each person's requests carry what that person was
// granted, refreshed when it is due, and nothing of it is kept in the clear.
func TestEachPersonUsesTheirOwnAccount(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		v := w.nodes[0]
		_, _, err := w.get(v, person("dana"), "/api/me")
		is(t, err, "CONNECTION_NEEDED")
		if e := problem.From(err); e.Link != issuer+"/connect/kb" || !strings.Contains(e.Fix, e.Link) {
			t.Errorf("the way out is %q, %q", e.Link, e.Fix)
		}
		w.connect(person("dana"), "mira", nil)
		w.connect(person("erin"), "theo", nil)
		w.sees(v, person("dana"), "mira")
		w.sees(v, person("erin"), "theo")

		w.exec(`UPDATE upstream_grant SET expires_at = 1`)
		w.service.Expire()
		w.sees(v, person("dana"), "mira")
		w.sees(v, person("erin"), "theo")

		w.connect(person("dana"), "theo", nil) // another account in the place of the first
		w.sees(v, person("dana"), "theo")

		for _, stranger := range []principal.Principal{{}, {Kind: principal.ServiceAccount, Workspace: identity.Workspace, User: "usr_dana"}, {Kind: principal.Member, Workspace: "other", User: "usr_dana"}} {
			_, _, err := w.get(v, stranger, "/api/me")
			is(t, err, "CONNECTION_NEEDED")
		}
		dump := w.text(`SELECT count(*) || '' FROM upstream_grant`)
		for _, tok := range w.tokens {
			if where := apptest.Find(tok, dump+stored(t, w.db)); where != "" {
				t.Errorf("the database holds a token %s", where)
			}
		}
	})
}

// stored is what the table keeps of credentials.
func stored(t *testing.T, db *store.DB) string {
	var all strings.Builder
	err := db.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT access, refresh FROM upstream_grant`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var a, r []byte
			if err := rows.Scan(&a, &r); err != nil {
				return err
			}
			all.Write(a)
			all.Write(r)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// A refresh token that rotates is used once, however many calls and nodes need a
// new access token at once.
func TestOneRefreshAtATime(t *testing.T) {
	onEach(t, 2, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		for round := range 4 {
			if round%2 == 0 {
				w.exec(`UPDATE upstream_grant SET expires_at = 1`)
			}
			w.service.Expire()
			apptest.Together(16, func(i int) bool { w.sees(w.nodes[i%2], person("dana"), "mira"); return true })
		}
		if w.refused != 0 || len(w.tokens) != 2*(1+4) {
			t.Errorf("%d exchanges were refused, %d tokens handed out", w.refused, len(w.tokens))
		}
	})
}

// A caller who goes away while the provider is asked loses nothing for the others.
func TestARefreshOutlivesItsCaller(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		w.exec(`UPDATE upstream_grant SET expires_at = 1`)
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/api/me", nil)
		gone := w.nodes[0].Lend(person("dana"), "kb", roundTrip(func(*http.Request) (*http.Response, error) { return nil, ctx.Err() }))
		time.AfterFunc(time.Millisecond, cancel)
		_, _ = gone.RoundTrip(r) // whatever comes of it
		w.sees(w.nodes[0], person("dana"), "mira")
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// R558: what the provider ended is lost, says how to connect again, is recorded
// once, and wiped; connecting again cures it.
func TestALostGrantSaysHowToReconnect(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		w.service.Forget("mira")
		for range 2 {
			_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
			is(t, err, "CONNECTION_LOST")
			if e := problem.From(err); !strings.Contains(e.Fix, issuer+"/connect/kb") {
				t.Errorf("the fix is %q", e.Fix)
			}
		}
		if lost := w.text(`SELECT count(*) || '' FROM audit_event WHERE action = 'connection.lost'`); lost != "1" {
			t.Errorf("recorded %s times", lost)
		}
		if left := w.text(`SELECT count(*) || '' FROM upstream_grant WHERE access IS NOT NULL OR refresh IS NOT NULL`); left != "0" {
			t.Error("the credential is kept")
		}
		w.connect(person("dana"), "mira", nil)
		w.sees(w.nodes[0], person("dana"), "mira")
	})
}

// The job refreshes what is in use before it ends, and finds out about idle grants
// that the provider has ended.
func TestTheJobRefreshesWhatIsDue(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		w.connect(person("erin"), "theo", nil)
		w.sees(w.nodes[0], person("dana"), "mira")
		w.service.Forget("theo")
		w.exec(`UPDATE upstream_grant SET expires_at = 1`)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.nodes[0].Run(ctx) }()
		for began := time.Now(); w.text(`SELECT count(*) || '' FROM upstream_grant WHERE status = 'error' OR expires_at > 1`) != "2"; time.Sleep(10 * time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("not refreshed")
			}
		}
		cancel()
		<-done
		w.sees(w.nodes[0], person("dana"), "mira")
		_, _, err := w.get(w.nodes[0], person("erin"), "/api/me")
		is(t, err, "CONNECTION_LOST")
	})
}

// A provider that does not answer ends nothing.
func TestAProviderThatFailsEndsNothing(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	w.exec(`UPDATE upstream_grant SET expires_at = 1`)
	w.service.Register(qa.Client{ID: "another"}) // invalid_client
	_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
	is(t, err, "PROVIDER_FAILED")
	w.service.Register(qa.Client{ID: "gatehouse", Secret: "hush", Redirect: issuer + "/connect/kb/callback"})
	w.sees(w.nodes[0], person("dana"), "mira")
}

// A credential goes to the hosts of its connection and nowhere else, and nothing of
// the caller goes with it (R519, attack 82).
func TestACredentialGoesToItsHostsOnly(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	for _, address := range []string{
		"http://127.0.0.1:1/api/me", "https://evil.example/api/me", strings.Replace(w.url, "127.0.0.1", "localhost", 1), strings.Replace(w.url, "http:", "https:", 1) + "0",
		"http://198.51.100.1/", "https://127.0.0.1.evil.example/",
	} {
		r, err := http.NewRequest(http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.nodes[0].Lend(person("dana"), "kb", roundTrip(func(*http.Request) (*http.Response, error) {
			t.Errorf("%s was reached", address)
			return nil, io.EOF
		})).RoundTrip(r)
		is(t, err, "HOST_NOT_ALLOWED")
	}
	w.exec(`UPDATE connection SET hosts = 'evil.example'`) // by who can write the database, or a node with another file
	evil, _ := http.NewRequest(http.MethodGet, "https://evil.example/api/me", nil)
	_, err := w.nodes[0].Lend(person("dana"), "kb", http.DefaultTransport).RoundTrip(evil)
	is(t, err, "HOST_NOT_ALLOWED")
	w.sees(w.nodes[0], person("dana"), "mira")

	r, _ := http.NewRequest(http.MethodGet, w.url+"/api/me", nil)
	for _, name := range []string{"Authorization", "Cookie", "DPoP", "Proxy-Authorization"} {
		r.Header.Set(name, "the caller's")
	}
	res, err := w.nodes[0].Lend(person("dana"), "kb", roundTrip(func(r *http.Request) (*http.Response, error) {
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), "caller") {
				t.Errorf("%s went out", name)
			}
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{"Set-Cookie": {"a=b"}, "Www-Authenticate": {"Bearer"}, "X-Other": {"1"}}}, nil
	})).RoundTrip(r)
	if err != nil || len(res.Header) != 1 || r.Header.Get("Authorization") != "the caller's" {
		t.Errorf("came back: %v %v", res, err)
	}
}

// R556: what the person did not allow at the provider is not called, by the effect
// of the tool; lists stay as they are.
func TestNarrowGrantsNarrowTools(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	check := func(e tool.Effect, args string) error {
		c := gate.Call{Principal: person("dana"), Name: "kb_x"}
		if args != "" {
			c.Args = []byte(args)
		}
		return w.nodes[0].Check(t.Context(), c, tool.Tool{Def: tool.Def{Name: "x", Effect: e}, Origin: "kb"})
	}
	is(t, check(tool.Reads, "{}"), "CONNECTION_NEEDED")
	w.connect(person("dana"), "mira", url.Values{"allow": {qa.Read}})
	if err := check(tool.Reads, "{}"); err != nil {
		t.Error(err)
	}
	is(t, check(tool.Writes, "{}"), "CONNECTION_NARROW")
	is(t, check(tool.Destroys, "{}"), "CONNECTION_NARROW")
	if err := check(tool.Destroys, ""); err != nil {
		t.Error("asked about a list:", err)
	}
	w.connect(person("dana"), "mira", nil)
	if err := check(tool.Writes, "{}"); err != nil {
		t.Error(err)
	}
	w.service.Forget("mira")
	w.service.Expire()
	_, _, _ = w.get(w.nodes[0], person("dana"), "/api/me") // finds out
	is(t, check(tool.Reads, "{}"), "CONNECTION_LOST")
	if err := w.nodes[0].Check(t.Context(), gate.Call{Args: []byte("{}")}, tool.Tool{Origin: "other"}); err != nil {
		t.Error("another server:", err)
	}
}

// A person is sent to connect what is missing, lost or removed, and nowhere that
// nobody can go.
func TestWhatIsMissingCanBeConnected(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	missing := func(names ...string) (lacking []string) {
		err := w.db.View(t.Context(), func(tx *store.Tx) (err error) {
			lacking, err = w.nodes[0].Missing(tx, person("dana"), names)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return lacking
	}
	if got := missing("kb", "not-configured"); len(got) != 1 || got[0] != "kb" {
		t.Errorf("before: %v", got)
	}
	w.connect(person("dana"), "mira", nil)
	if got := missing("kb"); len(got) != 0 {
		t.Errorf("connected: %v", got)
	}
	for _, status := range []string{"error", "removed"} {
		w.exec(`UPDATE upstream_grant SET status = $1`, status)
		if got := missing("kb"); len(got) != 1 {
			t.Errorf("%s: %v", status, got)
		}
	}
}

// R410, C16: the claim is sealed, says nothing to others, and is good for its own
// person and family only.
func TestPublicTokenIsSealedToItsFamily(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	w.connect(person("erin"), "theo", nil)
	claim := func(user, family, origin string) (text string) {
		err := w.db.View(t.Context(), func(tx *store.Tx) (err error) {
			text, err = w.nodes[0].PublicToken(tx, token.Family{ID: family, Workspace: identity.Workspace, User: "usr_" + user}, origin)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if claim("nobody", "fam_1", "") != "" || claim("dana", "fam_1", "other") != "" {
		t.Error("a claim without a connection")
	}
	p := person("dana")
	p.Family, p.Handle = "fam_1", claim("dana", "fam_1", "")
	w.sees(w.nodes[0], p, "mira")
	for _, tok := range w.tokens {
		if apptest.Find(tok, p.Handle) != "" {
			t.Error("the claim holds the token")
		}
	}
	for why, handle := range map[string]string{
		"another person's": claim("erin", "fam_1", ""), "of another family": claim("dana", "fam_2", ""), "changed": p.Handle[:len(p.Handle)-1] + "A", "made up": "x",
	} {
		q := p
		q.Handle = handle
		if q.Handle == p.Handle {
			continue
		}
		if _, _, err := w.get(w.nodes[0], q, "/api/me"); err == nil {
			t.Errorf("%s handle is good", why)
		}
	}
}
