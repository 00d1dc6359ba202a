package app_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

type masterKeys struct {
	Keys []struct {
		Fingerprint string
		Seals       bool
		Values      int
	}
	Sealed int
}

func master(t *testing.T, h *apptest.House, tool, args string) (m masterKeys) {
	t.Helper()
	a := h.Admin(tool, args)
	if a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s", tool, a.StatusCode, a.Text)
	}
	a.JSON(t, &m)
	return m
}

// sealedColumns are the columns of bytes in the database, without those of hashes.
func sealedColumns(t *testing.T, h *apptest.House) (columns [][2]string) {
	t.Helper()
	query := `SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type = 'table' AND p.type = 'BYTEA'`
	err := h.DB.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(query)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var table, column string
			if err := rows.Scan(&table, &column); err != nil {
				return err
			}
			columns = append(columns, [2]string{table, column})
		}
		return rows.Err()
	})
	if err != nil && query[7] == 'm' { // PostgreSQL
		err = h.DB.View(t.Context(), func(tx *store.Tx) error {
			rows, err := tx.Query(`SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'bytea'`)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var table, column string
				if err := rows.Scan(&table, &column); err != nil {
					return err
				}
				columns = append(columns, [2]string{table, column})
			}
			return rows.Err()
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	var kept [][2]string
	for _, c := range columns {
		if !strings.Contains(c[1], "hash") && c[1] != "browser" { // the hash of a cookie
			kept = append(kept, c)
		}
	}
	return kept
}

// under is how many values of a column name a master key.
func under(t *testing.T, h *apptest.House, table, column, fingerprint string) (n int) {
	t.Helper()
	id, err := hex.DecodeString(fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	err = h.DB.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT ` + column + ` FROM ` + table)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var value []byte
			if err := rows.Scan(&value); err != nil {
				return err
			}
			if bytes.Contains(value, id) {
				n++
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sealSome puts a value under the master key into every column that may have none.
func sealSome(t *testing.T, h *apptest.House, key *seal.Key) {
	t.Helper()
	sealed := func(place string) []byte {
		value, err := seal.Box{Keeper: key}.Seal(place, []byte(`{"A":"b"}`))
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	client := h.Register()
	h.SQL(`INSERT INTO flow (id, ref, browser, client, redirect_uri, state, challenge, scopes, resource, asked_from, created_at, expires_at, answer)
		VALUES ('flow_1', '', $1, $2, '', '', '', '', '', '', 0, $3, $4)`, []byte{1}, client, ago(-day), sealed("flow/flow_1/answer"))
	h.SQL(`INSERT INTO device_code (id, hash, user_hash, user_code, client, scopes, resource, asked_from, asked_by, ref, pause, created_at, expires_at)
		VALUES ('dev_1', $1, $1, $2, '', '', '', '', '', '', 0, 0, $3)`, []byte{1}, sealed("device_code/dev_1/user_code"), ago(-day))
	h.SQL(`INSERT INTO upstream (id, workspace, name, url, command, env, created_at) VALUES ('up_1', 'default', 'sealed', 'http://127.0.0.1:1/mcp', '', $1, 0)`, sealed("upstream/up_1/env"))
	h.SQL(`INSERT INTO connection (id, workspace, name, hosts, created_at) VALUES ('con_1', 'default', 'sealed', 'api.example', 0)`)
	h.SQL(`INSERT INTO upstream_grant (id, workspace, connection, user_id, status, access, refresh, created_at, used_at) VALUES ('gra_1', 'default', 'con_1', 'usr_1', 'active', $1, $2, 0, $3)`,
		sealed("upstream_grant/gra_1/access"), sealed("upstream_grant/gra_1/refresh"), ago(-day))
	h.SQL(`INSERT INTO upstream_revocation (id, workspace, connection, user_id, provider, access, refresh, due_at, created_at) VALUES ('urv_1', 'default', 'con_1', 'usr_1', '', $1, $2, $3, $3)`,
		sealed("upstream_revocation/urv_1/access"), sealed("upstream_revocation/urv_1/refresh"), ago(-day))
	h.SQL(`INSERT INTO departure (id, hash, browser_id, browser, workspace, connection, user_id, flow, verifier, created_at, expires_at)
		VALUES ('dep_1', $1, '', $1, 'default', 'con_1', 'usr_1', '', $2, 0, $3)`, []byte{1}, sealed("departure/dep_1/verifier"), ago(-day))
	for i := range 250 { // more than are sealed at once
		question := fmt.Sprintf("q%03d", i)
		h.SQL(`INSERT INTO mcp_answer (question, answer, expires_at) VALUES ($1, $2, $3)`, question, sealed("mcp_answer/"+question+"/answer"), ago(-day))
	}
}

// R1409: the master key is changed while the server runs, and afterwards nothing
// anywhere needs the old one: not a row, not the server that starts with the new one.
func TestNothingNeedsTheOldMasterKey(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		path := filepath.Join(h.Dir, "master.key")
		key, err := seal.LoadKey(path, false)
		if err != nil {
			t.Fatal(err)
		}
		old := key.Fingerprint()
		sealSome(t, h, key)
		columns := sealedColumns(t, h)
		for _, c := range columns {
			if under(t, h, c[0], c[1], old) == 0 {
				t.Errorf("%s.%s has no value under the master key: if it is sealed, let its room name it in Sealed, and seal one here; if it is a hash, call it so", c[0], c[1])
			}
		}
		tokens, _ := h.Token("", "")

		added := master(t, h, "add_master_key", `{}`)
		if len(added.Keys) != 2 || added.Keys[0].Fingerprint != old || added.Keys[1].Values != 0 {
			t.Fatalf("%+v", added)
		}
		next := added.Keys[1].Fingerprint
		used := master(t, h, "use_master_key", `{"fingerprint":"`+next+`"}`)
		if used.Keys[0].Fingerprint != next || !used.Keys[0].Seals || used.Keys[1].Values != 0 || used.Sealed < 250 || used.Keys[0].Values < used.Sealed {
			t.Errorf("%+v", used)
		}
		for _, c := range columns {
			if under(t, h, c[0], c[1], old) != 0 || under(t, h, c[0], c[1], next) == 0 {
				t.Errorf("%s.%s is sealed under the old key", c[0], c[1])
			}
		}
		if again := master(t, h, "use_master_key", `{"fingerprint":"`+next+`"}`); again.Sealed != 0 {
			t.Errorf("again: %+v", again)
		}

		// What somebody seals late keeps the old key from being dropped.
		late, err := seal.Box{Keeper: key}.Seal("mcp_answer/late/answer", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.SQL(`INSERT INTO mcp_answer (question, answer, expires_at) VALUES ('late', $1, $2)`, late, ago(-day))
		h.SQL(`INSERT INTO mcp_answer (question, answer, expires_at) VALUES ('damaged', $1, $2)`, late[:len(late)-1], ago(-day))
		if a := h.Admin("drop_master_keys", `{}`); a.StatusCode != http.StatusConflict || !strings.Contains(a.Text, "MASTER_KEY_NEEDED") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if again := master(t, h, "use_master_key", `{"fingerprint":"`+next+`"}`); again.Sealed != 1 {
			t.Errorf("what came late: %+v", again)
		}
		if dropped := master(t, h, "drop_master_keys", `{}`); len(dropped.Keys) != 1 || dropped.Keys[0].Fingerprint != next {
			t.Errorf("%+v", dropped)
		}
		h.SQL(`DELETE FROM mcp_answer WHERE question = 'damaged'`)
		if a := h.Tool(tokens.AccessToken, "echo", `{"message":"x"}`); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if err := h.Stop(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || len(b) != 32 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}

		h = apptest.Open(t, apptest.Dev, h.Same, at(h.URL))
		if a := h.Tool(tokens.AccessToken, "echo", `{"message":"x"}`); a.StatusCode != http.StatusOK {
			t.Errorf("after the start: %d %s", a.StatusCode, a.Text)
		}
		for _, sealing := range []string{"list_signing_keys", "export_audit_log"} {
			if a := h.Admin(sealing, `{}`); a.StatusCode == http.StatusServiceUnavailable || a.StatusCode == http.StatusInternalServerError {
				t.Errorf("%s: %d %s", sealing, a.StatusCode, a.Text)
			}
		}
		if a := h.Get("/readyz"); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}, apptest.Dev)
}

// Several nodes change the key without a pause: each has the file before the next
// step, and what one seals another opens all along.
func TestNodesChangeTheMasterKeyTogether(t *testing.T) {
	t.Parallel()
	a, b := nodes(t)
	tokens, _ := a.Token("", "")
	work := func(step string) {
		t.Helper()
		for i, pair := range [][2]*apptest.House{{a, b}, {b, a}} {
			// A session is sealed by one node and opened by the other.
			initialize := `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`
			session := pair[0].RPC("/mcp", tokens.AccessToken, "initialize", initialize).Header.Get("Mcp-Session-Id")
			if got := pair[1].RPC("/mcp", tokens.AccessToken, "tools/list", "", "Mcp-Session-Id: "+session); session == "" || got.StatusCode != http.StatusOK {
				t.Errorf("%s, %d: %d %s", step, i, got.StatusCode, got.Text)
			}
		}
	}
	work("before")
	added := master(t, a, "add_master_key", `{}`)
	next := added.Keys[1].Fingerprint
	if m := master(t, b, "list_master_keys", `{}`); len(m.Keys) != 2 || m.Keys[1].Fingerprint != next {
		t.Errorf("the other node has %+v", m)
	}
	work("added")
	master(t, a, "use_master_key", `{"fingerprint":"`+next+`"}`)
	work("used by one")
	master(t, b, "use_master_key", `{"fingerprint":"`+next+`"}`)
	work("used by both")
	if m := master(t, b, "drop_master_keys", `{}`); len(m.Keys) != 1 {
		t.Errorf("%+v", m)
	}
	work("dropped by one")
	master(t, a, "drop_master_keys", `{}`)
	work("dropped by both")
}
