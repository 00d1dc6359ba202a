package audit

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Break is the first place where a chain is not what it was.
type Break struct {
	Line int64  `json:"line,omitempty" jsonschema:"line of the export"`
	Seq  int64  `json:"seq" jsonschema:"event at or before which it breaks"`
	What string `json:"what" jsonschema:"what is wrong there"`
}

func (b *Break) Error() string {
	if b.Line > 0 {
		return fmt.Sprintf("the chain breaks at line %d, event %d: %s", b.Line, b.Seq, b.What)
	}
	return fmt.Sprintf("the chain breaks at event %d: %s", b.Seq, b.What)
}

// Report is what verifying an intact chain found.
type Report struct {
	Chain  string `json:"chain" jsonschema:"the chain"`
	From   int64  `json:"from" jsonschema:"seq of the first event"`
	Seq    int64  `json:"seq" jsonschema:"seq of the last event, 0 if there is none"`
	Hash   string `json:"hash" jsonschema:"hash of the last event"`
	Time   int64  `json:"time_us,omitempty" jsonschema:"when the head of the export was signed, microseconds since 1970"`
	Key    string `json:"key,omitempty" jsonschema:"thumbprint of the key that signs exports"`
	Pinned bool   `json:"pinned,omitempty" jsonschema:"that key is the one that was asked for"`
}

// A walk follows a chain from its first event.
type walk struct {
	workspace string
	seq       int64  // of the last event
	hash      string // of the last event
	buf       []byte
}

// step goes on to the next row, or says why it is not the next.
func (w *walk) step(r *row) (wrong string) {
	hash, buf, err := r.digest(w.buf)
	w.buf = buf
	switch {
	case err != nil || hash != r.Hash:
		return "the event was changed: its content does not have its hash"
	case r.Workspace != w.workspace:
		return fmt.Sprintf("the event belongs to the chain %q", r.Workspace)
	case r.Seq != w.seq+1:
		return fmt.Sprintf("event %d was expected and event %d found: events were dropped, added or moved", w.seq+1, r.Seq)
	case r.Prev != w.hash:
		return "the event does not continue the one before it"
	}
	w.seq, w.hash = r.Seq, r.Hash
	return ""
}

// end compares the end of the walk with what the head says.
func (w *walk) end(seq int64, hash string) (wrong string) {
	switch {
	case seq > w.seq:
		return fmt.Sprintf("the end was cut off: the head is at event %d", seq)
	case seq < w.seq:
		return fmt.Sprintf("events were added after the head, which is at event %d", seq)
	case hash != w.hash:
		return "the last event is not the one of the head"
	}
	return ""
}

// pageRows is how many rows are read at once; between pages others may write.
const pageRows = 1000

// Verify walks a chain in the database up to its present head and returns a
// *Break for the first event whose content, place or link is wrong, or if the
// head is. It sees a chain that was cut together with its head only by the
// signed heads kept elsewhere.
func (l *Log) Verify(ctx context.Context, workspace string) (Report, error) {
	var head, last int64
	var hash string
	err := l.DB.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT
			coalesce((SELECT seq FROM audit_head WHERE workspace = $1), 0),
			coalesce((SELECT hash FROM audit_head WHERE workspace = $1), $2),
			coalesce((SELECT max(seq) FROM audit_event WHERE workspace = $1), 0)`,
			workspace, genesis).Scan(&head, &hash, &last)
	})
	if err != nil {
		return Report{}, unreadable(ctx, err)
	}
	w := &walk{workspace: workspace, hash: genesis}
	for after, more := int64(math.MinInt64), true; more; after = w.seq {
		if more, err = l.page(ctx, w, after, max(head, last)); err != nil {
			return Report{}, err
		}
	}
	if wrong := w.end(head, hash); wrong != "" {
		return Report{}, &Break{Seq: min(head, w.seq) + 1, What: wrong}
	}
	return Report{Chain: workspace, From: 1, Seq: w.seq, Hash: w.hash}, nil
}

// page walks the next rows after one seq and up to another, and reports whether
// there may be more.
func (l *Log) page(ctx context.Context, w *walk, after, upTo int64) (more bool, err error) {
	n := 0
	err = l.DB.View(ctx, func(tx *store.Tx) error {
		n = 0
		return each(tx, func(r *row, whole bool) error {
			n++
			wrong := "its columns cannot be read"
			if whole {
				wrong = w.step(r)
			}
			if wrong != "" {
				return &Break{Seq: w.seq + 1, What: wrong}
			}
			return nil
		}, `SELECT `+columns+` FROM audit_event
			WHERE workspace = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4`, w.workspace, after, upTo, pageRows)
	})
	return n == pageRows, err
}

// each calls fn with every row of a query for columns. A row that is not whole
// has columns that this program never wrote.
func each(tx *store.Tx, fn func(r *row, whole bool) error, query string, args ...any) error {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return unreadable(tx, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells what matters
	for rows.Next() {
		r := new(row)
		into := make([]any, len(fields))
		for i, f := range fields {
			if f.number != nil {
				into[i] = f.number(r)
			} else {
				into[i] = f.text(r)
			}
		}
		whole := rows.Scan(into...) == nil && r.readDetail()
		if err := fn(r, whole); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return unreadable(tx, err)
	}
	return nil
}

func unreadable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, ok := errors.AsType[*problem.Error](err); ok {
		return err
	}
	return store.Unavailable.New("the audit log could not be read").Because(err)
}
