package token

import (
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// KeepUnused is how long a family is kept after its last use. It is dead long
// before, whether it was revoked, ran out, or was left alone; until it goes it
// keeps the client's registration.
const KeepUnused = 90 * 24 * time.Hour

// Sweep deletes a few rows of what has expired. A refresh token that has is
// refused like one that never was, so its return need not be told; families go
// after their tokens.
func (t *Tokens) Sweep(tx *store.Tx) (n int64, more bool, err error) {
	for _, s := range []struct {
		statement string
		before    int64
	}{
		{`DELETE FROM refresh_token WHERE id IN (SELECT id FROM refresh_token WHERE expires_at < $1 LIMIT 500)`, tx.Now},
		{`DELETE FROM token_family WHERE id IN (SELECT f.id FROM token_family f WHERE f.used_at < $1
			AND NOT EXISTS (SELECT 1 FROM refresh_token r WHERE r.family = f.id) LIMIT 500)`, tx.Now - KeepUnused.Microseconds()},
		{`DELETE FROM access_token WHERE id IN (SELECT id FROM access_token WHERE expires_at < $1 LIMIT 500)`, tx.Now},
		{`DELETE FROM dpop_proof WHERE mark IN (SELECT mark FROM dpop_proof WHERE expires_at < $1 LIMIT 500)`, tx.Now},
		{`DELETE FROM revocation WHERE seq IN (SELECT seq FROM revocation WHERE expires_at < $1 LIMIT 500)`, tx.Now - clockSkew.Microseconds()},
	} {
		swept, err := tx.Swept(s.statement, s.before)
		if err != nil {
			return n, false, err
		}
		n += swept
	}
	return n, n > 0, nil
}
