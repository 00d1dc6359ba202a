package web

import (
	"os/exec"
	"testing"
)

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

// What a page offers to be pasted into a terminal is the one command that it says,
// whatever the client calls itself.
func TestCommandToPasteIsOneCommand(t *testing.T) {
	for id, want := range map[string]string{
		"mcp-client-1":                 "mcp-client-1",
		"https://app.example/c.json":   "https://app.example/c.json",
		"https://app.example/;reboot":  "'https://app.example/;reboot'",
		"https://app.example/$(id)&":   "'https://app.example/$(id)&'",
		"https://app.example/';id;'":   `'https://app.example/'\'';id;'\'''`,
		"https://app.example/c?x=[1]!": "'https://app.example/c?x=[1]!'",
	} {
		if got := word(id); got != want {
			t.Errorf("%s becomes %s", id, got)
		}
		if shown, err := exec.Command("sh", "-c", "printf %s "+word(id)).Output(); err != nil || string(shown) != id {
			t.Errorf("a shell reads %q in %s, %v", shown, word(id), err)
		}
	}
}
