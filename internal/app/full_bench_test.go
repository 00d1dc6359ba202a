package app_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// How full a database is that has been in use for long.
const (
	fullClients = 100_000
	fullTokens  = 1_000_000
)

// BenchmarkRefresh is a refresh over HTTP by 16 callers, durable, with little in
// the database and with much. Caller and gatehouse share the process.
func BenchmarkRefresh(b *testing.B) {
	for engine, open := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		for _, full := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/full=%t", engine, full), func(b *testing.B) {
				database := open(b)
				h := apptest.Open(b, apptest.Dev, func(c *app.Config) { c.Database = database })
				if full {
					fill(h)
				}
				benchmarkRefresh(b, h)
			})
		}
	}
}

func benchmarkRefresh(b *testing.B, h *apptest.House) {
	const callers = 16
	type held struct{ client, refresh string }
	var all [callers]held
	for i := range all {
		tokens, client := h.Token("", "")
		all[i] = held{client, tokens.RefreshToken}
	}
	var next, failed atomic.Int64
	b.SetParallelism(callers / 2) // of two processors
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		mine := all[next.Add(1)%callers]
		for pb.Next() {
			var tokens struct {
				Refresh string `json:"refresh_token"`
			}
			a := h.Refresh(mine.client, mine.refresh)
			if a.StatusCode != http.StatusOK {
				failed.Add(1)
				return
			}
			a.JSON(b, &tokens)
			mine.refresh = tokens.Refresh
		}
	})
	if failed.Load() > 0 {
		b.Error("a refresh was refused")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "refreshes/s")
}

// fill makes clients, each with a consent, a family and ten refresh tokens.
func fill(h *apptest.House) {
	const numbers = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) `
	const far = `9000000000000000`
	h.SQL(`INSERT INTO client (id, name, redirect_uris, grant_types, auth_method, scope, metadata, created_at, created_from)
		`+numbers+`SELECT 'full-' || i, 'App', 'http://127.0.0.1/cb', 'authorization_code refresh_token', 'none', '', '{}', `+far+`, '' FROM n`, fullClients)
	h.SQL(`INSERT INTO consent (id, workspace, user_id, client, redirect_uri, redirect_key, scopes, resource, granted_at)
		`+numbers+`SELECT 'cns_full' || i, 'default', 'usr_dev', 'full-' || i, '', 'full' || i, 'mcp:tools', 'r', `+far+` FROM n`, fullClients)
	h.SQL(`INSERT INTO token_family (id, workspace, user_id, client, consent, scopes, resource, created_at, expires_at, used_at)
		`+numbers+`SELECT 'fam_full' || i, 'default', 'usr_dev', 'full-' || i, 'cns_full' || i, 'mcp:tools', 'r', 1, `+far+`, `+far+` FROM n`, fullClients)
	h.SQL(`INSERT INTO refresh_token (id, workspace, family, parent, hash, created_at, expires_at)
		`+numbers+`SELECT 'rt_full' || i, 'default', 'fam_full' || (1 + i % `+fmt.Sprint(fullClients)+`), '', $2, 1, `+far+` FROM n`, fullTokens, []byte{1})
	h.SQL(`ANALYZE`)
}
