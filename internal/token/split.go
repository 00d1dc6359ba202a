package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// A Split is a new opaque token: prefix, time-ordered id, dot, 256 random bits.
// The row is found by the id; what opens is the secret, of which only the hash
// is stored. A guessed id therefore reveals nothing and revokes nothing.
type Split struct {
	Token string // for its holder, shown once
	ID    string // of its row
	Hash  []byte // SHA-256 of the secret part
}

// NewSplit makes a token. The prefix says what kind it is: "rt_", "ses_".
func NewSplit(prefix string) Split {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	id, text := store.ID(prefix), base64.RawURLEncoding.EncodeToString(secret[:])
	return Split{Token: id + "." + text, ID: id, Hash: hash(text)}
}

// Parse takes a split token apart. It judges the form only: an id that is one is text
// that every database takes.
func Parse(prefix, token string) (id string, secret Presented, ok bool) {
	id, text, found := strings.Cut(token, ".")
	if !found || !strings.HasPrefix(id, prefix) || len(id) != len(prefix)+26 || len(text) != 43 || strings.ContainsFunc(id[len(prefix):], noneOfAnID) {
		return "", nil, false
	}
	return id, hash(text), true
}

func noneOfAnID(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') }

// Presented is the hash of a secret that somebody presented.
type Presented []byte

// Matches compares with the stored hash in constant time. Nothing stored
// matches nothing.
func (p Presented) Matches(stored []byte) bool {
	return len(stored) == sha256.Size && subtle.ConstantTimeCompare(p, stored) == 1
}

func hash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
