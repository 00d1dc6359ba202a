package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// When grants are refreshed. On demand just before they end; those in use by the
// job a little before, so that nobody waits; idle ones once a day, so that what a
// provider has ended, or would end unused, is seen.
const (
	early   = 30 * time.Second
	ahead   = 2 * time.Minute
	inUse   = time.Hour
	idle    = 24 * time.Hour
	runs    = 30 * time.Second
	keeping = 3*patience + early // how long one node has the refreshing of a grant: to find the provider, ask it, and store
)

// due reports whether the access token ends within so long.
func (g grant) due(now int64, within time.Duration) bool {
	return g.expires != nil && *g.expires <= now+within.Microseconds()
}

// refreshed is the grant with another access token than it has. Of all that ask
// for it at once, on all nodes, one asks the provider and the others wait: a
// refresh token that is used twice may end the whole grant there. Those on one node
// share what comes of it, so a provider that is slow to fail is asked once for all.
func (v *Vault) refreshed(ctx context.Context, g grant) (grant, error) {
	now, err, _ := v.asking.Do(fmt.Sprint(g.id, " ", g.version), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keeping)
		defer cancel()
		return v.refreshedOnce(ctx, g)
	})
	return now.(grant), err
}

func (v *Vault) refreshedOnce(ctx context.Context, g grant) (grant, error) {
	for {
		won := false
		err := v.DB.Do(ctx, func(tx *store.Tx) (err error) {
			won, err = tx.One(`UPDATE upstream_grant SET refresh_until = $1 WHERE id = $2 AND workspace = $3 AND version = $4 AND refresh_until <= $5`,
				tx.Now+keeping.Microseconds(), g.id, g.workspace, g.version, tx.Now)
			return err
		})
		if err != nil {
			return g, err
		}
		if won {
			return v.renew(ctx, g)
		}
		now, err := v.again(ctx, g)
		if err != nil || now.version != g.version {
			return now, err
		}
		select {
		case <-ctx.Done():
			return g, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// again reads the grant anew. One that is not active any more is a problem.
func (v *Vault) again(ctx context.Context, g grant) (now grant, err error) {
	err = v.DB.View(ctx, func(tx *store.Tx) error {
		now, err = v.standing(tx, principal.Principal{Kind: principal.Member, Workspace: g.workspace, User: g.user}, g.name)
		return err
	})
	return now, err
}

// renew asks the provider, and stores what it answers before anybody uses it. Only
// the provider's word that the grant is over ends it; whatever else fails is tried
// again with the next call.
func (v *Vault) renew(ctx context.Context, g grant) (grant, error) {
	t, scopes, err := v.renewal(ctx, g)
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok && e.ErrorCode == oauth.InvalidGrant {
		return g, v.lose(context.WithoutCancel(ctx), g, "the service has ended what it granted")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err != nil {
		free := v.DB.Do(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE upstream_grant SET refresh_until = 0 WHERE id = $1 AND workspace = $2 AND version = $3`, g.id, g.workspace, g.version)
			return err
		})
		return g, errors.Join(ProviderFailed.New("the connection to %q can't be extended now", g.name).Because(spoken(err)), free)
	}
	if err := v.store(ctx, g, t, scopes); err != nil {
		return g, err
	}
	return v.again(ctx, g)
}

func (v *Vault) renewal(ctx context.Context, g grant) (*oauth2.Token, []string, error) {
	conf, _, err := v.config(ctx, g.name)
	if err != nil {
		return nil, nil, err
	}
	refresh, err := v.Box.Open(refreshes.Place(g.id), g.refresh)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := v.within(ctx)
	defer cancel()
	t, err := conf.TokenSource(ctx, &oauth2.Token{RefreshToken: string(refresh)}).Token()
	if err != nil {
		return nil, nil, err
	}
	scopes, err := granted(t, g.scopes)
	return t, scopes, err
}

// store keeps what the provider sent. The provider may have forgotten the old
// refresh token by now, so a database that does not answer is asked until the time
// is up.
func (v *Vault) store(ctx context.Context, g grant, t *oauth2.Token, scopes []string) error {
	for {
		err := v.DB.Do(ctx, func(tx *store.Tx) error {
			won, err := v.keep(tx, g, t, scopes)
			if err != nil || won {
				return err
			}
			return v.late(tx, g, t) // the person has connected anew, or removed it
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// late takes what a provider sent for a grant that is over by now: it is told to end
// it. Where the person has connected anew it is left alone: some providers take what
// they granted a person for one, and would end the new one with it.
func (v *Vault) late(tx *store.Tx, g grant, t *oauth2.Token) error {
	now, found, err := v.grant(tx, principal.Principal{Workspace: g.workspace, User: g.user}, g.name)
	if err != nil || !found || now.status != removed {
		return err
	}
	if now.access, now.refresh, err = v.sealed(g, t); err != nil {
		return err
	}
	return v.part(tx, now)
}

// Run refreshes what is due until ctx ends, on one node at a time.
func (v *Vault) Run(ctx context.Context) {
	if len(v.Providers) == 0 {
		return
	}
	defer func() { _, _ = v.DB.Lease(context.WithoutCancel(ctx), "vault", v.Node, 0) }() // it runs out by itself
	tick := time.NewTicker(runs)
	defer tick.Stop()
	for {
		held, err := v.DB.Lease(ctx, "vault", v.Node, 3*runs)
		if err == nil && held {
			err = errors.Join(v.endGone(ctx), v.refreshDue(ctx))
		}
		if err != nil && ctx.Err() == nil {
			v.Log.Warn("connections could not be refreshed now", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// refreshDue refreshes a few of those that are due. What one of them fails with
// does not stop the others; a provider that fails is left alone for this time.
func (v *Vault) refreshDue(ctx context.Context) error {
	var due []grant
	err := v.DB.View(ctx, func(tx *store.Tx) (err error) {
		due, err = v.collect(tx.Query(`SELECT `+grantColumns+` FROM upstream_grant g JOIN connection c ON c.id = g.connection AND c.workspace = g.workspace
			WHERE g.workspace = $1 AND g.status = 'active' AND g.refresh IS NOT NULL AND (g.expires_at < $2 AND g.used_at > $3 OR g.expires_at < $4)
			ORDER BY g.expires_at LIMIT 100`,
			v.Workspace, tx.Now+ahead.Microseconds(), tx.Now-inUse.Microseconds(), tx.Now-idle.Microseconds()))
		return err
	})
	fails := map[string]bool{}
	for _, g := range due {
		if !v.Known(g.name) || g.status != active || fails[g.name] {
			continue // its provider is not configured any more, or otherwise
		}
		if _, failed := v.refreshed(ctx, g); failed != nil {
			err = errors.Join(err, failed)
			fails[g.name] = problem.Is(failed, ProviderFailed)
		}
	}
	return err
}

func (v *Vault) collect(rows store.Rows, err error) (all []grant, _ error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		g, _, err := v.scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, rows.Err()
}
