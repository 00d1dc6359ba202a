package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is one of the kernel's: what is written to the one end, a program shows at
// the other.
func terminal(t *testing.T) (program, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return program, screen
}

// A tool's text does not draw on a terminal. Into a file it goes as it is.
func TestToolTextCannotDrawOnATerminal(t *testing.T) {
	const text = "one\x1b]0;title\x07\u009b2J\ttwo\u202e\nthree\r"
	program, screen := terminal(t)
	(&cli{out: program}).text(text)
	seen := make([]byte, 4096)
	n, err := screen.Read(seen)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(seen[:n]); strings.ContainsAny(got, "\x1b\x07\u009b\u202e") || !strings.Contains(got, "two") || !strings.Contains(got, "three") {
		t.Errorf("shown %q", got)
	}
	var file strings.Builder
	if (&cli{out: &file}).text(text); file.String() != text+"\n" {
		t.Errorf("written %q", file.String())
	}
}
