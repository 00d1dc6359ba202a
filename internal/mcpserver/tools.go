package mcpserver

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// listTools are the tools that the caller could call here, under the names of
// this endpoint.
func (s *Server) listTools(x *exchange) (json.RawMessage, error) {
	list := struct {
		Tools []json.RawMessage `json:"tools"`
	}{[]json.RawMessage{}}
	for _, t := range s.Gate.List(x.r.Context(), x.principal) {
		if !x.audience.Offers(t) {
			continue
		}
		name := t.Name
		if x.audience.Origin == "" {
			name = t.FullName()
		}
		definition, err := mcp.Renamed(t.Definition, name)
		if err != nil {
			return nil, err
		}
		list.Tools = append(list.Tools, definition)
	}
	return json.Marshal(list)
}

// pass takes the call to the gate, which knows the tool by its full name. What
// this endpoint does not offer is unknown here.
func (s *Server) pass(ctx context.Context, x *exchange, peer tool.Peer) (json.RawMessage, error) {
	name := mcp.Text(x.msg.Params, "name")
	if name == "" {
		return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "tools/call needs the name of a tool"}
	}
	if mcp.Twin(x.msg.Params, "name", "arguments", "_meta") || mcp.Twin(mcp.Field(x.msg.Params, "_meta"), "progressToken") {
		return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "params has members that differ in the case of letters only"}
	}
	full := tool.Tool{Def: tool.Def{Name: name}, Origin: x.audience.Origin}.FullName()
	args := mcp.Field(x.msg.Params, "arguments")
	if string(args) == "null" { // some clients spell "absent" so
		args = nil
	}
	out, err := s.Gate.Do(ctx, gate.Call{
		Principal: x.principal, Name: full, Params: x.msg.Params, Args: args, Peer: peer,
		Offered: x.audience.Offers, Door: "mcp", Remote: x.r.RemoteAddr, Ref: x.ref,
	})
	if err != nil {
		return nil, err
	}
	if t, found := s.Registry.Lookup(full); found && !t.Forwarded {
		return mcp.TextResult(out, string(out), false), nil
	}
	return out, nil
}

// callTool carries out a call that may report progress. The answer is one JSON
// object, unless a notification comes first; then it is a stream (MCP Streamable
// HTTP). A caller that goes away, or cancels, ends the call.
func (s *Server) callTool(x *exchange) {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	defer s.running.add(x.call(x.msg.ID), cancel)()
	peer := &peer{w: x.w, able: strings.Contains(x.r.Header.Get("Accept"), "text/event-stream")}
	result, err := s.pass(ctx, x, peer)
	if ctx.Err() != nil && x.r.Context().Err() == nil {
		peer.end(func() { x.w.WriteHeader(http.StatusAccepted) }, nil) // cancelled: no answer is owed
		return
	}
	if curable(problem.From(err)) && peer.idle() {
		s.refuse(x, err)
		return
	}
	answer := mcp.Message{ID: x.msg.ID, Result: result}
	if err != nil {
		answer.Result, answer.Error = s.failure(x, err)
	}
	peer.end(func() { s.reply(x, http.StatusOK, answer) }, &answer)
}

// peer reaches the caller of a running call. The first notification makes the
// answer a stream.
type peer struct {
	w    http.ResponseWriter
	able bool // the caller accepts a stream

	mu     sync.Mutex
	events *mcp.EventWriter
	ended  bool
}

// Notify passes a notification on, if the caller can hear it.
func (p *peer) Notify(method string, params json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.able || p.ended {
		return
	}
	if p.events == nil {
		p.events = mcp.NewEventWriter(p.w)
	}
	_ = p.events.Message(mcp.Message{Method: method, Params: params}.Encode()) // a caller that is gone hears nothing
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
