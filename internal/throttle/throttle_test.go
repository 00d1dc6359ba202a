package throttle_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// day is a window that ends in no test.
const day = 24 * time.Hour

// node is one that counts on db.
func node(t *testing.T, db *store.DB, l throttle.Limit) *throttle.Throttle {
	t.Helper()
	n := &throttle.Throttle{DB: db, Log: slog.New(slog.DiscardHandler), Limits: func(g throttle.Group) throttle.Limit {
		if g != "door" {
			return throttle.Limit{}
		}
		return l
	}}
	if err := n.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// passed is how many of n requests are let through.
func passed(th *throttle.Throttle, g throttle.Group, who string, n int) (through int) {
	for range n {
		if th.Take(g, who) == nil {
			through++
		}
	}
	return through
}

// R418, R1314: each is let through as often as the limit says, all together as well,
// and a refusal says when to come back.
func TestALimitHoldsForEachAndForAll(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		th := node(t, db, throttle.Limit{Each: 10, All: 25, Per: day})
		if got := passed(th, "door", "192.0.2.1", 100); got != 10 {
			t.Errorf("%d of one", got)
		}
		err := problem.From(th.Take("door", "192.0.2.1"))
		if err == nil || err.Kind != problem.Limited || err.Name != "TOO_OFTEN" || err.Retry <= 0 || err.Retry > day || strings.Contains(fmt.Sprint(err.Wire("")), "192.0.2.1") {
			t.Errorf("%+v", err)
		}
		if th.Check("door", "192.0.2.1") == nil || th.Check("door", "192.0.2.2") != nil {
			t.Error("to look says something else than to count")
		}
		if a, b, c := passed(th, "door", "192.0.2.2", 100), passed(th, "door", "192.0.2.3", 100), passed(th, "door", "192.0.2.4", 100); a != 10 || b != 5 || c != 0 {
			t.Errorf("%d, %d and %d of others", a, b, c)
		}
		if got := passed(th, "door/approved", "192.0.2.4", 100); got != 10 { // counted by itself
			t.Errorf("%d of the rest", got)
		}
		if got := passed(th, "window", "192.0.2.1", 1000); got != 1000 { // no limit
			t.Errorf("%d without a limit", got)
		}
	})
}

// A window ends, and with it what was counted: memory and table are empty again.
func TestAWindowEnds(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		th := node(t, db, throttle.Limit{Each: 3, Per: time.Second})
		for began := time.Now(); th.Take("door", "a") == nil; {
			if time.Since(began) > 10*time.Second {
				t.Fatal("nothing is refused")
			}
		}
		err := problem.From(th.Check("door", "a"))
		if err == nil {
			return // it ended in this moment
		}
		if share := th.Share(t.Context()); share != nil {
			t.Fatal(share)
		}
		time.Sleep(err.Retry)
		if err := th.Take("door", "a"); err != nil {
			t.Errorf("after as long as it said: %v", err)
		}
		var rows, left int
		err2 := db.Do(t.Context(), func(tx *store.Tx) error {
			if err := tx.QueryRow(`SELECT count(*) FROM throttle`).Scan(&rows); err != nil {
				return err
			}
			if _, _, err := th.Sweep(tx); err != nil {
				return err
			}
			return tx.QueryRow(`SELECT count(*) FROM throttle`).Scan(&left)
		})
		if err2 != nil || rows != 1 || left != 0 {
			t.Errorf("%d rows, then %d: %v", rows, left, err2)
		}
	})
}

// What is used up at one node is used up at the others: within a second, in one
// transaction for all that was asked meanwhile, and of those only who comes near.
func TestNodesShareWhatComesNearALimit(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		l := throttle.Limit{Each: 80, All: 1000, Per: day}
		a, b := node(t, db, l), node(t, db, l)
		share := func() {
			t.Helper()
			for _, n := range []*throttle.Throttle{a, b, a} {
				if err := n.Share(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		passed(a, "door", "flood", 60)
		passed(b, "door", "flood", 11)
		for i := range 50 {
			passed(a, "door", fmt.Sprint("honest ", i), 2)
		}
		share()
		passed(a, "door", "flood", 1) // it learns when it is asked
		share()
		if got := passed(a, "door", "flood", 100); got != 8 {
			t.Errorf("%d more at one node", got)
		}
		share()
		passed(b, "door", "flood", 1)
		share()
		if got := passed(b, "door", "flood", 100); got != 0 {
			t.Errorf("%d more at the other", got)
		}
		if got := passed(b, "door", "honest 1", 78); got != 78 {
			t.Errorf("%d of somebody honest", got)
		}
		var rows int
		if err := db.View(t.Context(), func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT count(*) FROM throttle WHERE name LIKE 'door %'`).Scan(&rows)
		}); err != nil || rows != 1 {
			t.Errorf("%d rows of single ones, %v", rows, err)
		}
	})
}

// Where the database is silent each node counts by itself: a limit holds, nobody is
// refused for want of a counter, and what was counted is told later.
func TestASilentDatabaseNeitherOpensNorCloses(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		l := throttle.Limit{Each: 10, Per: day}
		a, b := node(t, db, l), node(t, db, l)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if passed(a, "door", "x", 8) != 8 || a.Share(gone) == nil || passed(a, "door", "x", 8) != 2 || a.Take("door", "y") != nil {
			t.Error("it counts otherwise")
		}
		if err := a.Share(t.Context()); err != nil {
			t.Fatal(err)
		}
		passed(b, "door", "x", 2)
		if err := b.Share(t.Context()); err != nil || b.Take("door", "x") == nil {
			t.Error("what was counted is lost", err)
		}
	})
}

// Attack 125: a flood from ever new addresses fills no memory: who comes after all
// are used up is not even remembered, and without such a limit no more than a bound.
func TestAFloodIsNotRemembered(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		th := node(t, db, throttle.Limit{Each: 2, All: 100, Per: day})
		for i := range 10_000 {
			_ = th.Take("door", fmt.Sprint(i))
		}
		if n := th.Counters(); n != 101 {
			t.Errorf("%d counters", n)
		}
		th = node(t, db, throttle.Limit{Each: 2, Per: day})
		for i := range 110_000 {
			if th.Take("door", fmt.Sprint(i)) != nil {
				t.Fatal("an honest one is refused")
			}
		}
		if n := th.Counters(); n != 100_000 {
			t.Errorf("%d counters", n)
		}
	})
}

// Run shares until it is told to end.
func TestRunShares(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		th := node(t, db, throttle.Limit{Each: 2, Per: day})
		passed(th, "door", "x", 2)
		ctx, cancel := context.WithCancel(t.Context())
		var ended atomic.Bool
		go func() { th.Run(ctx); ended.Store(true) }()
		within(t, "shared", func() bool {
			var n int
			_ = db.View(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(`SELECT COALESCE(sum(n), 0) FROM throttle`).Scan(&n) })
			return n == 2
		})
		cancel()
		within(t, "ended", ended.Load)
	})
}

func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	for began := time.Now(); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("not %s", what)
		}
	}
}

// R1314: limits are spelt EACH/ALL/PER.
func TestLimitsAreRead(t *testing.T) {
	for text, want := range map[string]throttle.Limit{
		"60/1200/1h": {Each: 60, All: 1200, Per: time.Hour}, "0/5/1s": {All: 5, Per: time.Second}, "5/0/24h": {Each: 5, Per: day},
	} {
		if got, err := throttle.ParseLimit(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "60", "60/1200", "-1/5/1m", "1/-5/1m", "x/5/1m", "1/5/1x", "1/5/0s", "1/5/25h", "1/5/1m/2", "1.5/5/1m"} {
		if got, err := throttle.ParseLimit(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// An address is one whoever writes it down; a network of IPv6 that one customer has
// is one address.
func TestAddresses(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:4711": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:1": "192.0.2.1", "[2001:db8::1]:443": "2001:db8::/64",
		"[2001:db8::ffff:1%eth0]:443": "2001:db8::/64", "2001:db8:0:1::1": "2001:db8:0:1::/64", "@": "elsewhere", "": "elsewhere",
	} {
		if got := throttle.Address(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}
