package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
)

func (c *cli) traceCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:   "trace REF",
		Short: "Say what happened under a reference",
		Long: `Say what was decided under a reference, which every page, error and line of the
log has: who allowed an app, which token it got, and whether it used it.`,
		Example: "  gatehouse trace req_01M8F5VP85TYQHMQ2KA9ZTY3MG",
		Args:    needs(1, 1, "the reference, req_…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var trace audit.Trace
			if err := c.ask(cmd.Context(), "get_trace", map[string]string{"ref": args[0]}, &trace); err != nil {
				return err
			}
			if c.json() {
				return c.print(trace)
			}
			c.showTrace(trace)
			return nil
		},
	})
}

func (c *cli) showTrace(trace audit.Trace) {
	var rows [][]string
	for _, e := range trace.Events {
		rows = append(rows, []string{
			time.UnixMicro(e.Time).UTC().Format("15:04:05.000"), e.Action, string(e.Outcome), strings.TrimSpace(e.Actor + " " + e.Client), told(e),
		})
	}
	c.table("", rows)
	for _, token := range trace.Unused {
		c.say("%s no tool was called with %s in the minute after", c.paint(c.out, bad), token)
		c.say("  likely  the app got the token but its next request did not reach us (proxy, firewall, other address)")
	}
}

// told is what else is known of an event, in one line.
func told(e audit.Event) string {
	parts := []string{e.Target, e.Code}
	for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
		parts = append(parts, name+"="+e.Detail[name])
	}
	return cut(oneLine(strings.Join(parts, " ")), 160)
}
