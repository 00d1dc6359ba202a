package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gatehouse": main, "clock": clock})
}

// The user's terminal. A script may use, besides what testscript has:
//
//	await COMMAND…             repeats a command until it succeeds
//	until PATTERN COMMAND…     repeats it until its output matches, or with ! no longer does
//	code N COMMAND…            runs a command that exits with N
//	mistake TEXT WHY COMMAND…  runs one that exits with 2 and says both, in the form of errors
//	hangup                     tells what runs in the background to read its configuration again
//	signin SERVER              gatehouse login with a browser whose person agrees
//	typecode URL allow|deny COMMAND…  runs a command that shows a code, and has a person
//	                           type it at the server's page and answer the question
//
// $PORT is a free port of this computer.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			_, port, _ := net.SplitHostPort(l.Addr().String())
			env.Setenv("PORT", port)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // or each command takes a second with -race
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/config")
			env.Setenv("XDG_DATA_HOME", env.WorkDir+"/share")
			return l.Close()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "code": code, "mistake": mistake, "signin": signin, "hangup": hangup, "until": awaitOutput, "split": split, "typecode": typeCode(t)},
	})
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	var err error
	for range 200 {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	ts.Fatalf("%s: %v", strings.Join(args, " "), err)
}

func awaitOutput(ts *testscript.TestScript, not bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	for range 200 {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) != not {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	ts.Fatalf("%s: still not as it should be", strings.Join(args[1:], " "))
}

func code(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	if failed, ok := errors.AsType[*exec.ExitError](err); !ok || fmt.Sprint(failed.ExitCode()) != args[0] {
		ts.Fatalf("%s: %v, want exit code %s", strings.Join(args[1:], " "), err, args[0])
	}
}

func mistake(ts *testscript.TestScript, _ bool, args []string) {
	code(ts, false, append([]string{"2"}, args[2:]...))
	said := ts.ReadFile("stderr")
	form := `^error: .*` + args[0] + `.*\n(  why   (.*\n {8})*.*` + args[1] + `.*\n)` + map[bool]string{true: "?", false: ""}[args[1] == ""] + `(  fix   .*\n)?  code  [A-Z_]+( · req_\w+)? · gatehouse help [A-Z_]+\n$`
	if !regexp.MustCompile(form).MatchString(said) {
		ts.Fatalf("%s said\n%swhich does not match %s", strings.Join(args[2:], " "), said, form)
	}
}

// split puts the secret of an account into a file, and its id into ID.
func split(ts *testscript.TestScript, _ bool, args []string) {
	var account struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &account))
	ts.Check(os.WriteFile(ts.MkAbs("secret"), []byte(account.Secret), 0o600))
	ts.Setenv("ID", account.ID)
}

func hangup(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGHUP))
	}
}

func signin(ts *testscript.TestScript, _ bool, args []string) {
	exe, err := exec.LookPath("gatehouse")
	ts.Check(err)
	cmd := exec.Command(exe, "login", args[0], "--no-browser")
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+ts.Getenv("XDG_CONFIG_HOME"))
	talk, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	var said bytes.Buffer
	for in := bufio.NewScanner(io.TeeReader(talk, &said)); in.Scan(); {
		if url := strings.TrimSpace(in.Text()); strings.HasPrefix(url, "http") {
			res, err := http.Get(url)
			ts.Check(err)
			ts.Check(res.Body.Close())
		}
	}
	if err := cmd.Wait(); err != nil {
		ts.Fatalf("%v\n%s", err, &said)
	}
	ts.Logf("%s", &said)
}

// typeCode is a person with a browser on another device, at a server in development
// mode.
func typeCode(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, not bool, args []string) {
		cmd := exec.Command(args[2], args[3:]...)
		exe, err := exec.LookPath(args[2])
		ts.Check(err)
		cmd.Path = exe
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+ts.Getenv("XDG_CONFIG_HOME"))
		talk, err := cmd.StderrPipe()
		ts.Check(err)
		ts.Check(cmd.Start())
		var said bytes.Buffer
		code := regexp.MustCompile(`^  [A-Z]{4}-[A-Z]{4}$`)
		for in := bufio.NewScanner(io.TeeReader(talk, &said)); in.Scan(); {
			if code.MatchString(in.Text()) {
				b := apptest.At(t, args[0], "", &apptest.Log{}).Browser()
				form := apptest.Fields(b.Open("/device").Text)
				form.Set("user_code", strings.ToLower(in.Text()))
				form = apptest.Fields(b.Submit("/device/code", form).Text)
				form.Set("decision", args[1])
				form.Set("keep", "month")
				b.Submit("/consent", form)
			}
		}
		if err := cmd.Wait(); (err != nil) != not {
			ts.Fatalf("%v\n%s", err, &said)
		}
		ts.Check(os.WriteFile(ts.MkAbs("said"), said.Bytes(), 0o600))
	}
}

// clock is a small MCP server over stdio that nobody has to install.
func clock() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		m, _ := mcp.Parse(in.Bytes())
		result := map[string]string{
			"initialize": `{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"clock","version":"1.2"}}`,
			"tools/list": `{"tools":[
				{"name":"now","description":"Tell the time","inputSchema":{"type":"object","properties":{"zone":{"type":"string","description":"its name"},"digits":{"type":"integer","default":2}},"required":["zone"]},"annotations":{"readOnlyHint":true}},
				{"name":"stop","description":"Stop the clock","inputSchema":{"type":"object"}}]}`,
			"tools/call": mcp.Text(m.Params, "name"),
		}[m.Method]
		switch result {
		case "now":
			result = fmt.Sprintf(`{"content":[{"type":"text","text":"noon"}],"structuredContent":{"time":"12:00","got":%s}}`, mcp.Field(m.Params, "arguments"))
		case "stop":
			result = `{"content":[{"type":"text","text":"it does not stop"}],"isError":true}`
		}
		if m.IsRequest() {
			fmt.Println(strings.NewReplacer("\n", "", "\t", "").Replace(string(mcp.Message{ID: m.ID, Result: json.RawMessage(result)}.Encode())))
		}
	}
	os.Exit(0)
}

// Each command shows how it is used, says so in one line, and is reached by
// help.
func TestEveryCommandHasHelp(t *testing.T) {
	walk(newRoot(&cli{}), func(cmd *cobra.Command) {
		if cmd.Example == "" || cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: give it an example and one line without a full stop", cmd.CommandPath())
		}
		for line := range strings.SplitSeq(cmd.Example+"\n"+cmd.Long, "\n") {
			if len([]rune(line)) > 80 {
				t.Errorf("%s: longer than 80 columns: %s", cmd.CommandPath(), line)
			}
		}
	})
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// doc/design.md §9: each kind of failure has its exit code, whoever reports it.
func TestExitCodes(t *testing.T) {
	local := func(k problem.Kind) error { return problem.Code{Name: "X", Kind: k}.New("x") }
	told := func(status int) error { return &remote{problem.Wire{Code: "X", Status: status}} }
	lib := func(kind error) error { return &client.Error{Kind: kind, Code: "X"} }
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1}, {local(problem.Internal), 1}, {local(problem.Conflict), 1}, {told(500), 1}, {told(409), 1}, {told(429), 1}, {lib(nil), 1},
		{local(problem.Invalid), 2}, {told(400), 2}, {told(413), 2}, {lib(client.ErrInvalid), 2},
		{local(problem.Unauthenticated), 3}, {told(401), 3}, {lib(client.ErrAuthentication), 3},
		{local(problem.Unavailable), 4}, {told(503), 4}, {lib(client.ErrUnreachable), 4},
		{local(problem.NotFound), 5}, {told(404), 5}, {lib(client.ErrTool), 5},
		{local(problem.Forbidden), 6}, {told(403), 6}, {lib(client.ErrPermission), 6},
		{local(problem.Held), 7}, {told(202), 7},
		{exit(exitVerify), 8},
	}
	for _, tt := range tests {
		c := &cli{err: io.Discard, out: io.Discard}
		if got := c.fail(tt.err); got != tt.want {
			t.Errorf("%v: exit %d, want %d", tt.err, got, tt.want)
		}
	}
}

// doc/design.md §9: the three lines and their order, or one line of JSON.
func TestErrorStyle(t *testing.T) {
	err := &remote{problem.Wire{Code: "UPSTREAM_UNREACHABLE", Message: "can't reach \"billing\"", Why: "connection refused", Fix: "start it", Ref: "req_1", Status: 503}}
	var out bytes.Buffer
	(&cli{err: &out}).fail(err)
	want := "error: can't reach \"billing\"\n  why   connection refused\n  fix   start it\n  code  UPSTREAM_UNREACHABLE · req_1 · gatehouse help UPSTREAM_UNREACHABLE\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	out.Reset()
	(&cli{err: &out, output: "json"}).fail(err)
	want = `{"error":{"code":"UPSTREAM_UNREACHABLE","message":"can't reach \"billing\"","why":"connection refused","fix":"start it","ref":"req_1","status":503}}` + "\n"
	if out.String() != want {
		t.Errorf("got %swant %s", &out, want)
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{
		"lisen": "listen", "LISTEN": "listen", "data": "data-dir", "dta-dir": "data-dir", "dev": "dev", "c": "", "": "", "frobnicate": "",
	} {
		if got := app.Nearest(word, []string{"listen", "data-dir", "dev", "database"}); got != want {
			t.Errorf("app.Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// A value is read by its type: a string stays a string, and what does not fit is
// said before anything is called.
func TestArgumentsAreTypedByTheSchema(t *testing.T) {
	var s schema
	if err := json.Unmarshal([]byte(`{"properties":{"s":{"type":"string"},"i":{"type":"integer"},"n":{"type":"number"},"b":{"type":"boolean"},
		"a":{"type":"array"},"o":{"type":"object"},"u":{"type":["integer","null"]},"m":{"type":["integer","string"]},"x":{}},"required":["s"]}`), &s); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ pairs, want string }{
		{"s=1", `{"s":"1"}`},
		{"s=true", `{"s":"true"}`},
		{"s=a=b", `{"s":"a=b"}`},
		{"s=", `{"s":""}`},
		{`s:="a"`, `{"s":"a"}`},
		{"s= i=12345678901234567890", `{"i":12345678901234567890,"s":""}`},
		{"s= n=1.5", `{"n":1.5,"s":""}`},
		{"s= n=-1e3", `{"n":-1e3,"s":""}`},
		{"s= b=true", `{"b":true,"s":""}`},
		{"s= a=[1]", `{"a":[1],"s":""}`},
		{`s= o={"k":1}`, `{"o":{"k":1},"s":""}`},
		{"s= u=null", `{"s":"","u":null}`},
		{"s= m=1", `{"m":1,"s":""}`},
		{"s= m=one", `{"m":"one","s":""}`},
		{"s= x=1", `{"s":"","x":"1"}`},
		{"s= x:=1", `{"s":"","x":1}`},
		{"s= i=1.5", "not of type integer"},
		{"s= i=x", "not of type integer"},
		{"s= b=yes", "not of type boolean"},
		{"s= a={}", "not of type array"},
		{"s= o=[", "not of type object"},
		{"s= x:=[", "not of type any"},
		{"i=1", "argument s is missing"},
		{"s= ss=1", `no argument "ss"`},
	}
	for _, tt := range tests {
		got, err := s.arguments(strings.Fields(tt.pairs))
		text := string(got)
		if err != nil {
			text = err.Error()
		}
		if err == nil && text != tt.want || err != nil && !strings.Contains(text, tt.want) {
			t.Errorf("%s: %s, want %s", tt.pairs, text, tt.want)
		}
	}
	open := schema{Properties: s.Properties, Additional: json.RawMessage(`{}`)}
	if got, err := open.arguments([]string{"other=1"}); err != nil || string(got) != `{"other":"1"}` {
		t.Errorf("a schema that is open: %s, %v", got, err)
	}
}

// R512 the other way: add tells an address from a command.
func TestAddTellsAddressFromCommand(t *testing.T) {
	c := &cli{environ: []string{"SECRET=s"}}
	tests := []struct {
		args []string
		dash int
		env  []string
		want string // JSON, or part of the reason
	}{
		{[]string{"a", "https://x/mcp"}, -1, nil, `{"name":"a","url":"https://x/mcp"}`},
		{[]string{"a", "cmd", "-x"}, 1, nil, `{"name":"a","command":["cmd","-x"]}`},
		{[]string{"a", "cmd"}, 1, []string{"K=v=w", "SECRET"}, `{"name":"a","command":["cmd"],"env":{"K":"v=w","SECRET":"s"}}`},
		{[]string{"a"}, -1, nil, "a name, and an address or a command"},
		{[]string{"a"}, 1, nil, "a name, and an address or a command"},
		{[]string{"a", "b", "cmd"}, 2, nil, "a name, and an address or a command"},
		{[]string{"a", "npx", "x"}, -1, nil, "after --"},
		{[]string{"a", "https://x"}, -1, []string{"K=v"}, "--env is for a command"},
		{[]string{"a", "cmd"}, 1, []string{"=v"}, "KEY=VALUE"},
	}
	for _, tt := range tests {
		in, err := c.addition(tt.args, tt.dash, tt.env)
		text, _ := json.Marshal(in)
		if p := problem.From(err); p != nil {
			text = []byte(p.Why)
		}
		if !strings.Contains(string(text), tt.want) {
			t.Errorf("%q: %s, want %s", tt.args, text, tt.want)
		}
	}
}

// What a server says cannot draw on the terminal or break a table.
func TestTextOfOthersIsHarmless(t *testing.T) {
	var out bytes.Buffer
	c := &cli{out: &out}
	c.table("", [][]string{{"A", "B"}, {"x\x1b[31m\r\nred\u202e", "y\tz\x07\u009b2J\x9b2J"}})
	if regexp.MustCompile(`[\x00-\x09\x0b-\x1f\x7f-\x{9f}\x{202a}-\x{202e}]`).Match(out.Bytes()) || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("printed %q", &out)
	}
}

func TestThousands(t *testing.T) {
	var got []string
	for _, n := range []int64{0, 999, 1000, 48213, 1234567} {
		got = append(got, thousands(n))
	}
	if want := []string{"0", "999", "1,000", "48,213", "1,234,567"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if plural(1, "tool") != "1 tool" || plural(0, "tool") != "0 tools" {
		t.Error("plural")
	}
}

// Neither do errors, whoever wrote them, and JSON: there it is spelt so that it means
// the same.
func TestErrorsAndJSONOfOthersAreHarmless(t *testing.T) {
	const rude = "x\x1b]0;y\x07\u009b2J\u202e\nz"
	for _, err := range []error{
		&client.Error{Code: "SERVER_UNREACHABLE", Message: rude, Why: rude, Fix: rude, Link: rude, Ref: rude},
		&remote{problem.Wire{Code: rude, Message: rude, Why: rude, Fix: rude, Link: rude, Ref: rude, Status: 400}},
		errors.New(rude),
	} {
		for _, output := range []format{"text", "json"} {
			var out bytes.Buffer
			(&cli{err: &out, output: output}).fail(err)
			if strings.ContainsAny(out.String(), "\x1b\x07\u009b\u202e") || !strings.Contains(out.String(), "x") {
				t.Errorf("%T as %s: %q", err, output, &out)
			}
		}
	}
	for name, show := range map[string]func(*cli) error{
		"a line": func(c *cli) error { return c.print(map[string]string{"k": rude}) },
		"pretty": func(c *cli) error {
			c.pretty(json.RawMessage("{\"k\":\"x\\u001b]0;y\\u0007\u009b2J\u202e\\nz\"}"))
			return nil
		},
	} {
		var out bytes.Buffer
		var read struct{ K string }
		if err := show(&cli{out: &out}); err != nil || json.Unmarshal(out.Bytes(), &read) != nil || read.K != rude || strings.ContainsAny(out.String(), "\x1b\u009b\u202e") {
			t.Errorf("%s: %q, %v", name, &out, err)
		}
	}
}
