// Package seal encrypts what is kept at rest and hides it from logs.
//
// A sealed value opens only in the place it was sealed for and only if every
// byte is as it was. Each value has a key of its own, which a Keeper wraps, so
// the master key never touches data and can live elsewhere. What is secret in
// memory is a Secret, which prints as [sealed] however it is printed.
package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// ErrSealed is the error of a value that does not open: it was changed, cut,
// sealed for another place, or was never sealed.
var ErrSealed = errors.New("seal: the value does not open: it was changed or belongs elsewhere")

// A Keeper wraps the keys of single values with a key that it alone knows: a
// *Key from a file, or a key management service. It is safe for concurrent use
// and bounds its own time.
type Keeper interface {
	Wrap(ctx context.Context, dek []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped []byte) ([]byte, error)
}

// A Column is where a room keeps values that are sealed for "table/id/column", so
// that they can be sealed again under another key.
type Column struct{ Table, ID, Name string }

// Place is what the value in the row with this id is sealed for.
func (c Column) Place(id string) string { return c.Table + "/" + id + "/" + c.Name }

// A Box seals and opens values with a key of their own each (R1409).
type Box struct{ Keeper Keeper }

const (
	version   = 1
	headerLen = 3 // version, length of the wrapped key in two bytes
	dekLen    = 32
)

// Seal encrypts plain for one place, "table/row/column". Only Open with the same
// place returns it, so a sealed value moved to another row is worth nothing.
func (b Box) Seal(place string, plain []byte) ([]byte, error) {
	return b.seal("row:"+place, plain)
}

// Open is the inverse of Seal. A value that does not open is ErrSealed; any
// other error comes from the keeper.
func (b Box) Open(place string, sealed []byte) ([]byte, error) {
	return b.open("row:"+place, sealed)
}

// Handle seals plain as URL-safe text that can be given to a stranger to bring
// back. kind says what it is for; a handle of one kind is none of another.
func (b Box) Handle(kind string, plain []byte) (string, error) {
	sealed, err := b.seal("handle:"+kind, plain)
	if err != nil {
		return "", err
	}
	return handleText.EncodeToString(sealed), nil
}

// OpenHandle is the inverse of Handle; its errors are those of Open.
func (b Box) OpenHandle(kind, handle string) ([]byte, error) {
	if strings.ContainsAny(handle, "\r\n") { // the decoder would skip them
		return nil, ErrSealed
	}
	sealed, err := handleText.DecodeString(handle)
	if err != nil {
		return nil, ErrSealed
	}
	return b.open("handle:"+kind, sealed)
}

// handleText has one spelling for every value.
var handleText = base64.RawURLEncoding.Strict()

// seal writes version, length of the wrapped key, wrapped key, nonce,
// ciphertext and tag. All before the nonce is authenticated with the place.
func (b Box) seal(place string, plain []byte) ([]byte, error) {
	dek := make([]byte, dekLen)
	_, _ = rand.Read(dek) // never fails
	wrapped, err := b.Keeper.Wrap(context.Background(), dek)
	if err != nil {
		return nil, fmt.Errorf("seal: the key of a value could not be wrapped: %w", err)
	}
	if len(wrapped) > 0xffff {
		return nil, fmt.Errorf("seal: a wrapped key of %d bytes is too long", len(wrapped))
	}
	head := binary.BigEndian.AppendUint16([]byte{version}, uint16(len(wrapped)))
	head = append(head, wrapped...)
	aead := newAEAD(dek)
	out := make([]byte, len(head), len(head)+len(plain)+aead.Overhead())
	copy(out, head)
	return aead.Seal(out, nil, plain, append(head, place...)), nil
}

func (b Box) open(place string, sealed []byte) ([]byte, error) {
	wrapped, end, ok := wrappedKey(sealed)
	if !ok {
		return nil, ErrSealed
	}
	dek, err := b.Keeper.Unwrap(context.Background(), wrapped)
	if err != nil {
		return nil, err
	}
	if len(dek) != dekLen {
		return nil, ErrSealed
	}
	bound := append(append([]byte(nil), sealed[:end]...), place...)
	plain, err := newAEAD(dek).Open(nil, nil, sealed[end:], bound)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// wrappedKey is the part of a sealed value that the keeper made, and where it ends.
func wrappedKey(sealed []byte) (wrapped []byte, end int, ok bool) {
	if len(sealed) < headerLen || sealed[0] != version {
		return nil, 0, false
	}
	end = headerLen + int(binary.BigEndian.Uint16(sealed[1:]))
	if len(sealed) < end {
		return nil, 0, false
	}
	return sealed[headerLen:end], end, true
}

// newAEAD is AES-256-GCM that puts a random nonce before what it seals. The key
// has 32 bytes, so it cannot fail.
func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}
