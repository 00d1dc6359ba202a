package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Tool is one tool of a server. The hints are the server's word and no more; nil
// means that it says nothing.
type Tool struct {
	Name         string          `json:"name"`
	Title        string          `json:"title,omitempty"`
	Description  string          `json:"description,omitempty"`
	InputSchema  json.RawMessage `json:"inputSchema,omitempty"`
	OutputSchema json.RawMessage `json:"outputSchema,omitempty"`
	Hints        struct {
		ReadOnly    *bool `json:"readOnlyHint,omitempty"`
		Destructive *bool `json:"destructiveHint,omitempty"`
		Idempotent  *bool `json:"idempotentHint,omitempty"`
		OpenWorld   *bool `json:"openWorldHint,omitempty"`
	} `json:"annotations,omitzero"`
}

// Tools are all tools the server shows, in its order. One whose schema demands
// headers that are not allowed is left out (MCP 2026-07-28 "x-mcp-header").
func (s *Session) Tools(ctx context.Context) ([]Tool, error) {
	var all []Tool
	wanted := map[string][]mirror{}
	err := s.pages(ctx, "tools/list", "tools", func(raw json.RawMessage) error {
		var page []Tool
		if err := json.Unmarshal(raw, &page); err != nil {
			return err
		}
		for _, t := range page {
			m, ok := mirrors(t.InputSchema)
			if !ok && s.isModern() {
				continue
			}
			all, wanted[t.Name] = append(all, t), m
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirrors = wanted
	return all, nil
}

func (s *Session) isModern() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hand.modern()
}

// pages reads a list to its end; take is given the member that holds the entries.
func (s *Session) pages(ctx context.Context, method, member string, take func(json.RawMessage) error) error {
	params := map[string]any{}
	for range maxPages {
		raw, err := s.request(ctx, method, params, nil)
		if err != nil {
			return s.explain(err)
		}
		entries := mcp.Field(raw, member)
		if entries == nil || take(entries) != nil {
			return unreadable.fail("can't read the %s of %s", member, s.server)
		}
		next := mcp.Text(raw, "nextCursor")
		if next == "" || next == params["cursor"] {
			return nil
		}
		params = map[string]any{"cursor": next}
	}
	return unreadable.fail("can't read the %s of %s", member, s.server).why("the list does not end")
}

// Progress is how far a call has got. Total is 0 if the server does not know.
type Progress struct {
	Done    float64
	Total   float64
	Message string
}

func report(params json.RawMessage, to func(Progress)) {
	var p struct {
		Progress float64 `json:"progress"`
		Total    float64 `json:"total"`
		Message  string  `json:"message"`
	}
	if json.Unmarshal(params, &p) == nil {
		to(Progress{p.Progress, p.Total, clean(p.Message)})
	}
}

// Result is what a tool answered.
type Result struct {
	Raw        json.RawMessage // the result as it came
	Structured json.RawMessage // nil if there is none
	IsError    bool
	texts      []string
}

// Text is the text of the answer, without images and other content.
func (r *Result) Text() string { return strings.Join(r.texts, "\n") }

// Call calls a tool with a JSON object as its arguments; nil stands for none.
// When the tool itself fails there is a result and an error, ErrTool; when a
// Gatehouse in front of it refuses there is only the error. When ctx
// ends, the server is told that nobody waits any more. progress may be nil; it
// is called while Call waits, never after.
func (s *Session) Call(ctx context.Context, tool string, args json.RawMessage, progress func(Progress)) (*Result, error) {
	params := map[string]any{"name": tool}
	if args != nil {
		params["arguments"] = args
	}
	raw, err := s.request(ctx, "tools/call", params, progress)
	if rpc := (*mcp.Error)(nil); errors.As(err, &rpc) {
		if e := told(rpc.Data); e != nil {
			return nil, e
		}
		return nil, toolFailed.fail("can't call %s", tool).because(rpc).why("%s", rpc.Message)
	}
	if err != nil {
		return nil, err
	}
	return s.read(tool, raw)
}

func (s *Session) read(tool string, raw json.RawMessage) (*Result, error) {
	var r struct {
		Content []struct {
			Type string `json:"type"`
			Text string `json:"text"`
		} `json:"content"`
		Structured json.RawMessage `json:"structuredContent"`
		IsError    bool            `json:"isError"`
	}
	if json.Unmarshal(raw, &r) != nil {
		return nil, unreadable.fail("can't read what %s answered", tool)
	}
	if e := told(r.Structured); r.IsError && e != nil {
		return nil, e
	}
	res := &Result{Raw: raw, Structured: r.Structured, IsError: r.IsError}
	for _, c := range r.Content {
		if c.Type == "text" {
			res.texts = append(res.texts, c.Text)
		}
	}
	if res.IsError {
		return res, toolFailed.fail("%s failed", tool).why("%s", res.Text())
	}
	return res, nil
}

// told is the problem that a Gatehouse puts into a refusal. What other servers
// put there is not one, and nil.
func told(raw json.RawMessage) *Error {
	var w problem.Wire
	if json.Unmarshal(raw, &w) != nil || w.Code == "" || w.Message == "" || w.Status == 0 {
		return nil
	}
	e := &Error{
		Kind: ErrTool, Code: clean(w.Code), Message: clean(w.Message), Why: clean(w.Why),
		Scope: clean(w.Scope), Ref: clean(w.Ref), Link: clean(w.Link),
	}
	switch w.Status {
	case http.StatusBadRequest:
		e.Kind = ErrInvalid
	case http.StatusUnauthorized:
		e.Kind = ErrAuthentication
	case http.StatusForbidden:
		e.Kind = ErrPermission
	case http.StatusServiceUnavailable:
		e.Kind = ErrUnreachable
	}
	return e
}
