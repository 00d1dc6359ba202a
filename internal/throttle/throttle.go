// Package throttle says who has asked too often, across nodes.
//
// It counts in memory, and tells the other nodes of what comes near its limit, once
// a second, through the database or a Valkey server. So a request costs no write; a
// limit may be overrun by what the nodes let through within a second; and where that
// one is silent each node goes on with what it knows: nobody is refused for want of a
// counter, and nobody is let through for want of one either.
package throttle

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

//go:embed *.sql
var migrations embed.FS

// Codes are the problems of this package.
var Codes = []problem.Code{TooOften}

// TooOften is the code of what was asked too often.
var TooOften = problem.Code{
	Name: "TOO_OFTEN", Kind: problem.Limited,
	Why: "the limit keeps the server answering for everybody",
	Fix: "wait as long as it says, then try again",
}

// A Group is what is counted together. What stands after a slash is counted by
// itself, under the limit of the whole.
type Group string

// Strangers is the group in which requests without a good token are counted, at
// whichever door.
const Strangers Group = "strangers"

// A Limit is how much of a group is let through in a window of time, which begins
// at a full multiple of its length. The zero Limit lets everything through.
type Limit struct {
	Each int // of one address, person or name; 0: none is too much
	All  int // of all together; 0: none is too much
	Per  time.Duration
}

// ParseLimit reads EACH/ALL/PER, as in 60/1200/1h.
func ParseLimit(s string) (l Limit, err error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return l, fmt.Errorf("it is not of the form EACH/ALL/PER, as in 60/1200/1h")
	}
	for i, n := range []*int{&l.Each, &l.All} {
		if *n, err = strconv.Atoi(parts[i]); err != nil || *n < 0 {
			return l, fmt.Errorf("%q is not a number of requests", parts[i])
		}
	}
	if l.Per, err = time.ParseDuration(parts[2]); err != nil || l.Per < time.Second || l.Per > 24*time.Hour {
		return l, fmt.Errorf("%q is not a time between 1s and 24h", parts[2])
	}
	return l, nil
}

func (l Limit) String() string { return fmt.Sprintf("%d/%d/%s", l.Each, l.All, l.Per) }

// Throttle counts. Set the fields, call Open, run Run.
type Throttle struct {
	DB     *store.DB
	Valkey *Valkey // what the nodes share their counters through; nil: the database
	Log    *slog.Logger
	Limits func(Group) Limit // may change at any time

	mu     sync.Mutex
	counts map[key]*count
	heard  bool // the other nodes' counts could be asked for last time
}

// key is the name of a counter, its group and a hash of who, and when its window
// began (µs).
type key struct {
	name  string
	began int64
}

type count struct {
	key
	ends  int64 // µs
	limit int
	mine  int // counted here
	told  int // how many of those the others were told of
	all   int // how many there were then, of all nodes
}

func (c *count) total() int { return c.all + c.mine - c.told }

func (c *count) over() bool { return c.limit > 0 && c.total() >= c.limit }

// near reports whether the other nodes should know more of the counter.
func (c *count) near() bool { return c.limit > 0 && c.mine > c.told && c.total() > c.limit/8 }

// most is how many counters there are at once. What comes then is not told apart,
// and only counts in all.
const most = 100_000

// Open makes the table.
func (t *Throttle) Open(ctx context.Context) error { return t.DB.Migrate(ctx, "throttle", migrations) }

// Take counts a request of who in a group, or refuses it: with TooOften, and when to
// try again. A request that is refused does not count, so that who waits gets
// through.
func (t *Throttle) Take(g Group, who string) error { return t.count(g, who, true) }

// Check refuses like Take and counts nothing: for groups in which only what fails
// is counted, afterwards.
func (t *Throttle) Check(g Group, who string) error { return t.count(g, who, false) }

func (t *Throttle) count(g Group, who string, counts bool) error {
	group, _, _ := strings.Cut(string(g), "/")
	limit := t.Limits(Group(group))
	if limit.Per <= 0 {
		return nil
	}
	now := time.Now()
	began := now.Truncate(limit.Per)
	t.mu.Lock()
	defer t.mu.Unlock()
	each, all := t.counter(string(g)+" "+hash(who), began, limit, limit.Each), t.counter(string(g), began, limit, limit.All)
	if each.over() || all.over() {
		e := TooOften.New("there were too many requests")
		e.Retry = began.Add(limit.Per).Sub(now)
		return e.WithFix("wait %s, then try again", span(e.Retry))
	}
	if counts {
		each.mine++
		all.mine++
		t.counts[all.key] = all
		if len(t.counts) < most {
			t.counts[each.key] = each
		}
	}
	return nil
}

// counter is the one that is kept under a name, or a new one.
func (t *Throttle) counter(name string, began time.Time, l Limit, limit int) *count {
	if t.counts == nil {
		t.counts = map[key]*count{}
	}
	k := key{name, began.UnixMicro()}
	c := t.counts[k]
	if c == nil {
		c = &count{key: k, ends: began.Add(l.Per).UnixMicro()}
	}
	c.limit = limit
	return c
}

// span is a time to wait, in words and rounded up.
func span(d time.Duration) string {
	n, unit := int((d+time.Second-1)/time.Second), "second"
	if d > 2*time.Minute {
		n, unit = int((d+time.Minute-1)/time.Minute), "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// hash is a name of bounded length that says nothing.
func hash(who string) string {
	sum := sha256.Sum256([]byte(who))
	return hex.EncodeToString(sum[:12])
}

// Address is whom a remote address, with or without a port, stands for: itself for
// IPv4, and the /64 that one customer has for IPv6. The headers of a proxy are none of
// its business: who trusts a proxy has put its client's address there.
func Address(remote string) string {
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		withPort, err := netip.ParseAddrPort(remote)
		if err != nil {
			return "elsewhere"
		}
		addr = withPort.Addr()
	}
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		prefix, _ := addr.Prefix(64) // has that many bits
		return prefix.String()
	}
	return addr.String()
}
