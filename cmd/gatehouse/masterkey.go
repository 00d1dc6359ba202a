package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// masterKeys is the file of the master key.
type masterKeys struct {
	Keys []struct {
		Fingerprint string `json:"fingerprint"`
		Seals       bool   `json:"seals"`
		Values      int    `json:"values"`
	} `json:"keys"`
	File   string `json:"file"`
	Sealed int    `json:"sealed,omitempty"`
}

func (c *cli) masterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "master",
		Short: "Change the master key, which seals what is kept",
		Long: `Change the master key while the server runs, in three steps. Each can be
repeated, and between them everything stays readable:

  gatehouse keys master add       a new key in the file; it seals nothing yet
  gatehouse keys master use NEW   it seals, and all that is kept anew
  gatehouse keys master drop      the old key leaves the file

Where several nodes share a database, copy the file to every node after each
step, and wait ten seconds: they read it again by themselves. A copy of the
database from before needs the key from before, so keep that one with it.`,
		Example: "  gatehouse keys master ls\n  gatehouse keys master add\n  gatehouse keys master use 3f9a0c1d2e4b5a67\n  gatehouse keys master drop",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(
		c.masterStep("ls", "List the keys of the file, and how much is sealed under each", "list_master_keys", func(masterKeys) string { return "" }),
		c.masterStep("add", "Put a new key into the file", "add_master_key", func(m masterKeys) string {
			added := m.Keys[len(m.Keys)-1].Fingerprint
			return fmt.Sprintf("Added the key %s. Once every node has the file: gatehouse keys master use %s", added, added)
		}),
		c.masterStep("use FINGERPRINT", "Seal with a key of the file from now on, and everything again", "use_master_key", func(m masterKeys) string {
			return fmt.Sprintf("The key %s seals from now on; %d values were sealed again. Once every node has the file: gatehouse keys master drop", m.Keys[0].Fingerprint, m.Sealed)
		}),
		c.masterStep("drop", "Take the keys out of the file that seal nothing any more", "drop_master_keys", func(m masterKeys) string {
			return fmt.Sprintf("The key %s is the only one now. MCP sessions from before begin anew.", m.Keys[0].Fingerprint)
		}),
	)
	return cmd
}

// masterStep is a command that calls a tool and shows what the file is like then.
func (c *cli) masterStep(use, short, tool string, done func(masterKeys) string) *cobra.Command {
	args := needs(0, 0, "")
	if strings.Contains(use, " ") {
		args = needs(1, 1, "the fingerprint of a key")
	}
	return c.onServer(&cobra.Command{
		Use:     use,
		Short:   short,
		Example: "  gatehouse keys master " + strings.Replace(use, "FINGERPRINT", "3f9a0c1d2e4b5a67", 1),
		Args:    args,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, out := map[string]string{}, masterKeys{}
			if len(args) > 0 {
				in["fingerprint"] = args[0]
			}
			if err := c.ask(cmd.Context(), tool, in, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			if text := done(out); text != "" {
				c.done("%s", text)
			}
			rows := [][]string{{"MASTER KEY", "STATE", "SEALED VALUES"}}
			for _, k := range out.Keys {
				state := "opens"
				if k.Seals {
					state = "seals"
				}
				rows = append(rows, []string{k.Fingerprint, state, fmt.Sprint(k.Values)})
			}
			c.table("", rows)
			return nil
		},
	})
}
