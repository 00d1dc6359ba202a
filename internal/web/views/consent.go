package views

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Risk is what a scope can do to what is there. The zero value is the
// highest: what nobody classified is hard to undo.
type Risk int

// The risks, highest first.
const (
	HardToUndo Risk = iota
	Change
	Read
)

var riskNames = [...]struct{ word, class, counted string }{
	HardToUndo: {"Hard to undo", "hard", "hard to undo"},
	Change:     {"Change", "change", "change"},
	Read:       {"Read", "read", "read"},
}

// Word is what the page calls the risk.
func (r Risk) Word() string { return riskNames[r].word }

// Class is the risk's name in the style sheet.
func (r Risk) Class() string { return riskNames[r].class }

// Tool is one tool that a line stands for, as pinned.
type Tool struct{ Name, Doc string }

// Line is one scope in plain words (R1203).
type Line struct {
	Text  string // what the app could do: "See invoices and customers"
	Risk  Risk
	Tools []Tool
	Field string // name of its box in the form; empty shows none
	Off   bool   // the box is not ticked
}

// Server is one group of lines.
type Server struct {
	Name  string
	Lines []Line
}

// ConsentView is the question whether an app that registered itself may act for
// somebody (R1202–R1206).
type ConsentView struct {
	Page
	Request  string // single-use handle
	CSRF     string
	Client   Client
	Imitates bool          // another app, which is approved, has its name
	Device   *Device       // that waits, where Client.Target is none to go to
	Asked    time.Duration // ago
	From     string        // where the question came from; empty if that is not known
	User     string        // who is signed in
	Switch   string        // own path on which somebody else signs in
	Fault    string        // why the last answer did not count, as a sentence
	Servers  []Server
	Known    []Server      // what it was allowed before; Servers is then what is new
	Before   time.Duration // ago, when it was last allowed; zero: never
	Later    bool          // it covers servers that are added later as well
	More     bool          // it covers tools that are added to servers later
	Keep     string        // the choice of time that is made: hour, month or always
}

// Device is one that shows a code and waits.
type Device struct {
	Code      string
	By        string // program that asked, as it calls itself; may be empty
	Elsewhere bool   // it asked from another network than the reader's
}

// Consent draws the form that posts request, csrf, decision (allow or deny), keep,
// the field of each ticked line as yes and, where the app runs on the reader's
// computer or on a device that waits, started=yes to /consent.
func Consent(w http.ResponseWriter, status int, v ConsentView) error {
	v.Servers, v.Known = byRisk(v.Servers), byRisk(v.Known)
	return render(w, status, "consent", inFlow, v)
}

// byRisk orders each server's lines from read to hard to undo, in a copy.
func byRisk(servers []Server) []Server {
	servers = slices.Clone(servers)
	for i := range servers {
		servers[i].Lines = slices.Clone(servers[i].Lines)
		slices.SortStableFunc(servers[i].Lines, func(a, b Line) int { return cmp.Compare(b.Risk, a.Risk) })
	}
	return servers
}

// A Choice is one for how long the connection is kept.
type Choice struct{ Value, Text string }

// Choices are all of them, shortest first.
func (ConsentView) Choices() []Choice {
	return []Choice{{"hour", "1 hour"}, {"month", "30 days"}, {"always", "Until I remove it"}}
}

// What is the object of the question: the one server, or how many.
func (v ConsentView) What() string {
	switch len(v.Servers) {
	case 0:
		return v.Product
	case 1:
		return claim(v.Servers[0].Name)
	}
	return count(len(v.Servers), "server", "servers")
}

// Collapsed reports whether the list is too long to be read at once: over three
// servers or eight lines. Servers are then one line each.
func (v ConsentView) Collapsed() bool { return len(v.Servers) > 3 || len(v.lines()) > 8 }

// Total counts everything the app could do.
func (v ConsentView) Total() string { return total(v.lines()) }

func (v ConsentView) lines() []Line {
	var all []Line
	for _, s := range v.Servers {
		all = append(all, s.Lines...)
	}
	return all
}

// Total counts what the app could do at this server.
func (s Server) Total() string { return total(s.Lines) }

// Worst is the highest risk among the lines.
func (s Server) Worst() Risk {
	worst := Read
	for _, l := range s.Lines {
		worst = min(worst, l.Risk)
	}
	return worst
}

// total counts tools by risk; a line without tools counts as one thing.
func total(lines []Line) string {
	sum, by := 0, map[Risk]int{}
	for _, l := range lines {
		n := max(len(l.Tools), 1)
		by[l.Risk] += n
		sum += n
	}
	var parts []string
	for _, r := range []Risk{Read, Change, HardToUndo} {
		if by[r] > 0 {
			parts = append(parts, count(by[r], riskNames[r].counted, riskNames[r].counted))
		}
	}
	return count(sum, "thing", "things") + ": " + strings.Join(parts, ", ")
}
