package upstream

import (
	"context"
	"embed"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

//go:embed *.sql
var migrations embed.FS

// Servers is the room of the servers behind us: what was added, here or on
// another node, is connected and published.
type Servers struct {
	DB       *store.DB
	Registry *tool.Registry
	Box      seal.Box // for what a command's environment holds
	Log      *slog.Logger
	Public   string // our address as clients see it, without a slash at the end
	Version  string // ours, as servers are told

	// Lending is whose credentials are used at servers that answer for accounts.
	Lending Lending

	// Followed records, in the transaction that does it, what is done because a
	// configuration file says so.
	Followed func(tx *store.Tx, workspace, file, action, server string)

	file    wanted
	mu      sync.Mutex // held while what is served changes
	serving map[string]*server
	stopped bool
}

// server is one that is served.
type server struct {
	id, workspace string
	file          string // the configuration file that it belongs to, or ""
	spec          Spec
	tools         []mcp.ToolDefinition // as pinned
	conn          Conn
}

// pollPause bounds how long a change made on another node goes unseen.
const pollPause = 2 * time.Second

// Tools are what the control plane offers about servers.
func (s *Servers) Tools() []tool.Tool {
	return []tool.Tool{
		tool.Reach(tool.Def{
			Name: "add_server", Doc: "Connect to an MCP server, pin its tools as they are now, and publish them.",
			Effect: tool.Writes, Caller: principal.Admin, Scope: "servers:admin", Direct: true,
		}, s.add),
		tool.Reach(tool.Def{
			Name: "list_servers", Doc: "List the MCP servers behind the gateway and how they do.",
			Effect: tool.Reads, Caller: principal.Readonly, Scope: "servers:read",
		}, s.list),
		tool.Reach(tool.Def{
			Name: "remove_server", Doc: "Disconnect from an MCP server and withdraw its tools.",
			Effect: tool.Destroys, Caller: principal.Admin, Scope: "servers:admin", Direct: true,
		}, s.remove),
	}
}

// Run follows what is added and removed on other nodes until ctx ends, and
// returns when every connection is closed and every child gone.
func (s *Servers) Run(ctx context.Context) {
	poll := time.NewTicker(pollPause)
	defer poll.Stop()
	for ctx.Err() == nil {
		if err := s.load(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("servers not followed", "err", err)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	s.stop()
}

// Open makes the tables and serves what they hold. The pinned tools are published
// at once and the connections made in the background, so a server that is down
// keeps nobody waiting.
func (s *Servers) Open(ctx context.Context) error {
	if err := s.DB.Migrate(ctx, "upstream", migrations); err != nil {
		return err
	}
	return s.load(ctx)
}

// load brings what is served in line with the table.
func (s *Servers) load(ctx context.Context) error {
	gone, err := s.follow(ctx)
	closeAll(gone)
	return err
}

// follow returns the connections of servers that were removed.
func (s *Servers) follow(ctx context.Context) (gone []Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, nil
	}
	var added []record
	var known map[string]bool
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		if known, err = ids(tx); err != nil {
			return err
		}
		added, err = s.records(tx, known)
		return err
	})
	if err != nil {
		return nil, err
	}
	for id, srv := range s.serving {
		if !known[id] {
			gone = append(gone, s.withdraw(srv))
		}
	}
	for _, r := range added {
		s.serve(s.revive(r))
	}
	return gone, nil
}

// records are the servers in the table that are not served yet.
func (s *Servers) records(tx *store.Tx, known map[string]bool) ([]record, error) {
	var added []record
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if s.serving[id] != nil {
			continue
		}
		r, err := read(tx, id)
		if err != nil {
			return nil, err
		}
		added = append(added, r)
	}
	return added, nil
}

// revive makes a server of its row. One whose environment does not open is served
// as one that is down.
func (s *Servers) revive(r record) *server {
	srv := &server{id: r.id, workspace: r.workspace, file: r.file, tools: r.tools}
	var err error
	if srv.spec, err = r.spec(s.Box); err != nil {
		s.Log.Error("server not started", "server", r.name, "err", err)
		srv.conn = broken{since: time.Now(), err: unavailable.New("%q cannot be started", r.name).WithWhy("its environment does not open with this master key").
			WithFix("remove the server and add it again").Because(err)}
		return srv
	}
	srv.conn = s.open(srv.spec)
	return srv
}

func (s *Servers) self() mcp.Implementation {
	return mcp.Implementation{Name: "gatehouse", Title: "Gatehouse", Version: s.Version}
}

// serve publishes a server's tools. If another tool has one of the names, the
// server is served without tools. The caller holds s.mu.
func (s *Servers) serve(srv *server) {
	if err := s.Registry.PublishServer(srv.offer(), srv.published()); err != nil {
		s.Log.Error("tools not published", "server", srv.spec.Name, "err", err)
	}
	s.hold(srv)
}

func (s *Servers) hold(srv *server) {
	if s.serving == nil {
		s.serving = map[string]*server{}
	}
	s.serving[srv.id] = srv
}

// withdraw ends the offer of a server and returns the connection to be closed.
// The caller holds s.mu.
func (s *Servers) withdraw(srv *server) Conn {
	s.Registry.Withdraw(srv.spec.Name)
	delete(s.serving, srv.id)
	return srv.conn
}

// stop ends everything; what is removed or added from now on has no effect here.
func (s *Servers) stop() {
	s.mu.Lock()
	s.stopped = true
	var conns []Conn
	for _, srv := range s.serving {
		conns = append(conns, s.withdraw(srv))
	}
	s.mu.Unlock()
	closeAll(conns)
}

func closeAll(conns []Conn) {
	var closing sync.WaitGroup
	for _, c := range conns {
		closing.Go(c.Close)
	}
	closing.Wait()
}
