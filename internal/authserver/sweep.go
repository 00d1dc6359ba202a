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
)

// Sweep deletes a few rows of what has expired, or is referred to by nothing any
// more. One caller at a time: it goes through consents and clients bit by bit.
func (s *Server) Sweep(tx *store.Tx) (n int64, err error) {
	for _, d := range []struct {
		statement string
		before    time.Duration // ago
	}{
		{`DELETE FROM flow WHERE id IN (SELECT id FROM flow WHERE expires_at < $1 LIMIT 500)`, 0},
		{`DELETE FROM authorization_code WHERE id IN (SELECT id FROM authorization_code WHERE expires_at < $1 AND used_at IS NULL LIMIT 500)`, 0},
		{`DELETE FROM authorization_code WHERE id IN (SELECT id FROM authorization_code WHERE expires_at < $1 LIMIT 500)`, keepSpent},
	} {
		swept, err := tx.Swept(d.statement, tx.Now-d.before.Microseconds())
		if err != nil {
			return n, err
		}
		n += swept
	}
	consents, err := s.consents.sweep(tx, `SELECT id FROM consent`, `DELETE FROM consent WHERE id > $1 AND id <= $2 AND granted_at < $3
		AND NOT EXISTS (SELECT 1 FROM authorization_code c WHERE c.consent = consent.id)
		AND NOT EXISTS (SELECT 1 FROM token_family f WHERE f.workspace = consent.workspace AND f.consent = consent.id)`, keepUnused)
	if err != nil || consents > 0 { // registrations go when no consent holds them any more
		return n + consents, err
	}
	clients, err := s.clients.sweep(tx, `SELECT id FROM client`, `DELETE FROM client WHERE id > $1 AND id <= $2 AND created_at < $3
		AND NOT EXISTS (SELECT 1 FROM flow f WHERE f.client = client.id)
		AND NOT EXISTS (SELECT 1 FROM consent c WHERE c.client = client.id)
		AND NOT EXISTS (SELECT 1 FROM token_family f WHERE f.client = client.id)`, keepUngranted)
	return n + consents + clients, err
}

// A walk goes through a table in the order of its ids, a few rows at a time and
// then from the beginning: what to keep cannot be told by an index, and looking
// at all rows at once would take too long.
type walk struct{ last string }

// sweep deletes from the next rows those that remove says, of ids after $1 up to
// $2, if they are older than age ($3). ids selects all.
func (w *walk) sweep(tx *store.Tx, ids, remove string, age time.Duration) (int64, error) {
	var last string
	err := tx.QueryRow(`SELECT COALESCE(max(id), '') FROM (`+ids+` WHERE id > $1 ORDER BY id LIMIT 200) AS next`, w.last).Scan(&last)
	if err != nil {
		return 0, err
	}
	from := w.last
	tx.AfterCommit(func() { w.last = last })
	if last == "" {
		return 0, nil
	}
	return tx.Swept(remove, from, last, tx.Now-age.Microseconds())
}
