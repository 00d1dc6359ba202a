package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// stdio is the connection to a server that is a child of ours. The child is
// started at once and again whenever it ends.
type stdio struct {
	spec  Spec
	self  mcp.Implementation
	log   *slog.Logger
	said  tail
	hello time.Duration // until a new child has shaken hands; package runners download first
	grace time.Duration // between asking a child to end and insisting

	cancel context.CancelFunc
	done   chan struct{} // closed when the last child is gone

	mu      sync.Mutex
	current *child
	err     error         // why there is none; nil while one is starting
	changed chan struct{} // closed at the next change of the two
}

func openStdio(spec Spec, self mcp.Implementation, log *slog.Logger) *stdio {
	s := &stdio{spec: spec, self: self, log: log, hello: time.Minute, grace: 2 * time.Second}
	s.run()
	return s
}

// run begins to keep a child running, until Close.
func (s *stdio) run() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done, s.changed = cancel, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.done)
		keep(ctx, s.live)
	}()
}

// Close ends the child and everything in its process group.
func (s *stdio) Close() {
	s.cancel()
	<-s.done
}

// Said are the last lines that the child printed on its standard error, and those
// on its standard output that were not MCP.
func (s *stdio) Said(lines int) string { return s.said.last(lines) }

// live is the life of one child. It keeps its thread, which the kernel takes
// for the child's parent.
func (s *stdio) live(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s.set(nil, nil)
	err := s.attend(ctx)
	s.set(nil, err)
	if ctx.Err() == nil {
		s.log.Warn("server ended", "server", s.spec.Name, "err", err)
	}
}

// attend starts a child, offers it to callers, and returns why it is gone.
func (s *stdio) attend(ctx context.Context) error {
	c, err := start(s.spec, &s.said)
	if err != nil {
		return s.notStarted(err)
	}
	err = s.greet(ctx, c)
	if err == nil {
		s.set(c, nil)
		select {
		case <-ctx.Done():
		case <-c.gone:
		}
	}
	c.stop(s.grace)
	return s.reason(c, err)
}

func (s *stdio) greet(ctx context.Context, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, s.hello)
	defer cancel()
	return c.handshake(ctx, s.self)
}

func (s *stdio) notStarted(err error) error {
	why := "it cannot be run"
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		why = "no such program where the gateway runs"
	}
	return unreachable.New("can't start %q (%s)", s.spec.Name, s.spec.Command[0]).WithWhy("%s", why).Because(err).
		WithFix("install the program, or remove the server and add it with the right command")
}

// reason says why a child is gone: it failed to shake hands with err, or it
// served and ended.
func (s *stdio) reason(c *child, err error) error {
	switch {
	case err == nil:
		return unavailable.New("%q is not running", s.spec.Name).WithWhy("it ended and is being started again").Because(c.exit)
	case problem.Is(err, unavailable): // it ended by itself
		return unreachable.New("%q ended before it answered", s.spec.Name).WithWhy("%s", c.cmd.ProcessState).Because(err)
	case !problem.Is(err, cancelled):
		return err
	case c.noise.Load() > 0:
		return garbage.New("what %q prints is not MCP", s.spec.Name).Because(err).
			WithWhy("no answer to the handshake in %v, but other lines: %d", s.hello, c.noise.Load())
	}
	return unreachable.New("%q does not answer", s.spec.Name).WithWhy("nothing in %v", s.hello).Because(err)
}

func (s *stdio) set(c *child, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.err = c, err
	close(s.changed)
	s.changed = make(chan struct{})
}

// child is the running child. While one is starting it waits.
func (s *stdio) child(ctx context.Context) (*child, error) {
	for {
		s.mu.Lock()
		c, err, changed := s.current, s.err, s.changed
		s.mu.Unlock()
		if c != nil || err != nil {
			return c, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, cancelled.New("%q is still starting", s.spec.Name).Because(context.Cause(ctx))
		}
	}
}

// Connect waits for the handshake of the child that is running or starting.
func (s *stdio) Connect(ctx context.Context) (mcp.InitializeResult, error) {
	c, err := s.child(ctx)
	if err != nil {
		return mcp.InitializeResult{}, err
	}
	return c.info, nil
}

// Call uses the running child. One that has ended is not waited for.
func (s *stdio) Call(ctx context.Context, method string, params json.RawMessage, notify Notify) (json.RawMessage, error) {
	c, err := s.child(ctx)
	if err != nil {
		return nil, err
	}
	return c.call(ctx, method, params, notify)
}

// State is that of the child.
func (s *stdio) State() (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.current != nil:
		return Connected, nil
	case s.err != nil:
		return Down, s.err
	}
	return Starting, nil
}
