package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Exit codes that no kind of problem has (design §9).
const (
	exitTool        = 5
	exitVerify      = 8
	exitInterrupted = 130
)

var usage = problem.Code{
	Name: "USAGE", Kind: problem.Invalid,
	About: "the command line cannot be understood; gatehouse COMMAND --help says what a command takes",
}

// exit ends the program with a code when everything has been said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// remote is a problem that a server told.
type remote struct{ problem.Wire }

func (r *remote) Error() string { return r.Code + ": " + r.Message }

// fail says what went wrong and returns the exit code.
func (c *cli) fail(err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exit](err); ok {
		return int(code)
	}
	wire, code := explain(err)
	if c.json() {
		line, _ := json.Marshal(map[string]problem.Wire{"error": wire}) // strings and numbers
		_, _ = fmt.Fprintf(c.err, "%s\n", escaped(line))
		return code
	}
	_, _ = fmt.Fprintf(c.err, "%s %s\n", c.paint(c.err, "error:"), harmless(wire.Message))
	for _, part := range [...]struct{ name, text string }{
		{"why", wire.Why}, {"fix", wire.Fix}, {"open", wire.Link},
		{"code", codeLine(wire)},
	} {
		if part.text != "" {
			_, _ = fmt.Fprintf(c.err, "  %-5s %s\n", part.name, harmless(part.text))
		}
	}
	return code
}

// codeLine is what to quote when asking for help, and the command that gives some.
func codeLine(wire problem.Wire) string {
	parts := strings.Fields(wire.Code + " " + wire.Ref)
	if _, known := codeNamed(wire.Code); known {
		parts = append(parts, "gatehouse help "+wire.Code)
	}
	return strings.Join(parts, " · ")
}

// explain is an error as the person is told it, with its exit code.
func explain(err error) (problem.Wire, int) {
	if r, ok := errors.AsType[*remote](err); ok {
		return r.Wire, kindOf(r.Status).Exit()
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return problem.Wire{
			Code: e.Code, Message: e.Message, Why: e.Why, Fix: e.Fix, Scope: e.Scope, Ref: e.Ref, Link: e.Link, Status: clientKind(e).Status(),
		}, clientExit(e)
	}
	p := problem.From(err)
	if p.Kind == problem.Internal && p.Cause != nil { // our own program on the person's own computer: no secret to keep
		p.Why = p.Cause.Error()
	}
	return p.Wire(""), p.Kind.Exit()
}

// clientKinds are the kinds of the client library as doors call them.
var clientKinds = map[error]problem.Kind{
	client.ErrAuthentication: problem.Unauthenticated,
	client.ErrPermission:     problem.Forbidden,
	client.ErrTool:           problem.NotFound,
	client.ErrUnreachable:    problem.Unavailable,
	client.ErrInvalid:        problem.Invalid,
}

func clientKind(e *client.Error) problem.Kind { return clientKinds[e.Kind] }

func clientExit(e *client.Error) int {
	if e.Kind == client.ErrTool {
		return exitTool
	}
	return clientKind(e).Exit()
}

// kindOf is the kind that a REST door answers with a status.
func kindOf(status int) problem.Kind {
	for k := problem.Internal; k <= problem.Unavailable; k++ {
		if k.Status() == status {
			return k
		}
	}
	if status >= 400 && status < http.StatusInternalServerError {
		return problem.Invalid
	}
	return problem.Internal
}

// flagError says what is wrong with a flag, and which one was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	e := usage.New("%s", err.Error()).WithFix("%s --help", cmd.CommandPath())
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return e
	}
	e.Detail = fmt.Sprintf("%s has no flag --%s", cmd.CommandPath(), name)
	if near := app.Nearest(name, flagNames(cmd)); near != "" {
		return e.WithWhy("did you mean --%s?", near)
	}
	return e
}

// flagNames are the flags a command takes. They are read from its help, since
// that is what the person would look at.
func flagNames(cmd *cobra.Command) []string {
	var names []string
	for word := range strings.FieldsSeq(cmd.LocalFlags().FlagUsages() + cmd.InheritedFlags().FlagUsages()) {
		if name, ok := strings.CutPrefix(word, "--"); ok {
			names = append(names, name)
		}
	}
	return names
}

// needs checks the number of arguments; what names them for the error.
func needs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		if len(args) < least {
			return usage.New("%s needs %s", cmd.CommandPath(), what).WithFix("%s --help", cmd.CommandPath())
		}
		return usage.New("%s takes no %q", cmd.CommandPath(), args[most]).WithFix("%s", cmp.Or(cmd.CommandPath()+" --help", what))
	}
}
