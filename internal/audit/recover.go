package audit

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// A node that carries calls changes its row every beatEvery. One whose row was
// seen unchanged quiet times in a row is taken for dead.
const (
	beatEvery = 3 * time.Second
	quiet     = 5
)

// guest begins the id of a node that is a guest.
const guest = "guest_"

// Recover records the outcome Unknown for the calls that any other node carried:
// their process ended before it was known. It is for the start of a server whose
// database no other server uses; guests may be there, and Attend tells whether they
// are. It returns how many there were.
func (l *Log) Recover(ctx context.Context) (found int, err error) {
	nodes, err := l.others(ctx)
	for _, n := range nodes {
		if strings.HasPrefix(n.id, guest) {
			continue
		}
		closed, buried := l.bury(ctx, n)
		found, err = found+closed, errors.Join(err, buried)
	}
	return found, err
}

// Attend shows the other nodes that this one lives, and records the outcome
// Unknown for the calls of nodes that do not, and for calls of its own whose
// outcome could not be written. It goes on until ctx ends, and then closes what
// this node leaves behind.
//
// A node that was only cut off may come back and record how a call ended after
// it was given up as Unknown: then the call has both events, and the later one
// is right.
func (l *Log) Attend(ctx context.Context) error {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	w := watch{}
	for {
		select {
		case <-ctx.Done():
			return l.leave(context.WithoutCancel(ctx))
		case <-ticker.C:
			found, err := l.attend(ctx, w)
			if found > 0 {
				slog.WarnContext(ctx, "calls were cut off; they are recorded as unknown", "calls", found)
			}
			if err != nil && ctx.Err() == nil {
				slog.ErrorContext(ctx, "calls that were cut off could not be looked for", "err", err)
			}
		}
	}
}

// attend is one round.
func (l *Log) attend(ctx context.Context, w watch) (found int, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	if err := l.show(ctx); err != nil {
		clear(w) // we cannot tell what others did meanwhile
		return 0, err
	}
	if found, err = l.closeLost(ctx); err != nil {
		return 0, err
	}
	nodes, err := l.others(ctx)
	if err != nil {
		clear(w)
		return found, err
	}
	for _, n := range w.silent(nodes) {
		closed, buried := l.bury(ctx, n)
		found, err = found+closed, errors.Join(err, buried)
	}
	return found, err
}

// show gives a sign of life, if there is anything to live for.
func (l *Log) show(ctx context.Context) error {
	now := time.Now()
	if _, none := l.carried.oldest(now.UnixMicro()); none {
		return nil
	}
	err := l.DB.Do(ctx, l.beat)
	if err == nil {
		l.carried.showed(now)
	}
	return err
}

// beat changes the row of this node.
func (l *Log) beat(tx *store.Tx) error {
	oldest, _ := l.carried.oldest(tx.Now)
	_, err := tx.Exec(`INSERT INTO audit_node (id, oldest, seen_at) VALUES ($1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET oldest = excluded.oldest, seen_at = excluded.seen_at`, l.node, oldest, tx.Now)
	return err
}

// A node is a process that carries calls, and when it last showed itself.
type node struct {
	id   string
	seen int64
}

func (l *Log) others(ctx context.Context) (nodes []node, err error) {
	err = l.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT id, seen_at FROM audit_node WHERE id <> $1 ORDER BY id`, l.node)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // rows.Err tells what matters
		for rows.Next() {
			var n node
			if err := rows.Scan(&n.id, &n.seen); err != nil {
				return err
			}
			nodes = append(nodes, n)
		}
		return rows.Err()
	})
	return nodes, err
}

// watch is how often each node was seen unchanged. Times of others are only
// compared with themselves: their clocks may differ from ours.
type watch map[node]int

// silent are those of the nodes that were seen unchanged often enough.
func (w watch) silent(nodes []node) (silent []node) {
	last := map[node]int{}
	for _, n := range nodes {
		last[n] = w[n] + 1
		if last[n] > quiet {
			silent = append(silent, n)
		}
	}
	clear(w)
	for n, times := range last {
		w[n] = times
	}
	return silent
}

// bury closes the calls of a node. Who deletes its row, as it was seen, does it:
// of two who try one finds nothing, and neither does if the node came back.
func (l *Log) bury(ctx context.Context, n node) (closed int, err error) {
	err = l.DB.Do(ctx, func(tx *store.Tx) error {
		closed = 0
		var oldest int64
		err := tx.QueryRow(`DELETE FROM audit_node WHERE id = $1 AND seen_at = $2 RETURNING oldest`, n.id, n.seen).Scan(&oldest)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		closed, err = l.giveUp(tx, n.id, oldest, nil)
		return err
	})
	return closed, err
}

// closeLost closes calls of this node whose outcome could not be written.
func (l *Log) closeLost(ctx context.Context) (closed int, err error) {
	under, lost := l.carried.left()
	if lost.calls == 0 {
		return 0, nil
	}
	err = l.DB.Do(ctx, func(tx *store.Tx) (err error) {
		closed, err = l.giveUp(tx, l.node, lost.since-slack.Microseconds(), under)
		return err
	})
	if err == nil {
		l.carried.found(lost)
	}
	return closed, err
}

// leave closes what is left when this node ends.
func (l *Log) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	return l.DB.Do(ctx, func(tx *store.Tx) error {
		if oldest, none := l.carried.oldest(tx.Now); !none {
			if _, err := l.giveUp(tx, l.node, oldest, nil); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`DELETE FROM audit_node WHERE id = $1`, l.node)
		return err
	})
}

// giveUp records the outcome Unknown for the calls that a node carries since a
// time, except those that are under way.
func (l *Log) giveUp(tx *store.Tx, node string, since int64, under map[string]int64) (closed int, err error) {
	orphans, err := orphans(tx, since)
	if err != nil {
		return 0, err
	}
	for _, e := range orphans {
		if _, running := under[e.Call]; running || e.Detail[carrier] != node {
			continue
		}
		e.Outcome, e.Time, e.Duration = Unknown, 0, 0
		l.Append(tx, e)
		closed++
	}
	return closed, nil
}

// orphans are pending events since a time that have no outcome.
func orphans(tx *store.Tx, since int64) (found []Event, err error) {
	err = each(tx, func(r *row, _ bool) error {
		found = append(found, r.Event)
		return nil
	}, `SELECT `+columns+` FROM audit_event AS p
		WHERE outcome = 'pending' AND time_us >= $1
		AND NOT EXISTS (SELECT 1 FROM audit_event AS o WHERE o.workspace = p.workspace AND o.seq > p.seq
			AND o.call = p.call AND o.outcome <> 'pending')
		ORDER BY workspace, seq`, since)
	return found, err
}
