package audit

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Other stands for the addresses and reasons beyond what is counted singly.
const Other = "other"

// maxStrangers bounds the memory and the disk that strangers can use: so many
// different counts are kept between two flushes.
const maxStrangers = 256

// strangers counts what callers that nobody knows were refused and allowed.
type strangers struct {
	mu     sync.Mutex
	counts map[stranger]int64
}

type stranger struct {
	outcome        Outcome
	reason, prefix string
}

// Stranger counts how a request of a caller ended that did not prove who it is:
// Denied, or Allowed where anyone may. reason says what it was, prefix is from
// Prefix. Counts are recorded once a minute, so that strangers cannot fill the
// disk; see Run.
func (l *Log) Stranger(outcome Outcome, reason, prefix string) {
	l.strangers.add(stranger{outcome, reason, prefix}, 1)
}

// add keeps at most maxStrangers single counts, one of other addresses for each
// of as many reasons, and one for all else.
func (s *strangers) add(who stranger, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = map[stranger]int64{}
	}
	others := stranger{who.outcome, who.reason, Other}
	for _, key := range []stranger{who, others} {
		limit := maxStrangers
		if key == others {
			limit = 2 * maxStrangers
		}
		if _, known := s.counts[key]; known || len(s.counts) < limit {
			s.counts[key] += n
			return
		}
	}
	s.counts[stranger{who.outcome, Other, Other}] += n
}

func (s *strangers) take() map[stranger]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.counts
	s.counts = nil
	return counts
}

// Run records the counts of Stranger once a minute on the system chain, until
// ctx ends, and then what is left. The error is that of the last time; counts
// that could not be recorded are kept until then.
func (l *Log) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return l.flush(context.WithoutCancel(ctx))
		case <-ticker.C:
			if err := l.flush(ctx); err != nil && ctx.Err() == nil {
				slog.ErrorContext(ctx, "what strangers did could not be recorded yet", "err", err)
			}
		}
	}
}

func (l *Log) flush(ctx context.Context) error {
	counts := l.strangers.take()
	if len(counts) == 0 {
		return nil
	}
	events := make([]Event, 0, len(counts))
	for who, n := range counts {
		events = append(events, Event{
			Workspace: System, Actor: "anonymous", Action: "stranger", Outcome: who.outcome, Target: who.reason,
			Detail: map[string]string{"address": who.prefix, "count": strconv.FormatInt(n, 10)},
		})
	}
	slices.SortFunc(events, func(a, b Event) int {
		return slices.Compare([]string{a.Target, a.Detail["address"]}, []string{b.Target, b.Detail["address"]})
	})
	err := l.Write(ctx, events...)
	if err != nil {
		for who, n := range counts {
			l.strangers.add(who, n)
		}
	}
	return err
}

// Prefix is the network of a remote address, with or without a port: /24 for
// IPv4 and /48 for IPv6, which is what one stranger can be expected to hold.
// What is no address is Other.
func Prefix(remote string) string {
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		withPort, err := netip.ParseAddrPort(remote)
		if err != nil {
			return Other
		}
		addr = withPort.Addr()
	}
	bits := 48
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		bits = 24
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return Other
	}
	return prefix.String()
}
