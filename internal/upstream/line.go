package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// line is one MCP session with a server over HTTP. It is opened at first use and
// again when the server has forgotten it; callers do not notice.
type line struct {
	h       *httpConn
	offers  json.RawMessage // the capabilities that the handshake declares
	session atomic.Pointer[session]
	shaking chan struct{} // held during a handshake
	wishes  wishes
}

// session is what a handshake brought. It does not change.
type session struct {
	info   mcp.InitializeResult
	header http.Header // of every request, shared
	again  http.Header // the same, of requests that may be sent twice
}

func newSession(info mcp.InitializeResult, revision, id string) *session {
	header := baseHeader()
	header.Set(mcp.VersionHeader, revision)
	if id != "" {
		header.Set(mcp.SessionHeader, id)
	}
	again := header.Clone()
	again["Idempotency-Key"] = nil // is not sent; tells net/http that it may try another connection
	return &session{info, header, again}
}

// of is the header of a request. All but the call of a tool may be sent again when
// the server closed the connection, which it does when it restarts.
func (s *session) of(method string) http.Header {
	if method == "tools/call" {
		return s.header
	}
	return s.again
}

func newLine(h *httpConn, offers json.RawMessage) *line {
	return &line{h: h, offers: offers, shaking: make(chan struct{}, 1)}
}

func (l *line) isShared() bool { return l == l.h.shared }

// maxOwn bounds the sessions of callers' own that are remembered. One that is
// forgotten is found again by what its caller brings.
const maxOwn = 10_000

// line is the caller's own one, if it may have such and the server has sessions;
// the shared one otherwise.
func (h *httpConn) line(s tool.Session) *line {
	if !s.Alone || s.Key == "" || s.Upstream == "" && !h.stateful() {
		return h.shared
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.own[s.Key]; l != nil {
		return l
	}
	if h.own == nil || len(h.own) >= maxOwn {
		h.own = map[string]*line{}
	}
	l := newLine(h, s.Offers)
	if revision, id, found := strings.Cut(s.Upstream, " "); found {
		l.session.Store(newSession(mcp.InitializeResult{}, revision, id))
	}
	h.own[s.Key] = l
	return l
}

// stateful reports whether the server hands out sessions.
func (h *httpConn) stateful() bool {
	s := h.known.Load()
	return s != nil && s.header.Get(mcp.SessionHeader) != ""
}

// maxSessionID is the longest session id of a server that is given to a caller to
// keep, sealed. A longer one is remembered here only.
const maxSessionID = 1024

// Open opens a session of the caller's own.
func (h *httpConn) Open(ctx context.Context, s tool.Session) (string, mcp.InitializeResult, error) {
	if err := h.enter(); err != nil {
		return "", mcp.InitializeResult{}, err
	}
	defer h.running.Done()
	if h.known.Load() == nil { // whether it has sessions is not known yet
		if _, err := h.shared.connected(ctx); err != nil {
			return "", mcp.InitializeResult{}, err
		}
	}
	opened, err := h.line(s).connected(ctx)
	if err != nil {
		return "", mcp.InitializeResult{}, err
	}
	id := opened.header.Get(mcp.SessionHeader)
	if id == "" || len(id) > maxSessionID || h.line(s).isShared() {
		return "", opened.info, nil
	}
	return opened.info.ProtocolVersion + " " + id, opened.info, nil
}

// End ends the session at the server, or takes back what the caller asked for in
// the shared one.
func (h *httpConn) End(ctx context.Context, s tool.Session) {
	if h.enter() != nil {
		return
	}
	defer h.running.Done()
	l := h.line(s)
	if l.isShared() {
		for _, m := range l.wishes.forget(s.Key) {
			_, _ = l.call(ctx, s.Key, m, nil) // what comes all the same is not passed on
		}
		return
	}
	h.mu.Lock()
	delete(h.own, s.Key)
	h.mu.Unlock()
	l.end(ctx)
}

// Tell passes a notification on.
func (h *httpConn) Tell(ctx context.Context, s tool.Session, m mcp.Message) {
	if h.enter() != nil {
		return
	}
	defer h.running.Done()
	if l := h.line(s); !l.isShared() {
		if opened, err := l.connected(ctx); err == nil {
			_ = h.tell(ctx, opened.header, m) // nobody waits for an answer
		}
	}
}

// end says goodbye.
func (l *line) end(ctx context.Context) {
	s := l.session.Swap(nil)
	if s == nil || s.header.Get(mcp.SessionHeader) == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	if res, err := l.h.send(ctx, http.MethodDelete, s.header, nil); err == nil { // else it has gone before us
		_ = res.Body.Close()
	}
}

// call makes one request. A session that the server has forgotten is made anew,
// once: what it forgot it has not carried out.
func (l *line) call(ctx context.Context, key string, m mcp.Message, peer tool.Peer) (json.RawMessage, error) {
	s, err := l.connected(ctx)
	if err != nil {
		return nil, notSent(err)
	}
	result, _, err := exchange{line: l, header: s.of(m.Method), key: key, peer: peer}.request(ctx, m)
	if errors.Is(err, errSessionLost) {
		l.session.CompareAndSwap(s, nil)
		if s, err = l.connected(ctx); err != nil {
			return nil, notSent(err)
		}
		result, _, err = exchange{line: l, header: s.of(m.Method), key: key, peer: peer}.request(ctx, m)
	}
	if errors.Is(err, errSessionLost) {
		err = l.h.forgetful()
	}
	l.h.note(err)
	return result, err
}

// connected is the session. Without one the first caller shakes hands and the
// others wait; a failure answers all who come soon after.
func (l *line) connected(ctx context.Context) (*session, error) {
	if s := l.session.Load(); s != nil {
		return s, nil
	}
	select {
	case l.shaking <- struct{}{}:
		defer func() { <-l.shaking }()
	case <-ctx.Done():
		return nil, l.h.gaveUp(ctx)
	}
	if s := l.session.Load(); s != nil {
		return s, nil
	}
	if f := l.h.failed.Load(); f != nil && time.Since(f.at) < memory {
		return nil, f.err
	}
	s, err := l.handshake(ctx)
	if ctx.Err() != nil {
		return nil, l.h.gaveUp(ctx)
	}
	if err != nil {
		l.h.fail(err)
		return nil, err
	}
	if l.h.known.Swap(s) == nil {
		l.h.since.Store(time.Now().UnixMicro())
	}
	l.h.works()
	l.session.Store(s)
	return s, nil
}

func (l *line) handshake(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, hello)
	defer cancel()
	s, err := l.greet(ctx)
	if problem.Is(err, cancelled) {
		return nil, unreachable.New("%q does not answer", l.h.spec.Name).WithWhy("nothing in %v", hello).Because(err)
	}
	return s, err
}

func (l *line) greet(ctx context.Context) (*session, error) {
	var id string
	info, err := shakeHands(l.h.spec.Name, l.h.self, l.offers, func(params json.RawMessage) (json.RawMessage, error) {
		result, header, err := exchange{line: l, header: baseHeader()}.request(ctx, mcp.Message{Method: "initialize", Params: params})
		id = header.Get(mcp.SessionHeader)
		return result, err
	})
	if err != nil {
		return nil, err
	}
	s := newSession(info, info.ProtocolVersion, id)
	err = l.h.tell(ctx, s.header, mcp.Message{Method: "notifications/initialized"})
	if refusal, ok := errors.AsType[*mcp.Error](err); ok {
		return nil, refusedHands(l.h.spec.Name, refusal)
	}
	if errors.Is(err, errSessionLost) {
		return nil, l.h.forgetful()
	}
	if err != nil {
		return nil, err
	}
	for _, m := range l.wishes.again() {
		_, _, _ = exchange{line: l, header: s.again}.request(ctx, m) // one that it no longer grants is not worth the session
	}
	return s, nil
}

// questions are those of the server on one stream. It hears an answer to each, also
// when its call has ended meanwhile.
func (l *line) questions(ctx context.Context, header http.Header, peer tool.Peer) *questions {
	return &questions{ctx: ctx, peer: peer, spawn: l.h.running.Go, answer: func(m mcp.Message) {
		ctx, cancel := context.WithTimeout(l.h.base, hello)
		defer cancel()
		_ = l.h.tell(ctx, header, m) // if it cannot be told it has gone
	}}
}
