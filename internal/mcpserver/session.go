package mcpserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"sync"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// session is a session of the era with a handshake. It is sealed into its own
// id, so a restart or another node changes nothing. It says whose it is, and is
// nobody else's.
type session struct {
	User   string `json:"u"`
	Client string `json:"c"`
	Server string `json:"s"`
	Random string `json:"r"`
}

const sessionKind = "mcp-session"

// initialize opens a session (MCP lifecycle).
func (s *Server) initialize(x *exchange) (json.RawMessage, error) {
	var params mcp.InitializeParams
	if err := json.Unmarshal(x.msg.Params, &params); err != nil {
		return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "initialize needs protocolVersion, capabilities and clientInfo"}
	}
	plain, err := json.Marshal(session{x.principal.User, x.principal.Client, x.audience.Origin, rand.Text()})
	if err != nil {
		return nil, err
	}
	id, err := s.Box.Handle(sessionKind, plain)
	if err != nil {
		return nil, err
	}
	x.w.Header().Set(mcp.SessionHeader, id)
	return json.Marshal(mcp.InitializeResult{
		ProtocolVersion: mcp.Negotiate(params.ProtocolVersion),
		Capabilities:    json.RawMessage(`{"tools":{}}`),
		ServerInfo:      mcp.Implementation{Name: "gatehouse", Title: "Gatehouse", Version: s.Version},
	})
}

// inSession opens the session id, if there is one, and reports whether it is the
// caller's and this endpoint's (attack 84).
func (s *Server) inSession(x *exchange) bool {
	id := x.r.Header.Get(mcp.SessionHeader)
	if id == "" || x.msg.Method == "initialize" {
		return true
	}
	plain, err := s.Box.OpenHandle(sessionKind, id)
	var sess session
	if err != nil || json.Unmarshal(plain, &sess) != nil {
		return false
	}
	x.session = sess.Random
	return sess.User == x.principal.User && sess.Client == x.principal.Client && sess.Server == x.audience.Origin
}

// A callKey names a call that runs: the session it belongs to and its id there.
type callKey struct{ session, id string }

func (x *exchange) call(id json.RawMessage) callKey { return callKey{x.session, string(id)} }

// calls are the calls that run on this node, so that they can be cancelled.
type calls struct {
	mu sync.Mutex
	m  map[callKey]*context.CancelFunc
}

// add remembers a call until the returned function is called. A call without a
// session cannot be named by anybody, so it is not remembered.
func (c *calls) add(key callKey, cancel context.CancelFunc) (remove func()) {
	if key.session == "" {
		return func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[callKey]*context.CancelFunc{}
	}
	c.m[key] = &cancel
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.m[key] == &cancel { // a later call may have taken the id
			delete(c.m, key)
		}
	}
}

func (c *calls) cancel(key callKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel, running := c.m[key]; running {
		(*cancel)()
	}
}
