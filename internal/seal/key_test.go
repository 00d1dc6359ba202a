package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestKeyIsCreatedOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := LoadKey(path, false); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a missing key without create: %v, want fs.ErrNotExist", err)
	}
	first, err := LoadKey(path, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, create := range []bool{false, true} {
		again, err := LoadKey(path, create)
		if err != nil || again.Fingerprint() != first.Fingerprint() {
			t.Errorf("LoadKey again, create %v: %v, %v", create, again, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != keyLen {
		t.Errorf("the file: %v, %v", info, err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("creating left %v, %v", names, err)
	}
}

func TestRacingCreatorsGetOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	prints := make([]string, 16)
	var wg sync.WaitGroup
	for i := range prints {
		wg.Go(func() {
			k, err := LoadKey(path, true)
			if err != nil {
				t.Error(err)
				return
			}
			prints[i] = k.Fingerprint()
		})
	}
	wg.Wait()
	for _, p := range prints {
		if p != prints[0] {
			t.Fatalf("two creators have two keys: %v", prints)
		}
	}
}

func TestKeyFileThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := LoadKey(path, true); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true,
		0o640: false, 0o604: false, 0o620: false, 0o644: false, 0o601: false,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path, true); (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestKeyFileOfWrongSizeIsRefusedAndLeftAlone(t *testing.T) {
	for _, size := range []int{0, 31, 33, 63, (maxKeys + 1) * keyLen} {
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path, true); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if b, err := os.ReadFile(path); err != nil || len(b) != size {
			t.Errorf("the refused file of %d bytes was changed", size)
		}
	}
	if _, err := LoadKey(t.TempDir(), true); err == nil {
		t.Error("a folder is a key")
	}
	if _, err := LoadKey(filepath.Join(t.TempDir(), "none", "master.key"), true); err == nil {
		t.Error("a key in a missing folder was created")
	}
}

func TestFingerprintTellsKeysApartAndShowsNothing(t *testing.T) {
	master := bytes.Repeat([]byte{0xab}, keyLen)
	a, err := newKey("", master)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newKey("", bytes.Repeat([]byte{0xac}, keyLen))
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint() == b.Fingerprint() || len(a.Fingerprint()) != 16 {
		t.Errorf("fingerprints %s and %s", a.Fingerprint(), b.Fingerprint())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{a, Box{a}, &Box{a}, struct{ box Box }{Box{a}}} {
			if s := fmt.Sprintf(verb, v); len(s) > 120 || strings.Contains(s, "171") {
				t.Errorf("%s shows the key: %s", verb, s)
			}
		}
	}
}

// R1409: the master key changes while values are sealed and opened: every key of the
// file opens, the one that is used seals, and what is dropped opens nothing.
func TestMasterKeyIsChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	one, err := LoadKey(path, true)
	if err != nil {
		t.Fatal(err)
	}
	other, err := LoadKey(path, false) // another node
	if err != nil {
		t.Fatal(err)
	}
	old := one.Fingerprint()
	sealed := func(k *Key) []byte {
		t.Helper()
		s, err := Box{k}.Seal("t/1/c", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	opens := func(k *Key, sealed []byte) bool {
		plain, err := Box{k}.Open("t/1/c", sealed)
		if err != nil && !errors.Is(err, ErrOtherKey) {
			t.Errorf("%v", err)
		}
		return string(plain) == "x"
	}
	follow := func(want bool) {
		t.Helper()
		if changed, err := other.Refresh(); err != nil || changed != want {
			t.Fatalf("changed %v, %v", changed, err)
		}
	}
	first := sealed(one)
	follow(false)
	next, err := one.Add()
	if err != nil || next == old || one.Fingerprint() != old || len(one.Fingerprints()) != 2 {
		t.Fatalf("%s after %s: %v, %v", next, old, one.Fingerprints(), err)
	}
	follow(true)
	if err := one.Use("0123456789abcdef"); !errors.Is(err, ErrNoSuchKey) {
		t.Errorf("%v", err)
	}
	for range 2 { // again changes nothing
		if err := one.Use(next); err != nil || one.Fingerprint() != next || one.Fingerprints()[1] != old {
			t.Fatalf("%v %v", one.Fingerprints(), err)
		}
	}
	second := sealed(one)
	if one.Under(first) != old || one.Under(second) != next || one.Under([]byte("x")) != "" {
		t.Errorf("%s %s", one.Under(first), one.Under(second))
	}
	for _, k := range []*Key{one, other} { // the other node seals under the old one still
		if !opens(k, first) || !opens(k, second) || !opens(k, sealed(other)) {
			t.Error("something does not open")
		}
	}
	follow(true)
	if other.Fingerprint() != next {
		t.Error("the other node does not follow")
	}
	if err := one.Drop(); err != nil {
		t.Fatal(err)
	}
	if opens(one, first) || !opens(one, second) || !opens(other, first) {
		t.Error("what was dropped opens, or what was not does not")
	}
	follow(true)
	if opens(other, first) {
		t.Error("the other node keeps what was dropped")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != keyLen {
		t.Errorf("%v %v", info, err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("it left %v, %v", names, err)
	}
	for range maxKeys - 1 {
		if _, err := one.Add(); err != nil {
			t.Error(err)
		}
	}
	if _, err := one.Add(); err == nil {
		t.Error("the file grows without end")
	}
}

// A file that is gone, unreadable, or that of another database changes nothing.
func TestFileThatIsNotOursIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	k, err := LoadKey(path, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"another's": func() error { return os.WriteFile(path, bytes.Repeat([]byte{1}, keyLen), 0o600) },
		"cut":       func() error { return os.Truncate(path, 5) },
		"readable":  func() error { return os.Chmod(path, 0o644) },
		"gone":      func() error { return os.RemoveAll(path) },
	} {
		before, _ := os.ReadFile(path)
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if changed, err := k.Refresh(); err == nil || changed || len(k.Fingerprints()) != 1 {
			t.Errorf("%s: %v %v", name, changed, err)
		}
		if _, err := k.Add(); err == nil {
			t.Errorf("%s: a key was added", name)
		}
		_ = os.Remove(path)
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Refresh(); err != nil {
		t.Error(err)
	}
}
