package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const (
	patience  = 15 * time.Second // for one answer
	maxAnswer = 256 << 10
)

// stranger is an origin that no server has reason to trust. Nothing is ever sent
// there.
const stranger = "https://stranger.example"

// exam is one examination, and what has been found out so far.
type exam struct {
	ctx  context.Context
	opts Options
	hc   *http.Client
	url  *url.URL // of the server
	busy bool     // an answer was 429

	plain     answer              // to the first message without a token
	challenge oauth.AuthChallenge // in it
	prm       oauth.ResourceMetadata
	hasPRM    bool
	prmAt     string // where it was found
	as        metadata
	hasAS     bool
	app       app // registered for this examination
}

// metadata is what an issuer says about itself, with what only matters here.
type metadata struct {
	oauth.ServerMetadata
	IntrospectionEndpoint string `json:"introspection_endpoint"`
}

// newExam asks the server for the first time.
func newExam(ctx context.Context, o Options) (*exam, error) {
	u, err := url.Parse(o.Server)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is not the address of a server", o.Server)
	}
	e := &exam{ctx: ctx, opts: o, url: u, hc: &http.Client{
		Transport:     o.HTTP,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	e.plain = e.initialize(nil)
	if e.plain.status == 0 {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, e.plain.err)
	}
	e.challenge = bearer(e.plain)
	return e, nil
}

func (e *exam) local() bool { return isLoopback(e.url) }

func isLoopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return strings.EqualFold(u.Hostname(), "localhost") || ip != nil && ip.IsLoopback()
}

// safe reports whether an address that the server names may be asked: over TLS, or
// on this computer if the server is, and only then.
func (e *exam) safe(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Hostname() == "" {
		return false
	}
	if isLoopback(u) {
		return e.local() && (u.Scheme == "https" || u.Scheme == "http")
	}
	return u.Scheme == "https"
}

// answer is a response, read to its end. Its status is 0 if there was none.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// String is an answer in a few words.
func (a answer) String() string {
	if a.status == 0 {
		return "no answer: " + innermost(a.err)
	}
	s := fmt.Sprintf("status %d", a.status)
	if to := a.header.Get("Location"); to != "" {
		s += " to " + cutQuery(to)
	}
	return s
}

// innermost is the last reason of an error; those around it say what the reader
// knows.
func innermost(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

func cutQuery(address string) string {
	before, _, cut := strings.Cut(address, "?")
	if cut {
		return before + "?…"
	}
	return before
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

func (a answer) isJSON() bool {
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}

func (a answer) uncached() bool {
	return strings.Contains(strings.ToLower(a.header.Get("Cache-Control")), "no-store")
}

// oauthError is the member "error" of an OAuth refusal.
func (a answer) oauthError() string {
	var r oauth.ErrorResponse
	if !a.isJSON() || json.Unmarshal(a.body, &r) != nil {
		return ""
	}
	return r.Error
}

// fetch asks an address that is safe, or at the server that was named.
func (e *exam) fetch(method, address string, header http.Header, body string) answer {
	if !e.safe(address) && !strings.HasPrefix(address, e.url.Scheme+"://"+e.url.Host+"/") {
		return answer{err: fmt.Errorf("%s is not asked, since it is no safe address", cutQuery(address))}
	}
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	if header != nil {
		req.Header = header
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	req.Header.Set("User-Agent", "gatehouse-doctor/"+e.opts.Version)
	res, err := e.hc.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	var b []byte
	if !isStream(res) {
		if b, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil {
			return answer{err: err}
		}
	}
	e.busy = e.busy || res.StatusCode == http.StatusTooManyRequests
	return answer{status: res.StatusCode, header: res.Header, body: b}
}

// isStream reports whether an answer may go on for ever. Its status says enough.
func isStream(res *http.Response) bool {
	return strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
}

// initialize sends the first message of a client that has no token. A session that
// this opens is closed again.
func (e *exam) initialize(extra http.Header) answer { return e.initializeAt(e.opts.Server, extra) }

func (e *exam) initializeAt(address string, extra http.Header) answer {
	params, _ := json.Marshal(mcp.InitializeParams{ // strings always marshal
		ProtocolVersion: mcp.Latest, Capabilities: json.RawMessage("{}"),
		ClientInfo: mcp.Implementation{Name: "gatehouse doctor", Version: e.opts.Version},
	})
	m := mcp.Message{ID: json.RawMessage("1"), Method: "initialize", Params: params}
	h := http.Header{"Accept": {"application/json, text/event-stream"}, "Content-Type": {"application/json"}}
	for name, values := range extra {
		h[name] = values
	}
	a := e.fetch(http.MethodPost, address, h, string(m.Encode()))
	if id := a.header.Get(mcp.SessionHeader); a.ok() && id != "" {
		e.fetch(http.MethodDelete, e.opts.Server, http.Header{mcp.SessionHeader: {id}}, "")
	}
	return a
}

// document fetches JSON metadata as a page of another origin would.
func (e *exam) document(address string) answer {
	return e.fetch(http.MethodGet, address, http.Header{"Accept": {"application/json"}, "Origin": {stranger}}, "")
}

func (e *exam) post(address string, form url.Values) answer {
	return e.fetch(http.MethodPost, address, http.Header{"Accept": {"application/json"}, "Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
}

// open reports whether a page of another origin may read the answer.
func (a answer) open() bool {
	allowed := a.header.Get("Access-Control-Allow-Origin")
	return allowed == "*" || allowed == stranger
}

func bearer(a answer) oauth.AuthChallenge {
	for _, c := range oauth.ParseChallenges(a.header.Values("WWW-Authenticate")) {
		if c.Scheme == "bearer" {
			return c
		}
	}
	return oauth.AuthChallenge{}
}

// clean keeps what a server says from drawing on a terminal, and short.
func clean(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\ufffd"), func(r rune) bool {
		return r <= ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}), " ")
	if r := []rune(s); len(r) > 240 {
		s = string(r[:239]) + "…"
	}
	return s
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

func list(name string, values []string) string { return fmt.Sprintf("%s=%q", name, values) }
