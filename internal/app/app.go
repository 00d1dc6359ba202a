// Package app reads the configuration and furnishes the house: it makes the
// rooms, hands each what it needs, and opens the doors.
//
// This is the only place that knows all rooms. Rooms hand over tools
// and jobs, and the lists of them stand here in full.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/mail"
	"github.com/gatehouse-mcp/gatehouse/internal/mcpserver"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
	"github.com/gatehouse-mcp/gatehouse/internal/upstream"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
	"github.com/gatehouse-mcp/gatehouse/internal/web"
)

// Run serves until ctx ends. What people read goes to out.
func Run(ctx context.Context, c Config, out io.Writer) error {
	pair, err := c.certificate()
	if err != nil {
		return err
	}
	if err := openDataDir(c.DataDir); err != nil {
		return err
	}
	socket, remove, err := listenSocket(c.DataDir)
	if err != nil {
		return err
	}
	listeners, err := listen(c.Listen)
	if err != nil {
		return errors.Join(err, socket.Close(), remove())
	}
	given := c
	if c.PublicURL == "" {
		c.PublicURL = c.localAddress(listeners[0].Addr().String())
	}
	h, err := furnish(ctx, c, out)
	if err != nil {
		return errors.Join(unlessEnded(ctx, err), closeAll(append(listeners, socket)), remove())
	}
	h.pair = pair
	ctx, end := context.WithCancel(ctx)
	defer end()
	unheed := h.heed(ctx, end, given, out)
	stopLog := own(ctx, h.writeLog)
	stop := h.work(ctx)
	if err = h.announce(ctx, out); err == nil {
		err = h.open(ctx, listeners, socket)
	} else {
		err = errors.Join(unlessEnded(ctx, err), closeAll(append(listeners, socket)))
	}
	unheed()
	stop()
	stopLog() // the last to speak
	return errors.Join(err, remove(), h.db.Close())
}

// unlessEnded is err, except where we were told to end before we served: then it
// only says that what was under way was cut off.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func closeAll(listeners []net.Listener) (err error) {
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// house is all rooms and doors.
type house struct {
	config Config
	live   atomic.Pointer[Config]               // with what has changed since, where that needs no restart
	trusts atomic.Pointer[[]authserver.Trusted] // whose word counts now
	pair   *certificate                         // nil without TLS
	node   string                               // this process, among those that share the database
	guest  bool                                 // beside a server, for one program: what all share it leaves alone
	log    *slog.Logger
	level  *slog.LevelVar // of the log

	writeLog func(context.Context) // the job that writes out its lines

	health     health
	migrations int         // that were applied when we began
	stopping   atomic.Bool // told to end
	supervisor supervisor

	key      *seal.Key
	keyFault string // why its file could not be read again
	db       *store.DB
	audit    *audit.Log
	people   *identity.People
	tokens   *token.Tokens
	authn    *authn.Authn
	outbound *outbound.Client
	oauth    *authserver.Server
	throttle *throttle.Throttle
	registry *tool.Registry
	gate     *gate.Gate
	servers  *upstream.Servers
	vault    *vault.Vault
	mcp      *mcpserver.Server
	pages    *web.Pages
	rest     *web.REST
	socket   *web.REST
}

// patience is how long a transaction may take for whom somebody waits at an endpoint
// or a page. Tools and jobs take as long as they need.
const patience = 5 * time.Second

// furnish makes the rooms of a server.
func furnish(ctx context.Context, c Config, out io.Writer) (*house, error) {
	_, missing := os.Stat(c.MasterKeyFile)
	key, err := seal.LoadKey(c.MasterKeyFile, true)
	if err != nil {
		return nil, masterKeyUnusable.New("the master key %s can't be used", c.MasterKeyFile).WithWhy("%v", err).Because(err)
	}
	db, err := store.Open(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	if missing != nil {
		fmt.Fprintf(out, "✓ Made a new master key, %s: keep a copy, without it the database can't be read\n", c.MasterKeyFile)
	}
	return furnishWith(ctx, c, out, key, db, false)
}

// furnishWith makes the rooms, lowest floor first. If that fails it closes db.
func furnishWith(ctx context.Context, c Config, out io.Writer, key *seal.Key, db *store.DB, guest bool) (*house, error) {
	external, err := c.trusted()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	c.IssuerURL = cmp.Or(c.IssuerURL, c.PublicURL)
	shared, err := c.valkey()
	if err != nil {
		return nil, errors.Join(configInvalid.New("the configuration can't be used").WithWhy("%v", err), db.Close())
	}
	box := seal.Box{Keeper: key}
	h := &house{config: c, guest: guest, node: store.ID("node_"), key: key, db: db, registry: &tool.Registry{}}
	h.log, h.level, h.writeLog = newLog(c, out)
	h.supervisor = theSupervisor()
	h.live.Store(&c)
	h.trust(c)
	h.audit = &audit.Log{DB: db, Box: box, Guest: guest}
	db.BeforeCommit = h.audit.Seal
	asked := db.Within(patience)
	h.tokens = &token.Tokens{DB: db, Box: &box, Issuer: c.IssuerURL, Log: h.log, Window: c.ReuseWindow, Alg: c.SigningAlg, KeyLife: c.SigningKeyLife, NeedNonce: c.NeedNonce, Opaque: h.opaque}
	h.people = &identity.People{DB: db, Dev: c.Dev, Audit: h.audit, Tokens: h.tokens, Registry: h.registry}
	letters := &mail.Printer{Out: out}
	h.authn = &authn.Authn{DB: asked, Box: &box, Audit: h.audit, People: h.people, Tokens: h.tokens, Mail: letters, Issuer: c.IssuerURL, Public: c.PublicURL, External: external}
	h.gate = &gate.Gate{DB: db, Audit: h.audit, Registry: h.registry}
	h.servers = &upstream.Servers{DB: db, Registry: h.registry, Box: box, Log: h.log, Public: c.PublicURL, Version: Version, Followed: h.followed}
	h.vault = &vault.Vault{
		DB: db, Box: &box, Audit: h.audit, People: h.people, Log: h.log, Issuer: c.IssuerURL, Node: h.node, Workspace: identity.Workspace, Providers: c.Providers,
		For: h.providers, Connected: h.servers.Again,
	}
	h.servers.Lending, h.tokens.Handle = h.vault, h.handle
	h.gate.Checks = append(h.gate.Checks, h.vault)
	h.want(c)
	c.Internet.Allow = c.OutboundAllow
	h.outbound = outbound.New(c.Internet)
	h.pages = &web.Pages{DB: asked, People: h.people, Authn: h.authn, Vault: h.vault, Gate: h.gate, Registry: h.registry, Log: h.log, Issuer: c.IssuerURL, Public: c.PublicURL, Dev: c.Dev, Version: Version, Codes: Codes}
	h.throttle = &throttle.Throttle{DB: db, Valkey: shared, Log: h.log, Limits: h.limit}
	h.pages.Throttle = h.throttle
	h.oauth = &authserver.Server{
		DB: asked, Box: &box, Audit: h.audit, Tokens: h.tokens, Vault: h.vault, People: h.people, Authn: h.authn, Mail: letters, Registry: h.registry, Gate: h.gate,
		Pages: h.pages, Throttle: h.throttle, Log: h.log, Issuer: c.IssuerURL, Public: c.PublicURL, Dev: c.Dev, POC: c.POC && c.Dev,
		Registration: func() string { return h.live.Load().Registration },
		Documents:    func() authserver.Documents { return h.live.Load().clientDocuments() }, Outbound: h.outbound, Schemes: c.RedirectSchemes, ExactRedirects: c.ExactRedirects,
		RequireResource: c.RequireResource, RequirePushed: c.RequirePushed, External: c.External.Issuers, Trusted: func() []authserver.Trusted { return *h.trusts.Load() }, Prefix: families[c.EndpointStyle],
	}
	h.pages.AuthServer = h.oauth
	h.mcp = &mcpserver.Server{
		DB: asked, Gate: h.gate, Authn: h.authn, Registry: h.registry, Box: &box, Throttle: h.throttle, Log: h.log, Public: c.PublicURL,
		Origins: func(origin string) bool { return h.live.Load().mayCall(origin) }, Version: Version,
	}
	h.rest = &web.REST{Gate: h.gate, Log: h.log, Door: "rest", Public: c.PublicURL, Authn: h.authn, Caller: h.bearer, Throttle: h.throttle}
	h.socket = &web.REST{Gate: h.gate, Log: h.log, Door: "socket", Public: c.PublicURL, Authn: h.authn, Caller: localOwner}
	if err := h.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return h, nil
}

// prepare publishes the tools and opens the rooms that have tables.
func (h *house) prepare(ctx context.Context) error {
	if err := h.registry.Publish("", baseTools(h.people, h.config.PublicURL)); err != nil {
		return err
	}
	var control []tool.Tool
	for _, tools := range [][]tool.Tool{h.audit.Tools(), h.tokens.Tools(), h.people.Tools(), h.masterKeyTools(), h.servers.Tools(), h.vault.Tools(), h.oauth.Tools()} {
		control = append(control, tools...)
	}
	if err := h.registry.Publish(tool.Control, control); err != nil {
		return err
	}
	opening := []func(context.Context) error{
		h.audit.Open, h.throttle.Open, h.people.Open, h.tokens.Open, h.authn.Open, h.vault.Open, h.oauth.Open, h.servers.Open, h.mcp.Open,
	}
	if !h.guest {
		opening = append(opening, h.recover, func(ctx context.Context) error { return h.follow(ctx, h.config) })
	}
	for _, open := range opening {
		if err := open(ctx); errors.Is(err, seal.ErrOtherKey) {
			return masterKeyUnusable.New("the master key %s can't be used", h.config.MasterKeyFile).
				WithWhy("the database was made with another one").Because(err)
		} else if err != nil {
			return err
		}
	}
	var err error
	if h.migrations, err = h.db.Migrations(ctx); err != nil {
		return err
	}
	return h.checkDocuments()
}

// providers are those whose credentials are used at the server called origin, or
// with "" at any.
func (h *house) providers(origin string) []string {
	return h.registry.Providers(func(s tool.Server) bool { return origin == "" || s.Origin == origin })
}

// handle is the claim public_token of a family's tokens.
func (h *house) handle(tx *store.Tx, f token.Family) (string, error) {
	a, found := h.registry.AudienceAt(h.config.PublicURL, f.Resource)
	if !found {
		return "", nil
	}
	return h.vault.PublicToken(tx, f, a.Origin)
}

// recover closes the calls that were cut off when the process ended. Where other
// nodes share the database, what is pending may be running there; Attend tells.
func (h *house) recover(ctx context.Context) error {
	if !strings.HasPrefix(h.config.Database, "sqlite:") {
		return nil
	}
	n, err := h.audit.Recover(ctx)
	if n > 0 {
		h.log.Warn("calls were cut off when the server ended; they are recorded as unknown", "calls", n)
	}
	return err
}

// work starts the jobs. The returned function ends them and waits for them.
func (h *house) work(ctx context.Context) (stop func()) {
	return own(ctx,
		h.tokens.Run,
		h.throttle.Run,
		h.servers.Run,
		h.servers.Keep,
		h.vault.Run,
		h.vault.Revoke,
		h.sweepUp,
		h.keepKeys,
		h.watchdog,
		h.attend,
		h.record,
	)
}

// attend is the job that shows that this process lives, and looks for those that do
// not.
func (h *house) attend(ctx context.Context) {
	if err := h.audit.Attend(ctx); err != nil {
		h.log.Error("calls that were cut off could not be closed; others will do it", "err", err)
	}
}

// record is the job that records what strangers do.
func (h *house) record(ctx context.Context) {
	if err := h.audit.Run(ctx); err != nil {
		h.log.Error("what strangers did could not be recorded", "err", err)
	}
}

// own runs jobs. The returned function ends them and waits for them.
func own(ctx context.Context, jobs ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for _, job := range jobs {
		running.Go(func() { job(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// opaque reports whether the access tokens of a client at a resource say nothing.
func (h *house) opaque(client, resource string) bool {
	for _, whose := range h.live.Load().OpaqueTokens {
		if a, found := h.registry.AudienceAt(h.config.PublicURL, resource); found && whose == cmp.Or(a.Origin, "mcp") {
			return true
		}
		if whose == "all" || whose == client {
			return true
		}
	}
	return false
}

// bearer is the caller of REST: its tokens are those of the common endpoint.
func (h *house) bearer(r *http.Request) (principal.Principal, error) {
	return h.authn.Bearer(r, h.config.PublicURL+"/mcp")
}

// localOwner is whoever can open the admin socket.
func localOwner(*http.Request) (principal.Principal, error) {
	return principal.Principal{
		Kind: principal.Member, Workspace: identity.Workspace, User: identity.Local, Rank: principal.Owner, Scopes: []string{tool.ScopeAdmin},
	}, nil
}

// open serves on all listeners until ctx ends, then lets requests end.
func (h *house) open(ctx context.Context, listeners []net.Listener, socket net.Listener) error {
	inside := routes(h.socket.Routes)
	misnamed := func(r *http.Request) { h.authn.Refused(r.RemoteAddr, "request for another host") }
	servers := []*http.Server{
		h.server(proxied(h.proxies, h.probed(false, guard(hosts(h.config, listeners[0]), misnamed, h.outside())))),
		h.server(h.probed(true, inside)),
	}
	if h.pair != nil {
		servers[0].TLSConfig = h.pair.config()
		servers[0].ErrorLog = slog.NewLogLogger(calm{h.log.Handler()}, slog.LevelWarn)
	}
	failed := make(chan error, len(listeners)+1)
	servers[0].RegisterOnShutdown(h.mcp.Stop)
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { failed <- h.serve(servers[0], l) })
	}
	serving.Go(func() { failed <- servers[1].Serve(socket) })
	h.supervisor.tell(h.log, "READY=1")
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	h.stopping.Store(true)
	h.supervisor.tell(h.log, "STOPPING=1")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(h.live.Load().Drain, 25*time.Second))
	defer cancel()
	for _, s := range servers {
		if shut := s.Shutdown(grace); shut != nil {
			err = errors.Join(err, s.Close())
		}
	}
	serving.Wait()
	return err
}

// serve answers on a listener, with TLS where there is a certificate.
func (h *house) serve(s *http.Server, l net.Listener) error {
	if h.pair == nil {
		return s.Serve(l)
	}
	return s.ServeTLS(l, "", "")
}

func (h *house) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: h.logged(timely(bodyTime, handler)), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
}

// announce says where the server is and, while nobody owns it, how to set it up.
func (h *house) announce(ctx context.Context, out io.Writer) error {
	c := h.config
	fmt.Fprintf(out, "gatehouse %s · data %s · config %s\n", Version, c.DataDir, cmp.Or(c.Source.File, "none found, using defaults"))
	for _, ignored := range c.Source.Ignored {
		fmt.Fprintf(out, "! %s\n", ignored)
		if !isTerminal(out) { // where nobody reads along, the log is searched
			h.log.Warn("a variable of the environment is ignored", "why", ignored)
		}
	}
	reach := ""
	if u, err := url.Parse(c.PublicURL); err == nil && isLoopback(u.Hostname()) {
		reach = " (this computer only)"
	}
	fmt.Fprintf(out, "✓ Listening on %s%s\n", c.PublicURL, reach)
	if c.IssuerURL != c.PublicURL {
		fmt.Fprintf(out, "✓ Pages and authorization server at %s\n", c.IssuerURL)
	}
	if c.Dev {
		fmt.Fprintf(out, "! Development mode: anyone on this computer is signed in as dev@localhost and allows everything\n")
		return nil
	}
	code, err := h.authn.NewSetupCode(ctx)
	if err != nil {
		return err
	}
	if code != "" {
		fmt.Fprintf(out, "\nFinish setup in your browser. The code works once, for %d minutes:\n  %s/setup\n  code  %s\n",
			int(authn.SetupLife/time.Minute), c.IssuerURL, code)
	}
	fmt.Fprintf(out, "\nNo mail server is set: sign-in links are printed here.\nCtrl+C to stop.\n")
	return nil
}
