package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// Bounds for connecting again to a stream that broke off.
const (
	maxResumes = 10 // in a row that brought nothing
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// stream is what brings the answer to one request, perhaps over several
// connections.
type stream struct {
	s        *Session
	id       json.RawMessage // of the request
	hand     handshake
	progress func(Progress)

	last  string        // id of the last event
	heard int           // events so far
	retry time.Duration // as the server asked
}

// follow reads until the answer. A server that ended the connection before may
// be asked for the rest, if it numbers its events and has a session (MCP
// 2025-11-25 transports, "Resumability and Redelivery").
func (st *stream) follow(ctx context.Context, body io.Reader) (json.RawMessage, error) {
	st.retry = firstRetry
	var res *http.Response // of the connection after the first
	defer func() {
		if res != nil {
			_ = res.Body.Close()
		}
	}()
	for barren := 0; ; barren++ {
		before := st.heard
		result, answered, err := st.read(ctx, body)
		if answered {
			return result, err
		}
		if before != st.heard {
			barren = 0
		}
		if ctx.Err() != nil || st.last == "" || st.hand.modern() || barren == maxResumes {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(st.retry, maxRetry)):
		}
		if res != nil {
			_ = res.Body.Close()
		}
		var gone error
		if res, gone = st.resume(ctx); gone != nil {
			return nil, err // why it broke off says more
		}
		body = res.Body
	}
}

// resume asks for what came after the last event, or for all that comes.
func (st *stream) resume(ctx context.Context) (*http.Response, error) {
	token, err := st.s.token(ctx, "")
	if err != nil {
		return nil, err
	}
	req, err := st.s.newRequest(ctx, http.MethodGet, nil, st.hand, token)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if st.last != "" {
		req.Header.Set("Last-Event-ID", st.last)
	}
	return st.streaming(st.s.do(req))
}

// streaming is a response that is a stream, or what it is instead.
func (st *stream) streaming(res *http.Response, err error) (*http.Response, error) {
	if err == nil && (res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")) {
		defer func() { _ = res.Body.Close() }()
		return nil, st.s.refused(res)
	}
	return res, err
}

// read reads events until the answer, or until the connection ends. What comes
// before the answer is progress, or a request of the server's own.
func (st *stream) read(ctx context.Context, r io.Reader) (answer json.RawMessage, answered bool, err error) {
	lost := unreachable.fail("lost the connection to %s", st.s.server)
	for event, err := range mcp.ReadEvents(r, maxAnswer) {
		if err != nil {
			return nil, false, lost.because(err)
		}
		st.heard++
		if event.ID != "" {
			st.last = event.ID
		}
		if event.Retry != 0 {
			st.retry = event.Retry
		}
		m, fault := mcp.Parse(event.Data)
		switch {
		case fault != nil: // an empty event that opens a stream, or one that is none of our business
		case answers(m, st.id):
			answer, err = result(m)
			return answer, true, err
		case m.IsRequest() && !st.hand.modern():
			st.s.respond(ctx, m, st.hand)
		case m.Method == "notifications/subscriptions/acknowledged": // it has heard us
		case m.Method != "" && m.Method != "notifications/progress" && st.s.c.opts.Notify != nil:
			st.s.c.opts.Notify(m.Method, m.Params)
		case m.Method == "notifications/progress" && st.progress != nil && string(mcp.Field(m.Params, "progressToken")) == string(st.id):
			report(m.Params, st.progress)
		}
	}
	return nil, false, lost.why("the stream ended before the answer")
}

// listenPatience is how long a session waits for its stream of messages before
// it goes on without.
const listenPatience = 2 * time.Second

// listen opens the stream on which a server speaks of its own accord, if there
// is anybody to hear it. A server that has none says so, and that is all right.
// The caller holds mu.
func (s *Session) listen(ctx context.Context) {
	s.stopListening()
	if s.c.opts.Notify == nil && (s.c.opts.Ask == nil || s.hand.modern()) {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done, open := make(chan struct{}), make(chan struct{}, 1)
	st := &stream{s: s, hand: s.hand, retry: firstRetry}
	connect := st.resume
	if s.hand.modern() {
		connect = st.subscribe
	}
	go func() {
		defer close(done)
		st.hear(ctx, connect, func() {
			select {
			case open <- struct{}{}:
			default:
			}
		})
	}()
	s.deaf = cancel
	select { // what the server says before is lost
	case <-open:
	case <-done:
	case <-time.After(listenPatience):
	}
}

func (s *Session) stopListening() {
	if s.deaf != nil {
		s.deaf()
		s.deaf = nil
	}
}

// subscribe asks a server of the era without handshake to say what changes, which
// it does not do unasked (MCP 2026-07-28 "Subscriptions").
func (st *stream) subscribe(ctx context.Context) (*http.Response, error) {
	m, err := st.s.compose("subscriptions/listen", map[string]any{
		"notifications": map[string]any{"toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true},
	}, st.hand, false)
	if err != nil {
		return nil, err
	}
	st.id = m.ID
	token, err := st.s.token(ctx, "")
	if err != nil {
		return nil, err
	}
	res, err := st.s.post(ctx, m.Encode(), st.hand, headers(m, nil), token)
	return st.streaming(res, err)
}

// hear reads the stream and opens it again when it ends, until the server wants no
// more of that.
func (st *stream) hear(ctx context.Context, connect func(context.Context) (*http.Response, error), opened func()) {
	for barren := 0; barren < maxResumes; barren++ {
		res, err := connect(ctx)
		if err != nil {
			return
		}
		opened()
		before := st.heard
		_, answered, err := st.read(ctx, res.Body)
		_ = res.Body.Close()
		if answered && err != nil { // it said no
			return
		}
		if before != st.heard {
			barren = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(st.retry, maxRetry)):
		}
	}
}
