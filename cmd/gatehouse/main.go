// Gatehouse is the front door for MCP servers: an OAuth 2.1 authorization
// server, a gateway and a client for the terminal in one binary.
//
// Data goes to stdout, talk to stderr; every error says what could not be done,
// why, and what to do about it; the exit code says of what kind it was. Nothing
// here decides anything: commands call the server or the client library.
package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
)

func main() { os.Exit(run()) }

// run is the whole program. A first interrupt ends it in an orderly way, a
// second one at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}
	root := newRoot(c)
	root.SetArgs(os.Args[1:])
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return c.fail(err)
}

// cli is what every command has: where it reads and writes, and the flags that
// are the same everywhere.
type cli struct {
	in       io.Reader
	lines    *bufio.Reader // of in, once somebody was asked
	out, err io.Writer
	environ  []string
	output   format
	plain    bool // --no-color
	dataDir  string
	config   string
	server   string
}

// format is the value of --output.
type format string

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "text|json" }
func (f *format) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("it is either text or json")
	}
	*f = format(s)
	return nil
}

func (c *cli) json() bool { return c.output == "json" }

// getenv is the value of a variable of the environment.
func (c *cli) getenv(name string) string {
	for _, entry := range slices.Backward(c.environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:     "gatehouse",
		Version: app.Version,
		Short:   "The front door for MCP servers",
		Long: `Gatehouse is the front door for MCP servers: it asks who is calling, lets a
person decide what an app may do, passes the calls on and remembers them.`,
		Example: `  gatehouse serve                      start the server
  gatehouse add time -- uvx mcp-server-time
  gatehouse login localhost:3000       sign in to it, or to any other MCP server
  gatehouse call echo message=hello`,
		Args:          cobra.ArbitraryArgs,
		RunE:          unknownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(flagError)
	c.output = "text"
	root.PersistentFlags().VarP(&c.output, "output", "o", "how to print")
	root.PersistentFlags().BoolVar(&c.plain, "no-color", false, "print without colours (so does the variable NO_COLOR)")
	root.SetHelpCommand(c.helpCommand())
	root.AddCommand(
		c.serveCommand(), c.stdioCommand(), c.configCommand(), c.addCommand(), c.serversCommand(), c.auditCommand(), c.appsCommand(), c.clientsCommand(), c.connectionsCommand(), c.serviceAccountsCommand(), c.keysCommand(), c.introspectorsCommand(),
		c.loginCommand(), c.logoutCommand(), c.whoamiCommand(), c.toolsCommand(), c.callCommand(),
		c.demoCommand(), c.healthCommand(), c.doctorCommand(), c.traceCommand(), c.versionCommand(),
	)
	return root
}

// unknownCommand is what a command that has only subcommands does by itself.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	e := usage.New("there is no command %q", cmd.CommandPath()+" "+args[0]).WithFix("%s --help", cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return e.WithWhy("did you mean %q?", near[0])
	}
	return e
}

// onServer adds --data-dir and --config, for commands that act on the server of
// this computer.
func (c *cli) onServer(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.dataDir, "data-dir", "", "data folder of the server (default: as gatehouse serve)")
	cmd.Flags().StringVar(&c.config, "config", "", "configuration file of the server (default: as gatehouse serve)")
	return cmd
}

// asClient adds --server, for commands that talk to an MCP server.
func (c *cli) asClient(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.server, "server", "", "address of the MCP server (default: the one you are signed in to, else the one on this computer)")
	return cmd
}

// client is the library with what the environment says. Where nobody can be
// asked, what needs a person is an error.
func (c *cli) client() *client.Client {
	o := client.Options{Name: "Gatehouse CLI", Version: app.Version, Token: c.getenv("GATEHOUSE_TOKEN")}
	if c.interactive() {
		o.SignIn, o.Ask = c.signIn, c.answer
	}
	return client.New(o)
}

// localServer is where gatehouse serve listens unless told otherwise.
const localServer = "http://localhost:3000/mcp"

// target is the server that is meant: the one named, else the only one the
// person is signed in to, else the one on this computer.
func (c *cli) target(cl *client.Client) (string, error) {
	if c.server != "" {
		return client.ServerURL(c.server)
	}
	logins, err := cl.Logins()
	if err != nil {
		return "", err
	}
	switch len(logins) {
	case 0:
		return localServer, nil
	case 1:
		return logins[0].Server, nil
	}
	var names []string
	for _, l := range logins {
		names = append(names, l.Server)
	}
	return "", usage.New("which server?").WithWhy("you are signed in to %s", strings.Join(names, ", ")).WithFix("say --server %s", names[0])
}

// isTerminal reports whether a person sees what is written there.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// The marks at the beginning of a line.
const (
	good    = "✓"
	bad     = "✗"
	caution = "!"
)

var colours = map[string]string{good: "32", bad: "31", caution: "33", "error:": "1;31", "-": "2"}

// paint colours a mark where somebody sees it.
func (c *cli) paint(w io.Writer, mark string) string {
	if c.plain || c.getenv("NO_COLOR") != "" || !isTerminal(w) {
		return mark
	}
	return "\x1b[" + colours[mark] + "m" + mark + "\x1b[0m"
}
