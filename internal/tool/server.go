package tool

import (
	"context"
	"encoding/json"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
)

// Server is a server behind us apart from its tools. Its resources and prompts
// are not pinned: they are read where they are, by who may read there at all.
type Server struct {
	Tool     // who may, and how the server is reached; Fits and Definition are not used
	Sessions Sessions
	Provider string // whose credential each person needs there; empty if none
}

// Sessions are those that a server has with callers, through us.
type Sessions interface {
	// Announced is what the server said of itself when it was last spoken to. It
	// waits for a server that was not reached yet, at most until ctx ends.
	Announced(ctx context.Context) (Announcement, bool)
	// Open opens a session of the caller's own, if the server has such, and returns
	// what Session.Upstream is to be from then on.
	Open(ctx context.Context, s Session) (upstream string, a Announcement, err error)
	// End ends what Open opened.
	End(ctx context.Context, s Session)
	// Listen gives the peer what the server says outside of calls, until ctx ends.
	Listen(ctx context.Context, s Session, p Peer)
	// Tell passes on a notification of the caller, if the session is its own.
	Tell(ctx context.Context, s Session, method string, params json.RawMessage)
}

// Announcement is what a server says of itself.
type Announcement struct {
	Capabilities json.RawMessage // a JSON object
	Instructions string
}

// Session is an MCP session of a caller, who was found out anew for this
// message. The zero value is that of a call outside of sessions.
type Session struct {
	Caller   principal.Principal
	Key      string          // unguessable, the same on every node
	Alone    bool            // with one server only, so it can have a session there of its own
	Offers   json.RawMessage // what its client can be asked for, as MCP capabilities
	Upstream string          // its own session at the server, if it had one when it began
}
