package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// An Outcome says how a decision ended. An event without one is refused, and
// what it was to record does not happen.
type Outcome string

// The outcomes; there are no others.
const (
	Allowed Outcome = "allowed" // decided yes, and done
	Denied  Outcome = "denied"  // decided no; nothing was done
	Held    Outcome = "held"    // not decided: waits for a person; nothing was done yet
	Pending Outcome = "pending" // decided yes, about to be done; another event with the same call follows
	Failed  Outcome = "failed"  // decided yes, but it did not succeed
	Unknown Outcome = "unknown" // was pending when its node fell silent: it may or may not have been done; if the node comes back, the outcome follows
)

var outcomes = map[Outcome]bool{Allowed: true, Denied: true, Held: true, Pending: true, Failed: true, Unknown: true}

// System is the chain of what belongs to no workspace.
const System = "system"

// genesis is the hash before the first event of a chain.
var genesis = strings.Repeat("0", 64)

// Event is one line of the log. Its JSON, in canonical form (RFC 8785) and
// without the fields that are empty, is the format of exports; the same without
// hash is what is hashed (R1111). A room fills in what it knows; ID, Time, Seq,
// Prev and Hash are set by the log.
type Event struct {
	Action    string            `json:"action" jsonschema:"what was decided, dotted: tool.call, token.issue"`
	Actor     string            `json:"actor,omitempty" jsonschema:"who acted: kind and id"`
	Call      string            `json:"call,omitempty" jsonschema:"id that the events of one call share"`
	Client    string            `json:"client,omitempty" jsonschema:"the app that acted on the actor's behalf"`
	Code      string            `json:"code,omitempty" jsonschema:"error code if it was not allowed"`
	Detail    map[string]string `json:"detail,omitempty" jsonschema:"what else is known"`
	Door      string            `json:"door,omitempty" jsonschema:"where it came in"`
	Duration  int64             `json:"duration_us,omitempty" jsonschema:"microseconds"`
	Hash      string            `json:"hash" jsonschema:"SHA-256 of this event without this field, hexadecimal"`
	ID        string            `json:"id" jsonschema:"aud_ and a ULID"`
	Outcome   Outcome           `json:"outcome" jsonschema:"allowed, denied, held, pending, failed or unknown"`
	Payload   string            `json:"payload_hash,omitempty" jsonschema:"SHA-256 of the arguments, hexadecimal"`
	Prev      string            `json:"prev_hash" jsonschema:"hash of the event before, 64 zeros in the first"`
	Ref       string            `json:"ref,omitempty" jsonschema:"reference of the flow, req_"`
	Seq       int64             `json:"seq" jsonschema:"place in the chain, from 1, without gaps"`
	Target    string            `json:"target,omitempty" jsonschema:"what it was done to: a tool, a client, a server"`
	Time      int64             `json:"time_us" jsonschema:"microseconds since 1970, UTC"`
	Token     string            `json:"token,omitempty" jsonschema:"id of the token that was used"`
	Workspace string            `json:"workspace" jsonschema:"the chain"`
}

// Digest is the SHA-256 of arguments as Event.Payload keeps it.
func Digest(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

// row is an event as it is stored: with its detail as canonical JSON, empty if
// there is none.
type row struct {
	Event
	detail string
}

// A field is one member of the JSON and one column of the table, under the same
// name. Exactly one of text and number is set.
type field struct {
	name   string
	text   func(*row) *string
	number func(*row) *int64
}

// fields are in the order of RFC 8785.
var fields = [...]field{
	{name: "action", text: func(r *row) *string { return &r.Action }},
	{name: "actor", text: func(r *row) *string { return &r.Actor }},
	{name: "call", text: func(r *row) *string { return &r.Call }},
	{name: "client", text: func(r *row) *string { return &r.Client }},
	{name: "code", text: func(r *row) *string { return &r.Code }},
	{name: "detail", text: func(r *row) *string { return &r.detail }},
	{name: "door", text: func(r *row) *string { return &r.Door }},
	{name: "duration_us", number: func(r *row) *int64 { return &r.Duration }},
	{name: "hash", text: func(r *row) *string { return &r.Hash }},
	{name: "id", text: func(r *row) *string { return &r.ID }},
	{name: "outcome", text: func(r *row) *string { return (*string)(&r.Outcome) }},
	{name: "payload_hash", text: func(r *row) *string { return &r.Payload }},
	{name: "prev_hash", text: func(r *row) *string { return &r.Prev }},
	{name: "ref", text: func(r *row) *string { return &r.Ref }},
	{name: "seq", number: func(r *row) *int64 { return &r.Seq }},
	{name: "target", text: func(r *row) *string { return &r.Target }},
	{name: "time_us", number: func(r *row) *int64 { return &r.Time }},
	{name: "token", text: func(r *row) *string { return &r.Token }},
	{name: "workspace", text: func(r *row) *string { return &r.Workspace }},
}

// columns are the fields as SQL names them.
var columns = func() string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}()

// appendJSON appends the row in canonical form. It fails on text that is not
// UTF-8, which only a row changed behind our back has.
func (r *row) appendJSON(b []byte, withHash bool) (_ []byte, err error) {
	b = append(b, '{')
	for i := range fields {
		f := &fields[i]
		if f.empty(r) || (f.name == "hash" && !withHash) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), f.name...), `":`...)
		switch {
		case f.number != nil:
			b = strconv.AppendInt(b, *f.number(r), 10)
		case f.name == "detail":
			b = append(b, r.detail...)
		default:
			if b, err = jsontext.AppendQuote(b, *f.text(r)); err != nil {
				return nil, err
			}
		}
	}
	return append(b, '}'), nil
}

func (f *field) empty(r *row) bool {
	if f.number != nil {
		return *f.number(r) == 0
	}
	return *f.text(r) == ""
}

// digest is the hash that the row ought to have. It needs a buffer that it may
// overwrite, and returns it, grown.
func (r *row) digest(buf []byte) (string, []byte, error) {
	b, err := r.appendJSON(buf[:0], false)
	if err != nil {
		return "", buf, err
	}
	return Digest(b), b, nil
}

// maxText bounds the fields whose text comes from strangers, in bytes; the hash
// of the payload stands for what is cut.
const maxText = 512

// newRow makes an event ready to be hashed: with an id and a time, and with
// text that both engines can keep.
func newRow(e Event, now int64) *row {
	r := &row{Event: e}
	r.ID, r.Seq, r.Prev, r.Hash = store.ID("aud_"), 0, "", ""
	if r.Workspace == "" {
		r.Workspace = System
	}
	if r.Time == 0 {
		r.Time = now
	}
	r.detail = cleanDetail(e.Detail)
	for i := range fields {
		if f := &fields[i]; f.text != nil && f.name != "detail" {
			text := f.text(r)
			*text = clean(*text)
		}
	}
	return r
}

// fault says why the event cannot be recorded: a mistake of the room that made
// it.
func (r *row) fault() error {
	switch {
	case !outcomes[r.Outcome]:
		return fmt.Errorf("audit: %q is no outcome of %q", r.Outcome, r.Action)
	case r.Action == "":
		return fmt.Errorf("audit: an event %q does not say what was done", r.Outcome)
	case r.Outcome == Pending && r.Call == "":
		return fmt.Errorf("audit: a pending event of %q has no call by which its outcome could be found", r.Action)
	case r.Outcome == Pending && r.Detail[carrier] == "":
		return fmt.Errorf("audit: a pending event of %q was appended; Write says who carries the call", r.Action)
	case max(r.Time, r.Duration) >= 1<<53 || min(r.Time, r.Duration) < 0:
		return fmt.Errorf("audit: a time of %q is out of range", r.Action)
	}
	return nil
}

// clean makes text valid and short. PostgreSQL keeps no NUL.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// cleanDetail is the detail in canonical form, empty for none.
func cleanDetail(detail map[string]string) string {
	if len(detail) == 0 {
		return ""
	}
	cleaned := make(map[string]string, len(detail))
	for name, value := range detail {
		cleaned[clean(name)] = clean(value)
	}
	text, _ := encodeDetail(cleaned) // what is clean can be encoded
	return text
}

func encodeDetail(detail map[string]string) (_ string, err error) {
	if len(detail) == 0 {
		return "", nil
	}
	b := jsontext.Value{'{'}
	for _, name := range slices.Sorted(maps.Keys(detail)) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		if b, err = jsontext.AppendQuote(b, name); err != nil {
			return "", err
		}
		if b, err = jsontext.AppendQuote(append(b, ':'), detail[name]); err != nil {
			return "", err
		}
	}
	b = append(b, '}')
	err = b.Canonicalize() // sorts by UTF-16, which differs for rare names
	return string(b), err
}

// readDetail fills Detail from the stored text and reports whether it is what
// would have been stored: anything else could pass for another field.
func (r *row) readDetail() bool {
	r.Detail = nil
	if r.detail == "" {
		return true
	}
	if err := json.Unmarshal([]byte(r.detail), &r.Detail); err != nil {
		return false
	}
	text, err := encodeDetail(r.Detail)
	return err == nil && text == r.detail
}
