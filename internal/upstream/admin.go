package upstream

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

var (
	nameInvalid = problem.Code{
		Name: "SERVER_NAME_INVALID", Kind: problem.Invalid,
		Why: "a name has up to 32 small letters, digits and hyphens, and begins with a letter",
		Fix: "choose another name",
	}
	addressInvalid = problem.Code{
		Name: "SERVER_ADDRESS_INVALID", Kind: problem.Invalid,
		Fix:   "give the http or https address of its MCP endpoint, or the command that starts it",
		About: "what was given as the address or command of a server cannot be one",
	}
	exists = problem.Code{
		Name: "SERVER_EXISTS", Kind: problem.Conflict,
		Why: "the name is in use",
		Fix: "choose another name, or remove the server first",
	}
	inFile = problem.Code{
		Name: "SERVER_IN_FILE", Kind: problem.Conflict,
		Fix:   "take it out of the file, then let the server read it again: send it SIGHUP, or restart it",
		About: "the server stands in the configuration file, and is changed there only",
	}
	unknown = problem.Code{
		Name: "SERVER_UNKNOWN", Kind: problem.NotFound,
		Fix:   "gatehouse servers lists those that are known",
		About: "no server of that name was added here",
	}
)

var (
	serverName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	envName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// reserved names would be taken for our own, or their scopes for those of the
// control plane; all means every server where servers are named in the configuration.
var reserved = []string{
	"all", "gatehouse", "mcp", "public", "system",
	"agents", "apps", "audit", "billing", "clients", "credentials", "detectors", "dropoffs", "identity", "notifications", "passports",
	"proxy", "reviews", "security", "servers", "services", "skills", "team",
}

type addIn struct {
	Name    string            `json:"name" jsonschema:"what the server is called here; prefix of its tools"`
	URL     string            `json:"url,omitempty" jsonschema:"its MCP endpoint, if it is reached over HTTP"`
	Command []string          `json:"command,omitempty" jsonschema:"the program and its arguments, if it runs as a child of the gateway"`
	Env     map[string]string `json:"env,omitempty" jsonschema:"environment of the command, kept sealed"`
}

type addOut struct {
	Name      string     `json:"name"`
	Tools     []addTool  `json:"tools"`
	Endpoints []string   `json:"endpoints"`
	Protocol  string     `json:"protocol"`
	Server    serverInfo `json:"server"`
	Warning   string     `json:"warning,omitempty"`
}

type addTool struct {
	Name  string `json:"name"`
	Risk  string `json:"risk" jsonschema:"read, change or hard to undo"`
	Scope string `json:"scope"`
	Hints bool   `json:"hints" jsonschema:"whether the server said what the tool may do"`
}

type serverInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// spec checks what was asked for.
func (in addIn) spec() (Spec, error) {
	spec := Spec{Name: in.Name, URL: in.URL, Command: in.Command, Env: hide(in.Env)}
	return spec, spec.Check()
}

// Check says what is wrong with a spec.
func (spec Spec) Check() error {
	if !serverName.MatchString(spec.Name) {
		return nameInvalid.New("a server cannot be called %.40q", spec.Name)
	}
	if slices.Contains(reserved, spec.Name) {
		return nameInvalid.New("a server cannot be called %q", spec.Name).WithWhy("the name is reserved for the gateway")
	}
	if (spec.URL == "") == (len(spec.Command) == 0) {
		return addressInvalid.New("%q cannot be added", spec.Name).WithWhy("it needs an address or a command, one of them")
	}
	if spec.URL != "" {
		return spec.checkURL()
	}
	return spec.checkCommand()
}

func (spec Spec) checkURL() error {
	u, err := url.Parse(spec.URL)
	why := ""
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		why = "its address is not an http or https URL"
	case u.User != nil:
		why = "credentials do not belong into an address"
	case u.Fragment != "":
		why = "an address has no fragment"
	case len(spec.Env) > 0:
		why = "only a command has an environment"
	default:
		return nil
	}
	return addressInvalid.New("%q cannot be added", spec.Name).WithWhy("%s", why)
}

func (spec Spec) checkCommand() error {
	if spec.Provider != "" {
		return addressInvalid.New("%q cannot be added", spec.Name).WithWhy("a credential is lent at a url only, not to a command")
	}
	texts := slices.Clone(spec.Command)
	for name, value := range spec.Env {
		if !envName.MatchString(name) {
			return addressInvalid.New("%q cannot be added", spec.Name).WithWhy("%.40q is no name of an environment variable", name)
		}
		texts = append(texts, value.Reveal())
	}
	zero := slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsRune(s, 0) })
	if zero || spec.Command[0] == "" {
		return addressInvalid.New("%q cannot be added", spec.Name).WithWhy("its command cannot be run as it is written")
	}
	return nil
}

// add returns when the tools are pinned and published. If anything fails, nothing
// is added.
func (s *Servers) add(ctx context.Context, p principal.Principal, in addIn) (addOut, error) {
	spec, err := in.spec()
	if err != nil {
		return addOut{}, err
	}
	if s.inFile(p.Workspace, spec.Name) {
		return addOut{}, exists.New("there already is a server %q", spec.Name).WithWhy("the configuration file names one so")
	}
	out, said, err := s.connect(ctx, p.Workspace, "", spec)
	return out, withSaid(err, said)
}

// connect adds a server, for a person or for a configuration file. said is what a
// command that failed has printed.
func (s *Servers) connect(ctx context.Context, workspace, file string, spec Spec) (out addOut, said string, err error) {
	if used, err := taken(ctx, s.DB, spec.Name); err != nil || used {
		return out, "", cmp.Or(err, error(exists.New("there already is a server %q", spec.Name)))
	}
	srv := &server{id: store.ID("srv_"), workspace: workspace, file: file, spec: spec, conn: s.open(spec)}
	info, leftOut, err := srv.pin(ctx)
	if err == nil {
		err = s.adopt(ctx, srv)
	}
	if err != nil {
		srv.conn.Close()
		return out, srv.conn.Said(10), err
	}
	return s.describe(srv, info, leftOut), "", nil
}

// pin reads what the server offers.
func (srv *server) pin(ctx context.Context) (info mcp.InitializeResult, leftOut int, err error) {
	if info, err = srv.conn.Connect(ctx); err != nil {
		return info, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, hello)
	defer cancel()
	srv.tools, leftOut, err = fetch(ctx, srv.spec.Name, srv.conn)
	return info, leftOut, err
}

// adopt publishes and records a server whose tools are pinned, or neither.
func (s *Servers) adopt(ctx context.Context, srv *server) error {
	r, err := recordOf(srv, s.Box)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return unavailable.New("%q cannot be added", srv.spec.Name).WithWhy("the gateway is stopping")
	}
	if s.Registry.HasOrigin(srv.spec.Name) {
		return exists.New("there already is a server %q", srv.spec.Name)
	}
	if err := s.Registry.PublishServer(srv.offer(), srv.published()); err != nil {
		return err
	}
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		free, err := insert(tx, r)
		if err == nil && !free {
			err = exists.New("there already is a server %q", srv.spec.Name)
		}
		if err == nil && srv.file != "" {
			s.Followed(tx, srv.workspace, srv.file, "server.add", srv.spec.Name)
		}
		return err
	})
	if err != nil {
		s.Registry.Withdraw(srv.spec.Name)
		return err
	}
	s.hold(srv)
	return nil
}

// withSaid adds what a command printed to the reason why it could not be added:
// only the person who adds it sees this.
func withSaid(err error, said string) error {
	e := problem.From(err)
	if said == "" || e.Kind != problem.Unavailable {
		return err
	}
	told := *e
	return told.WithWhy("%s", strings.TrimSpace(e.Why+"\nit printed:\n"+said))
}

func (s *Servers) describe(srv *server, info mcp.InitializeResult, leftOut int) addOut {
	out := addOut{
		Name: srv.spec.Name, Protocol: info.ProtocolVersion, Tools: []addTool{},
		Server:    serverInfo{clip(info.ServerInfo.Name), clip(info.ServerInfo.Version)},
		Endpoints: []string{s.Public + "/mcp", s.Public + "/s/" + srv.spec.Name + "/mcp"},
	}
	for _, d := range srv.tools {
		def, hinted := classify(srv.spec.Name, d)
		out.Tools = append(out.Tools, addTool{Name: def.Name, Risk: def.Effect.Risk(), Scope: def.Scope, Hints: hinted})
	}
	out.Warning = srv.warning(leftOut)
	return out
}

func (srv *server) warning(leftOut int) string {
	var w []string
	if srv.spec.URL != "" && srv.spec.Provider == "" {
		w = append(w, "It answers without any login. Once agents use the gateway, let only the gateway reach it.")
	}
	if len(srv.tools) == 0 {
		w = append(w, "It offers no tools.")
	}
	if leftOut > 0 {
		w = append(w, fmt.Sprintf("Tools left out, because their names cannot be used or are used twice: %d.", leftOut))
	}
	return strings.Join(w, " ")
}

// clip shortens what a stranger calls itself.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

type listIn struct{}

type listOut struct {
	Servers []listServer `json:"servers"`
}

type listServer struct {
	Name    string `json:"name"`
	Kind    string `json:"kind" jsonschema:"stdio or http"`
	Address string `json:"address" jsonschema:"where it is; whole for a person who could have added it"`
	State   State  `json:"state" jsonschema:"starting, connected or down"`
	Since   string `json:"since" jsonschema:"since when it is in this state"`
	Tools   int    `json:"tools"`
	Error   string `json:"error,omitempty"`
	File    string `json:"file,omitempty" jsonschema:"the configuration file that it belongs to"`
}

// list shows what this node serves, and what its configuration file asks for and
// cannot be served yet.
func (s *Servers) list(_ context.Context, p principal.Principal, _ listIn) (listOut, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := listOut{Servers: []listServer{}}
	for _, srv := range s.serving {
		if srv.workspace == p.Workspace {
			out.Servers = append(out.Servers, srv.line(p))
		}
	}
	out.Servers = s.missing(p, out.Servers)
	slices.SortFunc(out.Servers, func(a, b listServer) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (srv *server) line(p principal.Principal) listServer {
	l := listServer{Name: srv.spec.Name, Tools: len(srv.tools), File: srv.file}
	l.Kind, l.Address = srv.spec.whereFor(p)
	state := srv.state()
	l.State, l.Since, l.Error = state.State, state.Since.Format(time.RFC3339), state.Error
	return l
}

// ServerState is how a server does.
type ServerState struct {
	Name  string
	State State
	Since time.Time // in UTC
	Error string    // why it is down; without secrets
}

// States are those of the servers of all workspaces that this node serves, by name.
func (s *Servers) States() []ServerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]ServerState, 0, len(s.serving))
	for _, srv := range s.serving {
		states = append(states, srv.state())
	}
	slices.SortFunc(states, func(a, b ServerState) int { return strings.Compare(a.Name, b.Name) })
	return states
}

func (srv *server) state() ServerState {
	state, since, err := srv.conn.State()
	out := ServerState{Name: srv.spec.Name, State: state, Since: since.UTC()}
	out.Error = reason(err)
	return out
}

// Where is the kind of a server, stdio or http, and its address or command,
// without what may be secret in an address.
func (spec Spec) Where() (kind, address string) {
	if spec.URL == "" {
		return "stdio", strings.Join(spec.Command, " ")
	}
	return "http", display(spec.URL)
}

// display is an address without the part that may hold a secret.
func display(address string) string {
	shown, _, hidden := strings.Cut(address, "?")
	if hidden {
		shown += "?…"
	}
	return shown
}

// whereFor is Where as it is told to somebody: whole to a person who could have added
// the server.
func (spec Spec) whereFor(p principal.Principal) (kind, address string) {
	kind, address = spec.Where()
	if !p.Direct() || p.Rank < principal.Admin {
		address = spec.outline()
	}
	return kind, address
}

// outline is where a server is without the arguments of its command and what follows
// the host of its address: keys are often kept in either.
func (spec Spec) outline() string {
	if spec.URL == "" {
		if len(spec.Command) > 1 {
			return spec.Command[0] + " …"
		}
		return strings.Join(spec.Command, "")
	}
	u, err := url.Parse(spec.URL)
	if err != nil {
		return "…"
	}
	return u.Scheme + "://" + u.Host + "/…"
}

type removeIn struct {
	Name string `json:"name"`
}

type removeOut struct {
	Name string `json:"name"`
}

// remove returns when the server's tools are withdrawn here; other nodes follow.
func (s *Servers) remove(ctx context.Context, p principal.Principal, in removeIn) (removeOut, error) {
	if s.inFile(p.Workspace, in.Name) {
		_, path, _ := s.file.now()
		return removeOut{}, inFile.New("%q cannot be removed", in.Name).WithWhy("it belongs to the configuration file %s", path)
	}
	return removeOut(in), s.drop(ctx, p.Workspace, in.Name, "")
}

// drop removes a server, for a person or for a configuration file.
func (s *Servers) drop(ctx context.Context, workspace, name, file string) error {
	gone, err := s.forget(ctx, workspace, name, file)
	closeAll(gone)
	return err
}

func (s *Servers) forget(ctx context.Context, workspace, name, file string) (gone []Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		found, err := remove(tx, workspace, name)
		if err == nil && !found {
			err = unknown.New("there is no server %.40q", name)
		}
		if err == nil && file != "" {
			s.Followed(tx, workspace, file, "server.remove", name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, srv := range s.serving {
		if srv.spec.Name == name {
			gone = append(gone, s.withdraw(srv))
		}
	}
	return gone, nil
}
