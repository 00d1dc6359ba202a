package token

import (
	"context"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// pollEvery is how often a node looks for revocations by other nodes, and
// staleAfter how long it may be unable to before it refuses everything.
const (
	pollEvery  = 250 * time.Millisecond
	staleAfter = 2 * time.Second
)

// revocations is what is revoked and not yet expired, in memory, so that a call
// costs no database read for its token.
type revocations struct {
	mu     sync.RWMutex
	ids    map[string]int64 // id → when it would have expired anyway, µs
	cursor int64
	fresh  time.Time // when the log was last read to its end
}

// RevokeFamily revokes a family and all its tokens. Revoking it again changes
// nothing.
func (t *Tokens) RevokeFamily(tx *store.Tx, id, reason string) error {
	won, err := tx.One(`UPDATE token_family SET revoked_at = $1, reason = $2 WHERE id = $3 AND revoked_at IS NULL`,
		tx.Now, reason, id)
	if err != nil || !won {
		return err
	}
	return t.Revoke(tx, id, AccessLife)
}

// RevokeClient revokes every family of a client, in all workspaces, and all their
// tokens.
func (t *Tokens) RevokeClient(tx *store.Tx, client, reason string) error {
	_, err := tx.Exec(`UPDATE token_family SET revoked_at = $1, reason = $2 WHERE client = $3 AND revoked_at IS NULL`,
		tx.Now, reason, client)
	if err != nil {
		return err
	}
	return t.Revoke(tx, client, AccessLife)
}

// Revoke refuses every token that carries id: its own, its family's, its
// client's or its user's. life is how long such a token could still live.
func (t *Tokens) Revoke(tx *store.Tx, id string, life time.Duration) error {
	// The row of the head is the lock: numbers become visible in their order.
	_, err := tx.Exec(`UPDATE revocation_head SET seq = seq + 1 WHERE one = 1`)
	if err != nil {
		return err
	}
	expires := tx.Now + (life + clockSkew).Microseconds()
	_, err = tx.Exec(`INSERT INTO revocation (seq, id, expires_at)
		SELECT seq, $1, $2 FROM revocation_head WHERE one = 1`, id, expires)
	tx.AfterCommit(func() { t.revoked.add(id, expires) })
	return err
}

func (r *revocations) add(id string, expires int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[string]int64{}
	}
	r.ids[id] = max(r.ids[id], expires)
}

// Unknown is the code of a node that cannot tell what is revoked, because it has
// been cut off from the database. It refuses every token, and says that this is
// not the token's fault.
var Unknown = problem.Code{
	Name: "REVOCATIONS_UNKNOWN", Kind: problem.Unavailable,
	Why: "this server has not been able to read what was revoked",
	Fix: "try again in a moment",
}

// Live returns nil if none of the ids is revoked, an ErrToken if one is, and an
// Unknown problem while this node cannot tell.
func (t *Tokens) Live(ids ...string) error {
	r := &t.revoked
	r.mu.RLock()
	defer r.mu.RUnlock()
	if time.Since(r.fresh) > staleAfter {
		unknown := Unknown.New("tokens cannot be checked now")
		unknown.Retry = time.Second
		return unknown
	}
	for _, id := range ids {
		if _, revoked := r.ids[id]; revoked {
			return ErrToken("the token is revoked")
		}
	}
	return nil
}

// Run follows the log of revocations until ctx ends.
func (t *Tokens) Run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	failing := false
	for ctx.Err() == nil {
		err := t.poll(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			t.Log.Error("revocations cannot be read; tokens are refused until they can", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// poll reads what has been revoked since the last time, and forgets what has
// expired.
func (t *Tokens) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, staleAfter)
	defer cancel()
	asked := time.Now()
	r := &t.revoked
	r.mu.RLock()
	cursor := r.cursor
	r.mu.RUnlock()
	found, last := map[string]int64{}, cursor
	err := t.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT seq, id, expires_at FROM revocation WHERE seq > $1 ORDER BY seq`, cursor)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var id string
			var expires int64
			if err := rows.Scan(&last, &id, &expires); err != nil {
				return err
			}
			found[id] = max(found[id], expires)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	for id, expires := range found {
		r.add(id, expires)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cursor, r.fresh = max(r.cursor, last), asked
	now := asked.UnixMicro()
	for id, expires := range r.ids {
		if expires < now {
			delete(r.ids, id)
		}
	}
	return nil
}
