package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// hidden stands in everything of the other workspace that is not a name or an
// id: it is never passed, so it may never come back.
const hidden = "hidden-marker"

// foreign ids and names, as somebody of another workspace might have seen them.
var foreignIDs = []string{
	"zq-other", "usr_zqother", "erin@zq-other.example", "srv_zqother", "zq-server", "zq-server_peek", "peek",
	"svc_zqother", "fam_zqother", "cns_zqother", "ses_zqother", "rt_zqother", "at_zqother", "rs_zqother", "code_zqother", "dev_zqother", "con_zqother", "ugr_zqother", "urv_zqother", "dep_zqother",
}

// addForeign fills the tables of every room with rows of a second workspace.
func (h *house) addForeign(t *testing.T, serverURL string) {
	t.Helper()
	err := h.db.Do(context.Background(), func(tx *store.Tx) error {
		for _, statement := range []string{
			`INSERT INTO workspace (id, name, created_at) VALUES ('zq-other', 'hidden-marker', 1)`,
			`INSERT INTO users (id, email, created_at) VALUES ('usr_zqother', 'erin@zq-other.example', 1)`,
			`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('zq-other', 'usr_zqother', 'owner', 'active', 1)`,
			`INSERT INTO service_account (id, workspace, name, tools, jwks, family, status, created_at, created_by)
				VALUES ('svc_zqother', 'zq-other', 'hidden-marker', '', '', 'fam_zqother', 'active', 1, 'usr_zqother')`,
			`INSERT INTO external_subject (issuer, subject, workspace, user_id, created_at) VALUES ('hidden-marker', 'hidden-marker', 'zq-other', 'usr_zqother', 1)`,
			`INSERT INTO upstream (id, workspace, name, url, command, created_at) VALUES ('srv_zqother', 'zq-other', 'zq-server', '` + serverURL + `/hidden-marker', '', 1)`,
			`INSERT INTO upstream_tool (upstream, position, workspace, definition)
				VALUES ('srv_zqother', 0, 'zq-other', '{"name":"peek","description":"hidden-marker","inputSchema":{"type":"object","properties":{"id":{"type":"string"}}},"annotations":{"readOnlyHint":true}}')`,
			`INSERT INTO client (id, name, redirect_uris, grant_types, auth_method, scope, metadata, created_at, created_from)
				VALUES ('app', 'app', '', '', 'none', '', '{}', 1, '')`,
			`INSERT INTO consent (id, workspace, user_id, client, redirect_uri, scopes, resource, granted_at)
				VALUES ('cns_zqother', 'zq-other', 'usr_zqother', 'app', 'hidden-marker', 'mcp:admin', 'hidden-marker', 1)`,
			`INSERT INTO authorization_code (id, hash, workspace, user_id, client, consent, redirect_uri, challenge, scopes, resource, family, ref, created_at, expires_at)
				VALUES ('code_zqother', 'x', 'zq-other', 'usr_zqother', 'app', 'cns_zqother', 'hidden-marker', '', '', '', 'fam_zqother', '', 1, 9000000000000000)`,
			`INSERT INTO device_code (id, hash, user_hash, user_code, client, scopes, resource, asked_from, asked_by, ref, pause, created_at, expires_at, workspace, user_id)
				VALUES ('dev_zqother', 'x', 'x', 'x', 'app', '', 'hidden-marker', 'hidden-marker', '', '', 1, 1, 9000000000000000, 'zq-other', 'usr_zqother')`,
			`INSERT INTO token_family (id, workspace, user_id, client, consent, scopes, resource, created_at, expires_at, used_at)
				VALUES ('fam_zqother', 'zq-other', 'usr_zqother', 'app', 'cns_zqother', 'mcp:admin', 'hidden-marker', 1, 9000000000000000, 1)`,
			`INSERT INTO refresh_token (id, workspace, family, parent, hash, created_at, expires_at)
				VALUES ('rt_zqother', 'zq-other', 'fam_zqother', '', 'x', 1, 9000000000000000)`,
			`INSERT INTO access_token (id, hash, workspace, family, user_id, client, scopes, resource, created_at, expires_at)
				VALUES ('at_zqother', 'x', 'zq-other', 'fam_zqother', 'usr_zqother', 'app', 'mcp:admin', 'hidden-marker', 1, 9000000000000000)`,
			`INSERT INTO introspector (id, workspace, name, resource, hash, created_at, created_by)
				VALUES ('rs_zqother', 'zq-other', 'hidden-marker', 'hidden-marker', 'x', 1, 'usr_zqother')`,
			`INSERT INTO browser_session (id, hash, workspace, user_id, created_at, expires_at)
				VALUES ('ses_zqother', 'x', 'zq-other', 'usr_zqother', 1, 9000000000000000)`,
			`INSERT INTO connection (id, workspace, name, hosts, created_at) VALUES ('con_zqother', 'zq-other', 'hidden-marker', 'hidden-marker', 1)`,
			`INSERT INTO upstream_grant (id, workspace, connection, user_id, status, created_at) VALUES ('ugr_zqother', 'zq-other', 'con_zqother', 'usr_zqother', 'active', 1)`,
			`INSERT INTO upstream_revocation (id, workspace, connection, user_id, provider, due_at, created_at) VALUES ('urv_zqother', 'zq-other', 'con_zqother', 'usr_zqother', '', 9000000000000000, 9000000000000000)`,
			`INSERT INTO departure (id, hash, browser_id, browser, workspace, connection, user_id, flow, verifier, created_at, expires_at)
				VALUES ('dep_zqother', 'x', '', 'x', 'zq-other', 'con_zqother', 'usr_zqother', '', 'x', 1, 9000000000000000)`,
		} {
			if _, err := tx.Exec(statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		h.audit.Append(tx, audit.Event{Workspace: "zq-other", Actor: hidden, Action: "tool.call", Target: hidden, Outcome: audit.Allowed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// foreignRows is everything that the tables hold of the other workspace.
func (h *house) foreignRows(t *testing.T) (dump string) {
	t.Helper()
	err := h.db.View(context.Background(), func(tx *store.Tx) error {
		tables, err := column(tx, `SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%workspace %' ORDER BY name`)
		for _, table := range tables {
			where := ` WHERE workspace = 'zq-other'`
			if table == "workspace" {
				where = ` WHERE id = 'zq-other'`
			}
			columns, err := column(tx, `SELECT name FROM pragma_table_info('`+table+`')`)
			if err != nil {
				return err
			}
			rows, err := column(tx, `SELECT concat_ws('|', `+strings.Join(columns, ", ")+`) FROM `+table+where+` ORDER BY 1`)
			if err != nil {
				return err
			}
			if len(rows) == 0 && table != "sign_in_link" {
				t.Errorf("the table %s has no row of the other workspace; add one to this test", table)
			}
			dump += table + ": " + strings.Join(rows, "\n") + "\n"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dump
}

func column(tx *store.Tx, query string) (values []string, err error) {
	rows, err := tx.Query(query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}

// schema is as much of a JSON schema as tools use for their arguments.
type schema struct {
	Type       any               `json:"type"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Items      *schema           `json:"items"`
	Additional json.RawMessage   `json:"additionalProperties"`
}

// filled is a value that fits the schema, with id wherever a text may stand; nil
// if none may.
func (s schema) filled(id string) any {
	types := fmt.Sprint(s.Type)
	switch {
	case strings.Contains(types, "string"):
		return id
	case strings.Contains(types, "array") && s.Items != nil:
		return []any{s.Items.filled(id)}
	case strings.Contains(types, "object"):
		var each schema
		if json.Unmarshal(s.Additional, &each) == nil && each.Type != nil {
			return map[string]any{id: each.filled(id)}
		}
		return s.object(id, slices.Collect(maps.Keys(s.Properties)))
	}
	return nil
}

func (s schema) object(id string, names []string) map[string]any {
	value := map[string]any{}
	for _, name := range names {
		if v := s.Properties[name].filled(id); v != nil {
			value[name] = v
		}
	}
	return value
}

// argumentsWith are objects that fit the schema: everything filled, and each
// member alone with those that are required.
func (s schema) argumentsWith(id string) []string {
	objects := []any{s.filled(id)}
	for name, property := range s.Properties {
		if property.filled(id) != nil {
			objects = append(objects, s.object(id, append(slices.Clone(s.Required), name)))
		}
	}
	var texts []string
	for _, o := range objects {
		text, _ := json.Marshal(o) // of texts only
		texts = append(texts, string(text))
	}
	return texts
}

// R520: whatever of another workspace a caller names, in whatever argument of
// whatever tool, nothing of that workspace is shown or changed.
func TestNamesOfAnotherWorkspaceOpenNothing(t *testing.T) {
	t.Parallel()
	var called atomic.Int32
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if m, _ := mcp.Parse(body); m.Method == "tools/call" {
			called.Add(1)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(up.Close)
	dir := t.TempDir()
	first := furnishIn(t, dir)
	first.addForeign(t, up.URL)
	first.leave(t)
	h := furnishIn(t, dir) // publishes the servers of both
	t.Cleanup(func() { h.leave(t) })

	before, calls := h.foreignRows(t), 0
	for _, p := range []principal.Principal{
		{Kind: principal.Member, Workspace: identity.Workspace, User: "usr_dana", Rank: principal.Owner, Scopes: []string{"mcp:admin"}},
		{Kind: principal.Member, Workspace: identity.Workspace, User: "usr_dana", Client: "app", Rank: principal.Owner, Scopes: []string{"mcp:admin"}},
	} {
		for _, d := range h.registry.All() {
			var definition struct{ InputSchema schema }
			if err := json.Unmarshal(d.Definition, &definition); err != nil {
				t.Fatal(err)
			}
			for _, id := range foreignIDs {
				for _, args := range definition.InputSchema.argumentsWith(id) {
					calls++
					h.mustRevealNothing(t, p, d.FullName(), args)
					h.forgetNotes(t)
				}
			}
		}
		h.mustRevealNothing(t, p, "list_servers", "{}")
	}
	if after := h.foreignRows(t); after != before {
		t.Errorf("changed:\n%s\nwas:\n%s", after, before)
	}
	if called.Load() > 0 {
		t.Errorf("the other workspace's server was called %d times", called.Load())
	}
	if calls < 100 {
		t.Errorf("only %d calls were made; the schemas are not read", calls)
	}
}

// forgetNotes removes what callers wrote down themselves: that it comes back later
// reveals nothing.
func (h *house) forgetNotes(t *testing.T) {
	t.Helper()
	if err := h.db.Do(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM registration_token`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// mustRevealNothing makes a call and looks through the answer. What was passed may
// come back.
func (h *house) mustRevealNothing(t *testing.T, p principal.Principal, name, args string) {
	t.Helper()
	out, err := h.do(p, name, args)
	answer := string(out)
	if err != nil {
		wire, _ := json.Marshal(problem.From(err).Wire("")) // plain texts and numbers
		answer = string(wire)
	}
	for _, secret := range append(foreignIDs, hidden) {
		if strings.Contains(answer, secret) && !strings.Contains(name+args, secret) && secret != "peek" {
			t.Errorf("%s %s reveals %s: %s", name, args, secret, answer)
		}
	}
}
