package upstream

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// TestMain lets the test program be its own MCP server: a child that is told so
// by its environment behaves as that says.
func TestMain(m *testing.M) {
	if manner := os.Getenv("FIXTURE"); manner != "" {
		newFixture(manner).serve()
		return
	}
	os.Exit(m.Run())
}

// fixture is an MCP server over stdio with odd manners.
type fixture struct {
	manner string
	out    *bufio.Writer
}

func newFixture(manner string) *fixture {
	return &fixture{manner, bufio.NewWriter(os.Stdout)}
}

func (f *fixture) say(format string, args ...any) {
	fmt.Fprintf(f.out, format+"\n", args...)
	f.out.Flush()
}

func (f *fixture) result(id json.RawMessage, text string) {
	f.say(`{"result":%s,"jsonrpc":"2.0","id":%s}`, mcp.TextResult(nil, text, false), id)
}

func (f *fixture) serve() {
	switch f.manner {
	case "exits":
		fmt.Fprintln(os.Stderr, "no database here")
		os.Exit(3)
	case "parent":
		self, _ := os.Executable()
		child := openStdio(Spec{Name: "fix", Command: []string{self}, Env: hide(fixtureEnv("stubborn"))}, us, quiet())
		result, err := child.Call(context.Background(), nobody, "tools/call", json.RawMessage(`{"name":"pid"}`), nil)
		if err != nil {
			panic(err)
		}
		f.say("%s", said(result))
		time.Sleep(time.Hour)
	case "silent":
		time.Sleep(time.Hour)
	case "prints":
		f.say("Listening on port 3000")
		time.Sleep(time.Hour)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "noisy":
		f.say("hello, this is a log line\n\n{\"level\":\"info\"}\n[1]")
		fmt.Fprintln(os.Stderr, "ready")
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && f.manner == "stubborn" {
			time.Sleep(time.Hour)
		}
		if err != nil {
			return
		}
		m, refusal := mcp.Parse(line)
		if refusal != nil {
			fmt.Fprintln(os.Stderr, "not MCP:", refusal, string(line))
			os.Exit(4)
		}
		f.handle(m)
	}
}

func (f *fixture) handle(m mcp.Message) {
	switch m.Method {
	case "initialize":
		version := mcp.Text(m.Params, "protocolVersion")
		if f.manner == "modern" {
			version = mcp.Modern
		}
		f.say(`{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":%q,"capabilities":{"tools":{}},"serverInfo":{"name":"fixture","version":"1"}}}`, m.ID, version)
	case "tools/list":
		f.say(`{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID, strings.ReplaceAll(fixtureTools(mcp.Text(m.Params, "cursor")), "\n", " "))
	case "tools/call":
		f.call(m, mcp.Text(m.Params, "name"))
	case "notifications/cancelled":
		fmt.Fprintf(os.Stderr, "cancelled %s\n", mcp.Field(m.Params, "requestId"))
	}
}

// fixtureTools is a list on two pages, with tools of every risk and two that
// cannot be used.
func fixtureTools(cursor string) string {
	if cursor == "" {
		return `{"tools":[
			{"name":"echo","description":"Say it again.","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true},"x-odd":1.0},
			{"name":"not a name","inputSchema":{"type":"object"}},
			{"name":"echo","inputSchema":{"type":"object"}}],"nextCursor":"2"}`
	}
	return `{"tools":[
		{"name":"write","inputSchema":{"type":"object"},"annotations":{"destructiveHint":false}},
		{"name":"wipe","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":false}},
		{"name":"silent","inputSchema":{"type":"object"}}]}`
}

func (f *fixture) call(m mcp.Message, name string) {
	switch name {
	case "env":
		f.result(m.ID, strings.Join(os.Environ(), "\n"))
	case "pid":
		f.result(m.ID, strconv.Itoa(os.Getpid()))
	case "grandchild":
		cmd := exec.Command("sleep", "3600")
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		f.result(m.ID, strconv.Itoa(cmd.Process.Pid))
	case "crash":
		fmt.Fprintln(os.Stderr, "crashing")
		os.Exit(3)
	case "hang":
	case "fail":
		f.say(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32099,"message":"no","data":{"a":1.0}}}`, m.ID)
	case "log":
		f.say(`{"level":30,"id":%s,"msg":"a line of a log"}`, m.ID)
		f.result(m.ID, "fine")
	case "duplicate":
		f.say(`{"result":{"a":1,"a":2},"jsonrpc":"2.0","id":%s}`, m.ID)
	case "huge":
		f.say(`{"result":{"a":"%s"},"jsonrpc":"2.0","id":%s}`, strings.Repeat("x", maxMessage), m.ID)
	case "hugefront":
		f.say(`{"jsonrpc":"2.0","id":%s,"result":{"a":"%s"}}`, m.ID, strings.Repeat("x", maxMessage))
	case "progress":
		token := mcp.Field(m.Params, "_meta", "progressToken")
		for i := range 3 {
			f.say(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":%d,"progressToken":%s,"x":[1.0]}}`, i, token)
		}
		f.result(m.ID, string(token))
	case "ask":
		f.say(`{"jsonrpc":"2.0","id":"q1","method":"sampling/createMessage","params":{}}`)
		f.say(`{"jsonrpc":"2.0","id":"q2","method":"ping"}`)
		in := bufio.NewReader(os.Stdin)
		a, _ := in.ReadString('\n')
		b, _ := in.ReadString('\n')
		f.result(m.ID, a+b)
	default:
		f.say(`{"jsonrpc":"2.0","id":%s,"result":{"params":%s}}`, m.ID, m.Params)
	}
}

var us = mcp.Implementation{Name: "gatehouse", Version: "test"}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func fixtureSpec(t testing.TB, manner string) Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Spec{Name: "fix", Command: []string{self}, Env: hide(fixtureEnv(manner))}
}

// fixtureEnv also spares the child the pause that the race detector makes at exit.
func fixtureEnv(manner string) map[string]string {
	return map[string]string{"FIXTURE": manner, "GORACE": "atexit_sleep_ms=0"}
}

// alive reports whether the process exists and is not just a corpse.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && os.IsNotExist(err) && !hasProc()
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/stat")
	return err == nil
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 500 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never happened: %s", what)
}
