package token

import (
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Standing is how the families of one consent stand.
type Standing struct {
	Consent  string
	Live     int   // families that can still get tokens, or have one that may work
	Used     int64 // when a token was last issued, µs; an app that is used renews its token every hour
	Ends     int64 // when the last of the live ones ends, unused, µs
	Replayed int64 // when one of them last ended because its sign-in was used twice, µs; 0 if none did
}

// Standings are those of the consents of a member, or of the whole workspace if
// user is empty.
func (t *Tokens) Standings(tx *store.Tx, workspace, user string) (map[string]Standing, error) {
	rows, err := tx.Query(`SELECT consent, revoked_at IS NULL, reason = $1, created_at, used_at, expires_at, COALESCE(revoked_at, 0)
		FROM token_family WHERE workspace = $2 AND (user_id = $3 OR $3 = '')`, UsedTwice, workspace, user)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	standings := map[string]Standing{}
	for rows.Next() {
		var s Standing
		var alive, replayed bool
		var created, expires, revoked int64
		if err := rows.Scan(&s.Consent, &alive, &replayed, &created, &s.Used, &expires, &revoked); err != nil {
			return nil, err
		}
		if ends := min(expires, s.Used+RefreshIdle.Microseconds()); alive && ends > tx.Now {
			s.Live, s.Ends = 1, ends
		}
		if replayed {
			s.Replayed = revoked
		}
		all := standings[s.Consent]
		standings[s.Consent] = Standing{
			Consent: s.Consent, Live: all.Live + s.Live, Used: max(all.Used, s.Used), Ends: max(all.Ends, s.Ends), Replayed: max(all.Replayed, s.Replayed),
		}
	}
	return standings, rows.Err()
}

// Narrow revokes the families of a consent that hold more than the scopes. Like
// RevokeConsent it comes after the change of the consent's row.
func (t *Tokens) Narrow(tx *store.Tx, workspace, consent string, scopes []string) error {
	wider, err := widerThan(tx, workspace, consent, scopes)
	for _, id := range wider {
		if err == nil {
			_, err = t.RevokeFamily(tx, id, "it was allowed less")
		}
	}
	return err
}

// Shorten lets no family of a consent live longer than ends, in µs.
func (t *Tokens) Shorten(tx *store.Tx, workspace, consent string, ends int64) error {
	_, err := tx.Exec(`UPDATE token_family SET expires_at = $1 WHERE workspace = $2 AND consent = $3 AND expires_at > $1`, ends, workspace, consent)
	return err
}

func widerThan(tx *store.Tx, workspace, consent string, scopes []string) (ids []string, err error) {
	rows, err := tx.Query(`SELECT id, scopes FROM token_family WHERE workspace = $1 AND consent = $2 AND revoked_at IS NULL`, workspace, consent)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, held string
		if err := rows.Scan(&id, &held); err != nil {
			return nil, err
		}
		if !principal.CoverAll(scopes, strings.Fields(held)) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}
