package app_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// A fault makes the audit table unwritable and writable again.
type fault struct {
	name        string
	spoil, mend []string
}

var renamed = fault{"renamed", []string{`ALTER TABLE audit_event RENAME TO away`}, []string{`ALTER TABLE away RENAME TO audit_event`}}

// The audit log made unwritable: nothing changes, nothing that could change the
// world is forwarded, every caller hears that it is not done, and the server goes
// on once the log is back (R1013).
func TestNothingHappensWhileTheLogIsUnwritable(t *testing.T) {
	t.Parallel()
	lite := fault{
		"raising", []string{`CREATE TRIGGER refuse BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ABORT, 'disk on fire'); END`},
		[]string{`DROP TRIGGER refuse`},
	}
	rollback := fault{
		"rolling back", []string{`CREATE TRIGGER refuse BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ROLLBACK, 'disk on fire'); END`},
		[]string{`DROP TRIGGER refuse`},
	}
	postgres := fault{"raising", []string{
		`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'disk on fire'; END $$ LANGUAGE plpgsql`,
		`CREATE TRIGGER refuse BEFORE INSERT ON audit_event FOR EACH ROW EXECUTE FUNCTION refuse()`,
	}, []string{`DROP TRIGGER refuse ON audit_event`}}
	for engine, address := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(engine, func(t *testing.T) {
			at := address(t)
			u := unwritable{t: t, up: apptest.NewUpstream(t)}
			u.House = apptest.Open(t, apptest.Dev, func(c *app.Config) {
				c.Database, c.MasterKeyFile = at, filepath.Join(c.DataDir, "master.key")
			})
			u.prepare()
			faults := []fault{renamed, lite, rollback}
			if engine == "postgres" {
				faults = []fault{renamed, postgres}
			}
			for _, f := range faults {
				t.Run(f.name, func(t *testing.T) { u.t = t; u.try(f) })
			}
			mustBeIntact(t, u.House)
		})
	}
}

type unwritable struct {
	*apptest.House
	t                                       *testing.T
	up                                      *apptest.Upstream
	client, access, refresh, code, verifier string
}

// prepare gets everything that is needed to ask for more.
func (u *unwritable) prepare() {
	u.Add("fix", u.up)
	tokens, client := u.Token("mcp:admin", "")
	u.client, u.access, u.refresh = client, tokens.AccessToken, tokens.RefreshToken
}

func (u *unwritable) exec(statements []string) {
	u.t.Helper()
	err := u.DB.Do(context.Background(), func(tx *store.Tx) error {
		for _, s := range statements {
			if _, err := tx.Exec(s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
}

// counts are the rows of everything that could have changed.
func (u *unwritable) counts() (text string) {
	u.t.Helper()
	err := u.DB.View(context.Background(), func(tx *store.Tx) error {
		for _, what := range []string{
			"client", "flow", "consent", "authorization_code", "authorization_code WHERE used_at IS NOT NULL", "token_family",
			"token_family WHERE revoked_at IS NOT NULL", "refresh_token", "refresh_token WHERE used_at IS NOT NULL", "revocation",
			"upstream", "upstream_tool", "sign_in_link", "browser_session", "setup_code", "audit_head", "users", "member",
		} {
			var n int
			if err := tx.QueryRow(`SELECT count(*) FROM ` + what).Scan(&n); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			text += fmt.Sprintf("%s: %d\n", what, n)
		}
		return nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return text
}

// request is something that asks for a change, or for an answer that has to be
// recorded, and how it ends in good and in bad times.
type request struct {
	name string
	ask  func() apptest.Answer
	bad  func(apptest.Answer) bool
	good func(apptest.Answer) bool
}

func status(want int) func(apptest.Answer) bool {
	return func(a apptest.Answer) bool { return a.StatusCode == want }
}

func says(status int, words ...string) func(apptest.Answer) bool {
	return func(a apptest.Answer) bool {
		for _, word := range words {
			if !strings.Contains(a.Text, word) {
				return false
			}
		}
		return a.StatusCode == status
	}
}

// The answers while nothing can be recorded, as each door says it.
var (
	oauthBusy = func(a apptest.Answer) bool {
		return a.StatusCode == http.StatusServiceUnavailable && a.Error() == "temporarily_unavailable"
	}
	restBusy = says(http.StatusServiceUnavailable, `"code":"AUDIT_UNAVAILABLE"`)
	toolBusy = says(http.StatusOK, `"isError":true`, `"code":"AUDIT_UNAVAILABLE"`)
)

func (u *unwritable) requests() []request {
	form := func(path string, values url.Values) func() apptest.Answer {
		return func() apptest.Answer { values.Set("client_id", u.client); return u.Form(path, values) }
	}
	tool := func(name, args string) func() apptest.Answer {
		return func() apptest.Answer { return u.Tool(u.access, name, args) }
	}
	admin := func(name, args string) func() apptest.Answer {
		return func() apptest.Answer { return u.Admin(name, args) }
	}
	rest := func(name, args string) func() apptest.Answer {
		return func() apptest.Answer { return u.PostJSON("/mcp/tool/"+name, args, "Authorization: Bearer "+u.access) }
	}
	query, _ := u.Authorization(u.client, nil)
	return []request{
		{"registration", func() apptest.Answer {
			return u.PostJSON("/oauth/register", `{"redirect_uris":["http://127.0.0.1/callback"]}`)
		}, oauthBusy, status(http.StatusCreated)},
		{"authorization", func() apptest.Answer { return u.Get("/oauth/authorize?" + query.Encode()) },
			func(a apptest.Answer) bool {
				return a.StatusCode == http.StatusServiceUnavailable && a.Header.Get("Location") == ""
			}, status(http.StatusSeeOther)},
		{"code", func() apptest.Answer { return u.Redeem(u.client, u.code, u.verifier, nil) }, oauthBusy, status(http.StatusOK)},
		{"refresh", form("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {u.refresh}}), oauthBusy, status(http.StatusOK)},
		{"inside tool", tool("echo", `{"message":"hi"}`), toolBusy, says(http.StatusOK, `"echo":"hi"`)},
		{"read outside", tool("fix_read", `{}`), toolBusy, says(http.StatusOK, "did read")},
		{"write outside", tool("fix_write", `{}`), toolBusy, says(http.StatusOK, "did write")},
		{"destruction outside", tool("fix_destroy", `{}`), toolBusy, says(http.StatusOK, "did destroy")},
		{"unknown tool", tool("none", `{}`), toolBusy, says(http.StatusOK, "TOOL_UNKNOWN")},
		{"inside tool over REST", rest("echo", `{"message":"hi"}`), restBusy, says(http.StatusOK, `"echo":"hi"`)},
		{"write over REST", rest("fix_write", `{}`), restBusy, says(http.StatusOK, "did write")},
		{"direct tool over REST", rest("remove_server", `{"name":"fix"}`), restBusy, status(http.StatusForbidden)},
		{"adding a server", admin("add_server", `{"name":"new","url":"`+u.up.URL+`"}`), restBusy, says(http.StatusOK, `"name":"new"`)},
		{"removing a server", admin("remove_server", `{"name":"new"}`), restBusy, says(http.StatusOK, `"name":"new"`)},
		{"whoami over the socket", admin("whoami", ""), restBusy, says(http.StatusOK, `"rank":"owner"`)},
		{"revocation", form("/oauth/revoke", url.Values{"token": {u.refresh}}), oauthBusy, status(http.StatusOK)},
	}
}

// sent is how often the server behind the house was asked to do something.
func (u *unwritable) sent() (n int) {
	for _, r := range u.up.Received("tools/call") {
		if !strings.Contains(string(r.Params), "read") {
			n++
		}
	}
	return n
}

func (u *unwritable) try(f fault) {
	u.t.Helper()
	tokens, client := u.Token("mcp:admin", "")
	u.client, u.access, u.refresh = client, tokens.AccessToken, tokens.RefreshToken
	u.code, u.verifier = u.Code(u.client, nil)
	requests, before, sent, connected := u.requests(), u.counts(), u.sent(), len(u.up.Received("initialize"))

	u.exec(f.spoil)
	for _, r := range requests {
		if a := r.ask(); !r.bad(a) || strings.Contains(a.Text, "fire") || strings.Contains(a.Text, "did ") {
			u.t.Errorf("%s: %d %s", r.name, a.StatusCode, a.Text)
		}
	}
	if a := u.RPC("/mcp", u.access, "tools/list", ""); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "fix_read") {
		u.t.Errorf("what decides and changes nothing is refused: %d %s", a.StatusCode, a.Text)
	}
	if after := u.counts(); after != before {
		u.t.Errorf("something changed:\n%s\nwas:\n%s", after, before)
	}
	if u.sent() != sent || len(u.up.Received("initialize")) != connected {
		u.t.Errorf("%d calls and %d connections were forwarded", u.sent()-sent, len(u.up.Received("initialize"))-connected)
	}
	u.exec(f.mend)
	for _, r := range requests {
		if a := r.ask(); !r.good(a) {
			u.t.Errorf("afterwards, %s: %d %s", r.name, a.StatusCode, a.Text)
		}
	}
	if a := u.Tool(u.access, "echo", `{"message":"hi"}`); a.StatusCode != http.StatusUnauthorized {
		u.t.Errorf("the revocation counts: %d %s", a.StatusCode, a.Text)
	}
}

// The same for people: no owner, no sign-in and no consent comes to be, and what
// was shown can be answered later.
func TestPeopleCanGoOnWhenTheLogIsBack(t *testing.T) {
	h := apptest.Open(t)
	u := unwritable{House: h, t: t}
	b := h.Browser()
	refused := func(what string, a apptest.Answer) {
		t.Helper()
		if a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, "AUDIT_UNAVAILABLE") || strings.Contains(a.Text, "away") {
			t.Errorf("%s: %d %s", what, a.StatusCode, a.Text)
		}
	}
	setup := apptest.Fields(b.Open("/setup").Text)
	setup.Set("code", h.Log.Wait("  code  ", nil))
	setup.Set("email", apptest.Owner)
	before := u.counts()
	u.exec(renamed.spoil)
	refused("setup", b.Submit("/setup", setup))
	if after := u.counts(); after != before || strings.Contains(h.Log.String(), "/login/link") {
		t.Errorf("something changed:\n%s\nwas:\n%s", after, before)
	}
	u.exec(renamed.mend)
	if a := b.Submit("/setup", setup); a.StatusCode != http.StatusOK {
		t.Fatalf("setup afterwards: %d %s", a.StatusCode, a.Text)
	}

	link := apptest.Fields(b.Open(b.Link()).Text)
	before = u.counts()
	u.exec(renamed.spoil)
	refused("sign-in", b.Submit("/login/link", link))
	if after := u.counts(); after != before {
		t.Errorf("something changed:\n%s\nwas:\n%s", after, before)
	}
	u.exec(renamed.mend)
	b.Submit("/login/link", link)

	query, _ := h.Authorization(h.Register(), nil)
	consent := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
	consent.Set("started", "yes")
	before = u.counts()
	u.exec(renamed.spoil)
	for _, decision := range []string{"allow", "deny"} {
		consent.Set("decision", decision)
		refused(decision, b.Submit("/consent", consent))
	}
	if after := u.counts(); after != before {
		t.Errorf("something changed:\n%s\nwas:\n%s", after, before)
	}
	u.exec(renamed.mend)
	consent.Set("decision", "allow")
	if target := apptest.Target(b.Submit("/consent", consent).Text); target == nil || target.Query().Get("code") == "" {
		t.Errorf("afterwards: %v", target)
	}
}
