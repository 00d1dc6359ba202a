package app

import (
	"os"
	"path/filepath"
	"testing"
)

// A certificate is looked at again and again, but read, and complained about, once
// for each state of its files.
func TestCertificateIsReadWhenItsFilesChange(t *testing.T) {
	dir := t.TempDir()
	c := certificate{certFile: filepath.Join(dir, "crt"), keyFile: filepath.Join(dir, "key")}
	for i, want := range []bool{true, false} {
		if _, err := c.refresh(); (err != nil) != want {
			t.Errorf("look %d: %v", i, err)
		}
	}
	if err := os.WriteFile(c.certFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if _, err := c.refresh(); (err != nil) != want {
			t.Errorf("look %d after a change: %v", i, err)
		}
	}
}
