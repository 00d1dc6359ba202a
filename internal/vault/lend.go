package vault

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Lend makes requests with the person's credential at a connection, by way of next
// (R553, R554). A request to a host that is not the connection's is refused. An
// error is a problem, or next's own.
func (v *Vault) Lend(p principal.Principal, name string, next http.RoundTripper) http.RoundTripper {
	return lent{v, p, name, next}
}

type lent struct {
	v    *Vault
	p    principal.Principal
	name string
	next http.RoundTripper
}

// RoundTrip puts the credential in. One that the service refuses is refreshed, once,
// and the request made again: what was refused was not carried out.
func (l lent) RoundTrip(r *http.Request) (*http.Response, error) {
	g, err := l.v.ready(r.Context(), l.p, l.name)
	if err != nil {
		return nil, dropped(r, err)
	}
	if !allows(l.v.Providers[l.name].Hosts, r.URL) { // those of the configuration: who can write the database adds none
		return nil, dropped(r, hostNotAllowed.New("no credential of %q goes to %.100s", l.name, r.URL.Host))
	}
	res, err := l.send(r, g)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return cleaned(res), err
	}
	if g.refresh == nil {
		return nil, forgotten(res, l.v.lose(r.Context(), g, "the service refuses what it granted"))
	}
	if r.Body != nil && r.GetBody == nil {
		return nil, forgotten(res, l.v.lostError(g))
	}
	if g, err = l.v.refreshed(r.Context(), g); err != nil {
		return nil, forgotten(res, err)
	}
	_ = forgotten(res, nil)
	again := r.Clone(r.Context())
	if r.Body != nil {
		if again.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	res, err = l.send(again, g)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		return nil, forgotten(res, l.v.told(connectionLost, l.name, "%q refuses your account", l.name).WithWhy("it refuses also a credential that it has just given"))
	}
	return cleaned(res), err
}

// send makes the request as the grant's person, with nothing else that could say
// who is calling (R519, attack 82).
func (l lent) send(r *http.Request, g grant) (*http.Response, error) {
	access, err := l.v.Box.Open(accesses.Place(g.id), g.access)
	if err != nil {
		return nil, dropped(r, err)
	}
	r = r.Clone(r.Context())
	for _, name := range []string{"Cookie", "DPoP", "Proxy-Authorization"} {
		r.Header.Del(name)
	}
	r.Header.Set("Authorization", "Bearer "+string(access))
	return l.next.RoundTrip(r)
}

// dropped closes the body of a request that is not made.
func dropped(r *http.Request, err error) error {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return err
}

// forgotten reads the rest of an answer that nobody gets, so that its connection can
// serve again.
func forgotten(res *http.Response, err error) error {
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	_ = res.Body.Close()
	return err
}

// cleaned is the answer without what is between the service and us.
func cleaned(res *http.Response) *http.Response {
	if res != nil {
		res.Header.Del("Set-Cookie")
		res.Header.Del("WWW-Authenticate")
	}
	return res
}

// A use is noted at most this often.
const noteEvery = 5 * time.Minute

// ready is the person's grant with an access token that has not expired.
func (v *Vault) ready(ctx context.Context, p principal.Principal, name string) (g grant, err error) {
	var now int64
	err = v.DB.View(ctx, func(tx *store.Tx) error {
		now = tx.Now
		if g, err = v.standing(tx, p, name); err != nil {
			return err
		}
		_, member, err := v.People.Member(tx, g.workspace, g.user)
		if err == nil && !member { // a token is believed for a minute, a credential is lent to nobody
			err = v.told(connectionNeeded, name, "your account at %q is not connected", name).WithWhy("you are no member here any more")
		}
		return err
	})
	if err == nil {
		err = v.belongs(p, g)
	}
	if err != nil {
		return g, err
	}
	if g.used < now-noteEvery.Microseconds() {
		err = v.DB.Do(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE upstream_grant SET used_at = $1 WHERE id = $2 AND workspace = $3 AND used_at < $1`, tx.Now, g.id, g.workspace)
			return err
		})
	}
	if err != nil || !g.due(now, early) {
		return g, err
	}
	if g.refresh == nil {
		return g, v.lose(ctx, g, "it has ended, and the service lets nobody extend it")
	}
	return v.refreshed(ctx, g)
}

// Anyone is whoever has connected an account first, of those that are good.
func (v *Vault) Anyone(ctx context.Context, name string) (principal.Principal, error) {
	p := principal.Principal{Kind: principal.Member, Workspace: v.Workspace}
	err := v.DB.View(ctx, func(tx *store.Tx) error {
		grants, err := v.collect(tx.Query(`SELECT `+grantColumns+` FROM upstream_grant g JOIN connection c ON c.id = g.connection AND c.workspace = g.workspace
			WHERE g.workspace = $1 AND c.name = $2 AND g.status = 'active' ORDER BY g.created_at, g.id LIMIT 100`, v.Workspace, name))
		for _, g := range grants {
			if _, member, failed := v.People.Member(tx, g.workspace, g.user); failed != nil || member && g.status == active {
				p.User = g.user
				return failed
			}
		}
		return err
	})
	if err == nil && p.User == "" {
		return p, v.told(connectionNeeded, name, "nobody has connected an account at %q yet", name).
			WithWhy("the server tells nobody anything without one; the first that is connected at %s will do", v.Link(name))
	}
	return p, err
}

// Account names the account that a person uses at a connection now; when another
// one is connected, it has another name. Without one it is a problem that says how
// to connect one.
func (v *Vault) Account(ctx context.Context, p principal.Principal, name string) (string, error) {
	var g grant
	err := v.DB.View(ctx, func(tx *store.Tx) (err error) {
		g, err = v.standing(tx, p, name)
		return err
	})
	if err == nil {
		err = v.belongs(p, g)
	}
	return g.id + " " + strconv.FormatInt(g.connected, 10), err
}
