package upstream

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// offer is what the server has besides tools: whoever may read may read it.
func (srv *server) offer() tool.Server {
	name := srv.spec.Name
	return tool.Server{
		Tool: tool.Tool{
			Def:    tool.Def{Name: name, Effect: tool.Reads, Caller: principal.Readonly, Scope: name + ":read"},
			Origin: name, Workspace: srv.workspace, Forwarded: true,
			Outside: func(ctx context.Context, r tool.Request) (json.RawMessage, error) {
				return srv.call(ctx, r, r.Method, r.Params)
			},
		},
		Sessions: sessions{srv}, Provider: srv.spec.Provider,
	}
}

func (srv *server) call(ctx context.Context, r tool.Request, method string, params json.RawMessage) (json.RawMessage, error) {
	s := srv.session(r.Session)
	s.Caller = r.Principal
	return srv.conn.Call(ctx, s, method, params, r.Peer)
}

// session is the session without what belongs to another server, which may have
// had the same name before.
func (srv *server) session(s tool.Session) tool.Session {
	if s.Upstream != "" {
		upstream, ours := strings.CutPrefix(s.Upstream, srv.id+" ")
		if s.Upstream = upstream; !ours {
			s.Upstream = ""
		}
	}
	return s
}

// sessions are those of a server with callers.
type sessions struct{ srv *server }

// Announced is what the server said of itself.
func (s sessions) Announced(ctx context.Context) (tool.Announcement, bool) {
	said, known := s.srv.conn.Known(ctx)
	return announcement(said), known
}

func announcement(said mcp.InitializeResult) tool.Announcement {
	return tool.Announcement{Capabilities: said.Capabilities, Instructions: said.Instructions}
}

// Open opens a session of the caller's own.
func (s sessions) Open(ctx context.Context, sess tool.Session) (string, tool.Announcement, error) {
	upstream, said, err := s.srv.conn.Open(ctx, s.srv.session(sess))
	if upstream != "" {
		upstream = s.srv.id + " " + upstream
	}
	return upstream, announcement(said), err
}

// End ends the session.
func (s sessions) End(ctx context.Context, sess tool.Session) {
	s.srv.conn.End(ctx, s.srv.session(sess))
}

// Listen gives the peer what the server says outside of calls.
func (s sessions) Listen(ctx context.Context, sess tool.Session, peer tool.Peer) {
	s.srv.conn.Listen(ctx, s.srv.session(sess), peer)
}

// Tell passes a notification on.
func (s sessions) Tell(ctx context.Context, sess tool.Session, method string, params json.RawMessage) {
	s.srv.conn.Tell(ctx, s.srv.session(sess), mcp.Message{Method: method, Params: params})
}
