package upstream

import (
	"strings"
	"sync"
)

// tail keeps the last lines that a server printed.
type tail struct {
	mu    sync.Mutex
	lines []string
}

const (
	tailLines = 100
	tailWidth = 500 // bytes of a line
)

func (t *tail) add(line string) {
	line = strings.ToValidUTF8(line[:min(len(line), tailWidth)], "?")
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, strings.TrimRight(line, "\r\n"))
}

// last are the most recent n lines.
func (t *tail) last(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines[max(0, len(t.lines)-n):], "\n")
}
