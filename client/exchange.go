package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"mime"
	"net/http"
	"regexp"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// token is the one of the moment; refused is one that the server did not take.
func (s *Session) token(ctx context.Context, refused string) (string, error) {
	if s.anonymous {
		return "", nil
	}
	return s.c.bearer(ctx, s.server, refused)
}

func (s *Session) newRequest(ctx context.Context, method string, body []byte, hand handshake, token string) (*http.Request, error) {
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
	if token == "" {
		return req, nil
	}
	l, _, err := s.c.stored(s.server)
	if err != nil || l.AccessToken != token { // given, or replaced meanwhile
		l = login{AccessToken: token}
	}
	return req, s.c.show(req, l)
}

func (s *Session) post(ctx context.Context, body []byte, hand handshake, extra http.Header, token string) (*http.Response, error) {
	for again := false; ; again = true {
		req, err := s.newRequest(ctx, http.MethodPost, body, hand, token)
		if err != nil {
			return nil, err
		}
		maps.Copy(req.Header, extra)
		res, err := s.do(req)
		if err != nil || !s.c.noteNonce(req, res.Header, challengeOf(res.Header, "dpop").Params["error"]) || again {
			return res, err
		}
		_ = res.Body.Close() // it wants another nonce in the proof
	}
}

// send posts a message. A token that the server refuses is refreshed once; what
// a sign-in would cure is left to Options.SignIn, a few times. Then the message
// is sent again.
func (s *Session) send(ctx context.Context, m mcp.Message, hand handshake, extra http.Header) (*http.Response, error) {
	body := m.Encode()
	want := Demand{Server: s.server, Scope: s.granted("")}
	token, err := s.token(ctx, "")
	refreshed := false
	for signIns := 0; ; {
		if isSignedOut(err) && s.c.opts.SignIn != nil && signIns < maxSignIns {
			signIns++
			token, err = s.c.signIn(ctx, want, token)
		}
		if err != nil {
			return nil, err
		}
		res, failed := s.post(ctx, body, hand, extra, token)
		if failed != nil || s.anonymous || s.c.opts.Token != "" {
			return res, failed
		}
		d, curable := s.demand(res, s.granted(want.Scope))
		again := res.StatusCode == http.StatusUnauthorized && token != "" && !refreshed
		if !curable || !again && (s.c.opts.SignIn == nil || signIns == maxSignIns) {
			return res, nil
		}
		_ = res.Body.Close() // the refusal itself says nothing more
		if want = d; again {
			refreshed = true
			token, err = s.token(ctx, token)
			continue
		}
		signIns++
		token, err = s.c.signIn(ctx, want, token)
	}
}

// granted is the scope of the token, or what it was before it was lost.
func (s *Session) granted(before string) string {
	if l, ok, err := s.c.stored(s.server); err == nil && ok {
		return l.Scope
	}
	return before
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
	res, err := s.send(ctx, m, hand, nil)
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
func (s *Session) roundTrip(ctx context.Context, m mcp.Message, hand handshake, extra http.Header, progress func(Progress)) (json.RawMessage, http.Header, error) {
	res, err := s.send(ctx, m, hand, extra)
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
		result, err = (&stream{s: s, id: m.ID, hand: hand, progress: progress}).follow(ctx, res.Body)
	default:
		err = unreadable.fail("can't read the answer of %s", s.server).why("it is neither JSON nor a stream of events (%q)", kind)
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

func answers(m mcp.Message, id json.RawMessage) bool {
	return m.IsResponse() && (string(m.ID) == string(id) || m.ID == nil && m.Error != nil)
}

func result(m mcp.Message) (json.RawMessage, error) {
	if m.Error != nil {
		return nil, m.Error
	}
	return m.Result, nil
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
		if m, fault := mcp.Parse(body); fault == nil && m.Error != nil { // of a method, in the era without handshake
			return m.Error
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
