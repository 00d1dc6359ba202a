package store_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// through leads to a database by a way on which nothing passes while silent.
func through(t *testing.T, address string) (way string, silent *atomic.Bool) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	there := u.Host
	u.Host, silent = l.Addr().String(), new(atomic.Bool)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", there)
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					defer func() { _ = way[1].Close() }()
					_, _ = io.Copy(deaf{way[1], silent}, way[0])
				}()
			}
		}
	}()
	return u.String(), silent
}

// deaf loses what is written while it is silent.
type deaf struct {
	net.Conn
	silent *atomic.Bool
}

func (d deaf) Write(b []byte) (int, error) {
	if d.silent.Load() {
		return len(b), nil
	}
	return d.Conn.Write(b)
}

// Whoever somebody waits for hears in time that the database is silent,
// whatever it was doing then, and goes on when it is back. Others wait.
func TestASilentDatabaseIsNotWaitedForWithin(t *testing.T) {
	address, silent := through(t, storetest.Postgres(t))
	db := storetest.Open(t, address)
	table(t, db)
	const patience = 300 * time.Millisecond
	asked := db.Within(patience)
	unavailable := func(name string, call func() error) {
		t.Helper()
		began := time.Now()
		if err := call(); !problem.Is(err, store.Unavailable) || time.Since(began) > patience+5*time.Second {
			t.Errorf("%s: after %v: %v", name, time.Since(began), err)
		}
	}
	begin := func(db *store.DB, fn func(*store.Tx) error) func() error {
		return func() error { return db.Do(t.Context(), fn) }
	}
	do(t, asked, insert("before", 1))
	silent.Store(true)
	unavailable("write", begin(asked, insert("lost", 2)))
	unavailable("read", func() error {
		return asked.View(t.Context(), func(tx *store.Tx) error { _, err := tx.Query(`SELECT 1`); return err })
	})
	silent.Store(false)
	do(t, asked, insert("after", 3)) // connections that were cut off are not used again
	unavailable("in the middle", begin(asked, func(tx *store.Tx) error {
		if err := insert("half", 4)(tx); err != nil {
			return err
		}
		silent.Store(true)
		return insert("other half", 5)(tx)
	}))
	silent.Store(false)
	if n := count(t, db); n != 2 {
		t.Errorf("%d rows", n)
	}
	// Who is not waited for by anybody waits for as long as its context says.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	silent.Store(true)
	if err := db.Do(ctx, insert("x", 6)); !errors.Is(err, context.DeadlineExceeded) || problem.Is(err, store.Unavailable) {
		t.Errorf("%v", err)
	}
}

// What ends in time is as it was, with its own errors.
func TestWithinChangesNothingElse(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		var hooked int
		db.BeforeCommit = func(_ *store.Tx, buffered []any) error { hooked += len(buffered); return nil }
		asked := db.Within(time.Minute)
		do(t, asked, func(tx *store.Tx) error { tx.Buffer(1); return insert("a", 1)(tx) })
		if err := asked.Do(t.Context(), func(*store.Tx) error { return errTest }); !errors.Is(err, errTest) {
			t.Errorf("%v", err)
		}
		if err := asked.Do(t.Context(), func(tx *store.Tx) error { return store.Keep(errors.Join(insert("b", 2)(tx), errTest)) }); !errors.Is(err, errTest) {
			t.Errorf("%v", err)
		}
		if n := count(t, asked); n != 2 || hooked != 1 {
			t.Errorf("%d rows, %d buffered", n, hooked)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := asked.Do(ctx, insert("c", 3)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// On SQLite it is the turn that is waited for.
func TestWithinWaitsForItsTurnOnSQLite(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	table(t, db)
	begun, end := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- db.Do(context.Background(), func(tx *store.Tx) error { close(begun); <-end; return insert("long", 1)(tx) })
	}()
	<-begun
	if err := db.Within(50*time.Millisecond).Do(t.Context(), insert("late", 2)); !problem.Is(err, store.Unavailable) {
		t.Errorf("%v", err)
	}
	close(end)
	if err := <-done; err != nil || count(t, db) != 1 {
		t.Errorf("%v", err)
	}
}
