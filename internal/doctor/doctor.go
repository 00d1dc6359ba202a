// Package doctor asks an MCP server from outside whether it protects itself as MCP
// and OAuth demand, and says for each fault what was expected, what was seen and
// how to cure it.
//
// It knows no secret and follows no redirect. Unless it is told to register an app,
// it changes nothing at the server.
package doctor

import (
	"context"
	"errors"
	"net/http"
)

// Verdict is what became of a check.
type Verdict string

// A fault breaks honest clients or protects nobody; a warning is what the standards
// only recommend; what could not be looked at is skipped, and says why.
const (
	Good    Verdict = "ok"
	Fault   Verdict = "fault"
	Warning Verdict = "warning"
	Skipped Verdict = "skipped"
)

// Finding is one check and its result.
type Finding struct {
	Check       string  `json:"check"`
	Group       string  `json:"group"`
	Verdict     Verdict `json:"verdict"`
	Expected    string  `json:"expected"`
	Seen        string  `json:"seen"`
	Fix         string  `json:"fix,omitempty"` // of faults and warnings
	Reference   string  `json:"reference"`     // where it is demanded
	Requirement string  `json:"requirement,omitempty"`
}

// Report is the result of an examination.
type Report struct {
	Server   string    `json:"server"`
	Issuer   string    `json:"issuer,omitempty"`
	Findings []Finding `json:"findings"`
}

// Count is how many findings have the verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, f := range r.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Options say what to examine.
type Options struct {
	Server  string // address of the MCP endpoint, https or http
	Version string // of the program, for the server's log

	// Register lets it register an app, where anybody may, to see more, and remove
	// it again (RFC 7591, RFC 7592).
	Register bool

	// HTTP carries the requests; http.DefaultTransport if nil.
	HTTP http.RoundTripper
}

// ErrUnreachable is that nothing answers at the address.
var ErrUnreachable = errors.New("nothing answers there")

// check is one question. Its function may rely on what those before it found out.
type check struct {
	id, group   string
	expected    string
	fix         string
	reference   string
	requirement string
	run         func(*exam) outcome
}

// outcome is the answer. A check that has more than one way to fail says its own
// cure.
type outcome struct {
	verdict   Verdict
	seen, fix string
}

// Examine carries out all checks in order. It fails only if there is no server.
func Examine(ctx context.Context, o Options) (Report, error) {
	e, err := newExam(ctx, o)
	if err != nil {
		return Report{}, err
	}
	defer e.cleanUp()
	r := Report{Server: o.Server}
	for _, c := range checks() {
		e.busy = false
		out := c.run(e)
		if e.busy && (out.verdict == Fault || out.verdict == Warning) {
			out = skip("the server asked to slow down (429)")
		}
		f := Finding{
			Check: c.id, Group: c.group, Verdict: out.verdict, Expected: c.expected, Seen: clean(out.seen), Reference: c.reference, Requirement: c.requirement,
		}
		if f.Verdict == Fault || f.Verdict == Warning {
			if f.Fix = out.fix; f.Fix == "" {
				f.Fix = c.fix
			}
		}
		r.Findings = append(r.Findings, f)
	}
	r.Issuer = clean(e.as.Issuer)
	return r, nil
}

// checks are all of them, each after what it relies on.
func checks() []check {
	var all []check
	for _, group := range [][]check{serverChecks, discoveryChecks, issuerChecks, grantChecks, appChecks} {
		all = append(all, group...)
	}
	return all
}

func good(seen string) outcome { return outcome{verdict: Good, seen: seen} }

func fault(seen string) outcome { return outcome{verdict: Fault, seen: seen} }

func warning(seen string) outcome { return outcome{verdict: Warning, seen: seen} }

func skip(why string) outcome { return outcome{verdict: Skipped, seen: why} }

// must is good if ok, else a fault with the same words.
func must(ok bool, seen string) outcome {
	if ok {
		return good(seen)
	}
	return fault(seen)
}

// should is good if ok, else a warning.
func should(ok bool, seen string) outcome {
	if ok {
		return good(seen)
	}
	return warning(seen)
}
