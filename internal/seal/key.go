package seal

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const keyLen = 32

// ErrOtherKey is the error of a value that was sealed under another master key.
var ErrOtherKey = errors.New("seal: the value was sealed under another master key")

// Key is a master key and the Keeper that uses it. It holds only what is derived
// from the key, and prints as its fingerprint.
type Key struct {
	id   []byte
	wrap cipher.AEAD
}

// LoadKey reads the 32-byte master key in the file at path. A file that the
// group or others may read, or of any other size, is refused. A missing file is
// created with mode 0600 if create is set, and fs.ErrNotExist otherwise; of two
// processes that create it at once both get the same key. Its errors are fit to
// be shown to the operator.
func LoadKey(path string, create bool) (*Key, error) {
	k, err := readKey(path)
	if !create || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := createKey(path); err != nil {
		return nil, fmt.Errorf("the master key %s could not be created: %w", path, err)
	}
	return readKey(path)
}

func readKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the master key could not be read: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("the master key could not be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the master key %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the master key %s has mode %04o: others could use it; chmod 600 it", path, mode)
	}
	master, err := io.ReadAll(io.LimitReader(f, keyLen+1))
	if err != nil {
		return nil, fmt.Errorf("the master key could not be read: %w", err)
	}
	if len(master) != keyLen {
		return nil, fmt.Errorf("the master key %s does not have exactly %d bytes", path, keyLen)
	}
	return newKey(master)
}

// createKey makes the file appear complete or not at all; a file that is
// already there stays.
func createKey(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // the key is the second name of the file
	master := make([]byte, keyLen)
	_, _ = rand.Read(master) // never fails
	_, err = tmp.Write(master)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a new name in a folder survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newKey(master []byte) (*Key, error) {
	wrap, err := hkdf.Key(sha256.New, master, nil, "gatehouse seal wrap", keyLen)
	if err != nil {
		return nil, err
	}
	id, err := hkdf.Key(sha256.New, master, nil, "gatehouse seal id", 8)
	if err != nil {
		return nil, err
	}
	return &Key{id: id, wrap: newAEAD(wrap)}, nil
}

// Fingerprint tells master keys apart and reveals nothing of them: 16
// hexadecimal digits.
func (k *Key) Fingerprint() string { return hex.EncodeToString(k.id) }

// String keeps the key out of logs.
func (k *Key) String() string { return "master key " + k.Fingerprint() }

// GoString keeps the key out of logs.
func (k *Key) GoString() string { return k.String() }

// Wrap encrypts the key of one value.
func (k *Key) Wrap(_ context.Context, dek []byte) ([]byte, error) {
	return k.wrap.Seal(bytes.Clone(k.id), nil, dek, nil), nil
}

// Unwrap is the inverse of Wrap. What another master key wrapped is
// ErrOtherKey; what none wrapped is ErrSealed.
func (k *Key) Unwrap(_ context.Context, wrapped []byte) ([]byte, error) {
	rest, own := bytes.CutPrefix(wrapped, k.id)
	if !own {
		return nil, ErrOtherKey
	}
	dek, err := k.wrap.Open(nil, nil, rest, nil)
	if err != nil {
		return nil, ErrSealed
	}
	return dek, nil
}
