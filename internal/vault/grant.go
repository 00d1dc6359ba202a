package vault

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"strings"

	"golang.org/x/oauth2"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// The states of a grant.
const (
	active  = "active"
	failed  = "error"
	removed = "removed"
)

// grant is what a provider granted one person.
type grant struct {
	id, workspace, name, user string
	provider                  string // identity of the one that granted it
	status, reason            string
	scopes                    []string
	access, refresh           []byte // sealed
	version                   int64
	connected, used           int64
	expires                   *int64
}

// Sealed is what this room keeps sealed.
var Sealed = []seal.Column{accesses, refreshes, verifiers, partedAccesses, partedRefreshes}

var (
	accesses  = seal.Column{Table: "upstream_grant", ID: "id", Name: "access"}
	refreshes = seal.Column{Table: "upstream_grant", ID: "id", Name: "refresh"}
	verifiers = seal.Column{Table: "departure", ID: "id", Name: "verifier"}

	partedAccesses  = seal.Column{Table: "upstream_revocation", ID: "id", Name: "access"}
	partedRefreshes = seal.Column{Table: "upstream_revocation", ID: "id", Name: "refresh"}
)

const grantColumns = `g.id, g.workspace, c.name, g.user_id, g.provider, g.status, g.reason, g.scopes, g.access, g.refresh, g.version, g.connected_at, g.used_at, g.expires_at`

// foreign is why a grant of a provider that was configured otherwise cannot be used.
const foreign = "the gateway now knows another authorization server, or is another client, by this name"

// scan reads a grant. One that another authorization server granted, or granted to
// another client, than the one that has its name now is over: neither is its access
// token sent to that one's hosts nor its refresh token to that one.
func (v *Vault) scan(row interface{ Scan(...any) error }) (g grant, found bool, err error) {
	var scopes string
	err = row.Scan(&g.id, &g.workspace, &g.name, &g.user, &g.provider, &g.status, &g.reason, &scopes, &g.access, &g.refresh, &g.version, &g.connected, &g.used, &g.expires)
	if errors.Is(err, sql.ErrNoRows) {
		return grant{}, false, nil
	}
	g.access, g.refresh = bytes.Clone(g.access), bytes.Clone(g.refresh)
	g.scopes = strings.Fields(scopes)
	if g.status == active && v.Known(g.name) && g.provider != v.Providers[g.name].identity() {
		g.status, g.reason = failed, foreign
	}
	return g, err == nil, err
}

// grant is the person's one at a connection.
func (v *Vault) grant(tx *store.Tx, p principal.Principal, name string) (grant, bool, error) {
	return v.scan(tx.QueryRow(`SELECT `+grantColumns+` FROM upstream_grant g JOIN connection c ON c.id = g.connection AND c.workspace = g.workspace
		WHERE g.workspace = $1 AND g.user_id = $2 AND c.name = $3`, p.Workspace, p.User, name))
}

// standing is the person's grant, if it can be used; otherwise the problem says
// how it could.
func (v *Vault) standing(tx *store.Tx, p principal.Principal, name string) (grant, error) {
	if !v.Known(name) {
		return grant{}, ConnectionUnknown.New("there is no connection %.40q", name)
	}
	if p.Kind != principal.Member || p.User == "" {
		return grant{}, v.told(connectionNeeded, name, "no account at %q is connected", name).WithWhy("only people have accounts there")
	}
	g, found, err := v.grant(tx, p, name)
	switch {
	case err != nil:
		return grant{}, err
	case !found || g.status == removed:
		return grant{}, v.told(connectionNeeded, name, "your account at %q is not connected", name)
	case g.status != active:
		return grant{}, v.lostError(g)
	}
	return g, nil
}

func (v *Vault) lostError(g grant) error {
	e := v.told(connectionLost, g.name, "the connection to your account at %q is lost", g.name)
	if g.reason != "" {
		e = e.WithWhy("%s", g.reason)
	}
	return e
}

// Missing are those of the connections that the person has to make before they
// can be used. One that nobody can make, because no provider of its name is
// configured on this node, keeps nobody waiting: calls that need it say so.
func (v *Vault) Missing(tx *store.Tx, p principal.Principal, names []string) (lacking []string, err error) {
	for _, name := range names {
		if !v.Known(name) {
			continue
		}
		g, found, err := v.grant(tx, p, name)
		if err != nil {
			return nil, err
		}
		if !found || g.status != active {
			lacking = append(lacking, name)
		}
	}
	return lacking, nil
}

// keep stores what a provider sent, in the place of what was there. A new access
// token without a new refresh token leaves the old one.
func (v *Vault) keep(tx *store.Tx, g grant, t *oauth2.Token, scopes []string) (bool, error) {
	access, refresh, err := v.sealed(g, t)
	if err != nil {
		return false, err
	}
	var expires *int64
	if !t.Expiry.IsZero() {
		micros := t.Expiry.UnixMicro()
		expires = &micros
	}
	return tx.One(`UPDATE upstream_grant SET status = $1, reason = '', scopes = $2, access = $3, refresh = $4, expires_at = $5, provider = $6,
			version = version + 1, refresh_until = 0
		WHERE id = $7 AND workspace = $8 AND version = $9`,
		active, strings.Join(scopes, " "), access, refresh, expires, v.Providers[g.name].identity(), g.id, g.workspace, g.version)
}

// sealed is what a provider sent, for the row of the grant.
func (v *Vault) sealed(g grant, t *oauth2.Token) (access, refresh []byte, err error) {
	access, err = v.Box.Seal(accesses.Place(g.id), []byte(t.AccessToken))
	if err == nil && t.RefreshToken != "" {
		refresh, err = v.Box.Seal(refreshes.Place(g.id), []byte(t.RefreshToken))
	}
	return access, refresh, err
}

// lose ends a grant that the provider does not honour any more, and wipes what was
// kept of it.
func (v *Vault) lose(ctx context.Context, g grant, reason string) error {
	g.reason = reason
	err := v.DB.Do(ctx, func(tx *store.Tx) error {
		won, err := wipe(tx, g, failed, reason)
		if err == nil && won {
			v.Audit.Append(tx, audit.Event{
				Workspace: g.workspace, Actor: "member:" + g.user, Action: "connection.lost", Target: g.name, Outcome: audit.Failed,
				Code: connectionLost.Name, Door: "vault", Detail: map[string]string{"grant": g.id, "reason": reason},
			})
		}
		return err
	})
	return errors.Join(v.lostError(g), err)
}

// wiping takes the credentials out of grants; $1 is their state then, $2 why.
const wiping = `UPDATE upstream_grant SET status = $1, reason = $2, access = NULL, refresh = NULL, expires_at = NULL, version = version + 1, refresh_until = 0
	WHERE workspace = $3`

// wipe takes the credentials out of a grant.
func wipe(tx *store.Tx, g grant, status, reason string) (bool, error) {
	return tx.One(wiping+` AND id = $4 AND version = $5`, status, reason, g.workspace, g.id, g.version)
}
