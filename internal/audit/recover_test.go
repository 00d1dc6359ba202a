package audit

import (
	"testing"
	"time"
)

// A call whose process ended before its outcome was known gets one: unknown.
func TestPendingCallsAreClosedAfterACrash(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		event := func(workspace, id string, outcome Outcome) Event {
			e := call(workspace)
			e.Call, e.Outcome = id, outcome
			return e
		}
		write(t, l,
			event("a", "done", Pending), event("a", "lost", Pending), event("b", "lost too", Pending),
			event("a", "done", Failed), event("b", "lost", Allowed)) // of another chain
		start := time.Now()
		time.Sleep(time.Millisecond)
		write(t, l, event("a", "running", Pending))

		if n, err := l.Recover(t.Context(), start); n != 2 || err != nil {
			t.Errorf("recovered %d, %v; want 2", n, err)
		}
		got := events(t, l, "a")[4]
		if got.Call != "lost" || got.Outcome != Unknown || got.Action != "tool.call" || got.Actor != "member:usr_1" || got.Duration != 0 {
			t.Errorf("event %+v", got)
		}
		if n, err := l.Recover(t.Context(), start); n != 0 || err != nil {
			t.Errorf("recovered %d again, %v", n, err)
		}
		intact(t, l, "a", 5)
		intact(t, l, "b", 3)
	})
}
