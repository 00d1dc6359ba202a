package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// connectedApp is one app of the list.
type connectedApp struct {
	ID       string    `json:"id"`
	User     string    `json:"user"`
	Name     string    `json:"name"`
	Client   string    `json:"client"`
	Redirect string    `json:"redirect_uri"`
	Resource string    `json:"resource"`
	Scopes   []string  `json:"scopes"`
	State    string    `json:"state"`
	Allowed  time.Time `json:"allowed_at"`
	Seen     time.Time `json:"last_seen,omitzero"`
	Ends     time.Time `json:"ends_at,omitzero"`
	Replayed time.Time `json:"replayed_at,omitzero"`
	Ended    time.Time `json:"ended_at,omitzero"`
	Reason   string    `json:"reason,omitempty"`
}

func (c *cli) appsCommand() *cobra.Command {
	var all bool
	cmd := c.onServer(&cobra.Command{
		Use:   "apps",
		Short: "List the apps that can act for people, and end them",
		Long: `List the apps that can act for the people of this server. An app that is used
renews its access about once an hour; that is when it was last seen.`,
		Example: "  gatehouse apps\n  gatehouse apps --all\n  gatehouse apps remove ID\n  gatehouse apps stop-all",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args)
			}
			var out struct {
				Apps []connectedApp `json:"apps"`
			}
			if err := c.ask(cmd.Context(), "list_apps", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.showApps(out.Apps, all)
			return nil
		},
	})
	cmd.Flags().BoolVar(&all, "all", false, "also those that ended within the last 90 days")
	cmd.AddCommand(c.appsRemoveCommand(), c.appsStopCommand())
	return cmd
}

func (c *cli) showApps(apps []connectedApp, all bool) {
	rows := [][]string{{"APP", "USER", "STATE", "LAST SEEN", "ENDS", "SCOPES", "ID"}}
	for _, a := range apps {
		if !all && a.State == "ended" {
			continue
		}
		ends := "when removed"
		if !a.Ends.IsZero() {
			ends = a.Ends.Format(time.DateOnly)
		}
		if a.State == "ended" {
			ends = a.Ended.Format(time.DateOnly) + ", " + a.Reason
		}
		rows = append(rows, []string{a.Name, a.User, strings.ReplaceAll(a.State, "_", " "), seen(a.Seen), ends, strings.Join(a.Scopes, " "), a.ID})
	}
	if len(rows) == 1 {
		c.talk("No app is connected. gatehouse login connects this one.")
		return
	}
	c.table("", rows)
	for _, a := range apps {
		if !a.Replayed.IsZero() {
			c.talk("%s %s: a sign-in was ended %s, because it was used twice", c.paint(c.err, caution), oneLine(a.Name), seen(a.Replayed))
		}
	}
}

// seen is a time in the past, in words.
func seen(t time.Time) string {
	switch ago := time.Since(t); {
	case t.IsZero():
		return "never"
	case ago < time.Minute:
		return "just now"
	case ago < time.Hour:
		return fmt.Sprintf("%d min ago", int(ago.Minutes()))
	case ago < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(ago.Hours()))
	}
	return t.Format(time.DateOnly)
}

func (c *cli) appsRemoveCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "remove ID",
		Short:   "End an app's access, on every node at once",
		Example: "  gatehouse apps remove cns_01K…",
		Args:    needs(1, 1, "the id of an app"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out connectedApp
			if err := c.ask(cmd.Context(), "remove_app", map[string]string{"id": args[0]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Removed %q of %s. It can ask again.", oneLine(out.Name), oneLine(out.User))
			return nil
		},
	})
}

func (c *cli) appsStopCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:   "stop-all",
		Short: "End the access of every app of every person",
		Long: `End the access of every app of every person, on every node at once, in the
middle of whatever they do. It cannot be undone: each app has to ask again.`,
		Example: "  gatehouse apps stop-all",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Stopped int `json:"stopped"`
			}
			if err := c.ask(cmd.Context(), "stop_everything", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Stopped %s. Each has to ask again.", plural(out.Stopped, "app"))
			return nil
		},
	})
}
