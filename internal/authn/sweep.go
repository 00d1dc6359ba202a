package authn

import "github.com/gatehouse-mcp/gatehouse/internal/store"

// Sweep deletes a few rows of what has expired: links, browser sessions, and the
// setup code.
func (a *Authn) Sweep(tx *store.Tx) (n int64, more bool, err error) {
	for _, statement := range []string{
		`DELETE FROM sign_in_link WHERE id IN (SELECT id FROM sign_in_link WHERE expires_at < $1 LIMIT 500)`,
		`DELETE FROM browser_session WHERE id IN (SELECT id FROM browser_session WHERE expires_at < $1 LIMIT 500)`,
		`DELETE FROM setup_code WHERE expires_at < $1`,
	} {
		swept, err := tx.Swept(statement, tx.Now)
		if err != nil {
			return n, false, err
		}
		n += swept
	}
	return n, n > 0, nil
}
