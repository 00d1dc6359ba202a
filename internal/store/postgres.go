package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// How many connections a node has at most. Those that read have their own: a
// queue of writers must not keep a node from hearing of revocations.
const (
	pgWriters = 24
	pgReaders = 8
)

// postgres runs each Do as one transaction at READ COMMITTED. What a message to
// the server costs is mostly the turn of two processes, so a transaction sends as
// few as it can.
type postgres struct {
	writers, readers *pgxpool.Pool

	// head is taken by who runs the hook: the head of a chain is one row, and here
	// one waits for it in order and at no cost to the server.
	head chan struct{}
}

func openPostgres(ctx context.Context, address string) (*postgres, error) {
	writers, err := pgPool(ctx, address, pgWriters)
	if err != nil {
		return nil, err
	}
	readers, err := pgPool(ctx, address, pgReaders)
	if err != nil {
		writers.Close()
		return nil, err
	}
	pg := &postgres{writers: writers, readers: readers, head: make(chan struct{}, 1)}
	if err := writers.Ping(ctx); err != nil {
		_ = pg.close()
		return nil, Unavailable.New("the database at %s does not answer", host(address)).Because(err)
	}
	return pg, nil
}

// pgPool is a pool that connects when it is used first.
func pgPool(ctx context.Context, address string, conns int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, badAddress.New("the database address cannot be read").Because(err)
	}
	config.MaxConns, config.MinConns = conns, 0
	return pgxpool.NewWithConfig(ctx, config)
}

func (pg *postgres) close() error {
	pg.writers.Close()
	pg.readers.Close()
	return nil
}

func (pg *postgres) do(ctx context.Context, db *DB, fn func(*Tx) error) error {
	return again(ctx, inTheWayOnPostgres, func() error { return pg.once(ctx, db, fn) })
}

// once runs fn in one transaction. A connection that is left in the middle of
// something is thrown away.
func (pg *postgres) once(ctx context.Context, db *DB, fn func(*Tx) error) error {
	conn, err := pg.writers.Acquire(ctx)
	if err != nil {
		return cancelledOr(ctx, "begin a transaction", err)
	}
	defer conn.Release()
	q := begin(conn, "BEGIN")
	tx := newTx(ctx, q)
	fnErr := fn(tx)
	if fnErr != nil && !isKept(fnErr) {
		q.rollback(ctx)
		return fnErr
	}
	if err := pg.commit(ctx, db, tx, q); err != nil {
		q.rollback(ctx)
		return err
	}
	tx.committed()
	return fnErr
}

// commit runs the hook and ends a transaction.
func (pg *postgres) commit(ctx context.Context, db *DB, tx *Tx, q *pgTx) error {
	if len(tx.buffered) > 0 {
		select {
		case pg.head <- struct{}{}:
			defer func() { <-pg.head }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := db.finish(tx, tx.buffered); err != nil {
		return err
	}
	return q.commit(ctx)
}

func (pg *postgres) view(ctx context.Context, fn func(*Tx) error) error {
	return again(ctx, neverBegan, func() error {
		conn, err := pg.readers.Acquire(ctx)
		if err != nil {
			return cancelledOr(ctx, "begin a transaction", err)
		}
		defer conn.Release()
		q := begin(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		defer q.rollback(ctx)
		return fn(newTx(ctx, q))
	})
}

// A pgTx is a transaction on one connection. Statements that were put off, of
// which BEGIN is the first, travel with the next one that has an answer to wait
// for.
type pgTx struct {
	conn   *pgxpool.Conn
	queue  *pgx.Batch
	checks []check // of the statements in the queue
	begun  bool    // BEGIN was answered
	failed error   // what ended the transaction before its end
}

func begin(conn *pgxpool.Conn, how string) *pgTx {
	t := &pgTx{conn: conn, queue: &pgx.Batch{}}
	t.put(check{}, how)
	return t
}

func (t *pgTx) put(c check, query string, args ...any) {
	t.queue.Queue(query, args...)
	t.checks = append(t.checks, c)
}

func (t *pgTx) later(_ context.Context, c check, query string, args ...any) error {
	if t.failed == nil {
		t.put(c, query, args...)
	}
	return t.failed
}

// fail keeps the first failure. A connection that was lost before the server
// answered BEGIN has changed nothing.
func (t *pgTx) fail(err error) error {
	if !t.begun && t.lost(err) {
		err = errLost{err}
	}
	if t.failed == nil {
		t.failed = err
	}
	return err
}

// lost reports whether the server went away, or said that it does (class 57P).
func (t *pgTx) lost(err error) bool {
	said, answered := errors.AsType[*pgconn.PgError](err)
	return !answered && t.conn.Conn().IsClosed() || answered && strings.HasPrefix(said.Code, "57P")
}

// send sends the queue, reads what belongs to it and leaves the answers to
// statements that were queued after that.
func (t *pgTx) send(ctx context.Context) (pgx.BatchResults, error) {
	if t.failed != nil {
		return nil, t.failed
	}
	checks, results := t.checks, t.conn.SendBatch(ctx, t.queue)
	t.queue, t.checks = &pgx.Batch{}, nil
	for _, check := range checks {
		tag, err := results.Exec()
		if err = check.judge(tag.RowsAffected(), err); err != nil {
			_ = results.Close() // err says why
			return nil, t.fail(err)
		}
		t.begun = true
	}
	return results, nil
}

// drain sends the queue and waits for its answers.
func (t *pgTx) drain(ctx context.Context) error {
	if t.queue.Len() == 0 {
		return t.failed
	}
	results, err := t.send(ctx)
	if err != nil {
		return err
	}
	if err := results.Close(); err != nil {
		return t.fail(err)
	}
	return nil
}

func (t *pgTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if len(args) == 0 { // it may be several statements, which have no place in a queue
		if err := t.drain(ctx); err != nil {
			return nil, err
		}
		tag, err := t.conn.Exec(ctx, query)
		return driver.RowsAffected(tag.RowsAffected()), err
	}
	t.queue.Queue(query, args...)
	results, err := t.send(ctx)
	if err != nil {
		return nil, err
	}
	tag, err := results.Exec()
	if failed := results.Close(); err == nil {
		err = failed
	}
	if err != nil {
		return nil, t.fail(err)
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

func (t *pgTx) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	t.queue.Queue(query, args...)
	results, err := t.send(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close() // err says why
		return nil, t.fail(err)
	}
	return &pgRows{rows, results, t}, nil
}

func (t *pgTx) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	rows, err := t.QueryContext(ctx, query, args...)
	return pgRow{rows, err}
}

// commit ends the transaction, if there is one.
func (t *pgTx) commit(ctx context.Context) error {
	if !t.begun && t.queue.Len() == 1 {
		return nil // nothing was done
	}
	if !t.begun || slices.ContainsFunc(t.checks, func(c check) bool { return c.one != nil }) {
		_ = t.drain(ctx) // COMMIT must not be sent twice, nor before all is judged
	}
	if t.failed != nil {
		return t.failed
	}
	t.queue.Queue("COMMIT")
	results, err := t.send(ctx)
	if err != nil {
		return err
	}
	tag, err := results.Exec()
	if failed := results.Close(); err == nil {
		err = failed
	}
	if err == nil && tag.String() != "COMMIT" {
		err = errors.New("a statement had failed")
	}
	if err != nil {
		return cancelledOr(ctx, "commit", err)
	}
	return nil
}

// rollback undoes what has begun, if it can; else the connection is thrown away,
// and the server does it.
func (t *pgTx) rollback(ctx context.Context) {
	if c := t.conn.Conn(); !c.IsClosed() && !c.PgConn().IsBusy() && c.PgConn().TxStatus() != 'I' {
		_, _ = t.conn.Exec(ctx, "ROLLBACK")
	}
}

// pgRows are the rows of one statement. They are closed after the last one.
type pgRows struct {
	pgx.Rows
	results pgx.BatchResults
	tx      *pgTx
}

func (r *pgRows) Columns() (names []string, _ error) {
	for _, f := range r.FieldDescriptions() {
		names = append(names, f.Name)
	}
	return names, nil
}

func (r *pgRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	_ = r.Close() // Err says what it says
	return false
}

func (r *pgRows) Close() error {
	r.Rows.Close()
	err := errors.Join(r.Rows.Err(), r.results.Close())
	if err != nil && r.tx.failed == nil {
		r.tx.failed = err
	}
	return err
}

type pgRow struct {
	rows Rows
	err  error
}

func (r pgRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer func() { _ = r.rows.Close() }() // what was read is whole
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	return r.rows.Close()
}

// errLost is a connection that was lost before a transaction began on it.
type errLost struct{ error }

func (e errLost) Unwrap() error { return e.error }

// neverBegan recognises that the server was started again since a connection was
// used last.
func neverBegan(err error) bool {
	_, ok := errors.AsType[errLost](err)
	return ok
}

// inTheWayOnPostgres recognises that too, a serialization failure, a deadlock, and
// the collision inside the catalogue when two nodes run CREATE TABLE IF NOT EXISTS
// on an empty database at once.
func inTheWayOnPostgres(err error) bool {
	if neverBegan(err) {
		return true
	}
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
