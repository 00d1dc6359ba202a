package vault

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// AccountUnknown is the code of an account that is not connected, or not the caller's.
var AccountUnknown = problem.Code{
	Name: "ACCOUNT_UNKNOWN", Kind: problem.NotFound,
	Why: "no connected account of yours has this id; it may have been removed already",
	Fix: "list the connections and use an id from the list",
}

// The states of an account as callers see them.
const (
	Connected = "connected"
	Lost      = "lost"
)

// Account is a person's account at a service. What it granted is not in it.
type Account struct {
	ID        string    `json:"id" jsonschema:"id of what the service granted"`
	Name      string    `json:"connection" jsonschema:"name of the service here"`
	User      string    `json:"user" jsonschema:"id of the person"`
	State     string    `json:"state" jsonschema:"connected, or lost: the service does not honour it any more"`
	Reason    string    `json:"reason,omitempty" jsonschema:"why it is lost"`
	Scopes    []string  `json:"scopes" jsonschema:"what the service granted"`
	Connected time.Time `json:"connected_at"`
	Used      time.Time `json:"last_used,omitzero" jsonschema:"give or take a few minutes"`
}

// Names are those of the connections, in a stable order.
func (v *Vault) Names() []string { return slices.Sorted(maps.Keys(v.Providers)) }

// Accounts are those that the person has connected, lost ones included.
func (v *Vault) Accounts(ctx context.Context, p principal.Principal) (all []Account, err error) {
	err = v.DB.View(ctx, func(tx *store.Tx) error {
		all, err = v.accounts(tx, p.Workspace, p.User)
		return err
	})
	return all, err
}

// accounts are those of a user; empty is everybody of the workspace.
func (v *Vault) accounts(tx *store.Tx, workspace, user string) ([]Account, error) {
	grants, err := v.collect(tx.Query(`SELECT `+grantColumns+` FROM upstream_grant g JOIN connection c ON c.id = g.connection AND c.workspace = g.workspace
		WHERE g.workspace = $1 AND (g.user_id = $2 OR $2 = '') AND g.status <> 'removed' ORDER BY c.name, g.user_id`, workspace, user))
	all := []Account{}
	for _, g := range grants {
		a := Account{ID: g.id, Name: g.name, User: g.user, State: Connected, Reason: g.reason, Scopes: g.scopes, Connected: at(g.connected), Used: at(g.used)}
		if g.status != active {
			a.State = Lost
		}
		all = append(all, a)
	}
	return all, err
}

func at(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// Tools are the accounts as callers see them: their own, and for who has the server
// itself those of the whole workspace.
func (v *Vault) Tools() []tool.Tool {
	return []tool.Tool{
		tool.Define(tool.Def{
			Name: "list_connections", Title: "List connections", Doc: "List the accounts at services that are used on your behalf.",
			Effect: tool.Reads, Caller: principal.Readonly, Scope: "services:read",
		}, func(tx *store.Tx, p principal.Principal, _ struct{}) (accountsOut, error) {
			all, err := v.accounts(tx, p.Workspace, identity.Whose(p))
			return accountsOut{all}, err
		}),
		tool.Define(tool.Def{
			Name: "remove_connection", Title: "Remove a connection", Doc: "Disconnect an account at a service: wipe what it granted, and tell the service.",
			Effect: tool.Destroys, Caller: principal.Readonly, Scope: "services:write", Direct: true,
		}, v.remove),
	}
}

type accountsOut struct {
	Connections []Account `json:"connections"`
}

type accountIn struct {
	ID string `json:"id" jsonschema:"id of the account, as list_connections says it"`
}

// remove ends what a service granted. Calls that need it say from now on how to
// connect again.
func (v *Vault) remove(tx *store.Tx, p principal.Principal, in accountIn) (Account, error) {
	all, err := v.accounts(tx, p.Workspace, identity.Whose(p))
	if err != nil {
		return Account{}, err
	}
	i := slices.IndexFunc(all, func(a Account) bool { return a.ID == in.ID })
	if i < 0 {
		return Account{}, AccountUnknown.New("there is no connected account %.40q", in.ID)
	}
	g, _, err := v.grant(tx, principal.Principal{Workspace: p.Workspace, User: all[i].User}, all[i].Name)
	if err == nil {
		err = v.end(tx, g)
	}
	return all[i], err
}
