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
			Name: "revoke_signing_key", Doc: "Revoke a signing key: every access token that it signed is refused at once, and apps fetch new ones.",
			Effect: tool.Destroys, Caller: principal.Owner, Scope: "security:write", Direct: true,
		}, t.revokeKey),
	}
}

// The states of a signing key.
const (
	keyActive  = "active"  // signs
	keyNext    = "next"    // is published, and signs when the active one is gone
	keyRevoked = "revoked" // nothing that it signed is good
)

type listKeysIn struct{}

type listKeysOut struct {
	Keys []listedKey `json:"keys"`
}

type listedKey struct {
	ID      string `json:"kid"`
	Alg     string `json:"alg"`
	State   string `json:"state" jsonschema:"active, next or revoked"`
	Made    string `json:"made"`
	Revoked string `json:"revoked,omitempty"`
}

func (t *Tokens) listKeys(tx *store.Tx, _ principal.Principal, _ listKeysIn) (listKeysOut, error) {
	out := listKeysOut{Keys: []listedKey{}}
	rows, err := tx.Query(`SELECT kid, alg, created_at, revoked_at FROM signing_key ORDER BY generation`)
	if err != nil {
		return out, err
	}
	defer func() { _ = rows.Close() }()
	state := keyActive
	for rows.Next() {
		var k listedKey
		var made int64
		var revoked *int64
		if err := rows.Scan(&k.ID, &k.Alg, &made, &revoked); err != nil {
			return out, err
		}
		k.State, k.Made = state, day(made)
		if revoked != nil {
			k.State, k.Revoked = keyRevoked, day(*revoked)
		} else {
			state = keyNext
		}
		out.Keys = append(out.Keys, k)
	}
	return out, rows.Err()
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
