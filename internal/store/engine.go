package store

import (
	"context"
	"net/url"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var badAddress = problem.Code{
	Name: "DATABASE_ADDRESS", Kind: problem.Invalid,
	Why: "only sqlite:PATH and postgres://USER@HOST/NAME are databases Gatehouse can use",
	Fix: "correct --database, for example sqlite:/var/lib/gatehouse/gatehouse.db",
}

// Open opens "sqlite:PATH" or "postgres://…". The SQLite file is created if it
// does not exist; its folder is not.
func Open(ctx context.Context, address string) (*DB, error) {
	if path, ok := strings.CutPrefix(address, "sqlite:"); ok && path != "" {
		lite, err := openSQLite(ctx, path)
		if err != nil {
			return nil, unavailable("be opened", err)
		}
		db := &DB{engine: lite}
		go lite.write(db) // ends with Close
		return db, nil
	}
	if strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://") {
		pg, err := openPostgres(ctx, address)
		if err != nil {
			return nil, err
		}
		return &DB{engine: pg}, nil
	}
	return nil, badAddress.New("%q is not the address of a database", host(address))
}

// host is an address without the credentials that may be in it, anywhere if it is no
// URL.
func host(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host + u.Path
	}
	return "…"
}
