// Package authn turns a credential of any kind into a principal: bearer tokens,
// browser sessions, sign-in links and the setup code.
//
// The kind of a credential is evident from its form and never tried out (C19).
// A credential that is not good is refused, never ignored: only a caller that
// presents nothing is anonymous.
package authn

import (
	"context"
	"embed"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/mail"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

//go:embed *.sql
var migrations embed.FS

// Lifetimes of what a person signs in with.
const (
	SetupLife   = 30 * time.Minute
	LinkLife    = 15 * time.Minute
	SessionLife = 8 * time.Hour
	KnownLife   = 180 * 24 * time.Hour // a browser is known after its person last signed in
)

// Authn knows who is calling. Set the fields and call Open.
type Authn struct {
	DB     *store.DB
	Box    *seal.Box
	Audit  *audit.Log
	People *identity.People
	Tokens *token.Tokens
	Mail   *mail.Printer
	Issuer string // where the links in mails lead
	Public string // where the doors are

	External *External // whose tokens are accepted instead of our own (R517); nil: nobody's

	verified cache
}

// Open makes the tables.
func (a *Authn) Open(ctx context.Context) error { return a.DB.Migrate(ctx, "authn", migrations) }
