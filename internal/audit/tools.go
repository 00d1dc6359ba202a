package audit

import (
	"context"
	"errors"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

var chainUnknown = problem.Code{
	Name: "AUDIT_CHAIN_UNKNOWN", Kind: problem.NotFound,
	Why: "a chain is read by its workspace, and the system chain by the owner",
	Fix: "leave chain out to read your workspace's",
}

// Tools are the log as callers see it (R1012).
func (l *Log) Tools() []tool.Tool {
	def := func(name, doc string) tool.Def {
		return tool.Def{Name: name, Doc: doc, Effect: tool.Reads, Caller: principal.Admin, Scope: "audit:read"}
	}
	return []tool.Tool{
		tool.Define(def("list_audit_events", "List what was decided and done, in the order of the chain."), l.list),
		tool.Define(def("get_audit_chain_head", "Get the signed end of the audit chain."), l.chainHead),
		tool.Define(def("get_trace", "Get what was decided under one reference, and whether the token that came of it was used."), l.trace),
		tool.Reach(def("verify_audit_chain", "Walk the audit chain and report the first break."), l.verifyChain),
	}
}

// Page is a part of a chain.
type Page struct {
	Chain  string  `json:"chain" jsonschema:"the chain"`
	Events []Event `json:"events" jsonschema:"in the order of the chain"`
}

// Verdict is the answer of verify_audit_chain.
type Verdict struct {
	Report
	Intact bool   `json:"intact" jsonschema:"whether nothing is wrong"`
	Break  *Break `json:"break,omitempty" jsonschema:"the first place where something is wrong"`
}

type chainIn struct {
	Chain string `json:"chain,omitempty" jsonschema:"workspace of the chain; the caller's if left out; system is the owner's"`
}

type listIn struct {
	chainIn
	Since  int64 `json:"since_seq,omitempty" jsonschema:"only events after this one"`
	Limit  int   `json:"limit,omitempty" jsonschema:"how many at most: 100 if left out, 1000 at most"`
	Denied bool  `json:"denied,omitempty" jsonschema:"only refusals"`
	Newest bool  `json:"newest,omitempty" jsonschema:"the last events instead of the first ones; still in the order of the chain"`
}

// readable is the chain that the principal asks for, if it may be read.
func readable(p principal.Principal, in chainIn) (string, error) {
	switch {
	case in.Chain == "" && p.Workspace != "", in.Chain == p.Workspace && p.Workspace != "":
		return p.Workspace, nil
	case in.Chain == System && p.Rank >= principal.Owner:
		return System, nil
	}
	return "", chainUnknown.New("there is no audit chain %q for you", clean(in.Chain))
}

func (l *Log) list(tx *store.Tx, p principal.Principal, in listIn) (Page, error) {
	chain, err := readable(p, in.chainIn)
	if err != nil {
		return Page{}, err
	}
	page := Page{Chain: chain, Events: []Event{}}
	err = each(tx, func(r *row, _ bool) error { // showing is not verifying
		page.Events = append(page.Events, r.Event)
		return nil
	}, in.query(), chain, in.Since, in.limit())
	return page, err
}

func (in listIn) limit() int {
	if in.Limit <= 0 {
		return 100
	}
	return min(in.Limit, pageRows)
}

func (in listIn) query() string {
	where := ` FROM audit_event WHERE workspace = $1 AND seq > $2`
	if in.Denied {
		where += ` AND outcome = 'denied'`
	}
	if in.Newest {
		return `SELECT ` + columns + ` FROM (SELECT ` + columns + where + ` ORDER BY seq DESC LIMIT $3) AS newest ORDER BY seq`
	}
	return `SELECT ` + columns + where + ` ORDER BY seq LIMIT $3`
}

func (l *Log) chainHead(tx *store.Tx, p principal.Principal, in chainIn) (SignedHead, error) {
	chain, err := readable(p, in)
	if err != nil {
		return SignedHead{}, err
	}
	return l.Head(tx, chain)
}

func (l *Log) verifyChain(ctx context.Context, p principal.Principal, in chainIn) (Verdict, error) {
	chain, err := readable(p, in)
	if err != nil {
		return Verdict{}, err
	}
	report, err := l.Verify(ctx, chain)
	report.Key = l.Thumbprint() // to compare exports with
	if broken, ok := errors.AsType[*Break](err); ok {
		return Verdict{Report: Report{Chain: chain, From: 1, Key: l.Thumbprint()}, Break: broken}, nil
	}
	return Verdict{Report: report, Intact: err == nil}, err
}
