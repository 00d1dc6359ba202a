package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
)

func (c *cli) callCommand() *cobra.Command {
	var given string
	cmd := c.asClient(&cobra.Command{
		Use:   "call [NAME] TOOL [KEY=VALUE…]",
		Short: "Call a tool",
		Long: `Call a tool. NAME is that of a server behind the gateway. A value is read by
its type in the tool's schema; KEY:=VALUE is JSON as it stands. With --args the
arguments are one JSON object: as text, @FILE, or - for stdin.

What the tool answers goes to stdout, also when it answers that it failed; then
the exit code is 5.`,
		Example: `  gatehouse call echo message=hello
  gatehouse call tickets close_ticket id=8841
  gatehouse call tickets search --args '{"filter":{"year":2026}}'`,
		Args: needs(1, -1, "the name of a tool"),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, pairs := splitCall(args)
			if len(names) == 0 || len(names) > 2 {
				return usage.New("can't tell which tool is meant").WithWhy("it takes a tool, or a server and a tool, and then KEY=VALUE").WithFix("gatehouse call --help")
			}
			if given != "" && len(pairs) > 0 {
				return usage.New("the arguments are given twice").WithFix("give either --args or KEY=VALUE")
			}
			return c.call(cmd, strings.Join(names, "_"), pairs, given)
		},
	})
	cmd.Flags().StringVar(&given, "args", "", "the arguments as one JSON object, @FILE, or - for stdin")
	return cmd
}

// splitCall splits at the first argument with an equals sign.
func splitCall(args []string) (names, pairs []string) {
	for i, a := range args {
		if strings.Contains(a, "=") {
			return args[:i], args[i:]
		}
	}
	return args, nil
}

func (c *cli) call(cmd *cobra.Command, name string, pairs []string, given string) error {
	ctx := cmd.Context()
	args, err := c.readArgs(given)
	if err != nil {
		return err
	}
	s, tools, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close(ctx)
	tool, ok := find(tools, name)
	if !ok {
		return unknownTool(name, tools)
	}
	if args == nil {
		if args, err = inputs(tool).arguments(pairs); err != nil {
			return err
		}
	}
	var progress func(client.Progress)
	if isTerminal(c.err) {
		progress = func(p client.Progress) { c.talk("\x1b[1A\r\x1b[K%s  %s", name, bar(p)) }
		c.talk("%s …", name)
	}
	res, err := s.Call(ctx, name, args, progress)
	if res != nil {
		c.showResult(res)
	}
	if errors.Is(err, client.ErrTool) && res != nil && !c.json() {
		c.talk("%s The tool says that it failed", c.paint(c.err, bad))
		return exit(exitTool)
	}
	return err
}

// readArgs reads --args; nil means that it was not given.
func (c *cli) readArgs(given string) (json.RawMessage, error) {
	text := []byte(given)
	var err error
	switch path, isFile := strings.CutPrefix(given, "@"); {
	case given == "":
		return nil, nil
	case given == "-":
		text, err = io.ReadAll(c.in)
	case isFile:
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, usage.New("can't read the arguments").WithWhy("%v", err)
	}
	if text = []byte(strings.TrimSpace(string(text))); len(text) == 0 || text[0] != '{' || !json.Valid(text) {
		return nil, usage.New("can't read the arguments").WithWhy("they are not one JSON object")
	}
	return text, nil
}

func (c *cli) showResult(res *client.Result) {
	switch {
	case c.json():
		_ = c.print(res.Raw) // stdout is closed: there is nobody to tell
	case res.Structured != nil:
		c.pretty(res.Structured)
	case res.Text() != "":
		c.text(res.Text())
	default:
		c.pretty(res.Raw)
	}
}
