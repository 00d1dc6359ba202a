package main

import (
	"time"

	"github.com/spf13/cobra"
)

// introspector is one program of the list.
type introspector struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Resource string    `json:"resource"`
	Added    time.Time `json:"added_at"`
	Secret   string    `json:"secret,omitempty"`
}

func (c *cli) introspectorsCommand() *cobra.Command {
	cmd := c.onServer(&cobra.Command{
		Use:   "introspectors",
		Short: "Programs that may ask whether an access token is good",
		Long: `List the programs that may ask the introspection endpoint (RFC 7662) about the
access tokens of one endpoint. A confidential client may ask about its own
tokens without being named here.`,
		Example: "  gatehouse introspectors\n  gatehouse introspectors add billing tickets\n  gatehouse introspectors remove ID",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args)
			}
			var out struct {
				Introspectors []introspector `json:"introspectors"`
			}
			if err := c.ask(cmd.Context(), "list_introspectors", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			rows := [][]string{{"NAME", "ENDPOINT", "ADDED", "ID"}}
			for _, i := range out.Introspectors {
				rows = append(rows, []string{oneLine(i.Name), i.Resource, i.Added.Format(time.DateOnly), i.ID})
			}
			c.table("", rows)
			return nil
		},
	})
	cmd.AddCommand(c.introspectorsAddCommand(), c.introspectorsRemoveCommand())
	return cmd
}

func (c *cli) introspectorsAddCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:   "add NAME ENDPOINT",
		Short: "Let a program ask about the access tokens of an endpoint",
		Long: `Let a program ask about the access tokens of one endpoint: that of a server, by
its name, or mcp for that of all servers. Its id and secret are shown this once;
it uses them like a client, at the introspection endpoint alone.`,
		Example: "  gatehouse introspectors add billing tickets\n  gatehouse introspectors add edge mcp -o json",
		Args:    needs(2, 2, "a name and an endpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out introspector
			if err := c.ask(cmd.Context(), "add_introspector", map[string]string{"name": args[0], "endpoint": args[1]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("%s may ask about the tokens of %s.", oneLine(out.Name), out.Resource)
			c.table("", [][]string{{"CLIENT ID", "CLIENT SECRET"}, {out.ID, out.Secret}})
			return nil
		},
	})
}

func (c *cli) introspectorsRemoveCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "remove ID",
		Short:   "Let a program ask about tokens no longer",
		Example: "  gatehouse introspectors remove ID",
		Args:    needs(1, 1, "the id of a program"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out map[string]any
			if err := c.ask(cmd.Context(), "remove_introspector", map[string]string{"id": args[0]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Removed %s.", oneLine(args[0]))
			return nil
		},
	})
}
