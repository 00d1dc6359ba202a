package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// httpConn is the connection to a server over Streamable HTTP (MCP 2025-11-25
// transports). Callers share one MCP session, except that of a server which
// hands out sessions a caller may have one of its own; each call is one POST.
type httpConn struct {
	spec      Spec
	self      mcp.Implementation
	transport http.RoundTripper // used without http.Client: no redirect is followed and no cookie kept
	pool      *http.Transport   // of the network connections that it uses
	shared    *line
	known     atomic.Pointer[session] // of the last handshake
	failed    atomic.Pointer[failure] // the last contact, if it failed
	since     atomic.Int64            // when the state became what it is, µs
	lastID    atomic.Int64
	ears      ears // of the shared session

	base    context.Context // ends with Close
	cancel  context.CancelFunc
	mu      sync.Mutex
	own     map[string]*line // by key of the caller's session
	hearers int              // callers that listen to the shared session
	deafen  context.CancelFunc
	closed  bool
	running sync.WaitGroup // calls, streams, and the ends of streams
}

type failure struct {
	err error
	at  time.Time
}

const (
	dialTimeout = 5 * time.Second
	hello       = 15 * time.Second       // for a handshake
	goodbye     = time.Second            // for what is sent after a call or a session
	idleTimeout = 4 * time.Second        // less than the usual 5 s after which servers hang up, so as not to post into a closing connection
	memory      = 250 * time.Millisecond // for so long the failure of a handshake answers everybody
	maxRefusal  = 64 << 10               // bytes read of an answer that is not one
	maxHeader   = 64 << 10               // bytes of a header; that of a session is kept
)

// errSessionLost is the sign to shake hands again.
var errSessionLost = errors.New("the server does not know the session any more")

func openHTTP(spec Spec, self mcp.Implementation, log *slog.Logger) *httpConn {
	pool := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true,

		MaxResponseHeaderBytes: maxHeader,
	}
	h := newHTTP(spec, self, pool, pool)
	h.running.Go(func() { h.reach(log) })
	return h
}

// newHTTP is a connection that begins with its first use.
func newHTTP(spec Spec, self mcp.Implementation, transport http.RoundTripper, pool *http.Transport) *httpConn {
	base, cancel := context.WithCancel(context.Background())
	h := &httpConn{spec: spec, self: self, base: base, cancel: cancel, transport: transport, pool: pool}
	h.shared = newLine(h, shareable)
	h.since.Store(time.Now().UnixMicro())
	return h
}

// reach tries until the first handshake, so that the state is known before the
// first call.
func (h *httpConn) reach(log *slog.Logger) {
	ctx, cancel := context.WithCancel(h.base)
	defer cancel()
	keep(ctx, func(ctx context.Context) {
		_, err := h.Connect(ctx)
		switch {
		case err == nil || h.spec.Provider != "" && problem.Is(err, wantsLogin): // which is there
			cancel()
		case ctx.Err() == nil:
			log.Warn("server not reached", "server", h.spec.Name, "err", err)
		}
	})
}

func baseHeader() http.Header {
	return http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json, text/event-stream"},
		"User-Agent":   {"gatehouse"},
	}
}

// Close ends the shared session at the server, if it is still there. Those of
// callers' own go on: they may come back by way of another process.
func (h *httpConn) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.running.Wait()
	h.shared.end(context.Background())
	h.pool.CloseIdleConnections()
}

// Said is empty: a server over HTTP talks to nobody but its own log.
func (h *httpConn) Said(int) string { return "" }

// State is that of the last contact.
func (h *httpConn) State() (State, time.Time, error) {
	since := time.UnixMicro(h.since.Load())
	if f := h.failed.Load(); f != nil {
		return Down, since, f.err
	}
	if h.known.Load() != nil {
		return Connected, since, nil
	}
	return Starting, since, nil
}

// fail and works remember how the server does.
func (h *httpConn) fail(err error) {
	if h.failed.Swap(&failure{err, time.Now()}) == nil {
		h.since.Store(time.Now().UnixMicro())
	}
}

func (h *httpConn) works() {
	if h.failed.Load() != nil && h.failed.Swap(nil) != nil {
		h.since.Store(time.Now().UnixMicro())
	}
}

// enter counts a call, unless the connection is closed.
func (h *httpConn) enter() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return h.notServed()
	}
	h.running.Add(1)
	return nil
}

func (h *httpConn) notServed() error {
	return unavailable.New("%q is no longer served here", h.spec.Name).WithWhy("it was removed, or the gateway is stopping")
}

// Connect shakes hands unless that has been done.
func (h *httpConn) Connect(ctx context.Context) (mcp.InitializeResult, error) {
	if err := h.enter(); err != nil {
		return mcp.InitializeResult{}, err
	}
	defer h.running.Done()
	s, err := h.shared.connected(ctx)
	if err != nil {
		return mcp.InitializeResult{}, err
	}
	return s.info, nil
}

// Known is that of the last handshake, with whichever caller.
func (h *httpConn) Known(ctx context.Context) (mcp.InitializeResult, bool) {
	if s := h.known.Load(); s != nil {
		return s.info, true
	}
	if h.failed.Load() != nil {
		return mcp.InitializeResult{}, false
	}
	said, err := h.Connect(ctx)
	return said, err == nil
}

// Call makes one request in the caller's session.
func (h *httpConn) Call(ctx context.Context, s tool.Session, method string, params json.RawMessage, peer tool.Peer) (json.RawMessage, error) {
	if err := h.enter(); err != nil {
		return nil, err
	}
	defer h.running.Done()
	l := h.line(s)
	asked, needless, err := l.wishes.add(s.Key, method, params)
	if err != nil {
		return nil, err
	}
	if needless {
		return json.RawMessage("{}"), nil
	}
	result, err := l.call(ctx, s.Key, mcp.Message{Method: method, Params: asked}, peer)
	if err != nil && method == subscribe {
		l.wishes.unwatch(s.Key, mcp.Text(params, "uri"))
	}
	return result, err
}

func (h *httpConn) forgetful() error {
	return unavailable.New("%q forgets its sessions", h.spec.Name).WithWhy("it did not know one that it had just opened")
}

// note remembers how the server does after an attempt to use it, which one that only
// heard of the failure of another is not.
func (h *httpConn) note(err error) {
	e, isProblem := errors.AsType[*problem.Error](err)
	switch {
	case isProblem && (problem.Is(e, unreachable) || problem.Is(e, unavailable) || problem.Is(e, wantsLogin)):
		h.fail(e)
	case !isProblem:
		h.works()
	}
}

// tell sends a message that has no answer. What comes back is not waited for
// unless its length is known.
func (h *httpConn) tell(ctx context.Context, header http.Header, m mcp.Message) error {
	res, err := h.send(ctx, http.MethodPost, header, m.Encode())
	if err == nil {
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode >= 300 {
			return h.refused(res)
		}
		if res.ContentLength >= 0 {
			_, err = io.CopyN(io.Discard, res.Body, maxRefusal)
		}
	}
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return nil
	case ctx.Err() != nil:
		return h.gaveUp(ctx)
	}
	return h.broken(err)
}

func (h *httpConn) send(ctx context.Context, method string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.spec.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header
	return h.transport.RoundTrip(req)
}

// request makes one request and returns its result and the header it came with.
func (e exchange) request(ctx context.Context, m mcp.Message) (json.RawMessage, http.Header, error) {
	// The request ends with its caller or with the connection; after the answer it
	// is only the connection's, so that the end of a stream can be read without
	// the caller.
	h := e.line.h
	e.ctx, e.cancel = context.WithCancel(h.base)
	stop := context.AfterFunc(ctx, e.cancel)
	e.id = strconv.AppendInt(nil, h.lastID.Add(1), 10)
	m.ID = e.id
	result, got, err := e.run(m)
	stop()
	if err != nil && ctx.Err() != nil {
		if m.Method != "initialize" { // which must not be cancelled
			h.running.Go(func() { h.cancelled(e.header, e.id) })
		}
		return nil, got, h.gaveUp(ctx)
	}
	if err != nil && h.base.Err() != nil {
		err = h.notServed()
	}
	return result, got, err
}

// cancelled tells the server that nobody waits any more (MCP 2025-11-25 cancellation).
func (h *httpConn) cancelled(header http.Header, id []byte) {
	ctx, cancel := context.WithTimeout(h.base, goodbye)
	defer cancel()
	params := append(append([]byte(`{"requestId":`), id...), `,"reason":"the caller cancelled"}`...)
	_ = h.tell(ctx, header, mcp.Message{Method: "notifications/cancelled", Params: params}) // a courtesy
}

func (h *httpConn) gaveUp(ctx context.Context) error {
	return cancelled.New("the call to %q was cancelled", h.spec.Name).Because(context.Cause(ctx))
}

// exchange is one request and its answer.
type exchange struct {
	line   *line
	header http.Header
	key    string    // of the caller's session
	peer   tool.Peer // of the caller; nil without one

	ctx    context.Context
	cancel context.CancelFunc // must be called when nothing is read any more
	id     []byte
}

func (e *exchange) run(m mcp.Message) (json.RawMessage, http.Header, error) {
	res, err := e.line.h.send(e.ctx, http.MethodPost, e.header, m.Encode())
	if err != nil {
		e.cancel()
		return nil, nil, e.line.h.broken(err)
	}
	kind := res.Header.Get("Content-Type")
	if res.StatusCode == http.StatusOK && strings.HasPrefix(kind, "text/event-stream") {
		result, err := e.stream(res)
		return result, res.Header, err
	}
	defer e.cancel()
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		return nil, res.Header, e.line.h.refused(res)
	}
	if !strings.HasPrefix(kind, "application/json") {
		return nil, res.Header, e.line.h.notMCP("it answered %d with content of type %.60q", res.StatusCode, kind)
	}
	body, err := e.line.h.read(res)
	if err != nil {
		return nil, res.Header, err
	}
	result, err := e.answer(body)
	return result, res.Header, err
}

// answer takes the result out of the only message of an answer.
func (e *exchange) answer(body []byte) (json.RawMessage, error) {
	m, refusal := mcp.Parse(body)
	switch {
	case refusal != nil:
		return nil, e.line.h.notMCP("its answer cannot be read: %s", refusal.Message)
	case m.Error != nil && (m.ID == nil || bytes.Equal(m.ID, e.id)):
		return nil, m.Error
	case !m.IsResponse() || !bytes.Equal(m.ID, e.id):
		return nil, e.line.h.notMCP("its answer belongs to another request")
	}
	return m.Result, nil
}

// stream reads server-sent events up to the answer. What comes after it is read
// too, so that the network connection can serve again, but nobody waits for it.
func (e *exchange) stream(res *http.Response) (json.RawMessage, error) {
	result, err := e.events(res.Body)
	e.line.h.running.Go(func() {
		defer e.cancel()
		defer time.AfterFunc(goodbye, e.cancel).Stop()
		if err == nil {
			_, _ = io.CopyN(io.Discard, res.Body, maxRefusal) // it failed if there was no more, or not soon enough
		}
		_ = res.Body.Close()
	})
	return result, err
}

// passedOn are the notifications that belong to a call and concern its caller.
var passedOn = map[string]bool{"notifications/progress": true, "notifications/message": true}

func (e *exchange) events(body io.Reader) (json.RawMessage, error) {
	asked := e.line.questions(e.ctx, e.header, e.peer)
	for ev, err := range mcp.ReadEvents(body, maxMessage) {
		if errors.Is(err, mcp.ErrTooLong) {
			return nil, tooLarge(e.line.h.spec.Name)
		}
		if err != nil {
			return nil, e.line.h.broken(err)
		}
		if ev.Name != "message" || len(ev.Data) == 0 {
			continue
		}
		m, refusal := mcp.Parse(ev.Data)
		switch {
		case refusal != nil || m.IsResponse():
			return e.answer(ev.Data)
		case m.IsRequest():
			asked.put(m)
		default:
			e.notified(m, asked)
		}
	}
	return nil, e.line.h.broken(io.ErrUnexpectedEOF)
}

// notified hands a notification to whom it concerns.
func (e *exchange) notified(m mcp.Message, asked *questions) {
	switch {
	case m.Method == "notifications/cancelled":
		asked.drop(mcp.Field(m.Params, "requestId"))
	case changes[m.Method] && e.line.isShared():
		e.line.h.ears.hear(m, &e.line.wishes)
	case e.peer != nil && (passedOn[m.Method] || changes[m.Method]) && e.line.wishes.wants(e.key, m):
		e.peer.Notify(m.Method, m.Params)
	}
}

// read reads a whole body, once.
func (h *httpConn) read(res *http.Response) ([]byte, error) {
	if res.ContentLength > maxMessage {
		return nil, tooLarge(h.spec.Name)
	}
	if res.ContentLength >= 0 {
		body := make([]byte, res.ContentLength)
		if _, err := io.ReadFull(res.Body, body); err != nil {
			return nil, h.broken(err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxMessage+1))
	if err != nil {
		return nil, h.broken(err)
	}
	if len(body) > maxMessage {
		return nil, tooLarge(h.spec.Name)
	}
	return body, nil
}
