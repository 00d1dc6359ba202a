package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var noSuchTool = problem.Code{
	Name: "NO_SUCH_TOOL", Kind: problem.NotFound,
	Why: "the server shows no tool of that name to you",
	Fix: "gatehouse tools",
}

func (c *cli) toolsCommand() *cobra.Command {
	return c.asClient(&cobra.Command{
		Use:   "tools [NAME] [TOOL]",
		Short: "List the tools you may call, or show one",
		Long: `List the tools you may call. NAME is that of a server behind the gateway, or
of a tool.`,
		Example: `  gatehouse tools
  gatehouse tools tickets
  gatehouse tools tickets close_ticket
  gatehouse tools --server https://mcp.vendor.example/mcp -o json`,
		Args: needs(0, 2, "a server and a tool"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, tools, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close(cmd.Context())
			if len(args) > 0 {
				if t, ok := find(tools, strings.Join(args, "_")); ok {
					return c.showTool(t, args)
				}
				tools = of(tools, args[0])
			}
			if len(args) == 2 || len(args) == 1 && len(tools) == 0 {
				return unknownTool(strings.Join(args, " "), tools)
			}
			return c.listTools(tools, args)
		},
	})
}

// connect opens a session with the server that is meant and reads its tools.
func (c *cli) connect(ctx context.Context) (*client.Session, []client.Tool, error) {
	cl := c.client()
	server, err := c.target(cl)
	if err != nil {
		return nil, nil, err
	}
	s, err := cl.Connect(ctx, server)
	if err != nil {
		return nil, nil, err
	}
	tools, err := s.Tools(ctx)
	if err != nil {
		s.Close(ctx)
		return nil, nil, err
	}
	return s, tools, nil
}

func find(tools []client.Tool, name string) (client.Tool, bool) {
	i := slices.IndexFunc(tools, func(t client.Tool) bool { return t.Name == name })
	if i < 0 {
		return client.Tool{}, false
	}
	return tools[i], true
}

// of are the tools of one server behind the gateway.
func of(tools []client.Tool, server string) []client.Tool {
	return slices.DeleteFunc(slices.Clone(tools), func(t client.Tool) bool { return !strings.HasPrefix(t.Name, server+"_") })
}

func unknownTool(name string, tools []client.Tool) error {
	var names []string
	for _, t := range tools {
		names = append(names, t.Name)
	}
	e := noSuchTool.New("there is no tool %q", name)
	if near := app.Nearest(strings.ReplaceAll(name, " ", "_"), names); near != "" {
		return e.WithWhy("did you mean %q?", near)
	}
	return e
}

// risk is what the hints of a tool amount to; without hints it is the worst.
func risk(t client.Tool) string {
	switch h := t.Hints; {
	case h.ReadOnly != nil && *h.ReadOnly:
		return risks[0]
	case h.Destructive != nil && !*h.Destructive:
		return risks[1]
	}
	return risks[2]
}

func (c *cli) listTools(tools []client.Tool, args []string) error {
	if c.json() {
		return c.print(struct {
			Tools []client.Tool `json:"tools"`
		}{append([]client.Tool{}, tools...)})
	}
	if len(tools) == 0 {
		c.talk("The server shows you no tools.")
		return nil
	}
	rows := [][]string{{"TOOL", "RISK", "WHAT IT DOES"}}
	for _, t := range tools {
		name := t.Name
		if len(args) > 0 {
			name = strings.TrimPrefix(name, args[0]+"_")
		}
		first, _, _ := strings.Cut(t.Description, "\n")
		rows = append(rows, []string{name, risk(t), cut(oneLine(first), 70)})
	}
	c.table("", rows)
	return nil
}

// schema is the part of an input schema that the command line understands.
type schema struct {
	Properties map[string]property `json:"properties"`
	Required   []string            `json:"required"`
	Additional json.RawMessage     `json:"additionalProperties"`
}

type property struct {
	Type        json.RawMessage `json:"type"` // a name or a list of names
	Description string          `json:"description"`
	Default     json.RawMessage `json:"default"`
	Enum        []string        `json:"enum"`
}

// offers reports whether a value is one of those to choose from, if there are any.
func (p property) offers(value string) bool {
	return len(p.Enum) == 0 || slices.Contains(p.Enum, value)
}

// types are the types a property may have.
func (p property) types() []string {
	var one string
	if json.Unmarshal(p.Type, &one) == nil {
		return []string{one}
	}
	var many []string
	_ = json.Unmarshal(p.Type, &many) // neither: any type
	return many
}

func (p property) typeName() string {
	if names := p.types(); len(names) > 0 {
		return strings.Join(names, "|")
	}
	return "any"
}

func inputs(t client.Tool) schema {
	var s schema
	_ = json.Unmarshal(t.InputSchema, &s) // what cannot be read is left to the server
	return s
}

func (s schema) requires(name string) bool { return slices.Contains(s.Required, name) }

// order is the properties, those that are required first.
func (s schema) order() []string {
	names := slices.DeleteFunc(slices.Clone(s.Required), func(name string) bool { _, ok := s.Properties[name]; return !ok })
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (c *cli) showTool(t client.Tool, args []string) error {
	if c.json() {
		return c.print(t)
	}
	s := inputs(t)
	var params, example []string
	for _, name := range s.order() {
		p := s.Properties[name]
		mark, preset := "?", ""
		if s.requires(name) {
			mark = ""
			example = append(example, name+"=…")
		}
		if p.Default != nil {
			preset = " = " + string(p.Default)
		}
		params = append(params, oneLine(name+mark+": "+p.typeName()+preset))
	}
	c.say("%s(%s)", oneLine(t.Name), strings.Join(params, ", "))
	c.say("  %s", strings.TrimSpace(oneLine(t.Description)+" ("+risk(t)+")"))
	for _, name := range s.order() {
		if d := s.Properties[name].Description; d != "" {
			c.say("  %-12s %s", oneLine(name), oneLine(d))
		}
	}
	c.say("  example  %s", strings.Join(append([]string{"gatehouse call", strings.Join(args, " ")}, example...), " "))
	return nil
}

// arguments makes the JSON object of a call out of key=value and key:=json.
func (s schema) arguments(pairs []string) (json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	for _, pair := range pairs {
		key, text, _ := strings.Cut(pair, "=")
		key, raw := strings.CutSuffix(key, ":")
		p, known := s.Properties[key]
		if !known && s.closed() {
			return nil, s.unknown(key)
		}
		value, ok := p.parse(text, raw)
		if !ok {
			return nil, usage.New("%s=%s is not of type %s", key, cut(text, 40), oneLine(p.typeName())).WithFix("give a value of that type")
		}
		values[key] = value
	}
	for _, name := range s.Required {
		if _, given := values[name]; !given {
			return nil, usage.New("the argument %s is missing", oneLine(name)).WithWhy("it is required, of type %s", oneLine(s.Properties[name].typeName())).WithFix("add %s=…", oneLine(name))
		}
	}
	return json.Marshal(values)
}

// closed reports whether arguments that are not listed are taken for mistakes.
func (s schema) closed() bool {
	return len(s.Properties) > 0 && (s.Additional == nil || string(s.Additional) == "false")
}

func (s schema) unknown(key string) error {
	e := usage.New("there is no argument %q", key).WithFix("use one of: %s", oneLine(strings.Join(s.order(), ", ")))
	if near := app.Nearest(key, s.order()); near != "" {
		return e.WithWhy("did you mean %q?", near)
	}
	return e
}

// parse reads a value: as JSON where raw, else by the type of the property, and
// a string stays a string.
func (p property) parse(text string, raw bool) (json.RawMessage, bool) {
	names := p.types()
	asJSON := json.Valid([]byte(text)) && (raw || slices.ContainsFunc(names, func(name string) bool { return fits[name] != nil && fits[name](text) }))
	if asJSON {
		return json.RawMessage(text), true
	}
	if raw || len(names) > 0 && !slices.Contains(names, "string") {
		return nil, false
	}
	quoted, err := json.Marshal(text)
	return quoted, err == nil
}

// fits says, by type, whether valid JSON is of it.
var fits = map[string]func(string) bool{
	"integer": func(s string) bool { return isNumber(s) && !strings.ContainsAny(s, ".eE") },
	"number":  isNumber,
	"boolean": func(s string) bool { return s == "true" || s == "false" },
	"null":    func(s string) bool { return s == "null" },
	"array":   func(s string) bool { return strings.HasPrefix(s, "[") },
	"object":  func(s string) bool { return strings.HasPrefix(s, "{") },
}

func isNumber(s string) bool { return s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') }

// bar is a progress bar of 15 characters.
func bar(p client.Progress) string {
	if p.Total <= 0 {
		return fmt.Sprintf("%g  %s", p.Done, p.Message)
	}
	share := min(max(p.Done/p.Total, 0), 1)
	full := int(share * 15)
	return fmt.Sprintf("▕%s%s▏ %d%%  %s", strings.Repeat("█", full), strings.Repeat("░", 15-full), int(share*100), p.Message)
}
