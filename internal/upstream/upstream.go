// Package upstream speaks to the MCP servers behind us and publishes what they
// offer.
//
// A server is reached over stdio, as a child of ours, or over HTTP. What its
// tools may do was read once, when it was added, and stays as it was pinned
// then, whatever the server says later; its resources and prompts are read where
// they are. Parameters and results pass as the
// bytes they are. Nothing of the caller goes upstream but these parameters: no
// token, no header, no name. Nothing of the upstream comes back but its
// messages. No child outlives us, and no caller waits for a server that is
// known to be down.
package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Codes are the problems of this package.
var Codes = []problem.Code{unreachable, unavailable, inFile, garbage, wantsLogin, wrongRevision, cancelled, nameInvalid, addressInvalid, exists, unknown}

var (
	unreachable = problem.Code{
		Name: "UPSTREAM_UNREACHABLE", Kind: problem.Unavailable,
		Fix:   "check the address or the command, and that the server runs",
		About: "a server behind this one does not answer, or its command cannot be started",
	}
	unavailable = problem.Code{
		Name: "UPSTREAM_UNAVAILABLE", Kind: problem.Unavailable,
		Why: "the server went away; whether it carried the call out is not known",
		Fix: "try again in a moment; gatehouse servers shows its state",
	}
	garbage = problem.Code{
		Name: "UPSTREAM_GARBAGE", Kind: problem.Unavailable,
		Fix:   "check that the address or command is that of an MCP server",
		About: "what a server behind this one answers is not MCP",
	}
	wantsLogin = problem.Code{
		Name: "UPSTREAM_WANTS_LOGIN", Kind: problem.Unavailable,
		Why: "it asks for a credential and none is known here",
		Fix: "let the server accept the gateway without login, from the gateway only",
	}
	wrongRevision = problem.Code{
		Name: "UPSTREAM_REVISION", Kind: problem.Unavailable,
		Fix:   "use a release of the server that speaks MCP " + mcp.Latest + " or an earlier revision",
		About: "a server behind this one speaks no revision of MCP that is known here",
	}
	cancelled = problem.Code{
		Name: "CALL_CANCELLED", Kind: problem.Unavailable,
		Why:   "the caller went away or waited long enough",
		About: "the call was given up before the server behind this one had answered; call again if the answer is still wanted",
	}
)

// Conn is the connection to one server. It outlives sessions and processes: what
// breaks is made anew.
type Conn interface {
	// Connect waits until the server has shaken hands and returns what it said,
	// or the problem that keeps it from doing so.
	Connect(ctx context.Context) (mcp.InitializeResult, error)
	// Call makes one request and waits for its result. params is a JSON object or
	// nil. Notifications that belong to the call go to the peer, in order and before
	// Call returns, and so does what the server asks meanwhile; peer may be nil. An
	// error of the server itself is an *mcp.Error as it was sent; everything else is a
	// problem. When ctx ends, the server is told and Call returns.
	Call(ctx context.Context, s tool.Session, method string, params json.RawMessage, peer tool.Peer) (json.RawMessage, error)
	// Known is what the server said of itself in its last handshake. It waits for the
	// first one, if that has not been tried, at most until ctx ends.
	Known(ctx context.Context) (mcp.InitializeResult, bool)
	// Open opens a session of the caller's own where the server has sessions, and
	// returns what makes another node, or this one later, find it again; "" where
	// callers share one.
	Open(ctx context.Context, s tool.Session) (upstream string, said mcp.InitializeResult, err error)
	// End ends the session, and what the caller asked for in a shared one.
	End(ctx context.Context, s tool.Session)
	// Listen gives the peer what the server says outside of calls, until ctx ends.
	Listen(ctx context.Context, s tool.Session, peer tool.Peer)
	// Tell passes a notification on in a session of the caller's own.
	Tell(ctx context.Context, s tool.Session, m mcp.Message)
	// State is what is known without asking: since when it is so, and err says why
	// the server is Down.
	State() (state State, since time.Time, err error)
	// Said are the last lines that the server printed besides the protocol, for
	// the operator only: they may hold secrets.
	Said(lines int) string
	// Close ends calls in flight with a problem, says goodbye, and returns when
	// nothing of the connection is left.
	Close()
}

// State is how a server does.
type State string

// The states of a connection.
const (
	Starting  State = "starting"
	Connected State = "connected"
	Down      State = "down"
)

// Spec says where a server is: a URL or a command, not both.
type Spec struct {
	Name    string
	URL     string
	Command []string
	Env     map[string]seal.Secret // of the command, besides the basics

	Provider string // whose credential each person uses at the URL; empty if none is needed
}

// maxMessage is the longest message, in bytes, that is taken from a server.
const maxMessage = 16 << 20

// open makes the connection of a spec, which begins at once to reach the server.
func (s *Servers) open(spec Spec) Conn {
	switch {
	case spec.Provider != "":
		return &personal{everybody: openHTTP(spec, s.self(), s.Log), lending: s.Lending, accounts: map[string]*account{}}
	case spec.URL != "":
		return openHTTP(spec, s.self(), s.Log)
	}
	return openStdio(spec, s.self(), s.Log)
}

// revisions are what we accept as the answer to our offer. The oldest differs
// in nothing that we use.
var revisions = append(slices.Clone(mcp.Legacy), "2024-11-05")

// shakeHands opens a session by way of call and judges the answer (MCP 2025-11-25
// lifecycle, "Initialization"). offers are the capabilities it declares.
func shakeHands(name string, self mcp.Implementation, offers json.RawMessage, call func(params json.RawMessage) (json.RawMessage, error)) (mcp.InitializeResult, error) {
	var said mcp.InitializeResult
	params, err := json.Marshal(mcp.InitializeParams{
		ProtocolVersion: mcp.Latest, Capabilities: offers, ClientInfo: self,
	})
	if err != nil {
		return said, err
	}
	result, err := call(params)
	if refusal, ok := errors.AsType[*mcp.Error](err); ok {
		return said, refusedHands(name, refusal)
	}
	if err != nil {
		return said, err
	}
	if err := json.Unmarshal(result, &said); err != nil {
		return said, garbage.New("%q does not speak MCP", name).WithWhy("its answer to the handshake cannot be read")
	}
	if !slices.Contains(revisions, said.ProtocolVersion) {
		return said, wrongRevision.New("%q speaks another revision of MCP", name).
			WithWhy("it offers %.40q; known here are %s", said.ProtocolVersion, strings.Join(revisions, ", "))
	}
	return said, nil
}

func refusedHands(name string, refusal *mcp.Error) error {
	if refusal.Code == mcp.UnsupportedVersion {
		return wrongRevision.New("%q speaks another revision of MCP", name).Because(refusal).
			WithWhy("it refuses %s", mcp.Latest)
	}
	return garbage.New("%q refuses the handshake", name).Because(refusal).WithWhy("it says: %.200q", refusal.Message)
}

// The pauses between attempts to reach a server that fails.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 30 * time.Second
)

// keep runs run again whenever it returns, until ctx ends. Pauses double up to
// the longest and begin anew after a run that lasted longer than that.
func keep(ctx context.Context, run func(context.Context)) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		run(ctx)
		if time.Since(began) > longestPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

func tooLarge(name string) error {
	return garbage.New("%q answered with more than the gateway passes on", name).
		WithWhy("a message may have %d MB", maxMessage>>20).WithFix("ask it for less")
}
