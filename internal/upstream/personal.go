package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Lending is who has the credentials of people.
type Lending interface {
	// Account names the account that the person uses at the provider now, by a name
	// that changes when another one is connected. Without one it is a problem that
	// says how to connect one.
	Account(ctx context.Context, p principal.Principal, provider string) (string, error)
	// Anyone is somebody whose account is connected at the provider. Without one it
	// is a problem that says how to connect the first.
	Anyone(ctx context.Context, provider string) (principal.Principal, error)
	// Lend makes requests with the person's credential, by way of next.
	Lend(p principal.Principal, provider string, next http.RoundTripper) http.RoundTripper
}

// personal is the connection to a server that answers for accounts. Each account has
// a connection of its own, with its own sessions, so that nothing of one can come to
// another. What the server tells everybody, its tools among it, it is asked without
// any credential, or, where it tells nobody anything without one, with that of
// whoever has connected an account first.
type personal struct {
	everybody *httpConn
	lending   Lending

	mu       sync.Mutex
	accounts map[string]*account // by what Lending calls them
	closed   bool
}

// account is the connection of one.
type account struct {
	conn *httpConn
	tag  string    // in sessions that callers keep
	uses int       // that run
	last time.Time // used
}

// session is the session without what belongs to another account, which the caller
// may have used before.
func (a *account) session(s tool.Session) tool.Session {
	upstream, ours := strings.CutPrefix(s.Upstream, a.tag+" ")
	if s.Upstream = upstream; !ours {
		s.Upstream = ""
	}
	return s
}

// quietFor is how long an account's connection is kept unused.
const quietFor = 10 * time.Minute

// of is the caller's account. It must be given back.
func (c *personal) of(ctx context.Context, p principal.Principal) (a *account, back func(), err error) {
	name, err := c.lending.Account(ctx, p, c.everybody.spec.Provider)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, c.everybody.notServed()
	}
	c.leaveQuiet()
	if a = c.accounts[name]; a == nil {
		pool, tag := c.everybody.pool, sha256.Sum256([]byte(name))
		a = &account{conn: newHTTP(c.everybody.spec, c.everybody.self, c.lending.Lend(p, c.everybody.spec.Provider, pool), pool), tag: hex.EncodeToString(tag[:8])}
		c.accounts[name] = a
	}
	a.uses++
	return a, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		a.uses--
		a.last = time.Now()
	}, nil
}

// leaveQuiet closes the connections that nobody has used for a while. The caller
// holds c.mu.
func (c *personal) leaveQuiet() {
	for name, a := range c.accounts {
		if a.uses == 0 && time.Since(a.last) > quietFor {
			delete(c.accounts, name)
			c.everybody.running.Go(a.conn.Close)
		}
	}
}

// anyones is the account with which the server is asked what it tells everybody, or
// one that is nobody's. It must be given back.
func (c *personal) anyones(ctx context.Context) (a *account, back func(), err error) {
	if _, err := c.everybody.Connect(ctx); !problem.Is(err, wantsLogin) {
		return &account{conn: c.everybody}, func() {}, err
	}
	p, err := c.lending.Anyone(ctx, c.everybody.spec.Provider)
	if err != nil {
		return nil, nil, err
	}
	return c.of(ctx, p)
}

// Connect shakes hands.
func (c *personal) Connect(ctx context.Context) (mcp.InitializeResult, error) {
	a, back, err := c.anyones(ctx)
	if err != nil {
		return mcp.InitializeResult{}, err
	}
	defer back()
	return a.conn.Connect(ctx)
}

// Known is what the server tells everybody.
func (c *personal) Known(ctx context.Context) (mcp.InitializeResult, bool) {
	if said, known := c.everybody.Known(ctx); known {
		return said, true
	}
	a, back, err := c.anyones(ctx)
	if err != nil {
		return mcp.InitializeResult{}, false
	}
	defer back()
	return a.conn.Known(ctx)
}

// Call makes one request as the caller; what nobody calls, the list of tools, the
// server tells everybody.
func (c *personal) Call(ctx context.Context, s tool.Session, method string, params json.RawMessage, peer tool.Peer) (json.RawMessage, error) {
	of := func() (*account, func(), error) { return c.of(ctx, s.Caller) }
	if s.Caller.Kind == principal.Anonymous && method == "tools/list" {
		of = func() (*account, func(), error) { return c.anyones(ctx) }
	}
	a, back, err := of()
	if err != nil {
		return nil, err
	}
	defer back()
	return a.conn.Call(ctx, a.session(s), method, params, peer)
}

// Open opens a session of the caller's own.
func (c *personal) Open(ctx context.Context, s tool.Session) (string, mcp.InitializeResult, error) {
	a, back, err := c.of(ctx, s.Caller)
	if err != nil {
		return "", mcp.InitializeResult{}, err
	}
	defer back()
	upstream, said, err := a.conn.Open(ctx, a.session(s))
	if upstream != "" {
		upstream = a.tag + " " + upstream
	}
	return upstream, said, err
}

// End ends the caller's session.
func (c *personal) End(ctx context.Context, s tool.Session) {
	if a, back, err := c.of(ctx, s.Caller); err == nil { // else there is nothing to end
		defer back()
		a.conn.End(ctx, a.session(s))
	}
}

// Listen gives the peer what the server tells the caller's account.
func (c *personal) Listen(ctx context.Context, s tool.Session, peer tool.Peer) {
	a, back, err := c.of(ctx, s.Caller)
	if err != nil {
		<-ctx.Done()
		return
	}
	defer back()
	a.conn.Listen(ctx, a.session(s), peer)
}

// Tell passes a notification on.
func (c *personal) Tell(ctx context.Context, s tool.Session, m mcp.Message) {
	if a, back, err := c.of(ctx, s.Caller); err == nil { // else there is no session
		defer back()
		a.conn.Tell(ctx, a.session(s), m)
	}
}

// State is that of the server, whoever asks. One that tells nobody anything without a
// credential is what the accounts know of it.
func (c *personal) State() (State, time.Time, error) {
	state, since, err := c.everybody.State()
	if !problem.Is(err, wantsLogin) {
		return state, since, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.accounts {
		if state, since, err := a.conn.State(); state == Connected {
			return state, since, err
		}
	}
	return Starting, since, nil
}

// Said is empty.
func (c *personal) Said(int) string { return "" }

// Close ends the connections of all accounts.
func (c *personal) Close() {
	c.mu.Lock()
	c.closed = true
	var closing sync.WaitGroup
	for _, a := range c.accounts {
		closing.Go(a.conn.Close)
	}
	c.mu.Unlock()
	closing.Wait()
	c.everybody.Close()
}
