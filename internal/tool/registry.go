package tool

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var nameTaken = problem.Code{
	Name: "TOOL_NAME_TAKEN", Kind: problem.Conflict,
	Why: "another tool is already published under this name",
	Fix: "give the server another name",
}

// Registry is the one list of what can be called, for every door (R701, R702).
// Its zero value is empty. It is safe for concurrent use; reading takes no lock.
type Registry struct {
	mu      sync.Mutex // of writers
	current atomic.Pointer[listing]
	changed chan struct{} // closed at the next change; nil while nobody waits for one
}

// listing is one immutable state of the registry.
type listing struct {
	byName  map[string]Tool
	sorted  []Tool
	origins map[string]bool // also those that publish nothing at the moment
	servers []Server        // by origin
}

func (r *Registry) state() *listing {
	if l := r.current.Load(); l != nil {
		return l
	}
	return &listing{}
}

// Publish makes tools the whole offer of origin, in place of what it offered
// before. If one of the names belongs to another origin, nothing changes.
func (r *Registry) Publish(origin string, tools []Tool) error {
	return r.publish(origin, tools)
}

// PublishServer makes tools, and what else the server has, the whole offer of its
// origin.
func (r *Registry) PublishServer(s Server, tools []Tool) error {
	return r.publish(s.Origin, tools, s)
}

func (r *Registry) publish(origin string, tools []Tool, servers ...Server) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.state().without(origin)
	next.origins[origin] = true
	next.servers = append(next.servers, servers...)
	for _, t := range tools {
		t.Origin = origin
		if other, taken := next.byName[t.FullName()]; taken {
			return nameTaken.New("the tool %s of %q cannot be published", t.FullName(), origin).
				WithWhy("%q already offers a tool of this name", other.Origin)
		}
		next.byName[t.FullName()] = t
	}
	r.swap(next)
	return nil
}

// Withdraw takes all tools of origin away.
func (r *Registry) Withdraw(origin string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swap(r.state().without(origin))
}

func (l *listing) without(origin string) *listing {
	next := &listing{byName: map[string]Tool{}, origins: maps.Clone(l.origins)}
	if next.origins == nil {
		next.origins = map[string]bool{}
	}
	delete(next.origins, origin)
	for name, t := range l.byName {
		if t.Origin != origin {
			next.byName[name] = t
		}
	}
	for _, s := range l.servers {
		if s.Origin != origin {
			next.servers = append(next.servers, s)
		}
	}
	return next
}

func (r *Registry) swap(next *listing) {
	next.sorted = slices.SortedFunc(maps.Values(next.byName), func(a, b Tool) int {
		return strings.Compare(a.FullName(), b.FullName())
	})
	slices.SortFunc(next.servers, func(a, b Server) int { return strings.Compare(a.Origin, b.Origin) })
	r.current.Store(next)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Changed is closed at the next change of what is published.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// Server finds the server behind us that is called origin.
func (r *Registry) Server(origin string) (Server, bool) {
	for _, s := range r.Servers() {
		if s.Origin == origin {
			return s, true
		}
	}
	return Server{}, false
}

// Servers are those behind us, by name. The slice is shared and must not be
// changed.
func (r *Registry) Servers() []Server { return r.state().servers }

// Providers are those whose credentials each person needs at servers that match,
// each once, in a stable order.
func (r *Registry) Providers(match func(Server) bool) []string {
	var names []string
	for _, s := range r.Servers() {
		if s.Provider != "" && match(s) {
			names = append(names, s.Provider)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Lookup finds a tool by its full name.
func (r *Registry) Lookup(fullName string) (Tool, bool) {
	t, ok := r.state().byName[fullName]
	return t, ok
}

// All are the tools by full name, in a stable order (R720). The slice is shared
// and must not be changed.
func (r *Registry) All() []Tool { return r.state().sorted }

// Origins are those that are published, in a stable order.
func (r *Registry) Origins() []string { return slices.Sorted(maps.Keys(r.state().origins)) }

// HasOrigin reports whether origin is published, be it with no tool at all.
func (r *Registry) HasOrigin(origin string) bool { return r.state().origins[origin] }

// The catch-all scopes; principal.Covers says what they include.
const (
	ScopeRead  = "mcp:read"
	ScopeTools = "mcp:tools"
	ScopeAdmin = "mcp:admin"
)

// Scopes are the scopes that exist now, in a stable order: the catch-alls and
// those that tools ask for.
func (r *Registry) Scopes() []string {
	set := map[string]bool{ScopeRead: true, ScopeTools: true, ScopeAdmin: true}
	for _, t := range r.All() {
		if t.Scope != "" && t.Scope != AnyScope {
			set[t.Scope] = true
		}
	}
	for origin := range r.state().origins {
		if origin != "" && origin != Control {
			set[origin+":read"], set[origin+":write"], set[origin+":admin"] = true, true, true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
