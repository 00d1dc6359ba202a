// Package vault keeps credentials and lends them to outgoing requests.
//
// No exported function returns a credential. One is unsealed inside a single
// request, sent over TLS to a host that its connection allows, and forgotten.
// What a provider granted one person is used for that person and for nobody else.
package vault

import (
	"context"
	"embed"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

//go:embed *.sql
var migrations embed.FS

// Codes are the problems of this package.
var Codes = []problem.Code{ConnectionUnknown, AccountUnknown, connectionNeeded, connectionLost, connectionNarrow, hostNotAllowed, providerInvalid, ProviderFailed, departureUnknown, answerForeign, connectRefused}

var (
	// ConnectionUnknown is the code of a connection that is not there.
	ConnectionUnknown = problem.Code{
		Name: "CONNECTION_UNKNOWN", Kind: problem.NotFound,
		Why: "the configuration names no provider like this",
		Fix: "look for its name under providers in gatehouse.yaml",
	}
	connectionNeeded = problem.Code{
		Name: "CONNECTION_NEEDED", Kind: problem.Forbidden,
		Why: "the server behind this tool answers for an account there, and yours is not connected",
		Fix: "connect it at the address that comes with the error, ISSUER/connect/NAME",
	}
	connectionLost = problem.Code{
		Name: "CONNECTION_LOST", Kind: problem.Forbidden,
		Why: "the service does not accept what it granted any more",
		Fix: "connect the account again at the address that comes with the error, ISSUER/connect/NAME",
	}
	connectionNarrow = problem.Code{
		Name: "CONNECTION_NARROW", Kind: problem.Forbidden,
		About: "the service was allowed less than the tool needs when the account was connected",
	}
	hostNotAllowed = problem.Code{
		Name: "HOST_NOT_ALLOWED", Kind: problem.Forbidden,
		Why: "a credential goes only to the hosts of its connection, over TLS",
		Fix: "add the host to the hosts of the provider in gatehouse.yaml",
	}
	providerInvalid = problem.Code{
		Name: "PROVIDER_INVALID", Kind: problem.Invalid,
		Fix:   "compare it with the example that gatehouse config init writes",
		About: "what the configuration says of a provider cannot be used",
	}
	// ProviderFailed is the code of a provider that cannot be used now.
	ProviderFailed = problem.Code{
		Name: "PROVIDER_FAILED", Kind: problem.Unavailable,
		Fix:   "try again in a moment; if it stays, the operator finds the cause in the log",
		About: "the authorization server of a service did not answer, or not as it should",
	}
	departureUnknown = problem.Code{
		Name: "CONNECT_UNKNOWN", Kind: problem.Forbidden,
		Why: "it took longer than ten minutes, was answered already, or was begun in another browser",
		Fix: "start again where you came from",
	}
	answerForeign = problem.Code{
		Name: "CONNECT_FOREIGN", Kind: problem.Forbidden,
		Why: "the answer is not from the authorization server that was asked",
		Fix: "start again; if it stays, tell the operator",
	}
	connectRefused = problem.Code{
		Name: "CONNECT_REFUSED", Kind: problem.Forbidden,
		Why: "the account was not connected at the service",
		Fix: "start again and allow it there",
	}
)

// Vault keeps what providers granted people. Set the fields, call Open, and keep
// Run and Revoke going.
type Vault struct {
	DB        *store.DB
	Box       *seal.Box
	Audit     *audit.Log
	People    *identity.People
	Log       *slog.Logger
	Issuer    string // our address for browsers: providers send them back to it
	Node      string // this process, among those that share the database
	Workspace string // of the providers
	Providers map[string]Provider

	// For names the providers whose credentials are used at a server behind us, and
	// with origin "" those of all; empty where none is.
	For func(origin string) []string

	// Connected hears that an account was connected, on the node where it was.
	Connected func()

	hc     *http.Client
	ids    map[string]string  // of connections, by name
	parted chan struct{}      // something is over, and its provider is to be told
	asking singleflight.Group // of providers: metadata by name, refreshes by grant and version
	mu     sync.Mutex
	found  map[string]discovered // by name
}

// patience bounds one exchange with a provider.
const patience = 15 * time.Second

// Open makes the tables, and the connections of the providers that the
// configuration names.
func (v *Vault) Open(ctx context.Context) error {
	if err := v.DB.Migrate(ctx, "vault", migrations); err != nil {
		return err
	}
	v.hc = &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // attack 73
	}
	v.parted, v.found = make(chan struct{}, 1), map[string]discovered{}
	return v.DB.Do(ctx, func(tx *store.Tx) error {
		v.ids = map[string]string{}
		for name, p := range v.Providers {
			var id string
			err := tx.QueryRow(`INSERT INTO connection (id, workspace, name, hosts, created_at) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (workspace, name) DO UPDATE SET hosts = excluded.hosts RETURNING id`,
				store.ID("con_"), v.Workspace, name, strings.Join(p.Hosts, "\n"), tx.Now).Scan(&id)
			if err != nil {
				return err
			}
			v.ids[name] = id
			if err := v.disown(tx, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// disown wipes what another authorization server granted, or this one to another
// client, than is configured by the name now. From before that was written down, it
// is taken for this one's.
func (v *Vault) disown(tx *store.Tx, name string) error {
	id, identity := v.ids[name], v.Providers[name].identity()
	if _, err := tx.Exec(`UPDATE upstream_grant SET provider = $1 WHERE connection = $2 AND workspace = $3 AND provider = ''`, identity, id, v.Workspace); err != nil {
		return err
	}
	lost, err := tx.Swept(wiping+` AND connection = $4 AND provider <> $5 AND status = $6`, failed, foreign, v.Workspace, id, identity, active)
	if err == nil && lost > 0 {
		v.Audit.Append(tx, audit.Event{
			Workspace: v.Workspace, Actor: "gatehouse", Action: "connection.lost", Target: name, Outcome: audit.Failed, Code: connectionLost.Name, Door: "vault",
			Detail: map[string]string{"grants": strconv.FormatInt(lost, 10), "reason": foreign},
		})
	}
	return err
}

// Known reports whether there is a connection of that name.
func (v *Vault) Known(name string) bool { return v.ids[name] != "" }

// Link is where a person connects an account, or connects it again (R558).
func (v *Vault) Link(name string) string { return v.Issuer + "/connect/" + name }

// unknownLife is how long a grant is kept unused whose provider is not configured.
const unknownLife = 30 * 24 * time.Hour

// Sweep deletes a few of the departures that nobody came back from, and what no
// provider could be told; and wipes what was granted by a provider that is not
// configured any more.
func (v *Vault) Sweep(tx *store.Tx) (n int64, more bool, err error) {
	n, err = tx.Swept(`DELETE FROM departure WHERE id IN (SELECT id FROM departure WHERE expires_at < $1 LIMIT 500)`, tx.Now)
	if err != nil || n > 0 {
		return n, n > 0, err
	}
	if n, err = tx.Swept(`DELETE FROM upstream_revocation WHERE created_at < $1`, tx.Now-tellLife.Microseconds()); err != nil {
		return n, false, err
	}
	n, err = v.forsake(tx)
	return n, false, err
}

// forsake wipes what nobody used for long of providers that are not configured any
// more. They are not told: who we were there is not known any more either.
func (v *Vault) forsake(tx *store.Tx) (n int64, err error) {
	gone, err := v.unknown(tx)
	for _, id := range gone {
		var wiped int64
		if err == nil {
			wiped, err = tx.Swept(wiping+` AND connection = $4 AND status = $5 AND used_at < $6 AND connected_at < $6`,
				failed, "no service of this name is configured here any more", v.Workspace, id, active, tx.Now-unknownLife.Microseconds())
			n += wiped
		}
	}
	return n, err
}

// unknown are the ids of the connections of which no provider is configured.
func (v *Vault) unknown(tx *store.Tx) (ids []string, err error) {
	rows, err := tx.Query(`SELECT id, name FROM connection WHERE workspace = $1`, v.Workspace)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, name string
		if err := rows.Scan(&id, &name); err != nil {
			return nil, err
		}
		if !v.Known(name) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// told is a problem of a connection with where to cure it.
func (v *Vault) told(c problem.Code, name, format string, args ...any) *problem.Error {
	e := c.New(format, args...)
	e.Link = v.Link(name)
	return e.WithFix("open %s in a browser and connect your account, then try again", e.Link)
}

// missing are those of wanted that are not among given.
func missing(wanted, given []string) []string {
	return slices.DeleteFunc(slices.Clone(wanted), func(s string) bool { return slices.Contains(given, s) })
}
