package authserver

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// A consent is what a person allowed a client at one address and for one
// resource, remembered (R1213). There is at most one live one of its kind.
type consent struct {
	id        string
	scopes    []string
	name      string // of the client, and its addresses, when the person was shown them
	redirects string
	granted   int64
	ends      *int64 // none: until it is removed
}

// The times for which a person can keep a connection (ux.md §9.3).
const (
	KeepHour   = "hour"
	KeepMonth  = "month"
	KeepAlways = "always"
)

// keeps are how long each lasts; 0 is until the person removes it.
var keeps = map[string]time.Duration{KeepHour: token.AccessLife, KeepMonth: 30 * 24 * time.Hour, KeepAlways: 0}

// A decision is what a person allows: how much of what was asked, and for how long.
type decision struct {
	scopes  []string
	refused []string // those of the lines that were not ticked
	keep    string
}

// ends is when what was decided at now ends; none if it is kept.
func (d decision) ends(now int64) *int64 {
	life := keeps[d.keep]
	if life == 0 {
		return nil
	}
	ends := now + life.Microseconds()
	return &ends
}

const consentColumns = `id, scopes, client_name, client_redirects, granted_at, ends_at`

func scanConsent(row store.Row) (c consent, found bool, err error) {
	var scopes string
	err = row.Scan(&c.id, &scopes, &c.name, &c.redirects, &c.granted, &c.ends)
	if errors.Is(err, sql.ErrNoRows) {
		return consent{}, false, nil
	}
	c.scopes = strings.Fields(scopes)
	return c, err == nil, err
}

// counts reports whether the consent is worth something now: it has not ended, and
// the client is what the person was shown (attacks 54, 65).
func (c consent) counts(client Client, now int64) bool {
	return c.name == client.Name && c.redirects == client.redirects() && (c.ends == nil || *c.ends > now)
}

// redirects are the client's addresses as they are remembered.
func (c Client) redirects() string { return strings.Join(c.Redirects, "\n") }

// remembered is the consent that counts for the flow: of this person, for this
// client, at this address and for this resource.
func remembered(tx *store.Tx, m identity.Member, f flow) (c consent, found bool, err error) {
	c, found, err = scanConsent(tx.QueryRow(`SELECT `+consentColumns+` FROM consent
		WHERE workspace = $1 AND user_id = $2 AND client = $3 AND redirect_key = $4 AND resource = $5 AND ended_at IS NULL`,
		m.Workspace, m.ID, f.Client.ID, oauth.RedirectKey(f.Redirect), f.Audience.URL))
	return c, found && c.counts(f.Client, tx.Now), err
}

// hold keeps the consent as it was read until the transaction ends, and reports
// whether it is still so. Whoever ends or narrows it meanwhile waits, and then finds
// the code that was made of it.
func (c consent) hold(tx *store.Tx, workspace string) (bool, error) {
	return tx.One(`UPDATE consent SET granted_at = granted_at WHERE id = $1 AND workspace = $2 AND scopes = $3 AND ended_at IS NULL`,
		c.id, workspace, strings.Join(c.scopes, " "))
}

// remember keeps the decision, in the place of an older one of its kind. What the
// older one allowed stays allowed, except what the person refused now: that ends
// everywhere (R1212).
func (s *Server) remember(tx *store.Tx, f flow, m identity.Member, d decision) (id string, err error) {
	// The row is the lock: of two answers, the second sees the first.
	c, _, err := scanConsent(tx.QueryRow(`INSERT INTO consent
			(id, workspace, user_id, client, redirect_uri, redirect_key, client_name, client_redirects, scopes, resource, granted_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (workspace, user_id, client, redirect_key, resource) WHERE ended_at IS NULL DO UPDATE SET granted_at = excluded.granted_at
		RETURNING `+consentColumns,
		store.ID("cns_"), m.Workspace, m.ID, f.Client.ID, f.Redirect, oauth.RedirectKey(f.Redirect), f.Client.Name, f.Client.redirects(),
		strings.Join(d.scopes, " "), f.Audience.URL, tx.Now))
	if err != nil {
		return "", err
	}
	scopes, ends := d.scopes, d.ends(tx.Now)
	if c.counts(f.Client, tx.Now) {
		kept := slices.DeleteFunc(without(c.scopes, d.refused), func(scope string) bool { return principal.CoverAll(scopes, []string{scope}) })
		scopes = slices.Concat(scopes, kept)
	}
	_, err = tx.Exec(`UPDATE consent SET scopes = $1, ends_at = $2, redirect_uri = $3, client_name = $4, client_redirects = $5
		WHERE id = $6 AND workspace = $7`,
		strings.Join(scopes, " "), ends, f.Redirect, f.Client.Name, f.Client.redirects(), c.id, m.Workspace)
	if err == nil && !principal.CoverAll(scopes, c.scopes) {
		if err = voidCodes(tx, m.Workspace, c.id, scopes); err == nil {
			err = s.Tokens.Narrow(tx, m.Workspace, c.id, scopes)
		}
	}
	if err == nil && ends != nil && (c.ends == nil || *ends < *c.ends) {
		err = s.Tokens.Shorten(tx, m.Workspace, c.id, *ends)
	}
	return c.id, err
}

// without are the scopes that include none of the refused ones.
func without(scopes, refused []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return slices.ContainsFunc(refused, func(r string) bool { return principal.Covers(scope, r) })
	})
}

// voidCodes spoils the codes of a consent that are still on their way and stand for
// more than scopes. Whoever redeems one in this moment is waited for, so that its
// family is there to revoke.
func voidCodes(tx *store.Tx, workspace, consent string, scopes []string) error {
	for _, codes := range []struct{ waiting, void string }{
		{`SELECT id, scopes FROM authorization_code WHERE workspace = $1 AND consent = $2 AND used_at IS NULL AND expires_at > $3`,
			`UPDATE authorization_code SET expires_at = $1 WHERE id = $2 AND workspace = $3 AND used_at IS NULL`},
		{`SELECT id, granted FROM device_code WHERE workspace = $1 AND consent = $2 AND used_at IS NULL AND expires_at > $3`,
			`UPDATE device_code SET expires_at = $1 WHERE id = $2 AND workspace = $3 AND used_at IS NULL`},
	} {
		waiting, err := scopesOf(tx, codes.waiting, workspace, consent, tx.Now)
		if err != nil {
			return err
		}
		for id, has := range waiting {
			if principal.CoverAll(scopes, has) {
				continue
			}
			if _, err := tx.Exec(codes.void, tx.Now, id, workspace); err != nil {
				return err
			}
		}
	}
	return nil
}

// scopesOf are the scopes of the rows that a query finds, by their ids.
func scopesOf(tx *store.Tx, query string, args ...any) (map[string][]string, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := map[string][]string{}
	for rows.Next() {
		var id, scopes string
		if err := rows.Scan(&id, &scopes); err != nil {
			return nil, err
		}
		found[id] = strings.Fields(scopes)
	}
	return found, rows.Err()
}

// withdraw ends a consent with everything that came of it, and reports whether it
// was live (R1212). user is whose it must be; empty is anybody's of the workspace.
func (s *Server) withdraw(tx *store.Tx, workspace, user, id, reason string) (bool, error) {
	won, err := tx.One(`UPDATE consent SET ended_at = $1, reason = $2
		WHERE id = $3 AND workspace = $4 AND (user_id = $5 OR $5 = '') AND ended_at IS NULL`, tx.Now, reason, id, workspace, user)
	if err != nil || !won {
		return false, err
	}
	if err := voidCodes(tx, workspace, id, nil); err != nil {
		return false, err
	}
	_, err = s.Tokens.RevokeConsent(tx, workspace, id, reason)
	return true, err
}

// standing is what every grant checks last, whatever was presented: that the
// subject is active, that who decides about it still allows what the family holds,
// and that its resource is there (attacks 29, 37). That the client is there was
// checked first.
func (s *Server) standing(tx *store.Tx, made issue) error {
	judge := s.memberStands
	if principal.KindOf(made.family.User) == principal.ServiceAccount {
		judge = s.serviceStands
	}
	if err := judge(tx, made); err != nil {
		return err
	}
	if _, found := s.Registry.AudienceAt(s.Public, made.family.Resource); !found {
		return oauth.Errorf(oauth.InvalidTarget, "%s is not here any more", made.family.Resource)
	}
	return nil
}

// memberStands asks for an active member, and for a consent of that person which
// covers the family; without one only where the issue is vouched for.
func (s *Server) memberStands(tx *store.Tx, made issue) error {
	f := made.family
	_, found, err := s.People.Member(tx, f.Workspace, f.User)
	if err != nil {
		return err
	}
	if !found {
		return badGrant("the person is no active member")
	}
	if made.vouched && f.Consent == "" {
		return nil
	}
	var scopes string
	err = tx.QueryRow(`SELECT scopes FROM consent WHERE id = $1 AND workspace = $2 AND ended_at IS NULL AND (ends_at IS NULL OR ends_at > $3)`,
		f.Consent, f.Workspace, tx.Now).Scan(&scopes)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return badGrant("the consent has ended")
	case err != nil:
		return err
	case !principal.CoverAll(strings.Fields(scopes), f.Scopes):
		return badGrant("the consent covers less")
	}
	return nil
}

// serviceStands asks for an active service account, and that the family holds no
// more than its tools need (R622).
func (s *Server) serviceStands(tx *store.Tx, made issue) error {
	f := made.family
	a, found, err := s.People.ServiceAccount(tx, f.Workspace, f.User)
	switch {
	case err != nil:
		return err
	case !found:
		return badGrant("the service account is not active")
	case !principal.CoverAll(s.needed(a, f.Resource), f.Scopes):
		return badGrant("the service account may do less")
	}
	return nil
}

// badGrant is the one answer to what was good once; why it is not any more goes to
// the record.
func badGrant(why string) *oauth.Error {
	return oauth.Errorf(oauth.InvalidGrant, "the grant is not good any more").Because(why)
}
