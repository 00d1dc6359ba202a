package tool

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

type greetIn struct {
	Name  string `json:"name" jsonschema:"who is greeted"`
	Times int    `json:"times,omitempty"`
}

type greetOut struct {
	Text string `json:"text"`
}

func greet(d Def) Tool {
	return Define(d, func(_ *store.Tx, _ principal.Principal, in greetIn) (greetOut, error) {
		return greetOut{"hello <" + in.Name + ">"}, nil
	})
}

var greetDef = Def{Name: "greet_person", Doc: "Greet a person.", Effect: Reads, Caller: principal.Readonly, Scope: "greetings:read"}

func TestSchemasComeFromTheTypes(t *testing.T) {
	g := greet(greetDef)
	var d struct {
		Name        string
		InputSchema struct {
			Required   []string
			Properties map[string]struct{ Description string }
		}
		Annotations map[string]bool
	}
	if err := json.Unmarshal(g.Definition, &d); err != nil {
		t.Fatal(err)
	}
	if d.Name != "greet_person" || !slices.Equal(d.InputSchema.Required, []string{"name"}) ||
		d.InputSchema.Properties["name"].Description != "who is greeted" || !d.Annotations["readOnlyHint"] || d.Annotations["destructiveHint"] {
		t.Errorf("%s", g.Definition)
	}
	out, err := g.Inside(nil, principal.Principal{}, json.RawMessage(`{"name":"Ada"}`))
	if err != nil || string(out) != `{"text":"hello <Ada>"}` {
		t.Errorf("%s, %v", out, err)
	}
}

func TestArgumentsThatDoNotFitAreRefused(t *testing.T) {
	g := greet(greetDef)
	for _, args := range []string{``, `[]`, `"x"`, `null`, `{}`, `{"name":1}`, `{"name":"a","more":true}`, `{"name":"a","times":"x"}`, `{"name":"a"`, `{"name":"a\u0000b"}`} {
		err := g.Fits(json.RawMessage(args))
		if !problem.Is(err, argumentsInvalid) || problem.From(err).Why == "" {
			t.Errorf("%s: %v", args, err)
		}
	}
	for _, args := range []string{`{"name":"a","times":2}`, `{"name":"a\\u0000"}`} { // the latter is a backslash and a word
		if err := g.Fits(json.RawMessage(args)); err != nil {
			t.Error(err)
		}
	}
}

func TestIncompleteDeclarationPanics(t *testing.T) {
	for name, d := range map[string]Def{
		"no name":     {Doc: "x", Scope: "a:read"},
		"no doc":      {Name: "x", Scope: "a:read"},
		"no scope":    {Name: "x", Doc: "x", Caller: principal.Readonly},
		"camel case":  {Name: "doIt", Doc: "x", Scope: "a:read"},
		"zero caller": {Name: "x", Doc: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			greet(d)
		})
	}
}

// R705: a tool that says nothing is the owner's, and destroys.
func TestUnsetMeansTheStrictest(t *testing.T) {
	if d := (Def{}); d.MayCall() != principal.Owner || d.Effect != Destroys {
		t.Error("the zero declaration is open")
	}
}

func forward(origin, name string) Tool {
	return Forward(Def{Name: name, Effect: Reads, Caller: principal.Readonly, Scope: origin + ":read"}, origin, nil,
		func(context.Context, Request) (json.RawMessage, error) { return nil, nil })
}

func TestRegistryReplacesAnOffer(t *testing.T) {
	var r Registry
	if err := r.Publish("", []Tool{greet(greetDef)}); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish("billing", []Tool{forward("billing", "list"), forward("billing", "get")}); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish("billing", []Tool{forward("billing", "list")}); err != nil {
		t.Fatal(err)
	}
	if got := names(r.All()); got != "billing_list greet_person" {
		t.Errorf("got %s", got)
	}
	r.Withdraw("billing")
	if got := names(r.All()); got != "greet_person" || r.HasOrigin("billing") {
		t.Errorf("got %s", got)
	}
}

func TestNamesOfAnotherOriginAreNotShadowed(t *testing.T) {
	var r Registry
	if err := r.Publish("", []Tool{greet(greetDef)}); err != nil {
		t.Fatal(err)
	}
	err := r.Publish("greet", []Tool{forward("greet", "other"), forward("greet", "person")})
	if !problem.Is(err, nameTaken) || names(r.All()) != "greet_person" || r.HasOrigin("greet") {
		t.Errorf("%v, %s", err, names(r.All()))
	}
}

func TestScopesFollowTheOffer(t *testing.T) {
	var r Registry
	_ = r.Publish("", []Tool{greet(greetDef)})
	_ = r.Publish("billing", nil)
	want := "billing:admin billing:read billing:write greetings:read mcp:admin mcp:read mcp:tools"
	if got := strings.Join(r.Scopes(), " "); got != want {
		t.Errorf("got %s", got)
	}
}

func names(tools []Tool) string {
	var s []string
	for _, t := range tools {
		s = append(s, t.FullName())
	}
	return strings.Join(s, " ")
}
