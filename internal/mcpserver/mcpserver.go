// Package mcpserver serves the gate over MCP in the revisions with a handshake:
// Streamable HTTP, at the common endpoint and at one endpoint for each server, and
// stdio, with what the common endpoint offers.
//
// The caller is found out anew for every message and handed on as an argument;
// a session id is no credential. What a server asks of a caller is answered by that
// caller, in that session, once. Before the token an endpoint says only that it
// exists.
package mcpserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Bounds of a message, in bytes: of a caller with a token, and of a stranger, who
// can call nothing that needs much.
const (
	maxBody    = 4 << 20
	maxUnknown = 64 << 10
)

// Server is the MCP door. Set the fields and mount Routes.
type Server struct {
	DB       *store.DB
	Gate     *gate.Gate
	Authn    *authn.Authn
	Registry *tool.Registry
	Box      *seal.Box
	Throttle *throttle.Throttle
	Log      *slog.Logger
	Public   string                   // public address, without a slash at the end
	Origins  func(origin string) bool // which web pages may call (R736, R1411)
	Version  string

	running    calls
	opened     opened
	asked      asked
	streams    streams
	catalogues catalogues
}

// Routes mounts the endpoints.
func (s *Server) Routes(mux *http.ServeMux) {
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "") })
	mux.HandleFunc("/s/{server}/mcp", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, r.PathValue("server")) })
}

// An exchange is one message to an endpoint and all that is known about it.
type exchange struct {
	ctx       context.Context // ends with the caller's interest in the answer
	door      string          // as gate.Call has it
	remote    string          // address of the caller
	audience  tool.Audience
	principal principal.Principal
	msg       mcp.Message
	session   tool.Session        // zero without one
	begin     func(session) error // keeps a session that begins
	ref       string
	record    *request.Record

	w http.ResponseWriter // nil where the message did not come over HTTP, as is r
	r *http.Request
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, origin string) {
	x := &exchange{w: w, r: r, ctx: r.Context(), door: "mcp", remote: r.RemoteAddr, record: request.Of(r.Context())}
	x.ref, x.begin = x.record.Ref, func(sess session) error { return s.sealSession(w.Header(), sess) }
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !s.allowOrigin(x) {
		return
	}
	var found bool
	if x.audience, found = s.Registry.Audience(s.Public, origin); !found {
		http.Error(w, "there is no server of this name here", http.StatusNotFound)
		return
	}
	var err error
	if x.principal, err = s.Authn.Bearer(r, x.audience.URL); err != nil {
		s.refuse(x, err)
		return
	}
	if r.Method == http.MethodPost {
		s.post(x)
		return
	}
	if x.principal.Kind == principal.Anonymous {
		s.askToken(x)
		return
	}
	serve, served := map[string]func(*exchange){http.MethodGet: s.listen, http.MethodDelete: s.end}[r.Method]
	switch {
	case !served || r.Header.Get(mcp.SessionHeader) == "": // a stream and an end have only sessions
		w.Header().Set("Allow", "POST, OPTIONS")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case !s.inSession(x):
		http.Error(w, unknownSession, http.StatusNotFound)
	default:
		serve(x)
	}
}

const unknownSession = "this session is not known: initialize again"

// allowOrigin answers preflights and refuses web pages that may not call.
func (s *Server) allowOrigin(x *exchange) bool {
	origin := x.r.Header.Get("Origin")
	if origin == "" && x.r.Method != http.MethodOptions {
		return true
	}
	if len(x.r.Header.Values("Origin")) != 1 || !s.Origins(origin) {
		s.Authn.Refused(x.remote, "call from a web page that may not")
		http.Error(x.w, "this web page may not call this server", http.StatusForbidden)
		return false
	}
	h := x.w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate, DPoP-Nonce")
	if x.r.Method != http.MethodOptions {
		return true
	}
	h.Set("Access-Control-Allow-Methods", "POST, GET, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, DPoP, Content-Type, Accept, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Last-Event-ID")
	x.w.WriteHeader(http.StatusNoContent)
	return false
}

func (s *Server) post(x *exchange) {
	body, status := read(x)
	msg, fault := mcp.Parse(body)
	x.msg = msg
	x.record.Call = called(msg)
	if x.principal.Kind == principal.Anonymous {
		if !s.open(msg) {
			s.askToken(x)
			return
		}
		if s.tooOften(x) {
			return
		}
	}
	if status != 0 {
		http.Error(x.w, "send one JSON-RPC message of at most 4 MiB as application/json", status)
		return
	}
	version := x.r.Header.Get(mcp.VersionHeader)
	switch {
	case fault != nil:
		s.reply(x, http.StatusBadRequest, mcp.Message{ID: msg.ID, Error: fault})
	case mcp.IsModern(x.r.Header, msg) || version != "" && !slices.Contains(mcp.Legacy, version):
		s.reply(x, http.StatusBadRequest, mcp.Message{ID: msg.ID, Error: mcp.Unsupported(cmp.Or(mcp.Text(msg.Params, "_meta", mcp.VersionMeta), version))})
	case !s.inSession(x):
		http.Error(x.w, unknownSession, http.StatusNotFound)
	case msg.IsRequest():
		s.handle(x)
	default:
		s.hears(x)
		x.w.WriteHeader(http.StatusAccepted)
	}
}

// called is what the log says of a message: its method, and what it names.
func called(msg mcp.Message) string {
	if msg.Method == "" {
		return ""
	}
	name := mcp.Text(msg.Params, "name")
	return strings.TrimSpace(fmt.Sprintf("%.40s %.128s", msg.Method, name))
}

// hears takes what has no answer.
func (s *Server) hears(x *exchange) {
	switch {
	case x.msg.IsResponse():
		s.answered(x)
	case x.msg.Method == "notifications/cancelled":
		s.running.cancel(x.call(mcp.Field(x.msg.Params, "requestId")))
	case x.msg.Method == "notifications/roots/list_changed" && x.session.Alone:
		for _, srv := range s.readable(x.ctx, x) {
			srv.Sessions.Tell(x.ctx, x.session, x.msg.Method, x.msg.Params)
		}
	}
}

// read returns the body, or the status with which to refuse it.
func read(x *exchange) (body []byte, status int) {
	if t, _, _ := mime.ParseMediaType(x.r.Header.Get("Content-Type")); t != "application/json" {
		return nil, http.StatusUnsupportedMediaType
	}
	limit := int64(maxBody)
	if x.principal.Kind == principal.Anonymous {
		limit = maxUnknown
	}
	body, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, limit))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return nil, http.StatusRequestEntityTooLarge
	}
	if err != nil {
		return nil, http.StatusBadRequest
	}
	return body, 0
}

// open reports whether a stranger may send the message: a call of a tool that
// anyone may use (R516).
func (s *Server) open(msg mcp.Message) bool {
	if msg.Method != "tools/call" {
		return false
	}
	t, found := s.Registry.Lookup(mcp.Text(msg.Params, "name"))
	return found && t.MayCall() <= principal.Anyone
}

// methods are the requests that are answered at once.
var methods = map[string]func(*Server, *exchange) (json.RawMessage, error){
	"initialize": (*Server).initialize,
	"ping":       func(*Server, *exchange) (json.RawMessage, error) { return json.RawMessage("{}"), nil },
	"tools/list": (*Server).listTools,
}

func (s *Server) handle(x *exchange) {
	if x.relays() {
		s.relay(x)
		return
	}
	result, err := s.atOnce(x)
	s.reply(x, http.StatusOK, s.answer(x, result, err))
}

// relays reports whether a request reaches a server behind us, or may.
func (x *exchange) relays() bool {
	return relayed[x.msg.Method] != nil && (x.audience.Origin != tool.Control || x.msg.Method == "tools/call")
}

// atOnce carries out a request that is answered at once.
func (s *Server) atOnce(x *exchange) (json.RawMessage, error) {
	method, served := methods[x.msg.Method]
	if !served {
		return nil, &mcp.Error{Code: mcp.MethodNotFound, Message: "this method is not served here"}
	}
	return method(s, x)
}

// answer is the answer to a request that had this result or error.
func (s *Server) answer(x *exchange, result json.RawMessage, err error) mcp.Message {
	m := mcp.Message{ID: x.msg.ID, Result: result}
	if err != nil {
		m.Result, m.Error = s.failure(x, err)
	}
	return m
}

// failure is an error as MCP says it: a protocol error where the request itself
// is at fault, a tool error that a model can read otherwise (C18).
func (s *Server) failure(x *exchange, err error) (json.RawMessage, *mcp.Error) {
	if e, ok := errors.AsType[*mcp.Error](err); ok {
		return nil, e
	}
	p := problem.From(err)
	x.record.Code = p.Name
	wire := p.Wire(x.ref)
	data, _ := json.Marshal(wire) // plain strings and numbers
	switch p.Kind {
	case problem.NotFound:
		return nil, &mcp.Error{Code: absent(p, x.msg.Method), Message: p.Detail, Data: data}
	case problem.Internal:
		s.Log.Error("call failed", "ref", x.ref, "err", err)
		return nil, &mcp.Error{Code: mcp.InternalError, Message: p.Detail, Data: data}
	}
	if curable(p) {
		return nil, &mcp.Error{Code: mcp.InvalidRequest, Message: p.Detail, Data: data}
	}
	if p.Link != "" && opens(x.session) {
		return nil, addressToOpen(wire)
	}
	if x.msg.Method != "tools/call" { // which alone has a place for it in its result
		return nil, &mcp.Error{Code: mcp.InternalError, Message: explain(wire), Data: data}
	}
	return mcp.TextResult(data, explain(wire), true), nil
}

// addressToOpen is a refusal that a person cures at an address, for a client that opens
// addresses and then asks again (MCP 2025-11-25 elicitation, "URL Elicitation Required
// Error"; R558). For others it is in the text of the error. The page there asks who is in
// front of it, so the address is worth nothing to anybody else.
func addressToOpen(wire problem.Wire) *mcp.Error {
	type elicitation struct {
		Mode    string `json:"mode"`
		ID      string `json:"elicitationId"`
		URL     string `json:"url"`
		Message string `json:"message"`
	}
	data, _ := json.Marshal(struct { // plain strings and numbers
		problem.Wire
		Elicitations []elicitation `json:"elicitations"`
	}{wire, []elicitation{{"url", rand.Text(), wire.Link, wire.Message}}})
	return &mcp.Error{Code: mcp.AddressToOpen, Message: explain(wire), Data: data}
}

// curable reports whether another token would help, so that the answer is a
// challenge.
func curable(p *problem.Error) bool {
	return p != nil && (p.Kind == problem.Unauthenticated || p.Kind == problem.Forbidden && p.Scope != "")
}

// explain is a problem for a reader that is a person or a model.
func explain(w problem.Wire) string {
	text := w.Message
	for _, part := range []string{w.Why, w.Fix} {
		if part != "" {
			text += ". " + strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return text + ". (" + w.Code + ", " + w.Ref + ")"
}

// reply answers with one JSON object, or with a stream of one event for a caller
// who names that first.
func (s *Server) reply(x *exchange, status int, m mcp.Message) {
	if status == http.StatusOK && strings.HasPrefix(x.r.Header.Get("Accept"), "text/event-stream") {
		_ = mcp.NewEventWriter(x.w).Message(m.Encode()) // the caller is gone
		return
	}
	x.w.Header().Set("Content-Type", "application/json")
	x.w.Header().Set("Cache-Control", "no-store")
	x.w.WriteHeader(status)
	_, _ = x.w.Write(m.Encode()) // the caller is gone
}

// askToken refuses a stranger, who begins to sign in like this.
func (s *Server) askToken(x *exchange) {
	s.Authn.Refused(x.remote, "no access token")
	s.refuse(x, authn.TokenMissing.New("an access token is needed"))
}

// tooOften counts a request without a good token, and answers it where there were too
// many from this address.
func (s *Server) tooOften(x *exchange) bool {
	err := s.Throttle.Take(throttle.Strangers, throttle.Address(x.r.RemoteAddr))
	if err == nil {
		return false
	}
	p := problem.From(err)
	x.record.Code = p.Name
	x.w.Header().Set("Retry-After", strconv.Itoa(p.Wire(x.ref).Retry))
	data, _ := json.Marshal(p.Wire(x.ref)) // plain strings and numbers
	s.reply(x, p.Kind.Status(), mcp.Message{ID: x.msg.ID, Error: &mcp.Error{Code: mcp.InvalidRequest, Message: p.Detail, Data: data}})
	return true
}

// refuse answers a request that a token, or another one, would cure: 401 or 403
// with the challenge that says how (R501–R504, R508).
func (s *Server) refuse(x *exchange, err error) {
	p := problem.From(err)
	x.record.Code = p.Name
	if p.Kind == problem.Unauthenticated && s.tooOften(x) {
		return
	}
	challenge := oauth.BearerChallenge{
		Realm: "gatehouse", Ref: x.ref, Scope: strings.Join(x.audience.Scopes, " "),
		ResourceMetadata: oauth.WellKnown(x.audience.URL, oauth.ResourceSuffix),
	}
	body := oauth.ErrorResponse{Error: denied(p, x.r.Header["Authorization"] != nil), Description: p.Detail, Ref: x.ref}
	switch {
	case p.Kind == problem.Unavailable || p.Kind == problem.Internal:
		request.Failed(s.Log, x.r, err)
		if wait := p.Wire(x.ref).Retry; wait > 0 {
			x.w.Header().Set("Retry-After", strconv.Itoa(wait))
		}
		http.Error(x.w, p.Detail, p.Kind.Status())
		return
	case p.Kind == problem.Forbidden:
		challenge.Scope = union(x.principal.Scopes, p.Scope)
		challenge.Error, challenge.Description = body.Error, p.Detail
	case body.Error == oauth.InvalidToken: // and counted as such
		challenge.Error, challenge.Description = body.Error, p.Detail
	}
	s.Authn.Challenge(x.w.Header(), x.r, challenge, err)
	if x.msg.ID == nil {
		x.w.Header().Set("Content-Type", "application/json")
		x.w.Header().Set("Cache-Control", "no-store")
		x.w.WriteHeader(p.Kind.Status())
		_ = json.NewEncoder(x.w).Encode(body) // the caller is gone
		return
	}
	s.reply(x, p.Kind.Status(), denial(x, body.Error, p))
}

// denied is what OAuth calls a refusal that a token, or another one, would cure.
// presented says whether one came with the message (R502).
func denied(p *problem.Error, presented bool) string {
	switch {
	case p.Kind == problem.Forbidden:
		return oauth.InsufficientScope
	case presented:
		return oauth.InvalidToken
	}
	return "missing_token"
}

// denial is such a refusal as JSON-RPC says it (C18).
func denial(x *exchange, word string, p *problem.Error) mcp.Message {
	data, _ := json.Marshal(p.Wire(x.ref)) // plain strings and numbers
	return mcp.Message{ID: x.msg.ID, Error: &mcp.Error{Code: mcp.InvalidRequest, Message: word + ": " + p.Detail, Data: data}}
}

// union repeats what was granted before, for clients that ask for exactly what
// a challenge names.
func union(granted []string, needed string) string {
	for _, scope := range strings.Fields(needed) {
		if !slices.Contains(granted, scope) {
			granted = append(slices.Clone(granted), scope)
		}
	}
	return strings.Join(granted, " ")
}
