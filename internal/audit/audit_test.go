package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// open is a log on db, as the program opens it.
func open(t testing.TB, db *store.DB) *Log {
	t.Helper()
	key, err := seal.LoadKey(filepath.Join(t.TempDir(), "master.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{DB: db, Box: seal.Box{Keeper: key}}
	db.BeforeCommit = l.Seal
	if err := l.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func eachLog(t *testing.T, f func(t *testing.T, l *Log)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { f(t, open(t, db)) })
}

// call is an event as the gate records one.
func call(workspace string) Event {
	return Event{
		Workspace: workspace, Call: "call_1", Actor: "member:usr_1", Client: "cli_1", Token: "tok_1", Door: "mcp",
		Ref: "req_1", Action: "tool.call", Target: "files_read", Outcome: Allowed, Duration: 1500, Payload: Digest([]byte("{}")),
	}
}

func write(t testing.TB, l *Log, events ...Event) {
	t.Helper()
	if err := l.Write(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

func do(t testing.TB, l *Log, fn func(*store.Tx) error) {
	t.Helper()
	if err := l.DB.Do(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, l *Log, query string, args ...any) {
	t.Helper()
	do(t, l, func(tx *store.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
}

// events are the rows of a chain, in order.
func events(t testing.TB, l *Log, workspace string) (found []Event) {
	t.Helper()
	err := l.DB.View(t.Context(), func(tx *store.Tx) error {
		return each(tx, func(r *row, _ bool) error {
			found = append(found, r.Event)
			return nil
		}, `SELECT `+columns+` FROM audit_event WHERE workspace = $1 ORDER BY seq`, workspace)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func head(t testing.TB, l *Log, workspace string) (h SignedHead) {
	t.Helper()
	err := l.DB.View(t.Context(), func(tx *store.Tx) (err error) {
		h, err = l.Head(tx, workspace)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func intact(t testing.TB, l *Log, workspace string, n int64) {
	t.Helper()
	r, err := l.Verify(t.Context(), workspace)
	if err != nil || r.Seq != n {
		t.Errorf("chain %s: %d events, %v; want %d intact", workspace, r.Seq, err, n)
	}
}

// R1111: each workspace has its own chain, from 64 zeros, without gaps.
func TestEveryWorkspaceHasOneChain(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		do(t, l, func(tx *store.Tx) error {
			for _, w := range []string{"b", "a", "", "a"} {
				l.Append(tx, call(w))
			}
			return nil
		})
		write(t, l, call("a"), call("b"))
		for w, n := range map[string]int64{"a": 3, "b": 2, System: 1, "empty": 0} {
			intact(t, l, w, n)
			prev := strings.Repeat("0", 64)
			for i, e := range events(t, l, w) {
				if e.Seq != int64(i)+1 || e.Prev != prev || e.Workspace != w {
					t.Errorf("event %d of %s: seq %d, workspace %s", i+1, w, e.Seq, e.Workspace)
				}
				prev = e.Hash
			}
		}
	})
}

func TestEventComesBackAsItWasGiven(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		given := call("a")
		given.Code, given.Outcome, given.Time = "TOOL_FORBIDDEN", Denied, 1_700_000_000_000_001
		given.Detail = map[string]string{"reason": "no \"grant\"\n", "größe": "<&\u2028>", "": "empty"}
		write(t, l, given)
		got := events(t, l, "a")[0]
		if !strings.HasPrefix(got.ID, "aud_") {
			t.Errorf("id %q", got.ID)
		}
		given.ID, given.Seq, given.Prev, given.Hash = got.ID, 1, genesis, got.Hash
		if fmt.Sprint(got) != fmt.Sprint(given) {
			t.Errorf("got  %v\nwant %v", got, given)
		}
	})
}

// What strangers send as names neither breaks the log nor fills it.
func TestRudeTextIsRecorded(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		e := call("a")
		e.Target = "a\x00b\xff" + strings.Repeat("ü", 10_000)
		e.Detail = map[string]string{"k\x00\xfe": "v\x00\xfe", "long": strings.Repeat("x", 10_000), "\U0001F600": "a", "\uFB01": "b"}
		write(t, l, e)
		intact(t, l, "a", 1)
		got := events(t, l, "a")[0]
		if !strings.HasPrefix(got.Target, "a\uFFFDb\uFFFDü") || len(got.Target) > maxText+len("…") {
			t.Errorf("target %q, %d bytes", got.Target[:20], len(got.Target))
		}
		if got.Detail["k\uFFFD\uFFFD"] != "v\uFFFD\uFFFD" || len(got.Detail["long"]) > maxText+len("…") {
			t.Errorf("detail %.100v", got.Detail)
		}
		verifies(t, export(t, l, "a"))
	})
}

// No record, no change: a transaction and its events share one fate.
func TestRollbackLeavesNoEvent(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		failed := errors.New("failed")
		err := l.DB.Do(t.Context(), func(tx *store.Tx) error {
			l.Append(tx, call("a"))
			return failed
		})
		if !errors.Is(err, failed) {
			t.Errorf("Do: %v", err)
		}
		intact(t, l, "a", 0)

		err = l.DB.Do(t.Context(), func(tx *store.Tx) error {
			l.Append(tx, call("a"))
			return store.Keep(failed)
		})
		if !errors.Is(err, failed) {
			t.Errorf("Do with Keep: %v", err)
		}
		intact(t, l, "a", 1)
	})
}

func TestEventThatCannotBeRecordedStopsTheChange(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		exec(t, l, `CREATE TABLE thing (id TEXT PRIMARY KEY)`)
		for name, spoil := range map[string]func(*Event){
			"no outcome":             func(e *Event) { e.Outcome = "" },
			"unknown outcome":        func(e *Event) { e.Outcome = "fine" },
			"no action":              func(e *Event) { e.Action = "" },
			"pending without a call": func(e *Event) { e.Outcome, e.Call = Pending, "" },
			"time":                   func(e *Event) { e.Time = 1 << 53 },
			"duration":               func(e *Event) { e.Duration = -1 },
		} {
			e := call("a")
			spoil(&e)
			refused(t, l, name, e)
		}
		write(t, l, call("a"))
		intact(t, l, "a", 1)
	})
}

// refused checks that neither Write nor a change goes through with e.
func refused(t *testing.T, l *Log, name string, e Event) {
	t.Helper()
	if err := l.Write(t.Context(), e); !problem.Is(err, Unavailable) {
		t.Errorf("%s: Write: %v, want %s", name, err, Unavailable.Name)
	}
	err := l.DB.Do(t.Context(), func(tx *store.Tx) error {
		l.Append(tx, e)
		_, err := tx.Exec(`INSERT INTO thing (id) VALUES ('changed')`)
		return err
	})
	if !problem.Is(err, Unavailable) {
		t.Errorf("%s: Do: %v, want %s", name, err, Unavailable.Name)
	}
	var n int
	do(t, l, func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM thing`).Scan(&n) })
	if n != 0 {
		t.Errorf("%s: something changed without a record", name)
	}
}

// An audit table that cannot be written
// refuses everything that would have to be recorded (design §4).
func TestUnwritableLogRefusesEverything(t *testing.T) {
	for name, breakIt := range map[string]string{
		"events dropped": `DROP TABLE audit_event`,
		"heads dropped":  `DROP TABLE audit_head`,
	} {
		t.Run(name, func(t *testing.T) {
			eachLog(t, func(t *testing.T, l *Log) {
				exec(t, l, `CREATE TABLE thing (id TEXT PRIMARY KEY)`)
				write(t, l, call("a"))
				exec(t, l, breakIt)
				refused(t, l, name, call("a"))
			})
		})
	}
}

func TestClosedDatabaseRefuses(t *testing.T) {
	db, err := store.Open(t.Context(), storetest.SQLite(t))
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(t.Context(), call("a")); !problem.Is(err, Unavailable) {
		t.Errorf("Write: %v, want %s", err, Unavailable.Name)
	}
}

func TestReadOnlyDatabaseRefuses(t *testing.T) {
	l := open(t, storetest.Open(t, storetest.SQLite(t)))
	exec(t, l, `PRAGMA query_only(1)`)
	if err := l.Write(t.Context(), call("a")); !problem.Is(err, Unavailable) {
		t.Errorf("Write: %v, want %s", err, Unavailable.Name)
	}
	intact(t, l, "a", 0)
}

// Writers of both kinds at once keep every chain whole; what fails among them
// leaves nothing.
func TestConcurrentWritersKeepTheChain(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		const writers, rounds = 8, 25
		failed := errors.New("failed")
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for range rounds {
					if err := l.Write(t.Context(), call("a"), call(fmt.Sprint("own", w))); err != nil {
						t.Error(err)
					}
					err := l.DB.Do(t.Context(), func(tx *store.Tx) error {
						l.Append(tx, call("b"))
						l.Append(tx, call("a"))
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					err = l.DB.Do(t.Context(), func(tx *store.Tx) error {
						l.Append(tx, call("a"))
						return failed
					})
					if !errors.Is(err, failed) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		intact(t, l, "a", 2*writers*rounds)
		intact(t, l, "b", writers*rounds)
		intact(t, l, "own3", rounds)
	})
}

// Two nodes on one database extend one chain and sign with one key.
func TestTwoNodesShareTheChain(t *testing.T) {
	storetest.EachAddress(t, func(t *testing.T, address string) {
		first := open(t, storetest.Open(t, address))
		db := storetest.Open(t, address)
		second := &Log{DB: db, Box: first.Box}
		db.BeforeCommit = second.Seal
		if err := second.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if first.Thumbprint() != second.Thumbprint() {
			t.Error("two nodes have two keys")
		}
		var wg sync.WaitGroup
		for _, l := range []*Log{first, second} {
			for range 4 {
				wg.Go(func() {
					for range 10 {
						if err := l.Write(t.Context(), call("a")); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		wg.Wait()
		intact(t, second, "a", 80)
	})
}

func TestForeignMasterKeyIsRefused(t *testing.T) {
	address := storetest.SQLite(t)
	open(t, storetest.Open(t, address))
	key, err := seal.LoadKey(filepath.Join(t.TempDir(), "other.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{DB: storetest.Open(t, address), Box: seal.Box{Keeper: key}}
	if err := l.Open(t.Context()); !errors.Is(err, seal.ErrOtherKey) {
		t.Errorf("Open under another master key: %v", err)
	}
}

func TestBigTransactionIsOneChain(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		const n = 2*maxInsert + 7
		do(t, l, func(tx *store.Tx) error {
			for range n {
				l.Append(tx, call("a"))
			}
			return nil
		})
		intact(t, l, "a", n)
	})
}

func TestWriteThatIsCancelledBeforeItBeginsRecordsNothing(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Write(ctx, call("a")); !errors.Is(err, context.Canceled) {
			t.Errorf("Write: %v", err)
		}
		intact(t, l, "a", 0)
	})
}

// The writer would wait for itself.
func TestWriteInsideATransactionFails(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		err := l.DB.Do(t.Context(), func(tx *store.Tx) error { return l.Write(tx, call("a")) })
		if !errors.Is(err, errInside) {
			t.Errorf("Write inside Do: %v", err)
		}
	})
}

// export is the chain as the command writes it.
func export(t testing.TB, l *Log, workspace string) []byte {
	t.Helper()
	h := head(t, l, workspace)
	file, err := exported(events(t, l, workspace), h)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func exported(events []Event, h SignedHead) ([]byte, error) {
	var out bytes.Buffer
	err := Export(&out, sequence(events), h)
	return out.Bytes(), err
}

func sequence(events []Event) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}
