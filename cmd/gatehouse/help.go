package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// codes are all problems that this program can name: its own, those of the
// client library and those of the server.
func codes() []problem.Code {
	all := append(app.Codes[:len(app.Codes):len(app.Codes)],
		usage, noSuchTool, fileUnusable, fileNotWritten, demoFailed, needsPerson, notRunning, answerUnreadable, notReady, nobodyToExamine, signInDeclined)
	for _, e := range client.Codes() {
		var code problem.Code
		code.Name, code.Kind, code.About, code.Why, code.Fix = e.Code, clientKind(&e), e.Message, e.Why, e.Fix
		all = append(all, code)
	}
	return all
}

// codeNamed finds a code however it is spelt: in capitals or not, with dashes or
// underscores.
func codeNamed(name string) (code problem.Code, known bool) {
	name = problem.Spelt(name)
	for _, code = range codes() {
		if code.Name == name {
			return code, true
		}
	}
	return code, false
}

func (c *cli) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND | CODE]",
		Short: "Say what a command does, or what an error code means",
		Long: `Say what a command does, or what an error code means. It needs neither a
server nor a network.`,
		Example: "  gatehouse help serve\n  gatehouse help UPSTREAM_UNREACHABLE\n  gatehouse help codes                 all error codes",
		RunE: func(cmd *cobra.Command, args []string) error {
			if found, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				return found.Help()
			}
			if len(args) == 1 && args[0] == "codes" {
				return c.listCodes()
			}
			if found, ok := codeNamed(args[0]); ok && len(args) == 1 {
				return c.sayCode(found)
			}
			return noHelp(cmd.Root(), strings.Join(args, " "))
		},
	}
}

// noHelp says that there is neither such a command nor such a code, and which one
// was probably meant.
func noHelp(root *cobra.Command, asked string) error {
	e := usage.New("there is no help about %q", cut(oneLine(asked), 40)).WithFix("gatehouse --help, or gatehouse help codes")
	var commands, known []string
	for _, cmd := range root.Commands() {
		commands = append(commands, cmd.Name())
	}
	for _, code := range codes() {
		known = append(known, code.Name)
	}
	if near := cmp.Or(app.Nearest(asked, commands), app.Nearest(problem.Spelt(asked), known)); near != "" {
		return e.WithWhy("did you mean %q?", near)
	}
	return e.WithWhy("it is neither a command nor an error code")
}

// codeHelp is a code as gatehouse help -o json prints it.
type codeHelp struct {
	Code   string `json:"code"`
	Kind   string `json:"kind"`
	Means  string `json:"means"`
	About  string `json:"about,omitempty"`
	Why    string `json:"why,omitempty"`
	Fix    string `json:"fix,omitempty"`
	Status int    `json:"status"`
	OAuth  string `json:"oauth_error,omitempty"`
	Exit   int    `json:"exit"`
}

func explainCode(code problem.Code) codeHelp {
	k := code.Kind
	return codeHelp{code.Name, k.String(), k.Means(), code.About, code.Why, code.Fix, k.Status(), k.OAuth(), k.Exit()}
}

func (c *cli) sayCode(code problem.Code) error {
	x := explainCode(code)
	if c.json() {
		return c.print(x)
	}
	c.say("%s", x.Code)
	for _, part := range [...]struct{ name, text string }{
		{"what", x.About}, {"why", x.Why}, {"fix", x.Fix}, {"kind", x.Kind + ": " + x.Means}, {"seen", code.Kind.Seen()},
	} {
		if part.text != "" {
			c.say("  %-5s %s", part.name, part.text)
		}
	}
	return nil
}

func (c *cli) listCodes() error {
	all := codes()
	slices.SortFunc(all, func(a, b problem.Code) int { return strings.Compare(a.Name, b.Name) })
	rows := [][]string{{"CODE", "KIND", "WHAT IT IS"}}
	for _, code := range all {
		if c.json() {
			if err := c.print(explainCode(code)); err != nil {
				return err
			}
		}
		rows = append(rows, []string{code.Name, code.Kind.String(), code.Summary()})
	}
	if !c.json() {
		c.table("", rows)
	}
	return nil
}
