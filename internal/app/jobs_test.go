package app_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// ago is a time in the past, µs.
func ago(d time.Duration) int64 { return time.Now().Add(-d).UnixMicro() }

const day = 24 * time.Hour

// swept runs all sweeps until they find nothing.
func swept(t *testing.T, h *apptest.House) {
	t.Helper()
	for _, sweep := range []func(*store.Tx) (int64, bool, error){
		(&token.Tokens{}).Sweep, (&authserver.Server{}).Sweep, (&authn.Authn{}).Sweep, store.SweepLeases,
	} {
		for more := true; more; {
			err := h.DB.Do(t.Context(), func(tx *store.Tx) (err error) {
				_, more, err = sweep(tx)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// ids are those of a table, in order.
func ids(t *testing.T, h *apptest.House, table string) (found []string) {
	t.Helper()
	err := h.DB.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT id FROM ` + table + ` ORDER BY id`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			found = append(found, id)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// R1305, libraries.md §4: what has expired goes, and nothing that somebody still
// needs. A row is called "keep…" or "gone…".
func TestWhatHasExpiredIsSwept(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		var inserts []func(*store.Tx) error // all at once: the house sweeps too
		insert := func(statement string, args ...any) {
			inserts = append(inserts, func(tx *store.Tx) error {
				_, err := tx.Exec(statement, args...)
				return err
			})
		}
		client := func(id string, age time.Duration) {
			insert(`INSERT INTO client (id, name, redirect_uris, grant_types, auth_method, scope, metadata, created_at, created_from)
				VALUES ($1, '', '', '', 'none', '', '{}', $2, '')`, id, ago(age))
		}
		flow := func(id, client string, expired time.Duration) {
			insert(`INSERT INTO flow (id, ref, browser, client, redirect_uri, state, challenge, scopes, resource, asked_from, created_at, expires_at)
				VALUES ($1, '', $2, $3, '', '', '', '', '', '', 0, $4)`, id, []byte{1}, client, ago(expired))
		}
		consent := func(id, client string, age time.Duration) {
			insert(`INSERT INTO consent (id, workspace, user_id, client, redirect_uri, scopes, resource, granted_at)
				VALUES ($1, 'default', 'usr_1', $2, '', '', '', $3)`, id, client, ago(age))
		}
		code := func(id, consent string, expired time.Duration, used any) {
			insert(`INSERT INTO authorization_code (id, hash, workspace, user_id, client, consent, redirect_uri, challenge, scopes, resource, family, ref, created_at, expires_at, used_at)
				VALUES ($1, $2, 'default', 'usr_1', '', $3, '', '', '', '', '', '', 0, $4, $5)`, id, []byte{1}, consent, ago(expired), used)
		}
		family := func(id, client, consent string, unused time.Duration, revoked any) {
			insert(`INSERT INTO token_family (id, workspace, user_id, client, consent, scopes, resource, created_at, expires_at, used_at, revoked_at)
				VALUES ($1, 'default', 'usr_1', $2, $3, '', '', 0, $4, $5, $6)`, id, client, consent, ago(-365*day), ago(unused), revoked)
		}
		refresh := func(id, family string, expired time.Duration) {
			insert(`INSERT INTO refresh_token (id, workspace, family, parent, hash, created_at, expires_at)
				VALUES ($1, 'default', $2, '', $3, 0, $4)`, id, family, []byte{1}, ago(expired))
		}
		access := func(id string, expired time.Duration) {
			insert(`INSERT INTO access_token (id, hash, workspace, family, user_id, client, scopes, resource, created_at, expires_at)
				VALUES ($1, $2, 'default', '', '', '', '', '', 0, $3)`, id, []byte{1}, ago(expired))
		}
		link := func(slot int, id string, expired time.Duration) {
			insert(`INSERT INTO sign_in_link (workspace, user_id, slot, id, hash, flow, created_at, expires_at)
				VALUES ('default', 'usr_1', $1, $2, $3, '', 0, $4)`, slot, id, []byte{1}, ago(expired))
		}
		session := func(id string, expired time.Duration) {
			insert(`INSERT INTO browser_session (id, hash, workspace, user_id, created_at, expires_at) VALUES ($1, $2, 'default', 'usr_1', 0, $3)`, id, []byte{1}, ago(expired))
		}
		pushed := func(id string, expired time.Duration) {
			insert(`INSERT INTO pushed_request (id, hash, client, query, created_at, expires_at) VALUES ($1, $2, '', '', 0, $3)`, id, []byte{1}, ago(expired))
		}
		device := func(id string, expired time.Duration) {
			insert(`INSERT INTO device_code (id, hash, user_hash, user_code, client, scopes, resource, asked_from, asked_by, ref, pause, created_at, expires_at)
				VALUES ($1, $2, $3, $2, '', '', '', '', '', '', 0, 0, $4)`, id, []byte{1}, []byte(id), ago(expired))
		}
		none := sql.NullInt64{}

		client("keep, new", 6*day)
		client("gone, never led to anything", 8*day)
		client("keep, somebody is asked right now", 400*day)
		flow("keep, waits", "keep, somebody is asked right now", -time.Minute)
		client("gone, was asked for and never answered", 8*day)
		flow("gone, nobody answered", "gone, was asked for and never answered", time.Minute)

		client("keep, lives", 400*day)
		consent("keep, has a family", "keep, lives", 300*day)
		family("keep, lives", "keep, lives", "keep, has a family", 10*day, none)
		refresh("keep, current", "keep, lives", -20*day)
		refresh("gone, too old to be told from none", "keep, lives", time.Minute)
		code("keep, its return would revoke", "keep, has a family", 20*day, ago(20*day))

		client("keep, unused for 80 days", 400*day)
		consent("keep, unused for 80 days", "keep, unused for 80 days", 200*day)
		family("keep, unused for 80 days", "keep, unused for 80 days", "keep, unused for 80 days", 80*day, none)
		refresh("gone, of an unused family", "keep, unused for 80 days", 50*day)

		client("gone, unused for 91 days", 400*day)
		consent("gone, unused for 91 days", "gone, unused for 91 days", 200*day)
		family("gone, unused for 91 days", "gone, unused for 91 days", "gone, unused for 91 days", 91*day, none)
		refresh("gone, of a family that goes", "gone, unused for 91 days", 61*day)
		code("gone, used long ago", "gone, unused for 91 days", 200*day, ago(200*day))

		client("keep, revoked yesterday", 400*day)
		consent("keep, of a revoked family", "keep, revoked yesterday", 200*day)
		family("keep, revoked yesterday", "keep, revoked yesterday", "keep, of a revoked family", 2*day, ago(day))

		client("keep, allowed lately", 100*day)
		consent("keep, no code was fetched", "keep, allowed lately", 30*day)
		code("gone, never fetched", "keep, no code was fetched", time.Minute, none)
		code("keep, may still be fetched", "keep, no code was fetched", -time.Minute, none)

		access("keep, access token", -time.Minute)
		access("gone, access token", time.Minute)
		link(0, "gone, link", time.Minute)
		link(1, "keep, link", -time.Minute)
		session("gone, session", time.Minute)
		session("keep, session", -time.Minute)
		pushed("gone, pushed", time.Minute)
		pushed("keep, pushed", -time.Minute)
		device("gone, device", 61*time.Minute)
		device("keep, device is told why", 59*time.Minute)

		err := h.DB.Do(t.Context(), func(tx *store.Tx) error {
			for _, insert := range inserts {
				if err := insert(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		swept(t, h)
		for _, table := range []string{"client", "flow", "consent", "authorization_code", "token_family", "refresh_token", "access_token", "sign_in_link", "browser_session", "pushed_request", "device_code"} {
			kept := ids(t, h, table)
			if len(kept) == 0 || slices.ContainsFunc(kept, func(id string) bool { return strings.HasPrefix(id, "gone") }) {
				t.Errorf("%s: %q", table, kept)
			}
		}
		want := map[string]int{"client": 6, "flow": 1, "consent": 4, "authorization_code": 2, "token_family": 3, "refresh_token": 1, "access_token": 1, "sign_in_link": 1, "browser_session": 1}
		for table, n := range want {
			if got := ids(t, h, table); len(got) != n {
				t.Errorf("%s: of %d rows to keep these are left: %q", table, n, got)
			}
		}
	}, apptest.Dev)
}

// The walk comes to every row however many there are to keep, a few hundred at a
// time, and only then says that there is no more.
func TestSweepsAreShortAndReachEverything(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		err := h.DB.Do(t.Context(), func(tx *store.Tx) error {
			for i := range 1200 {
				age := ago(time.Hour)
				if i >= 900 { // nothing goes of the first steps
					age = ago(30 * day)
				}
				_, err := tx.Exec(`INSERT INTO client (id, name, redirect_uris, grant_types, auth_method, scope, metadata, created_at, created_from)
					VALUES ($1, '', '', '', 'none', '', '{}', $2, '')`, fmt.Sprintf("c%04d", i), age)
				if err != nil {
					return err
				}
			}
			for i := range 1200 { // what somebody once used, all the way
				client, consent, code := fmt.Sprintf("d%04d", i), fmt.Sprintf("n%04d", i), fmt.Sprintf("x%04d", i)
				for _, insert := range []struct {
					statement string
					args      []any
				}{
					{`INSERT INTO client (id, name, redirect_uris, grant_types, auth_method, scope, metadata, created_at, created_from)
						VALUES ($1, '', '', '', 'none', '', '{}', $2, '')`, []any{client, ago(400 * day)}},
					{`INSERT INTO consent (id, workspace, user_id, client, redirect_uri, scopes, resource, granted_at, redirect_key)
						VALUES ($1, 'default', 'usr_1', $2, '', '', '', $3, $1)`, []any{consent, client, ago(400 * day)}},
					{`INSERT INTO authorization_code (id, hash, workspace, user_id, client, consent, redirect_uri, challenge, scopes, resource, family, ref, created_at, expires_at, used_at)
						VALUES ($1, $2, 'default', 'usr_1', $3, $4, '', '', '', '', '', '', 0, $5, $5)`, []any{code, []byte{1}, client, consent, ago(400 * day)}},
				} {
					if _, err := tx.Exec(insert.statement, insert.args...); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var s authserver.Server
		for step, more := 0, true; more; step++ {
			err := h.DB.Do(t.Context(), func(tx *store.Tx) (err error) {
				var n int64
				n, more, err = s.Sweep(tx)
				if n > 500 {
					t.Errorf("%d rows at once", n)
				}
				return err
			})
			if err != nil || step > 40 {
				t.Fatal(step, err)
			}
		}
		if n := h.Count(`SELECT count(*) FROM client WHERE created_at < $1`, ago(7*day)); n != 0 {
			t.Errorf("%d are left that nobody needs", n)
		}
		if n := h.Count(`SELECT count(*) FROM client`); n != 900 {
			t.Errorf("%d are left in all", n)
		}
	}, apptest.Dev)
}

// The job runs by itself at the start of a server, and says once what it did.
func TestJobSweepsAtTheStart(t *testing.T) {
	dir := t.TempDir()
	const said = "deleted what had expired"
	first := apptest.Open(t, apptest.Dev, in(dir))
	first.Register()
	first.SQL(`UPDATE client SET created_at = 0`)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	h := apptest.Open(t, apptest.Dev, in(dir))
	early := strings.Contains(first.Log.String(), said) // its own was just under way
	if !early && h.Log.Wait(said, nil) == "" || h.Count(`SELECT count(*) FROM client`) != 0 {
		t.Errorf("nothing was swept: %s", h.Log)
	}
}
