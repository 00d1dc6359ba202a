// Package gate is the one way to call a tool: policy enforcement point and
// policy decision point in one.
//
// Every door turns what it received into a Call, and nothing else calls a tool.
// What is hidden from a caller cannot be called by it: listing and calling take
// the same decision. Every decision leaves exactly one outcome event; where the
// event cannot be written, nothing is done.
package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Codes are the problems of this package.
var Codes = []problem.Code{SignInNeeded, ToolUnknown, ResourceUnknown, ScopeRequired, RankTooLow, ToolNotAllowed, DirectOnly, callerGone, toolBroke}

// Codes of refused calls.
var (
	SignInNeeded = problem.Code{
		Name: "SIGN_IN_NEEDED", Kind: problem.Unauthenticated,
		Why: "only tools that anyone may use can be called without an access token",
		Fix: "sign in first",
	}
	ToolUnknown = problem.Code{
		Name: "TOOL_UNKNOWN", Kind: problem.NotFound,
		Why: "no tool of this name is offered here to this caller",
		Fix: "list the tools and use a name from the list",
	}
	ResourceUnknown = problem.Code{
		Name: "RESOURCE_UNKNOWN", Kind: problem.NotFound,
		Why: "no server that this caller may read from offers it here",
		Fix: "list the resources or prompts and use one from the list",
	}
	ScopeRequired = problem.Code{
		Name: "SCOPE_REQUIRED", Kind: problem.Forbidden,
		Why: "the access token was granted for less",
		Fix: "sign in again and allow what the tool needs",
	}
	RankTooLow = problem.Code{
		Name: "RANK_TOO_LOW", Kind: problem.Forbidden,
		Why: "your role in this workspace does not include this tool",
		Fix: "ask an owner of the workspace",
	}
	ToolNotAllowed = problem.Code{
		Name: "TOOL_NOT_ALLOWED", Kind: problem.Forbidden,
		Why: "a service account can use the tools on its list and nothing else",
		Fix: "ask an admin to put the tool on the list of the account",
	}
	DirectOnly = problem.Code{
		Name: "DIRECT_ONLY", Kind: problem.Forbidden,
		Why: "this tool is for people acting directly, not for apps on their behalf",
		Fix: "use the command line on the server or the pages",
	}
	callerGone = problem.Code{
		Name: "CALLER_GONE", Kind: problem.Unavailable,
		Why:   "the caller went away or waited long enough",
		About: "nobody waited for the answer; call again if it is still wanted",
	}
	toolBroke = problem.Code{
		Name: "TOOL_BROKE", Kind: problem.Internal,
		Why: "something failed that should not; it has been recorded",
		Fix: "give the reference to the operator",
	}
)

// Call is a wish to call a tool, or to read something else of a server.
type Call struct {
	Principal principal.Principal
	Kind      tool.Kind
	Name      string               // the full name of a tool; the name of what is read otherwise
	Server    string               // the origin of what is read; not used for tools
	Params    json.RawMessage      // as received; nil from doors that have none
	Args      json.RawMessage      // a JSON object; nil asks "ever?" and not "now?"
	Session   tool.Session         // of MCP; zero without one
	Peer      tool.Peer            // nil where the door cannot reach the caller
	Offered   func(tool.Tool) bool // what the door offers; the rest is unknown there. nil offers everything
	Door      string               // where it came in: mcp, stdio, rest, socket
	Remote    string               // address of the caller
	Ref       string               // reference of the flow
}

// A Check is one objection. It is asked twice: with nil Args whether the caller
// could ever call the tool, when it neither counts nor spends nor reads the
// database; and with Args whether this call may happen now.
type Check interface {
	Check(ctx context.Context, c Call, t tool.Tool) error
}

// Gate decides about calls and carries them out.
type Gate struct {
	DB       *store.DB
	Audit    *audit.Log
	Registry *tool.Registry
	Checks   []Check // in this order; the first objection counts
}

// List are the tools that the principal could call, in a stable order (R704,
// R720).
func (g *Gate) List(ctx context.Context, p principal.Principal) []tool.Tool {
	var tools []tool.Tool
	for _, t := range g.Registry.All() {
		if g.ever(ctx, Call{Principal: p, Name: t.FullName()}, t) == nil {
			tools = append(tools, t)
		}
	}
	return tools
}

// Servers are the servers behind us from which the principal may read, by name.
func (g *Gate) Servers(ctx context.Context, p principal.Principal) []tool.Server {
	var servers []tool.Server
	for _, s := range g.Registry.Servers() {
		if g.ever(ctx, Call{Principal: p, Kind: tool.KindResource, Server: s.Origin}, s.Tool) == nil {
			servers = append(servers, s)
		}
	}
	return servers
}

// Browse asks a server for a page of one of its lists, by a method of MCP that
// ends in /list. It takes the decision that Do takes about reading, and leaves as
// little trace as List; a caller who may not read does not reach the server.
func (g *Gate) Browse(ctx context.Context, c Call, method string) (json.RawMessage, error) {
	c.Kind = tool.KindResource
	t, err := g.decide(ctx, c)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(method, "/list") {
		return nil, toolBroke.New("%s is no list", method)
	}
	var out json.RawMessage
	err = gone(ctx, safely(func() (err error) {
		out, err = t.Outside(ctx, tool.Request{Principal: c.Principal, Method: method, Params: c.Params, Session: c.Session, Peer: c.Peer})
		return err
	}))
	return out, err
}

// Do decides about the call, carries it out and records it. The answer is the
// tool's output; from servers behind us it is a result of MCP.
func (g *Gate) Do(ctx context.Context, c Call) (json.RawMessage, error) {
	began := time.Now()
	if len(c.Args) == 0 {
		c.Args = json.RawMessage("{}")
	}
	t, err := g.decide(ctx, c)
	if err != nil {
		return nil, g.refused(ctx, c, err)
	}
	e := event(c)
	if t.Inside != nil {
		return g.inside(ctx, c, t, e, began)
	}
	return g.outside(ctx, c, t, e, began)
}

func (g *Gate) lookup(c Call) (tool.Tool, bool) {
	if c.Kind == tool.KindTool {
		return g.Registry.Lookup(c.Name)
	}
	s, found := g.Registry.Server(c.Server)
	return s.Tool, found
}

func (g *Gate) decide(ctx context.Context, c Call) (tool.Tool, error) {
	t, found := g.lookup(c)
	if !found || c.Offered != nil && !c.Offered(t) {
		return t, unknown(c)
	}
	ever := c
	ever.Args = nil
	if err := g.ever(ctx, ever, t); err != nil {
		return t, err
	}
	if err := t.Fits(c.Args); err != nil {
		return t, err
	}
	return t, g.check(ctx, c, t)
}

// ever decides whether the caller could call the tool at all.
func (g *Gate) ever(ctx context.Context, c Call, t tool.Tool) error {
	p := c.Principal
	switch {
	case t.ForeignTo(p):
		return unknown(c)
	case max(p.Rank, principal.Anyone) < t.MayCall():
		if p.Kind == principal.Anonymous {
			return unknown(c)
		}
		return RankTooLow.New("%.128s is not for the role %s", c.Name, p.Rank)
	case !listed(c, t):
		return ToolNotAllowed.New("%.128s is not on the list of this service account", c.Name)
	case !t.ScopeMet(p):
		err := ScopeRequired.New("%.128s needs the scope %s", c.Name, t.Scope)
		err.Scope = t.Scope
		return err
	case t.Direct && !p.Direct():
		return DirectOnly.New("%s cannot be called by an app", c.Name)
	}
	return g.check(ctx, c, t)
}

// listed reports whether the list of a service account, of which others have none,
// does not stand in the way (R622). On it are tools: a server's resources and
// prompts are not.
func listed(c Call, t tool.Tool) bool {
	p := c.Principal
	return p.Kind != principal.ServiceAccount ||
		c.Kind == tool.KindTool && (t.Caller == principal.Anyone || slices.Contains(p.Tools, t.FullName()))
}

func (g *Gate) check(ctx context.Context, c Call, t tool.Tool) error {
	for _, check := range g.Checks {
		if err := safely(func() error { return check.Check(ctx, c, t) }); err != nil {
			return err
		}
	}
	return nil
}

// unknown tells a stranger only that it has to sign in, whether or not there is
// such a tool.
func unknown(c Call) error {
	if c.Principal.Kind == principal.Anonymous {
		return SignInNeeded.New("%.128s cannot be called without signing in", c.Name)
	}
	if c.Kind != tool.KindTool {
		return ResourceUnknown.New("there is no %s %.128q here", c.Kind, c.Name)
	}
	return ToolUnknown.New("there is no tool %.128q here", c.Name)
}

func event(c Call) audit.Event {
	return audit.Event{
		Workspace: c.Principal.Workspace, Actor: c.Principal.Name(), Client: c.Principal.Client, Token: c.Principal.Token,
		Action: c.Kind.Action(), Target: c.Name, Call: store.ID("call_"), Payload: audit.Digest(c.Args), Door: c.Door, Ref: c.Ref,
		Outcome: audit.Allowed,
	}
}

// ended says in the event how the call went.
func ended(e audit.Event, began time.Time, t tool.Tool, err error) audit.Event {
	e.Outcome, e.Duration = audit.Allowed, time.Since(began).Microseconds()
	if err == nil {
		return e
	}
	e.Outcome, e.Code = audit.Failed, problem.From(err).Name
	if _, known := errors.AsType[*problem.Error](err); !known && t.Forwarded {
		e.Code = "UPSTREAM_ERROR" // an error of the server behind us, passed on as it is
	}
	return e
}

// safely turns a panic into an error, so that it is recorded like every other.
func safely(run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = toolBroke.New("the call failed").Because(fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
		}
	}()
	return run()
}

// gone names the error of a call whose caller did not wait for it.
func gone(ctx context.Context, err error) error {
	if _, known := errors.AsType[*problem.Error](err); known || ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	return callerGone.New("the call was given up").Because(err)
}

// refused records the refusal. If that is not possible, the caller hears so.
// Strangers are counted: they cannot fill the log.
func (g *Gate) refused(ctx context.Context, c Call, err error) error {
	if c.Principal.Kind == principal.Anonymous {
		g.Audit.Stranger(audit.Denied, "tool call refused: "+problem.From(err).Name, audit.Prefix(c.Remote))
		return err
	}
	e := event(c)
	e.Call = ""
	e.Outcome, e.Code = audit.Denied, problem.From(err).Name
	if werr := g.Audit.Write(context.WithoutCancel(ctx), e); werr != nil {
		return werr
	}
	return err
}

// inside runs the tool in one transaction with its event: no record, no change.
func (g *Gate) inside(ctx context.Context, c Call, t tool.Tool, e audit.Event, began time.Time) (out json.RawMessage, err error) {
	stranger := c.Principal.Kind == principal.Anonymous
	recorded := stranger
	if stranger {
		g.Audit.Stranger(audit.Allowed, "tool called: "+c.Name, audit.Prefix(c.Remote))
	}
	err = gone(ctx, g.DB.Do(ctx, func(tx *store.Tx) error {
		err := safely(func() (err error) {
			out, err = t.Inside(tx, c.Principal, c.Args)
			return err
		})
		if !stranger {
			g.Audit.Append(tx, ended(e, began, t, err)) // kept with what the tool keeps
			tx.AfterCommit(func() { recorded = true })
		}
		return err
	}))
	if recorded {
		return out, err
	}
	if werr := g.Audit.Write(context.WithoutCancel(ctx), ended(e, began, t, err)); werr != nil {
		return nil, werr
	}
	return nil, err
}

// outside runs a tool that reaches the world. A call that can change it is
// recorded before, durably; every call is recorded before it is answered, also
// when its caller is gone.
func (g *Gate) outside(ctx context.Context, c Call, t tool.Tool, e audit.Event, began time.Time) (out json.RawMessage, err error) {
	record := context.WithoutCancel(ctx)
	if t.Effect != tool.Reads {
		pending := e
		pending.Outcome = audit.Pending
		if err := g.Audit.Write(record, pending); err != nil {
			return nil, err
		}
	}
	err = gone(ctx, safely(func() (err error) {
		out, err = t.Outside(ctx, tool.Request{
			Principal: c.Principal, Method: c.Kind.Method(), Params: c.Params, Args: c.Args, Session: c.Session, Peer: c.Peer,
		})
		return err
	}))
	if werr := g.Audit.Write(record, ended(e, began, t, err)); werr != nil {
		return nil, werr
	}
	return out, err
}
