package mcpserver

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// owner is the server that has a resource. At the common endpoint it is the first
// by name, of those that the caller may read from, that lists the URI or a template
// it fits. It is "" if there is none: no server is asked for what it does not list.
func (s *Server) owner(ctx context.Context, x *exchange, uri string) string {
	if x.audience.Origin != "" {
		return x.audience.Origin
	}
	for _, srv := range s.readable(ctx, x) {
		if s.catalogue(ctx, x, srv).has(uri) {
			return srv.Origin
		}
	}
	return ""
}

// catalogue is what resources a server listed a moment ago.
type catalogue struct {
	of        tool.Sessions // the server, which another of the same name is not
	read      time.Time
	uris      map[string]bool
	templates []*regexp.Regexp
}

func (c catalogue) has(uri string) bool {
	if c.uris[uri] {
		return true
	}
	for _, t := range c.templates {
		if t.MatchString(uri) {
			return true
		}
	}
	return false
}

// freshness is how long a catalogue is believed. It decides only which server is
// asked.
const freshness = 5 * time.Second

// catalogues remembers them by server. The lists of a server are the same for all
// callers.
type catalogues struct {
	mu sync.Mutex
	m  map[string]catalogue
}

func (s *Server) catalogue(ctx context.Context, x *exchange, srv tool.Server) catalogue {
	s.catalogues.mu.Lock()
	c, known := s.catalogues.m[srv.Origin]
	s.catalogues.mu.Unlock()
	if known && c.of == srv.Sessions && time.Since(c.read) < freshness {
		return c
	}
	c = s.readCatalogue(ctx, x, srv)
	s.catalogues.mu.Lock()
	defer s.catalogues.mu.Unlock()
	if s.catalogues.m == nil {
		s.catalogues.m = map[string]catalogue{}
	}
	s.catalogues.m[srv.Origin] = c
	return c
}

func (s *Server) readCatalogue(ctx context.Context, x *exchange, srv tool.Server) catalogue {
	c := catalogue{of: srv.Sessions, read: time.Now(), uris: map[string]bool{}}
	one := []tool.Server{srv}
	for _, entry := range s.gather(ctx, x, one, "resources/list", "resources")[0] {
		c.uris[mcp.Text(entry, "uri")] = true
	}
	for _, entry := range s.gather(ctx, x, one, "resources/templates/list", "resourceTemplates")[0] {
		template := mcp.Text(entry, "uriTemplate")
		c.uris[template] = true // completion names the template itself
		if t := matcher(template); t != nil {
			c.templates = append(c.templates, t)
		}
	}
	return c
}

var expression = regexp.MustCompile(`\{([+#./;?&]?)[^{}]*\}`)

// expansions are what an expression of a URI template can become, by its operator
// (RFC 6570 §3.2). It is enough to find the server, which reads the URI itself.
var expansions = map[string]string{
	"": `[^/?#]*`, "+": `.*`, "#": `(#.*)?`, ".": `(\.[^/?#]*)?`, "/": `(/[^?#]*)?`, ";": `(;[^/?#]*)?`, "?": `(\?[^#]*)?`, "&": `(&[^#]*)?`,
}

// matcher fits what a URI template can become. It is nil for one that is empty or
// too long.
func matcher(template string) *regexp.Regexp {
	if template == "" || len(template) > maxName {
		return nil
	}
	var b strings.Builder
	end := 0
	for _, at := range expression.FindAllStringSubmatchIndex(template, -1) {
		b.WriteString(regexp.QuoteMeta(template[end:at[0]]) + expansions[template[at[2]:at[3]]])
		end = at[1]
	}
	b.WriteString(regexp.QuoteMeta(template[end:]))
	t, err := regexp.Compile("^" + b.String() + "$")
	if err != nil {
		return nil
	}
	return t
}

// announce says what the servers of this endpoint offer, within what is served. At
// the endpoint of one server it opens the caller's own session there. A server
// that cannot be reached now has nothing but its tools.
func (s *Server) announce(x *exchange, sess *session) tool.Announcement {
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	servers := s.readable(ctx, x)
	if x.audience.Origin == "" || len(servers) != 1 {
		return tool.Announcement{Capabilities: together(ctx, servers)}
	}
	upstream, said, err := servers[0].Sessions.Open(ctx, sess.mcp(x.principal))
	if err != nil {
		said, _ = servers[0].Sessions.Announced(ctx)
	}
	sess.Upstream = upstream
	return tool.Announcement{Capabilities: capabilities(said.Capabilities), Instructions: said.Instructions}
}

// together are the capabilities of several servers.
func together(ctx context.Context, servers []tool.Server) json.RawMessage {
	said := make([]json.RawMessage, len(servers))
	var asking sync.WaitGroup
	for i, srv := range servers {
		asking.Go(func() {
			a, _ := srv.Sessions.Announced(ctx)
			said[i] = a.Capabilities
		})
	}
	asking.Wait()
	return capabilities(said...)
}

// capabilities are what we announce of what servers said. The list of tools
// changes when servers come and go, whatever they say.
func capabilities(said ...json.RawMessage) json.RawMessage {
	all := map[string]map[string]bool{"tools": {"listChanged": true}}
	for _, one := range said {
		for name, flags := range map[string][]string{"resources": {"subscribe", "listChanged"}, "prompts": {"listChanged"}, "logging": nil, "completions": nil} {
			announced := mcp.Field(one, name)
			if announced == nil {
				continue
			}
			if all[name] == nil {
				all[name] = map[string]bool{}
			}
			for _, flag := range flags {
				if string(mcp.Field(announced, flag)) == "true" {
					all[name][flag] = true
				}
			}
		}
	}
	out, _ := json.Marshal(all) // of strings and booleans
	return out
}
