package mcpserver

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

const (
	pingEvery  = 15 * time.Second
	backlog    = 256 // messages that a slow reader may lag behind; then its stream ends
	maxStreams = 64  // of one person by one app
)

// listen is the stream of a session outside of calls: what changes here, and what
// the servers say. It ends with the token, with the session, and with the server.
func (s *Server) listen(x *exchange) {
	ctx, cancel := s.Authn.While(x.ctx, x.principal)
	defer cancel()
	st := &stream{server: s, session: x.session, owner: whose(x.principal), cancel: cancel, queue: make(chan mcp.Message, backlog)}
	if status := s.streams.begin(st); status != 0 {
		x.w.Header().Set("Retry-After", "5")
		http.Error(x.w, "too many streams are open, or the server is stopping", status)
		return
	}
	defer s.streams.over(st)
	events := mcp.NewEventWriter(x.w)
	if events.Comment("listening") != nil {
		return
	}
	st.run(ctx, x, events)
}

// stream is an open stream of a session.
type stream struct {
	server  *Server
	session tool.Session
	owner   string
	cancel  context.CancelFunc
	queue   chan mcp.Message

	knows bool   // it has been told, or could have seen, what is offered:
	tools string // what the list of tools was made of
}

func whose(p principal.Principal) string { return p.Workspace + " " + p.Name() + " " + p.Client }

// run is the life of the stream, until ctx ends or nobody reads.
func (st *stream) run(ctx context.Context, x *exchange, to events) {
	var watching sync.WaitGroup
	defer watching.Wait()
	defer st.cancel()
	watching.Go(func() { st.server.watch(ctx, x, st) })
	st.write(ctx, to)
}

// write sends what is queued until ctx ends or nobody reads.
func (st *stream) write(ctx context.Context, events events) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		var err error
		select {
		case m := <-st.queue:
			err = events.Message(m.Encode())
		case <-ping.C:
			err = events.Comment("ping")
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// Notify passes a notification on. Whoever lags too far behind begins anew.
func (st *stream) Notify(method string, params json.RawMessage) {
	st.send(mcp.Message{Method: method, Params: params})
}

// Ask asks the caller on this stream.
func (st *stream) Ask(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	return st.server.ask(ctx, st.session, mcp.Message{Method: method, Params: params}, st.send)
}

func (st *stream) send(m mcp.Message) bool {
	select {
	case st.queue <- m:
		return true
	default:
		st.cancel()
		return false
	}
}

// watch tells the stream what changes in what its caller is offered, and lets the
// servers speak to it.
func (s *Server) watch(ctx context.Context, x *exchange, st *stream) {
	heard := map[tool.Sessions]context.CancelFunc{}
	var listening sync.WaitGroup
	defer listening.Wait()
	for first := true; ; first = false {
		changed := s.Registry.Changed()
		if _, there := s.Registry.Audience(s.Public, x.audience.Origin); !there {
			st.cancel()
			return
		}
		now := s.offered(ctx, x)
		if st.knows && now != st.tools {
			st.Notify("notifications/tools/list_changed", nil)
		}
		st.knows, st.tools = true, now
		others := s.hear(ctx, x, st, heard, &listening)
		if !first && others {
			st.Notify("notifications/resources/list_changed", nil)
			st.Notify("notifications/prompts/list_changed", nil)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// offered is what the list of tools is made of.
func (s *Server) offered(ctx context.Context, x *exchange) string {
	var b strings.Builder
	for _, t := range s.Gate.List(ctx, x.principal) {
		if x.audience.Offers(t) {
			b.WriteString(t.FullName() + " " + string(t.Definition) + "\n")
		}
	}
	return b.String()
}

// hear listens to the servers that the caller may read from, and to no others any
// more. It reports whether they are others than before.
func (s *Server) hear(ctx context.Context, x *exchange, st *stream, heard map[tool.Sessions]context.CancelFunc, listening *sync.WaitGroup) (others bool) {
	now := map[tool.Sessions]bool{}
	for _, srv := range s.readable(ctx, x) {
		now[srv.Sessions] = true
		if heard[srv.Sessions] != nil {
			continue
		}
		others = true
		own, cancel := context.WithCancel(ctx)
		heard[srv.Sessions] = cancel
		listening.Go(func() { srv.Sessions.Listen(own, x.session, st) })
	}
	for server, cancel := range heard {
		if !now[server] {
			others = true
			cancel()
			delete(heard, server)
		}
	}
	return others
}

// streams are those that are open on this node.
type streams struct {
	mu      sync.Mutex
	open    map[*stream]bool
	stopped bool
}

// begin counts a stream, or says with which status it is refused. An older one of
// the same session ends: a message goes to one stream only.
func (s *streams) begin(st *stream) (status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return http.StatusServiceUnavailable
	}
	n := 0
	for other := range s.open {
		if other.session.Key == st.session.Key {
			other.cancel()
		} else if other.owner == st.owner {
			n++
		}
	}
	if n >= maxStreams {
		return http.StatusTooManyRequests
	}
	if s.open == nil {
		s.open = map[*stream]bool{}
	}
	s.open[st] = true
	return 0
}

func (s *streams) over(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, st)
}

// end ends the stream of a session.
func (s *streams) end(session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		if st.session.Key == session {
			st.cancel()
		}
	}
}

// Stop ends all streams, and lets none begin: they would outlast every patience.
// Requests go on.
func (s *Server) Stop() {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	s.streams.stopped = true
	for st := range s.streams.open {
		st.cancel()
	}
}
