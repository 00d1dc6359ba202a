package main

import (
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// serviceAccount is one of the list.
type serviceAccount struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Tools   []string  `json:"allowed_tools"`
	Auth    string    `json:"auth"`
	Status  string    `json:"status"`
	Created time.Time `json:"created_at"`
	By      string    `json:"created_by"`
	Used    time.Time `json:"last_used,omitzero"`
}

// serviceSecret is what an account proves itself with, shown once.
type serviceSecret struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret,omitempty"`
}

func (c *cli) serviceAccountsCommand() *cobra.Command {
	cmd := c.onServer(&cobra.Command{
		Use:   "service-accounts",
		Short: "List, make and end accounts of programs that act for nobody",
		Long: `List the accounts of programs that act for nobody. Such a program gets its
tokens at the token endpoint (grant type client_credentials), with its secret or
with a key of its own, and may use the tools on its list and nothing else. The
terminal is such a program with gatehouse login --as-app.`,
		Example: `  gatehouse service-accounts
  gatehouse service-accounts create "nightly report" --tool billing_read
  gatehouse service-accounts disable svc_01K…`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args)
			}
			var out struct {
				Accounts []serviceAccount `json:"service_accounts"`
			}
			if err := c.ask(cmd.Context(), "list_service_accounts", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			if len(out.Accounts) == 0 {
				c.talk("There is no service account. gatehouse service-accounts create makes one.")
				return nil
			}
			rows := [][]string{{"NAME", "STATUS", "PROVES ITSELF WITH", "LAST USED", "TOOLS", "ID"}}
			for _, a := range out.Accounts {
				rows = append(rows, []string{a.Name, a.Status, a.Auth, seen(a.Used), strings.Join(a.Tools, " "), a.ID})
			}
			c.table("", rows)
			return nil
		},
	})
	cmd.AddCommand(c.serviceCreateCommand(), c.serviceAllowCommand(),
		c.serviceChange("disable", "Switch a service account off: its tokens stop working at once", "Switched %s off.", false),
		c.serviceChange("enable", "Switch a service account on again", "Switched %s on.", true),
		c.serviceRotateCommand(), c.serviceRemoveCommand())
	return cmd
}

func (c *cli) serviceCreateCommand() *cobra.Command {
	var tools []string
	var keys string
	cmd := c.onServer(&cobra.Command{
		Use:   "create NAME --tool TOOL …",
		Short: "Make a service account; its secret is shown once",
		Long: `Make a service account with the tools that it may use, by their full names. Its
secret is shown once. With --jwks it has none: it signs with the private key of
one of the public keys in that file (private_key_jwt), which nobody can steal
here.`,
		Example: `  gatehouse service-accounts create "nightly report" --tool billing_read
  gatehouse service-accounts create builder --tool ci_start --jwks keys.json`,
		Args: needs(1, 1, "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"name": args[0], "allowed_tools": tools}
			if keys != "" {
				document, err := os.ReadFile(keys)
				if err != nil {
					return fileUnusable.New("the keys can't be read").WithWhy("%v", err)
				}
				if !json.Valid(document) {
					return fileUnusable.New("the keys can't be read").WithWhy("%s is not JSON", keys)
				}
				in["jwks"] = json.RawMessage(document)
			}
			return c.serviceSecret(cmd, "create_service_account", in, "Made the service account "+oneLine(args[0])+".")
		},
	})
	cmd.Flags().StringArrayVar(&tools, "tool", nil, "full name of a tool it may use; give it once for each")
	cmd.Flags().StringVar(&keys, "jwks", "", "file with its public keys, in place of a secret")
	return cmd
}

// serviceSecret calls a tool whose answer is a secret. Data is on stdout, so that
// it can be kept without being read.
func (c *cli) serviceSecret(cmd *cobra.Command, tool string, in any, done string) error {
	var out serviceSecret
	if err := c.ask(cmd.Context(), tool, in, &out); err != nil {
		return err
	}
	if c.json() {
		return c.print(out)
	}
	c.done("%s", done)
	rows := [][]string{{"client_id", out.ID}}
	if out.Secret != "" {
		rows = append(rows, []string{"client_secret", out.Secret})
	}
	c.table("", rows)
	if out.Secret != "" {
		c.talk("The secret is not shown again.")
	}
	return nil
}

func (c *cli) serviceAllowCommand() *cobra.Command {
	var tools []string
	cmd := c.onServer(&cobra.Command{
		Use:     "allow ID --tool TOOL …",
		Short:   "Give a service account another list of tools, in place of what it had",
		Example: "  gatehouse service-accounts allow svc_01K… --tool billing_list_invoices",
		Args:    needs(1, 1, "the id of a service account"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.serviceDo(cmd, "change_service_account", map[string]any{"id": args[0], "allowed_tools": append([]string{}, tools...)}, "Changed what %s may use.", args[0])
		},
	})
	cmd.Flags().StringArrayVar(&tools, "tool", nil, "full name of a tool it may use; give it once for each")
	return cmd
}

func (c *cli) serviceChange(verb, short, done string, active bool) *cobra.Command {
	return c.onServer(&cobra.Command{
		Use: verb + " ID", Short: short,
		Example: "  gatehouse service-accounts " + verb + " svc_01K…",
		Args:    needs(1, 1, "the id of a service account"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.serviceDo(cmd, "change_service_account", map[string]any{"id": args[0], "active": active}, done, args[0])
		},
	})
}

func (c *cli) serviceRotateCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "rotate ID",
		Short:   "Give a service account a new secret; the old one stops working at once",
		Example: "  gatehouse service-accounts rotate svc_01K…",
		Args:    needs(1, 1, "the id of a service account"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.serviceSecret(cmd, "rotate_service_account_secret", map[string]string{"id": args[0]}, "The old secret and its tokens stopped working.")
		},
	})
}

func (c *cli) serviceRemoveCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "remove ID",
		Short:   "Remove a service account for good; its tokens stop working at once",
		Example: "  gatehouse service-accounts remove svc_01K…",
		Args:    needs(1, 1, "the id of a service account"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.serviceDo(cmd, "remove_service_account", map[string]string{"id": args[0]}, "Removed %s.", args[0])
		},
	})
}

func (c *cli) serviceDo(cmd *cobra.Command, tool string, in any, done, id string) error {
	var out map[string]any
	if err := c.ask(cmd.Context(), tool, in, &out); err != nil {
		return err
	}
	if c.json() {
		return c.print(out)
	}
	c.done(done, oneLine(id))
	return nil
}
