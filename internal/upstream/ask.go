package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// shareable is what we declare to a server in a session that callers share: that
// a caller may be asked while its call runs. Whether it can be is found out then.
var shareable = json.RawMessage(`{"elicitation":{"form":{}},"sampling":{}}`)

// askable are the requests of a server that callers answer.
var askable = map[string]bool{"elicitation/create": true, "sampling/createMessage": true, "roots/list": true}

// answerTo answers what a server asks of us ourselves: a sign of life. There is
// nobody to ask for the rest.
func answerTo(m mcp.Message) mcp.Message {
	if m.Method == "ping" {
		return mcp.Message{ID: m.ID, Result: json.RawMessage("{}")}
	}
	return mcp.Message{ID: m.ID, Error: &mcp.Error{Code: mcp.MethodNotFound, Message: "the client does not offer " + m.Method}}
}

// ask puts a request of a server to the caller and makes the answer.
func ask(ctx context.Context, m mcp.Message, peer tool.Peer) mcp.Message {
	result, err := peer.Ask(ctx, m.Method, m.Params)
	if err == nil {
		return mcp.Message{ID: m.ID, Result: result}
	}
	said, ok := errors.AsType[*mcp.Error](err)
	if !ok {
		said = &mcp.Error{Code: mcp.InternalError, Message: "the client did not answer"}
	}
	return mcp.Message{ID: m.ID, Error: said}
}

// maxQuestions bounds how many requests of a server wait on one stream.
const maxQuestions = 16

// questions are the requests of a server on one stream that wait for the caller.
type questions struct {
	ctx    context.Context
	peer   tool.Peer
	answer func(mcp.Message)
	spawn  func(func()) // a goroutine that somebody waits for

	mu      sync.Mutex
	waiting map[string]context.CancelFunc // by the server's id
}

// put asks without waiting for the answer. What callers are not asked, and what is
// one too many, is answered at once, so that a server which only asks is held up.
func (q *questions) put(m mcp.Message) {
	ctx, ok := q.add(m)
	if !ok {
		q.answer(answerTo(m))
		return
	}
	q.spawn(func() {
		answer := ask(ctx, m, q.peer)
		if q.drop(m.ID) { // else the server has taken its question back
			q.answer(answer)
		}
	})
}

func (q *questions) add(m mcp.Message) (context.Context, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.peer == nil || !askable[m.Method] || len(q.waiting) >= maxQuestions || q.waiting[string(m.ID)] != nil {
		return nil, false
	}
	if q.waiting == nil {
		q.waiting = map[string]context.CancelFunc{}
	}
	ctx, cancel := context.WithCancel(q.ctx)
	q.waiting[string(m.ID)] = cancel
	return ctx, true
}

// drop forgets a question and reports whether it still waited. One that the
// server takes back ends at the caller.
func (q *questions) drop(id json.RawMessage) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	cancel, waits := q.waiting[string(id)]
	if waits {
		cancel()
		delete(q.waiting, string(id))
	}
	return waits
}
