package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

const update = `UPDATE thing SET n = n + 1 WHERE id = $1`

// What was put off happens in its order, and before what is asked next.
func TestLaterHappensInOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		do(t, db, func(tx *store.Tx) error {
			for _, query := range []string{`INSERT INTO thing (id, n, ok) VALUES ($1, 1, true)`, update, update} {
				if err := tx.Later(nil, query, "a"); err != nil {
					return err
				}
			}
			var n int
			if err := tx.QueryRow(`SELECT n FROM thing WHERE id = $1`, "a").Scan(&n); err != nil || n != 3 {
				t.Errorf("n = %d, %v", n, err)
			}
			return tx.OneLater(errTest, update, "a")
		})
		if n := value(t, db, "a"); n != 4 {
			t.Errorf("after the commit n = %d", n)
		}
	})
}

// A statement that was put off and fails, or whose check does, undoes the whole
// transaction, whatever it travelled with.
func TestLaterFailureUndoesEverything(t *testing.T) {
	refused := errors.New("refused")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		table(t, db)
		do(t, db, insert("a", 1))
		for name, fn := range map[string]func(*store.Tx) error{
			"last": func(tx *store.Tx) error { return tx.OneLater(errTest, update, "nobody") },
			"before a query": func(tx *store.Tx) error {
				if err := tx.OneLater(errTest, update, "nobody"); err != nil {
					return err
				}
				var n int
				return tx.QueryRow(`SELECT n FROM thing WHERE id = $1`, "a").Scan(&n)
			},
			"before a statement": func(tx *store.Tx) error {
				if err := tx.OneLater(errTest, update, "nobody"); err != nil {
					return err
				}
				_, err := tx.Exec(update, "a")
				return err
			},
			"before the hook": func(tx *store.Tx) error { tx.Buffer(1); return tx.OneLater(errTest, update, "nobody") },
			"broken": func(tx *store.Tx) error {
				return tx.Later(func(error) error { return errTest }, `INSERT INTO thing (id, n, ok) VALUES ($1, 1, true)`, "a")
			},
			"one of several": func(tx *store.Tx) error {
				return errors.Join(tx.OneLater(errTest, update, "a"), tx.OneLater(errTest, update, "nobody"), tx.Later(nil, update, "a"))
			},
			"kept": func(tx *store.Tx) error {
				if err := tx.OneLater(errTest, update, "nobody"); err != nil {
					return err
				}
				return store.Keep(refused)
			},
		} {
			db.BeforeCommit = func(tx *store.Tx, _ []any) error { _, err := tx.Exec(update, "a"); return err }
			err := db.Do(t.Context(), func(tx *store.Tx) error {
				if err := insert(name, 1)(tx); err != nil {
					return err
				}
				return fn(tx)
			})
			if !errors.Is(err, errTest) || errors.Is(err, refused) {
				t.Errorf("%s: %v", name, err)
			}
			if count(t, db) != 1 || value(t, db, "a") != 1 {
				t.Errorf("%s: something happened", name)
			}
		}
	})
}

// On PostgreSQL a failed statement ends its transaction, also for a function that
// overlooks it: COMMIT would roll back and say nothing.
func TestOverlookedFailureIsNoSuccess(t *testing.T) {
	db := storetest.Open(t, storetest.Postgres(t))
	table(t, db)
	for name, fail := range map[string]func(*store.Tx){
		"exec":  func(tx *store.Tx) { _, _ = tx.Exec(`INSERT INTO thing (id, n, ok) VALUES ($1, NULL, true)`, "x") },
		"query": func(tx *store.Tx) { _, _ = tx.Query(`SELECT n / $1 FROM thing`, 0) },
		"row":   func(tx *store.Tx) { var n int; _ = tx.QueryRow(`SELECT n / $1 FROM thing`, 0).Scan(&n) },
		"plain": func(tx *store.Tx) { _, _ = tx.Exec(`DROP TABLE nothing`) },
		"later": func(tx *store.Tx) {
			_ = tx.Later(nil, `INSERT INTO thing (id, n, ok) VALUES ($1, NULL, true)`, "x")
			_, _ = tx.Exec(update, "a")
		},
	} {
		err := db.Do(t.Context(), func(tx *store.Tx) error {
			if err := insert("a", 1)(tx); err != nil {
				return err
			}
			fail(tx)
			return nil
		})
		if err == nil || count(t, db) != 0 {
			t.Errorf("%s: %v, %d rows", name, err, count(t, db))
		}
	}
}

// A server that was started again, or cut its connections, is a pause and no
// failure: what has not begun begins again.
func TestConnectionsThatWereCutAreReplaced(t *testing.T) {
	address := storetest.Postgres(t)
	db, other := storetest.Open(t, address), storetest.Open(t, address)
	table(t, db)
	for i := range 5 {
		do(t, db, insert(fmt.Sprint("w", i), 1))
		_ = count(t, db)
		do(t, other, func(tx *store.Tx) error {
			rows, err := tx.Query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
			if err != nil {
				return err
			}
			return rows.Close()
		})
	}
	if n := count(t, db); n != 5 {
		t.Errorf("%d rows", n)
	}
	// One that is cut in the middle is not done twice.
	_ = count(t, other)
	do(t, db, insert("whole", 1))
	var runs int
	err := db.Do(context.Background(), func(tx *store.Tx) error {
		runs++
		if err := insert("cut", 1)(tx); err != nil {
			return err
		}
		_, err := tx.Exec(`SELECT pg_terminate_backend(pg_backend_pid())`)
		return err
	})
	if err == nil || runs != 1 || count(t, db) != 6 {
		t.Errorf("after %d runs: %v", runs, err)
	}
}

func value(t *testing.T, db *store.DB, id string) (n int) {
	t.Helper()
	err := db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT n FROM thing WHERE id = $1`, id).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
