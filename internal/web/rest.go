package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// REST is the door for programs without MCP: the same tools, called by name with
// a JSON object (R730, R731). The door of the admin socket is one as well.
type REST struct {
	Gate   *gate.Gate
	Log    *slog.Logger
	Door   string                                           // "rest" or "socket", in the log of events
	Caller func(*http.Request) (principal.Principal, error) // who calls; a refusal is answered with a challenge
	Public string                                           // where a token is asked for
	Authn  *authn.Authn                                     // says what would be accepted

	Throttle *throttle.Throttle // of strangers; not used where there are none
}

// Routes mounts the door.
func (d *REST) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /mcp/tools", d.list)
	mux.HandleFunc("POST /mcp/tool/{name}", d.call)
}

var (
	bodyUnreadable = problem.Code{
		Name: "BODY_UNREADABLE", Kind: problem.Invalid,
		Why: "a call takes one JSON object of at most 4 MiB, in which no member is given twice, as application/json, or nothing",
		Fix: "send the arguments as a JSON object",
	}
)

// The arguments of a call, in bytes at most: of a caller, and of a stranger.
const (
	maxBody     = 4 << 20
	maxStranger = 64 << 10
)

func (d *REST) list(w http.ResponseWriter, r *http.Request) {
	ref := request.Of(r.Context()).Ref
	p, err := d.caller(r)
	if err == nil && p.Kind == principal.Anonymous {
		err = authn.TokenMissing.New("an access token is needed")
	}
	if err != nil {
		d.refuse(w, r, p, ref, err)
		return
	}
	tools := []json.RawMessage{}
	for _, t := range d.Gate.List(r.Context(), p) {
		definition, err := mcp.Renamed(t.Definition, t.FullName())
		if err != nil {
			d.refuse(w, r, p, ref, err)
			return
		}
		tools = append(tools, definition)
	}
	send(w, http.StatusOK, map[string]any{"tools": tools, "total": len(tools), "user_tier": p.Rank.String()})
}

// caller is who calls. Who comes without a good token is counted, as at the door of
// MCP, and refused when that is too often.
func (d *REST) caller(r *http.Request) (principal.Principal, error) {
	p, err := d.Caller(r)
	if refused := problem.From(err); err == nil && p.Kind == principal.Anonymous || err != nil && refused.Kind == problem.Unauthenticated {
		err = cmp.Or(d.Throttle.Take(throttle.Strangers, throttle.Address(r.RemoteAddr)), err)
	}
	return p, err
}

func (d *REST) call(w http.ResponseWriter, r *http.Request) {
	ref := request.Of(r.Context()).Ref
	p, err := d.caller(r)
	if err != nil {
		d.refuse(w, r, p, ref, err)
		return
	}
	record := request.Of(r.Context())
	record.Call = fmt.Sprintf("%.128s", r.PathValue("name"))
	if p.Kind != principal.Anonymous {
		record.Principal = p.Name()
	}
	args, err := arguments(w, r, p)
	if err == nil {
		args, err = d.Gate.Do(r.Context(), gate.Call{
			Principal: p, Name: r.PathValue("name"), Args: args, Door: d.Door, Remote: r.RemoteAddr, Ref: ref,
		})
	}
	if err != nil {
		d.refuse(w, r, p, ref, err)
		return
	}
	send(w, http.StatusOK, args)
}

// arguments reads the body. A stranger, who can call little, may send little.
func arguments(w http.ResponseWriter, r *http.Request, p principal.Principal) (json.RawMessage, error) {
	most := int64(maxBody)
	if p.Kind == principal.Anonymous {
		most = maxStranger
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return nil, bodyUnreadable.New("the arguments did not arrive").Because(err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/json") || !mcp.IsObject(body) {
		return nil, bodyUnreadable.New("the arguments cannot be read")
	}
	return body, nil
}

// refuse answers with the problem, and with a challenge where another token
// would cure it.
func (d *REST) refuse(w http.ResponseWriter, r *http.Request, p principal.Principal, ref string, err error) {
	e := problem.From(err)
	request.Of(r.Context()).Code = e.Name
	if e.Kind == problem.Internal || e.Kind == problem.Unavailable {
		request.Failed(d.Log, r, err)
	}
	challenge := oauth.BearerChallenge{Realm: "gatehouse", Ref: ref, ResourceMetadata: oauth.WellKnown(d.Public+"/mcp", oauth.ResourceSuffix)}
	switch {
	case e.Kind == problem.Unauthenticated:
		if r.Header["Authorization"] != nil {
			challenge.Error, challenge.Description = oauth.InvalidToken, e.Detail
		}
		d.Authn.Challenge(w.Header(), r, challenge, err)
	case e.Kind == problem.Forbidden && e.Scope != "":
		challenge.Error, challenge.Description = oauth.InsufficientScope, e.Detail
		challenge.Scope = strings.Join(append(p.Scopes[:len(p.Scopes):len(p.Scopes)], e.Scope), " ")
		d.Authn.Challenge(w.Header(), r, challenge, err)
	case e.Retry > 0:
		w.Header().Set("Retry-After", strconv.Itoa(e.Wire(ref).Retry))
	}
	status := e.Kind.Status()
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		status = http.StatusRequestEntityTooLarge
	}
	send(w, status, map[string]any{"error": e.Wire(ref)})
}

func send(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller is gone
}
