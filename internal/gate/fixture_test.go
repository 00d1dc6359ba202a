package gate

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

var noteRefused = problem.Code{Name: "NOTE_REFUSED", Kind: problem.Conflict}

type textIn struct {
	Text string `json:"text"`
}

// fixture is a gate with tools of every manner, and what they did.
type fixture struct {
	*Gate
	t       *testing.T
	touched int                             // how often the world was reached
	world   func(ctx context.Context) error // what happens there
}

func newFixture(t *testing.T, db *store.DB) *fixture {
	t.Helper()
	key, err := seal.LoadKey(filepath.Join(t.TempDir(), "master.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	log := &audit.Log{DB: db, Box: seal.Box{Keeper: key}}
	db.BeforeCommit = log.Seal
	f := &fixture{Gate: &Gate{DB: db, Audit: log, Registry: &tool.Registry{}}, t: t, world: func(context.Context) error { return nil }}
	if err := log.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.exec(`CREATE TABLE note (text TEXT NOT NULL)`)
	for origin, tools := range map[string][]tool.Tool{"": f.inside(), "up": f.outside()} {
		if err := f.Registry.Publish(origin, tools); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// inside are tools that write a note and then end in different ways.
func (f *fixture) inside() []tool.Tool {
	define := func(d tool.Def, end func() error) tool.Tool {
		d.Doc = "Write a note."
		return tool.Define(d, func(tx *store.Tx, _ principal.Principal, in textIn) (textIn, error) {
			if _, err := tx.Exec(`INSERT INTO note (text) VALUES ($1)`, in.Text); err != nil {
				return in, err
			}
			return in, end()
		})
	}
	standard := func(name string) tool.Def {
		return tool.Def{Name: name, Effect: tool.Writes, Caller: principal.Standard, Scope: "notes:write"}
	}
	direct := standard("sign_note")
	direct.Direct = true
	return []tool.Tool{
		define(standard("write_note"), func() error { return nil }),
		define(standard("refuse_note"), func() error { return noteRefused.New("no") }),
		define(standard("break_note"), func() error { return errors.New("disk on fire") }),
		define(standard("panic_note"), func() error { panic("out of ink") }),
		define(standard("keep_note"), func() error { return store.Keep(noteRefused.New("no")) }),
		define(direct, func() error { return nil }),
		define(tool.Def{Name: "own_note", Scope: "notes:admin"}, func() error { return nil }),
		define(tool.Def{Name: "greet_all", Effect: tool.Reads, Caller: principal.Anyone}, func() error { return nil }),
	}
}

// outside are tools of a server behind us, of every effect.
func (f *fixture) outside() []tool.Tool {
	var tools []tool.Tool
	for name, effect := range map[string]tool.Effect{"read": tool.Reads, "write": tool.Writes, "destroy": tool.Destroys} {
		tools = append(tools, tool.Forward(
			tool.Def{Name: name, Effect: effect, Caller: principal.Standard, Scope: "up:read"}, "up", json.RawMessage(`{}`),
			func(ctx context.Context, r tool.Request) (json.RawMessage, error) {
				f.touched++
				if err := f.world(ctx); err != nil {
					return nil, err
				}
				return r.Args, nil
			}))
	}
	return tools
}

func (f *fixture) exec(statement string) {
	f.t.Helper()
	err := f.DB.Do(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(statement)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// events are the recorded events of a chain, in the order of the chain.
func (f *fixture) events(chain string) []audit.Event {
	f.t.Helper()
	var events []audit.Event
	err := f.DB.View(context.Background(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT actor, action, target, client, token, door, ref, outcome, code, call, payload_hash
			FROM audit_event WHERE workspace = $1 ORDER BY seq`, chain)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var e audit.Event
			if err := rows.Scan(&e.Actor, &e.Action, &e.Target, &e.Client, &e.Token, &e.Door, &e.Ref, &e.Outcome, &e.Code, &e.Call, &e.Payload); err != nil {
				return err
			}
			events = append(events, e)
		}
		return rows.Err()
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return events
}

// outcomes are the outcomes and codes of events in one line.
func outcomes(events []audit.Event) string {
	var words []string
	for _, e := range events {
		words = append(words, strings.TrimSpace(string(e.Outcome)+" "+e.Code))
	}
	return strings.Join(words, ", ")
}

func (f *fixture) notes() (n int) {
	f.t.Helper()
	err := f.DB.View(context.Background(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM note`).Scan(&n)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// dana may do everything but what is the owner's, through an app.
var dana = principal.Principal{
	Kind: principal.Member, Workspace: "w1", User: "usr_dana", Client: "app", Token: "tok", Rank: principal.Standard, Scopes: []string{"mcp:tools"},
}

func call(name string) Call {
	return Call{Principal: dana, Name: name, Args: json.RawMessage(`{"text":"hi"}`), Door: "mcp", Remote: "127.0.0.1:1", Ref: "req_1"}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Name
}
