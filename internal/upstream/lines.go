package upstream

import (
	"bytes"
	"strings"
	"sync"
)

// lines is a writer that hands on whole lines, each as a slice of its own.
// Of a line longer than max only the beginning and the end are kept.
type lines struct {
	max  int
	each func(line []byte)
	over func(head, tail []byte)

	rest []byte
	head []byte // the beginning of the current line once it is too long
}

// edge is how much of each end of a line that is too long is kept.
const edge = 256

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, after, found := bytes.Cut(p, []byte{'\n'})
		l.add(line)
		if !found {
			return n, nil
		}
		l.end()
		p = after
	}
}

func (l *lines) add(p []byte) {
	l.rest = append(l.rest, p...)
	if l.head == nil && len(l.rest) <= l.max {
		return
	}
	if l.head == nil {
		l.head = bytes.Clone(l.rest[:min(len(l.rest), edge)])
	}
	l.rest = bytes.Clone(l.rest[max(0, len(l.rest)-edge):])
}

func (l *lines) end() {
	switch {
	case l.head != nil:
		l.over(l.head, l.rest)
	case len(bytes.TrimSpace(l.rest)) > 0:
		l.each(l.rest)
	}
	l.rest, l.head = nil, nil
}

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
