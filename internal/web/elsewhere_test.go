package web

import "testing"

// ux.md §9.5: the page says that a device is on another network only where that is
// known.
func TestElsewhere(t *testing.T) {
	for _, row := range []struct {
		asked, here string
		want        bool
	}{
		{"192.0.2.1", "192.0.2.1:4711", false}, {"192.0.2.1", "192.0.2.2:4711", true}, {"127.0.0.1", "[::1]:4711", false},
		{"2001:db8::1", "[2001:db8::2]:1", false}, {"2001:db8::1", "[2001:db8:1::2]:1", true}, {"192.0.2.1", "[2001:db8::1]:1", false},
	} {
		if got := elsewhere(row.asked, row.here); got != row.want {
			t.Errorf("%s, %s: %v", row.asked, row.here, got)
		}
	}
}
