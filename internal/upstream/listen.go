package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// errNoStream is the answer of a server that speaks within calls only.
var errNoStream = errors.New("the server has no stream outside of calls")

// aside are the notifications outside of calls that the caller of a session of
// its own gets besides changes.
var aside = map[string]bool{"notifications/message": true, "notifications/elicitation/complete": true}

// Listen keeps a stream open on which the server speaks outside of calls: one for
// each session, as long as somebody listens.
func (h *httpConn) Listen(ctx context.Context, s tool.Session, peer tool.Peer) {
	if h.enter() != nil {
		<-ctx.Done()
		return
	}
	defer h.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.base, cancel)()
	if l := h.line(s); !l.isShared() {
		l.listen(ctx, peer, func(m mcp.Message) {
			if changes[m.Method] || aside[m.Method] {
				peer.Notify(m.Method, m.Params)
			}
		})
		return
	}
	defer h.ears.add(s.Key, peer)()
	h.listenTogether()
	defer h.leave()
	<-ctx.Done()
}

// listenTogether begins to listen to the shared session with the first caller who
// wants to, and leave ends it after the last.
func (h *httpConn) listenTogether() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hearers++; h.hearers > 1 {
		return
	}
	var ctx context.Context
	ctx, h.deafen = context.WithCancel(h.base)
	h.running.Go(func() {
		h.shared.listen(ctx, nil, func(m mcp.Message) { h.ears.hear(m, &h.shared.wishes) })
	})
}

func (h *httpConn) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hearers--; h.hearers == 0 {
		h.deafen()
	}
}

// listen hears the server until ctx ends. After a session was lost it is not
// known what has changed meanwhile, so it counts as changed.
func (l *line) listen(ctx context.Context, peer tool.Peer, hear func(mcp.Message)) {
	var last *session
	lost := 0
	keep(ctx, func(ctx context.Context) {
		s, err := l.connected(ctx)
		if err != nil {
			return
		}
		if last != nil && last != s {
			hear(mcp.Message{Method: "notifications/resources/list_changed"})
			hear(mcp.Message{Method: "notifications/prompts/list_changed"})
		}
		last = s
		switch err := l.stream(ctx, s, peer, hear); {
		case errors.Is(err, errSessionLost):
			l.session.CompareAndSwap(s, nil)
			if lost++; lost > 1 { // it says so of every stream
				<-ctx.Done()
			}
		case errors.Is(err, errNoStream):
			<-ctx.Done()
		default:
			lost = 0
		}
	})
}

// stream reads one stream to its end.
func (l *line) stream(ctx context.Context, s *session, peer tool.Peer, hear func(mcp.Message)) error {
	header := s.header.Clone()
	header.Del("Content-Type")
	header.Set("Accept", "text/event-stream")
	res, err := l.h.send(ctx, http.MethodGet, header, nil)
	if err != nil {
		return l.h.broken(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		if err := l.h.refused(res); errors.Is(err, errSessionLost) || res.StatusCode >= 500 || res.StatusCode == http.StatusConflict {
			return err
		}
		return errNoStream
	}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		return errNoStream
	}
	asked := l.questions(ctx, s.header, peer)
	for ev, err := range mcp.ReadEvents(res.Body, maxMessage) {
		if err != nil {
			return err
		}
		m, refusal := mcp.Parse(ev.Data)
		switch {
		case refusal != nil || m.IsResponse():
		case m.IsRequest():
			asked.put(m)
		case m.Method == "notifications/cancelled":
			asked.drop(mcp.Field(m.Params, "requestId"))
		default:
			hear(m)
		}
	}
	return io.EOF
}
