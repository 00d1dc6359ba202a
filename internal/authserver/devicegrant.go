package authserver

import (
	"bytes"
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

const grantDevice = "urn:ietf:params:oauth:grant-type:device_code"

// deviceCode is a device that waits, or what became of it.
type deviceCode struct {
	id, from, by, ref string
	hash, sealed      []byte
	scopes            []string // that it asks for; those of the family are what it was granted
	family            token.Family
	polled            *int64
	pause             int64
	created, expires  int64
	decided, used     *int64
}

// waits reports whether a person can still decide.
func (d *deviceCode) waits(now int64) bool { return d.decided == nil && d.expires > now }

// loadDevice finds a device by its id or by the hash of the code that it shows.
func loadDevice(tx *store.Tx, by string, value any) (*deviceCode, error) {
	var d deviceCode
	var scopes, granted string
	var ends *int64
	err := tx.QueryRow(`SELECT d.id, d.hash, d.user_code, d.client, d.scopes, d.resource, d.asked_from, d.asked_by, d.ref, d.polled_at, d.pause,
			d.created_at, d.expires_at, d.decided_at, d.workspace, d.user_id, d.consent, d.granted, d.family, d.used_at, c.ends_at
		FROM device_code d LEFT JOIN consent c ON c.id = d.consent AND c.workspace = d.workspace WHERE d.`+by+` = $1`, value). // its workspace is read from it
		Scan(&d.id, &d.hash, &d.sealed, &d.family.Client, &scopes, &d.family.Resource, &d.from, &d.by, &d.ref, &d.polled, &d.pause,
			&d.created, &d.expires, &d.decided, &d.family.Workspace, &d.family.User, &d.family.Consent, &granted, &d.family.ID, &d.used, &ends)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if ends != nil {
		d.family.Ends = *ends
	}
	d.hash, d.sealed = bytes.Clone(d.hash), bytes.Clone(d.sealed)
	d.scopes, d.family.Scopes = strings.Fields(scopes), strings.Fields(granted)
	return &d, err
}

// redeemDevice is the device code grant (RFC 8628 §3.4, attack 121): the device asks
// again and again until the person has decided. Like a code it is judged first, spent
// in one statement, and a second use revokes what the first one made.
func (s *Server) redeemDevice(tx *store.Tx, c Client, form url.Values) (issue, error) {
	id, presented, ok := token.Parse("dev_", form.Get("device_code"))
	if !ok {
		return issue{}, badCode("it does not have the form of a device code")
	}
	d, err := loadDevice(tx, "id", id)
	if err != nil {
		return issue{}, err
	}
	switch {
	case d == nil:
		return issue{}, badCode("there is none with this id")
	case !presented.Matches(d.hash):
		return issue{}, badCode("its secret is wrong")
	case d.family.Client != c.ID:
		return issue{}, badCode("it was made for another client")
	}
	made := issue{family: d.family, ref: d.ref}
	switch {
	case d.used != nil:
		return s.replayed(tx, made)
	case d.expires <= tx.Now:
		return made, oauth.Errorf(oauth.ExpiredToken, "nobody decided in time; start again")
	case d.decided == nil:
		return made, d.wait(tx)
	case d.family.Consent == "":
		e := oauth.Errorf(oauth.AccessDenied, "the person did not allow it")
		e.Status = http.StatusBadRequest // RFC 8628 §3.5
		return made, e
	}
	won, err := tx.One(`UPDATE device_code SET used_at = $1 WHERE id = $2 AND workspace = $3 AND used_at IS NULL AND expires_at > $1`,
		tx.Now, d.id, d.family.Workspace)
	if err != nil {
		return made, err
	}
	if !won { // another was first, or whoever ended it meanwhile
		if d, err = loadDevice(tx, "id", id); err != nil || d == nil || d.used == nil {
			return made, errors.Join(err, badCode("it ended while it was redeemed"))
		}
		return s.replayed(tx, made)
	}
	made.family = c.bind(d.family)
	made.pair, err = s.Tokens.Start(tx, made.family)
	return made, err
}

// pollSlack is how much too early a poll may come: clocks and networks are not exact.
const pollSlack = time.Second

// wait tells the device to ask again, and to do it more slowly if it came too early.
func (d *deviceCode) wait(tx *store.Tx) error {
	e, pause := oauth.Errorf(oauth.AuthorizationPending, "nobody has decided yet"), d.pause
	if d.polled != nil && tx.Now-*d.polled < d.pause-pollSlack.Microseconds() {
		pause = min(pause+pollPause.Microseconds(), maxPollPause.Microseconds())
		e = oauth.Errorf(oauth.SlowDown, "wait %d seconds between two requests", pause/1_000_000)
	}
	_, err := tx.Exec(`UPDATE device_code SET polled_at = $1, pause = $2 WHERE id = $3 AND workspace = $4`, tx.Now, pause, d.id, d.family.Workspace)
	if err != nil {
		return err
	}
	return store.Keep(e)
}
