package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

var admin = principal.Principal{Kind: principal.Member, Workspace: "default", User: "ada", Rank: principal.Admin}

// node is one gateway process on a database.
func node(t *testing.T, db *store.DB, key string) *Servers {
	t.Helper()
	k, err := seal.LoadKey(key, true)
	if err != nil {
		t.Fatal(err)
	}
	s := &Servers{
		DB: db, Registry: new(tool.Registry), Box: seal.Box{Keeper: k}, Log: quiet(),
		Public: "http://localhost:3000", Version: "test",
	}
	if err := db.Migrate(t.Context(), "upstream", migrations); err != nil {
		t.Fatal(err)
	}
	if err := s.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

func newNode(t *testing.T) *Servers {
	return node(t, storetest.Open(t, storetest.SQLite(t)), filepath.Join(t.TempDir(), "key"))
}

// use calls one of the room's own tools as the gate would.
func use[Out any](t testing.TB, s *Servers, name string, in any) (out Out, err error) {
	t.Helper()
	for _, own := range s.Tools() {
		if own.Name != name {
			continue
		}
		args, _ := json.Marshal(in)
		if err := own.Fits(args); err != nil {
			return out, err
		}
		raw, err := own.Outside(t.Context(), tool.Request{Principal: admin, Args: args})
		if err == nil {
			err = json.Unmarshal(raw, &out)
		}
		return out, err
	}
	t.Fatalf("no tool %s", name)
	return out, nil
}

func fixtureIn(t testing.TB, name, manner string) addIn {
	return addIn{Name: name, Command: fixtureSpec(t, manner).Command, Env: fixtureEnv(manner)}
}

func mustAdd(t testing.TB, s *Servers, in addIn) addOut {
	t.Helper()
	out, err := use[addOut](t, s, "add_server", in)
	if err != nil {
		t.Fatalf("%v, why %q", err, problem.From(err).Why)
	}
	return out
}

func published(s *Servers) string {
	var names []string
	for _, tt := range s.Registry.All() {
		names = append(names, tt.FullName())
	}
	return strings.Join(names, " ")
}

// R705: hints decide what a tool demands; without them the worst is assumed.
func TestAddPinsAndPublishes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := node(t, db, filepath.Join(t.TempDir(), "key"))
		out := mustAdd(t, s, fixtureIn(t, "fix", "good"))
		want := addOut{
			Name: "fix", Protocol: mcp.Latest, Server: serverInfo{"fixture", "1"},
			Endpoints: []string{"http://localhost:3000/mcp", "http://localhost:3000/s/fix/mcp"},
			Tools: []addTool{
				{"echo", "read", "fix:read", true}, {"write", "change", "fix:write", true},
				{"wipe", "hard to undo", "fix:admin", true}, {"silent", "hard to undo", "fix:admin", false},
			},
			Warning: "Tools left out, because their names cannot be used or are used twice: 2.",
		}
		if fmt.Sprint(out) != fmt.Sprint(want) {
			t.Errorf("got  %+v\nwant %+v", out, want)
		}
		ranks := map[string]principal.Rank{
			"fix_echo": principal.Readonly, "fix_write": principal.Standard, "fix_wipe": principal.Admin, "fix_silent": principal.Admin,
		}
		for name, rank := range ranks {
			if got, ok := s.Registry.Lookup(name); !ok || got.MayCall() != rank || !got.Forwarded {
				t.Errorf("%s: %+v", name, got.Def)
			}
		}
		echo, _ := s.Registry.Lookup("fix_echo")
		if !bytes.Contains(echo.Definition, []byte(`"x-odd":1.0`)) || echo.Doc != "Say it again." {
			t.Errorf("pinned %s", echo.Definition)
		}
	})
}

func TestAddOverHTTP(t *testing.T) {
	r, s := newRemote(t), newNode(t)
	out := mustAdd(t, s, addIn{Name: "far", URL: r.URL + "/mcp?key=secret"})
	if out.Protocol != "2025-06-18" || len(out.Tools) != 4 || !strings.Contains(out.Warning, "without any login") {
		t.Errorf("%+v", out)
	}
	list, err := use[listOut](t, s, "list_servers", listIn{})
	want := listServer{Name: "far", Kind: "http", Address: r.URL + "/mcp?…", State: Connected, Tools: 4, Since: list.Servers[0].Since}
	if since, err := time.Parse(time.RFC3339, want.Since); err != nil || time.Since(since).Abs() > time.Minute {
		t.Errorf("connected since %q", want.Since)
	}
	if err != nil || !slices.Equal(list.Servers, []listServer{want}) {
		t.Errorf("%+v, %v", list, err)
	}
}

// A call goes out with the parameters as they came, but for our prefix.
func TestForward(t *testing.T) {
	s := newNode(t)
	mustAdd(t, s, fixtureIn(t, "fix", "good"))
	echo, _ := s.Registry.Lookup("fix_echo")
	tests := []struct{ params, args, want string }{
		{`{ "name":"fix_echo", "arguments":{"b":1.50}, "_meta":{"x":1} }`, ``, `{ "name":"echo", "arguments":{"b":1.50}, "_meta":{"x":1} }`},
		{`{ "arguments":{}, "name":"echo" }`, ``, `{ "arguments":{}, "name":"echo" }`},
		{``, `{"b":1.50}`, `{"name":"echo","arguments":{"b":1.50}}`},
		{``, ``, `{"name":"echo","arguments":{}}`},
	}
	for _, tt := range tests {
		r := tool.Request{Principal: admin, Params: json.RawMessage(tt.params), Args: json.RawMessage(tt.args)}
		if tt.params == "" {
			r.Params = nil
		}
		result, err := echo.Outside(t.Context(), r)
		if err != nil || string(mcp.Field(result, "params")) != tt.want {
			t.Errorf("%s arrived as %s, %v", tt.params, result, err)
		}
	}
}

// nobody is the session of a caller without one.
var nobody tool.Session

// peer is a caller that keeps what it hears and answers as told.
type peer struct {
	notes  []string
	answer func(method string, params json.RawMessage) (json.RawMessage, error)
}

func (p *peer) Notify(method string, params json.RawMessage) {
	p.notes = append(p.notes, method+string(params))
}

func (p *peer) Ask(_ context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	if p.answer == nil {
		return nil, &mcp.Error{Code: mcp.MethodNotFound, Message: "not here"}
	}
	return p.answer(method, params)
}

func TestProgressReachesThePeer(t *testing.T) {
	s := newNode(t)
	mustAdd(t, s, fixtureIn(t, "fix", "good"))
	srv := s.serving[only(t, s)]
	var p peer
	_, err := srv.forward("progress")(t.Context(), tool.Request{
		Principal: admin, Params: json.RawMessage(`{"name":"fix_progress","_meta":{"progressToken":"mine"}}`), Peer: &p,
	})
	if err != nil || len(p.notes) != 3 || !strings.Contains(p.notes[2], `"progressToken":"mine"`) {
		t.Errorf("%q, %v", p.notes, err)
	}
}

func only(t *testing.T, s *Servers) string {
	t.Helper()
	for id := range s.serving {
		return id
	}
	t.Fatal("nothing is served")
	return ""
}

// R520: another workspace's server is nobody's business.
func TestOtherWorkspaceSeesNothing(t *testing.T) {
	s := newNode(t)
	mustAdd(t, s, fixtureIn(t, "fix", "good"))
	stranger := admin
	stranger.Workspace = "other"
	echo, _ := s.Registry.Lookup("fix_echo")
	if !echo.ForeignTo(stranger) || echo.ForeignTo(admin) {
		t.Error("the tool does not say whose it is")
	}
	if out, err := s.list(t.Context(), stranger, listIn{}); err != nil || len(out.Servers) != 0 {
		t.Errorf("list: %+v, %v", out, err)
	}
	if _, err := s.remove(t.Context(), stranger, removeIn{"fix"}); !problem.Is(err, unknown) {
		t.Errorf("remove: %v", err)
	}
	if _, err := s.add(t.Context(), stranger, fixtureIn(t, "fix", "good")); !problem.Is(err, exists) {
		t.Errorf("add: %v", err)
	}
	if published(s) == "" {
		t.Error("the server is gone")
	}
}

// The configuration file comes by no schema: its servers are checked all the same.
func TestSpecHoldsNoZeroByte(t *testing.T) {
	for _, spec := range []Spec{{Name: "a", Command: []string{"x", "a\x00b"}}, {Name: "a", Command: []string{"x"}, Env: map[string]seal.Secret{"A": seal.Hide("\x00")}}} {
		if err := spec.Check(); !problem.Is(err, addressInvalid) {
			t.Errorf("%+q: %v", spec, err)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	s := newNode(t)
	mustAdd(t, s, fixtureIn(t, "fix", "good"))
	before := published(s)
	command := []string{"true"}
	unfit := problem.Code{Name: "ARGUMENTS_INVALID"} // what no schema takes
	tests := []struct {
		in   addIn
		code problem.Code
	}{
		{addIn{Name: "", Command: command}, nameInvalid},
		{addIn{Name: "Fix", Command: command}, nameInvalid},
		{addIn{Name: "1fix", Command: command}, nameInvalid},
		{addIn{Name: "a_b", Command: command}, nameInvalid},
		{addIn{Name: "a/b", Command: command}, nameInvalid},
		{addIn{Name: "a\n", Command: command}, nameInvalid},
		{addIn{Name: strings.Repeat("a", 33), Command: command}, nameInvalid},
		{addIn{Name: "gatehouse", Command: command}, nameInvalid},
		{addIn{Name: "audit", Command: command}, nameInvalid},
		{addIn{Name: "billing", Command: command}, nameInvalid},
		{addIn{Name: "a"}, addressInvalid},
		{addIn{Name: "a", URL: "http://localhost/mcp", Command: command}, addressInvalid},
		{addIn{Name: "a", URL: "ftp://localhost/mcp"}, addressInvalid},
		{addIn{Name: "a", URL: "localhost:3000"}, addressInvalid},
		{addIn{Name: "a", URL: "http:///mcp"}, addressInvalid},
		{addIn{Name: "a", URL: "http://localhost/mcp#x"}, addressInvalid},
		{addIn{Name: "a", URL: "http://me:secret@localhost/mcp"}, addressInvalid},
		{addIn{Name: "a", URL: "http://localhost/mcp", Env: map[string]string{"A": "b"}}, addressInvalid},
		{addIn{Name: "a", Command: []string{""}}, addressInvalid},
		{addIn{Name: "a", Command: []string{"x", "a\x00b"}}, unfit},
		{addIn{Name: "a", Command: command, Env: map[string]string{"A=B": "c"}}, addressInvalid},
		{addIn{Name: "a", Command: command, Env: map[string]string{"A": "\x00"}}, unfit},
		{addIn{Name: "fix", Command: command}, exists},
		{addIn{Name: "a", Command: []string{"gatehouse-no-such-program"}}, unreachable},
		{fixtureIn(t, "a", "exits"), unreachable},
	}
	for _, tt := range tests {
		_, err := use[addOut](t, s, "add_server", tt.in)
		if e := problem.From(err); !problem.Is(err, tt.code) || e.Why == "" || e.Fix == "" || strings.Contains(e.Why, "secret") {
			t.Errorf("%+v: got %v", tt.in, err)
		}
	}
	if published(s) != before || len(s.serving) != 1 {
		t.Errorf("something was added: %s", published(s))
	}
	_, err := use[addOut](t, s, "add_server", fixtureIn(t, "a", "exits"))
	if why := problem.From(err).Why; !strings.Contains(why, "exit status 3\nit printed:\nno database here") {
		t.Errorf("the person who adds it hears %q", why)
	}
}

func TestNamesOfOurOwnToolsAreNotTaken(t *testing.T) {
	s := newNode(t)
	own := tool.Tool{Def: tool.Def{Name: "fix_write"}}
	if err := s.Registry.Publish("", []tool.Tool{own}); err != nil {
		t.Fatal(err)
	}
	if _, err := use[addOut](t, s, "add_server", fixtureIn(t, "fix", "good")); problem.From(err).Kind != problem.Conflict {
		t.Errorf("got %v", err)
	}
	if known, err := tables(t, s.DB); err != nil || known != "" || published(s) != "fix_write" {
		t.Errorf("recorded %q, %v, published %s", known, err, published(s))
	}
}

// tables is everything that is kept, as text.
func tables(t *testing.T, db *store.DB) (all string, err error) {
	t.Helper()
	err = db.View(t.Context(), func(tx *store.Tx) error {
		known, err := ids(tx)
		if err != nil {
			return err
		}
		for id := range known {
			r, err := read(tx, id)
			if err != nil {
				return err
			}
			all += fmt.Sprintf("%s %s %s %s", r.name, r.command, r.env, r.tools)
		}
		return nil
	})
	return all, err
}

// The environment of a command is sealed in the table, absent from lists and
// logs, and comes back after a restart.
func TestEnvironmentIsSecret(t *testing.T) {
	db, key := storetest.Open(t, storetest.SQLite(t)), filepath.Join(t.TempDir(), "key")
	s := node(t, db, key)
	var log bytes.Buffer
	s.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	in := fixtureIn(t, "fix", "good")
	in.Env["TOKEN"] = "hunter2"
	mustAdd(t, s, in)
	list, _ := use[listOut](t, s, "list_servers", listIn{})
	kept, err := tables(t, db)
	shown := fmt.Sprintf("%+v %+v %s %s", list, s.serving[only(t, s)].spec, kept, log.String())
	if err != nil || strings.Contains(shown, "hunter2") {
		t.Errorf("%v, shown in %s", err, shown)
	}
	s.stop()
	again := node(t, db, key)
	env := said(callTool(t, again.serving[only(t, again)].conn, "env"))
	if !strings.Contains(env, "TOKEN=hunter2") {
		t.Error("the environment was lost")
	}
}

// Arguments of a command and the path of an address are often keys. They are shown to
// a person who could have added the server, and to nobody else: no app, no reader.
func TestWhereAServerIsStaysWithWhoCouldAddIt(t *testing.T) {
	s := newNode(t)
	for i, spec := range []Spec{{Name: "prog", Command: []string{"prog", "--token", "hunter2"}}, {Name: "far", URL: "https://far.example:8443/hunter2/mcp"}} {
		s.hold(&server{id: fmt.Sprint(i), workspace: "default", spec: spec, conn: broken{err: unavailable.New("down")}})
	}
	s.Want("default", "gatehouse.yaml", map[string]Spec{"new": {Name: "new", Command: []string{"new", "hunter2"}}})
	app, reader := admin, admin
	app.Client, reader.Rank = "client-1", principal.Readonly
	for name, row := range map[string]struct {
		who  principal.Principal
		want []string
	}{
		"a person who could": {admin, []string{"https://far.example:8443/hunter2/mcp", "new hunter2", "prog --token hunter2"}},
		"an app":             {app, []string{"https://far.example:8443/…", "new …", "prog …"}},
		"a reader":           {reader, []string{"https://far.example:8443/…", "new …", "prog …"}},
	} {
		list, err := s.list(t.Context(), row.who, listIn{})
		var got []string
		for _, l := range list.Servers {
			got = append(got, l.Address)
		}
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s sees %q, %v", name, got, err)
		}
	}
}

// Under another master key a server is down, and the others are not.
func TestEnvironmentOfAnotherKey(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	s := node(t, db, filepath.Join(t.TempDir(), "key"))
	mustAdd(t, s, fixtureIn(t, "fix", "good"))
	mustAdd(t, s, addIn{Name: "far", URL: newRemote(t).URL})
	s.stop()
	other := node(t, db, filepath.Join(t.TempDir(), "other"))
	if !strings.Contains(published(other), "fix_echo") || !strings.Contains(published(other), "far_echo") {
		t.Errorf("published %s", published(other))
	}
	echo, _ := other.Registry.Lookup("fix_echo")
	if _, err := echo.Outside(t.Context(), tool.Request{Principal: admin}); !problem.Is(err, unavailable) {
		t.Errorf("got %v", err)
	}
	list, err := use[listOut](t, other, "list_servers", listIn{})
	if err != nil || len(list.Servers) != 2 || list.Servers[1].State != Down || !strings.Contains(list.Servers[1].Error, "master key") {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := use[removeOut](t, other, "remove_server", removeIn{"fix"}); err != nil {
		t.Errorf("it cannot be removed: %v", err)
	}
}

// What one node adds and removes, the others serve and withdraw; pins stay as
// they were, whatever the server says now.
func TestOtherNodesFollow(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		key := filepath.Join(t.TempDir(), "key")
		one, two := node(t, db, key), node(t, db, key)
		mustAdd(t, one, fixtureIn(t, "fix", "good"))
		if err := two.load(t.Context()); err != nil || published(two) != published(one) {
			t.Fatalf("%v, published %q", err, published(two))
		}
		child := number(t, said(callTool(t, two.serving[only(t, two)].conn, "pid")))
		if _, err := use[addOut](t, two, "add_server", fixtureIn(t, "fix", "good")); !problem.Is(err, exists) {
			t.Errorf("added twice: %v", err)
		}
		if _, err := use[removeOut](t, one, "remove_server", removeIn{"fix"}); err != nil || published(one) != "" {
			t.Errorf("%v, published %q", err, published(one))
		}
		if err := two.load(t.Context()); err != nil || published(two) != "" || alive(child) {
			t.Errorf("%v, published %q, child alive %v", err, published(two), alive(child))
		}
		if _, err := use[removeOut](t, one, "remove_server", removeIn{"fix"}); !problem.Is(err, unknown) {
			t.Errorf("removed twice: %v", err)
		}
		mustAdd(t, two, fixtureIn(t, "fix", "good"))
	})
}

// A server that is down stops nobody: it is published from its pins and says so.
func TestStartDoesNotWaitForServers(t *testing.T) {
	db, key := storetest.Open(t, storetest.SQLite(t)), filepath.Join(t.TempDir(), "key")
	s := node(t, db, key)
	far := newRemote(t)
	mustAdd(t, s, addIn{Name: "far", URL: far.URL})
	mustAdd(t, s, fixtureIn(t, "fix", "good"))
	s.stop()
	far.Close()
	again := node(t, db, key)
	echo, ok := again.Registry.Lookup("far_echo")
	if !ok {
		t.Fatal("not published")
	}
	_, err := echo.Outside(t.Context(), tool.Request{Principal: admin})
	if !problem.Is(err, unreachable) || problem.From(err).Kind != problem.Unavailable {
		t.Errorf("got %v", err)
	}
	fix, _ := again.Registry.Lookup("fix_echo")
	if _, err := fix.Outside(t.Context(), tool.Request{Principal: admin}); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
}

func TestRunEndsWithEverythingClosed(t *testing.T) {
	s := newNode(t)
	mustAdd(t, s, fixtureIn(t, "fix", "good"))
	child := number(t, said(callTool(t, s.serving[only(t, s)].conn, "pid")))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() {
		s.Run(ctx)
		close(done)
	}()
	cancel()
	<-done
	if alive(child) || published(s) != "" {
		t.Errorf("alive %v, published %q", alive(child), published(s))
	}
	if _, err := use[addOut](t, s, "add_server", fixtureIn(t, "late", "good")); !problem.Is(err, unavailable) {
		t.Errorf("added after the end: %v", err)
	}
}

func TestEndlessToolListIsRefused(t *testing.T) {
	c := fake{answer: func(string, json.RawMessage) (json.RawMessage, error) {
		return json.RawMessage(`{"tools":[],"nextCursor":"again"}`), nil
	}}
	if _, _, err := fetch(t.Context(), "fix", c); !problem.Is(err, garbage) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{`[]`, `{"tools":{}}`, `{"tools":[1],"nextCursor":5}`} {
		c := fake{answer: func(string, json.RawMessage) (json.RawMessage, error) { return json.RawMessage(bad), nil }}
		if _, _, err := fetch(t.Context(), "fix", c); !problem.Is(err, garbage) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	c.answer = func(string, json.RawMessage) (json.RawMessage, error) {
		return nil, &mcp.Error{Code: mcp.MethodNotFound}
	}
	if tools, _, err := fetch(t.Context(), "fix", c); err != nil || len(tools) != 0 {
		t.Errorf("a server without tools gave %v", err)
	}
}

// fake is a connection that answers as told.
type fake struct {
	broken
	answer func(method string, params json.RawMessage) (json.RawMessage, error)
}

func (f fake) Call(_ context.Context, _ tool.Session, method string, params json.RawMessage, _ tool.Peer) (json.RawMessage, error) {
	return f.answer(method, params)
}
