package audit

import (
	"maps"
	"sync"
	"time"
)

// carrier is the member of a pending event's Detail that names the node which
// carries the call.
const carrier = "node"

// carriedBy is the event, saying which node carries its call.
func carriedBy(node string, e Event) Event {
	detail := map[string]string{carrier: node}
	maps.Copy(detail, e.Detail)
	e.Detail = detail
	return e
}

// slack covers the moments between the time of an event and its commit.
const slack = time.Minute

// carried are the calls that this node has under way: their pending event is
// written, or about to be, and their outcome is not.
type carried struct {
	mu    sync.Mutex
	since map[string]int64 // call → time of its pending event
	lost  lost
	shown time.Time // when this node last gave a sign of life
}

// lost are calls that are over, whose outcome could not be written.
type lost struct {
	calls int
	since int64 // time of the oldest pending event
}

// begin is called before events are written.
func (c *carried) begin(rows []*row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rows {
		if r.Outcome != Pending {
			continue
		}
		if c.since == nil {
			c.since = map[string]int64{}
		}
		c.since[r.Call] = r.Time
	}
}

// end is called when they are, or could not be.
func (c *carried) end(rows []*row, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rows {
		began, under := c.since[r.Call]
		if !under || err == nil && r.Outcome == Pending {
			continue
		}
		delete(c.since, r.Call)
		if err == nil {
			continue
		}
		if c.lost.calls == 0 || began < c.lost.since {
			c.lost.since = began
		}
		c.lost.calls++
	}
}

// oldest is a time before which no call that is carried or lost was pending; now
// if there is none.
func (c *carried) oldest(now int64) (oldest int64, none bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest, none = now, len(c.since) == 0 && c.lost.calls == 0
	for _, began := range c.since {
		oldest = min(oldest, began)
	}
	if c.lost.calls > 0 {
		oldest = min(oldest, c.lost.since)
	}
	return oldest - slack.Microseconds(), none
}

// shows reports whether the last sign of life is young enough.
func (c *carried) shows() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.shown) < beatEvery
}

func (c *carried) showed(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown = at
}

// left are the calls under way, and those that are lost.
func (c *carried) left() (map[string]int64, lost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.since), c.lost
}

// found says that those lost calls have an outcome now; if more were lost
// meanwhile, it is done again.
func (c *carried) found(l lost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == l {
		c.lost = lost{}
	}
}
