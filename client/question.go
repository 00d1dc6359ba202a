package client

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// Question is what a server asks the person while a call runs (elicitation). Its
// texts are the server's: show them as such.
type Question struct {
	Server  string
	Message string
	// Schema describes the answer: a JSON schema of an object whose members are
	// strings, numbers, booleans or choices. It is nil if URL is set.
	Schema json.RawMessage
	// URL is a page to open instead, for what the program must not see. Show the
	// person where it leads, and open it only if they agree.
	URL string
}

// Reply is the person's answer.
type Reply struct {
	Action Action
	// Content is the answer to a Question with a Schema. What is left out takes
	// the default that the schema names.
	Content map[string]any
}

// Action says what the person did with a question; the zero value is Cancel.
type Action string

// The actions of MCP 2025-11-25 elicitation, "Response Actions".
const (
	Accept  Action = "accept"
	Decline Action = "decline"
	Cancel  Action = "cancel"
)

// capabilities are what a server may ask of us.
func (c *Client) capabilities() json.RawMessage {
	if c.opts.Ask == nil {
		return json.RawMessage(`{}`)
	}
	return json.RawMessage(`{"elicitation":{"form":{},"url":{}}}`)
}

// respond answers a request of the server: a ping with yes, a question with what
// the person says, the rest with no, since nothing else was offered.
func (s *Session) respond(ctx context.Context, m mcp.Message, hand handshake) {
	answer := mcp.Message{ID: m.ID, Result: json.RawMessage("{}")}
	if m.Method != "ping" {
		var err error
		if answer.Result, err = s.ask(ctx, m.Method, m.Params); err != nil {
			answer.Error = &mcp.Error{Code: mcp.MethodNotFound, Message: err.Error()}
		}
	}
	_ = s.tell(ctx, answer, hand) // if it is lost, so is the call, and that is noticed
}

var errNotOffered = errors.New("this client does not do that")

// ask puts a question of the server to the person, as the program does that.
func (s *Session) ask(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	var q struct {
		Mode    string          `json:"mode"`
		Message string          `json:"message"`
		Schema  json.RawMessage `json:"requestedSchema"`
		URL     string          `json:"url"`
	}
	if method != "elicitation/create" || s.c.opts.Ask == nil || json.Unmarshal(params, &q) != nil {
		return nil, errNotOffered
	}
	question := Question{Server: s.server, Message: q.Message, Schema: q.Schema}
	if q.Mode == "url" {
		if _, err := safeURL(q.URL, true); err != nil {
			return nil, errors.New("this client opens no such address")
		}
		question.Schema, question.URL = nil, q.URL
	}
	reply, err := s.c.opts.Ask(ctx, question)
	if err != nil || reply.Action == "" {
		reply = Reply{Action: Cancel}
	}
	answer := map[string]any{"action": reply.Action}
	if reply.Action == Accept && question.URL == "" {
		answer["content"] = withDefaults(reply.Content, q.Schema)
	}
	return json.Marshal(answer)
}

// withDefaults adds to an answer what the person left as it was.
func withDefaults(content map[string]any, schema json.RawMessage) map[string]any {
	var form struct {
		Properties map[string]struct {
			Default json.RawMessage `json:"default"`
		} `json:"properties"`
	}
	if json.Unmarshal(schema, &form) != nil { // then it has no defaults
		form.Properties = nil
	}
	all := make(map[string]any, len(form.Properties))
	for name, p := range form.Properties {
		if p.Default != nil {
			all[name] = p.Default
		}
	}
	for name, value := range content {
		all[name] = value
	}
	return all
}

// more is what a server of the era without handshake wants to know before it
// answers: the same request again, with replies (MCP 2026-07-28, multi round-trip
// requests).
type more struct {
	Type     string `json:"resultType"`
	Requests map[string]struct {
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	} `json:"inputRequests"`
	State *string `json:"requestState"`
}

// answer is what to add to the request: the replies, and the server's state, which
// is nobody's business but the server's.
func (s *Session) answer(ctx context.Context, want more) (map[string]any, error) {
	add := map[string]any{}
	if want.Requests != nil {
		replies := map[string]json.RawMessage{}
		for name, r := range want.Requests {
			reply, err := s.ask(ctx, r.Method, r.Params)
			if err != nil {
				return nil, unreadable.fail("can't go on with %s", s.server).why("it asks for %q: %v", r.Method, err)
			}
			replies[name] = reply
		}
		add["inputResponses"] = replies
	}
	if want.State != nil {
		add["requestState"] = *want.State
	}
	return add, nil
}
