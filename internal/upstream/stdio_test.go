package upstream

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
)

func startStdio(t testing.TB, spec Spec) *stdio {
	t.Helper()
	s := &stdio{spec: spec, self: us, log: quiet(), hello: 20 * time.Second, grace: 100 * time.Millisecond}
	s.run()
	t.Cleanup(s.Close)
	return s
}

func callTool(t testing.TB, c Conn, name string) json.RawMessage {
	t.Helper()
	result, err := c.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"`+name+`"}`), nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return result
}

// said is the text of a result.
func said(result json.RawMessage) string {
	var r struct{ Content []struct{ Text string } }
	if json.Unmarshal(result, &r) != nil || len(r.Content) != 1 {
		return string(result)
	}
	return r.Content[0].Text
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParamsPassAsTheyAre(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	info, err := s.Connect(t.Context())
	if err != nil || info.ServerInfo.Name != "fixture" || info.ProtocolVersion != mcp.Latest {
		t.Fatalf("%+v, %v", info, err)
	}
	const params = `{ "name":"any", "b":1.50, "a":{"\u0041":null}, "_meta":{"traceparent":"00"} }`
	result, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(params), nil)
	if err != nil || string(mcp.Field(result, "params")) != params {
		t.Errorf("arrived as %s, %v", result, err)
	}
	pretty := "{\n  \"name\": \"any\"\r\n}"
	result, err = s.Call(t.Context(), nobody, "tools/call", json.RawMessage(pretty), nil)
	if err != nil || mcp.Text(result, "params", "name") != "any" {
		t.Errorf("parameters on several lines arrived as %s, %v", result, err)
	}
	if state, _, err := s.State(); state != Connected || err != nil {
		t.Errorf("state %v, %v", state, err)
	}
}

func TestManyCallersShareOneChild(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			params := fmt.Sprintf(`{"name":"any","n":%d}`, i)
			result, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(params), nil)
			if err != nil || string(mcp.Field(result, "params")) != params {
				t.Errorf("call %d: %s, %v", i, result, err)
			}
		})
	}
	wg.Wait()
}

// A child gets five variables and what is declared, nothing else of ours.
func TestChildSeesOnlyItsEnvironment(t *testing.T) {
	t.Setenv("GATEHOUSE_SECRET", "leak")
	t.Setenv("LANG", "C")
	t.Setenv("HOME", "/nowhere")
	spec := fixtureSpec(t, "good")
	spec.Env["TOKEN"] = seal.Hide("abc")
	spec.Env["HOME"] = seal.Hide("/elsewhere")
	env := said(callTool(t, startStdio(t, spec), "env"))
	for line := range strings.SplitSeq(env, "\n") {
		name, _, _ := strings.Cut(line, "=")
		if !strings.Contains(" PATH HOME USER LANG TMPDIR TOKEN FIXTURE GORACE ", " "+name+" ") {
			t.Errorf("the child sees %s", line)
		}
	}
	for _, want := range []string{"TOKEN=abc", "HOME=/elsewhere", "LANG=C", "PATH=" + os.Getenv("PATH")} {
		if !strings.Contains("\n"+env+"\n", "\n"+want+"\n") {
			t.Errorf("the child does not see %s", want)
		}
	}
}

func TestServerErrorIsUntouched(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	_, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"fail"}`), nil)
	e, ok := errors.AsType[*mcp.Error](err)
	if !ok || e.Code != -32099 || e.Message != "no" || string(e.Data) != `{"a":1.0}` {
		t.Errorf("got %v", err)
	}
}

// Two callers may choose the same progress token; each hears its own progress,
// under its own token, before its answer.
func TestProgressFindsItsCaller(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	var wg sync.WaitGroup
	tokens := make([]string, 2)
	for i := range 2 {
		wg.Go(func() {
			var p peer
			result, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"progress","_meta":{"progressToken":"same"}}`), &p)
			if err != nil {
				t.Error(err)
			}
			tokens[i] = said(result)
			for n, note := range p.notes {
				if want := fmt.Sprintf(`notifications/progress{"progress":%d,"progressToken":"same","x":[1.0]}`, n); note != want {
					t.Errorf("got  %s\nwant %s", note, want)
				}
			}
			if len(p.notes) != 3 {
				t.Errorf("%d notes", len(p.notes))
			}
		})
	}
	wg.Wait()
	if tokens[0] == tokens[1] {
		t.Errorf("both calls went out with token %s", tokens[0])
	}
}

// What the server asks of us, we do not offer; a sign of life we give.
func TestServerRequestsAreAnswered(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	got := said(callTool(t, s, "ask"))
	if !strings.Contains(got, `"id":"q1","error":{"code":-32601`) || !strings.Contains(got, `"id":"q2","result":{}`) {
		t.Errorf("the server heard %s", got)
	}
}

func TestCancellationReachesTheServer(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	callTool(t, s, "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := s.Call(ctx, nobody, "tools/call", json.RawMessage(`{"name":"hang"}`), nil)
	if !problem.Is(err, cancelled) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the server heard of it", func() bool { return strings.Contains(s.Said(1), "cancelled 3") })
	callTool(t, s, "pid") // and goes on
}

func TestDeathEndsCallsInFlightAndTheChildComesBack(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	first := said(callTool(t, s, "pid"))
	waiting := make(chan error)
	go func() {
		_, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"hang"}`), nil)
		waiting <- err
	}()
	eventually(t, "the call is in flight", func() bool {
		s.mu.Lock()
		c := s.current
		s.mu.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.waiting) > 0
	})
	_, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"crash"}`), nil)
	for _, err := range []error{err, <-waiting} {
		if !problem.Is(err, unavailable) || problem.From(err).Kind != problem.Unavailable {
			t.Errorf("got %v", err)
		}
	}
	eventually(t, "another child is there", func() bool {
		result, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"pid"}`), nil)
		return err == nil && said(result) != first
	})
}

func TestGarbageBetweenMessagesIsTolerated(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "noisy"))
	callTool(t, s, "pid")
	if n := s.current.noise.Load(); n != 3 {
		t.Errorf("counted %d lines", n)
	}
	if said := s.Said(100); !strings.Contains(said, "(not MCP) hello, this is a log line") || !strings.Contains(said, "ready") {
		t.Errorf("kept %q", said)
	}
}

// An answer that cannot be passed on fails its call, not the child or its neighbours.
func TestBadAnswerFailsItsCall(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	first := said(callTool(t, s, "pid"))
	for _, name := range []string{"duplicate", "huge", "hugefront"} {
		_, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"`+name+`"}`), nil)
		if !problem.Is(err, garbage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := said(callTool(t, s, "log")); got != "fine" {
		t.Errorf("a log line was taken for the answer: %s", got)
	}
	if again := said(callTool(t, s, "pid")); again != first {
		t.Error("the child was lost")
	}
}

func TestUselessChildrenAreExplained(t *testing.T) {
	tests := []struct {
		manner    string
		code      problem.Code
		why, said string
		hello     time.Duration
	}{
		{"exits", unreachable, "exit status 3", "no database here", 20 * time.Second},
		{"silent", unreachable, "nothing in", "", 300 * time.Millisecond},
		{"prints", garbage, "other lines: 1", "Listening on port 3000", 3 * time.Second},
		{"modern", wrongRevision, mcp.Modern, "", 20 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.manner, func(t *testing.T) {
			t.Parallel()
			s := &stdio{spec: fixtureSpec(t, tt.manner), self: us, log: quiet(), hello: tt.hello, grace: 50 * time.Millisecond}
			s.run()
			defer s.Close()
			_, err := s.Connect(t.Context())
			if !problem.Is(err, tt.code) || !strings.Contains(problem.From(err).Why, tt.why) || !strings.Contains(s.Said(10), tt.said) {
				t.Errorf("got %v, why %q, said %q", err, problem.From(err).Why, s.Said(10))
			}
		})
	}
	for _, command := range []string{"gatehouse-no-such-program", "/nowhere/at-all", t.TempDir()} {
		s := startStdio(t, Spec{Name: "fix", Command: []string{command}})
		_, err := s.Connect(t.Context())
		if !problem.Is(err, unreachable) || !strings.Contains(problem.From(err).Detail, command) {
			t.Errorf("%s: %v", command, err)
		}
		if state, _, err := s.State(); state == Connected || state == Down && err == nil {
			t.Errorf("%s: state %v, %v", command, state, err)
		}
	}
}

// No child outlives its connection, however it behaves, nor what it started.
func TestNothingOutlivesClose(t *testing.T) {
	for _, manner := range []string{"good", "stubborn"} {
		s := &stdio{spec: fixtureSpec(t, manner), self: us, log: quiet(), hello: 20 * time.Second, grace: 50 * time.Millisecond}
		s.run()
		child, grandchild := number(t, said(callTool(t, s, "pid"))), number(t, said(callTool(t, s, "grandchild")))
		if !alive(child) || !alive(grandchild) {
			t.Fatal("not running")
		}
		s.Close()
		if alive(child) {
			t.Errorf("%s: the child lives", manner)
		}
		eventually(t, "the grandchild is gone", func() bool { return !alive(grandchild) })
		if _, err := s.Call(t.Context(), nobody, "ping", nil, nil); !problem.Is(err, unavailable) {
			t.Errorf("a call after Close gave %v", err)
		}
	}
}

// Even when we are killed, which leaves no time to say goodbye.
func TestChildNeverOutlivesParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends children with their parent")
	}
	spec := fixtureSpec(t, "parent")
	parent := exec.Command(spec.Command[0])
	parent.Env = append(environment(nil), "FIXTURE=parent")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child := number(t, strings.TrimSpace(line))
	time.Sleep(50 * time.Millisecond) // long enough for a thread to end that should not
	if !alive(child) {
		t.Fatal("not running")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	eventually(t, "the child is gone", func() bool { return !alive(child) })
}

// Pauses grow from 100 ms to 30 s and start over after a long life.
func TestRestartsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var starts []time.Duration
		keep(ctx, func(context.Context) {
			starts = append(starts, time.Since(began))
			switch len(starts) {
			case 12:
				time.Sleep(31 * time.Second)
			case 14:
				cancel()
			}
		})
		var pauses []time.Duration
		for i := 1; i < len(starts); i++ {
			pauses = append(pauses, (starts[i] - starts[i-1]).Round(time.Millisecond))
		}
		want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 31100, 200}
		for i := range want {
			if pauses[i] != want[i]*time.Millisecond {
				t.Fatalf("paused %v, want %v ms", pauses, want)
			}
		}
	})
}

func BenchmarkStdio(b *testing.B) {
	s := startStdio(b, fixtureSpec(b, "good"))
	params := json.RawMessage(`{"name":"any","arguments":{"message":"hello"}}`)
	callTool(b, s, "any")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Call(b.Context(), nobody, "tools/call", params, nil); err != nil {
			b.Fatal(err)
		}
	}
}
