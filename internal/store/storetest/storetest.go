// Package storetest runs a test on every engine of package store.
package storetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Each runs f on SQLite, and on PostgreSQL when GATEHOUSE_TEST_POSTGRES is the
// address of a server on which databases may be created. In CI a missing
// address is a failure.
func Each(t *testing.T, f func(t *testing.T, db *store.DB)) {
	EachAddress(t, func(t *testing.T, address string) { f(t, Open(t, address)) })
}

// EachAddress is Each for tests that open the database themselves, several times.
func EachAddress(t *testing.T, f func(t *testing.T, address string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, Postgres(t)) })
}

// Open opens a database that is closed with the test.
func Open(t testing.TB, address string) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// SQLite is the address of a new SQLite file.
func SQLite(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "test.db") }

// Postgres is the address of a new PostgreSQL database, dropped with the test.
func Postgres(t testing.TB) string {
	t.Helper()
	server := os.Getenv("GATEHOUSE_TEST_POSTGRES")
	if server == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("GATEHOUSE_TEST_POSTGRES is not set; in CI both engines are tested")
		}
		t.Skip("GATEHOUSE_TEST_POSTGRES is not set")
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal("GATEHOUSE_TEST_POSTGRES is not an address")
	}
	name := "gatehouse_test_" + rand.Text()
	statement(t, server, `CREATE DATABASE "`+name+`"`)
	t.Cleanup(func() { statement(t, server, `DROP DATABASE "`+name+`" WITH (FORCE)`) })
	u.Path = "/" + name
	return u.String()
}

func statement(t testing.TB, address, text string) {
	t.Helper()
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
}
