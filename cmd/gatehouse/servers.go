package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// added is what the server answers when it has added one.
type added struct {
	Name      string      `json:"name"`
	Tools     []addedTool `json:"tools"`
	Endpoints []string    `json:"endpoints"`
	Protocol  string      `json:"protocol"`
	Server    struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"server"`
	Warning string `json:"warning,omitempty"`
}

type addedTool struct {
	Name  string `json:"name"`
	Risk  string `json:"risk"`
	Scope string `json:"scope"`
	Hints bool   `json:"hints"`
}

type addition struct {
	Name    string            `json:"name"`
	URL     string            `json:"url,omitempty"`
	Command []string          `json:"command,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
}

func (c *cli) addCommand() *cobra.Command {
	var env []string
	cmd := &cobra.Command{
		Use:   "add NAME URL | add NAME [--env KEY=VALUE] -- COMMAND [ARG…]",
		Short: "Put an MCP server behind the gateway",
		Long: `Put an MCP server behind the gateway: one that is reached over HTTP, or a
program that the gateway starts and talks to over stdio. Its tools are read
and kept as they are now.`,
		Example: `  gatehouse add tickets https://tickets.internal/mcp
  gatehouse add time -- uvx mcp-server-time
  gatehouse add files --env LOG=quiet -- npx -y some-server /srv/files`,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := c.addition(args, cmd.ArgsLenAtDash(), env)
			if err != nil {
				return err
			}
			var out added
			if err := c.ask(cmd.Context(), "add_server", in, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.showAdded(out)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&env, "env", nil, "KEY=VALUE for the command; KEY alone takes the value from here")
	return c.onServer(cmd)
}

// addition reads the arguments of add; dash is how many stand before "--", or -1.
func (c *cli) addition(args []string, dash int, env []string) (addition, error) {
	wrong := func(why string) error {
		return usage.New("can't tell what to add").WithWhy("%s", why).WithFix("gatehouse add NAME URL, or gatehouse add NAME -- COMMAND ARG…")
	}
	switch {
	case dash < 0 && len(args) == 2 && len(env) == 0:
		return addition{Name: args[0], URL: args[1]}, nil
	case dash < 0 && len(args) == 2:
		return addition{}, wrong("--env is for a command, and this is an address")
	case dash < 0 && len(args) > 2:
		return addition{}, wrong("a command stands after --")
	case dash != 1 || len(args) < 2:
		return addition{}, wrong("it takes a name, and an address or a command")
	}
	in := addition{Name: args[0], Command: args[1:], Env: map[string]string{}}
	for _, entry := range env {
		key, value, given := strings.Cut(entry, "=")
		if !given {
			value = c.getenv(key)
		}
		if key == "" {
			return addition{}, wrong("--env needs KEY=VALUE")
		}
		in.Env[key] = value
	}
	return in, nil
}

// risks in the order of the table.
var risks = []string{"read", "change", "hard to undo"}

func (c *cli) showAdded(a added) {
	c.done("Reached it: %s %s, MCP %s", oneLine(a.Server.Name), oneLine(a.Server.Version), oneLine(a.Protocol))
	if a.Warning != "" {
		c.talk("%s %s", c.paint(c.err, caution), a.Warning)
	}
	c.done("Read and pinned %s", plural(len(a.Tools), "tool"))
	if len(a.Tools) > 0 {
		c.table("  ", a.byRisk())
	}
	if slices.ContainsFunc(a.Tools, func(t addedTool) bool { return !t.Hints }) {
		c.say("  * no hints from the server, so treated as hard to undo")
	}
	c.say("Added %q.", a.Name)
	c.table("  ", a.endpoints())
	if len(a.Tools) > 0 {
		c.talk("Next: gatehouse login, then gatehouse tools %s", a.Name)
	}
}

// byRisk counts the tools by what they may do, with examples.
func (a added) byRisk() [][]string {
	rows := [][]string{{"RISK", "TOOLS", "SCOPE", "EXAMPLES"}}
	for _, risk := range risks {
		var names []string
		var scope string
		for _, t := range a.Tools {
			if t.Risk != risk {
				continue
			}
			name := t.Name
			if !t.Hints {
				name += "*"
			}
			names, scope = append(names, name), t.Scope
		}
		if len(names) > 0 {
			rows = append(rows, []string{risk, fmt.Sprint(len(names)), scope, strings.Join(names[:min(3, len(names))], ", ")})
		}
	}
	return rows
}

// endpoints are the addresses at which the tools are now, each with a note.
func (a added) endpoints() (rows [][]string) {
	for _, endpoint := range a.Endpoints {
		note := "with your other servers"
		if strings.Contains(endpoint, "/s/") {
			note = "alone"
		} else if len(a.Tools) > 0 {
			note += " (" + a.Name + "_" + a.Tools[0].Name + " …)"
		}
		rows = append(rows, []string{endpoint, note})
	}
	return rows
}

// listed is one server of the list.
type listed struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Address string `json:"address"`
	State   string `json:"state"`
	Since   string `json:"since"`
	Tools   int    `json:"tools"`
	Error   string `json:"error,omitempty"`
	File    string `json:"file,omitempty"`
}

func (c *cli) serversCommand() *cobra.Command {
	cmd := c.onServer(&cobra.Command{
		Use:     "servers",
		Short:   "List the MCP servers behind the gateway",
		Example: "  gatehouse servers\n  gatehouse servers -o json\n  gatehouse servers remove tickets",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args)
			}
			var out struct {
				Servers []listed `json:"servers"`
			}
			if err := c.ask(cmd.Context(), "list_servers", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.showServers(out.Servers)
			return nil
		},
	})
	cmd.AddCommand(c.onServer(&cobra.Command{
		Use:     "remove NAME",
		Short:   "Take a server away, with its tools",
		Example: "  gatehouse servers remove tickets",
		Args:    needs(1, 1, "the name of a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out map[string]any
			if err := c.ask(cmd.Context(), "remove_server", map[string]string{"name": args[0]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Removed %q.", args[0])
			return nil
		},
	}))
	return cmd
}

func (c *cli) showServers(servers []listed) {
	if len(servers) == 0 {
		c.talk("No servers yet. Add one: gatehouse add NAME URL, or gatehouse add NAME -- COMMAND ARG…")
		return
	}
	slices.SortFunc(servers, func(a, b listed) int { return strings.Compare(a.Name, b.Name) })
	header := []string{"NAME", "KIND", "STATE", "SINCE", "TOOLS", "ADDRESS"}
	filed := slices.ContainsFunc(servers, func(s listed) bool { return s.File != "" })
	if filed {
		header = append(header, "FILE")
	}
	rows := [][]string{header}
	for _, s := range servers {
		row := []string{s.Name, s.Kind, s.State, moment(s.Since), fmt.Sprint(s.Tools), s.Address}
		if filed {
			row = append(row, s.File)
		}
		rows = append(rows, row)
	}
	c.table("", rows)
	for _, s := range servers {
		if s.Error != "" {
			c.talk("%s %s: %s", c.paint(c.err, caution), s.Name, oneLine(s.Error))
		}
	}
}

// moment is a time as a word: the clock today, the date before.
func moment(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return "-" // a server that is older than we
	}
	if t = t.Local(); t.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateOnly)
}
