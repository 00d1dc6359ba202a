package token

import (
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// opaquePrefix begins an access token that is no JWT (R409).
const opaquePrefix = "at_"

// IsOpaque reports whether raw has the form of an access token that is no JWT (C19).
// Such a one is looked up with VerifyOpaque, every other is judged by Verify.
func IsOpaque(raw string) bool { return strings.HasPrefix(raw, opaquePrefix) }

// keep makes an opaque access token and stores what a JWT would say. It lives for
// whole seconds, like one.
func (t *Tokens) keep(tx *store.Tx, life time.Duration, f Family, scopes []string) (raw, id string, err error) {
	s := NewSplit(opaquePrefix)
	_, err = tx.Exec(`INSERT INTO access_token (id, hash, workspace, family, user_id, client, scopes, resource, created_at, expires_at, jkt)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		s.ID, s.Hash, f.Workspace, f.ID, f.User, f.Client, strings.Join(scopes, " "), f.Resource, tx.Now, tx.Now+life.Microseconds(), f.Key)
	return s.Token, s.ID, err
}

// VerifyOpaque is Verify for an opaque token (R506): there is a row, the secret is
// its own, it has not expired, and nothing it stands for is revoked.
func (t *Tokens) VerifyOpaque(tx *store.Tx, raw string) (Claims, error) {
	id, presented, ok := Parse(opaquePrefix, raw)
	if !ok {
		return Claims{}, ErrToken("the token does not have the form of one")
	}
	c := Claims{Issuer: t.Issuer, ID: id}
	var hash []byte
	var created, expires int64
	var key string
	err := tx.QueryRow(`SELECT hash, workspace, family, user_id, client, scopes, resource, created_at, expires_at, jkt FROM access_token WHERE id = $1`, id).
		Scan(&hash, &c.Workspace, &c.Family, &c.Subject, &c.Client, &c.Scope, &c.Audience, &created, &expires, &key)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Claims{}, ErrToken("there is no such token")
	case err != nil:
		return Claims{}, err
	case !presented.Matches(hash):
		return Claims{}, ErrToken("the secret of the token is wrong")
	}
	c.Confirm = confirm(key)
	c.Issued, c.Expires = time.UnixMicro(created).Unix(), time.UnixMicro(expires).Unix()
	if err := t.judge(c, time.Now()); err != nil {
		return Claims{}, err
	}
	if err := t.Live(c.IDs()...); err != nil {
		return Claims{}, err
	}
	return c, nil
}

// Accept judges an access token of either form, where a transaction is at hand.
func (t *Tokens) Accept(tx *store.Tx, raw string) (Claims, error) {
	if IsOpaque(raw) {
		return t.VerifyOpaque(tx, raw)
	}
	return t.Verify(raw)
}

// issue makes an access token in the form that its client and resource have.
func (t *Tokens) issue(tx *store.Tx, life time.Duration, f Family, scopes []string) (raw, id string, err error) {
	if t.Opaque != nil && t.Opaque(f.Client, f.Resource) {
		return t.keep(tx, life, f, scopes)
	}
	if t.Handle != nil {
		if f.handle, err = t.Handle(tx, f); err != nil {
			return "", "", err
		}
	}
	raw, id, err = t.mint(time.UnixMicro(tx.Now), life, f, scopes)
	if err != nil {
		err = oauth.Errorf(oauth.TemporarilyUnavailable, "the token could not be signed")
	}
	return raw, id, err
}
