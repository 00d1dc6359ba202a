package audit

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// A batch is events of many callers that share one commit. Who began it commits
// it, as soon as the batch before is done; until then others may join.
type batch struct {
	rows   []*row
	before <-chan struct{} // nil for the first
	done   chan struct{}
	err    error // valid when done is closed
}

// maxCommit bounds how long a commit may take before those who wait for it are
// refused.
const maxCommit = 10 * time.Second

// While crowd events or more arrive during a commit, waiting a moment for a few
// more costs each of them less than a commit of their own would.
const (
	crowd  = 4
	gather = 100 * time.Microsecond
)

var errInside = errors.New("audit: Write was called inside a transaction; Append belongs there")

// Write records events of something that happens outside the database. They are
// durable when it returns nil, and not recorded when it returns an error, except
// that a database that went away during the commit may have them. A write that
// has begun is not given up when ctx ends; it takes 20 s at most.
func (l *Log) Write(ctx context.Context, events ...Event) error {
	if _, inside := ctx.(*store.Tx); inside {
		return errInside
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now().UnixMicro()
	rows := make([]*row, len(events))
	for i, e := range events {
		if e.Outcome == Pending {
			e = carriedBy(l.node, e)
		}
		rows[i] = newRow(e, now)
		if err := rows[i].fault(); err != nil {
			return unrecorded(ctx, err)
		}
	}
	l.carried.begin(rows)
	b, first := l.join(rows)
	if first {
		l.commit(b)
	}
	<-b.done
	l.carried.end(rows, b.err)
	if b.err != nil {
		return unrecorded(ctx, b.err)
	}
	return nil
}

// join adds rows to the batch that takes more, and reports whether it is new.
func (l *Log) join(rows []*row) (b *batch, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first = l.open == nil; first {
		l.open = &batch{before: l.last, done: make(chan struct{})}
		l.last = l.open.done
	}
	l.open.rows = append(l.open.rows, rows...)
	return l.open, first
}

// carries reports whether a call begins: then others must know that this node
// lives, or nobody would close the call if it died.
func (b *batch) carries() bool {
	return slices.ContainsFunc(b.rows, func(r *row) bool { return r.Outcome == Pending })
}

func (l *Log) commit(b *batch) {
	defer close(b.done)
	if b.before != nil {
		<-b.before
	}
	if l.crowded.Load() {
		time.Sleep(gather)
	}
	l.mu.Lock()
	l.open = nil // nobody joins any more
	l.mu.Unlock()

	l.crowded.Store(len(b.rows) >= crowd)
	ctx, cancel := context.WithTimeout(context.Background(), maxCommit)
	defer cancel()
	began, shown := time.Now(), !b.carries() || l.carried.shows()
	b.err = l.DB.Do(ctx, func(tx *store.Tx) error {
		for _, r := range b.rows {
			tx.Buffer(r)
		}
		if shown {
			return nil
		}
		return l.beat(tx)
	})
	if b.err == nil && !shown {
		l.carried.showed(began)
	}
}
