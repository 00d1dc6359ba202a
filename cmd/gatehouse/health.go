package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var notReady = problem.Code{
	Name: "SERVER_NOT_READY", Kind: problem.Unavailable,
	Why: "it answers, and says that it can do no work now",
	Fix: "read the line that begins with [-], and the log of the server",
}

// probeTime bounds a probe: a container's is cut off after some seconds.
const probeTime = 5 * time.Second

func (c *cli) healthCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:   "health [URL]",
		Short: "Say whether a server can do its work",
		Long: `Say whether a server can do its work: exit code 0 if it can, 4 if not. Without
a URL it is the server of this computer, asked through its admin socket, which
also says how the servers behind it are. For probes of containers.`,
		Example: "  gatehouse health\n  gatehouse health http://localhost:3000",
		Args:    needs(0, 1, "gatehouse health takes one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), probeTime)
			defer cancel()
			address, transport, name := "http://admin", http.RoundTripper(http.DefaultTransport), "the server"
			if len(args) == 1 {
				address = strings.TrimRight(args[0], "/")
				name = address
			} else {
				dir, err := c.dir()
				if err != nil {
					return err
				}
				transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return app.DialSocket(ctx, dir)
				}}
			}
			return c.probe(ctx, name, address, transport)
		},
	})
}

func (c *cli) probe(ctx context.Context, name, address string, transport http.RoundTripper) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/readyz?verbose", nil)
	if err != nil {
		return usage.New("%q is not the address of a server", address)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return notRunning.New("can't reach %s", name).WithWhy("nothing answers in time").Because(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return answerUnreadable.New("the server broke off its answer").Because(err)
	}
	if c.json() {
		if err := c.print(map[string]any{"ready": res.StatusCode == http.StatusOK, "status": res.StatusCode, "checks": strings.Split(strings.TrimSpace(string(text)), "\n")}); err != nil {
			return err
		}
	} else {
		for line := range strings.Lines(string(text)) {
			c.say("%s", oneLine(line))
		}
	}
	if res.StatusCode != http.StatusOK {
		return notReady.New("%s is not ready", name)
	}
	return nil
}
