package upstream

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A child that works on a call reads the next message only later. One caller's
// long message must not cost it its life, and the other callers their calls; a
// child that owes nothing and does not read is stuck.
func TestBusyChildMayReadLate(t *testing.T) {
	for name, calls := range map[string]int{"busy": 2, "stuck": 1} {
		t.Run(name, func(t *testing.T) {
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = in.Close(), out.Close() }()
			c := &child{in: out, waiting: map[int64]*waiter{}, patience: 20 * time.Millisecond}
			for i := range calls {
				c.waiting[int64(i)] = &waiter{}
			}
			begin, read := make(chan struct{}), make(chan int)
			if name == "busy" {
				time.AfterFunc(100*time.Millisecond, func() { close(begin) })
			}
			go func() {
				<-begin
				total, buf := 0, make([]byte, 64<<10)
				for total < 300_000 {
					n, err := in.Read(buf)
					if total += n; err != nil {
						break
					}
				}
				read <- total
			}()
			err = c.write([]byte(strings.Repeat("x", 300_000)))
			if busy := name == "busy"; (err == nil) != busy {
				t.Errorf("%v", err)
			}
			_ = out.Close()
			if name == "stuck" {
				close(begin)
			}
			if n := <-read; name == "busy" && n != 300_000 {
				t.Errorf("%d bytes arrived", n)
			}
		})
	}
}
