package main

import (
	"github.com/spf13/cobra"
)

// signingKey is one key of the list.
type signingKey struct {
	ID      string `json:"kid"`
	Alg     string `json:"alg"`
	State   string `json:"state"`
	Made    string `json:"made"`
	Active  string `json:"active,omitempty"`
	Retired string `json:"retired,omitempty"`
	Gone    string `json:"gone,omitempty"`
	Revoked string `json:"revoked,omitempty"`
}

func (c *cli) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "keys",
		Short:   "See, rotate and revoke the keys that sign access tokens",
		Example: "  gatehouse keys ls\n  gatehouse keys rotate\n  gatehouse keys revoke KID",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(c.keysListCommand(), c.keysRotateCommand(), c.keysRevokeCommand(), c.masterCommand())
	return cmd
}

func (c *cli) keysListCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "ls",
		Short:   "List the signing keys",
		Example: "  gatehouse keys ls\n  gatehouse keys ls -o json",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Keys []signingKey `json:"keys"`
			}
			if err := c.ask(cmd.Context(), "list_signing_keys", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.keysTable(out.Keys)
			return nil
		},
	})
}

func (c *cli) keysTable(keys []signingKey) {
	rows := [][]string{{"KEY", "ALG", "STATE", "PUBLISHED", "SIGNS SINCE", "ENDS"}}
	for _, k := range keys {
		rows = append(rows, []string{k.ID, k.Alg, k.State, k.Made, k.Active, k.Revoked + k.Gone})
	}
	c.table("", rows)
}

func (c *cli) keysRotateCommand() *cobra.Command {
	var now bool
	cmd := c.onServer(&cobra.Command{
		Use:   "rotate",
		Short: "Let the next key sign from now on",
		Long: `Let the next key sign from now on. It happens by itself when a key has signed
for signing_key_life. No token is lost: what the old key signed stays good until
it expires, and the old key stays published until then.

A key that has not been published for a day is refused, because others who
verify tokens may keep an older list. With --now it signs all the same, and they
may refuse new tokens until they read the list again. If a key is in wrong
hands, do not rotate it but revoke it.`,
		Example: "  gatehouse keys rotate\n  gatehouse keys rotate --now",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Keys []signingKey `json:"keys"`
			}
			if err := c.ask(cmd.Context(), "rotate_signing_key", map[string]bool{"now": now}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Another key signs from now on.")
			c.keysTable(out.Keys)
			return nil
		},
	})
	cmd.Flags().BoolVar(&now, "now", false, "also if the next key was not published for a day")
	return cmd
}

func (c *cli) keysRevokeCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:   "revoke KID",
		Short: "Refuse every token that a key signed, from now on",
		Long: `Refuse every access token that a key signed, on every node, and end the streams
that run on one. If the key is the active one, the next one signs from now on.
Refresh tokens stay good, so apps fetch new access tokens by themselves.`,
		Example: "  gatehouse keys revoke KID",
		Args:    needs(1, 1, "the id of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out map[string]any
			if err := c.ask(cmd.Context(), "revoke_signing_key", map[string]string{"kid": args[0]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Revoked %s. Apps fetch new tokens by themselves.", oneLine(args[0]))
			return nil
		},
	})
}
