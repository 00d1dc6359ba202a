package identity

import (
	"bytes"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// ServiceAccount is a program that acts for nobody: what it may do is a list of
// tools, and nothing else (R620, R622).
type ServiceAccount struct {
	ID         string // also its client id
	Workspace  string
	Name       string
	Tools      []string // full names
	SecretHash []byte   // none if it signs with a key
	Keys       string   // public ones, as a JWK Set; empty if it has a secret
	Family     string   // of its tokens; revoking that ends them all
}

// Principal is the account with what its list allows; scopes come with a token.
// Its rank is no more than a ceiling: what belongs to the owner is on no list.
func (a ServiceAccount) Principal() principal.Principal {
	return principal.Principal{
		Kind: principal.ServiceAccount, Workspace: a.Workspace, User: a.ID, Rank: principal.Admin, Tools: a.Tools,
	}
}

const serviceColumns = `id, workspace, name, tools, secret_hash, jwks, family`

// ServiceAccount finds an active service account of a workspace.
func (p *People) ServiceAccount(tx *store.Tx, workspace, id string) (ServiceAccount, bool, error) {
	return scanService(tx.QueryRow(`SELECT `+serviceColumns+` FROM service_account
		WHERE workspace = $1 AND id = $2 AND status = 'active'`, workspace, id))
}

func scanService(row store.Row) (ServiceAccount, bool, error) {
	var a ServiceAccount
	var tools string
	err := row.Scan(&a.ID, &a.Workspace, &a.Name, &tools, &a.SecretHash, &a.Keys, &a.Family)
	if errors.Is(err, sql.ErrNoRows) {
		return ServiceAccount{}, false, nil
	}
	a.Tools, a.SecretHash = lines(tools), bytes.Clone(a.SecretHash)
	return a, err == nil, err
}

// lines are those of a text; an empty one has none.
func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// anyService finds a service account of a workspace, also one that is disabled.
func (p *People) anyService(tx *store.Tx, workspace, id string) (ServiceAccount, bool, error) {
	return scanService(tx.QueryRow(`SELECT `+serviceColumns+` FROM service_account WHERE workspace = $1 AND id = $2`, workspace, id))
}

// ServiceClient finds an active service account by its client id, which says which
// workspace it is of.
func (p *People) ServiceClient(tx *store.Tx, id string) (ServiceAccount, bool, error) {
	return scanService(tx.QueryRow(`SELECT `+serviceColumns+` FROM service_account WHERE id = $1 AND status = 'active'`, id))
}

// ServiceByName finds an active service account of a workspace by its name.
func (p *People) ServiceByName(tx *store.Tx, workspace, name string) (ServiceAccount, bool, error) {
	return scanService(tx.QueryRow(`SELECT `+serviceColumns+` FROM service_account
		WHERE workspace = $1 AND name = $2 AND status = 'active'`, workspace, name))
}

// Used notes that a service account got a token, to the minute: a program that asks
// for many changes nothing each time.
func (p *People) Used(tx *store.Tx, a ServiceAccount) error {
	_, err := tx.Exec(`UPDATE service_account SET used_at = $1 WHERE workspace = $2 AND id = $3 AND (used_at IS NULL OR used_at < $4)`,
		tx.Now, a.Workspace, a.ID, tx.Now-time.Minute.Microseconds())
	return err
}
