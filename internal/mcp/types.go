package mcp

import (
	"encoding/json"
)

// Implementation names a program and its version.
type Implementation struct {
	Name    string `json:"name"`
	Title   string `json:"title,omitempty"`
	Version string `json:"version"`
}

// InitializeParams opens a session.
type InitializeParams struct {
	ProtocolVersion string          `json:"protocolVersion"`
	Capabilities    json.RawMessage `json:"capabilities"`
	ClientInfo      Implementation  `json:"clientInfo"`
}

// InitializeResult answers InitializeParams.
type InitializeResult struct {
	ProtocolVersion string          `json:"protocolVersion"`
	Capabilities    json.RawMessage `json:"capabilities"`
	ServerInfo      Implementation  `json:"serverInfo"`
	Instructions    string          `json:"instructions,omitempty"`
}

// LogLevels are those of log messages, the least urgent first (RFC 5424).
var LogLevels = []string{"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"}

// ToolDefinition is one entry of a tools/list result, as it was received.
type ToolDefinition json.RawMessage

// MarshalJSON is the definition itself.
func (d ToolDefinition) MarshalJSON() ([]byte, error) { return json.RawMessage(d).MarshalJSON() }

// UnmarshalJSON keeps a copy of the definition.
func (d *ToolDefinition) UnmarshalJSON(raw []byte) error {
	*d = append((*d)[:0], raw...)
	return nil
}

// Name is the tool's name, or "" if the definition has none.
func (d ToolDefinition) Name() string { return Text(json.RawMessage(d), "name") }

// Renamed is the definition of a tool under another name; every other byte stays.
func Renamed(definition json.RawMessage, name string) (json.RawMessage, error) {
	if Text(definition, "name") == name {
		return definition, nil
	}
	return Replace(definition, appendString(nil, name), "name")
}

// Annotations are hints about what a tool does. A server may leave them out,
// which is nil, and it may lie.
type Annotations struct {
	ReadOnly    *bool `json:"readOnlyHint,omitempty"`
	Destructive *bool `json:"destructiveHint,omitempty"`
}

// Annotations are the hints of the definition. Hints that cannot be read count
// as absent, which is the most careful reading.
func (d ToolDefinition) Annotations() Annotations {
	var a Annotations
	if json.Unmarshal(Field(json.RawMessage(d), "annotations"), &a) != nil {
		return Annotations{}
	}
	return a
}

// ToolList is the result of tools/list.
type ToolList struct {
	Tools      []ToolDefinition `json:"tools"`
	NextCursor string           `json:"nextCursor,omitempty"`
}

// TextResult makes the result of a tool call: text, and structured content
// unless that is nil (R718).
func TextResult(structured json.RawMessage, text string, isError bool) json.RawMessage {
	b := make([]byte, 0, len(text)+len(structured)+96)
	b = append(b, `{"content":[{"type":"text","text":`...)
	b = append(appendString(b, text), "}]"...)
	if structured != nil {
		b = append(append(b, `,"structuredContent":`...), structured...)
	}
	if isError {
		b = append(b, `,"isError":true`...)
	}
	return append(b, '}')
}
