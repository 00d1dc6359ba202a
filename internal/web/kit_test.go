package web_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// A house with its database open beside it.
type house struct {
	*apptest.House
	t  *testing.T
	db *store.DB
}

// start makes a house. Tests in different houses run side by side.
func start(t *testing.T, change ...func(*app.Config)) house {
	t.Helper()
	t.Parallel()
	var address string
	h := apptest.Start(t, append(change, func(c *app.Config) {
		if c.Database == "" {
			c.Database = "sqlite:" + filepath.Join(c.DataDir, "gatehouse.db")
		}
		address = c.Database
	})...)
	return house{h, t, storetest.Open(t, address)}
}

// onEach runs f in a house on SQLite and in one on PostgreSQL.
func onEach(t *testing.T, f func(t *testing.T, h house), change ...func(*app.Config)) {
	t.Run("sqlite", func(t *testing.T) { f(t, start(t, change...)) })
	t.Run("postgres", func(t *testing.T) {
		address := storetest.Postgres(t)
		f(t, start(t, append(change, func(c *app.Config) { c.Database = address })...))
	})
}

func (h house) count(query string, args ...any) (n int) {
	h.t.Helper()
	err := h.db.View(h.t.Context(), func(tx *store.Tx) error { return tx.QueryRow(query, args...).Scan(&n) })
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// post sends a form with the browser's cookies and follows nothing.
func (h house) post(b *apptest.Browser, path string, form url.Values, headers ...string) apptest.Answer {
	h.t.Helper()
	r := h.Request(http.MethodPost, path, form.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...)
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return h.Do(r)
}
