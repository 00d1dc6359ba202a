package throttle_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// theValkey is where a Valkey or Redis server is expected for these tests.
const theValkey = "127.0.0.1:6379"

// server is a client of that one, and a prefix for the keys of this test alone. The
// test is skipped where none answers.
func server(t *testing.T) (c valkey.Client, prefix string) {
	t.Helper()
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{theValkey}, ForceSingleClient: true, DisableCache: true, Dialer: net.Dialer{Timeout: time.Second}})
	if err != nil {
		t.Skipf("no Valkey or Redis answers at %s: %v", theValkey, err)
	}
	prefix = "gatehouse-test-" + rand.Text()
	t.Cleanup(func() {
		if all := keys(t, c, prefix); len(all) > 0 {
			c.Do(context.Background(), c.B().Del().Key(all...).Build())
		}
		c.Close()
	})
	return c, prefix
}

// keys are those with the prefix.
func keys(t *testing.T, c valkey.Client, prefix string) []string {
	t.Helper()
	all, err := c.Do(context.Background(), c.B().Keys().Pattern(prefix+"*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sharing is a node that counts through a Valkey server and has no database.
func sharing(t *testing.T, address, prefix string, l throttle.Limit) *throttle.Throttle {
	t.Helper()
	v, err := throttle.NewValkey("valkey://"+address, prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &throttle.Throttle{Valkey: v, Log: slog.New(slog.DiscardHandler), Limits: func(throttle.Group) throttle.Limit { return l }}
}

// share lets nodes tell one another.
func share(t *testing.T, nodes ...*throttle.Throttle) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Share(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// R418, R219: what is used up at one node is used up at the others, also through
// Valkey; of those only who comes near is told, and other installations are not.
func TestNodesShareThroughValkey(t *testing.T) {
	c, prefix := server(t)
	l := throttle.Limit{Each: 80, All: 1000, Per: day}
	a, b, stranger := sharing(t, theValkey, prefix+":x", l), sharing(t, theValkey, prefix+":x", l), sharing(t, theValkey, prefix+":y", l)
	for _, n := range []*throttle.Throttle{a, b, stranger} {
		t.Cleanup(n.Valkey.Close)
	}
	passed(a, "door", "flood", 60)
	passed(b, "door", "flood", 11)
	passed(stranger, "door", "flood", 50)
	for i := range 50 {
		passed(a, "door", fmt.Sprint("honest ", i), 2)
	}
	share(t, a, b, stranger)
	passed(a, "door", "flood", 1) // it learns when it is asked
	share(t, a)
	if got := passed(a, "door", "flood", 100); got != 8 {
		t.Errorf("%d more at one node", got)
	}
	share(t, a)
	passed(b, "door", "flood", 1)
	share(t, b)
	if got := passed(b, "door", "flood", 100); got != 0 {
		t.Errorf("%d more at the other", got)
	}
	if got := passed(b, "door", "honest 1", 78); got != 78 {
		t.Errorf("%d of somebody honest", got)
	}
	if got := passed(stranger, "door", "flood", 100); got != 30 {
		t.Errorf("%d at another installation", got)
	}
	all := keys(t, c, prefix+":x")
	if len(all) != 2 { // the flood, and all together
		t.Errorf("keys: %q", all)
	}
	for _, key := range all {
		left, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64()
		if err != nil || left <= 0 || time.Duration(left)*time.Millisecond > day+5*time.Second || strings.Contains(key, "flood") {
			t.Errorf("%s ends in %d ms, %v", key, left, err)
		}
	}
}

// What counted in a window is gone after it, here and at the server, which nobody
// sweeps.
func TestAWindowEndsInValkey(t *testing.T) {
	t.Parallel()
	c, prefix := server(t)
	th := sharing(t, theValkey, prefix, throttle.Limit{Each: 8, Per: 2 * time.Second})
	t.Cleanup(th.Valkey.Close)
	within(t, "told in one window", func() bool {
		passed(th, "door", "a", 20)
		share(t, th)
		return len(keys(t, c, prefix)) > 0
	})
	within(t, "let through again", func() bool { return th.Take("door", "a") == nil })
	within(t, "gone", func() bool { return len(keys(t, c, prefix)) == 0 })
}

// Where Valkey is away or silent, from the start or later, each node counts by itself:
// a limit holds, nobody is refused for want of a counter. What was counted is told
// later, and once, although it arrived whenever only the answers were lost.
func TestASilentValkeyNeitherOpensNorCloses(t *testing.T) {
	for _, outage := range []int32{hangsUp, silent, deafened} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			t.Parallel()
			_, prefix := server(t)
			way := between(t)
			l := throttle.Limit{Each: 10, Per: day}
			a, b := sharing(t, way.address, prefix, l), sharing(t, theValkey, prefix, l)
			t.Cleanup(a.Valkey.Close)
			t.Cleanup(b.Valkey.Close)
			fails := func() {
				t.Helper()
				began := time.Now()
				if err := a.Share(t.Context()); err == nil || time.Since(began) > 5*time.Second {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			}
			way.turn(outage) // at the start
			passed(a, "door", "x", 3)
			fails()
			way.turn(open)
			passed(a, "door", "x", 1)
			share(t, a)
			way.turn(outage) // and later
			passed(a, "door", "x", 2)
			for range 3 {
				fails()
			}
			if a.Take("door", "x") != nil || a.Take("door", "y") != nil {
				t.Error("somebody is refused while it is away")
			}
			way.turn(open)
			share(t, a)
			passed(b, "door", "x", 2)
			share(t, b)
			if got := passed(b, "door", "x", 8); got != 1 {
				t.Errorf("%d more at another node after seven and two", got)
			}
			passed(a, "door", "x", 1)
			share(t, b, a)
			if got := passed(a, "door", "x", 8); got != 0 {
				t.Errorf("%d more at the node after eight and three", got)
			}
			way.turn(outage)
			if fresh := passed(a, "door", "z", 20); fresh != 10 {
				t.Errorf("%d of ten let through while it is away", fresh)
			}
		})
	}
}

// A server that lost everything opens no limit: each node knows what it counted
// itself, and tells it again.
func TestAnEmptiedValkeyIsToldAgain(t *testing.T) {
	c, prefix := server(t)
	l := throttle.Limit{Each: 10, Per: day}
	a, b := sharing(t, theValkey, prefix, l), sharing(t, theValkey, prefix, l)
	t.Cleanup(a.Valkey.Close)
	t.Cleanup(b.Valkey.Close)
	passed(a, "door", "x", 7)
	share(t, a)
	c.Do(t.Context(), c.B().Del().Key(keys(t, c, prefix)...).Build())
	passed(a, "door", "x", 1)
	share(t, a)
	if got := passed(a, "door", "x", 8); got != 2 {
		t.Errorf("%d more at the node itself", got)
	}
	passed(b, "door", "x", 2)
	share(t, a, b)
	if got := passed(b, "door", "x", 8); got != 0 {
		t.Errorf("%d more at the other", got)
	}
}

// A server that is away keeps nobody from starting and stopping; the log says it
// once, before it matters, and sharing begins by itself when it comes.
func TestRunWaitsForValkey(t *testing.T) {
	t.Parallel()
	c, prefix := server(t)
	way := between(t)
	way.turn(hangsUp)
	th := sharing(t, way.address, prefix, throttle.Limit{Each: 5, Per: day})
	var log lines
	th.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	var ended atomic.Bool
	go func() { th.Run(ctx); ended.Store(true) }()
	within(t, "logged", func() bool { return log.count() == 1 })
	passed(th, "door", "x", 5)
	tried := way.calls.Load()
	within(t, "tried again", func() bool { return way.calls.Load() > tried+2 })
	if log.count() != 1 {
		t.Errorf("it is logged %d times", log.count())
	}
	way.turn(open)
	within(t, "shared", func() bool { return len(keys(t, c, prefix)) == 1 })
	passed(th, "door", "z", 5)
	within(t, "shared, and the answer has come before", func() bool { return len(keys(t, c, prefix)) == 2 })
	way.turn(silent)
	passed(th, "door", "y", 5)
	within(t, "logged again", func() bool { return log.count() == 2 })
	cancel()
	within(t, "ended", ended.Load)
}

// The password is one of the server's: with a wrong one nothing is shared, and no
// error shows it.
func TestAWrongPasswordIsNotShown(t *testing.T) {
	_, prefix := server(t)
	th := sharing(t, "nobody:hunter2@"+theValkey, prefix, throttle.Limit{Each: 5, Per: day})
	t.Cleanup(th.Valkey.Close)
	if err := th.Share(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// Addresses are of one server, proven by TLS where they say so, and errors do not
// repeat them.
func TestAddressesOfValkey(t *testing.T) {
	for _, address := range []string{
		"valkey://h", "valkey://h/", "redis://h:1", "valkeys://h:6379/2", "rediss://:hunter2@h", "valkey://dana:hunter2@[::1]:6379/15",
	} {
		if _, err := throttle.NewValkey(address, "", nil); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{
		"", "h:6379", "valkey://", "valkey://:6379", "unix:///hunter2", "https://h", "valkey://h:hunter2", "valkey://h/hunter2", "valkey://h/-1", "valkey://h/1/2",
		"rediss://h?skip_verify=true", "valkey://h?addr=i:1", "valkey://h?", "valkey://h#hunter2", "valkey://hunter2@h", "valkey://dana:hunter2%zz@h", "valkey://:@h",
	} {
		if _, err := throttle.NewValkey(address, "", nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// lines count what is written to them.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), "\n")
}

// What a way to the server does with connections.
const (
	open     int32 = iota
	hangsUp        // it ends them
	silent         // it takes what comes, and hands on nothing
	deafened       // it hands on what is said, and loses the answers
)

// way is one that leads to the server.
type way struct {
	address string
	state   atomic.Int32
	calls   atomic.Int32 // connections that were made

	mu    sync.Mutex
	conns []net.Conn
}

func between(t *testing.T) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{address: l.Addr().String()}
	t.Cleanup(func() { _ = l.Close(); w.end() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			w.calls.Add(1)
			there, err := net.Dial("tcp", theValkey)
			if err != nil || w.state.Load() == hangsUp {
				_ = here.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, here, there)
			w.mu.Unlock()
			go w.carry(there, here, silent)
			go w.carry(here, there, silent, deafened)
		}
	}()
	return w
}

// carry hands on what comes, unless the way is in a state in which that is lost.
func (w *way) carry(to, from net.Conn, lost ...int32) {
	defer func() { _ = to.Close() }()
	for piece := make([]byte, 1<<16); ; {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		if slices.Contains(lost, w.state.Load()) {
			continue
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

// turn makes the way go on in another state.
func (w *way) turn(state int32) {
	if w.state.Store(state); state == hangsUp {
		w.end()
	}
}

func (w *way) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}
