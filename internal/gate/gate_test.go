package gate

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// R510, R1013: one outcome event for every decision; a call that can change the
// world outside has a pending one before; what is refused or fails changes nothing.
func TestEveryDecisionHasOneOutcomeEvent(t *testing.T) {
	burn := func(context.Context) error { return errors.New("the server says no") }
	readonly, unscoped, direct := dana, dana, dana
	readonly.Rank = principal.Readonly
	unscoped.Scopes = []string{"mcp:read"}
	direct.Client = ""
	for _, tt := range []struct {
		does    string
		name    string
		change  func(*Call)
		world   func(context.Context) error
		code    string
		events  string
		notes   int
		touched int
	}{
		{does: "an inside tool", name: "write_note", events: "allowed", notes: 1},
		{does: "an inside tool that refuses", name: "refuse_note", code: "NOTE_REFUSED", events: "failed NOTE_REFUSED"},
		{does: "an inside tool that fails", name: "break_note", code: "INTERNAL", events: "failed INTERNAL"},
		{does: "an inside tool that panics", name: "panic_note", code: "TOOL_BROKE", events: "failed TOOL_BROKE"},
		{does: "an inside tool that fails and keeps a trace", name: "keep_note", code: "NOTE_REFUSED", events: "failed NOTE_REFUSED", notes: 1},
		{does: "a direct tool, directly", name: "sign_note", change: func(c *Call) { c.Principal = direct }, events: "allowed", notes: 1},
		{does: "a read outside", name: "up_read", events: "allowed", touched: 1},
		{does: "a write outside", name: "up_write", events: "pending, allowed", touched: 1},
		{does: "a tool that says nothing", name: "up_destroy", events: "pending, allowed", touched: 1},
		{does: "a read outside that fails", name: "up_read", world: burn, code: "INTERNAL", events: "failed UPSTREAM_ERROR", touched: 1},
		{does: "a write outside that fails", name: "up_write", world: burn, code: "INTERNAL", events: "pending, failed UPSTREAM_ERROR", touched: 1},
		{
			does: "a write outside that panics", name: "up_write", world: func(context.Context) error { panic("lost") },
			code: "TOOL_BROKE", events: "pending, failed TOOL_BROKE", touched: 1,
		},
		{does: "an unknown tool", name: "up_none", code: "TOOL_UNKNOWN", events: "denied TOOL_UNKNOWN"},
		{
			does: "a tool that the door does not offer", name: "up_write", change: func(c *Call) { c.Offered = func(tool.Tool) bool { return false } },
			code: "TOOL_UNKNOWN", events: "denied TOOL_UNKNOWN",
		},
		{does: "too low a rank", name: "write_note", change: func(c *Call) { c.Principal = readonly }, code: "RANK_TOO_LOW", events: "denied RANK_TOO_LOW"},
		{does: "a tool that names no rank", name: "own_note", code: "RANK_TOO_LOW", events: "denied RANK_TOO_LOW"}, // R705
		{does: "too small a scope", name: "write_note", change: func(c *Call) { c.Principal = unscoped }, code: "SCOPE_REQUIRED", events: "denied SCOPE_REQUIRED"},
		{does: "a direct tool through an app", name: "sign_note", code: "DIRECT_ONLY", events: "denied DIRECT_ONLY"},
		{
			does: "arguments that do not fit", name: "write_note", change: func(c *Call) { c.Args = json.RawMessage(`{"txt":1}`) },
			code: "ARGUMENTS_INVALID", events: "denied ARGUMENTS_INVALID",
		},
		{does: "no arguments where some are needed", name: "write_note", change: func(c *Call) { c.Args = nil }, code: "ARGUMENTS_INVALID", events: "denied ARGUMENTS_INVALID"},
	} {
		t.Run(tt.does, func(t *testing.T) {
			f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
			if tt.world != nil {
				f.world = tt.world
			}
			c := call(tt.name)
			if tt.change != nil {
				tt.change(&c)
			}
			out, err := f.Do(context.Background(), c)
			if code(err) != tt.code || (err == nil) != (string(out) == `{"text":"hi"}`) {
				t.Errorf("%s, %v; want %q", out, err, tt.code)
			}
			events := f.events("w1")
			if got := outcomes(events); got != tt.events {
				t.Errorf("events %q, want %q", got, tt.events)
			}
			args := c.Args
			if args == nil {
				args = json.RawMessage("{}")
			}
			for _, e := range events {
				want := audit.Event{
					Actor: "member:usr_dana", Action: "tool.call", Target: tt.name, Client: c.Principal.Client, Token: "tok", Door: "mcp", Ref: "req_1",
					Payload: audit.Digest(args), Outcome: e.Outcome, Code: e.Code, Call: events[0].Call,
				}
				if !reflect.DeepEqual(e, want) || (e.Call == "") != (e.Outcome == audit.Denied) {
					t.Errorf("recorded %+v, want %+v", e, want)
				}
			}
			if f.notes() != tt.notes || f.touched != tt.touched {
				t.Errorf("%d notes and %d times outside, want %d and %d", f.notes(), f.touched, tt.notes, tt.touched)
			}
		})
	}
}

// A tool that fails inside leaves nothing but its event, on both engines; one
// that keeps a trace has its event in the same transaction.
func TestWhatFailsInsideRollsBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := newFixture(t, db)
		for _, name := range []string{"refuse_note", "break_note", "panic_note"} {
			if _, err := f.Do(context.Background(), call(name)); err == nil {
				t.Errorf("%s succeeded", name)
			}
		}
		if f.notes() != 0 {
			t.Error("a call that failed left a note")
		}
		_, _ = f.Do(context.Background(), call("keep_note"))
		if got := outcomes(f.events("w1")); f.notes() != 1 || got != "failed NOTE_REFUSED, failed INTERNAL, failed TOOL_BROKE, failed NOTE_REFUSED" {
			t.Errorf("%d notes, events %s", f.notes(), got)
		}
		if report, err := f.Audit.Verify(context.Background(), "w1"); err != nil || report.Seq != 4 {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// What a panic said is for the log, not for the caller.
func TestCallerDoesNotSeeThePanic(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
	_, err := f.Do(context.Background(), call("panic_note"))
	p := problem.From(err)
	if !strings.Contains(err.Error(), "out of ink") || !strings.Contains(err.Error(), "fixture_test.go") {
		t.Errorf("the log would not see it: %v", err)
	}
	if p.Kind != problem.Internal || strings.Contains(p.Detail+p.Why+p.Fix, "ink") {
		t.Errorf("%+v", p)
	}
}

// The event is durable before the world is touched: whoever looks from there
// sees it.
func TestPendingIsDurableBeforeTheWorldIsTouched(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
	f.world = func(context.Context) error {
		if got := outcomes(f.events("w1")); got != "pending" {
			t.Errorf("in the middle of the call: %q", got)
		}
		return nil
	}
	if _, err := f.Do(context.Background(), call("up_write")); err != nil {
		t.Error(err)
	}
}

// Strangers are told only to sign in, whatever they name, and are counted: they
// cannot fill the log (R516).
func TestStrangersAreCountedNotRecorded(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
	for range 50 {
		for _, name := range []string{"write_note", "up_destroy", "no_such_tool", strings.Repeat("x", 5000)} {
			c := call(name)
			c.Principal = principal.Principal{}
			_, err := f.Do(context.Background(), c)
			if !problem.Is(err, SignInNeeded) || len(problem.From(err).Detail) > 500 {
				t.Fatalf("%.50s: %v", name, err)
			}
		}
		c := call("greet_all")
		c.Principal = principal.Principal{}
		if out, err := f.Do(context.Background(), c); err != nil || string(out) != `{"text":"hi"}` {
			t.Fatalf("%s, %v", out, err)
		}
	}
	if n := len(f.events(audit.System)); n != 0 || f.touched != 0 {
		t.Fatalf("%d events, %d times outside", n, f.touched)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Audit.Run(ended); err != nil { // writes down what was counted
		t.Fatal(err)
	}
	var got []string
	for _, e := range f.events(audit.System) {
		got = append(got, string(e.Outcome)+" "+e.Target)
	}
	if want := []string{"denied tool call refused: SIGN_IN_NEEDED", "allowed tool called: greet_all"}; !slices.Equal(got, want) {
		t.Errorf("recorded %q", got)
	}
}

// witness is a check that remembers what it was asked and objects when told to.
type witness struct {
	name   string
	asked  *[]string
	object func(c Call) error
}

func (w witness) Name() string { return w.name }

func (w witness) Check(_ context.Context, c Call, t tool.Tool) error {
	when := "now"
	if c.Args == nil {
		when = "ever"
	}
	*w.asked = append(*w.asked, w.name+" "+when+" "+t.FullName())
	if w.object == nil {
		return nil
	}
	return w.object(c)
}

func TestChecksAreAskedTwiceInOrder(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
	var asked []string
	f.Checks = []Check{witness{"first", &asked, nil}, witness{"second", &asked, nil}}
	for args, want := range map[string]string{
		`{"text":"hi"}`: "first ever write_note, second ever write_note, first now write_note, second now write_note",
		`{"text":1}`:    "first ever write_note, second ever write_note", // what does not fit is not judged further
	} {
		asked = nil
		c := call("write_note")
		c.Args = json.RawMessage(args)
		_, _ = f.Do(context.Background(), c)
		if got := strings.Join(asked, ", "); got != want {
			t.Errorf("%s: asked %s, want %s", args, got, want)
		}
	}
	asked = nil
	_, _ = f.Do(context.Background(), call("own_note"))
	if len(asked) != 0 {
		t.Errorf("what the declaration refuses was asked: %s", asked)
	}
}

// An objection is the answer, ends the asking, and is recorded. An objection to
// "ever" hides the tool; what is hidden cannot be called. A check that breaks
// objects.
func TestObjectionStandsAndIsRecorded(t *testing.T) {
	curfew := problem.Code{Name: "CURFEW", Kind: problem.Forbidden}
	for _, tt := range []struct {
		name   string
		object func(Call) error
		code   string
		listed bool
		asked  string
	}{
		{"never", func(Call) error { return curfew.New("never") }, "CURFEW", false, "first ever up_write"},
		{"not now", func(c Call) error {
			if c.Args == nil {
				return nil
			}
			return curfew.New("not now")
		}, "CURFEW", true, "first ever up_write, last ever up_write, first now up_write"},
		{"it fails", func(Call) error { return io.ErrUnexpectedEOF }, "INTERNAL", false, "first ever up_write"},
		{"it panics", func(Call) error { panic("no") }, "TOOL_BROKE", false, "first ever up_write"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
			var asked []string
			f.Checks = []Check{witness{"first", &asked, tt.object}, witness{"last", &asked, nil}}
			_, err := f.Do(context.Background(), call("up_write"))
			if code(err) != tt.code || f.touched != 0 || strings.Join(asked, ", ") != tt.asked {
				t.Errorf("%v, touched %d, asked %s", err, f.touched, asked)
			}
			if got := outcomes(f.events("w1")); got != "denied "+tt.code {
				t.Errorf("recorded %s", got)
			}
			listed := slices.ContainsFunc(f.List(context.Background(), dana), func(t tool.Tool) bool { return t.FullName() == "up_write" })
			if listed != tt.listed {
				t.Errorf("listed: %v", listed)
			}
		})
	}
}

// R704: List and Do take the same decision, and List changes nothing.
func TestListIsWhatCanBeCalled(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
	for _, rank := range []principal.Rank{principal.Unset, principal.Anyone, principal.Readonly, principal.Standard, principal.Owner} {
		for _, scopes := range [][]string{nil, {"mcp:read"}, {"notes:write"}, {"up:read"}, {"mcp:admin"}} {
			p := dana
			p.Rank, p.Scopes = rank, scopes
			before := len(f.events("w1"))
			list := f.List(context.Background(), p)
			if len(f.events("w1")) != before {
				t.Fatal("listing was recorded")
			}
			for _, known := range f.Registry.All() {
				c := call(known.FullName())
				c.Principal = p
				_, err := f.Do(context.Background(), c)
				refused := slices.Contains([]string{"TOOL_UNKNOWN", "RANK_TOO_LOW", "SCOPE_REQUIRED", "DIRECT_ONLY"}, code(err))
				if listed := slices.ContainsFunc(list, func(t tool.Tool) bool { return t.FullName() == c.Name }); listed == refused {
					t.Errorf("%v %v %s: listed %v, but %v", rank, scopes, c.Name, listed, err)
				}
			}
		}
	}
}

// A caller that goes away leaves its outcome event, whatever it was waiting for.
func TestOutcomeIsRecordedWhenTheCallerIsGone(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
	ctx, leave := context.WithCancel(context.Background())
	f.world = func(ctx context.Context) error {
		leave()
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := f.Do(ctx, call("up_write")); code(err) != "CALLER_GONE" {
		t.Errorf("outside: %v", err)
	}
	if _, err := f.Do(ctx, call("write_note")); code(err) != "CALLER_GONE" {
		t.Errorf("inside: %v", err)
	}
	if _, err := f.Do(ctx, call("no_such_tool")); code(err) != "TOOL_UNKNOWN" {
		t.Errorf("refused: %v", err)
	}
	want := "pending, failed CALLER_GONE, failed CALLER_GONE, denied TOOL_UNKNOWN"
	if got := outcomes(f.events("w1")); got != want || f.notes() != 0 {
		t.Errorf("recorded %s, want %s; %d notes", got, want, f.notes())
	}
}

// While nothing can be recorded nothing happens: neither inside nor outside,
// except that a read may be forwarded; its answer is withheld.
func TestNothingHappensUnrecorded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := newFixture(t, db)
		f.exec(`ALTER TABLE audit_event RENAME TO away`)
		for _, name := range []string{"write_note", "keep_note", "refuse_note", "panic_note", "up_write", "up_destroy", "own_note", "no_such_tool"} {
			if out, err := f.Do(context.Background(), call(name)); !problem.Is(err, audit.Unavailable) || out != nil {
				t.Errorf("%s: %s, %v", name, out, err)
			}
		}
		if f.touched != 0 || f.notes() != 0 {
			t.Errorf("%d times outside, %d notes", f.touched, f.notes())
		}
		if out, err := f.Do(context.Background(), call("up_read")); !problem.Is(err, audit.Unavailable) || out != nil {
			t.Errorf("read: %s, %v", out, err)
		}
		f.exec(`ALTER TABLE away RENAME TO audit_event`)
		for _, name := range []string{"write_note", "up_write"} {
			if _, err := f.Do(context.Background(), call(name)); err != nil {
				t.Errorf("afterwards %s: %v", name, err)
			}
		}
		if got := outcomes(f.events("w1")); got != "allowed, pending, allowed" {
			t.Errorf("recorded %s", got)
		}
	})
}

// A write outside whose outcome cannot be recorded is not answered; its pending
// event stays to be recovered as unknown.
func TestUnrecordedOutcomeIsNotAnswered(t *testing.T) {
	f := newFixture(t, storetest.Open(t, storetest.SQLite(t)))
	f.world = func(context.Context) error { f.exec(`ALTER TABLE audit_event RENAME TO away`); return nil }
	if out, err := f.Do(context.Background(), call("up_write")); !problem.Is(err, audit.Unavailable) || out != nil {
		t.Errorf("%s, %v", out, err)
	}
	f.exec(`ALTER TABLE away RENAME TO audit_event`)
	if got := outcomes(f.events("w1")); got != "pending" {
		t.Errorf("recorded %s", got)
	}
}
