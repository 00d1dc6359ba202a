package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// counted are the refusals on the system chain: reason, prefix, count.
func counted(t *testing.T, l *Log) (found []string) {
	t.Helper()
	for _, e := range events(t, l, System) {
		if e.Action != "stranger" || e.Outcome != Denied || e.Actor != "anonymous" {
			t.Errorf("event %+v", e)
		}
		found = append(found, strings.Join([]string{e.Target, e.Detail["address"], e.Detail["count"]}, " "))
	}
	return found
}

// run runs the job inside a synctest bubble and returns how to end it.
func run(t *testing.T, l *Log) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// Refusals of strangers are one event a minute for each reason and network.
func TestStrangersAreCountedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, storetest.Open(t, storetest.SQLite(t)))
		stop := run(t, l)
		for range 1000 {
			l.Stranger(Denied, "TOKEN_MISSING", "192.0.2.0/24")
		}
		l.Stranger(Denied, "TOKEN_EXPIRED", "192.0.2.0/24")
		l.Stranger(Denied, "TOKEN_EXPIRED", "198.51.100.0/24")
		time.Sleep(59 * time.Second)
		if got := counted(t, l); got != nil {
			t.Errorf("before a minute: %q", got)
		}
		time.Sleep(2 * time.Second)
		want := []string{"TOKEN_EXPIRED 192.0.2.0/24 1", "TOKEN_EXPIRED 198.51.100.0/24 1", "TOKEN_MISSING 192.0.2.0/24 1000"}
		if got := counted(t, l); !slices.Equal(got, want) {
			t.Errorf("after a minute: %q", got)
		}
		time.Sleep(5 * time.Minute)
		if got := counted(t, l); len(got) != 3 {
			t.Errorf("silence was recorded: %q", got)
		}
		l.Stranger(Denied, "TOKEN_MISSING", "192.0.2.0/24")
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := counted(t, l); len(got) != 4 || got[3] != "TOKEN_MISSING 192.0.2.0/24 1" {
			t.Errorf("at shutdown: %q", got)
		}
		intact(t, l, System, 4)
	})
}

// Counts that could not be recorded are not lost.
func TestStrangersAreKeptUntilTheyAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, storetest.Open(t, storetest.SQLite(t)))
		stop := run(t, l)
		exec(t, l, `ALTER TABLE audit_event RENAME TO gone`)
		l.Stranger(Denied, "TOKEN_MISSING", "192.0.2.0/24")
		time.Sleep(90 * time.Second)
		l.Stranger(Denied, "TOKEN_MISSING", "192.0.2.0/24")
		exec(t, l, `ALTER TABLE gone RENAME TO audit_event`)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := counted(t, l); !slices.Equal(got, []string{"TOKEN_MISSING 192.0.2.0/24 2"}) {
			t.Errorf("recorded %q", got)
		}
	})
}

func TestShutdownSaysWhatCouldNotBeRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, storetest.Open(t, storetest.SQLite(t)))
		stop := run(t, l)
		exec(t, l, `DROP TABLE audit_event`)
		l.Stranger(Denied, "TOKEN_MISSING", "192.0.2.0/24")
		if err := stop(); err == nil {
			t.Error("the last counts were lost in silence")
		}
	})
}

// However many strangers come, memory and disk are bounded, and nobody is
// forgotten.
func TestStrangersAreBounded(t *testing.T) {
	var s strangers
	const many = 5 * maxStrangers
	for i := range many {
		s.add(stranger{Denied, "TOKEN_MISSING", fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)}, 1)
		s.add(stranger{Denied, fmt.Sprint("REASON_", i), "192.0.2.0/24"}, 1)
	}
	counts := s.take()
	if len(counts) > 2*maxStrangers+1 {
		t.Errorf("%d counts are kept", len(counts))
	}
	var sum int64
	for _, n := range counts {
		sum += n
	}
	if sum != 2*many || counts[stranger{Denied, "TOKEN_MISSING", Other}] == 0 || counts[stranger{Denied, Other, Other}] == 0 {
		t.Errorf("%d refusals counted, want %d", sum, 2*many)
	}
}

func TestPrefixIsTheNetworkOfAnAddress(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.77":               "192.0.2.0/24",
		"192.0.2.77:4711":          "192.0.2.0/24",
		"[::ffff:192.0.2.77]:4711": "192.0.2.0/24",
		"2001:db8:1:2::7":          "2001:db8:1::/48",
		"[2001:db8:1:2::7]:4711":   "2001:db8:1::/48",
		"[fe80::1%eth0]:80":        "fe80::/48",
		"":                         Other,
		"@":                        Other,
		"example.com:80":           Other,
	} {
		if got := Prefix(remote); got != want {
			t.Errorf("Prefix(%q) = %s, want %s", remote, got, want)
		}
	}
}
