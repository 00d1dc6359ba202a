// Package identity keeps workspaces, people and service accounts, and what is proven
// about them.
//
// Who is not an active member of a workspace has no rank in it. The identity of
// development mode exists only while development mode is on, whatever the
// database holds.
package identity

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"net/mail"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

//go:embed *.sql
var migrations embed.FS

// Workspace is the one workspace there is, made at the first start.
const Workspace = "default"

// Local is the user of whoever can open the admin socket: the owner of the server
// itself, who acts for nobody.
const Local = "local"

// The identity of development mode (R630).
const (
	devUser  = "usr_dev"
	devEmail = "dev@localhost"
)

// People are the people of an instance, and the programs that act for themselves.
type People struct {
	DB       *store.DB
	Dev      bool // development mode: its identity exists
	Audit    *audit.Log
	Tokens   *token.Tokens  // ends those of a service account that changes
	Registry *tool.Registry // what a service account may be allowed
}

// Person is somebody who can sign in.
type Person struct {
	ID    string
	Email string
}

// Member is a person's place in a workspace.
type Member struct {
	Person
	Workspace string
	Rank      principal.Rank
}

// Principal is the member acting directly, with everything the rank allows.
func (m Member) Principal() principal.Principal {
	return principal.Principal{
		Kind: principal.Member, Workspace: m.Workspace, User: m.ID, Rank: m.Rank, Scopes: []string{"mcp:admin"},
	}
}

// Open makes the tables and the workspace.
func (p *People) Open(ctx context.Context) error {
	if err := p.DB.Migrate(ctx, "identity", migrations); err != nil {
		return err
	}
	return p.DB.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO workspace (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			Workspace, "Default", tx.Now)
		if err == nil && p.Dev {
			err = p.add(tx, Person{devUser, devEmail}, principal.Owner)
		}
		return err
	})
}

// DevMember is the identity of development mode; without it, nobody.
func (p *People) DevMember(tx *store.Tx) (Member, bool, error) {
	return p.Member(tx, Workspace, devUser)
}

// add makes a person a member. What exists is left as it is.
func (p *People) add(tx *store.Tx, person Person, rank principal.Rank) error {
	_, err := tx.Exec(`INSERT INTO users (id, email, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		person.ID, person.Email, tx.Now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO member (workspace, user_id, role, status, created_at)
		VALUES ($1, $2, $3, 'active', $4) ON CONFLICT DO NOTHING`, Workspace, person.ID, rank.String(), tx.Now)
	return err
}

// HasOwner reports whether an owner other than the identity of development mode
// exists. While there is none, setup is open to whoever has its code.
func (p *People) HasOwner(tx *store.Tx) (bool, error) {
	var n int
	err := tx.QueryRow(`SELECT count(*) FROM member WHERE workspace = $1 AND role = 'owner' AND user_id <> $2`,
		Workspace, devUser).Scan(&n)
	return n > 0, err
}

// Codes are the problems of this package.
var Codes = []problem.Code{
	emailUnusable, ownerExists, serviceNameUnusable, serviceExists, serviceUnknown, serviceToolUnusable, serviceKeysUnusable,
}

var (
	emailUnusable = problem.Code{
		Name: "EMAIL_UNUSABLE", Kind: problem.Invalid,
		Why: "an address looks like name@example.org",
		Fix: "check the address and send it again",
	}
	ownerExists = problem.Code{
		Name: "OWNER_EXISTS", Kind: problem.Conflict,
		Why: "this instance has been set up already",
		Fix: "sign in with the owner's address",
	}
)

// MakeOwner makes the first owner. A second one cannot be made this way.
func (p *People) MakeOwner(tx *store.Tx, email string) (Person, error) {
	email, err := normal(email)
	if err != nil {
		return Person{}, err
	}
	exists, err := p.HasOwner(tx)
	if err != nil {
		return Person{}, err
	}
	if exists {
		return Person{}, ownerExists.New("an owner cannot be added")
	}
	person := Person{ID: store.ID("usr_"), Email: email}
	return person, p.add(tx, person, principal.Owner)
}

// normal is the one spelling of an address.
func normal(email string) (string, error) {
	email = strings.ToLower(strings.TrimSpace(email))
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Address != email || len(email) > 254 || email == devEmail || strings.HasSuffix(email, externalDomain) {
		return "", emailUnusable.New("%.60q is not an address that can be used", email)
	}
	return email, nil
}

const memberColumns = `m.workspace, m.role, u.id, u.email`

// ByEmail finds the active member with this address. Everybody else, and an
// address that cannot be read, is not found.
func (p *People) ByEmail(tx *store.Tx, email string) (Member, bool, error) {
	email, err := normal(email)
	if err != nil {
		return Member{}, false, nil
	}
	return p.scan(tx.QueryRow(`SELECT `+memberColumns+` FROM member m JOIN users u ON u.id = m.user_id
		WHERE m.workspace = $1 AND u.email = $2 AND m.status = 'active'`, Workspace, email))
}

// Member finds an active member.
func (p *People) Member(tx *store.Tx, workspace, user string) (Member, bool, error) {
	return p.scan(tx.QueryRow(`SELECT `+memberColumns+` FROM member m JOIN users u ON u.id = m.user_id
		WHERE m.workspace = $1 AND u.id = $2 AND m.status = 'active'`, workspace, user))
}

// Members are the ids of all who are members of a workspace, suspended ones included.
func (p *People) Members(tx *store.Tx, workspace string) (map[string]bool, error) {
	rows, err := tx.Query(`SELECT user_id FROM member WHERE workspace = $1 AND status <> 'revoked'`, workspace)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	all := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		all[id] = id != devUser || p.Dev
	}
	return all, rows.Err()
}

func (p *People) scan(row store.Row) (Member, bool, error) {
	var m Member
	var role string
	err := row.Scan(&m.Workspace, &role, &m.ID, &m.Email)
	if errors.Is(err, sql.ErrNoRows) || (err == nil && m.ID == devUser && !p.Dev) {
		return Member{}, false, nil
	}
	m.Rank = principal.ParseRank(role)
	return m, err == nil, err
}

// Whose things the caller acts on: its own; empty, which is everybody's of the
// workspace, for who has the server itself.
func Whose(p principal.Principal) string {
	if p.Direct() && p.User == Local {
		return ""
	}
	return p.User
}
