package mcpserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// relayed are the requests that reach a server behind us, or may. While they run
// the server can talk to the caller.
var relayed = map[string]func(*Server, context.Context, *exchange, tool.Peer) (json.RawMessage, error){
	"tools/call":               (*Server).callTool,
	"resources/list":           list("resources", nil),
	"resources/templates/list": list("resourceTemplates", nil),
	"prompts/list":             list("prompts", prefixed),
	"resources/read":           resource(tool.KindResource),
	"resources/subscribe":      resource(tool.KindSubscribe),
	"resources/unsubscribe":    resource(tool.KindUnsubscribe),
	"prompts/get":              (*Server).getPrompt,
	"completion/complete":      (*Server).complete,
	"logging/setLevel":         (*Server).setLevel,
}

// relay carries out a request that may take its time. The answer is one JSON
// object, unless something of the server comes first; then it is a stream (MCP
// Streamable HTTP). A caller that goes away, or cancels, ends the request, and so
// does the end of its token.
func (s *Server) relay(x *exchange) {
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	defer s.running.add(x.call(x.msg.ID), cancel)()
	x.ctx = ctx
	peer := &peer{server: s, session: x.session, w: x.w, able: strings.Contains(x.r.Header.Get("Accept"), "text/event-stream")}
	result, err := s.carry(x, peer)
	if ctx.Err() != nil && x.r.Context().Err() == nil {
		peer.end(func() { x.w.WriteHeader(http.StatusAccepted) }, nil) // cancelled: no answer is owed
		return
	}
	if curable(problem.From(err)) && peer.idle() {
		s.refuse(x, err)
		return
	}
	answer := s.answer(x, result, err)
	peer.end(func() { s.reply(x, http.StatusOK, answer) }, &answer)
}

// carry carries the request out, for as long as the caller waits and its token is
// good.
func (s *Server) carry(x *exchange, peer tool.Peer) (json.RawMessage, error) {
	ctx, cancel := s.Authn.While(x.ctx, x.principal)
	defer cancel()
	result, err := relayed[x.msg.Method](s, ctx, x, peer)
	if gone, revoked := errors.AsType[*problem.Error](context.Cause(ctx)); revoked {
		return nil, gone
	}
	return result, err
}

// peer reaches the caller of a running call. Over HTTP the first notification makes
// the answer a stream.
type peer struct {
	server  *Server
	session tool.Session
	w       http.ResponseWriter
	able    bool // the caller accepts a stream

	mu     sync.Mutex
	events events // nil while there is no stream
	ended  bool
}

// events is where several messages go, one after the other, as they were encoded.
type events interface {
	Message(encoded []byte) error
	Comment(text string) error // shows that somebody is there
}

// Notify passes a notification on, if the caller can hear it.
func (p *peer) Notify(method string, params json.RawMessage) {
	p.send(mcp.Message{Method: method, Params: params})
}

// Ask asks the caller on the stream of its call.
func (p *peer) Ask(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	return p.server.ask(ctx, p.session, mcp.Message{Method: method, Params: params}, p.send)
}

// send reports whether the caller can hear it.
func (p *peer) send(m mcp.Message) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.able || p.ended {
		return false
	}
	if p.events == nil {
		p.events = mcp.NewEventWriter(p.w)
	}
	return p.events.Message(m.Encode()) == nil
}

func (p *peer) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events == nil
}

// end sends the answer: on the stream, or by plain where none was begun.
func (p *peer) end(plain func(), answer *mcp.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	switch {
	case p.events == nil:
		plain()
	case answer != nil:
		_ = p.events.Message(answer.Encode()) // the caller is gone
	}
}
