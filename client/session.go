package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
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

	mu   sync.Mutex
	hand handshake
	info Info
}

// handshake is what both sides agreed on. It goes with every message.
type handshake struct {
	session string // empty where the server keeps none
	version string
}

// Info is what a server says about itself.
type Info struct {
	Name         string `json:"name"`
	Title        string `json:"title,omitempty"`
	Version      string `json:"version"`
	Protocol     string `json:"protocol"`
	Instructions string `json:"instructions,omitempty"`
}

// Connect opens a session, with the stored sign-in if there is one. It never
// opens a browser: where a token is needed and there is none, the error is
// ErrAuthentication.
func (c *Client) Connect(ctx context.Context, server string) (*Session, error) {
	server, err := ServerURL(server)
	if err != nil {
		return nil, err
	}
	s := &Session{c: c, server: server}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.initialize(ctx)
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

// Close tells the server that the session is over. It may not care.
func (s *Session) Close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(ctx, s.hand)
	s.hand.session = ""
}

func (s *Session) initializeRequest() mcp.Message {
	params, _ := json.Marshal(mcp.InitializeParams{ // strings always marshal
		ProtocolVersion: mcp.Latest, Capabilities: json.RawMessage("{}"),
		ClientInfo: mcp.Implementation{Name: s.c.opts.Name, Version: s.c.opts.Version},
	})
	return mcp.Message{ID: s.newID(), Method: "initialize", Params: params}
}

func (s *Session) newID() json.RawMessage {
	return strconv.AppendInt(nil, s.nextID.Add(1), 10)
}

// initialize opens the session; the caller holds mu.
func (s *Session) initialize(ctx context.Context) error {
	result, header, err := s.roundTrip(ctx, s.initializeRequest(), handshake{}, nil)
	if err != nil {
		return s.explain(err)
	}
	var r mcp.InitializeResult
	if json.Unmarshal(result, &r) != nil || r.ProtocolVersion == "" {
		return unreadable.fail("can't talk to %s", s.server).why("it does not answer as an MCP server")
	}
	if r.ProtocolVersion >= mcp.Modern {
		return unreadable.fail("can't talk to %s", s.server).why("it speaks MCP %s, we speak up to %s", clean(r.ProtocolVersion), mcp.Latest)
	}
	s.hand = handshake{header.Get(sessionHeader), r.ProtocolVersion}
	s.info = Info{Name: r.ServerInfo.Name, Title: r.ServerInfo.Title, Version: r.ServerInfo.Version, Protocol: r.ProtocolVersion, Instructions: r.Instructions}
	return s.tell(ctx, mcp.Message{Method: "notifications/initialized"}, s.hand)
}

// explain turns a JSON-RPC error of the handshake into one of ours.
func (s *Session) explain(err error) error {
	var rpc *mcp.Error
	if errors.As(err, &rpc) {
		return unreadable.fail("can't talk to %s", s.server).why("it says: %s", clean(rpc.Message))
	}
	return err
}

// request sends a request in the session and returns its result. A session the
// server has forgotten is opened again, once.
func (s *Session) request(ctx context.Context, m mcp.Message, progress func(Progress)) (json.RawMessage, error) {
	hand, err := s.current(ctx, "")
	if err != nil {
		return nil, err
	}
	result, _, err := s.roundTrip(ctx, m, hand, progress)
	if isGone(err) {
		if hand, err = s.current(ctx, hand.session); err != nil {
			return nil, err
		}
		result, _, err = s.roundTrip(ctx, m, hand, progress)
	}
	if ctx.Err() != nil && err != nil {
		s.cancel(ctx, m.ID, hand)
		return nil, ctx.Err()
	}
	return result, err
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
	req, err := s.newRequest(ctx, http.MethodDelete, nil, hand)
	if err != nil {
		return
	}
	if res, err := s.c.hc.Do(req); err == nil {
		_ = res.Body.Close()
	}
}
