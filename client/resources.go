package client

import (
	"context"
	"encoding/json"
)

// Resource is something that a server lets clients read.
type Resource struct {
	URI         string `json:"uri"`
	Name        string `json:"name"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	MIMEType    string `json:"mimeType,omitempty"`
}

// Resources are all resources the server lists, in its order.
func (s *Session) Resources(ctx context.Context) ([]Resource, error) {
	return list[Resource](ctx, s, "resources/list", "resources")
}

// Content is a resource, or a part of one: text, or bytes.
type Content struct {
	URI      string `json:"uri"`
	MIMEType string `json:"mimeType,omitempty"`
	Text     string `json:"text,omitempty"`
	Blob     []byte `json:"blob,omitempty"`
}

// Read reads a resource.
func (s *Session) Read(ctx context.Context, uri string) ([]Content, error) {
	raw, err := s.request(ctx, "resources/read", map[string]any{"uri": uri}, nil)
	if err != nil {
		return nil, s.explain(err)
	}
	var r struct {
		Contents []Content `json:"contents"`
	}
	if json.Unmarshal(raw, &r) != nil {
		return nil, unreadable.fail("can't read %s", uri)
	}
	return r.Contents, nil
}

// Prompt is a text with gaps that a server offers.
type Prompt struct {
	Name        string           `json:"name"`
	Title       string           `json:"title,omitempty"`
	Description string           `json:"description,omitempty"`
	Arguments   []PromptArgument `json:"arguments,omitempty"`
}

// PromptArgument is a gap in a prompt.
type PromptArgument struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Required    bool   `json:"required,omitempty"`
}

// Prompts are all prompts the server offers, in its order.
func (s *Session) Prompts(ctx context.Context) ([]Prompt, error) {
	return list[Prompt](ctx, s, "prompts/list", "prompts")
}

// PromptMessage is one message of a filled prompt. Content is as it came: text,
// an image, a resource.
type PromptMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// Prompt fills a prompt; args may be nil.
func (s *Session) Prompt(ctx context.Context, name string, args map[string]string) ([]PromptMessage, error) {
	params := map[string]any{"name": name}
	if args != nil {
		params["arguments"] = args
	}
	raw, err := s.request(ctx, "prompts/get", params, nil)
	if err != nil {
		return nil, s.explain(err)
	}
	var r struct {
		Messages []PromptMessage `json:"messages"`
	}
	if json.Unmarshal(raw, &r) != nil {
		return nil, unreadable.fail("can't read the prompt %s", name)
	}
	return r.Messages, nil
}

func list[T any](ctx context.Context, s *Session, method, member string) ([]T, error) {
	var all []T
	err := s.pages(ctx, method, member, func(raw json.RawMessage) error {
		var page []T
		err := json.Unmarshal(raw, &page)
		all = append(all, page...)
		return err
	})
	return all, err
}
