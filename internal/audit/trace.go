package audit

import (
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

var traceUnknown = problem.Code{
	Name: "TRACE_UNKNOWN", Kind: problem.NotFound,
	Why: "nothing was decided in it, or it is of another server or workspace",
	Fix: "take the reference from the page or the error; requests that decided nothing are in the server's log only",
}

// Trace is what was decided under one reference, and what became of it.
type Trace struct {
	Ref    string   `json:"ref" jsonschema:"the reference"`
	Events []Event  `json:"events" jsonschema:"in the order of their chains"`
	Unused []string `json:"unused_tokens,omitempty" jsonschema:"tokens that were issued more than a minute ago, and with which no tool was called within that minute"`
}

type traceIn struct {
	Ref string `json:"ref" jsonschema:"reference of a flow or request, req_ and 26 characters"`
}

const (
	maxTrace   = 200    // events that a trace shows
	lookBack   = 50_000 // calls have no index by their reference: so many of the last events are looked at
	tokenQuiet = time.Minute
)

// trace finds the events of a reference: in the caller's workspace, and for the
// owner in the system chain.
func (l *Log) trace(tx *store.Tx, p principal.Principal, in traceIn) (Trace, error) {
	found := Trace{Ref: in.Ref, Events: []Event{}}
	chains := []string{p.Workspace}
	if p.Rank >= principal.Owner {
		chains = append(chains, System)
	}
	for _, chain := range chains {
		if chain == "" || !strings.HasPrefix(in.Ref, "req_") {
			continue
		}
		err := each(tx, func(r *row, _ bool) error {
			found.Events = append(found.Events, r.Event)
			return nil
		}, `SELECT `+columns+` FROM (
				SELECT `+columns+` FROM audit_event WHERE workspace = $1 AND ref = $2 AND action <> 'tool.call'
				UNION ALL SELECT `+columns+` FROM audit_event WHERE workspace = $1 AND ref = $2 AND action = 'tool.call'
					AND seq > (SELECT seq FROM audit_head WHERE workspace = $1) - $3) AS found
			ORDER BY seq LIMIT $4`, chain, in.Ref, lookBack, maxTrace)
		if err != nil {
			return Trace{}, err
		}
	}
	if len(found.Events) == 0 {
		return Trace{}, traceUnknown.New("nothing is known of %q", clean(in.Ref))
	}
	for _, e := range found.Events {
		quiet, err := unused(tx, e)
		if err != nil {
			return Trace{}, err
		}
		if quiet {
			found.Unused = append(found.Unused, e.Token)
		}
	}
	return found, nil
}

// unused reports whether the event issued a token with which no tool was called
// in the minute after it.
func unused(tx *store.Tx, e Event) (bool, error) {
	until := e.Time + tokenQuiet.Microseconds()
	if e.Action != "token.issue" || e.Token == "" || tx.Now < until {
		return false, nil
	}
	var calls int
	err := tx.QueryRow(`SELECT count(*) FROM audit_event
		WHERE workspace = $1 AND seq > $2 AND seq <= $3 AND token = $4 AND action = 'tool.call' AND time_us <= $5`,
		e.Workspace, e.Seq, e.Seq+lookBack, e.Token, until).Scan(&calls)
	return calls == 0, err
}
