package authserver

import (
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// What is kept, and for how long. Apps register anew rather than use what they
// have, and an app that lost its registration cannot come back, so a
// registration goes only when nothing hangs on it: one that never led to a grant
// after a week, every other after 90 days in which nobody used it, and none
// while a refresh token lives.
const (
	keepUngranted = 7 * 24 * time.Hour
	keepUnused    = token.KeepUnused
	keepSpent     = token.RefreshIdle // a code that comes back in this time revokes what it became
	justExpired   = time.Minute       // what has expired is refused, and goes when the clocks of all nodes agree that it has
)

// Sweep deletes a few rows of what has expired, or is referred to by nothing any
// more; the step that comes to the end of its walks and finds nothing says that
// there is no more. One caller at a time.
func (s *Server) Sweep(tx *store.Tx) (n int64, more bool, err error) {
	for _, d := range []struct {
		statement string
		before    time.Duration // ago
	}{
		{`DELETE FROM registration_token WHERE id IN (SELECT id FROM registration_token WHERE expires_at < $1 LIMIT 500)`, keepUnused},
		{`DELETE FROM flow WHERE id IN (SELECT id FROM flow WHERE expires_at < $1 LIMIT 500)`, justExpired},
		{`DELETE FROM device_code WHERE id IN (SELECT id FROM device_code WHERE expires_at < $1 LIMIT 500)`, time.Hour}, // till then a device is told why
		{`DELETE FROM pushed_request WHERE id IN (SELECT id FROM pushed_request WHERE expires_at < $1 LIMIT 500)`, justExpired},
		{`DELETE FROM used_assertion WHERE id IN (SELECT id FROM used_assertion WHERE expires_at < $1 LIMIT 500)`, 0},
		{`DELETE FROM authorization_code WHERE id IN (SELECT id FROM authorization_code WHERE expires_at < $1 AND used_at IS NULL LIMIT 500)`, justExpired},
		{`DELETE FROM authorization_code WHERE id IN (SELECT id FROM authorization_code WHERE expires_at < $1 LIMIT 500)`, keepSpent},
	} {
		swept, err := tx.Swept(d.statement, tx.Now-d.before.Microseconds())
		if err != nil {
			return n, false, err
		}
		n += swept
	}
	if n > 0 { // what a walk passes while something still refers to it would wait for the next one
		return n, true, nil
	}
	n, end, err := s.walk.step(tx)
	return n, !end, err
}

// A walk goes through consents and then registrations in the order of their ids,
// a few rows at a time and then from the beginning: what to keep cannot be told
// by an index, and looking at all rows at once would take too long. Registrations
// come last, when no consent holds them any more. One that is a document can be
// fetched again, so it goes soon.
type walk struct {
	table int    // of walks
	last  string // id looked at
}

// walks are the tables, and what goes of the ids after $1 up to $2 if it is older
// than age ($3).
var walks = []struct {
	ids, remove string
	age         time.Duration
}{
	{`SELECT id FROM consent`, `DELETE FROM consent WHERE id > $1 AND id <= $2 AND granted_at < $3
		AND NOT EXISTS (SELECT 1 FROM authorization_code c WHERE c.consent = consent.id)
		AND NOT EXISTS (SELECT 1 FROM token_family f WHERE f.workspace = consent.workspace AND f.consent = consent.id)`, keepUnused},
	{`SELECT id FROM client`, `DELETE FROM client WHERE id > $1 AND id <= $2 AND created_at < $3
		AND source IN ('registered', 'document') AND approved_at IS NULL AND blocked_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM flow f WHERE f.client = client.id)
		AND NOT EXISTS (SELECT 1 FROM consent c WHERE c.client = client.id)
		AND NOT EXISTS (SELECT 1 FROM token_family f WHERE f.client = client.id)`, keepUngranted},
	{`SELECT id FROM (SELECT id FROM client WHERE source = 'document') AS documents`, `DELETE FROM client WHERE id > $1 AND id <= $2
		AND source = 'document' AND fresh_until < $3 AND approved_at IS NULL AND blocked_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM flow f WHERE f.client = client.id)
		AND NOT EXISTS (SELECT 1 FROM consent c WHERE c.client = client.id)
		AND NOT EXISTS (SELECT 1 FROM token_family f WHERE f.client = client.id)`, keepDocument},
}

// step deletes what has to go of the next rows, and says whether those were the
// last.
func (w *walk) step(tx *store.Tx) (n int64, end bool, err error) {
	at, next := walks[w.table], walk{table: w.table}
	err = tx.QueryRow(`SELECT COALESCE(max(id), '') FROM (`+at.ids+` WHERE id > $1 ORDER BY id LIMIT 200) AS next`, w.last).Scan(&next.last)
	if err != nil {
		return 0, false, err
	}
	if next.last == "" {
		next.table = (w.table + 1) % len(walks)
		end = next.table == 0
	} else {
		n, err = tx.Swept(at.remove, w.last, next.last, tx.Now-at.age.Microseconds())
	}
	tx.AfterCommit(func() { *w = next })
	return n, end, err
}
