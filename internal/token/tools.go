package token

import (
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Tools are the signing keys as an operator sees them.
func (t *Tokens) Tools() []tool.Tool {
	return []tool.Tool{
		tool.Define(tool.Def{
			Name: "list_signing_keys", Doc: "List the keys that sign access tokens, in the order in which they come to sign.",
			Effect: tool.Reads, Caller: principal.Admin, Scope: "security:read",
		}, t.listKeys),
		tool.Define(tool.Def{
			Name: "rotate_signing_key", Doc: "Let the next key sign from now on. What the old one signed stays good until it expires.",
			Effect: tool.Writes, Caller: principal.Owner, Scope: "security:write", Direct: true,
		}, t.rotateKey),
		tool.Define(tool.Def{
			Name: "revoke_signing_key", Doc: "Revoke a signing key: every access token that it signed is refused at once, and apps fetch new ones.",
			Effect: tool.Destroys, Caller: principal.Owner, Scope: "security:write", Direct: true,
		}, t.revokeKey),
	}
}

// The states of a signing key.
const (
	keyActive   = "active"   // signs
	keyNext     = "next"     // is published, and signs when the active one retires or is revoked
	keyRetiring = "retiring" // signs no more, and what it signed is good until it expires
	keyRevoked  = "revoked"  // nothing that it signed is good
)

type listKeysIn struct{}

type listKeysOut struct {
	Keys []listedKey `json:"keys"`
}

type listedKey struct {
	ID      string `json:"kid"`
	Alg     string `json:"alg"`
	State   string `json:"state" jsonschema:"next, active, retiring or revoked"`
	Made    string `json:"made" jsonschema:"since when it is published"`
	Active  string `json:"active,omitempty" jsonschema:"since when it signs, or did"`
	Retired string `json:"retired,omitempty" jsonschema:"since when it signs no more"`
	Gone    string `json:"gone,omitempty" jsonschema:"when the last token that it signed has expired"`
	Revoked string `json:"revoked,omitempty"`
}

func (t *Tokens) listKeys(tx *store.Tx, _ principal.Principal, _ listKeysIn) (listKeysOut, error) {
	out := listKeysOut{Keys: []listedKey{}}
	rows, err := tx.Query(`SELECT kid, alg, created_at, active_at, retired_at, revoked_at FROM signing_key ORDER BY generation`)
	if err != nil {
		return out, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var k listedKey
		var made int64
		var active, retired, revoked *int64
		if err := rows.Scan(&k.ID, &k.Alg, &made, &active, &retired, &revoked); err != nil {
			return out, err
		}
		k.State, k.Made = keyNext, day(made)
		if active != nil {
			k.State, k.Active = keyActive, day(*active)
		}
		if retired != nil {
			gone := *retired + keyGrace.Microseconds()
			if gone <= tx.Now {
				continue // its row goes soon
			}
			k.State, k.Retired, k.Gone = keyRetiring, day(*retired), day(gone)
		}
		if revoked != nil {
			k.State, k.Revoked, k.Gone = keyRevoked, day(*revoked), ""
		}
		out.Keys = append(out.Keys, k)
	}
	return out, rows.Err()
}

type rotateKeyIn struct {
	Now bool `json:"now,omitempty" jsonschema:"also if the next key has not been published for a day: whoever keeps the published keys for longer refuses what it signs until he reads them again"`
}

func (t *Tokens) rotateKey(tx *store.Tx, p principal.Principal, in rotateKeyIn) (listKeysOut, error) {
	if err := t.RotateKeys(tx, in.Now); err != nil {
		return listKeysOut{}, err
	}
	return t.listKeys(tx, p, listKeysIn{})
}

func day(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.RFC3339) }

type revokeKeyIn struct {
	ID string `json:"kid" jsonschema:"id of the key"`
}

type revokeKeyOut struct {
	ID string `json:"kid"`
}

func (t *Tokens) revokeKey(tx *store.Tx, _ principal.Principal, in revokeKeyIn) (revokeKeyOut, error) {
	return revokeKeyOut(in), t.RevokeKey(tx, in.ID)
}
