package app

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

// Failed handshakes of strangers do not fill the log; what is our fault is there.
func TestHandshakesOfStrangersAreNoWarnings(t *testing.T) {
	for level, want := range map[slog.Level]int{slog.LevelInfo: 1, slog.LevelDebug: 2} {
		var out bytes.Buffer
		log := slog.NewLogLogger(calm{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})}, slog.LevelWarn)
		log.Print("http: TLS handshake error from 203.0.113.7:1: EOF")
		log.Print("http: Accept error: too many open files")
		if n := strings.Count(out.String(), "\n"); n != want || strings.Count(out.String(), "level=WARN") != 1 {
			t.Errorf("at %s:\n%s", level, &out)
		}
	}
}
