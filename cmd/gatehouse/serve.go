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

Every flag is also a variable of the environment, and a key of the file
gatehouse.yaml: --public-url is GATEHOUSE_PUBLIC_URL and public_url. Flags win
over variables, and those over the file. The file can say more: see
gatehouse config.`,
		Example: `  gatehouse serve
  gatehouse serve --listen localhost:3010 --data-dir ./data
  gatehouse serve --dev                everybody on this computer is signed in`,
		Args: needs(0, 0, ""),
	}
	given := settingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := app.Load(given(), c.environ)
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

// settingFlags gives cmd the flags that are settings. given are those that were
// used.
func settingFlags(cmd *cobra.Command) (given func() map[string]string) {
	f := cmd.Flags()
	f.String("config", "", "configuration file (default gatehouse.yaml here, in the XDG configuration folder or in /etc/gatehouse)")
	names := []string{"config"}
	for _, flag := range app.Flags() {
		if names = append(names, flag.Name); flag.Bool {
			f.Bool(flag.Name, false, flag.Usage)
		} else {
			f.String(flag.Name, "", flag.Usage)
		}
	}
	return func() map[string]string {
		set := map[string]string{}
		for _, name := range names {
			if flag := f.Lookup(name); flag.Changed {
				set[name] = flag.Value.String()
			}
		}
		return set
	}
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
