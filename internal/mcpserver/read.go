package mcpserver

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// maxName is the longest URI or name of a prompt, in bytes: it is recorded.
const maxName = 2048

// read takes a request about something that is not a tool to the gate.
func (s *Server) read(ctx context.Context, x *exchange, peer tool.Peer, kind tool.Kind, origin, name string, params json.RawMessage) (json.RawMessage, error) {
	c := s.call(x, kind, peer)
	c.Server, c.Name, c.Params, c.Args = origin, name, params, params
	return s.Gate.Do(ctx, c)
}

// resource reads a resource, or begins or ends to watch it. At the common
// endpoint it is asked of the server that has it.
func resource(kind tool.Kind) func(*Server, context.Context, *exchange, tool.Peer) (json.RawMessage, error) {
	return func(s *Server, ctx context.Context, x *exchange, peer tool.Peer) (json.RawMessage, error) {
		uri, err := named(x, x.msg.Params, "uri")
		if err == nil && kind != tool.KindResource {
			err = needsSession(x)
		}
		if err != nil {
			return nil, err
		}
		return s.read(ctx, x, peer, kind, s.owner(ctx, x, uri), uri, x.msg.Params)
	}
}

// getPrompt gets a prompt. At the common endpoint its name has the prefix of its
// server.
func (s *Server) getPrompt(ctx context.Context, x *exchange, peer tool.Peer) (json.RawMessage, error) {
	name, err := named(x, x.msg.Params, "name", "arguments")
	if err != nil {
		return nil, err
	}
	origin, own := s.promptAt(x, name)
	params, err := mcp.Renamed(x.msg.Params, own)
	if err != nil {
		return nil, err
	}
	return s.read(ctx, x, peer, tool.KindPrompt, origin, promptName(origin, own), params)
}

// promptAt splits the name that a prompt has at this endpoint. Names of servers
// have no underscore, so there is one way to do it.
func (s *Server) promptAt(x *exchange, name string) (origin, own string) {
	if x.audience.Origin != "" {
		return x.audience.Origin, name
	}
	if origin, own, found := strings.Cut(name, "_"); found {
		return origin, own
	}
	return "", name
}

// promptName is how a prompt is recorded, at whichever endpoint it was asked for.
func promptName(origin, own string) string {
	return tool.Tool{Def: tool.Def{Name: own}, Origin: origin}.FullName()
}

// complete completes an argument of a prompt or a resource template, at the
// server that has it.
func (s *Server) complete(ctx context.Context, x *exchange, peer tool.Peer) (json.RawMessage, error) {
	params, ref := x.msg.Params, mcp.Field(x.msg.Params, "ref")
	if mcp.Twin(params, "ref", "argument", "context", "_meta") {
		return nil, twins()
	}
	switch mcp.Text(ref, "type") {
	case "ref/prompt":
		name, err := named(x, ref, "name", "type")
		if err != nil {
			return nil, err
		}
		origin, own := s.promptAt(x, name)
		if own != name {
			quoted, _ := json.Marshal(own) // strings always marshal
			if params, err = mcp.Replace(params, quoted, "ref", "name"); err != nil {
				return nil, err
			}
		}
		return s.read(ctx, x, peer, tool.KindCompletion, origin, promptName(origin, own), params)
	case "ref/resource":
		uri, err := named(x, ref, "uri", "type")
		if err != nil {
			return nil, err
		}
		return s.read(ctx, x, peer, tool.KindCompletion, s.owner(ctx, x, uri), uri, params)
	}
	return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "completion/complete needs a ref of type ref/prompt or ref/resource"}
}

// named is what an object calls by the member key, which is decided about. It and
// others must have no twin.
func named(x *exchange, object json.RawMessage, key string, others ...string) (string, error) {
	name := mcp.Text(object, key)
	switch {
	case name == "" || len(name) > maxName:
		return "", &mcp.Error{Code: mcp.InvalidParams, Message: fmt.Sprintf("%s needs a %s of at most %d bytes", x.msg.Method, key, maxName)}
	case mcp.Twin(object, append(others, key, "_meta")...):
		return "", twins()
	}
	return name, nil
}

// setLevel says how much a session wants to hear of what servers log, at the
// common endpoint to all that it may read from. One that is down hears it when
// somebody asks again.
func (s *Server) setLevel(ctx context.Context, x *exchange, peer tool.Peer) (json.RawMessage, error) {
	level := mcp.Text(x.msg.Params, "level")
	if !slices.Contains(mcp.LogLevels, level) {
		return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "level must be one of " + strings.Join(mcp.LogLevels, ", ")}
	}
	if err := needsSession(x); err != nil {
		return nil, err
	}
	if x.audience.Origin != "" {
		return s.read(ctx, x, peer, tool.KindLogLevel, x.audience.Origin, level, x.msg.Params)
	}
	for _, srv := range s.readable(ctx, x) {
		if !has(ctx, srv, x.msg.Method) {
			continue
		}
		_, err := s.read(ctx, x, peer, tool.KindLogLevel, srv.Origin, level, x.msg.Params)
		if err != nil && problem.From(err).Kind != problem.Unavailable {
			return nil, err
		}
	}
	return json.RawMessage("{}"), nil
}
