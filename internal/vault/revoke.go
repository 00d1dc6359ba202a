package vault

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// A provider is told at once, and where it does not answer again and again, each
// time after a longer pause: for about half a day.
const (
	tellAgain  = 2 * time.Minute // times the square of the tries so far
	tellAtMost = 12
	tellLife   = 2 * 24 * time.Hour // of what nobody could tell
)

// revocation is a grant that is over here and that its provider is to be told of.
type revocation struct {
	id, workspace, user, provider string
	access, refresh               []byte // sealed
	tries                         int64
}

// end wipes a grant that a person does not want any more, or that nobody is there
// for, and leaves what its provider is told. It is over here, whatever comes of that.
func (v *Vault) end(tx *store.Tx, g grant) error {
	won, err := wipe(tx, g, removed, "")
	if err != nil || !won || g.access == nil && g.refresh == nil {
		return err
	}
	return v.part(tx, g)
}

// part keeps the credentials of a grant until its provider is told.
func (v *Vault) part(tx *store.Tx, g grant) error {
	id := store.ID("urv_")
	access, err := v.resealed(accesses.Place(g.id), partedAccesses.Place(id), g.access)
	refresh, failed := v.resealed(refreshes.Place(g.id), partedRefreshes.Place(id), g.refresh)
	if err = errors.Join(err, failed); err != nil || !v.Known(g.name) {
		v.Audit.Append(tx, told(g.workspace, g.user, g.name, "nobody here can: it does not open, or no provider of this name is configured"))
		return nil
	}
	_, err = tx.Exec(`INSERT INTO upstream_revocation (id, workspace, connection, user_id, provider, access, refresh, due_at, created_at)
		SELECT $1, workspace, connection, user_id, provider, $2, $3, $4, $4 FROM upstream_grant WHERE id = $5 AND workspace = $6`,
		id, access, refresh, tx.Now, g.id, g.workspace)
	tx.AfterCommit(v.hurry)
	return err
}

// resealed is what is sealed in one place, sealed for another.
func (v *Vault) resealed(from, to string, sealed []byte) ([]byte, error) {
	if sealed == nil {
		return nil, nil
	}
	plain, err := v.Box.Open(from, sealed)
	if err != nil {
		return nil, err
	}
	return v.Box.Seal(to, plain)
}

// told is the event that a provider was told, or why it was not.
func told(workspace, user, name, fault string) audit.Event {
	e := audit.Event{Workspace: workspace, Actor: "gatehouse", Action: "connection.revoke", Target: name, Outcome: audit.Allowed, Door: "vault", Detail: map[string]string{"user": user}}
	if fault != "" {
		e.Outcome, e.Code, e.Detail["reason"] = audit.Failed, ProviderFailed.Name, fault
	}
	return e
}

// hurry lets Revoke work now.
func (v *Vault) hurry() {
	select {
	case v.parted <- struct{}{}:
	default: // it will
	}
}

// Revoke tells providers what is over here, until ctx ends (RFC 7009). Each node
// does; what one has taken up the others leave alone.
func (v *Vault) Revoke(ctx context.Context) {
	tick := time.NewTicker(runs)
	defer tick.Stop()
	for {
		for name := range v.Providers {
			if err := v.tellAll(ctx, name); err != nil && ctx.Err() == nil {
				v.Log.Warn("a provider could not be told now what is over here", "provider", name, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-v.parted:
		case <-tick.C:
		}
	}
}

// tellAll tells a provider what is due, until it fails.
func (v *Vault) tellAll(ctx context.Context, name string) error {
	for {
		r, found, err := v.taken(ctx, name)
		if err != nil || !found {
			return err
		}
		final, err := v.tell(ctx, name, r)
		if err != nil && !final && r.tries < tellAtMost {
			return err
		}
		fault := ""
		if err != nil {
			fault = err.Error()
		}
		err = v.DB.Do(ctx, func(tx *store.Tx) error {
			gone, err := tx.One(`DELETE FROM upstream_revocation WHERE id = $1 AND workspace = $2`, r.id, r.workspace)
			if err == nil && gone {
				v.Audit.Append(tx, told(r.workspace, r.user, name, fault))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
}

// taken is one of those that are due, which is not due again for a while.
func (v *Vault) taken(ctx context.Context, name string) (r revocation, found bool, err error) {
	err = v.DB.Do(ctx, func(tx *store.Tx) error {
		err := tx.QueryRow(`UPDATE upstream_revocation SET tries = tries + 1, due_at = $1 + $2 * (tries + 1) * (tries + 1)
			WHERE due_at <= $1 AND workspace = $3 AND id = (
				SELECT id FROM upstream_revocation WHERE connection = $4 AND workspace = $3 AND due_at <= $1 ORDER BY due_at, id LIMIT 1)
			RETURNING id, workspace, user_id, provider, access, refresh, tries`,
			tx.Now, tellAgain.Microseconds(), v.Workspace, v.ids[name]).Scan(&r.id, &r.workspace, &r.user, &r.provider, &r.access, &r.refresh, &r.tries)
		if found = err == nil; errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		r.access, r.refresh = bytes.Clone(r.access), bytes.Clone(r.refresh)
		return err
	})
	return r, found, err
}

// tell tells a provider of one. final says that it is no use to try again. The error
// holds nothing that the provider said but a code.
func (v *Vault) tell(ctx context.Context, name string, r revocation) (final bool, err error) {
	if r.provider != v.Providers[name].identity() {
		return true, errors.New("it was granted by another authorization server, or to another client, than the one that is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	at, err := v.revocationEndpoint(ctx, name)
	if err != nil || at == "" {
		return err == nil, errors.Join(err, errors.New("it has no revocation endpoint"))
	}
	final = true
	for _, t := range []struct {
		hint, place string
		sealed      []byte
	}{{"refresh_token", partedRefreshes.Place(r.id), r.refresh}, {"access_token", partedAccesses.Place(r.id), r.access}} {
		if t.sealed == nil {
			continue
		}
		plain, failed := v.Box.Open(t.place, t.sealed)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		useless, failed := v.revoke(ctx, name, at, string(plain), t.hint)
		final = final && (failed == nil || useless)
		err = errors.Join(err, failed)
	}
	return final, err
}

// revoke makes the request of RFC 7009 §2.1. A token that the provider does not know
// is one that it does not honour, and no error there.
func (v *Vault) revoke(ctx context.Context, name, at, credential, hint string) (useless bool, err error) {
	p, form := v.Providers[name], url.Values{"token": {credential}, "token_type_hint": {hint}}
	if p.inForm() {
		form.Set("client_id", p.ClientID)
		if !p.Secret.Empty() {
			form.Set("client_secret", p.Secret.Reveal())
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !p.inForm() {
		req.SetBasicAuth(url.QueryEscape(p.ClientID), url.QueryEscape(p.Secret.Reveal())) // RFC 6749 §2.3.1
	}
	res, err := v.hc.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNoContent {
		return false, nil
	}
	var said struct {
		Error string `json:"error"`
	}
	_ = json.NewDecoder(io.LimitReader(res.Body, maxMetadata)).Decode(&said) // whatever it is, it is no yes
	return said.Error == "unsupported_token_type", fmt.Errorf("it answered %d %s about the %s", res.StatusCode, spelt(said.Error), hint)
}

// revocationEndpoint is where the provider is told; empty where it has none.
func (v *Vault) revocationEndpoint(ctx context.Context, name string) (string, error) {
	p := v.Providers[name]
	if p.RevokeURL != "" || p.AuthorizeURL != "" {
		return p.RevokeURL, nil
	}
	m, err := v.metadata(ctx, name, p.Issuer)
	return m.RevocationEndpoint, err
}

// endGone ends the grants of people who are no members any more: nobody is there to
// remove them.
func (v *Vault) endGone(ctx context.Context) error {
	var gone []string
	err := v.DB.View(ctx, func(tx *store.Tx) error {
		members, err := v.People.Members(tx, v.Workspace)
		if err != nil {
			return err
		}
		gone, err = v.users(tx)
		gone = slices.DeleteFunc(gone, func(user string) bool { return members[user] })
		return err
	})
	for _, user := range gone {
		err = errors.Join(err, v.DB.Do(ctx, func(tx *store.Tx) error { return v.endAll(tx, user) }))
	}
	return err
}

// users are those who have connected an account.
func (v *Vault) users(tx *store.Tx) (all []string, err error) {
	rows, err := tx.Query(`SELECT DISTINCT user_id FROM upstream_grant WHERE workspace = $1 AND status <> $2`, v.Workspace, removed)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var user string
		if err := rows.Scan(&user); err != nil {
			return nil, err
		}
		all = append(all, user)
	}
	return all, rows.Err()
}

// endAll ends all grants of a user who is no member.
func (v *Vault) endAll(tx *store.Tx, user string) error {
	members, err := v.People.Members(tx, v.Workspace)
	if err != nil || members[user] {
		return err
	}
	grants, err := v.collect(tx.Query(`SELECT `+grantColumns+` FROM upstream_grant g JOIN connection c ON c.id = g.connection AND c.workspace = g.workspace
		WHERE g.workspace = $1 AND g.user_id = $2 AND g.status <> $3`, v.Workspace, user, removed))
	for _, g := range grants {
		if err == nil {
			err = v.end(tx, g)
		}
		v.Audit.Append(tx, audit.Event{
			Workspace: g.workspace, Actor: "gatehouse", Action: "connection.end", Target: g.name, Outcome: audit.Allowed, Door: "vault",
			Detail: map[string]string{"grant": g.id, "user": user, "reason": "the person is no member any more"},
		})
	}
	return err
}
