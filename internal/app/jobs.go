package app

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// workEvery is how often one node does what one is enough for, give or take a
// fifth; leaseLife is how long the others wait before one takes its place.
// sweepAtMost bounds the batches of one room at a time: the rest has to wait.
const (
	workEvery   = 5 * time.Minute
	leaseLife   = 3 * workEvery
	sweepAtMost = 400
)

// sweeps are what every room deletes when it has expired, a few rows at a time
// (R1305). What refers to something goes before it.
func (h *house) sweeps() []sweep {
	return []sweep{
		{"token", h.tokens.Sweep},
		{"authserver", h.oauth.Sweep},
		{"authn", h.authn.Sweep},
		{"vault", h.vault.Sweep},
		{"throttle", h.throttle.Sweep},
		{"store", store.SweepLeases},
	}
}

type sweep struct {
	room string
	some func(*store.Tx) (n int64, more bool, err error) // deletes a few
}

// sweepUp is the job that deletes what has expired.
func (h *house) sweepUp(ctx context.Context) {
	h.byOne(ctx, "sweep", h.sweepAll)
}

// keepKeys is the job that rotates the signing keys.
func (h *house) keepKeys(ctx context.Context) {
	h.byOne(ctx, "keys", func(ctx context.Context) {
		var rotated string
		err := h.db.Do(ctx, func(tx *store.Tx) (err error) {
			if rotated, err = h.tokens.KeepKeys(tx); rotated != "" {
				h.audit.Append(tx, audit.Event{Workspace: audit.System, Action: "signing_key.rotate", Actor: "gatehouse", Target: rotated, Door: "job", Outcome: audit.Allowed})
			}
			return err
		})
		switch {
		case err != nil && ctx.Err() == nil:
			h.log.Warn("the signing keys cannot be kept now", "err", err)
		case err == nil && rotated != "":
			h.log.Info("another key signs from now on", "kid", rotated)
		}
	})
}

// byOne does work that one node is enough for: at once, and then again and again.
// A node that ends gives the lease back.
func (h *house) byOne(ctx context.Context, lease string, work func(context.Context)) {
	defer func() {
		_, err := h.db.Lease(context.WithoutCancel(ctx), lease, h.node, 0)
		if err != nil {
			h.log.Warn("a lease is not given back; another node takes it in a while", "lease", lease, "err", err)
		}
	}()
	for {
		held, err := h.db.Lease(ctx, lease, h.node, leaseLife)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.log.Warn("a lease cannot be taken now, so nobody does its work", "lease", lease, "err", err)
		case held:
			work(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(workEvery*4/5 + rand.N(workEvery*2/5)):
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
