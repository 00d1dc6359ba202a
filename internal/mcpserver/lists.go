package mcpserver

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// patience is how long one server may keep a caller waiting who wants something
// of several.
const patience = 5 * time.Second

// Bounds of a list of one server, where those of several are put together.
const (
	maxListed = 1000
	maxPages  = 100
	maxBytes  = 8 << 20 // after which no other page is asked for
)

// readable are the servers of this endpoint that the caller may read from, in a
// stable order. No other is asked anything.
func (s *Server) readable(ctx context.Context, x *exchange) (servers []tool.Server) {
	for _, srv := range s.Gate.Servers(ctx, x.principal) {
		if x.audience.Offers(srv.Tool) {
			servers = append(servers, srv)
		}
	}
	return servers
}

// list makes the answer to a list: at the endpoint of one server that server's,
// page by page; at the common one those of all servers together, whole. A server
// that does not answer is missing there. member is what the list is called.
func list(member string, rename func(origin string, entry json.RawMessage) (json.RawMessage, error)) func(*Server, context.Context, *exchange, tool.Peer) (json.RawMessage, error) {
	return func(s *Server, ctx context.Context, x *exchange, peer tool.Peer) (json.RawMessage, error) {
		servers := s.readable(ctx, x)
		if x.audience.Origin != "" && len(servers) == 1 {
			c := s.call(x, tool.KindResource, peer)
			c.Server, c.Params = x.audience.Origin, x.msg.Params
			return s.Gate.Browse(ctx, c, x.msg.Method)
		}
		all := []json.RawMessage{}
		for i, part := range s.gather(ctx, x, servers, x.msg.Method, member) {
			for _, entry := range part {
				if rename != nil {
					var err error
					if entry, err = rename(servers[i].Origin, entry); err != nil {
						continue // no entry: an object without a name
					}
				}
				all = append(all, entry)
			}
		}
		return json.Marshal(map[string][]json.RawMessage{member: all})
	}
}

// prefixed is an entry under the name that it has at the common endpoint.
func prefixed(origin string, entry json.RawMessage) (json.RawMessage, error) {
	return mcp.Renamed(entry, origin+"_"+mcp.Text(entry, "name"))
}

// gather asks all servers at once and returns their lists in the same order.
func (s *Server) gather(ctx context.Context, x *exchange, servers []tool.Server, method, member string) [][]json.RawMessage {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	parts := make([][]json.RawMessage, len(servers))
	var asking sync.WaitGroup
	for i, srv := range servers {
		asking.Go(func() {
			if has(ctx, srv, method) {
				parts[i] = s.whole(ctx, x, srv.Origin, method, member)
			}
		})
	}
	asking.Wait()
	return parts
}

// has reports whether the server announced what the method belongs to.
func has(ctx context.Context, srv tool.Server, method string) bool {
	kind, _, _ := strings.Cut(method, "/")
	said, known := srv.Sessions.Announced(ctx)
	return known && mcp.Field(said.Capabilities, kind) != nil
}

// whole is one server's list with all its pages, as far as it can be had.
func (s *Server) whole(ctx context.Context, x *exchange, origin, method, member string) (all []json.RawMessage) {
	c := s.call(x, tool.KindResource, nil)
	c.Server, c.Params = origin, json.RawMessage("{}")
	size := 0
	for range maxPages {
		page, err := s.Gate.Browse(ctx, c, method)
		var entries []json.RawMessage
		if err != nil || json.Unmarshal(mcp.Field(page, member), &entries) != nil {
			s.Log.Debug("list not read", "server", origin, "method", method, "err", err)
			return all
		}
		all, size = append(all, entries...), size+len(page)
		cursor := mcp.Field(page, "nextCursor")
		if len(all) >= maxListed || size >= maxBytes || len(cursor) == 0 || cursor[0] != '"' {
			return all[:min(len(all), maxListed)]
		}
		c.Params = append(append([]byte(`{"cursor":`), cursor...), '}')
	}
	return all
}

// needsSession is the answer to what lasts longer than a request.
func needsSession(x *exchange) error {
	if x.session.Key != "" {
		return nil
	}
	return &mcp.Error{Code: mcp.InvalidRequest, Message: x.msg.Method + " needs a session: initialize first"}
}

// absent tells a caller who asks for a resource or prompt that there is none.
func absent(p *problem.Error, method string) int {
	if p.Kind == problem.NotFound && strings.HasPrefix(method, "resources/") {
		return mcp.ResourceNotFound
	}
	return mcp.InvalidParams
}
