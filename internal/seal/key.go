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
	"slices"
	"sync"
	"sync/atomic"
)

const (
	keyLen  = 32
	idLen   = 8
	maxKeys = 8 // of one file
)

// ErrOtherKey is the error of a value that was sealed under another master key.
var ErrOtherKey = errors.New("seal: the value was sealed under another master key")

// Key is the master key and the Keeper that uses it. Its file holds one key, or
// several one after the other while it is changed (R1409): the first seals, all
// open. It keeps only what is derived from them, and prints as its fingerprint.
type Key struct {
	path   string
	change sync.Mutex // of the file
	keys   atomic.Pointer[[]single]
}

// single is one key of the file.
type single struct {
	id   []byte
	wrap cipher.AEAD
}

// LoadKey reads the master key in the file at path: 32 bytes, or some times 32. A
// file that the group or others may read, or of any other size, is refused. A missing
// file is created with mode 0600 and one key if create is set, and fs.ErrNotExist
// otherwise; of two processes that create it at once both get the same key. Its
// errors are fit to be shown to the operator.
func LoadKey(path string, create bool) (*Key, error) {
	masters, err := readKeys(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err := createKey(path); err != nil {
			return nil, fmt.Errorf("the master key %s could not be created: %w", path, err)
		}
		masters, err = readKeys(path)
	}
	if err != nil {
		return nil, err
	}
	return newKey(path, masters)
}

func readKeys(path string) ([]byte, error) {
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
	masters, err := io.ReadAll(io.LimitReader(f, maxKeys*keyLen+1))
	if err != nil {
		return nil, fmt.Errorf("the master key could not be read: %w", err)
	}
	if n := len(masters); n == 0 || n%keyLen != 0 || n > maxKeys*keyLen {
		return nil, fmt.Errorf("the master key %s does not have exactly %d bytes, or a few times as many", path, keyLen)
	}
	return masters, nil
}

// createKey makes the file appear complete or not at all; a file that is
// already there stays.
func createKey(path string) error {
	tmp, err := writeBeside(path, fresh())
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }() // the key is the second name of the file
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func fresh() []byte {
	master := make([]byte, keyLen)
	_, _ = rand.Read(master) // never fails
	return master
}

// writeBeside writes a new file in the folder of path and says what it is called.
func writeBeside(path string, content []byte) (string, error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-key-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return "", errors.Join(err, os.Remove(tmp.Name()))
	}
	return tmp.Name(), nil
}

// syncDir makes a new name in a folder survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newKey(path string, masters []byte) (*Key, error) {
	keys, err := derive(masters)
	k := &Key{path: path}
	k.keys.Store(&keys)
	return k, err
}

func derive(masters []byte) (keys []single, err error) {
	for master := range slices.Chunk(masters, keyLen) {
		wrap, err := hkdf.Key(sha256.New, master, nil, "gatehouse seal wrap", keyLen)
		if err != nil {
			return nil, err
		}
		id, err := hkdf.Key(sha256.New, master, nil, "gatehouse seal id", idLen)
		if err != nil {
			return nil, err
		}
		keys = append(keys, single{id, newAEAD(wrap)})
	}
	return keys, nil
}

// Refresh reads the file again, and reports whether it holds other keys than
// before, or in another order. A file that has no key in common with what is in use
// belongs to another database and is refused; what is in use stays.
func (k *Key) Refresh() (changed bool, err error) {
	k.change.Lock()
	defer k.change.Unlock()
	masters, err := readKeys(k.path)
	if err != nil {
		return false, err
	}
	return k.take(masters)
}

func (k *Key) take(masters []byte) (changed bool, err error) {
	next, err := derive(masters)
	if err != nil {
		return false, err
	}
	known := k.Fingerprints()
	fingerprints := fingerprintsOf(next)
	if slices.Equal(known, fingerprints) {
		return false, nil
	}
	if !slices.ContainsFunc(fingerprints, func(f string) bool { return slices.Contains(known, f) }) {
		return false, fmt.Errorf("the master key %s has become another one, that of another database", k.path)
	}
	k.keys.Store(&next)
	return true, nil
}

// Add puts a new key behind those of the file. It opens what others seal with it,
// and seals nothing until Use.
func (k *Key) Add() (fingerprint string, err error) {
	err = k.rewrite(func(masters []byte) ([]byte, error) {
		if len(masters) == maxKeys*keyLen {
			return nil, fmt.Errorf("the master key %s has %d keys already", k.path, maxKeys)
		}
		return append(masters, fresh()...), nil
	})
	all := k.Fingerprints()
	return all[len(all)-1], err
}

// ErrNoSuchKey is the error of a fingerprint that no key of the file has.
var ErrNoSuchKey = errors.New("the file holds no key with this fingerprint")

// Use puts the key with this fingerprint first, so that it seals from now on.
func (k *Key) Use(fingerprint string) error {
	return k.rewrite(func(masters []byte) ([]byte, error) {
		keys, err := derive(masters)
		if err != nil {
			return nil, err
		}
		i := slices.Index(fingerprintsOf(keys), fingerprint)
		if i < 0 {
			return nil, ErrNoSuchKey
		}
		used := masters[i*keyLen : (i+1)*keyLen]
		return slices.Concat(used, masters[:i*keyLen], masters[(i+1)*keyLen:]), nil
	})
}

// Drop takes every key out of the file but the one that seals. What was sealed
// under them does not open any more.
func (k *Key) Drop() error {
	return k.rewrite(func(masters []byte) ([]byte, error) { return masters[:keyLen], nil })
}

// rewrite changes the file and takes what it holds then. A crash leaves it as it
// was or as it is to be.
func (k *Key) rewrite(change func(masters []byte) ([]byte, error)) error {
	k.change.Lock()
	defer k.change.Unlock()
	masters, err := readKeys(k.path)
	if err != nil {
		return err
	}
	if _, err := k.take(masters); err != nil { // before it is written to
		return err
	}
	next, err := change(bytes.Clone(masters))
	if err != nil {
		return err
	}
	if !bytes.Equal(next, masters) {
		if err := replace(k.path, next); err != nil {
			return fmt.Errorf("the master key %s could not be written: %w", k.path, err)
		}
	}
	_, err = k.take(next)
	return err
}

func replace(path string, content []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	tmp, err := writeBeside(path, content)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

// Fingerprint tells master keys apart and reveals nothing of them: 16
// hexadecimal digits. It is that of the key that seals.
func (k *Key) Fingerprint() string { return k.Fingerprints()[0] }

// Fingerprints are those of all keys, in the order of the file.
func (k *Key) Fingerprints() []string { return fingerprintsOf(*k.keys.Load()) }

func fingerprintsOf(keys []single) (all []string) {
	for _, s := range keys {
		all = append(all, hex.EncodeToString(s.id))
	}
	return all
}

// Under is the fingerprint of the key under which a value says it was sealed, or
// "" if it says none.
func (k *Key) Under(sealed []byte) string {
	wrapped, _, ok := wrappedKey(sealed)
	if !ok || len(wrapped) < idLen {
		return ""
	}
	return hex.EncodeToString(wrapped[:idLen])
}

// String keeps the key out of logs.
func (k *Key) String() string { return "master key " + k.Fingerprint() }

// GoString keeps the key out of logs.
func (k *Key) GoString() string { return k.String() }

// Wrap encrypts the key of one value.
func (k *Key) Wrap(_ context.Context, dek []byte) ([]byte, error) {
	first := (*k.keys.Load())[0]
	return first.wrap.Seal(bytes.Clone(first.id), nil, dek, nil), nil
}

// Unwrap is the inverse of Wrap. What another master key wrapped is
// ErrOtherKey; what none wrapped is ErrSealed.
func (k *Key) Unwrap(_ context.Context, wrapped []byte) ([]byte, error) {
	for _, s := range *k.keys.Load() {
		rest, own := bytes.CutPrefix(wrapped, s.id)
		if !own {
			continue
		}
		dek, err := s.wrap.Open(nil, nil, rest, nil)
		if err != nil {
			return nil, ErrSealed
		}
		return dek, nil
	}
	return nil, ErrOtherKey
}
