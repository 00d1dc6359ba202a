package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/doctor"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var nobodyToExamine = problem.Code{
	Name: "NOTHING_TO_EXAMINE", Kind: problem.Unavailable,
	Why: "nothing answers there",
	Fix: "check the address, and whether the server runs",
}

func (c *cli) doctorCommand() *cobra.Command {
	var register bool
	cmd := c.asClient(&cobra.Command{
		Use:   "doctor",
		Short: "Examine an MCP server from outside: how it protects itself",
		Long: `Examine an MCP server from outside, a Gatehouse or any other that uses OAuth:
what it says to callers without a token, how a client finds its way to sign in,
and what it refuses. For each fault it says what was expected and where that is
demanded, what was seen, and how to cure it.

It needs no account and shows no token. Nothing is changed at the server, unless
--register lets it register an app to see more; the app is removed again where
the server offers that. Exit code 8 if there is a fault.`,
		Example: `  gatehouse doctor
  gatehouse doctor --server https://mcp.vendor.example/mcp
  gatehouse doctor --server localhost:3000 --register -o json`,
		Args: needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, err := c.patient()
			if err != nil {
				return err
			}
			report, err := doctor.Examine(cmd.Context(), doctor.Options{Server: server, Version: app.Version, Register: register})
			if errors.Is(err, doctor.ErrUnreachable) {
				return nobodyToExamine.New("can't reach %s", server).Because(err)
			}
			if err != nil {
				return err
			}
			if err := c.showReport(report); err != nil {
				return err
			}
			if report.Count(doctor.Fault) > 0 {
				return exit(exitVerify)
			}
			return nil
		},
	})
	cmd.Flags().BoolVar(&register, "register", false, "register an app to see more, and remove it again")
	return cmd
}

// patient is the server to examine. Plain http off this computer is no reason to
// refuse: it is the first thing to find.
func (c *cli) patient() (string, error) {
	server, err := c.target(c.client())
	if err != nil && errors.Is(err, client.ErrInvalid) && strings.HasPrefix(c.server, "http://") {
		https, serr := client.ServerURL("https" + strings.TrimPrefix(c.server, "http"))
		if serr == nil {
			return "http" + strings.TrimPrefix(https, "https"), nil
		}
	}
	return server, err
}

var marks = map[doctor.Verdict]string{doctor.Good: good, doctor.Fault: bad, doctor.Warning: caution, doctor.Skipped: "-"}

func (c *cli) showReport(r doctor.Report) error {
	if c.json() {
		return c.print(r)
	}
	c.say("%s", r.Server)
	if r.Issuer != "" {
		c.say("signs in at %s", r.Issuer)
	}
	group, skipped := "", []string(nil)
	for i, f := range r.Findings {
		if f.Group != group {
			group = f.Group
			c.say("")
			c.say("%s", group)
		}
		mark := c.paint(c.out, marks[f.Verdict])
		switch f.Verdict {
		case doctor.Good:
			c.say("  %s %s", mark, f.Expected)
		case doctor.Skipped:
			if i+1 < len(r.Findings) && r.Findings[i+1].Group == group && r.Findings[i+1].Seen == f.Seen { // one line for all with that reason
				skipped = append(skipped, f.Check)
				continue
			}
			c.say("  %s %s: %s", mark, strings.Join(append(skipped, f.Check), ", "), f.Seen)
			skipped = nil
		default:
			c.say("  %s %s: %s", mark, f.Check, f.Expected)
			c.say("      seen  %s", f.Seen)
			c.say("      fix   %s", f.Fix)
			c.say("      see   %s; %s", f.Reference, f.Requirement)
		}
	}
	c.say("")
	c.say("%s, %s, %d in order, %d not looked at", plural(r.Count(doctor.Fault), "fault"), plural(r.Count(doctor.Warning), "warning"), r.Count(doctor.Good), r.Count(doctor.Skipped))
	return nil
}
