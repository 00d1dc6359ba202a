// Package tool declares what a tool is, which scopes exist, and keeps the one
// registry.
//
// A tool is declared once, and every door shows and calls that one declaration
// (R701). What it demands of its caller is part of the declaration; a tool that
// does not say who may call it belongs to the owner. A function that gets a
// *store.Tx runs inside one transaction with its audit event and cannot be
// mistaken for one that calls the world.
package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// An Effect is what a call may do to the world. The zero value is the worst.
type Effect int

// The effects: a tool that says nothing destroys.
const (
	Destroys Effect = iota
	Writes
	Reads
)

var effectNames = [...]string{"destroys", "writes", "reads"}

func (e Effect) String() string { return effectNames[e] }

// Risk is the effect in the words shown to people.
func (e Effect) Risk() string { return [...]string{"hard to undo", "change", "read"}[e] }

// Control is the origin of the control plane's own tools. Base tools have no
// origin; every other origin is the name of a server behind us.
const Control = "gatehouse"

// AnyScope is the Scope of a tool for which any token of its audience is enough.
const AnyScope = "any"

// Def is what a tool promises and demands.
type Def struct {
	Name   string         // verb_noun, unique at its origin
	Title  string         // for people; empty means Name
	Doc    string         // one sentence
	Effect Effect         // what a call may do; the zero value destroys
	Caller principal.Rank // the lowest that may use it; unset belongs to the owner
	Scope  string         // that a token must carry; AnyScope if none in particular. Needed unless Anyone may call it
	Direct bool           // only a person acting directly: no app on their behalf
}

// MayCall is the lowest rank that may call the tool: unset belongs to the owner.
func (d Def) MayCall() principal.Rank {
	if d.Caller == principal.Unset {
		return principal.Owner
	}
	return d.Caller
}

// ScopeMet reports whether the principal's scopes cover what the tool asks for.
func (d Def) ScopeMet(p principal.Principal) bool {
	return d.Caller == principal.Anyone || d.Scope == AnyScope || p.Has(d.Scope)
}

// A Peer is how a running call reaches its caller. It is nil where the door
// cannot.
type Peer interface {
	// Notify passes a notification on, in the order of the calls. It never
	// fails: a caller that is gone hears nothing.
	Notify(method string, params json.RawMessage)
	// Ask puts a request of the server to the caller and waits for its answer, or
	// until ctx ends. The error is what the server is told: the caller's own word,
	// or that it cannot be asked this.
	Ask(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error)
}

// Request is a call as a tool that reaches outside gets it.
type Request struct {
	Principal principal.Principal
	Method    string          // of MCP
	Params    json.RawMessage // as received, unknown members included; nil from doors that have none
	Args      json.RawMessage // the arguments of a tool, a JSON object
	Session   Session
	Peer      Peer
}

// Tool is a declared tool, ready to be called by the gate. Exactly one of Inside
// and Outside is set.
type Tool struct {
	Def
	Origin     string
	Workspace  string          // whose tool it is; empty is everybody's
	Definition json.RawMessage // the entry of tools/list, under the name at its origin
	Forwarded  bool            // answers are MCP tool results of a server behind us, not plain output

	Inside  func(tx *store.Tx, p principal.Principal, args json.RawMessage) (json.RawMessage, error)
	Outside func(ctx context.Context, r Request) (json.RawMessage, error)

	input *jsonschema.Resolved
}

// ForeignTo reports whether the tool belongs to another workspace than the
// principal's (R520).
func (t Tool) ForeignTo(p principal.Principal) bool {
	return t.Workspace != "" && t.Workspace != p.Workspace
}

// FullName is the name in the registry: with the server's prefix for tools of
// servers behind us.
func (t Tool) FullName() string {
	if t.Origin == "" || t.Origin == Control {
		return t.Name
	}
	return t.Origin + "_" + t.Name
}

// Codes are the problems of this package.
var Codes = []problem.Code{argumentsInvalid, nameTaken}

var argumentsInvalid = problem.Code{
	Name: "ARGUMENTS_INVALID", Kind: problem.Invalid,
	Fix:   "look at the tool's input schema and send arguments that fit it",
	About: "the arguments of a call do not fit what the tool says it takes",
}

// Fits reports whether the arguments fit the tool's schema. Tools of servers
// behind us are judged by those servers.
func (t Tool) Fits(args json.RawMessage) error {
	if t.input == nil {
		return nil
	}
	var v any
	if err := json.Unmarshal(args, &v); err != nil {
		return argumentsInvalid.New("the arguments of %s are not JSON", t.Name).WithWhy("%v", err)
	}
	if err := t.input.Validate(v); err != nil {
		return argumentsInvalid.New("the arguments of %s do not fit", t.Name).WithWhy("%v", err)
	}
	if hasNUL(v) {
		return argumentsInvalid.New("the arguments of %s do not fit", t.Name).WithWhy("a text has the character U+0000 in it, which no database keeps")
	}
	return nil
}

// hasNUL reports whether a text in it, names of members included, has a U+0000.
func hasNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, "\x00")
	case []any:
		return slices.ContainsFunc(v, hasNUL)
	case map[string]any:
		for name, value := range v {
			if hasNUL(name) || hasNUL(value) {
				return true
			}
		}
	}
	return false
}

// Define declares a tool that only touches the store. It runs in one transaction
// with its audit event. A declaration that is incomplete panics at start.
func Define[In, Out any](d Def, run func(*store.Tx, principal.Principal, In) (Out, error)) Tool {
	t := declare[In, Out](d)
	t.Inside = func(tx *store.Tx, p principal.Principal, args json.RawMessage) (json.RawMessage, error) {
		var in In
		if err := json.Unmarshal(args, &in); err != nil {
			return nil, argumentsInvalid.New("the arguments of %s cannot be read", d.Name).WithWhy("%v", err)
		}
		out, err := run(tx, p, in)
		return encode(out, err)
	}
	return t
}

// Reach declares a tool that reaches outside the store.
func Reach[In, Out any](d Def, run func(context.Context, principal.Principal, In) (Out, error)) Tool {
	t := declare[In, Out](d)
	t.Outside = func(ctx context.Context, r Request) (json.RawMessage, error) {
		var in In
		if err := json.Unmarshal(r.Args, &in); err != nil {
			return nil, argumentsInvalid.New("the arguments of %s cannot be read", d.Name).WithWhy("%v", err)
		}
		out, err := run(ctx, r.Principal, in)
		return encode(out, err)
	}
	return t
}

// Forward declares a tool of the server behind us called origin. definition is
// its entry of tools/list as pinned; run answers with an MCP tool result.
func Forward(d Def, origin string, definition json.RawMessage, run func(context.Context, Request) (json.RawMessage, error)) Tool {
	return Tool{Def: d, Origin: origin, Definition: definition, Forwarded: true, Outside: run}
}

func encode(out any, err error) (json.RawMessage, error) {
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err = e.Encode(out)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

var toolName = regexp.MustCompile(`^[a-z]+(_[a-z0-9]+)*$`)

// declare checks a declaration and derives its schemas from the Go types.
func declare[In, Out any](d Def) Tool {
	if !toolName.MatchString(d.Name) || d.Doc == "" || (d.Scope == "" && d.Caller != principal.Anyone) {
		panic(fmt.Sprintf("tool %q: a name, a sentence of documentation and a scope are needed", d.Name))
	}
	in, input := schema[In](d.Name)
	out, _ := schema[Out](d.Name)
	definition, err := encode(struct {
		Name        string             `json:"name"`
		Title       string             `json:"title,omitempty"`
		Description string             `json:"description"`
		Input       *jsonschema.Schema `json:"inputSchema"`
		Output      *jsonschema.Schema `json:"outputSchema"`
		Annotations map[string]bool    `json:"annotations"`
	}{d.Name, d.Title, d.Doc, in, out, map[string]bool{
		"readOnlyHint": d.Effect == Reads, "destructiveHint": d.Effect == Destroys, "openWorldHint": false,
	}}, nil)
	if err != nil {
		panic(fmt.Sprintf("tool %q: %v", d.Name, err))
	}
	return Tool{Def: d, Definition: definition, input: input}
}

func schema[T any](name string) (*jsonschema.Schema, *jsonschema.Resolved) {
	s, err := jsonschema.For[T](nil)
	if err != nil {
		panic(fmt.Sprintf("tool %q: %v", name, err))
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		panic(fmt.Sprintf("tool %q: %v", name, err))
	}
	return s, resolved
}
