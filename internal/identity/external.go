package identity

import (
	"database/sql"
	"errors"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// externalDomain is that of the addresses of people who sign in elsewhere. Nobody
// has one (RFC 2606 §2), so no link is ever sent there and no address that a
// token claims makes somebody else of them.
const externalDomain = "@external.invalid"

// ExternalID is the user whom another issuer calls subject; empty if it is nobody
// here yet. The pair of both names a person, an address never does.
func (p *People) ExternalID(tx *store.Tx, issuer, subject string) (user string, err error) {
	err = tx.QueryRow(`SELECT user_id FROM external_subject WHERE issuer = $1 AND subject = $2 AND workspace = $3`,
		issuer, subject, Workspace).Scan(&user)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return user, err
}

// AddExternal makes whom another issuer calls subject a member with the least
// rank. Where another request was first, that one counts and the error is
// ErrFirst: roll back and look again.
func (p *People) AddExternal(tx *store.Tx, issuer, subject string) (user string, err error) {
	id := store.ID("usr_")
	if err := p.add(tx, Person{id, strings.ToLower(id) + externalDomain}, principal.Readonly); err != nil {
		return "", err
	}
	made, err := tx.One(`INSERT INTO external_subject (issuer, subject, workspace, user_id, created_at)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, issuer, subject, Workspace, id, tx.Now)
	if err == nil && !made {
		err = ErrFirst
	}
	return id, err
}

// ErrFirst says that another request did the same just before.
var ErrFirst = errors.New("another request was first")
