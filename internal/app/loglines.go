package app

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// How long a line may wait for others, and how many bytes may.
const (
	linesWait = 50 * time.Millisecond
	linesMost = 32 << 10
)

// lines gathers the lines of the log, so that many of them are one write: a system
// call for each request is a good part of what the request costs. What is worse
// than information is written at once, and so is everything while run does not go.
type lines struct {
	out io.Writer

	mu      sync.Mutex
	running bool
	waiting []byte
	more    chan struct{} // something waits
}

func newLines(out io.Writer) *lines { return &lines{out: out, more: make(chan struct{}, 1)} }

// Write takes a line. An error may be that of lines before it.
func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, line...)
	if !l.running || len(l.waiting) >= linesMost {
		return len(line), l.write()
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(line), nil
}

// write writes out what waits; the lock is held.
func (l *lines) write() error {
	if len(l.waiting) == 0 {
		return nil
	}
	_, err := l.out.Write(l.waiting)
	l.waiting = l.waiting[:0]
	return err
}

func (l *lines) flush(running bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = running
	_ = l.write() // there is nowhere to say it
}

// run is the job that writes out what has waited long enough, until ctx ends.
func (l *lines) run(ctx context.Context) {
	l.flush(true)
	defer l.flush(false)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.more:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(linesWait):
		}
		l.flush(true)
	}
}

// atOnce is a handler that lets nothing wait from warnings on.
type atOnce struct {
	slog.Handler
	lines *lines
}

// Handle is what a slog.Handler has.
func (h atOnce) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.lines.mu.Lock()
		defer h.lines.mu.Unlock()
		_ = h.lines.write() // there is nowhere to say it
	}
	return err
}

// WithAttrs is what a slog.Handler has.
func (h atOnce) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atOnce{h.Handler.WithAttrs(attrs), h.lines}
}

// WithGroup is what a slog.Handler has.
func (h atOnce) WithGroup(name string) slog.Handler {
	return atOnce{h.Handler.WithGroup(name), h.lines}
}
