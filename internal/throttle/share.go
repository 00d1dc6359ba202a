package throttle

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// shareEvery is how often the nodes tell one another.
const shareEvery = time.Second

// Run tells the other nodes what came near its limit, and learns the same of them,
// until ctx ends.
func (t *Throttle) Run(ctx context.Context) {
	if t.Valkey != nil {
		defer t.Valkey.Close()
	}
	for logged := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(shareEvery):
		}
		err := t.Share(ctx)
		if err != nil && ctx.Err() == nil && !logged {
			t.Log.Warn("counts of requests cannot be shared between nodes; each counts by itself", "err", err)
		}
		logged = err != nil
	}
}

// atOnce is of how many counters the others are told at once.
const atOnce = 1000

// Share does that once. One caller at a time. A Valkey server is asked at first, and
// after it was silent, even if there is nothing to tell: so the log says that it is
// away before it is needed, and no more than once.
func (t *Throttle) Share(ctx context.Context) error {
	near := t.near(time.Now().UnixMicro())
	add := t.add
	if t.Valkey != nil {
		add = t.Valkey.add
	}
	if len(near) == 0 && (t.heard || t.Valkey == nil) {
		return nil
	}
	totals, err := add(ctx, near)
	if t.heard = err == nil; err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, was := range near {
		if c := t.counts[was.key]; c != nil {
			c.told, c.all = was.mine, totals[i]
		}
	}
	return nil
}

// add puts what was counted here into the table, and returns how many each counter
// has there.
func (t *Throttle) add(ctx context.Context, near []count) ([]int, error) {
	totals := make([]int, len(near))
	err := t.DB.Do(ctx, func(tx *store.Tx) error {
		for i, c := range near {
			err := tx.QueryRow(`INSERT INTO throttle (name, began, ends_at, n) VALUES ($1, $2, $3, $4)
				ON CONFLICT (name, began) DO UPDATE SET n = throttle.n + excluded.n RETURNING n`, c.name, c.began, c.ends, c.mine-c.told).Scan(&totals[i])
			if err != nil {
				return err
			}
		}
		return nil
	})
	return totals, err
}

// near are the counters that others should know more of, as they are now and in the
// order in which all nodes write them. Those whose window is over are forgotten.
func (t *Throttle) near(now int64) (near []count) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, c := range t.counts {
		if c.ends <= now {
			delete(t.counts, k)
		} else if c.near() && len(near) < atOnce {
			near = append(near, *c)
		}
	}
	slices.SortFunc(near, func(a, b count) int { return cmp.Compare(a.name, b.name) })
	return near
}

// Sweep deletes a few counters whose window is over.
func (t *Throttle) Sweep(tx *store.Tx) (n int64, more bool, err error) {
	n, err = tx.Swept(`DELETE FROM throttle WHERE (name, began) IN (SELECT name, began FROM throttle WHERE ends_at < $1 LIMIT 500)`, tx.Now)
	return n, n > 0, err
}
