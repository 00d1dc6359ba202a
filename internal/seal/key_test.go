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
	for _, size := range []int{0, 31, 33, 64} {
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
	a, err := newKey(master)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newKey(bytes.Repeat([]byte{0xac}, keyLen))
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
