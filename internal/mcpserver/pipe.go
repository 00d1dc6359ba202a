package mcpserver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Where a message over stdio can bring a token, if the process has none (C23): in
// params._meta, and for the tool echo, as demonstrations of old did it, in its
// arguments.
const (
	TokenMeta     = "io.github.gatehouse-mcp/access_token"
	tokenTool     = "echo"
	tokenArgument = "access_token"
)

const (
	maxAtOnce = 128             // requests of the program that are carried out at a time
	restTime  = time.Second     // for what runs when the program has nothing more to say
	lastWords = 2 * time.Second // for a program to read what is still written
)

// A Credential is what a process calls with: an access token, and the thumbprint of
// the key that it is bound to and that the process holds; both empty if it has none.
// refused is a token that did not do, so another one is looked for; empty at first.
// It is asked again for every message.
type Credential func(ctx context.Context, refused string) (token, key string, err error)

// pipe is the door over stdio: one program, which has started us, and one message a
// line (MCP 2025-11-25 transports, "stdio"; R712). It offers what the common endpoint
// offers. Who calls is found out for each request; that the program may cancel what
// it asked for, and answer what it is asked, follows from whose pipe it is.
type pipe struct {
	*Server
	ctx        context.Context // ends with everything
	credential Credential
	audience   tool.Audience
	out        chan []byte   // lines
	broken     chan struct{} // closed when they cannot be written
	finish     chan struct{} // closed when there will be no more
	requests   sync.WaitGroup
	hearing    sync.WaitGroup

	mu      sync.Mutex
	many    int // requests under way
	closed  bool
	session session // zero before initialize
	ears    *ears   // nil before the first message after it
}

// Pipe serves the program at the other end of in and out until it closes in, and
// until ctx ends. Only messages are written to out. What runs when in is closed has a
// second to end; a read of in that is under way is left behind.
func (s *Server) Pipe(ctx context.Context, in io.Reader, out io.Writer, credential Credential) error {
	audience, _ := s.Registry.Audience(s.Public, "") // which is always there
	ctx, end := context.WithCancel(ctx)
	defer end()
	p := &pipe{
		Server: s, ctx: ctx, credential: credential, audience: audience,
		out: make(chan []byte), broken: make(chan struct{}), finish: make(chan struct{}),
	}
	written, read := make(chan struct{}), make(chan error, 1)
	go func() { defer close(written); p.write(out) }()
	go func() { read <- p.read(in) }()
	var err error
	select {
	case err = <-read:
		p.rest()
	case <-p.broken:
	case <-ctx.Done():
	}
	end()
	p.close()
	close(p.finish)
	select {
	case <-written:
	case <-time.After(lastWords): // it reads nothing more
	}
	return err
}

// read takes what the program says, until it says no more.
func (p *pipe) read(in io.Reader) error {
	lines := &mcp.Lines{Max: maxBody, Each: p.take, Over: func(head, tail []byte) {
		p.say(mcp.Message{ID: mcp.EdgeID(head, tail), Error: &mcp.Error{Code: mcp.InvalidRequest, Message: "a message has at most 4 MiB"}})
	}}
	_, err := io.Copy(lines, in)
	lines.End()
	return err
}

func (p *pipe) write(out io.Writer) {
	for {
		select {
		case line := <-p.out:
			if _, err := out.Write(line); err != nil {
				p.Log.Warn("nobody reads what is answered", "err", err)
				close(p.broken)
				return
			}
		case <-p.finish:
			return
		}
	}
}

// Message writes a message, when the program has read those before.
func (p *pipe) Message(encoded []byte) error {
	select {
	case p.out <- mcp.Line(encoded):
		return nil
	case <-p.broken:
		return io.ErrClosedPipe
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// Comment is nothing: the protocol has no place for one.
func (p *pipe) Comment(string) error { return nil }

func (p *pipe) say(m mcp.Message) { _ = p.Message(m.Encode()) } // or the program has gone

// rest lets what runs end, but not for long.
func (p *pipe) rest() {
	done := make(chan struct{})
	go func() { p.requests.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(restTime):
	case <-p.broken:
	case <-p.ctx.Done():
	}
}

// close lets nothing begin, and waits for what has been cut off.
func (p *pipe) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.requests.Wait()
	p.hearing.Wait()
}

// take takes one message, in the order in which they come.
func (p *pipe) take(line []byte) {
	msg, fault := mcp.Parse(line)
	x := &exchange{ctx: p.ctx, door: "stdio", audience: p.audience, msg: msg, begin: p.begin, record: &request.Record{Ref: store.ID("req_")}}
	x.ref = x.record.Ref
	p.mu.Lock()
	x.session = p.session.mcp(principal.Principal{})
	p.mu.Unlock()
	switch {
	case fault != nil:
		p.say(mcp.Message{ID: msg.ID, Error: fault})
	case msg.Method == "notifications/initialized":
		p.spawn(x, func(x *exchange) { _, _ = p.identify(x) }) // which begins to hear; a refusal is for requests
	case !msg.IsRequest():
		p.hears(x)
	case msg.Method == "initialize": // what follows belongs to its session
		p.serve(x)
	default:
		p.spawn(x, p.serve)
	}
}

// begin begins a session; one that was there before is over.
func (p *pipe) begin(sess session) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = sess
	return nil
}

// spawn serves a message while others are read. It can be cancelled from now on.
func (p *pipe) spawn(x *exchange, serve func(*exchange)) {
	p.mu.Lock()
	full, closed := p.many == maxAtOnce, p.closed
	if !full && !closed {
		p.many++
		p.requests.Add(1)
	}
	p.mu.Unlock()
	switch {
	case closed, full && !x.msg.IsRequest():
		return
	case full:
		p.say(mcp.Message{ID: x.msg.ID, Error: &mcp.Error{Code: mcp.InternalError, Message: fmt.Sprintf("%d requests are under way: wait for an answer first", maxAtOnce)}})
		return
	}
	ctx, cancel := context.WithCancel(x.ctx)
	forget := p.running.add(x.call(x.msg.ID), cancel)
	x.ctx = ctx
	go func() {
		defer p.requests.Done()
		defer cancel()
		defer forget()
		serve(x)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.many--
	}()
}

// serve carries out a request and answers it, unless it was cancelled.
func (p *pipe) serve(x *exchange) {
	began := time.Now()
	x.record.Call = called(x.msg)
	peer := &peer{server: p.Server, session: x.session, able: true, events: p}
	answer := p.answer(x, peer)
	if x.ctx.Err() != nil {
		peer.end(nil, nil)
	} else {
		peer.end(nil, &answer)
	}
	if p.Log.Enabled(p.ctx, slog.LevelInfo) {
		line := []slog.Attr{slog.String("ref", x.ref), slog.Int64("us", time.Since(began).Microseconds())}
		p.Log.LogAttrs(p.ctx, slog.LevelInfo, "message", x.record.Append(line)...)
	}
}

// answer carries out a request on the strength of the token that is good for it now.
// Without one it may be what anyone may call, and what comes before any call.
func (p *pipe) answer(x *exchange, peer *peer) mcp.Message {
	if mcp.IsModern(nil, x.msg) {
		return mcp.Message{ID: x.msg.ID, Error: mcp.Unsupported(mcp.Text(x.msg.Params, "_meta", mcp.VersionMeta))}
	}
	presented, err := p.identify(x)
	if err == nil && x.principal.Kind == principal.Anonymous && methods[x.msg.Method] == nil && !p.open(x.msg) {
		p.Authn.Refused(x.remote, "no access token")
		err = authn.TokenMissing.New("an access token is needed").WithWhy("this process has none, and none came with the message").
			WithFix("sign in with gatehouse login %s, or start the process with GATEHOUSE_TOKEN", p.audience.URL)
	}
	var result json.RawMessage
	switch {
	case err != nil:
	case x.relays():
		result, err = p.carry(x, peer)
	default:
		result, err = p.atOnce(x)
	}
	if fault := problem.From(err); curable(fault) {
		x.record.Code = fault.Name
		return denial(x, denied(fault, presented), fault)
	}
	return p.Server.answer(x, result, err)
}

// identify finds out who calls: by what the process has, and if it has nothing, by
// what came with the message. A token that is not good is refused, never passed over
// for another. presented says whether there was one.
func (p *pipe) identify(x *exchange) (presented bool, err error) {
	brought := p.takeToken(x)
	raw, key, err := p.credential(x.ctx, "")
	if err != nil {
		return true, err
	}
	own := raw != "" || brought == ""
	if raw = cmp.Or(raw, brought); raw != "" {
		x.principal, err = p.Authn.Token(x.ctx, raw, key, x.audience.URL, x.record)
	}
	if own && problem.Is(err, authn.TokenInvalid) {
		if other, key, none := p.credential(x.ctx, raw); none == nil && other != "" && other != raw {
			x.principal, err = p.Authn.Token(x.ctx, other, key, x.audience.URL, x.record)
		}
	}
	x.session.Caller = x.principal
	if own && err == nil {
		p.hear(x)
	}
	return raw != "", err
}

// takeToken takes out of a message the token that came with it, so that it goes
// nowhere else.
func (p *pipe) takeToken(x *exchange) string {
	params := x.msg.Params
	token := spelt(mcp.Field(params, "_meta", TokenMeta))
	params = mcp.Without(params, "_meta", TokenMeta)
	if x.msg.Method == "tools/call" && mcp.Text(params, "name") == tokenTool {
		token = cmp.Or(token, spelt(mcp.Field(params, "arguments", tokenArgument)))
		params = mcp.Without(params, "arguments", tokenArgument)
	}
	x.msg.Params = params
	return token
}

// spelt is the text of a member; what is neither text nor absent is no token.
func spelt(member json.RawMessage) (text string) {
	if member != nil && json.Unmarshal(member, &text) != nil {
		return string(member)
	}
	return text
}

// ears are the stream of what happens outside of calls.
type ears struct {
	whose  string
	ctx    context.Context
	stream *stream
	done   chan struct{}
}

// hear lets the program hear what changes, as whom the process calls now: that ends
// with the token, and begins anew with the next one.
func (p *pipe) hear(x *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	whose := x.session.Key + " " + x.principal.Token
	before := p.ears
	if p.closed || x.session.Key == "" || before != nil && before.whose == whose && before.ctx.Err() == nil {
		return
	}
	ctx, cancel := p.Authn.While(p.ctx, x.principal)
	st := &stream{server: p.Server, session: x.session, cancel: cancel, queue: make(chan mcp.Message, backlog)}
	p.ears = &ears{whose, ctx, st, make(chan struct{})}
	done, listener := p.ears.done, &exchange{ctx: ctx, audience: x.audience, principal: x.principal, session: x.session}
	if before == nil { // before the first list is answered
		st.knows, st.tools = true, p.offered(ctx, listener)
	}
	p.hearing.Go(func() {
		defer close(done)
		if before != nil {
			before.stream.cancel()
			<-before.done
			st.knows, st.tools = before.stream.knows, before.stream.tools
		}
		st.run(ctx, listener, p)
	})
}
