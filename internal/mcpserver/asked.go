package mcpserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// asked are the requests of servers that wait for the answer of a caller, by an id
// of ours that nobody can guess. They are known to the node that asked.
type asked struct {
	mu sync.Mutex
	m  map[string]question
}

// question belongs to a session, and is answered there or nowhere (attack 84).
type question struct {
	session string
	answer  chan mcp.Message // takes one
}

// capability is what a client must have declared to be asked.
var capability = map[string]string{"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}

// ask sends a request to a caller and waits for the answer, or until ctx ends;
// then the caller is told that nobody waits any more.
func (a *asked) ask(ctx context.Context, s tool.Session, m mcp.Message, send func(mcp.Message) bool) (json.RawMessage, error) {
	if err := mayAsk(s, m); err != nil {
		return nil, err
	}
	m.ID = fmt.Appendf(nil, `"gatehouse-%s"`, rand.Text())
	answer := a.add(m.ID, s.Key)
	defer a.take(m.ID, s.Key)
	if !send(m) {
		return nil, &mcp.Error{Code: mcp.InternalError, Message: "the client cannot be reached"}
	}
	select {
	case said := <-answer:
		if said.Error != nil {
			return nil, said.Error
		}
		return said.Result, nil
	case <-ctx.Done():
		send(mcp.Message{Method: "notifications/cancelled", Params: fmt.Appendf(nil, `{"requestId":%s,"reason":"the server does not wait any more"}`, m.ID)})
		return nil, context.Cause(ctx)
	}
}

// mayAsk says what a server hears that asks a client for what it has not offered
// (MCP 2025-11-25 elicitation, sampling and roots, "Error Handling").
func mayAsk(s tool.Session, m mcp.Message) error {
	offer := mcp.Field(s.Offers, capability[m.Method])
	if s.Key == "" || offer == nil {
		return &mcp.Error{Code: mcp.MethodNotFound, Message: "the client does not offer " + m.Method}
	}
	if m.Method == "elicitation/create" && mcp.Text(m.Params, "mode") == "url" && mcp.Field(offer, "url") == nil {
		return &mcp.Error{Code: mcp.InvalidParams, Message: "the client does not open addresses"}
	}
	return nil
}

func (a *asked) add(id []byte, session string) <-chan mcp.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = map[string]question{}
	}
	q := question{session, make(chan mcp.Message, 1)}
	a.m[string(id)] = q
	return q.answer
}

// take ends the waiting for an answer: it can be given once.
func (a *asked) take(id []byte, session string) (question, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q, waits := a.m[string(id)]
	if !waits || q.session != session {
		return q, false
	}
	delete(a.m, string(id))
	return q, true
}

// answered hands an answer to whoever waits for it. What nobody asked in this
// session is dropped.
func (a *asked) answered(session string, m mcp.Message) {
	if q, waits := a.take(m.ID, session); waits && session != "" {
		q.answer <- m
	}
}
