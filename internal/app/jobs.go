package app

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// sweepEvery is how often what has expired is deleted, give or take a fifth, by
// one node; sweepLife is how long the others wait before one takes its place.
// sweepAtMost bounds the batches of one room at a time: the rest has to wait.
const (
	sweepEvery  = 5 * time.Minute
	sweepLife   = 3 * sweepEvery
	sweepAtMost = 400
)

// sweeps are what every room deletes when it has expired, a few rows at a time
// (R1305). What refers to something goes before it.
func (h *house) sweeps() []sweep {
	return []sweep{
		{"token", h.tokens.Sweep},
		{"authserver", h.oauth.Sweep},
		{"authn", h.authn.Sweep},
		{"store", store.SweepLeases},
	}
}

type sweep struct {
	room string
	some func(*store.Tx) (n int64, more bool, err error) // deletes a few
}

// sweepUp is the job: at once, and then again and again. A node that ends gives
// the lease back.
func (h *house) sweepUp(ctx context.Context) {
	defer func() {
		_, err := h.db.Lease(context.WithoutCancel(ctx), "sweep", h.node, 0)
		if err != nil {
			h.log.Warn("the lease of the sweeps is not given back; another node takes it in a while", "err", err)
		}
	}()
	for {
		held, err := h.db.Lease(ctx, "sweep", h.node, sweepLife)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.log.Warn("what has expired cannot be deleted now", "err", err)
		case held:
			h.sweepAll(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery*4/5 + rand.N(sweepEvery*2/5)):
		}
	}
}

// sweepAll goes through the rooms. One that fails does not stop the others.
func (h *house) sweepAll(ctx context.Context) {
	var swept []any
	for _, s := range h.sweeps() {
		n, err := sweepRoom(ctx, h.db, s)
		if err != nil && ctx.Err() == nil {
			h.log.Warn("what has expired cannot be deleted now", "room", s.room, "err", err)
		}
		if n > 0 {
			swept = append(swept, s.room, n)
		}
	}
	if len(swept) > 0 {
		h.log.Info("deleted what had expired", swept...)
	}
}

// sweepRoom repeats the room's sweep while there may be more, and lets others
// write in between.
func sweepRoom(ctx context.Context, db *store.DB, s sweep) (total int64, err error) {
	for range sweepAtMost {
		var n int64
		var more bool
		err = db.Do(ctx, func(tx *store.Tx) (err error) {
			n, more, err = s.some(tx)
			return err
		})
		if err != nil {
			return total, err
		}
		total += n
		if !more {
			return total, nil
		}
		select {
		case <-ctx.Done():
			return total, nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	return total, nil
}
