package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"

	_ "modernc.org/sqlite" // registers the driver
)

// maxBatch bounds how many functions share one commit.
const maxBatch = 128

// readers is how many transactions may read at once beside the writer.
const readers = 4

// sqlite has one writer, which commits many waiting functions at once, each in
// its own savepoint, so that a durable commit (synchronous=FULL) is paid once
// for all of them. Readers work beside it (WAL).
type sqlite struct {
	sql     *sql.DB
	writer  *cachedConn
	readers chan *cachedConn
	queue   chan *job
	closing chan struct{}
	closed  sync.Once
	done    chan struct{}
}

// A job is one function waiting for the writer.
type job struct {
	ctx      context.Context
	fn       func(*Tx) error
	state    atomic.Int32 // waiting, then taken by the writer or left by the caller
	done     chan struct{}
	err      error
	panicked any
	tx       *Tx
}

const (
	waiting int32 = iota
	taken
	left
)

func openSQLite(ctx context.Context, path string) (*sqlite, error) {
	if err := private(path); err != nil {
		return nil, err
	}
	q := url.Values{"_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
	}}
	pool, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	s := &sqlite{
		sql: pool, readers: make(chan *cachedConn, readers), queue: make(chan *job, maxBatch),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	if s.writer, err = newCachedConn(ctx, pool); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	for range readers {
		c, err := newCachedConn(ctx, pool)
		if err != nil {
			return nil, errors.Join(err, pool.Close())
		}
		s.readers <- c
	}
	return s, nil
}

// private makes the file, for this user only; SQLite gives the files beside it
// the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func (s *sqlite) do(ctx context.Context, _ *DB, fn func(*Tx) error) error {
	j := &job{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case s.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return unavailable("be used", errClosed)
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.state.CompareAndSwap(waiting, left) {
			return ctx.Err()
		}
		<-j.done // it has begun: its outcome is the answer
	case <-s.done:
		select {
		case <-j.done: // it was served by the last batch
		default:
			return unavailable("be used", errClosed)
		}
	}
	if j.panicked != nil {
		panic(j.panicked)
	}
	return j.err
}

// write is the writer: it serves batches until the database is closed, and what
// was already waiting then.
func (s *sqlite) write(db *DB) {
	defer close(s.done)
	for {
		select {
		case j := <-s.queue:
			s.serve(db, s.batch(j))
		case <-s.closing:
			for {
				select {
				case j := <-s.queue:
					s.serve(db, s.batch(j))
				default:
					return
				}
			}
		}
	}
}

// batch collects what is waiting, without waiting for more.
func (s *sqlite) batch(first *job) []*job {
	batch := make([]*job, 0, 16)
	for j := first; ; {
		if j.state.CompareAndSwap(waiting, taken) {
			batch = append(batch, j)
		}
		if len(batch) == maxBatch {
			return batch
		}
		select {
		case j = <-s.queue:
		default:
			return batch
		}
	}
}

// serve commits the batch at once. If that fails, each job gets a transaction of
// its own, so that one cannot spoil another.
func (s *sqlite) serve(db *DB, batch []*job) {
	if len(batch) == 0 {
		return
	}
	err := s.commit(db, batch)
	if err != nil && len(batch) > 1 {
		for _, j := range batch {
			j.settle(s.commit(db, []*job{j}))
		}
		return
	}
	for _, j := range batch {
		j.settle(err)
	}
}

// settle answers the caller. A failure of the whole transaction matters only to
// a job whose own function had succeeded.
func (j *job) settle(err error) {
	succeeded := j.panicked == nil && (j.err == nil || isKept(j.err))
	if err != nil && succeeded {
		j.err = err
	}
	if err == nil && succeeded {
		j.tx.committed()
	}
	close(j.done)
}

func (s *sqlite) commit(db *DB, batch []*job) error {
	if err := s.writer.exec("BEGIN IMMEDIATE"); err != nil {
		return unavailable("be written", err)
	}
	if err := s.runAll(db, batch); err != nil {
		_ = s.writer.exec("ROLLBACK") // SQLite may have rolled back by itself
		return err
	}
	if err := s.writer.exec("COMMIT"); err != nil {
		_ = s.writer.exec("ROLLBACK")
		return unavailable("be written", err)
	}
	return nil
}

// runAll runs the functions, each in its savepoint, and the hook over all that
// the successful ones buffered.
func (s *sqlite) runAll(db *DB, batch []*job) error {
	if len(batch) == 1 {
		return s.runOne(db, batch[0])
	}
	var buffered []any
	for _, j := range batch {
		if err := s.writer.exec("SAVEPOINT one"); err != nil {
			return unavailable("be written", err)
		}
		j.run(s.writer)
		if j.panicked != nil || (j.err != nil && !isKept(j.err)) {
			if err := s.writer.exec("ROLLBACK TO one"); err != nil {
				return unavailable("be written", err)
			}
		} else {
			buffered = append(buffered, j.tx.buffered...)
		}
		if err := s.writer.exec("RELEASE one"); err != nil {
			return unavailable("be written", err)
		}
	}
	return db.finish(newTx(context.Background(), s.writer), buffered)
}

// errAlone says that the only function of a transaction failed: the caller hears
// the function's own error.
var errAlone = errors.New("the only function of the transaction failed")

// runOne needs no savepoint: the whole transaction is the one function's.
func (s *sqlite) runOne(db *DB, j *job) error {
	j.run(s.writer)
	if j.panicked != nil || (j.err != nil && !isKept(j.err)) {
		return errAlone
	}
	return db.finish(newTx(context.Background(), s.writer), j.tx.buffered)
}

// run calls the function. Statements are not bound to the caller's context:
// SQLite rolls the whole transaction back when one of them is interrupted.
func (j *job) run(conn *cachedConn) {
	j.tx, j.err, j.panicked = newTx(context.WithoutCancel(j.ctx), conn), nil, nil
	defer func() { j.panicked = recover() }()
	j.err = j.fn(j.tx)
}

func (s *sqlite) view(ctx context.Context, fn func(*Tx) error) error {
	var conn *cachedConn
	select {
	case conn = <-s.readers:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return unavailable("be read", errClosed)
	}
	defer func() { s.readers <- conn }()
	if err := conn.exec("BEGIN"); err != nil {
		return unavailable("be read", err)
	}
	defer func() { _ = conn.exec("ROLLBACK") }() // nothing was written
	return fn(newTx(ctx, readOnly{conn}))
}

func (s *sqlite) close() error {
	s.closed.Do(func() { close(s.closing) })
	<-s.done
	for range readers {
		(<-s.readers).close()
	}
	s.writer.close()
	return s.sql.Close()
}

var errClosed = errors.New("the database is closed")

// cachedConn is one connection that prepares each statement once. It is used by
// one goroutine at a time.
type cachedConn struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

// maxStatements bounds the cache; statements are constants of the program, so
// it is reached only by statements of varying length.
const maxStatements = 512

func newCachedConn(ctx context.Context, pool *sql.DB) (*cachedConn, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &cachedConn{conn, map[string]*sql.Stmt{}}, nil
}

func (c *cachedConn) prepare(query string) (*sql.Stmt, error) {
	if stmt, ok := c.stmts[query]; ok {
		return stmt, nil
	}
	if len(c.stmts) == maxStatements {
		for q, stmt := range c.stmts {
			_ = stmt.Close()
			delete(c.stmts, q)
		}
	}
	stmt, err := c.conn.PrepareContext(context.Background(), query)
	if err == nil {
		c.stmts[query] = stmt
	}
	return stmt, err
}

func (c *cachedConn) exec(query string) error {
	_, err := c.ExecContext(context.Background(), query)
	return err
}

func (c *cachedConn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	stmt, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, args...)
}

// later has nothing to save here.
func (c *cachedConn) later(ctx context.Context, judge check, query string, args ...any) error {
	var n int64
	res, err := c.ExecContext(ctx, query, args...)
	if err == nil {
		n, err = res.RowsAffected()
	}
	return judge.judge(n, err)
}

func (c *cachedConn) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	stmt, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

func (c *cachedConn) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	stmt, err := c.prepare(query)
	if err != nil {
		return c.conn.QueryRowContext(ctx, query, args...) // fails the same way, as a Row
	}
	return stmt.QueryRowContext(ctx, args...)
}

func (c *cachedConn) close() {
	for _, stmt := range c.stmts {
		_ = stmt.Close()
	}
	_ = c.conn.Close()
}

// readOnly refuses to write, as PostgreSQL does in a read-only transaction.
type readOnly struct{ *cachedConn }

func (readOnly) ExecContext(_ context.Context, query string, _ ...any) (sql.Result, error) {
	return nil, errReadOnly(query)
}

func (readOnly) later(_ context.Context, _ check, query string, _ ...any) error {
	return errReadOnly(query)
}

func errReadOnly(query string) error {
	return fmt.Errorf("store: a statement that writes in a read-only transaction: %s", query)
}
