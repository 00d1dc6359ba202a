package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// child is one running process that speaks MCP on its standard streams. Many
// callers share it: every request gets an id and a progress token of ours.
type child struct {
	name string
	cmd  *exec.Cmd
	said *tail
	info mcp.InitializeResult

	in       *os.File
	writing  chan struct{} // held while a message is written
	patience time.Duration // how long an idle child may leave a message unread
	gone     chan struct{} // closed when the process has ended and its output was read
	exit     error         // how it ended, once gone is closed
	noise    atomic.Int64  // lines on standard output that were not MCP
	hear     func(mcp.Message)
	asking   sync.WaitGroup

	mu      sync.Mutex
	lastID  int64
	waiting map[int64]*waiter
}

// waiter is a call in flight.
type waiter struct {
	id     int64
	ctx    context.Context
	token  json.RawMessage // the caller's progress token
	peer   tool.Peer
	answer chan answer
	wake   chan struct{} // there are notes
	asked  *questions    // of the server, put while this call alone was running

	mu    sync.Mutex
	notes []mcp.Message
}

type answer struct {
	result json.RawMessage
	err    error
}

// errNotSent is the cause of a call that the child cannot have seen.
var errNotSent = errors.New("the call was not sent")

const (
	writeTimeout = 10 * time.Second // a child that reads nothing for so long is stuck
	noteBacklog  = 64               // notifications that a slow caller may lag behind; more are dropped
)

// basics are the variables that a child gets from us.
var basics = []string{"PATH", "HOME", "USER", "LANG", "TMPDIR"}

func environment(declared map[string]seal.Secret) []string {
	env := []string{} // nil would mean: all of ours
	for _, name := range basics {
		if value, ok := os.LookupEnv(name); ok && declared[name].Empty() {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		env = append(env, name+"="+declared[name].Reveal())
	}
	return env
}

// start runs the command. The calling goroutine must be locked to its thread for
// as long as the child lives: Linux ends the child when that thread ends. What it
// says outside of calls goes to hear.
func start(spec Spec, said *tail, hear func(mcp.Message)) (*child, error) {
	c := &child{
		name: spec.Name, said: said, hear: hear, patience: writeTimeout,
		writing: make(chan struct{}, 1), gone: make(chan struct{}), waiting: map[int64]*waiter{},
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.in = out
	c.cmd = exec.Command(spec.Command[0], spec.Command[1:]...)
	c.cmd.Env = environment(spec.Env)
	c.cmd.SysProcAttr = ownGroup()
	c.cmd.WaitDelay = time.Second // for output held open by processes that the child left behind
	c.cmd.Stdin = in
	c.cmd.Stdout = &mcp.Lines{Max: maxMessage, Each: c.line, Over: c.overlong}
	c.cmd.Stderr = &mcp.Lines{
		Max: maxMessage, Each: func(line []byte) { said.add(string(line)) },
		Over: func(head, _ []byte) { said.add(string(head)) },
	}
	err = errors.Join(c.cmd.Start(), in.Close())
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	go func() {
		c.exit = c.cmd.Wait()
		close(c.gone)
	}()
	return c, nil
}

// stop asks the child to end by closing its input, then by a signal, then does
// not ask (MCP 2025-11-25 lifecycle, "Shutdown"). It returns when the child is
// gone; what the child left in its group goes with it.
func (c *child) stop(grace time.Duration) {
	_ = c.in.Close() // closed before if the child was stuck
	for _, kill := range []func(*os.Process){terminate, kill} {
		select {
		case <-c.gone:
		case <-time.After(grace):
			kill(c.cmd.Process)
		}
	}
	<-c.gone
	kill(c.cmd.Process)
	c.asking.Wait()
}

// handshake makes the child ready for calls.
func (c *child) handshake(ctx context.Context, self mcp.Implementation) error {
	info, err := shakeHands(c.name, self, shareable, func(params json.RawMessage) (json.RawMessage, error) {
		return c.call(ctx, "initialize", params, nil)
	})
	c.info = info
	if err != nil {
		return err
	}
	return c.send(ctx, mcp.Message{Method: "notifications/initialized"})
}

func (c *child) call(ctx context.Context, method string, params json.RawMessage, peer tool.Peer) (json.RawMessage, error) {
	w := c.expect(ctx, mcp.Field(params, "_meta", "progressToken"), peer)
	defer c.forget(w)
	id := strconv.AppendInt(nil, w.id, 10)
	if w.token != nil {
		var err error
		if params, err = mcp.Replace(params, id, "_meta", "progressToken"); err != nil {
			return nil, err
		}
	}
	if err := c.send(ctx, mcp.Message{ID: id, Method: method, Params: params}); err != nil {
		return nil, err
	}
	result, err := c.await(ctx, w)
	if ctx.Err() != nil && method != "initialize" { // which must not be cancelled
		params := fmt.Appendf(nil, `{"requestId":%d,"reason":"the caller cancelled"}`, w.id)
		_ = c.send(context.WithoutCancel(ctx), mcp.Message{Method: "notifications/cancelled", Params: params}) // a courtesy
	}
	return result, err
}

func (c *child) expect(ctx context.Context, token json.RawMessage, peer tool.Peer) *waiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	w := &waiter{id: c.lastID, ctx: ctx, token: token, peer: peer, answer: make(chan answer, 1), wake: make(chan struct{}, 1)}
	c.waiting[w.id] = w
	return w
}

// only is the call in flight, if there is exactly one: what the child says then
// belongs to it. Of several nobody knows.
func (c *child) only() *waiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) != 1 {
		return nil
	}
	for _, w := range c.waiting {
		return w
	}
	return nil
}

func (c *child) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, w.id)
}

// find returns the call with this id as JSON, or nil.
func (c *child) find(id json.RawMessage) *waiter {
	n, err := strconv.ParseInt(string(id), 10, 64)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting[n]
}

// await passes notifications on and returns the answer.
func (c *child) await(ctx context.Context, w *waiter) (json.RawMessage, error) {
	for {
		select {
		case <-w.wake:
			w.pass()
		case a := <-w.answer:
			return w.finish(a)
		case <-ctx.Done():
			return nil, cancelled.New("the call to %q was cancelled", c.name).Because(context.Cause(ctx))
		case <-c.gone:
			select {
			case a := <-w.answer: // its last words
				return w.finish(a)
			default:
				return nil, unavailable.New("%q ended before it answered", c.name).Because(c.exit)
			}
		}
	}
}

// finish first passes on what came before the answer.
func (w *waiter) finish(a answer) (json.RawMessage, error) {
	w.pass()
	return a.result, a.err
}

// note keeps a notification for the caller, unless it lags behind.
func (w *waiter) note(m mcp.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.peer == nil || len(w.notes) >= noteBacklog {
		return
	}
	w.notes = append(w.notes, m)
	select {
	case w.wake <- struct{}{}:
	default: // it has been woken
	}
}

// pass hands over what was kept. Progress gets its caller's token back.
func (w *waiter) pass() {
	w.mu.Lock()
	notes := w.notes
	w.notes = nil
	w.mu.Unlock()
	for _, m := range notes {
		params, err := m.Params, error(nil)
		if m.Method == "notifications/progress" {
			params, err = mcp.Replace(params, w.token, "progressToken")
		}
		if err == nil {
			w.peer.Notify(m.Method, params)
		}
	}
}

// send writes one message as one line. A child that does not read is broken off:
// half a line has no continuation. One that works on another call may take its
// time: many read the next message only then.
func (c *child) send(ctx context.Context, m mcp.Message) error {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-c.gone:
		return unavailable.New("%q is not running", c.name).WithWhy("it ended before the call reached it, so nothing was carried out").
			Because(errors.Join(errNotSent, c.exit))
	case <-ctx.Done():
		return cancelled.New("the call to %q was cancelled", c.name).Because(context.Cause(ctx))
	}
	if err := c.write(mcp.Line(m.Encode())); err != nil {
		kill(c.cmd.Process)
		return unavailable.New("%q does not take calls", c.name).WithWhy("it does not read what it is sent, so nothing was carried out").
			Because(errors.Join(errNotSent, err))
	}
	return nil
}

func (c *child) write(line []byte) error {
	for {
		if err := c.in.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
			return err
		}
		n, err := c.in.Write(line)
		line = line[n:]
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 && !c.busy() {
			return err
		}
	}
}

// busy reports whether the child owes answers to others than the one who writes.
func (c *child) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) > 1
}

// line handles what the child printed on its standard output.
func (c *child) line(line []byte) {
	m, refusal := mcp.Parse(line)
	switch {
	case refusal != nil:
		c.unreadable(m.ID, line, refusal)
	case m.Error != nil:
		c.deliver(m.ID, answer{err: m.Error})
	case m.IsResponse():
		c.deliver(m.ID, answer{result: m.Result})
	case m.IsRequest():
		c.asks(m)
	default:
		c.notified(m)
	}
}

// asks takes a request of the child to the only caller it can be for.
func (c *child) asks(m mcp.Message) {
	w := c.only()
	if w == nil || w.peer == nil || m.Method == "ping" {
		c.reply(answerTo(m))
		return
	}
	if w.asked == nil { // nobody but the reader of the child looks at it
		w.asked = &questions{ctx: w.ctx, peer: w.peer, answer: c.reply, spawn: c.asking.Go}
	}
	w.asked.put(m)
}

// reply answers the child; if it does not read it has ended.
func (c *child) reply(m mcp.Message) { _ = c.send(context.Background(), m) }

func (c *child) notified(m mcp.Message) {
	switch m.Method {
	case "notifications/progress":
		if w := c.find(mcp.Field(m.Params, "progressToken")); w != nil && w.token != nil {
			w.note(m)
		}
	case "notifications/message":
		if w := c.only(); w != nil {
			w.note(m)
		}
	case "notifications/cancelled":
		if w := c.only(); w != nil && w.asked != nil {
			w.asked.drop(mcp.Field(m.Params, "requestId"))
		}
	default:
		c.hear(m)
	}
}

func (c *child) deliver(id json.RawMessage, a answer) {
	if w := c.find(id); w != nil {
		select {
		case w.answer <- a:
		default: // it has answered before
		}
	}
}

// unreadable notes a line that is not MCP. If it was meant as an answer, and not
// for a log, the call it belongs to fails.
func (c *child) unreadable(id json.RawMessage, line []byte, refusal *mcp.Error) {
	c.noise.Add(1)
	c.said.add("(not MCP) " + string(line))
	if mcp.Field(line, "jsonrpc") != nil {
		c.deliver(id, answer{err: garbage.New("the answer of %q cannot be read", c.name).WithWhy("it is not MCP: %s", refusal.Message)})
	}
}

// overlong handles a message that is longer than we keep: its id is at either end.
func (c *child) overlong(head, tail []byte) {
	c.noise.Add(1)
	c.said.add("(a line of more than 16 MB) " + string(head))
	c.deliver(mcp.EdgeID(head, tail), answer{err: tooLarge(c.name)})
}
