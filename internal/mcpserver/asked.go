package mcpserver

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

//go:embed *.sql
var migrations embed.FS

// Open makes the table.
func (s *Server) Open(ctx context.Context) error { return s.DB.Migrate(ctx, "mcpserver", migrations) }

// asked are the requests of servers that wait on this node for the answer of a
// caller. Their id is sealed and says in which session they are answered, so that
// another node, to which the answer may come, can tell a question of ours from one
// that was never asked.
type asked struct {
	mu sync.Mutex
	m  map[string]question // by id
}

// question belongs to a session, and is answered there or nowhere (attack 84).
type question struct {
	session string
	answer  chan mcp.Message // takes one
}

// sealedQuestion is what an id says.
type sealedQuestion struct {
	Session string `json:"s"`
	Random  string `json:"r"`
}

const (
	questionKind = "mcp-question"
	lookEvery    = 250 * time.Millisecond // for an answer at another node
	answerLife   = time.Minute            // of one that nobody looks for
)

// capability is what a client must have declared to be asked.
var capability = map[string]string{"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}

// ask sends a request to a caller and waits for the answer, or until ctx ends;
// then the caller is told that nobody waits any more.
func (s *Server) ask(ctx context.Context, sess tool.Session, m mcp.Message, send func(mcp.Message) bool) (json.RawMessage, error) {
	if err := mayAsk(sess, m); err != nil {
		return nil, err
	}
	q := sealedQuestion{sess.Key, rand.Text()}
	plain, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	id, err := s.Box.Handle(questionKind, plain)
	if err != nil {
		return nil, err
	}
	m.ID = []byte(`"` + id + `"`)
	answer := s.asked.add(m.ID, sess.Key)
	defer s.asked.take(m.ID, sess.Key)
	if !send(m) {
		return nil, &mcp.Error{Code: mcp.InternalError, Message: "the client cannot be reached"}
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case said := <-answer:
			return said.Result, orNil(said.Error)
		case <-look.C:
			if said, found := s.elsewhere(ctx, q.Random); found {
				return said.Result, orNil(said.Error)
			}
		case <-ctx.Done():
			send(mcp.Message{Method: "notifications/cancelled", Params: fmt.Appendf(nil, `{"requestId":%s,"reason":"the server does not wait any more"}`, m.ID)})
			return nil, context.Cause(ctx)
		}
	}
}

// orNil keeps an error that is none from becoming one.
func orNil(e *mcp.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// Sealed is what this room keeps sealed.
var Sealed = []seal.Column{answers}

var answers = seal.Column{Table: "mcp_answer", ID: "question", Name: "answer"}

// elsewhere takes an answer that came to another node. What cannot be read now is
// looked for again.
func (s *Server) elsewhere(ctx context.Context, random string) (mcp.Message, bool) {
	var sealed []byte
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT answer FROM mcp_answer WHERE question = $1`, random).Scan(&sealed)
	})
	if err != nil {
		return mcp.Message{}, false
	}
	plain, err := s.Box.Open(answers.Place(random), sealed)
	if err != nil {
		s.Log.Error("an answer does not open", "err", err)
		return mcp.Message{}, false
	}
	m, fault := mcp.Parse(plain)
	return m, fault == nil && m.IsResponse()
}

// keepAnswer keeps the first answer to a question of another node for that node,
// and takes away what none has looked for.
func (s *Server) keepAnswer(ctx context.Context, session string, m mcp.Message) error {
	var id string
	if json.Unmarshal(m.ID, &id) != nil {
		return nil // no question of ours
	}
	plain, err := s.Box.OpenHandle(questionKind, id)
	var q sealedQuestion
	if err != nil || json.Unmarshal(plain, &q) != nil || q.Session != session {
		return nil
	}
	sealed, err := s.Box.Seal(answers.Place(q.Random), m.Encode())
	if err != nil {
		return err
	}
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM mcp_answer WHERE expires_at < $1`, tx.Now); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO mcp_answer (question, answer, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			q.Random, sealed, tx.Now+answerLife.Microseconds())
		return err
	})
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

// opens reports whether the client of a session opens addresses for its person.
func opens(s tool.Session) bool {
	return s.Key != "" && mcp.Field(s.Offers, "elicitation", "url") != nil
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

// answered hands an answer to whoever waits for it, here or at another node. What
// nobody asked in this session is dropped.
func (s *Server) answered(x *exchange) {
	if x.session.Key == "" {
		return
	}
	if q, waits := s.asked.take(x.msg.ID, x.session.Key); waits {
		q.answer <- x.msg
	} else if err := s.keepAnswer(x.ctx, x.session.Key, x.msg); err != nil {
		s.Log.Error("an answer could not be kept", "ref", x.ref, "err", err)
	}
}
