// Package store runs SQL on SQLite or PostgreSQL, in transactions that know the
// time.
//
// There is one SQL text for both engines ($1 placeholders; TEXT, BIGINT,
// BOOLEAN and BYTEA; ON CONFLICT, RETURNING, WITH). Rooms own their tables and
// write their own SQL; store knows none of them. A function given to Do either
// happens as a whole, together with everything it buffered for the pre-commit
// hook, or not at all.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Codes are the problems of this package.
var Codes = []problem.Code{Unavailable, migrationChanged, migrationNewer, badAddress}

// Unavailable is the code of a database that cannot be reached or written.
var Unavailable = problem.Code{
	Name: "STORE_UNAVAILABLE", Kind: problem.Unavailable,
	Why: "the database does not answer or cannot be written",
	Fix: "check that the database runs, its disk has room and its files are writable; then try again",
}

// DB is a database of either engine. It is safe for concurrent use.
type DB struct {
	// BeforeCommit is called last in every transaction in which something was
	// buffered with Tx.Buffer, with all of it in order. If it fails, nothing of
	// the transaction happened. Set it before the first Do.
	BeforeCommit func(tx *Tx, buffered []any) error

	engine   engine
	whole    *DB           // of which this is a view; nil for the database itself
	patience time.Duration // of each transaction; 0 is as long as its context
}

// Within is the same database for callers whom somebody waits for: a transaction that
// did not end after d is rolled back, and the error is Unavailable. On SQLite one that
// has begun to write goes on to its end.
func (db *DB) Within(d time.Duration) *DB {
	return &DB{engine: db.engine, whole: db.root(), patience: d}
}

func (db *DB) root() *DB {
	if db.whole != nil {
		return db.whole
	}
	return db
}

// errSilent is the cause of a context that ended because the database took too long.
var errSilent = errors.New("store: the database did not answer in time")

// bounded is the context of a transaction, with its end.
func (db *DB) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if db.patience == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, db.patience, errSilent)
}

// silent is err in the words of a caller who waited long enough.
func silent(ctx context.Context, err error) error {
	if err != nil && context.Cause(ctx) == errSilent {
		return unavailable("answer in time", err)
	}
	return err
}

// An engine is where SQLite and PostgreSQL differ.
type engine interface {
	do(ctx context.Context, db *DB, fn func(*Tx) error) error
	view(ctx context.Context, fn func(*Tx) error) error
	close() error
}

// querier is what a transaction of either engine offers.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) Row
	later(ctx context.Context, c check, query string, args ...any) error
}

// Rows are the answer to a query, as of database/sql.
type Rows interface {
	Columns() ([]string, error)
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Row is one of them, or none: then Scan returns sql.ErrNoRows.
type Row interface {
	Scan(dest ...any) error
}

// Tx is a transaction. It is valid until the function it was given to returns,
// and for one goroutine.
type Tx struct {
	context.Context
	Now int64 // microseconds since 1970, UTC; the same during the whole transaction

	q        querier
	buffered []any
	after    []func()
}

func newTx(ctx context.Context, q querier) *Tx {
	return &Tx{Context: ctx, Now: time.Now().UnixMicro(), q: q}
}

// inTx is what a transaction, and every context made from it, answers to.
type inTx struct{}

// Value is that of the context, except that it tells that it is a transaction.
func (tx *Tx) Value(key any) any {
	if key == (inTx{}) {
		return true
	}
	return tx.Context.Value(key)
}

// Exec runs a statement that returns no rows.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	return tx.q.ExecContext(tx, query, args...)
}

// Query runs a statement that returns rows. They must be closed before the next
// statement.
func (tx *Tx) Query(query string, args ...any) (Rows, error) {
	return tx.q.QueryContext(tx, query, args...)
}

// QueryRow runs a statement that returns at most one row; without one, Scan
// returns sql.ErrNoRows.
func (tx *Tx) QueryRow(query string, args ...any) Row {
	return tx.q.QueryRowContext(tx, query, args...)
}

// Later runs a statement that returns no rows, with the next one at the latest or
// before the commit, which saves the way to the database. If it fails, so does the
// transaction: the error, in the words of words unless that is nil, comes from
// whatever the statement travelled with. Statements run in the order they were given.
func (tx *Tx) Later(words func(error) error, query string, args ...any) error {
	return tx.q.later(tx, check{words: words}, query, args...)
}

// OneLater is Later for a statement that must change exactly one row. Otherwise the
// transaction fails with otherwise.
func (tx *Tx) OneLater(otherwise error, query string, args ...any) error {
	return tx.q.later(tx, check{one: otherwise}, query, args...)
}

// A check judges a statement that was put off.
type check struct {
	one   error             // unless it changed exactly one row
	words func(error) error // of its failure
}

func (c check) judge(changed int64, err error) error {
	switch {
	case err != nil && c.words != nil:
		return c.words(err)
	case err == nil && c.one != nil && changed != 1:
		return c.one
	}
	return err
}

// Buffer keeps v for the pre-commit hook. It is forgotten if the transaction
// rolls back.
func (tx *Tx) Buffer(v any) { tx.buffered = append(tx.buffered, v) }

// AfterCommit keeps fn to be called once the transaction is durable and before
// Do returns. It is forgotten if the transaction rolls back.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

func (tx *Tx) committed() {
	for _, fn := range tx.after {
		fn()
	}
}

// One runs a statement that changes exactly one row if it changes anything and
// reports whether it did. It is the form of every single use: the row is found
// and spent by the same statement.
func (tx *Tx) One(query string, args ...any) (bool, error) {
	res, err := tx.Exec(query, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// errNested guards against a deadlock: the one writer would wait for itself.
var errNested = errors.New("store: a transaction was opened inside a transaction")

// Do runs fn in a transaction that may write and returns fn's error. An error
// rolls everything back, except one marked with Keep. fn may be run more than
// once, so it changes nothing but the database, and it must not wait for
// anything but the database: others may share its transaction's commit.
func (db *DB) Do(ctx context.Context, fn func(*Tx) error) error {
	if ctx.Value(inTx{}) != nil {
		return errNested
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, end := db.bounded(ctx)
	defer end()
	err := db.engine.do(ctx, db.root(), fn)
	if k, ok := errors.AsType[kept](err); ok {
		return k.error
	}
	return silent(ctx, err)
}

// View runs fn in a transaction that only reads and sees one state of the
// database.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	if ctx.Value(inTx{}) != nil {
		return errNested
	}
	ctx, end := db.bounded(ctx)
	defer end()
	return silent(ctx, db.engine.view(ctx, fn))
}

// Close waits for transactions that have begun and closes the database.
func (db *DB) Close() error { return db.engine.close() }

// finish runs the pre-commit hook over what was buffered. A hook that panics has
// failed: the transactions of others hang on it.
func (db *DB) finish(tx *Tx, buffered []any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: the pre-commit hook panicked: %v", p)
		}
	}()
	if len(buffered) == 0 {
		return nil
	}
	if db.BeforeCommit == nil {
		return errors.New("store: something was buffered, but no pre-commit hook is set")
	}
	return db.BeforeCommit(tx, buffered)
}

type kept struct{ error }

func (k kept) Unwrap() error { return k.error }

// Keep marks an error with which the transaction is nevertheless committed: a
// wrong code must be counted, and a replay must revoke, although the call fails.
func Keep(err error) error {
	if err == nil {
		return nil
	}
	return kept{err}
}

func isKept(err error) bool {
	_, ok := errors.AsType[kept](err)
	return ok
}

// again retries run while it fails because another transaction got in its way.
func again(ctx context.Context, inTheWay func(error) bool, run func() error) error {
	for try := 1; ; try++ {
		err := run()
		if err == nil || !inTheWay(err) || try == 10 {
			return err
		}
		pause := time.Duration(try) * time.Duration(1+rand.IntN(10)) * time.Millisecond
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func unavailable(what string, err error) error {
	return Unavailable.New("the database could not %s", what).Because(fmt.Errorf("%s: %w", what, err))
}
