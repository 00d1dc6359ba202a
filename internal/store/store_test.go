package store_test

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

//go:embed testdata/*.sql
var testdata embed.FS

var errTest = errors.New("test")

func table(t *testing.T, db *store.DB) {
	t.Helper()
	do(t, db, func(tx *store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE thing (id TEXT PRIMARY KEY, n BIGINT NOT NULL, ok BOOLEAN NOT NULL, raw BYTEA, used_at BIGINT)`)
		return err
	})
}

func do(t *testing.T, db *store.DB, fn func(*store.Tx) error) {
	t.Helper()
	if err := db.Do(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func insert(id string, n int) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO thing (id, n, ok, raw) VALUES ($1, $2, $3, $4)`, id, n, true, []byte(id))
		return err
	}
}

func count(t *testing.T, db *store.DB) (n int) {
	t.Helper()
	err := db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM thing`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOneTextForBothEngines(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		do(t, db, insert("a", 1))
		var n int64
		var ok bool
		var raw []byte
		err := db.View(t.Context(), func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT n, ok, raw FROM thing WHERE id = $2 AND n = $1 AND id = $2`, 1, "a").Scan(&n, &ok, &raw)
		})
		if err != nil || n != 1 || !ok || string(raw) != "a" {
			t.Errorf("got %d %v %q, %v", n, ok, raw, err)
		}
	})
}

func TestErrorRollsBackAndKeepDoesNot(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		err := db.Do(t.Context(), func(tx *store.Tx) error {
			if err := insert("lost", 1)(tx); err != nil {
				return err
			}
			return errTest
		})
		if !errors.Is(err, errTest) || count(t, db) != 0 {
			t.Errorf("an error kept the row: %v", err)
		}
		err = db.Do(t.Context(), func(tx *store.Tx) error {
			if err := insert("kept", 1)(tx); err != nil {
				return err
			}
			return store.Keep(errTest)
		})
		if err != errTest || count(t, db) != 1 {
			t.Errorf("Keep did not keep the row, or was not unwrapped: %v", err)
		}
	})
}

// A single use is found and spent by one statement: of many at once one wins.
func TestOneWinnerOfManyRacers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		do(t, db, insert("code", 1))
		var wins atomic.Int32
		race(40, func(int) {
			err := db.Do(t.Context(), func(tx *store.Tx) error {
				won, err := tx.One(`UPDATE thing SET used_at = $1 WHERE id = $2 AND used_at IS NULL`, tx.Now, "code")
				if won {
					wins.Add(1)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
		if wins.Load() != 1 {
			t.Errorf("%d winners", wins.Load())
		}
	})
}

func TestNeighboursInABatchDoNotSpoilEachOther(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		db.BeforeCommit = func(_ *store.Tx, buffered []any) error {
			if slices.Contains(buffered, any("poison")) {
				return errTest
			}
			return nil
		}
		var failed atomic.Int32
		race(64, func(i int) {
			err := db.Do(t.Context(), func(tx *store.Tx) error {
				switch i % 4 {
				case 1:
					tx.Buffer("poison")
				case 2:
					return errTest
				}
				return insert(fmt.Sprint(i), i)(tx)
			})
			if bad := i%4 == 1 || i%4 == 2; (err != nil) != bad {
				t.Errorf("%d: %v", i, err)
			}
			if err != nil {
				failed.Add(1)
			}
		})
		if n := count(t, db); n != 32 || failed.Load() != 32 {
			t.Errorf("%d rows, %d failures", n, failed.Load())
		}
	})
}

func TestHookSeesWhatSucceededAndFailsAll(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		var seen []any
		var hookErr error
		db.BeforeCommit = func(_ *store.Tx, buffered []any) error {
			seen = buffered
			return hookErr
		}
		do(t, db, func(tx *store.Tx) error { tx.Buffer(1); tx.Buffer(2); return insert("a", 1)(tx) })
		if !slices.Equal(seen, []any{1, 2}) {
			t.Errorf("the hook saw %v", seen)
		}
		seen = nil
		_ = db.Do(t.Context(), func(tx *store.Tx) error { tx.Buffer(3); return errTest })
		if seen != nil {
			t.Errorf("the hook saw %v of a transaction that rolled back", seen)
		}
		hookErr = errTest
		err := db.Do(t.Context(), func(tx *store.Tx) error { tx.Buffer(4); return insert("b", 1)(tx) })
		if !errors.Is(err, errTest) || count(t, db) != 1 {
			t.Errorf("a failing hook let the change through: %v", err)
		}
	})
}

func TestAfterCommitOnlyAfterACommit(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		called := 0
		for _, err := range []error{nil, errTest, store.Keep(errTest)} {
			_ = db.Do(t.Context(), func(tx *store.Tx) error {
				tx.AfterCommit(func() { called++ })
				return err
			})
		}
		if called != 2 {
			t.Errorf("called %d times, want 2: success and a kept error", called)
		}
	})
}

func TestBufferWithoutHookIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		if err := db.Do(t.Context(), func(tx *store.Tx) error { tx.Buffer(1); return nil }); err == nil {
			t.Error("something buffered was dropped in silence")
		}
	})
}

func TestNestedTransactionIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		err := db.Do(t.Context(), func(tx *store.Tx) error {
			return db.Do(tx, func(*store.Tx) error { return nil })
		})
		if err == nil {
			t.Error("nested")
		}
	})
}

func TestPanicReachesItsCallerOnly(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = db.Do(t.Context(), func(tx *store.Tx) error {
				_ = insert("a", 1)(tx)
				panic("test")
			})
		}()
		do(t, db, insert("b", 1))
		if count(t, db) != 1 {
			t.Error("the panicking transaction left a row")
		}
	})
}

func TestCancelledCallerIsAnswered(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := db.Do(ctx, func(*store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestViewCannotWrite(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		if err := db.View(t.Context(), insert("a", 1)); err == nil || count(t, db) != 0 {
			t.Errorf("a view wrote: %v", err)
		}
	})
}

// However many wait to write, reading goes on: a node that could not read what
// was revoked would refuse everybody.
func TestReadersDoNotWaitForWriters(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		var writing sync.WaitGroup
		release, begun := make(chan struct{}), make(chan struct{}, 64)
		for range cap(begun) {
			writing.Go(func() {
				_ = db.Do(context.Background(), func(*store.Tx) error { begun <- struct{}{}; <-release; return errTest })
			})
		}
		<-begun
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var n int
		for range 20 {
			if err := db.View(ctx, func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM thing`).Scan(&n) }); err != nil {
				t.Fatal(err)
			}
		}
		close(release)
		writing.Wait()
	})
}

func TestClosedDatabaseAnswersUnavailable(t *testing.T) {
	db, err := store.Open(t.Context(), storetest.SQLite(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Do(t.Context(), func(*store.Tx) error { return nil }); !problem.Is(err, store.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestMigrateOnceOnManyNodes(t *testing.T) {
	storetest.EachAddress(t, func(t *testing.T, address string) {
		var nodes []*store.DB
		for range 6 {
			nodes = append(nodes, storetest.Open(t, address))
		}
		files, err := fs.Sub(testdata, "testdata")
		if err != nil {
			t.Fatal(err)
		}
		race(len(nodes), func(i int) {
			if err := nodes[i].Migrate(t.Context(), "room", files); err != nil {
				t.Error(err)
			}
		})
		do(t, nodes[0], func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO first (id) VALUES ($1)`, "there")
			return err
		})
		same := fstest.MapFS{}
		names, _ := fs.Glob(files, "*.sql")
		for _, name := range names {
			data, err := fs.ReadFile(files, name)
			if err != nil {
				t.Fatal(err)
			}
			same[name] = &fstest.MapFile{Data: data}
		}
		for name, tt := range map[string]struct {
			change func(fstest.MapFS)
			code   string
		}{
			"as it was":          {func(fstest.MapFS) {}, ""},
			"changed":            {func(m fstest.MapFS) { m[names[0]] = &fstest.MapFile{Data: []byte("SELECT 1")} }, "MIGRATION_CHANGED"},
			"by a newer release": {func(m fstest.MapFS) { delete(m, names[len(names)-1]) }, "MIGRATION_NEWER"},
		} {
			files := maps.Clone(same)
			tt.change(files)
			err := nodes[0].Migrate(t.Context(), "room", files)
			if got := problem.From(err); (got == nil) != (tt.code == "") || got != nil && got.Name != tt.code {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// What is kept is for this user only, also in a folder that others may read.
func TestSQLiteFilesAreForTheirUserOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	table(t, storetest.Open(t, "sqlite:"+path))
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
}

func TestAddressFaults(t *testing.T) {
	for _, address := range []string{"", "sqlite:", "mysql://x", "postgres://u:secret@127.0.0.1:1/x", "sqlite:/does/not/exist/x.db"} {
		db, err := store.Open(t.Context(), address)
		if err == nil {
			_ = db.Close()
			t.Errorf("%q was opened", address)
			continue
		}
		if e := problem.From(err); e.Kind == problem.Internal || e.Fix == "" {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// However the address is mistyped, the error does not repeat a password.
func TestFaultyAddressKeepsItsPassword(t *testing.T) {
	for _, address := range []string{
		"host=db user=u password=hunter2", "postgres:/u:hunter2@db/x", "u:hunter2@db/x", "mysql://u:hunter2@db/x", "postgres//u:hunter2@db/x",
		"postgres://u:hunter2@db:port/x", "postgres://u:hunter2@[::1/x", "postgres://u:hunter2@127.0.0.1:1/x?password=hunter2",
	} {
		_, err := store.Open(t.Context(), address)
		if e := problem.From(err); err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, e.Wire("")), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestIDsSortByTime(t *testing.T) {
	a := store.ID("x_")
	time.Sleep(2 * time.Millisecond)
	b := store.ID("x_")
	if len(a) != 28 || a >= b || a[:2] != "x_" || a[2] > '7' {
		t.Errorf("%q, %q", a, b)
	}
}

func race(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() { ready.Done(); <-start; f(i) })
	}
	ready.Wait()
	close(start)
	done.Wait()
}

func BenchmarkDo(b *testing.B) {
	db := storetest.Open(b, storetest.SQLite(b))
	ctx := context.Background()
	if err := db.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE n (id TEXT PRIMARY KEY)`)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := db.Do(ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(`INSERT INTO n (id) VALUES ($1)`, store.ID("n_"))
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
