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
	Revoked string `json:"revoked,omitempty"`
}

func (c *cli) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "keys",
		Short:   "See and revoke the keys that sign access tokens",
		Example: "  gatehouse keys ls\n  gatehouse keys revoke KID",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(c.keysListCommand(), c.keysRevokeCommand())
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
			rows := [][]string{{"KEY", "ALG", "STATE", "MADE", "REVOKED"}}
			for _, k := range out.Keys {
				rows = append(rows, []string{k.ID, k.Alg, k.State, k.Made, k.Revoked})
			}
			c.table("", rows)
			return nil
		},
	})
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
