// Package token mints, verifies, rotates and revokes tokens, and keeps the
// signing keys.
//
// Authority only shrinks on the way from a family to its tokens. Everything is
// judged before anything is spent, spending is one statement, and what cannot be
// signed is not spent: it is one transaction.
// What is revoked is refused on this node at once, on every other within a
// second, and on a node that cannot tell, everything is refused.
package token

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

//go:embed *.sql
var migrations embed.FS

// Lifetimes. An access token is short, a refresh token lives as long as it is
// used, and its family ends in any case.
const (
	AccessLife  = time.Hour            // R411
	RefreshIdle = 30 * 24 * time.Hour  // unused for so long, a refresh token is dead
	FamilyLife  = 365 * 24 * time.Hour // after that the person is asked again
	ReuseWindow = time.Minute          // how long an old refresh token stays good after the first use of a child
)

// Tokens mints, verifies, rotates and revokes. Set the fields, call Open, and
// keep Run going.
type Tokens struct {
	DB     *store.DB
	Box    *seal.Box
	Issuer string // the issuer identifier of RFC 8414, exactly
	Log    *slog.Logger
	Window time.Duration // in place of ReuseWindow, unless it is 0

	Alg     string        // with which keys sign that are made from now on: ES256, EdDSA or RS256; ES256 if empty
	KeyLife time.Duration // in place of the constant, unless it is 0

	NeedNonce bool // must a DPoP proof have a nonce of ours?

	Opaque func(client, resource string) bool // whose access tokens are no JWT; nil: nobody's

	// Handle is the claim public_token of a family's access tokens, empty where they
	// have none (R410). nil: none has one.
	Handle func(*store.Tx, Family) (string, error)

	keys    atomic.Pointer[keys]
	revoked revocations
	watches watches
}

// Open makes the tables, makes or loads the signing keys, and reads what is
// revoked. Without it nothing verifies.
func (t *Tokens) Open(ctx context.Context) error {
	if err := t.DB.Migrate(ctx, "token", migrations); err != nil {
		return err
	}
	if err := t.openKeys(ctx); err != nil {
		return err
	}
	return t.poll(ctx)
}

// Family is one authorization: what a person allowed a client to do, or what a
// program may do for itself.
type Family struct {
	ID        string
	Workspace string
	User      string // the subject: a member or a service account (principal.KindOf)
	Client    string
	Consent   string // of the person; empty where none is needed
	Scopes    []string
	Resource  string // the audience of its tokens
	Ends      int64  // when it ends at the latest, µs; 0 after FamilyLife

	Key    string // thumbprint of the key that its next access token is bound to; empty if to none (RFC 9449)
	Holder string // the same of its refresh tokens, which need a proof then

	handle string // for the claim public_token of the token that is being signed
}

// Pair is what a token endpoint hands out.
type Pair struct {
	Access  string
	Token   string // id of the access token
	Refresh string // none where the family ends with the access token
	Scopes  []string
	Expires time.Duration // of the access token, from now
	Key     string        // that the access token is bound to
}

// Start makes a family and its first pair. The caller has spent what entitles
// to it in the same transaction. The family's id is set by the caller, so that a
// replay of what was spent can revoke it.
func (t *Tokens) Start(tx *store.Tx, f Family) (Pair, error) {
	if ends := tx.Now + FamilyLife.Microseconds(); f.Ends == 0 || f.Ends > ends {
		f.Ends = ends
	}
	err := tx.Later(nil, `INSERT INTO token_family
		(id, workspace, user_id, client, consent, scopes, resource, created_at, expires_at, used_at, jkt)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, $10)`,
		f.ID, f.Workspace, f.User, f.Client, f.Consent, strings.Join(f.Scopes, " "), f.Resource,
		tx.Now, f.Ends, f.Holder)
	if err != nil {
		return Pair{}, err
	}
	return t.pair(tx, f, f.Scopes, "")
}

// Family is a family that has a row and was not revoked.
func (t *Tokens) Family(tx *store.Tx, workspace, id string) (f Family, found bool, err error) {
	f = Family{ID: id, Workspace: workspace}
	var scopes string
	err = tx.QueryRow(`SELECT user_id, client, consent, scopes, resource, expires_at FROM token_family
		WHERE workspace = $1 AND id = $2 AND revoked_at IS NULL`, workspace, id).Scan(&f.User, &f.Client, &f.Consent, &scopes, &f.Resource, &f.Ends)
	if errors.Is(err, sql.ErrNoRows) {
		return Family{}, false, nil
	}
	f.Scopes = strings.Fields(scopes)
	return f, err == nil, err
}

// Access signs an access token of a family that has no refresh tokens, and stores
// nothing: until the token expires it can be ended by its own id, its family's or
// its client's. life is cut to AccessLife and to the end of the family.
func (t *Tokens) Access(tx *store.Tx, f Family, scopes []string, life time.Duration) (Pair, error) {
	life = min(life, AccessLife)
	if f.Ends != 0 {
		life = min(life, time.Duration(f.Ends-tx.Now)*time.Microsecond)
	}
	return t.sign(tx, f, scopes, life)
}

// sign makes the access token alone. Its times are whole seconds.
func (t *Tokens) sign(tx *store.Tx, f Family, scopes []string, life time.Duration) (Pair, error) {
	life = life.Truncate(time.Second)
	access, id, err := t.issue(tx, life, f, scopes)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Access: access, Token: id, Scopes: scopes, Expires: life, Key: f.Key}, nil
}

// pair signs an access token and stores a refresh token. No token outlives its
// family, and where an access token lasts as long there is nothing to refresh.
func (t *Tokens) pair(tx *store.Tx, f Family, scopes []string, parent string) (Pair, error) {
	left := time.Duration(f.Ends-tx.Now) * time.Microsecond
	pair, err := t.sign(tx, f, scopes, min(AccessLife, left))
	if err != nil || left <= AccessLife {
		return pair, err
	}
	refresh := NewSplit("rt_")
	pair.Refresh = refresh.Token
	err = tx.Later(nil, `INSERT INTO refresh_token (id, workspace, family, parent, hash, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		refresh.ID, f.Workspace, f.ID, parent, refresh.Hash, tx.Now, tx.Now+RefreshIdle.Microseconds())
	return pair, err
}

// NewFamilyID makes the id of a family before the family exists.
func NewFamilyID() string { return store.ID("fam_") }

// Asked is what a client asks of a refresh token.
type Asked struct {
	Client    string
	Scopes    []string // none: as granted
	Resources []string // none: as granted
	Key       string   // thumbprint of the key that the client has; empty if it proves none
}

// badRefresh is the one answer for every refresh token that is not good; why it
// is not goes to the record (RFC 6749 5.2).
func badRefresh(why string) *oauth.Error {
	return oauth.Errorf(oauth.InvalidGrant, "the refresh token is not good any more; sign in again").Because(why)
}

// ErrReplay is in the chain of an error when an old refresh token came back
// after its window and its family was revoked.
var ErrReplay = errors.New("a spent refresh token was used again")

// Rotate redeems a refresh token and gives a complete new pair of its family
// (R413). An old one stays good until ReuseWindow after the first use of any of
// its children, so that a client that lost an answer, or works in several
// processes, is never signed out; after that its return revokes the family. A
// revocation must be kept: return the error through store.Keep.
func (t *Tokens) Rotate(tx *store.Tx, refresh string, asked Asked) (Family, Pair, error) {
	id, presented, ok := Parse("rt_", refresh)
	if !ok {
		return Family{}, Pair{}, badRefresh("it does not have the form of one")
	}
	row, err := t.load(tx, id)
	if err != nil {
		return Family{}, Pair{}, err
	}
	// Judge the secret and the client before anything happens to the record:
	// a guessed id, or another client, must not revoke anything.
	switch {
	case row == nil:
		return Family{}, Pair{}, badRefresh("there is none with this id")
	case !presented.Matches(row.hash):
		return Family{}, Pair{}, badRefresh("its secret is wrong")
	case row.family.Client != asked.Client:
		return Family{}, Pair{}, badRefresh("it was made for another client")
	case row.family.Holder != "" && row.family.Holder != asked.Key:
		return Family{}, Pair{}, badRefresh("it is bound to a key, and came without a proof of it")
	case row.gone != nil:
		return Family{}, Pair{}, badRefresh("its family is revoked")
	case tx.Now >= row.expires || tx.Now >= row.family.Ends:
		return Family{}, Pair{}, badRefresh("it has expired")
	}
	if t.replayed(row, tx.Now) {
		return row.family, Pair{}, t.replay(tx, row)
	}
	scopes, oerr := narrow(row.family, asked)
	if oerr != nil {
		return row.family, Pair{}, oerr
	}
	row.family.Key = asked.Key
	pair, err := t.pair(tx, row.family, scopes, id)
	if err != nil {
		return row.family, Pair{}, err
	}
	return row.family, pair, t.spend(tx, row)
}

type refreshRow struct {
	id, parent      string
	family          Family
	hash            []byte
	expires         int64
	childUsed, gone *int64
}

func (t *Tokens) load(tx *store.Tx, id string) (*refreshRow, error) {
	r := refreshRow{id: id}
	var scopes string
	rows, err := tx.Query(`SELECT r.parent, r.hash, r.expires_at, r.child_used_at,
			f.id, f.workspace, f.user_id, f.client, f.consent, f.scopes, f.resource, f.expires_at, f.jkt, f.revoked_at
		FROM refresh_token r JOIN token_family f ON f.id = r.family AND f.workspace = r.workspace
		WHERE r.id = $1`, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	if !rows.Next() {
		return nil, rows.Err()
	}
	err = rows.Scan(&r.parent, &r.hash, &r.expires, &r.childUsed,
		&r.family.ID, &r.family.Workspace, &r.family.User, &r.family.Client, &r.family.Consent, &scopes, &r.family.Resource, &r.family.Ends, &r.family.Holder, &r.gone)
	r.family.Scopes = strings.Fields(scopes)
	return &r, err
}

// window is how long an old token stays good after the first use of a child, µs.
func (t *Tokens) window() int64 { return cmp.Or(t.Window, ReuseWindow).Microseconds() }

func (t *Tokens) replayed(r *refreshRow, now int64) bool {
	return r.childUsed != nil && now > *r.childUsed+t.window()
}

func (t *Tokens) replay(tx *store.Tx, r *refreshRow) error {
	won, err := t.RevokeFamily(tx, r.family.ID, UsedTwice)
	if err != nil {
		return err
	}
	if !won {
		return badRefresh("its family was just revoked")
	}
	return store.Keep(errors.Join(badRefresh("it was used before"), ErrReplay))
}

// spend marks the token and its parent used and the family alive, each in one
// statement that also looks again at what load saw.
func (t *Tokens) spend(tx *store.Tx, r *refreshRow) error {
	late := badRefresh("its family was just revoked, or its window just ended")
	err := tx.OneLater(late, `UPDATE token_family SET used_at = $1 WHERE id = $2 AND workspace = $3 AND revoked_at IS NULL`,
		tx.Now, r.family.ID, r.family.Workspace)
	if err != nil {
		return err
	}
	err = tx.OneLater(late, `UPDATE refresh_token SET used_at = COALESCE(used_at, $1)
		WHERE id = $2 AND workspace = $3 AND (child_used_at IS NULL OR child_used_at >= $4)`,
		tx.Now, r.id, r.family.Workspace, tx.Now-t.window())
	if err != nil {
		return err
	}
	return tx.Later(nil, `UPDATE refresh_token SET child_used_at = $1
		WHERE id = $2 AND workspace = $3 AND child_used_at IS NULL`, tx.Now, r.parent, r.family.Workspace)
}

// narrow is what of the family's scopes the client asks for. It may ask for
// less, never for more, and never for another resource (R415).
func narrow(f Family, asked Asked) ([]string, *oauth.Error) {
	for _, r := range asked.Resources {
		if !oauth.SameResource(r, f.Resource) {
			return nil, oauth.Errorf(oauth.InvalidTarget, "the refresh token is for %s", f.Resource)
		}
	}
	if len(asked.Scopes) == 0 {
		return f.Scopes, nil
	}
	var scopes []string
	for _, s := range asked.Scopes {
		switch {
		case slices.Contains(f.Scopes, s):
			scopes = append(scopes, s)
		case s != "offline_access":
			return nil, oauth.Errorf(oauth.InvalidScope, "the scope %s was not granted", s)
		}
	}
	if len(scopes) == 0 {
		return f.Scopes, nil
	}
	return scopes, nil
}

// Lookup finds the family of a refresh token that client presents, for
// revocation (RFC 7009). found is false for anything that is not the client's own.
func (t *Tokens) Lookup(tx *store.Tx, refresh, client string) (f Family, found bool, err error) {
	id, presented, ok := Parse("rt_", refresh)
	if !ok {
		return Family{}, false, nil
	}
	row, err := t.load(tx, id)
	if err != nil || row == nil || !presented.Matches(row.hash) || row.family.Client != client {
		return Family{}, false, err
	}
	return row.family, true, nil
}

// Refreshable is the family of a refresh token that client could redeem now, and
// when the token expires, µs. ok is false for anything else.
func (t *Tokens) Refreshable(tx *store.Tx, refresh, client string) (f Family, expires int64, ok bool, err error) {
	id, presented, ok := Parse("rt_", refresh)
	if !ok {
		return Family{}, 0, false, nil
	}
	row, err := t.load(tx, id)
	if err != nil || row == nil || !presented.Matches(row.hash) || row.family.Client != client || row.gone != nil || t.replayed(row, tx.Now) {
		return Family{}, 0, false, err
	}
	expires = min(row.expires, row.family.Ends)
	return row.family, expires, tx.Now < expires, nil
}
