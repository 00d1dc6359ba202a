package apptest

import (
	"slices"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// Open is Start with the database open beside the server, to look at rows and
// to turn clocks.
func Open(t testing.TB, change ...func(*app.Config)) *House {
	t.Helper()
	h := Start(t, change...)
	h.DB = storetest.Open(t, h.database)
	return h
}

// OnEach runs f in a house on SQLite and in one on PostgreSQL, side by side.
func OnEach(t *testing.T, f func(t *testing.T, h *House), change ...func(*app.Config)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, Open(t, change...))
	})
	t.Run("postgres", func(t *testing.T) {
		address := storetest.Postgres(t)
		t.Parallel()
		f(t, Open(t, append(slices.Clone(change), func(c *app.Config) { c.Database = address })...))
	})
}

// SQL changes rows behind the server's back.
func (h *House) SQL(statement string, args ...any) {
	h.t.Helper()
	err := h.DB.Do(h.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(statement, args...)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// Count is the one number that a query gives.
func (h *House) Count(query string, args ...any) (n int) {
	h.t.Helper()
	err := h.DB.View(h.t.Context(), func(tx *store.Tx) error { return tx.QueryRow(query, args...).Scan(&n) })
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// Together runs f n times at once, released by one barrier.
func Together[T any](n int, f func(i int) T) []T {
	results := make([]T, n)
	var ready, done sync.WaitGroup
	gate := make(chan struct{})
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-gate
			results[i] = f(i)
		})
	}
	ready.Wait()
	close(gate)
	done.Wait()
	return results
}
