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
	fresh  time.Time   // when the log was last read to its end
	cut    *time.Timer // ends every watch when that is too long ago
}

func (r *revocations) add(id string, expires int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[string]int64{}
	}
	r.ids[id] = max(r.ids[id], expires)
}

// Codes are the problems of this package.
var Codes = []problem.Code{Unknown, keyUnreadable, keyNotThere, keyTooYoung}

// Unknown is the code of a node that cannot tell what is revoked, because it has
// been cut off from the database. It refuses every token, and says that this is
// not the token's fault.
var Unknown = problem.Code{
	Name: "REVOCATIONS_UNKNOWN", Kind: problem.Unavailable,
	Why: "this server has not been able to read what was revoked",
	Fix: "try again in a moment",
}

// errRevoked is why a token that was good is refused.
const errRevoked = ErrToken("the token is revoked")

// Live returns nil if none of the ids is revoked, an ErrToken if one is, and an
// Unknown problem while this node cannot tell.
func (t *Tokens) Live(ids ...string) error {
	r := &t.revoked
	r.mu.RLock()
	defer r.mu.RUnlock()
	if time.Since(r.fresh) >= staleAfter {
		unknown := Unknown.New("tokens cannot be checked now")
		unknown.Retry = time.Second
		return unknown
	}
	for _, id := range ids {
		if _, revoked := r.ids[id]; revoked {
			return errRevoked
		}
	}
	return nil
}

// refuse makes id known as revoked on this node, and ends what watches it.
func (t *Tokens) refuse(id string, expires int64) {
	t.revoked.add(id, expires)
	t.watches.end(errRevoked, id)
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
// expired. Where the keys have changed, it reads them again.
func (t *Tokens) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, staleAfter)
	defer cancel()
	asked := time.Now()
	r := &t.revoked
	r.mu.RLock()
	cursor := r.cursor
	r.mu.RUnlock()
	var found []revoked
	var changed *keys
	err := t.DB.View(ctx, func(tx *store.Tx) (err error) {
		if found, err = since(tx, cursor); err != nil {
			return err
		}
		again, err := t.keysChanged(tx)
		if err == nil && again {
			changed, err = t.readKeys(tx)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range found {
		t.refuse(f.id, f.expires)
		cursor = f.seq
	}
	if changed != nil {
		t.useKeys(changed)
	}
	r.read(cursor, asked, t.cutOff)
	return nil
}

// revoked is one line of the log.
type revoked struct {
	seq     int64
	id      string
	expires int64
}

func since(tx *store.Tx, cursor int64) (found []revoked, err error) {
	rows, err := tx.Query(`SELECT seq, id, expires_at FROM revocation WHERE seq > $1 ORDER BY seq`, cursor)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var f revoked
		if err := rows.Scan(&f.seq, &f.id, &f.expires); err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	return found, rows.Err()
}

// read notes that the log was read up to cursor.
func (r *revocations) read(cursor int64, asked time.Time, cutOff func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cursor, r.fresh = max(r.cursor, cursor), asked
	for id, expires := range r.ids {
		if expires < asked.UnixMicro() {
			delete(r.ids, id)
		}
	}
	if left := staleAfter - time.Since(asked); r.cut == nil {
		r.cut = time.AfterFunc(left, cutOff)
	} else {
		r.cut.Reset(left)
	}
}

// cutOff ends every watch if this node cannot tell any more.
func (t *Tokens) cutOff() {
	if err := t.Live(); err != nil {
		t.watches.endAll(err)
	}
}
