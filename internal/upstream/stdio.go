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
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
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

	wishes wishes
	ears   ears

	cancel context.CancelFunc
	done   chan struct{} // closed when the last child is gone

	mu      sync.Mutex
	current *child
	err     error         // why there is none; nil while one is starting
	again   bool          // it served well and is being started again, which is worth waiting for
	changed chan struct{} // closed at the next change of these
	since   time.Time     // when they became what they are
	known   *mcp.InitializeResult
}

// settled is how long a child must have served for callers to wait for the next
// one. Who ends sooner may do so every time.
const settled = time.Second

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
	s.set(nil, nil, false)
	began := time.Now()
	served, err := s.attend(ctx)
	s.set(nil, err, served && time.Since(began) > settled && ctx.Err() == nil)
	if ctx.Err() == nil {
		s.log.Warn("server ended", "server", s.spec.Name, "err", err)
	}
}

// attend starts a child, offers it to callers, and returns whether it served and
// why it is gone.
func (s *stdio) attend(ctx context.Context) (served bool, err error) {
	c, err := start(s.spec, &s.said, func(m mcp.Message) { s.ears.hear(m, &s.wishes) })
	if err != nil {
		return false, s.notStarted(err)
	}
	err = s.greet(ctx, c)
	if err == nil {
		s.set(c, nil, false)
		select {
		case <-ctx.Done():
		case <-c.gone:
		}
	}
	c.stop(s.grace)
	return err == nil, s.reason(c, err)
}

// greet shakes hands and asks again for what callers asked of the child before.
func (s *stdio) greet(ctx context.Context, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, s.hello)
	defer cancel()
	if err := c.handshake(ctx, s.self); err != nil {
		return err
	}
	for _, m := range s.wishes.again() {
		if _, err := c.call(ctx, m.Method, m.Params, nil); problem.Is(err, unavailable) {
			return err
		}
	}
	return nil
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
		return unavailable.New("%q is not running", s.spec.Name).WithWhy("it ended and is being started again; nothing was carried out").Because(c.exit)
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

func (s *stdio) set(c *child, err error, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != nil {
		s.known = &c.info
	}
	if (c == nil) != (s.current == nil) || (err == nil) != (s.err == nil) || s.since.IsZero() {
		s.since = time.Now()
	}
	s.current, s.err, s.again = c, err, again
	close(s.changed)
	s.changed = make(chan struct{})
}

// child is the running child, other than the one that is known to be gone. While
// one is starting it waits.
func (s *stdio) child(ctx context.Context, gone *child) (*child, error) {
	for {
		s.mu.Lock()
		c, err, again, changed := s.current, s.err, s.again, s.changed
		s.mu.Unlock()
		if c != nil && c != gone || err != nil && !again {
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
	c, err := s.child(ctx, nil)
	if err != nil {
		return mcp.InitializeResult{}, err
	}
	return c.info, nil
}

// Known is what the last child said.
func (s *stdio) Known(ctx context.Context) (mcp.InitializeResult, bool) {
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	if known != nil {
		return *known, true
	}
	said, err := s.Connect(ctx)
	return said, err == nil
}

// Call uses the running child. One that has ended is not waited for, unless it
// served well and is only being started again.
func (s *stdio) Call(ctx context.Context, sess tool.Session, method string, params json.RawMessage, peer tool.Peer) (json.RawMessage, error) {
	asked, needless, err := s.wishes.add(sess.Key, method, params)
	if err != nil {
		return nil, err
	}
	if needless {
		return json.RawMessage("{}"), nil
	}
	if peer != nil {
		peer = choosy{peer, sess.Key, &s.wishes}
	}
	result, err := s.call(ctx, method, asked, peer)
	if err != nil && method == subscribe {
		s.wishes.unwatch(sess.Key, mcp.Text(params, "uri"))
	}
	return result, err
}

// call uses the running child, and the next one for what the last cannot have seen.
func (s *stdio) call(ctx context.Context, method string, params json.RawMessage, peer tool.Peer) (json.RawMessage, error) {
	c, err := s.child(ctx, nil)
	if err != nil {
		return nil, err
	}
	result, err := c.call(ctx, method, params, peer)
	if errors.Is(err, errNotSent) {
		if c, err = s.child(ctx, c); err != nil {
			return nil, err
		}
		result, err = c.call(ctx, method, params, peer)
	}
	return result, err
}

// choosy is a caller that hears what its session wants.
type choosy struct {
	tool.Peer
	key    string
	wishes *wishes
}

// Notify passes on what is wanted.
func (c choosy) Notify(method string, params json.RawMessage) {
	if c.wishes.wants(c.key, mcp.Message{Method: method, Params: params}) {
		c.Peer.Notify(method, params)
	}
}

// Open opens nothing: callers share the child.
func (s *stdio) Open(ctx context.Context, _ tool.Session) (string, mcp.InitializeResult, error) {
	said, err := s.Connect(ctx)
	return "", said, err
}

// End takes back what the caller asked for.
func (s *stdio) End(ctx context.Context, sess tool.Session) {
	for _, m := range s.wishes.forget(sess.Key) {
		_, _ = s.call(ctx, m.Method, m.Params, nil) // what comes all the same is not passed on
	}
}

// Listen gives the peer what the child says outside of calls.
func (s *stdio) Listen(ctx context.Context, sess tool.Session, peer tool.Peer) {
	defer s.ears.add(sess.Key, peer)()
	<-ctx.Done()
}

// Tell reaches nobody: no session is the caller's own.
func (s *stdio) Tell(context.Context, tool.Session, mcp.Message) {}

// State is that of the child.
func (s *stdio) State() (State, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.current != nil:
		return Connected, s.since, nil
	case s.err != nil:
		return Down, s.since, s.err
	}
	return Starting, s.since, nil
}
