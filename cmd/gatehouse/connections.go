package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// connection is one account of the list.
type connection struct {
	ID        string    `json:"id"`
	Name      string    `json:"connection"`
	User      string    `json:"user"`
	State     string    `json:"state"`
	Reason    string    `json:"reason,omitempty"`
	Scopes    []string  `json:"scopes"`
	Connected time.Time `json:"connected_at"`
	Used      time.Time `json:"last_used,omitzero"`
}

func (c *cli) connectionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connections",
		Short: "See and remove the accounts of people at services",
		Long: `See and remove the accounts at services that people have connected, so that the
tools of a server work for each with their own. People connect them in the
browser, on the way to an app's first token or at /me/connections.`,
		Example: "  gatehouse connections ls\n  gatehouse connections remove ID",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(c.connectionsListCommand(), c.connectionsRemoveCommand())
	return cmd
}

func (c *cli) connectionsListCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "ls",
		Short:   "List the connected accounts",
		Example: "  gatehouse connections ls",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Connections []connection `json:"connections"`
			}
			if err := c.ask(cmd.Context(), "list_connections", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.showConnections(out.Connections)
			return nil
		},
	})
}

func (c *cli) showConnections(all []connection) {
	if len(all) == 0 {
		c.talk("No account is connected.")
		return
	}
	rows := [][]string{{"SERVICE", "USER", "STATE", "SCOPES", "CONNECTED", "LAST USED", "ID"}}
	for _, a := range all {
		state := a.State
		if a.Reason != "" {
			state += ": " + a.Reason
		}
		rows = append(rows, []string{a.Name, a.User, state, strings.Join(a.Scopes, " "), seen(a.Connected), seen(a.Used), a.ID})
	}
	c.table("", rows)
}

func (c *cli) connectionsRemoveCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:   "remove ID",
		Short: "End what a service granted a person",
		Long: `End what a service granted a person. It is wiped here, and the service is told,
for about half a day if it does not answer; gatehouse audit tail shows what came
of that.`,
		Example: "  gatehouse connections remove ugr_01K…",
		Args:    needs(1, 1, "the id of an account"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out connection
			if err := c.ask(cmd.Context(), "remove_connection", map[string]string{"id": args[0]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Removed the account of %s at %q. It can be connected again.", oneLine(out.User), oneLine(out.Name))
			return nil
		},
	})
}
