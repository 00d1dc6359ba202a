package app_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// What sweeps, lookups and traces ask often is found by an index on SQLite, not
// by reading a whole table.
func TestStatementsUseIndexes(t *testing.T) {
	h := apptest.Open(t, apptest.Dev)
	for _, statement := range []string{
		`SELECT id FROM flow WHERE expires_at < 1 LIMIT 500`,
		`SELECT id FROM authorization_code WHERE expires_at < 1 AND used_at IS NULL LIMIT 500`,
		`SELECT id FROM refresh_token WHERE expires_at < 1 LIMIT 500`,
		`SELECT f.id FROM token_family f WHERE f.used_at < 1 AND NOT EXISTS (SELECT 1 FROM refresh_token r WHERE r.family = f.id) LIMIT 500`,
		`SELECT seq FROM revocation WHERE expires_at < 1 LIMIT 500`,
		`SELECT id FROM sign_in_link WHERE expires_at < 1 LIMIT 500`,
		`SELECT id FROM browser_session WHERE expires_at < 1 LIMIT 500`,
		`DELETE FROM client WHERE id > 'a' AND id <= 'b' AND created_at < 1
			AND NOT EXISTS (SELECT 1 FROM flow f WHERE f.client = client.id)
			AND NOT EXISTS (SELECT 1 FROM consent c WHERE c.client = client.id)
			AND NOT EXISTS (SELECT 1 FROM token_family f WHERE f.client = client.id)`,
		`DELETE FROM consent WHERE id > 'a' AND id <= 'b' AND granted_at < 1
			AND NOT EXISTS (SELECT 1 FROM authorization_code c WHERE c.consent = consent.id)
			AND NOT EXISTS (SELECT 1 FROM token_family f WHERE f.workspace = consent.workspace AND f.consent = consent.id)`,
		`SELECT seq FROM audit_event WHERE workspace = 'default' AND ref = 'req_' AND action <> 'tool.call'`,
		`SELECT seq, id, expires_at FROM revocation WHERE seq > 1 ORDER BY seq`,
	} {
		err := h.DB.View(t.Context(), func(tx *store.Tx) error {
			rows, err := tx.Query(`EXPLAIN QUERY PLAN ` + statement)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var a, b, c int
				var plan string
				if err := rows.Scan(&a, &b, &c, &plan); err != nil {
					return err
				}
				if strings.HasPrefix(plan, "SCAN") {
					t.Errorf("%s\nreads everything: %s", statement, plan)
				}
			}
			return rows.Err()
		})
		if err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
}
