package store

import (
	"context"
	"time"
)

// leaseTable is made with the table of migrations, before any room.
const leaseTable = `CREATE TABLE IF NOT EXISTS lease (
	name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires_at BIGINT NOT NULL)`

// Lease gives holder the lease of that name for life, unless another holder has
// it and it has not run out; held says whether holder has it now. A holder that
// asks again in time keeps it. So work that one node is enough for is done by
// one, and by another soon after that one is gone. Clocks of nodes differ: let
// life be longer than they may.
func (db *DB) Lease(ctx context.Context, name, holder string, life time.Duration) (held bool, err error) {
	err = db.Do(ctx, func(tx *Tx) error {
		held, err = tx.One(`INSERT INTO lease (name, holder, expires_at) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
			WHERE lease.holder = excluded.holder OR lease.expires_at <= $4`,
			name, holder, tx.Now+life.Microseconds(), tx.Now)
		return err
	})
	return held && err == nil, err
}

// SweepLeases forgets leases that ran out a day ago: nobody wants them any more.
func SweepLeases(tx *Tx) (n int64, more bool, err error) {
	n, err = tx.Swept(`DELETE FROM lease WHERE expires_at < $1`, tx.Now-(24*time.Hour).Microseconds())
	return n, false, err
}

// Swept runs a statement that deletes what has expired, and says how many rows
// it took. It is part of a sweep, so let it take few hundred at most: on SQLite
// everybody who writes waits for it.
func (tx *Tx) Swept(query string, args ...any) (int64, error) {
	res, err := tx.Exec(query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
