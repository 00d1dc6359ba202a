package mcpserver_test

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// fixture is a house with the servers fix and fix2 behind it, and a mint that
// makes tokens of any kind with its key.
type fixture struct {
	*apptest.House
	t    *testing.T
	up   *apptest.Upstream
	db   *store.DB
	mint *token.Tokens
}

func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{House: apptest.Start(t, apptest.Dev), t: t, up: apptest.NewUpstream(t)}
	f.Add("fix", f.up)
	f.Add("fix2", apptest.NewUpstream(t))
	f.db = storetest.Open(t, "sqlite:"+filepath.Join(f.Dir, "gatehouse.db"))
	key, err := seal.LoadKey(filepath.Join(f.Dir, "master.key"), false)
	if err != nil {
		t.Fatal(err)
	}
	f.mint = &token.Tokens{DB: f.db, Box: &seal.Box{Keeper: key}, Issuer: f.URL}
	if err := f.mint.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.exec(`INSERT INTO users (id, email, created_at) VALUES ('usr_bob', 'bob@acme.example', 1)`)
	f.exec(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_bob', 'standard', 'active', 1)`)
	return f
}

func (f *fixture) exec(statement string) {
	f.t.Helper()
	err := f.db.Do(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(statement)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// token mints one; the zero family is that of the development identity at the
// common endpoint.
func (f *fixture) token(family token.Family, age time.Duration) string {
	f.t.Helper()
	if family.User == "" {
		family.User = "usr_dev"
	}
	if family.Client == "" {
		family.Client = "app"
	}
	if family.Resource == "" {
		family.Resource = f.URL + "/mcp"
	}
	if family.Scopes == nil {
		family.Scopes = []string{"mcp:tools"}
	}
	family.ID, family.Workspace = token.NewFamilyID(), "default"
	var pair token.Pair
	err := f.db.Do(context.Background(), func(tx *store.Tx) (err error) {
		tx.Now -= age.Microseconds()
		pair, err = f.mint.Start(tx, family)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return pair.Access
}

// dev is a token of the development identity at the common endpoint.
func (f *fixture) dev(scopes ...string) string { return f.token(token.Family{Scopes: scopes}, 0) }

// at is a token of the development identity for another endpoint.
func (f *fixture) at(path string, scopes ...string) string {
	return f.token(token.Family{Resource: f.URL + path, Scopes: scopes}, 0)
}

// answered is a JSON-RPC answer.
type answered struct {
	ID     json.RawMessage
	Result json.RawMessage
	Error  *struct {
		Code    int
		Message string
		Data    json.RawMessage
	}
}

func parse(t *testing.T, a apptest.Answer) (m answered) {
	t.Helper()
	a.JSON(t, &m)
	return m
}

// wrong says of a tool result which code it has; "" if it is no error.
func wrong(a apptest.Answer) string {
	var m struct {
		Result struct {
			IsError           bool
			StructuredContent struct{ Code string }
		}
		Error struct {
			Data struct{ Code string }
		}
	}
	_ = json.Unmarshal([]byte(a.Text), &m) // what is not JSON has no code
	if m.Result.IsError {
		return m.Result.StructuredContent.Code
	}
	return m.Error.Data.Code
}

// challenge is the only challenge of an answer.
func challenge(t *testing.T, a apptest.Answer) map[string]string {
	t.Helper()
	all := oauth.ParseChallenges(a.Header.Values("WWW-Authenticate"))
	if len(all) != 1 || all[0].Scheme != "bearer" {
		t.Fatalf("%d %s: challenges %q", a.StatusCode, a.Text, a.Header.Values("WWW-Authenticate"))
	}
	return all[0].Params
}

// post sends a body to an endpoint as it is.
func (f *fixture) post(path, bearer, body string, headers ...string) apptest.Answer {
	f.t.Helper()
	r := f.Request(http.MethodPost, path, body, headers...)
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/json, text/event-stream")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return f.Do(r)
}

const initializeParams = `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}`

// session initializes and returns the session id.
func (f *fixture) session(path, bearer string) string {
	f.t.Helper()
	id := f.RPC(path, bearer, "initialize", initializeParams).Header.Get(mcp.SessionHeader)
	if id == "" {
		f.t.Fatalf("session id %q", id)
	}
	return id
}

// names are those of tools/list at an endpoint.
func (f *fixture) names(path, bearer string) string {
	f.t.Helper()
	var list struct {
		Result struct{ Tools []struct{ Name string } }
	}
	f.RPC(path, bearer, "tools/list", "").JSON(f.t, &list)
	var names []string
	for _, t := range list.Result.Tools {
		names = append(names, t.Name)
	}
	return strings.Join(names, " ")
}

// events are outcome and code of the last n events of the workspace.
func (f *fixture) events(n int) string {
	f.t.Helper()
	var words []string
	err := f.db.View(context.Background(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT target, outcome, code FROM (SELECT seq, target, outcome, code FROM audit_event
			WHERE workspace = 'default' ORDER BY seq DESC LIMIT $1) AS newest ORDER BY seq`, n)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var target, outcome, code string
			if err := rows.Scan(&target, &outcome, &code); err != nil {
				return err
			}
			words = append(words, strings.TrimSpace(target+" "+outcome+" "+code))
		}
		return rows.Err()
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.Join(words, ", ")
}

// count is the number of rows of a table.
func (f *fixture) count(table string) (n int) {
	f.t.Helper()
	err := f.db.View(context.Background(), func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM ` + table).Scan(&n) })
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// lastEvent is action, target and outcome of the last event of the workspace.
func (f *fixture) lastEvent() string {
	f.t.Helper()
	var action, target, outcome string
	err := f.db.View(context.Background(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT action, target, outcome FROM audit_event WHERE workspace = 'default' ORDER BY seq DESC LIMIT 1`).
			Scan(&action, &target, &outcome)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return action + " " + target + " " + outcome
}
