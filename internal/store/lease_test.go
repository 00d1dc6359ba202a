package store_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// A lease has one holder until it runs out, however many ask at once; its holder
// keeps it by asking again.
func TestLeaseHasOneHolder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		if err := db.Migrate(t.Context(), "none", fstest.MapFS{}); err != nil {
			t.Fatal(err)
		}
		lease := func(name, holder string, life time.Duration) bool {
			held, err := db.Lease(t.Context(), name, holder, life)
			if err != nil {
				t.Error(err)
			}
			return held
		}
		var winners atomic.Int32
		var all sync.WaitGroup
		for _, holder := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			all.Go(func() {
				if lease("race", holder, time.Hour) {
					winners.Add(1)
				}
			})
		}
		all.Wait()
		if n := winners.Load(); n != 1 {
			t.Errorf("%d of 8 hold it", n)
		}
		for i, step := range []struct {
			holder string
			life   time.Duration
			want   bool
		}{
			{"a", time.Hour, true}, {"b", time.Hour, false}, {"a", time.Hour, true}, // kept
			{"a", -time.Second, true}, {"b", time.Hour, true}, {"a", time.Hour, false}, // run out, and taken
		} {
			if lease("sweep", step.holder, step.life) != step.want {
				t.Errorf("step %d: %s holds it: %v", i, step.holder, !step.want)
			}
		}
		if !lease("other", "a", time.Hour) {
			t.Error("another name is another lease")
		}
	})
}
