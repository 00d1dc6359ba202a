package mcpserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// session is a session of the era with a handshake. It is sealed into its own
// id, so a restart or another node changes nothing. It says whose it is, and is
// nobody else's.
type session struct {
	User     string          `json:"u"`
	Client   string          `json:"c"`
	Server   string          `json:"s"`
	Random   string          `json:"r"`
	Offers   json.RawMessage `json:"o,omitempty"` // what the client can be asked for
	Upstream string          `json:"p,omitempty"` // its own session at the server behind the endpoint
}

const sessionKind = "mcp-session"

// initialize opens a session (MCP lifecycle), at the endpoint of one server also
// there.
func (s *Server) initialize(x *exchange) (json.RawMessage, error) {
	var params mcp.InitializeParams
	if err := json.Unmarshal(x.msg.Params, &params); err != nil {
		return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "initialize needs protocolVersion, capabilities and clientInfo"}
	}
	sess := session{
		User: x.principal.User, Client: x.principal.Client, Server: x.audience.Origin, Random: rand.Text(), Offers: offers(params.Capabilities),
	}
	said := s.announce(x, &sess)
	if err := x.begin(sess); err != nil {
		return nil, err
	}
	return json.Marshal(mcp.InitializeResult{
		ProtocolVersion: mcp.Negotiate(params.ProtocolVersion), Capabilities: said.Capabilities, Instructions: said.Instructions,
		ServerInfo: mcp.Implementation{Name: "gatehouse", Title: "Gatehouse", Version: s.Version},
	})
}

// sealSession gives the session to its caller, who brings it with each request.
func (s *Server) sealSession(h http.Header, sess session) error {
	plain, err := json.Marshal(sess)
	if err != nil {
		return err
	}
	id, err := s.Box.Handle(sessionKind, plain)
	if err == nil {
		h.Set(mcp.SessionHeader, id)
	}
	return err
}

// maxOffers bounds what is sealed of the capabilities of a client, in bytes. One
// that says more of itself is asked nothing.
const maxOffers = 2 << 10

// offers are the capabilities of a client that servers can use through us.
func offers(capabilities json.RawMessage) json.RawMessage {
	passed := map[string]json.RawMessage{}
	for _, name := range []string{"elicitation", "sampling", "roots"} {
		if c := mcp.Field(capabilities, name); len(c) > 0 && c[0] == '{' {
			passed[name] = c
		}
	}
	all, err := json.Marshal(passed)
	if err != nil || len(all) > maxOffers {
		return json.RawMessage("{}")
	}
	return all
}

// inSession opens the session id, if there is one, and reports whether it is the
// caller's and this endpoint's (attack 84).
func (s *Server) inSession(x *exchange) bool {
	id := x.r.Header.Get(mcp.SessionHeader)
	x.session.Caller = x.principal
	if id == "" || x.msg.Method == "initialize" {
		return true
	}
	sess, ok := s.opened.get(id)
	if !ok {
		plain, err := s.Box.OpenHandle(sessionKind, id)
		if err != nil || json.Unmarshal(plain, &sess) != nil {
			return false
		}
		s.opened.put(id, sess)
	}
	x.session = sess.mcp(x.principal)
	return sess.User == x.principal.User && sess.Client == x.principal.Client && sess.Server == x.audience.Origin
}

func (sess session) mcp(caller principal.Principal) tool.Session {
	return tool.Session{Caller: caller, Key: sess.Random, Alone: sess.Server != "", Offers: sess.Offers, Upstream: sess.Upstream}
}

// end ends the session here and at the server. On other nodes its id goes on to
// name the caller who has it, and nothing else.
func (s *Server) end(x *exchange) {
	s.opened.put(x.r.Header.Get(mcp.SessionHeader), session{Server: "/"}) // nobody's
	s.streams.end(x.session.Key)
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	for _, srv := range s.readable(ctx, x) {
		srv.Sessions.End(ctx, x.session)
	}
	x.w.WriteHeader(http.StatusNoContent)
}

// opened remembers what session ids say, so that an id is unsealed once and not
// at every message. What it says never changes.
type opened struct {
	mu sync.RWMutex
	m  map[string]session
}

// maxOpened bounds the memory; whoever is forgotten is unsealed again.
const maxOpened = 10_000

func (o *opened) get(id string) (session, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	s, ok := o.m[id]
	return s, ok
}

func (o *opened) put(id string, s session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil || len(o.m) >= maxOpened {
		o.m = map[string]session{}
	}
	o.m[id] = s
}

// A callKey names a call that runs: the session it belongs to and its id there.
type callKey struct{ session, id string }

func (x *exchange) call(id json.RawMessage) callKey { return callKey{x.session.Key, string(id)} }

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
