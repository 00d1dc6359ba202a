package audit

import (
	"context"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// recoverable is how far before the newest pending event Recover looks. What is
// older was seen by an earlier start.
const recoverable = 24 * time.Hour

// Recover records the outcome Unknown for calls that were pending before a time
// and never got another: their process ended in between. Where no other node
// shares the database the time is the start of this process; otherwise it lies
// as far back as a call may last. It returns how many there were.
func (l *Log) Recover(ctx context.Context, before time.Time) (found int, err error) {
	err = l.DB.Do(ctx, func(tx *store.Tx) error {
		orphans, err := orphans(tx, before.UnixMicro())
		for _, e := range orphans {
			e.Outcome, e.Time, e.Duration = Unknown, 0, 0
			l.Append(tx, e)
		}
		found = len(orphans)
		return err
	})
	return found, err
}

// orphans are pending events without an outcome. The row of the key is a lock,
// so that of two nodes that recover one finds nothing.
func orphans(tx *store.Tx, before int64) (found []Event, err error) {
	if _, err := tx.Exec(`UPDATE audit_key SET name = name`); err != nil {
		return nil, unreadable(tx, err)
	}
	err = each(tx, func(r *row, _ bool) error {
		found = append(found, r.Event)
		return nil
	}, `SELECT `+columns+` FROM audit_event AS p
		WHERE outcome = 'pending' AND time_us < $1
		AND time_us >= (SELECT max(time_us) FROM audit_event WHERE outcome = 'pending') - $2
		AND NOT EXISTS (SELECT 1 FROM audit_event AS o WHERE o.workspace = p.workspace AND o.seq > p.seq
			AND o.call = p.call AND o.outcome <> 'pending')
		ORDER BY workspace, seq`, before, recoverable.Microseconds())
	return found, err
}
