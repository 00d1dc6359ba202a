package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"regexp"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// newRequest makes an HTTP request of the session with the token of the moment.
func (s *Session) newRequest(ctx context.Context, method string, body []byte, hand handshake) (*http.Request, error) {
	token := ""
	if !s.anonymous {
		var err error
		if token, err = s.c.bearer(ctx, s.server, ""); err != nil {
			return nil, err
		}
	}
	return s.withToken(ctx, method, body, hand, token)
}

func (s *Session) withToken(ctx context.Context, method string, body []byte, hand handshake, token string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.server, bytes.NewReader(body))
	if err != nil {
		return nil, addressInvalid.fail("can't talk to %s", s.server).because(err)
	}
	h := req.Header
	h.Set("User-Agent", s.c.opts.Name+"/"+s.c.opts.Version)
	h.Set("Accept", "application/json, text/event-stream")
	if body != nil {
		h.Set("Content-Type", "application/json")
	}
	for name, value := range map[string]string{sessionHeader: hand.session, mcp.VersionHeader: hand.version} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// send posts a message. A token that the server refuses is refreshed once, and
// the message sent again.
func (s *Session) send(ctx context.Context, m mcp.Message, hand handshake) (*http.Response, error) {
	body := m.Encode()
	req, err := s.newRequest(ctx, http.MethodPost, body, hand)
	if err != nil {
		return nil, err
	}
	res, err := s.do(req)
	if err != nil || res.StatusCode != http.StatusUnauthorized || s.anonymous {
		return res, err
	}
	token := req.Header.Get("Authorization")
	if token == "" || s.c.opts.Token != "" {
		return res, nil
	}
	_ = res.Body.Close() // the refusal itself says nothing more
	fresh, err := s.c.bearer(ctx, s.server, token[len("Bearer "):])
	if err != nil {
		return nil, err
	}
	if req, err = s.withToken(ctx, http.MethodPost, body, hand, fresh); err != nil {
		return nil, err
	}
	return s.do(req)
}

func (s *Session) do(req *http.Request) (*http.Response, error) {
	res, err := s.c.hc.Do(req)
	if err != nil {
		return nil, unreachable.fail("can't reach %s", s.server).because(err)
	}
	return res, nil
}

// tell sends a message that has no answer.
func (s *Session) tell(ctx context.Context, m mcp.Message, hand handshake) error {
	res, err := s.send(ctx, m, hand)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return s.refused(res)
	}
	return nil
}

// roundTrip sends a request and waits for its answer, which comes as one JSON
// object or at the end of a stream. A JSON-RPC error comes back as *mcp.Error.
func (s *Session) roundTrip(ctx context.Context, m mcp.Message, hand handshake, progress func(Progress)) (json.RawMessage, http.Header, error) {
	res, err := s.send(ctx, m, hand)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, nil, s.refused(res)
	}
	var result json.RawMessage
	switch kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind {
	case "application/json":
		result, err = s.readJSON(res.Body, m.ID)
	case "text/event-stream":
		result, err = s.readStream(ctx, res.Body, m.ID, hand, progress)
	default:
		err = unreadable.fail("can't read the answer of %s", s.server).why("it is neither JSON nor a stream of events (%q)", clean(kind))
	}
	return result, res.Header, err
}

func (s *Session) readJSON(r io.Reader, id json.RawMessage) (json.RawMessage, error) {
	body, err := readBounded(r, maxAnswer)
	if err != nil {
		return nil, unreadable.fail("can't read the answer of %s", s.server).because(err)
	}
	m, fault := mcp.Parse(body)
	if fault != nil || !answers(m, id) {
		return nil, unreadable.fail("can't read the answer of %s", s.server)
	}
	return result(m)
}

// readStream reads events until the answer. What comes before it is progress,
// or a request of the server's own.
func (s *Session) readStream(ctx context.Context, r io.Reader, id json.RawMessage, hand handshake, progress func(Progress)) (json.RawMessage, error) {
	for event, err := range mcp.ReadEvents(r, maxAnswer) {
		if err != nil {
			return nil, unreachable.fail("lost the connection to %s", s.server).because(err)
		}
		m, fault := mcp.Parse(event.Data)
		switch {
		case fault != nil: // an empty event that opens a stream, or one that is none of our business
		case answers(m, id):
			return result(m)
		case m.IsRequest():
			s.decline(ctx, m, hand)
		case m.Method == "notifications/progress" && progress != nil && string(mcp.Field(m.Params, "progressToken")) == string(id):
			report(m.Params, progress)
		}
	}
	return nil, unreachable.fail("lost the connection to %s", s.server).why("the stream ended before the answer")
}

func answers(m mcp.Message, id json.RawMessage) bool {
	return m.IsResponse() && (string(m.ID) == string(id) || m.ID == nil && m.Error != nil)
}

func result(m mcp.Message) (json.RawMessage, error) {
	if m.Error != nil {
		return nil, m.Error
	}
	return m.Result, nil
}

// decline answers a request of the server: a ping with yes, the rest with no,
// since no capability was offered.
func (s *Session) decline(ctx context.Context, m mcp.Message, hand handshake) {
	answer := mcp.Message{ID: m.ID, Result: json.RawMessage("{}")}
	if m.Method != "ping" {
		answer = mcp.Message{ID: m.ID, Error: &mcp.Error{Code: mcp.MethodNotFound, Message: "this client does not do that"}}
	}
	_ = s.tell(ctx, answer, hand) // if it is lost, so is the call, and that is noticed
}

// harmless is a list of scopes that means nothing to a shell.
var harmless = regexp.MustCompile(`^[A-Za-z0-9:._/ -]+$`)

// refused says what a status other than success means.
func (s *Session) refused(res *http.Response) error {
	body, _ := readBounded(res.Body, maxMetadata) // only to say more
	ch := bearerChallenge(res.Header)
	var e *Error
	switch res.StatusCode {
	case http.StatusUnauthorized:
		e = s.unauthenticated(ch)
	case http.StatusForbidden:
		e = notPermitted.fail("%s refuses the call", s.server)
		if e.Scope = clean(ch.Params["scope"]); e.Scope != "" {
			e = e.why("it needs the scopes %s", e.Scope).fix("sign in again and allow these scopes")
			if harmless.MatchString(e.Scope) { // it is the server's text, and may be pasted into a shell
				e = e.fix(`gatehouse login %s --scope "%s"`, s.server, e.Scope)
			}
		}
	case http.StatusNotFound:
		if res.Request.Header.Get(sessionHeader) != "" {
			return sessionGone.fail("%s has ended the session", s.server)
		}
		e = unreadable.fail("there is no MCP server at %s", s.server).why("it answers with status 404")
	default:
		if m, fault := mcp.Parse(body); fault == nil && m.Error != nil {
			return m.Error
		}
		e = unreadable.fail("can't talk to %s", s.server).why("it answers with status %d", res.StatusCode)
		if res.StatusCode >= 500 {
			e = e.fix("try again; the server has a problem of its own")
		}
	}
	e.Ref = clean(ch.Params["ref"])
	return e
}

func (s *Session) unauthenticated(ch oauth.AuthChallenge) *Error {
	e := notSignedIn.fail("not signed in to %s", s.server)
	switch {
	case s.anonymous:
	case s.c.opts.Token != "":
		e = signedOut.fail("%s does not accept the token it was given", s.server)
	case ch.Params["error"] == oauth.InvalidToken:
		e = signedOut.fail("signed out of %s", s.server)
	}
	if d := clean(ch.Params["error_description"]); d != "" {
		e = e.why("%s", d)
	}
	if s.c.opts.Token == "" {
		e = e.fix("gatehouse login %s", s.server)
	}
	return e
}
