package oauth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
)

// challengeLen is the length of a SHA-256 in base64url.
const challengeLen = 43

// NewVerifier makes a PKCE code verifier with 256 random bits (RFC 7636 §4.1).
func NewVerifier() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// Challenge is the S256 challenge of a verifier (RFC 7636 §4.2).
func Challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// VerifyPKCE reports whether the verifier is well formed (43 to 128 characters
// of RFC 7636 §4.1) and belongs to the S256 challenge. The comparison takes the
// same time wherever they differ.
func VerifyPKCE(challenge, verifier string) bool {
	if len(verifier) < 43 || len(verifier) > 128 || !only(verifier, isUnreserved) {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(Challenge(verifier)), []byte(challenge)) == 1
}

func isUnreserved(c byte) bool { return isBase64URL(c) || c == '.' || c == '~' }
