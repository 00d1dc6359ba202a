package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
)

func (c *cli) stdioCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stdio",
		Short: "Serve the program that starts it, over stdin and stdout",
		Long: `Serve the program that starts it, over stdin and stdout, with what /mcp of the
server on this computer offers. It takes the same configuration, database and
master key as gatehouse serve, which may run at the same time or not, and
listens on no port. Servers that are commands it starts for itself.

It calls with the access token in GATEHOUSE_TOKEN, or else with the sign-in of
gatehouse login; the token is judged anew for every message. Without one only
what needs no sign-in can be called, unless a message brings a token of its own
in params._meta, under "io.github.gatehouse-mcp/access_token". The tool echo
also takes it as the argument access_token, for demonstrations of old.

Stdout carries the protocol and nothing else; the log goes to stderr. It ends
when stdin does.`,
		Example: `  gatehouse login localhost:3000
  {"mcpServers": {"gatehouse": {"command": "gatehouse", "args": ["stdio"]}}}
  gatehouse stdio --config /etc/gatehouse/gatehouse.yaml --log-level warn`,
		Args: needs(0, 0, ""),
	}
	given := settingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := app.Load(given(), c.environ)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP) // the terminal has gone, and with it the program
		defer stop()
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // so that a program that has gone is an error of a write, not our end
		cl := client.New(client.Options{Name: "Gatehouse CLI", Version: app.Version, Token: c.getenv("GATEHOUSE_TOKEN")})
		return app.Stdio(ctx, config, app.Streams{In: c.in, Out: c.out, Log: c.err, Credential: credential(cl)})
	}
	return cmd
}

// credential is what the client library keeps for a server, with its errors as
// problems.
func credential(cl *client.Client) func(ctx context.Context, server, refused string) (token, key string, err error) {
	return func(ctx context.Context, server, refused string) (string, string, error) {
		found, err := cl.Credential(ctx, server, refused)
		if e, ok := errors.AsType[*client.Error](err); ok {
			code, _ := codeNamed(e.Code)
			return "", "", code.New("%s", e.Message).WithWhy("%s", e.Why).WithFix("%s", e.Fix).Because(e)
		}
		return found.Token, found.Key, err
	}
}
