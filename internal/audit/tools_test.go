package audit

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// use calls a tool of the log, past the gate.
func use(t *testing.T, l *Log, name string, p principal.Principal, args string, out any) error {
	t.Helper()
	for _, tl := range l.Tools() {
		if tl.Name != name {
			continue
		}
		if err := tl.Fits(json.RawMessage(args)); err != nil {
			return err
		}
		var answer json.RawMessage
		var err error
		if tl.Outside != nil {
			answer, err = tl.Outside(t.Context(), tool.Request{Principal: p, Args: json.RawMessage(args)})
		} else {
			err = l.DB.View(t.Context(), func(tx *store.Tx) (err error) {
				answer, err = tl.Inside(tx, p, json.RawMessage(args))
				return err
			})
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(answer, out)
	}
	t.Fatalf("no tool %s", name)
	return nil
}

func admin(workspace string) principal.Principal {
	return principal.Principal{Kind: principal.Member, User: "usr_1", Workspace: workspace, Rank: principal.Admin}
}

// R1012: the log is read through tools that only read, from admin upwards.
func TestToolsReadAndBelongToAdmins(t *testing.T) {
	for _, tl := range (&Log{}).Tools() {
		if tl.Effect != tool.Reads || tl.MayCall() != principal.Admin || tl.Scope != "audit:read" {
			t.Errorf("%s: %+v", tl.Name, tl.Def)
		}
	}
}

// Nothing crosses workspaces; the system chain is the owner's.
func TestChainIsReadByItsWorkspaceOnly(t *testing.T) {
	owner := admin("a")
	owner.Rank = principal.Owner
	nowhere := admin("")
	tests := []struct {
		p     principal.Principal
		args  string
		chain string // empty: refused
	}{
		{admin("a"), `{}`, "a"},
		{admin("a"), `{"chain":"a"}`, "a"},
		{owner, `{"chain":"system"}`, System},
		{owner, `{}`, "a"},
		{owner, `{"chain":"b"}`, ""},
		{admin("a"), `{"chain":"b"}`, ""},
		{admin("a"), `{"chain":"system"}`, ""},
		{admin("a"), `{"chain":"none"}`, ""},
		{nowhere, `{}`, ""},
		{nowhere, `{"chain":"a"}`, ""},
	}
	eachLog(t, func(t *testing.T, l *Log) {
		fill(t, l)
		write(t, l, call(System))
		for _, tt := range tests {
			for _, name := range []string{"list_audit_events", "get_audit_chain_head", "verify_audit_chain"} {
				var out struct{ Chain, Workspace string }
				err := use(t, l, name, tt.p, tt.args, &out)
				if got := out.Chain + out.Workspace; got != tt.chain || (err == nil) != (tt.chain != "") {
					t.Errorf("%s %s as %s of %q: chain %q, %v", name, tt.args, tt.p.Rank, tt.p.Workspace, got, err)
				}
				if tt.chain == "" && !problem.Is(err, chainUnknown) {
					t.Errorf("%s %s: %v, want %s", name, tt.args, err, chainUnknown.Name)
				}
			}
		}
	})
}

func TestListIsInTheOrderOfTheChain(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		for i := range 150 {
			e := call("a")
			if i%50 == 49 {
				e.Outcome = Denied
			}
			write(t, l, e)
		}
		for args, want := range map[string][3]int64{ // number, first and last
			`{}`:                            {100, 1, 100},
			`{"limit":1000}`:                {150, 1, 150},
			`{"limit":999999}`:              {150, 1, 150},
			`{"limit":-5}`:                  {100, 1, 100},
			`{"since_seq":140}`:             {10, 141, 150},
			`{"since_seq":150}`:             {0, 0, 0},
			`{"limit":2,"newest":true}`:     {2, 149, 150},
			`{"denied":true}`:               {3, 50, 150},
			`{"denied":true,"limit":1}`:     {1, 50, 50},
			`{"denied":true,"newest":true}`: {3, 50, 150},
			`{"denied":true,"newest":true,"limit":2,"since_seq":1}`: {2, 100, 150},
		} {
			var page Page
			if err := use(t, l, "list_audit_events", admin("a"), args, &page); err != nil {
				t.Errorf("%s: %v", args, err)
				continue
			}
			got := [3]int64{int64(len(page.Events))}
			if n := len(page.Events); n > 0 {
				got[1], got[2] = page.Events[0].Seq, page.Events[n-1].Seq
			}
			if got != want || page.Events == nil {
				t.Errorf("%s: %v, want %v", args, got, want)
			}
		}
		var page Page
		for _, args := range []string{`{"limit":"10"}`, `{"surplus":1}`, `{"since_seq":1.5}`} {
			if err := use(t, l, "list_audit_events", admin("a"), args, &page); err == nil {
				t.Errorf("%s fits", args)
			}
		}
	})
}

// What the tools answer is enough to write an export that verifies: the
// command has nothing else.
func TestToolsAnswerWhatAnExportNeeds(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		fill(t, l)
		e := call("a")
		e.Target, e.Detail = "<&>\u2028\t", map[string]string{"\U0001F600": "\x00", "\uFB01": "ü"}
		write(t, l, e)
		var h SignedHead
		var page Page
		if err := use(t, l, "get_audit_chain_head", admin("a"), `{}`, &h); err != nil {
			t.Fatal(err)
		}
		if err := use(t, l, "list_audit_events", admin("a"), `{}`, &page); err != nil {
			t.Fatal(err)
		}
		file, err := exported(page.Events, h)
		if err != nil {
			t.Fatal(err)
		}
		if r := verifies(t, file); r.Seq != 6 || r.Key != l.Thumbprint() {
			t.Errorf("report %+v", r)
		}
	})
}

func TestVerdictNamesTheBreak(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		fill(t, l)
		var v Verdict
		if err := use(t, l, "verify_audit_chain", admin("a"), `{}`, &v); err != nil || !v.Intact || v.Seq != 5 || v.Break != nil {
			t.Errorf("intact: %+v, %v", v, err)
		}
		exec(t, l, `DELETE FROM audit_event WHERE workspace = 'a' AND seq = 4`)
		v = Verdict{}
		if err := use(t, l, "verify_audit_chain", admin("a"), `{}`, &v); err != nil || v.Intact || v.Break == nil || v.Break.Seq != 4 {
			t.Errorf("broken: %+v, %v", v, err)
		}
		if s := fmt.Sprint(v.Break); s == "" {
			t.Error("a break without words")
		}
	})
}
