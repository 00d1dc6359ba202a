package audit

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

func event(workspace, id string, outcome Outcome) Event {
	e := call(workspace)
	e.Call, e.Outcome = id, outcome
	return e
}

// another is the log of another node on the same database.
func another(t testing.TB, l *Log) *Log {
	t.Helper()
	n := &Log{DB: l.DB, Box: l.Box}
	if err := n.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// endings are the outcomes of a call, in the order of the chain.
func endings(t testing.TB, l *Log, workspace, id string) (text string) {
	t.Helper()
	for _, e := range events(t, l, workspace) {
		if e.Call == id {
			text += " " + string(e.Outcome)
		}
	}
	return text
}

func rows(t testing.TB, l *Log) (n int) {
	t.Helper()
	err := l.DB.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM audit_node WHERE id <> ''`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// watches lets the node look round often enough to take others for dead.
func watches(t testing.TB, l *Log, w watch, live ...*Log) (found int) {
	t.Helper()
	for range quiet + 1 {
		for _, other := range live {
			if err := other.show(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		n, err := l.attend(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		found += n
	}
	return found
}

// A call whose process ended before its outcome was known gets one at the next
// start: unknown. It stays whose it was, and says who carried it.
func TestPendingCallsAreClosedAfterACrash(t *testing.T) {
	eachLog(t, func(t *testing.T, died *Log) {
		write(t, died,
			event("a", "done", Pending), event("a", "lost", Pending), event("b", "lost too", Pending),
			event("a", "done", Failed), event("b", "lost", Allowed)) // of another chain
		l := another(t, died)
		write(t, l, event("a", "running", Pending))

		if n, err := l.Recover(t.Context()); n != 2 || err != nil {
			t.Errorf("recovered %d, %v; want 2", n, err)
		}
		got := events(t, l, "a")[4]
		if got.Call != "lost" || got.Outcome != Unknown || got.Action != "tool.call" || got.Actor != "member:usr_1" || got.Duration != 0 || got.Detail["node"] != died.node {
			t.Errorf("event %+v", got)
		}
		if n, err := l.Recover(t.Context()); n != 0 || err != nil {
			t.Errorf("recovered %d again, %v", n, err)
		}
		intact(t, l, "a", 5)
		intact(t, l, "b", 3)
	})
}

// A server that starts leaves the calls of guests alone, which may be there (R713): if
// they are not, they are silent.
func TestCallsOfGuestsOutliveAServer(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		there := &Log{DB: l.DB, Box: l.Box, Guest: true}
		if err := there.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, there, event("a", "running", Pending))
		if n, err := l.Recover(t.Context()); n != 0 || err != nil {
			t.Errorf("recovered %d, %v", n, err)
		}
		w := watch{}
		if n := watches(t, l, w, there); n != 0 {
			t.Errorf("closed %d calls of a guest that lives", n)
		}
		if n := watches(t, l, w); n != 1 {
			t.Errorf("closed %d calls of a guest that is silent", n)
		}
	})
}

// Of nodes that share a database, one that is silent loses its calls to the
// others, and one that lives keeps them, however long they last.
func TestSilentNodeIsClosedAndLiveOneIsNot(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		live, dead := another(t, l), another(t, l)
		write(t, live, event("a", "long", Pending))
		write(t, dead, event("a", "cut off", Pending))
		w := watch{}
		if found := watches(t, l, w, live); found != 1 {
			t.Errorf("%d calls were closed, want 1", found)
		}
		watches(t, l, w, live)
		if long, cut := endings(t, l, "a", "long"), endings(t, l, "a", "cut off"); long != " pending" || cut != " pending unknown" {
			t.Errorf("long:%s, cut off:%s", long, cut)
		}
		write(t, live, event("a", "long", Allowed))
		if n := watches(t, l, w); n != 0 || rows(t, l) != 0 {
			t.Errorf("of a node that carries nothing %d calls were closed and %d rows left", n, rows(t, l))
		}
		intact(t, l, "a", 4)
	})
}

// A node that was taken for dead and comes back records how its call ended. It
// is watched again from its next call on, even before it has looked round.
func TestSilentNodeMayComeBack(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		back := another(t, l)
		write(t, back, event("a", "late", Pending))
		w := watch{}
		watches(t, l, w)
		back.carried.showed(time.Time{}) // that long ago
		write(t, back, event("a", "late", Allowed), event("a", "next", Pending))
		if n := watches(t, l, w); n != 1 {
			t.Errorf("%d calls were closed when it died, want 1", n)
		}
		if late, next := endings(t, l, "a", "late"), endings(t, l, "a", "next"); late != " pending unknown allowed" || next != " pending unknown" {
			t.Errorf("late:%s, next:%s", late, next)
		}
		intact(t, l, "a", 5)
	})
}

// Nodes that recover at once close each call once.
func TestTwoNodesCloseACallOnce(t *testing.T) {
	eachLog(t, func(t *testing.T, dead *Log) {
		write(t, dead, event("a", "1", Pending), event("a", "2", Pending), event("b", "3", Pending))
		var recovering sync.WaitGroup
		found := make(chan int, 8)
		for range cap(found) {
			l := another(t, dead)
			recovering.Go(func() {
				n, err := l.Recover(context.Background())
				if err != nil {
					t.Error(err)
				}
				found <- n
			})
		}
		recovering.Wait()
		close(found)
		all := 0
		for n := range found {
			all += n
		}
		if all != 3 {
			t.Errorf("%d calls were closed, want 3", all)
		}
		intact(t, dead, "a", 4)
		intact(t, dead, "b", 2)
	})
}

// A node that could not look meanwhile does not know whether others were silent.
func TestBlindNodeTakesNobodyForDead(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		live := another(t, l)
		write(t, live, event("a", "long", Pending))
		w := watch{}
		for range 2 * quiet {
			for range quiet {
				if _, err := l.attend(t.Context(), w); err != nil {
					t.Fatal(err)
				}
			}
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := l.attend(gone, w); err == nil {
				t.Fatal("it looked all the same")
			}
		}
		if got := endings(t, l, "a", "long"); got != " pending" {
			t.Errorf("outcomes:%s", got)
		}
	})
}

// A call whose outcome could not be written is closed by its own node, as soon
// as that is possible; what is under way there is not.
func TestLostOutcomeIsClosedByItsNode(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		write(t, l, event("a", "lost", Pending), event("a", "running", Pending))
		exec(t, l, `ALTER TABLE audit_event RENAME TO away`)
		if err := l.Write(t.Context(), event("a", "lost", Allowed)); err == nil {
			t.Fatal("it was written")
		}
		if _, err := l.attend(t.Context(), watch{}); err == nil {
			t.Error("nothing was missed")
		}
		exec(t, l, `ALTER TABLE away RENAME TO audit_event`)
		for _, want := range []int{1, 0} {
			if n, err := l.attend(t.Context(), watch{}); n != want || err != nil {
				t.Errorf("closed %d, %v; want %d", n, err, want)
			}
		}
		if lost, running := endings(t, l, "a", "lost"), endings(t, l, "a", "running"); lost != " pending unknown" || running != " pending" {
			t.Errorf("lost:%s, running:%s", lost, running)
		}
	})
}

// A node that ends leaves nothing pending and no row, and an idle one writes
// nothing.
func TestNodeLeavesNothingBehind(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		ends := func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := l.Attend(ctx); err != nil {
				t.Error(err)
			}
		}
		if _, err := l.attend(t.Context(), watch{}); err != nil || rows(t, l) != 0 {
			t.Errorf("idle: %v, %d rows", err, rows(t, l))
		}
		write(t, l, event("a", "done", Pending), event("a", "not done", Pending), event("a", "done", Allowed))
		if rows(t, l) != 1 {
			t.Errorf("%d rows with a call under way", rows(t, l))
		}
		ends()
		ends()
		if got := endings(t, l, "a", "not done"); got != " pending unknown" || rows(t, l) != 0 {
			t.Errorf("outcomes:%s, %d rows", got, rows(t, l))
		}
		intact(t, l, "a", 4)
	})
}

// What an older build left pending, which names no node, is closed too.
func TestPendingCallsOfOlderBuildsAreClosed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		l := open(t, db)
		db.BeforeCommit = func(tx *store.Tx, rows []any) error {
			for _, r := range rows {
				r.(*row).Event.Detail, r.(*row).detail = nil, ""
				r.(*row).Outcome = Pending
			}
			return extend(tx, "a", []*row{rows[0].(*row)})
		}
		write(t, l, event("a", "old", Allowed))
		db.BeforeCommit = l.Seal
		if n := watches(t, l, watch{}); n != 1 || endings(t, l, "a", "old") != " pending unknown" {
			t.Errorf("closed %d; outcomes:%s", n, endings(t, l, "a", "old"))
		}
		intact(t, l, "a", 2)
	})
}
