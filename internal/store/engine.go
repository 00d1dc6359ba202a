package store

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

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
		config, err := pgx.ParseConfig(address)
		if err != nil {
			return nil, badAddress.New("the database address cannot be read").Because(err)
		}
		pg := postgres{pool(config, 24), pool(config, 8)}
		if err := pg.sql.PingContext(ctx); err != nil {
			return nil, errors.Join(Unavailable.New("the database at %s does not answer", host(address)).Because(err), pg.close())
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

// postgres uses pools of database/sql; each Do is one transaction at READ
// COMMITTED. Those that read have connections of their own: a queue of writers
// must not keep a node from hearing of revocations.
type postgres struct{ sql, readers *sql.DB }

func pool(config *pgx.ConnConfig, conns int) *sql.DB {
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

func (pg postgres) do(ctx context.Context, db *DB, fn func(*Tx) error) error {
	return again(ctx, inTheWayOnPostgres, func() error { return pg.once(ctx, db, fn) })
}

func (pg postgres) once(ctx context.Context, db *DB, fn func(*Tx) error) error {
	stx, err := pg.sql.BeginTx(ctx, nil)
	if err != nil {
		return cancelledOr(ctx, "begin a transaction", err)
	}
	defer func() { _ = stx.Rollback() }() // after a commit this does nothing
	tx := newTx(ctx, stx)
	fnErr := fn(tx)
	if fnErr != nil && !isKept(fnErr) {
		return fnErr
	}
	if err := db.finish(tx, tx.buffered); err != nil {
		return err
	}
	if err := stx.Commit(); err != nil {
		return cancelledOr(ctx, "commit", err)
	}
	tx.committed()
	return fnErr
}

func (pg postgres) view(ctx context.Context, fn func(*Tx) error) error {
	stx, err := pg.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return cancelledOr(ctx, "begin a transaction", err)
	}
	defer func() { _ = stx.Rollback() }()
	return fn(newTx(ctx, stx))
}

func (pg postgres) close() error { return errors.Join(pg.sql.Close(), pg.readers.Close()) }

// inTheWayOnPostgres recognises a serialization failure, a deadlock, and the
// collision inside the catalogue when two nodes run CREATE TABLE IF NOT EXISTS
// on an empty database at once.
func inTheWayOnPostgres(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pg.Code {
	case "40001", "40P01", "42P07", "42710":
		return true
	case "23505":
		return strings.HasPrefix(pg.ConstraintName, "pg_")
	}
	return false
}

func cancelledOr(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return unavailable(what, err)
}
