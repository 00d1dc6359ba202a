package mcpserver

import (
	"context"
	"encoding/json"

	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// listTools are the tools that the caller could call here, under the names of
// this endpoint.
func (s *Server) listTools(x *exchange) (json.RawMessage, error) {
	list := struct {
		Tools []json.RawMessage `json:"tools"`
	}{[]json.RawMessage{}}
	for _, t := range s.Gate.List(x.ctx, x.principal) {
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

// callTool takes the call to the gate, which knows the tool by its full name. What
// this endpoint does not offer is unknown here.
func (s *Server) callTool(ctx context.Context, x *exchange, peer tool.Peer) (json.RawMessage, error) {
	name := mcp.Text(x.msg.Params, "name")
	if name == "" {
		return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "tools/call needs the name of a tool"}
	}
	if mcp.Twin(x.msg.Params, "name", "arguments", "_meta") || mcp.Twin(mcp.Field(x.msg.Params, "_meta"), "progressToken") {
		return nil, twins()
	}
	c := s.call(x, tool.KindTool, peer)
	c.Name = tool.Tool{Def: tool.Def{Name: name}, Origin: x.audience.Origin}.FullName()
	c.Params, c.Args = x.msg.Params, mcp.Field(x.msg.Params, "arguments")
	if string(c.Args) == "null" { // some clients spell "absent" so
		c.Args = nil
	}
	out, err := s.Gate.Do(ctx, c)
	if err != nil {
		return nil, err
	}
	if t, found := s.Registry.Lookup(c.Name); found && !t.Forwarded {
		return mcp.TextResult(out, string(out), false), nil
	}
	return out, nil
}

func twins() error {
	return &mcp.Error{Code: mcp.InvalidParams, Message: "params has members that differ in the case of letters only"}
}

// call is what all calls of an exchange have in common.
func (s *Server) call(x *exchange, kind tool.Kind, peer tool.Peer) gate.Call {
	return gate.Call{
		Principal: x.principal, Kind: kind, Session: x.session, Peer: peer, Offered: x.audience.Offers,
		Door: x.door, Remote: x.remote, Ref: x.ref,
	}
}
