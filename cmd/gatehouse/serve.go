package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

func (c *cli) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Start the server",
		Long: `Start the server and keep it running until Ctrl+C.

Every flag is also a variable of the environment: --public-url is
GATEHOUSE_PUBLIC_URL. Flags win.`,
		Example: `  gatehouse serve
  gatehouse serve --listen localhost:3010 --data-dir ./data
  gatehouse serve --dev                everybody on this computer is signed in`,
		Args: needs(0, 0, ""),
	}
	f := cmd.Flags()
	f.String("listen", "", "address to listen on, HOST:PORT (default localhost:3000)")
	f.String("public-url", "", "address at which browsers and clients reach this server (default http://localhost:PORT)")
	f.String("data-dir", "", "folder for database, master key and admin socket")
	f.String("database", "", "sqlite:PATH or postgres://… (default a SQLite file in the data folder)")
	f.String("master-key-file", "", "file with the key that seals what is kept at rest")
	f.Bool("dev", false, "development mode: this computer only, no sign-in, everything is allowed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set := map[string]string{}
		for _, name := range []string{"listen", "public-url", "data-dir", "database", "master-key-file", "dev"} {
			if flag := f.Lookup(name); flag.Changed {
				set[name] = flag.Value.String()
			}
		}
		config, err := app.Load(set, c.environ)
		if err != nil {
			return err
		}
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(200) // the heap is small: some megabytes save work at every call
		}
		return app.Run(cmd.Context(), config, c.err)
	}
	return cmd
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Example: "  gatehouse version\n  gatehouse version -o json",
		Args:    needs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string   `json:"version"`
				Commit   string   `json:"commit,omitempty"`
				Go       string   `json:"go"`
				Platform string   `json:"platform"`
				MCP      []string `json:"mcp"`
			}{app.Version, commit(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, mcp.Legacy}
			if c.json() {
				return c.print(v)
			}
			c.say("gatehouse %s %s", v.Version, v.Commit)
			c.say("%s %s", v.Go, v.Platform)
			c.say("MCP %s", strings.Join(v.MCP, ", "))
			return nil
		},
	}
}

func commit() string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}
