// Package jwks judges what others signed: it reads the keys that they publish and
// verifies their JWTs with them.
//
// A key verifies by the algorithms of its type and no other, so that no header can
// choose. What a JWT says of keys is not listened to. Nothing is parsed that is
// longer than it may be, and nothing of a JWT is told before its signature was
// found good, except what is needed to find the keys.
package jwks

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Algorithms are those that are accepted of others. Every one is asymmetric.
var Algorithms = []string{string(jose.ES256), string(jose.EdDSA), string(jose.PS256), string(jose.RS256)}

// Bounds of a key set.
const (
	MaxBytes = 64 << 10 // of its document
	maxKeys  = 50
	minRSA   = 2048 // bits
	maxRSA   = 8192 // bits; verifying takes longer with each
)

// Set are public keys of somebody else. The zero value verifies nothing.
type Set struct{ keys []jose.JSONWebKey }

// Parse reads a JWK Set (RFC 7517 §5). Keys that are not for signing, or of a type
// that is not accepted here, are left out; an error says that there is no set.
func Parse(document []byte) (Set, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if len(document) > MaxBytes || json.Unmarshal(document, &set) != nil || len(set.Keys) > maxKeys {
		return Set{}, errors.New("this is no JWK Set, or a very long one")
	}
	var s Set
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && (key.Use == "" || key.Use == "sig") && algorithms(key) != nil {
			s.keys = append(s.keys, key)
		}
	}
	return s, nil
}

// Document is the set as a JWK Set again, without what was left out.
func (s Set) Document() ([]byte, error) { return json.Marshal(jose.JSONWebKeySet{Keys: s.keys}) }

// Empty reports whether there is no key in it that could verify anything.
func (s Set) Empty() bool { return len(s.keys) == 0 }

// has reports whether a key has this id.
func (s Set) has(kid string) bool {
	return slices.ContainsFunc(s.keys, func(k jose.JSONWebKey) bool { return k.KeyID == kid })
}

// algorithms are those by which a key verifies: what its type allows, and of that
// what it says itself. A private or a symmetric key verifies nothing.
func algorithms(key jose.JSONWebKey) (algs []jose.SignatureAlgorithm) {
	switch k := key.Key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			algs = []jose.SignatureAlgorithm{jose.ES256}
		}
	case ed25519.PublicKey:
		algs = []jose.SignatureAlgorithm{jose.EdDSA}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits >= minRSA && bits <= maxRSA {
			algs = []jose.SignatureAlgorithm{jose.RS256, jose.PS256}
		}
	}
	if key.Algorithm == "" || algs == nil {
		return algs
	}
	if alg := jose.SignatureAlgorithm(key.Algorithm); slices.Contains(algs, alg) {
		return []jose.SignatureAlgorithm{alg}
	}
	return nil
}
