package token

import (
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// UsedTwice is the reason of a family that was revoked because a code or a refresh
// token of it came back after it was spent.
const UsedTwice = "its sign-in was used twice"

// RevokeFamily revokes a family and all its tokens, and reports whether it did:
// revoking it again changes nothing.
func (t *Tokens) RevokeFamily(tx *store.Tx, id, reason string) (bool, error) {
	won, err := tx.One(`UPDATE token_family SET revoked_at = $1, reason = $2 WHERE id = $3 AND revoked_at IS NULL`,
		tx.Now, reason, id)
	if err != nil || !won {
		return false, err
	}
	return true, t.Revoke(tx, id, AccessLife)
}

// RevokeConsent revokes every family that came of a consent and says how many
// there were. Whoever calls it has changed the consent's row before, in the same
// transaction: so a family that is being made of it is either seen here, or not
// made.
func (t *Tokens) RevokeConsent(tx *store.Tx, workspace, consent, reason string) (int, error) {
	return t.revokeFamilies(tx, `UPDATE token_family SET revoked_at = $1, reason = $2
		WHERE workspace = $3 AND consent = $4 AND revoked_at IS NULL RETURNING id`, tx.Now, reason, workspace, consent)
}

// RevokeUser revokes every family of a member, or of the whole workspace if user is
// empty, and says how many there were. The member's own id is not revoked: what the
// member allows afterwards works.
func (t *Tokens) RevokeUser(tx *store.Tx, workspace, user, reason string) (int, error) {
	return t.revokeFamilies(tx, `UPDATE token_family SET revoked_at = $1, reason = $2
		WHERE workspace = $3 AND (user_id = $4 OR $4 = '') AND revoked_at IS NULL RETURNING id`, tx.Now, reason, workspace, user)
}

// RevokeClient revokes every family of a client, in all workspaces, and says how many
// there were. The client's own id is not revoked: one that stands in the file or is
// known by its document may come back, and what it is allowed then works. Whoever
// calls it has removed the client's codes before, in the same transaction: so a
// family that is being made is either seen here, or not made.
func (t *Tokens) RevokeClient(tx *store.Tx, client, reason string) (int, error) {
	return t.revokeFamilies(tx, `UPDATE token_family SET revoked_at = $1, reason = $2 WHERE client = $3 AND revoked_at IS NULL RETURNING id`,
		tx.Now, reason, client)
}

// Use is how many families of a client can still get tokens, or have one that may
// work, and when it last got one, in µs; 0 if it never did, or so long ago that nothing
// is left of it.
func (t *Tokens) Use(tx *store.Tx, client string) (live int, last int64, err error) {
	err = tx.QueryRow(`SELECT count(*) FILTER (WHERE revoked_at IS NULL AND expires_at > $2 AND used_at > $3), COALESCE(max(used_at), 0)
		FROM token_family WHERE client = $1`, client, tx.Now, tx.Now-RefreshIdle.Microseconds()).Scan(&live, &last)
	return live, last, err
}

func (t *Tokens) revokeFamilies(tx *store.Tx, statement string, args ...any) (int, error) {
	rows, err := tx.Query(statement, args...)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	var families []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return 0, err
		}
		families = append(families, id)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if err := rows.Close(); err != nil {
		return 0, err
	}
	for _, id := range families {
		if err := t.Revoke(tx, id, AccessLife); err != nil {
			return 0, err
		}
	}
	return len(families), nil
}

// Revoke refuses every token that carries id: its own, its family's, its
// service account's or its key's. life is how long such a token could still live.
func (t *Tokens) Revoke(tx *store.Tx, id string, life time.Duration) error {
	// The row of the head is the lock: numbers become visible in their order.
	_, err := tx.Exec(`UPDATE revocation_head SET seq = seq + 1 WHERE one = 1`)
	if err != nil {
		return err
	}
	expires := tx.Now + (life + clockSkew).Microseconds()
	_, err = tx.Exec(`INSERT INTO revocation (seq, id, expires_at)
		SELECT seq, $1, $2 FROM revocation_head WHERE one = 1`, id, expires)
	tx.AfterCommit(func() { t.refuse(id, expires) })
	return err
}
