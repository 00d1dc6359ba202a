// Package mcp reads and writes MCP messages and keeps what it does not
// understand.
//
// Parameters and results stay the bytes that were received: a member nobody
// here has heard of, an extension, the order of keys, all of it arrives on the
// other side as it was sent. What is read is read strictly: a message with
// two meanings (a member given twice, a batch, an id that is null) is refused,
// so that two readers of the same bytes cannot disagree.
package mcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// Message is one JSON-RPC 2.0 message. Its raw parts are slices of the bytes
// it was parsed from: they live as long as those and must not be changed.
type Message struct {
	ID     json.RawMessage // a string or an integer; nil in a notification
	Method string
	Params json.RawMessage // an object, or nil
	Result json.RawMessage
	Error  *Error
}

// IsRequest reports whether the message wants an answer.
func (m Message) IsRequest() bool { return m.Method != "" && m.ID != nil }

// IsResponse reports whether the message is an answer.
func (m Message) IsResponse() bool { return m.Method == "" }

// Error is a JSON-RPC error object. It is what the other side said or is told,
// word for word.
type Error struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// Error gives the code and the message, not the data.
func (e *Error) Error() string { return fmt.Sprintf("JSON-RPC error %d: %s", e.Code, e.Message) }

// The codes of JSON-RPC 2.0 §5.1, two of MCP's revisions with a handshake, and two
// that 2026-07-28 adds.
const (
	ParseError         = -32700
	InvalidRequest     = -32600
	MethodNotFound     = -32601
	InvalidParams      = -32602
	InternalError      = -32603
	ResourceNotFound   = -32002
	AddressToOpen      = -32042 // URLElicitationRequiredError, of 2025-11-25 alone
	HeaderMismatch     = -32020
	UnsupportedVersion = -32022
)

// fault makes an error; it is what Parse refuses with.
func fault(code int, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Parse reads exactly one message. When it refuses, the message it returns
// still has the id if one can be made out, so the error can be addressed;
// otherwise the answer's id is null (JSON-RPC 2.0 §5).
func Parse(data []byte) (Message, *Error) {
	s := scan(data, false)
	defer s.free()
	switch kind := s.PeekKind(); kind {
	case '{':
	case '[':
		return Message{}, fault(InvalidRequest, "batches are not part of this protocol: send one message at a time") // R717
	case 0:
		return Message{}, fault(ParseError, "not JSON")
	default:
		return Message{}, fault(InvalidRequest, "a message is an object")
	}
	var e envelope
	if err := s.object(e.take); err != nil {
		return addressed(data), unreadable(err)
	}
	if _, err := s.ReadToken(); !errors.Is(err, io.EOF) {
		return addressed(data), fault(ParseError, "something follows the message")
	}
	if err := e.check(); err != nil {
		return addressed(data), err
	}
	return e.Message, nil
}

// addressed is a message with the id found in a message that is refused.
func addressed(data []byte) Message {
	if id := Field(data, "id"); validID(id) {
		return Message{ID: id}
	}
	return Message{}
}

// unreadable translates what the JSON reader found.
func unreadable(err error) *Error {
	var syntax *jsontext.SyntacticError
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return fault(InvalidRequest, "a member is given twice")
	}
	if errors.As(err, &syntax) {
		return fault(ParseError, "not JSON (at byte %d)", syntax.ByteOffset)
	}
	return fault(ParseError, "not JSON")
}

// envelope is a message while it is read: what was there, before it is known
// whether that makes sense.
type envelope struct {
	Message
	version, method, failure json.RawMessage
}

func (e *envelope) take(name, value []byte) {
	switch string(name) {
	case "jsonrpc":
		e.version = value
	case "id":
		e.ID = value
	case "method":
		e.method = value
	case "params":
		e.Params = value
	case "result":
		e.Result = value
	case "error":
		e.failure = value
	}
}

func (e *envelope) check() *Error {
	if string(e.version) != `"2.0"` && text(e.version) != "2.0" {
		return fault(InvalidRequest, `jsonrpc must be "2.0"`)
	}
	if e.method == nil {
		return e.checkResponse()
	}
	if e.Result != nil || e.failure != nil {
		return fault(InvalidRequest, "a message is a request or a response, not both")
	}
	if e.Method = text(e.method); e.Method == "" {
		return fault(InvalidRequest, "method must be a string")
	}
	if e.ID != nil && !validID(e.ID) {
		return fault(InvalidRequest, "id must be a string or an integer")
	}
	if string(e.Params) == "null" { // some clients spell "absent" so
		e.Params = nil
	}
	if e.Params != nil && e.Params[0] != '{' {
		return fault(InvalidParams, "params must be an object")
	}
	return nil
}

// checkResponse also accepts an error without an id: whoever could not read
// our message does not know it.
func (e *envelope) checkResponse() *Error {
	if string(e.ID) == "null" && e.failure != nil {
		e.ID = nil
	}
	if e.ID != nil && !validID(e.ID) {
		return fault(InvalidRequest, "id must be a string or an integer")
	}
	if (e.Result == nil) == (e.failure == nil) || (e.ID == nil && e.Result != nil) {
		return fault(InvalidRequest, "a message has a method, or an id with a result or an error")
	}
	if e.failure == nil {
		return nil
	}
	e.Error = new(Error)
	if e.failure[0] != '{' || json.Unmarshal(e.failure, e.Error) != nil {
		e.Error = nil
		return fault(InvalidRequest, "error must have a code and a message")
	}
	return nil
}

// validID accepts strings and integers (MCP base protocol, "Requests").
func validID(id []byte) bool {
	if len(id) == 0 {
		return false
	}
	if id[0] == '"' {
		return true
	}
	digits := id
	if id[0] == '-' {
		digits = id[1:]
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(digits) > 0
}

// Encode writes the message; raw parts go out as they are. A message without
// id and method is an error whose id could not be read: its id is null.
func (m Message) Encode() []byte {
	size := 64 + len(m.ID) + len(m.Method) + len(m.Params) + len(m.Result)
	return m.Append(make([]byte, 0, size))
}

// Append is Encode into a buffer that already exists.
func (m Message) Append(b []byte) []byte {
	b = append(b, `{"jsonrpc":"2.0"`...)
	switch {
	case m.ID != nil:
		b = append(append(b, `,"id":`...), m.ID...)
	case m.Method == "":
		b = append(b, `,"id":null`...)
	}
	if m.Method != "" {
		b = appendString(append(b, `,"method":`...), m.Method)
	}
	if m.Params != nil {
		b = append(append(b, `,"params":`...), m.Params...)
	}
	if m.Result != nil {
		b = append(append(b, `,"result":`...), m.Result...)
	}
	if m.Error != nil {
		b = m.Error.append(append(b, `,"error":`...))
	}
	return append(b, '}')
}

func (e *Error) append(b []byte) []byte {
	b = fmt.Appendf(b, `{"code":%d,"message":`, e.Code)
	b = appendString(b, e.Message)
	if e.Data != nil {
		b = append(append(b, `,"data":`...), e.Data...)
	}
	return append(b, '}')
}

// appendString quotes s; bytes that are not UTF-8 become the replacement
// character, so what is written is JSON whatever s is.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // its error only says that bytes were replaced
	return b
}
