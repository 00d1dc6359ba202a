package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var fileUnusable = problem.Code{
	Name: "FILE_UNUSABLE", Kind: problem.Invalid,
	Fix:   "check the path, and who may read and write there",
	About: "a file that a command should read or write cannot be",
}

// auditQuery is what list_audit_events takes.
type auditQuery struct {
	Chain  string `json:"chain,omitempty"`
	Since  int64  `json:"since_seq,omitempty"`
	Limit  int    `json:"limit,omitempty"`
	Denied bool   `json:"denied,omitempty"`
	Newest bool   `json:"newest,omitempty"`
}

// auditPage is how many events are asked for at once.
const auditPage = 1000

func (c *cli) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "audit",
		Short:   "Read, export and verify the log of what was decided and done",
		Example: "  gatehouse audit tail --denied\n  gatehouse audit export log.jsonl\n  gatehouse audit verify log.jsonl",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(c.auditTailCommand(), c.auditExportCommand(), c.auditVerifyCommand())
	return cmd
}

func (c *cli) events(ctx context.Context, q auditQuery) ([]audit.Event, error) {
	var page audit.Page
	err := c.ask(ctx, "list_audit_events", q, &page)
	return page.Events, err
}

func (c *cli) auditTailCommand() *cobra.Command {
	var q auditQuery
	var follow bool
	cmd := c.onServer(&cobra.Command{
		Use:     "tail",
		Short:   "Show the last events",
		Example: "  gatehouse audit tail\n  gatehouse audit tail --follow --denied\n  gatehouse audit tail --since-seq 4100 -o json",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 1 {
				return usage.New("--lines %d shows nothing", q.Limit).WithFix("say how many, from 1")
			}
			return c.tail(cmd.Context(), q, follow)
		},
	})
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on as events come in, until Ctrl+C")
	f.BoolVar(&q.Denied, "denied", false, "only refusals")
	f.IntVarP(&q.Limit, "lines", "n", 20, "how many at most")
	f.Int64Var(&q.Since, "since-seq", 0, "only events after this one, all of them")
	f.StringVar(&q.Chain, "chain", "", "which chain (default: that of the workspace)")
	return cmd
}

// poll is how often --follow looks for more.
const poll = time.Second

func (c *cli) tail(ctx context.Context, q auditQuery, follow bool) error {
	q.Newest = q.Since == 0
	if !q.Newest {
		q.Limit = auditPage
	}
	for {
		events, err := c.events(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := c.showEvent(e); err != nil {
				return err
			}
			q.Since = e.Seq
		}
		full := len(events) == auditPage && !q.Newest
		q.Newest, q.Limit = false, auditPage
		if full {
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // how a tail ends
		case <-time.After(poll):
		}
	}
}

func (c *cli) showEvent(e audit.Event) error {
	if c.json() {
		return c.print(e)
	}
	outcome := string(e.Outcome)
	if e.Outcome == audit.Denied || e.Outcome == audit.Failed || e.Outcome == audit.Unknown {
		outcome = strings.ToUpper(outcome)
	}
	c.say("#%-8s %s  %-26s %-44s %-8s %s", thousands(e.Seq), time.UnixMicro(e.Time).Format("15:04:05"),
		cut(oneLine(e.Actor), 26), cut(oneLine(e.Action+" "+e.Target), 44), outcome, oneLine(e.Code))
	return nil
}

func (c *cli) auditExportCommand() *cobra.Command {
	var chain string
	cmd := c.onServer(&cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the whole log, ending with a signed head",
		Long: `Write the whole log as JSON Lines to FILE or to stdout. The last line is the
signed head: it shows that nothing was cut off. Check it with
gatehouse audit verify FILE, on any computer.`,
		Example: "  gatehouse audit export log.jsonl\n  gatehouse audit export --chain system > system.jsonl",
		Args:    needs(0, 1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			var head audit.SignedHead
			if err := c.ask(ctx, "get_audit_chain_head", auditQuery{Chain: chain}, &head); err != nil {
				return err
			}
			write := func(w io.Writer) error { return audit.Export(w, c.all(ctx, chain, head.Seq), head) }
			if len(args) == 0 || args[0] == "-" {
				return write(c.out)
			}
			if err := writeFile(args[0], write); err != nil {
				return err
			}
			c.done("Wrote %s and the signed head to %s", plural(int(head.Seq), "event"), args[0])
			return nil
		},
	})
	cmd.Flags().StringVar(&chain, "chain", "", "which chain (default: that of the workspace)")
	return cmd
}

// all are the events of a chain up to its head.
func (c *cli) all(ctx context.Context, chain string, head int64) iter.Seq2[audit.Event, error] {
	return func(yield func(audit.Event, error) bool) {
		for since := int64(0); since < head; {
			events, err := c.events(ctx, auditQuery{Chain: chain, Since: since, Limit: auditPage})
			if err != nil {
				yield(audit.Event{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				since = e.Seq
			}
			if len(events) == 0 {
				return
			}
		}
	}
}

// writeFile writes a file that is there whole or not at all, for this user only.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".gatehouse-*")
	if err != nil {
		return fileUnusable.New("can't write %s", path).WithWhy("%v", cause(err)).Because(err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already, unless something failed
	err = write(f)
	if closed := f.Close(); err == nil && closed != nil {
		err = fileUnusable.New("can't write %s", path).WithWhy("%v", cause(closed)).Because(closed)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fileUnusable.New("can't write %s", path).WithWhy("%v", cause(err)).Because(err)
	}
	return nil
}

// cause is an error of the file system without the path that is named anyway.
func cause(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	var key, chain string
	cmd := c.onServer(&cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check that nothing in the log was changed",
		Long: `Check the log of the running server, or an export, which needs no server. Exit
code 8 means that something was changed.`,
		Example: "  gatehouse audit verify\n  gatehouse audit verify log.jsonl --key THUMBPRINT",
		Args:    needs(0, 1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			began := time.Now()
			verdict, err := c.verify(cmd.Context(), args, chain, key)
			if err != nil {
				return err
			}
			if c.json() {
				if err := c.print(verdict); err != nil {
					return err
				}
			} else {
				c.showVerdict(verdict, time.Since(began))
			}
			if !verdict.Intact {
				return exit(exitVerify)
			}
			return nil
		},
	})
	cmd.Flags().StringVar(&key, "key", "", "thumbprint of the key that must have signed the export")
	cmd.Flags().StringVar(&chain, "chain", "", "which chain of the server (default: that of the workspace)")
	return cmd
}

func (c *cli) verify(ctx context.Context, args []string, chain, key string) (v audit.Verdict, err error) {
	if len(args) == 0 {
		err = c.ask(ctx, "verify_audit_chain", auditQuery{Chain: chain}, &v)
		return v, err
	}
	in := c.in
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return v, fileUnusable.New("can't read %s", args[0]).WithWhy("%v", cause(err)).Because(err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	v.Report, err = audit.VerifyExport(in, key)
	if broken, ok := errors.AsType[*audit.Break](err); ok {
		return audit.Verdict{Break: broken}, nil
	}
	if err != nil {
		return v, fileUnusable.New("can't read %s", args[0]).WithWhy("%v", cause(err)).Because(err)
	}
	v.Intact = true
	return v, nil
}

func (c *cli) showVerdict(v audit.Verdict, took time.Duration) {
	switch {
	case v.Break != nil && v.Break.Line > 0:
		c.say("%s Breaks at line %s, event #%s: %s", c.paint(c.out, bad), thousands(v.Break.Line), thousands(v.Break.Seq), oneLine(v.Break.What))
	case v.Break != nil:
		c.say("%s Breaks at event #%s: %s", c.paint(c.out, bad), thousands(v.Break.Seq), oneLine(v.Break.What))
	case v.Seq == 0:
		c.say("%s Intact: no events yet", c.paint(c.out, good))
	default:
		c.say("%s Intact: #%s … #%s, %.1f s", c.paint(c.out, good), thousands(v.From), thousands(v.Seq), took.Seconds())
	}
	if v.Break != nil {
		c.say("  keep it as it is, rely on no line of it, and compare it with another copy")
	}
	switch {
	case v.Key == "":
	case v.Time == 0:
		c.say("  exports are signed by key %s", v.Key)
	default:
		c.say("  signed %s by key %s", time.UnixMicro(v.Time).Format("2 Jan 2006 15:04"), v.Key)
	}
	if v.Time != 0 && !v.Pinned {
		c.talk("%s Anybody can make a key: compare it with that of gatehouse audit verify on the server, or say --key", c.paint(c.err, caution))
	}
}
