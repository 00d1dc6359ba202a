package client

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

const sessionHeader = mcp.SessionHeader

// maxPages ends a tool list that never does.
const maxPages = 1000

// Session is a conversation with one MCP server. It may be used by several
// goroutines. When the server forgets it, it is opened again without a word;
// when the token runs out, that is refreshed.
type Session struct {
	c         *Client
	server    string
	anonymous bool // neither token nor handshake
	nextID    atomic.Int64

	mu      sync.Mutex
	hand    handshake
	info    Info
	mirrors map[string][]mirror // by tool, as listed last; nil before
	deaf    func()              // ends the listening; nil if there is none
}

// handshake is what both sides agreed on. It goes with every message.
type handshake struct {
	session string // empty where the server keeps none
	version string
}

// modern reports whether there was no handshake: each request speaks for itself.
func (h handshake) modern() bool { return h.version >= mcp.Modern }

// Info is what a server says about itself.
type Info struct {
	Name         string `json:"name"`
	Title        string `json:"title,omitempty"`
	Version      string `json:"version"`
	Protocol     string `json:"protocol"`
	Instructions string `json:"instructions,omitempty"`
}

// Connect opens a session, with the stored sign-in if there is one. Where a token is
// needed and there is none, Options.SignIn gets one; without that the error is
// ErrAuthentication.
func (c *Client) Connect(ctx context.Context, server string) (*Session, error) {
	server, err := ServerURL(server)
	if err != nil {
		return nil, err
	}
	s := &Session{c: c, server: server}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.open(ctx)
}

// Anonymous is a session that shows no token, even if there is one, and opens
// with no handshake: it serves to call tools that anybody may use.
func (c *Client) Anonymous(server string) (*Session, error) {
	server, err := ServerURL(server)
	return &Session{c: c, server: server, anonymous: true, hand: handshake{version: mcp.Latest}}, err
}

// Info is what the server said at the handshake.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// Ping asks the server whether it is still there, with the token of the moment
// (R909).
func (s *Session) Ping(ctx context.Context) error {
	method := "ping"
	if s.isModern() {
		method = "server/discover"
	}
	_, err := s.request(ctx, method, nil, nil)
	return s.explain(err)
}

// Close tells the server that the session is over. It may not care.
func (s *Session) Close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopListening()
	s.end(ctx, s.hand)
	s.hand.session = ""
}

// open finds out which era the server is of, the one without handshake first, and
// remembers which servers are of the other one (MCP 2026-07-28, "Backward
// Compatibility"). The caller holds mu.
func (s *Session) open(ctx context.Context) error {
	if !s.c.isLegacy(s.server) {
		if modern, err := s.greet(ctx); modern || err != nil {
			return err
		}
		s.c.setLegacy(s.server)
	}
	return s.initialize(ctx)
}

// greet asks a server what it is. Whoever does not answer that, and asks for no
// sign-in either, wants a handshake.
func (s *Session) greet(ctx context.Context) (modern bool, err error) {
	var r struct {
		Versions     []string           `json:"supportedVersions"`
		Server       mcp.Implementation `json:"serverInfo"`
		Instructions string             `json:"instructions"`
		Meta         struct {
			Server mcp.Implementation `json:"io.modelcontextprotocol/serverInfo"`
		} `json:"_meta"`
	}
	hand := handshake{version: mcp.Modern}
	for range 2 { // some refuse at first and name the version they were asked in
		m, err := s.compose("server/discover", nil, hand, false)
		if err != nil {
			return false, err
		}
		raw, _, err := s.roundTrip(ctx, m, hand, headers(m, nil), nil)
		if rpc, ok := errors.AsType[*mcp.Error](err); ok {
			if rpc.Code == mcp.UnsupportedVersion && slices.Contains(supported(rpc), mcp.Modern) {
				continue
			}
			return false, nil
		}
		if e, ok := errors.AsType[*Error](err); ok && (e.Code == unreadable.Name || e.Code == sessionGone.Name) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if json.Unmarshal(raw, &r) != nil || !slices.Contains(r.Versions, mcp.Modern) {
			return false, nil
		}
		if r.Meta.Server.Name != "" {
			r.Server = r.Meta.Server
		}
		s.hand = hand
		s.info = Info{Name: r.Server.Name, Title: r.Server.Title, Version: r.Server.Version, Protocol: mcp.Modern, Instructions: r.Instructions}
		s.listen(ctx)
		return true, nil
	}
	return false, nil
}

func supported(e *mcp.Error) []string {
	var data struct {
		Supported []string `json:"supported"`
	}
	_ = json.Unmarshal(e.Data, &data) // who names none supports none
	return data.Supported
}

func (c *Client) isLegacy(server string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.legacy[server]
}

func (c *Client) setLegacy(server string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.legacy[server] = true
}

func (s *Session) initializeRequest() mcp.Message {
	params, _ := json.Marshal(mcp.InitializeParams{ // strings always marshal
		ProtocolVersion: mcp.Latest, Capabilities: s.c.capabilities(),
		ClientInfo: mcp.Implementation{Name: s.c.opts.Name, Version: s.c.opts.Version},
	})
	return mcp.Message{ID: s.newID(), Method: "initialize", Params: params}
}

func (s *Session) newID() json.RawMessage {
	return strconv.AppendInt(nil, s.nextID.Add(1), 10)
}

// initialize opens the session; the caller holds mu.
func (s *Session) initialize(ctx context.Context) error {
	result, header, err := s.roundTrip(ctx, s.initializeRequest(), handshake{}, nil, nil)
	if err != nil {
		return s.explain(err)
	}
	var r mcp.InitializeResult
	if json.Unmarshal(result, &r) != nil || r.ProtocolVersion == "" {
		return unreadable.fail("can't talk to %s", s.server).why("it does not answer as an MCP server")
	}
	if r.ProtocolVersion >= mcp.Modern {
		return unreadable.fail("can't talk to %s", s.server).why("it speaks MCP %s, we speak up to %s", r.ProtocolVersion, mcp.Latest)
	}
	s.hand = handshake{header.Get(sessionHeader), r.ProtocolVersion}
	s.info = Info{Name: r.ServerInfo.Name, Title: r.ServerInfo.Title, Version: r.ServerInfo.Version, Protocol: r.ProtocolVersion, Instructions: r.Instructions}
	if err := s.tell(ctx, mcp.Message{Method: "notifications/initialized"}, s.hand); err != nil {
		return s.explain(err)
	}
	s.listen(ctx)
	return nil
}

// explain turns a JSON-RPC error of the handshake into one of ours.
func (s *Session) explain(err error) error {
	var rpc *mcp.Error
	if errors.As(err, &rpc) {
		return unreadable.fail("can't talk to %s", s.server).why("it says: %s", rpc.Message)
	}
	return err
}

// compose makes a request. One of the era without handshake says by itself what
// it speaks and who sends it.
func (s *Session) compose(method string, params map[string]any, hand handshake, progress bool) (mcp.Message, error) {
	m := mcp.Message{ID: s.newID(), Method: method}
	meta := map[string]any{}
	if progress {
		meta["progressToken"] = m.ID
	}
	if hand.modern() {
		meta[mcp.VersionMeta] = hand.version
		meta[mcp.CapabilitiesMeta] = s.c.capabilities()
		meta[mcp.ClientMeta] = mcp.Implementation{Name: s.c.opts.Name, Version: s.c.opts.Version}
	}
	all := maps.Clone(params)
	if len(meta) > 0 {
		if all == nil {
			all = map[string]any{}
		}
		all["_meta"] = meta
	}
	if all == nil {
		return m, nil
	}
	var err error
	m.Params, err = json.Marshal(all)
	return m, err
}

// maxRounds ends a request that asks for more and more.
const maxRounds = 20

// request sends a request in the session and returns its result, once the server
// has been told all it asked for.
func (s *Session) request(ctx context.Context, method string, params map[string]any, progress func(Progress)) (json.RawMessage, error) {
	if params = maps.Clone(params); params == nil {
		params = map[string]any{}
	}
	for range maxRounds {
		raw, hand, err := s.exchange(ctx, method, params, progress)
		var want more
		if err != nil || !hand.modern() || json.Unmarshal(raw, &want) != nil || want.Type != "input_required" {
			return raw, err
		}
		add, err := s.answer(ctx, want)
		if err != nil {
			return nil, err
		}
		for _, once := range []string{"inputResponses", "requestState"} { // what the server does not repeat is not sent again
			delete(params, once)
		}
		maps.Copy(params, add)
	}
	return nil, unreadable.fail("can't go on with %s", s.server).why("it asks for more and more")
}

// exchange sends one request and returns its answer. A session the server has
// forgotten is opened again, once, and headers that do not fit any more are made
// from a new list of tools.
func (s *Session) exchange(ctx context.Context, method string, params map[string]any, progress func(Progress)) (json.RawMessage, handshake, error) {
	hand, err := s.current(ctx, "")
	if err != nil {
		return nil, hand, err
	}
	result, id, err := s.try(ctx, method, params, hand, progress)
	rpc, _ := errors.AsType[*mcp.Error](err)
	switch {
	case isGone(err):
		if hand, err = s.current(ctx, hand.session); err != nil {
			return nil, hand, err
		}
		result, id, err = s.try(ctx, method, params, hand, progress)
	case rpc != nil && rpc.Code == mcp.HeaderMismatch && method == "tools/call":
		if _, lerr := s.Tools(ctx); lerr != nil {
			return nil, hand, err
		}
		result, id, err = s.try(ctx, method, params, hand, progress)
	}
	if ctx.Err() != nil && err != nil {
		s.cancel(ctx, id, hand)
		return nil, hand, ctx.Err()
	}
	return result, hand, err
}

func (s *Session) try(ctx context.Context, method string, params map[string]any, hand handshake, progress func(Progress)) (json.RawMessage, json.RawMessage, error) {
	m, err := s.compose(method, params, hand, progress != nil)
	if err != nil {
		return nil, nil, callInvalid.fail("can't send %s", method).why("the arguments are not JSON")
	}
	var extra http.Header
	if hand.modern() {
		extra = headers(m, s.mirrored(m))
	}
	result, _, err := s.roundTrip(ctx, m, hand, extra, progress)
	return result, m.ID, err
}

// mirrored are the headers that a tool wants, as far as it has been listed.
func (s *Session) mirrored(m mcp.Message) []mirror {
	if m.Method != "tools/call" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mirrors[mcp.Text(m.Params, "name")]
}

func isGone(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == sessionGone.Name
}

// current is the handshake of the moment. If its session is the one that is
// gone, a new one is opened first; others wait for that.
func (s *Session) current(ctx context.Context, gone string) (handshake, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone != "" && s.hand.session == gone {
		if err := s.initialize(ctx); err != nil {
			return handshake{}, err
		}
	}
	return s.hand, nil
}

// cancel tells the server that nobody waits any more.
func (s *Session) cancel(ctx context.Context, request json.RawMessage, hand handshake) {
	if hand.modern() { // the connection that ended has said so
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer stop()
	params := json.RawMessage(`{"requestId":` + string(request) + `,"reason":"the caller has gone"}`)
	_ = s.tell(ctx, mcp.Message{Method: "notifications/cancelled", Params: params}, hand) // there is nobody left to tell
}

// end closes an MCP session, if there is one.
func (s *Session) end(ctx context.Context, hand handshake) {
	if hand.session == "" {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer stop()
	token, err := s.token(ctx, "")
	if err != nil {
		return
	}
	req, err := s.newRequest(ctx, http.MethodDelete, nil, hand, token)
	if err != nil {
		return
	}
	if res, err := s.c.hc.Do(req); err == nil {
		_ = res.Body.Close()
	}
}
