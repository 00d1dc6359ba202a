package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// SignedHead says where a chain ended at a time. A chain by itself cannot show
// that its end was cut off; a head kept elsewhere can. What is signed (Ed25519)
// is the canonical JSON of all other members.
type SignedHead struct {
	From      int64  `json:"from" jsonschema:"seq of the first event, 1"`
	Hash      string `json:"hash" jsonschema:"hash of the last event, 64 zeros if there is none"`
	Key       string `json:"key" jsonschema:"public key that signed, base64"`
	Seq       int64  `json:"seq" jsonschema:"seq of the last event, 0 if there is none"`
	Signature string `json:"signature,omitempty" jsonschema:"base64"`
	Time      int64  `json:"time_us" jsonschema:"when it was signed, microseconds since 1970, UTC"`
	Workspace string `json:"workspace" jsonschema:"the chain"`
}

// Head signs the present end of a chain. A chain without events has one too.
func (l *Log) Head(tx *store.Tx, workspace string) (SignedHead, error) {
	h := SignedHead{From: 1, Hash: genesis, Time: tx.Now, Workspace: workspace}
	err := tx.QueryRow(`SELECT seq, hash FROM audit_head WHERE workspace = $1`, workspace).Scan(&h.Seq, &h.Hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return SignedHead{}, unreadable(tx, err)
	}
	return h, h.sign(l.key)
}

// Thumbprint names the public key that signs heads, for pinning: the SHA-256 of
// its 32 bytes, hexadecimal.
func (l *Log) Thumbprint() string { return Digest(l.key.Public().(ed25519.PublicKey)) }

func (h *SignedHead) sign(key ed25519.PrivateKey) error {
	h.Key = base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	h.Signature = ""
	text, err := h.canonical()
	if err != nil {
		return err
	}
	h.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, text))
	return nil
}

// verify reports whether the head is as its key signed it, and the thumbprint of
// that key.
func (h SignedHead) verify() (thumbprint string, ok bool) {
	key, errKey := base64.StdEncoding.Strict().DecodeString(h.Key)
	signature, errSignature := base64.StdEncoding.Strict().DecodeString(h.Signature)
	spelled := base64.StdEncoding.EncodeToString(signature) == h.Signature // the decoder skips line breaks
	h.Signature = ""
	text, err := h.canonical()
	if errors.Join(errKey, errSignature, err) != nil || len(key) != ed25519.PublicKeySize || !spelled {
		return "", false
	}
	return Digest(key), ed25519.Verify(key, text, signature)
}

func (h SignedHead) canonical() ([]byte, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	v := jsontext.Value(b)
	err = v.Canonicalize()
	return v, err
}

// Sealed is what this room keeps sealed.
var Sealed = []seal.Column{seeds}

var seeds = seal.Column{Table: "audit_key", ID: "name", Name: "seed"}

// loadKey reads the signing key, making it if there is none. Of several nodes
// that make it at once, one wins.
func (l *Log) loadKey(ctx context.Context) error {
	fresh := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(fresh) // never fails
	offer, err := l.Box.Seal(seeds.Place("head"), fresh)
	if err != nil {
		return err
	}
	var sealed []byte
	err = l.DB.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO audit_key (name, seed, created_at) VALUES ('head', $1, $2)
			ON CONFLICT (name) DO NOTHING`, offer, tx.Now)
		if err != nil {
			return err
		}
		return tx.QueryRow(`SELECT seed FROM audit_key WHERE name = 'head'`).Scan(&sealed)
	})
	if err != nil {
		return fmt.Errorf("load the key of the audit log: %w", err)
	}
	seed, err := l.Box.Open(seeds.Place("head"), sealed)
	if err != nil {
		return fmt.Errorf("open the key of the audit log: %w", err)
	}
	l.key = ed25519.NewKeyFromSeed(seed)
	return nil
}
