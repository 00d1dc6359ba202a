package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var fileNotWritten = problem.Code{
	Name: "CONFIG_NOT_WRITTEN", Kind: problem.Conflict,
	Fix:   "name another file: gatehouse config init FILE",
	About: "the file is there already, or cannot be written",
}

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Write, check and show the configuration of the server",
		Long: `Write, check and show the configuration of the server.

It is read from the file that --config or the variable GATEHOUSE_CONFIG names,
or else from the first of: ./gatehouse.yaml, gatehouse/gatehouse.yaml in the XDG
configuration folder, /etc/gatehouse/gatehouse.yaml.`,
		Example: "  gatehouse config init\n  gatehouse config validate\n  gatehouse config show --origin",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(c.configInit(), c.configValidate(), c.configShow(), c.configSchema())
	return cmd
}

func (c *cli) configInit() *cobra.Command {
	return &cobra.Command{
		Use:     "init [FILE]",
		Short:   "Write a file that explains every setting and sets none",
		Example: "  gatehouse config init\n  gatehouse config init /etc/gatehouse/gatehouse.yaml",
		Args:    needs(0, 1, ""),
		RunE: func(_ *cobra.Command, args []string) error {
			path := "gatehouse.yaml"
			if len(args) > 0 {
				path = args[0]
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return fileNotWritten.New("can't write %s", path).WithWhy("there is such a file already").Because(err)
			}
			if err == nil {
				_, err = f.WriteString(app.Example())
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				return fileNotWritten.New("can't write %s", path).WithWhy("%v", err).Because(err)
			}
			c.done("Wrote %s", path)
			return nil
		},
	}
}

func (c *cli) configValidate() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "validate [FILE]",
		Short:   "Say whether the server could start with this configuration",
		Long:    "Say whether the server could start with this file and environment, and if not,\neverything that is wrong.",
		Example: "  gatehouse config validate\n  gatehouse config validate new.yaml",
		Args:    needs(0, 1, ""),
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			c.config = args[0]
		}
		config, err := c.load()
		if err == nil {
			err = config.CheckTLS()
		}
		if err != nil {
			return err
		}
		if c.json() {
			return c.print(map[string]any{"file": config.Source.File, "ignored": append([]string{}, config.Source.Ignored...)})
		}
		for _, ignored := range config.Source.Ignored {
			c.talk("%s %s", c.paint(c.err, caution), ignored)
		}
		if config.Source.File == "" {
			c.done("No file was found; what the environment says can be used")
			return nil
		}
		c.done("%s can be used", config.Source.File)
		return nil
	}
	return c.withConfig(cmd)
}

func (c *cli) configShow() *cobra.Command {
	var origin bool
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show what each setting is, without secrets",
		Example: "  gatehouse config show\n  gatehouse config show --origin\n  gatehouse config show -o json",
		Args:    needs(0, 0, ""),
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		config, err := c.load()
		if err != nil {
			return err
		}
		if c.json() {
			return c.print(map[string]any{"file": config.Source.File, "settings": config.Show()})
		}
		var rows [][]string
		for _, v := range config.Show() {
			row := []string{v.Key, v.Value}
			if origin {
				row = append(row, v.Origin)
			}
			rows = append(rows, row)
		}
		c.table("", rows)
		return nil
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each value comes from")
	return c.withConfig(cmd)
}

func (c *cli) configSchema() *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of the file, for editors",
		Example: "  gatehouse config schema > gatehouse.schema.json",
		Args:    needs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			schema, err := json.Marshal(app.Schema())
			if err != nil {
				return err
			}
			c.pretty(schema)
			return nil
		},
	}
}

// withConfig adds --config, for commands that read the configuration.
func (c *cli) withConfig(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.config, "config", "", "configuration file (default: as gatehouse serve)")
	return cmd
}

// load is the configuration as gatehouse serve would have it without flags.
func (c *cli) load() (app.Config, error) { return app.Load(c.chosen(), c.environ) }

// chosen says which file is meant, where one was named.
func (c *cli) chosen() map[string]string {
	if c.config == "" {
		return map[string]string{}
	}
	return map[string]string{"config": c.config}
}
