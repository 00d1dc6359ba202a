//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// stdioBeside is gatehouse stdio as a process of its own, beside a server.
func stdioBeside(t *testing.T, serve *exec.Cmd, h *apptest.House, token string) *exec.Cmd {
	cmd := exec.Command(serve.Path, "stdio", "--dev", "--data-dir", h.Dir, "--public-url", h.URL)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GATEHOUSE_TOKEN=" + token, "GORACE=atexit_sleep_ms=0"}
	return cmd
}

// addClock puts the clock behind the house, and returns a function that waits until so
// many processes of it have been started, and gives their ids.
func addClock(t *testing.T, serve *exec.Cmd, h *apptest.House) (pids func(n int) []int) {
	clock, started := filepath.Join(filepath.Dir(serve.Path), "clock"), filepath.Join(t.TempDir(), "started")
	if err := os.Symlink(serve.Path, clock); err != nil {
		t.Fatal(err)
	}
	if a := h.Admin("add_server", `{"name":"clock","command":["sh","-c","echo $$ >>`+started+`; exec `+clock+`"]}`); !strings.Contains(a.Text, "clock") {
		t.Fatal(a.Text)
	}
	return func(n int) (all []int) {
		for range 1000 {
			text, _ := os.ReadFile(started)
			if all = nil; strings.Count(string(text), "\n") >= n {
				for word := range strings.FieldsSeq(string(text)) {
					pid, _ := strconv.Atoi(word)
					all = append(all, pid)
				}
				return all
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%d processes are not there", n)
		return nil
	}
}

// R904, R712: a client that others wrote starts the process, lists, calls what is
// public and what is not, and leaves; nothing of it stays.
func TestClientOverStdio(t *testing.T) {
	serve, h := process(t)
	pids := addClock(t, serve, h)
	pids(1)
	tokens, _ := h.Token("", "")
	var said bytes.Buffer
	cmd := stdioBeside(t, serve, h, tokens.AccessToken)
	cmd.Stderr = &said
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	session, err := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx, &sdk.CommandTransport{Command: cmd}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	var names []string
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tool.Name)
	}
	if got := strings.Join(names, " "); got != "clock_now echo public_info whoami" {
		t.Errorf("offered %s", got)
	}
	for name, want := range map[string]string{"public_info": "gatehouse", "echo": `"authorized":true`, "clock_now": "noon"} {
		arguments := map[string]any{"echo": map[string]any{"message": "x"}, "clock_now": map[string]any{"zone": "UTC"}}[name]
		res, err := session.CallTool(ctx, &sdk.CallToolParams{Name: name, Arguments: arguments})
		if err != nil || res.IsError || !strings.Contains(res.Content[0].(*sdk.TextContent).Text, want) {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	own := pids(2)[1]
	left := time.Now()
	if err := session.Close(); err != nil || cmd.ProcessState.ExitCode() != 0 || time.Since(left) > 4*time.Second {
		t.Errorf("it ended after %v: %v, %v", time.Since(left), cmd.ProcessState, err)
	}
	if err := syscall.Kill(own, 0); err != syscall.ESRCH {
		t.Errorf("its child goes on: %v", err)
	}
	if strings.Contains(said.String(), tokens.AccessToken) || !strings.Contains(said.String(), `"call":"tools/call clock_now"`) {
		t.Errorf("its log: %s", &said)
	}
}

// It ends with 0 when it is told to, and when nobody reads what it answers.
func TestStdioProcessEnds(t *testing.T) {
	serve, h := process(t)
	tokens, _ := h.Token("", "")
	for name, end := range map[string]func(cmd *exec.Cmd, in io.Writer, out io.Closer){
		"terminated":      func(cmd *exec.Cmd, _ io.Writer, _ io.Closer) { _ = cmd.Process.Signal(syscall.SIGTERM) },
		"interrupted":     func(cmd *exec.Cmd, _ io.Writer, _ io.Closer) { _ = cmd.Process.Signal(syscall.SIGINT) },
		"terminal gone":   func(cmd *exec.Cmd, _ io.Writer, _ io.Closer) { _ = cmd.Process.Signal(syscall.SIGHUP) },
		"nobody is there": func(_ *exec.Cmd, in io.Writer, out io.Closer) { _ = out.Close(); _, _ = io.WriteString(in, pings) },
	} {
		cmd := stdioBeside(t, serve, h, tokens.AccessToken)
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil || err1 != nil || err2 != nil {
			t.Fatal(err, err1, err2)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		if _, err := io.WriteString(in, pings); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 30)); err != nil {
			t.Fatal(err)
		}
		end(cmd, in, out)
		ended := make(chan int, 1)
		go func() {
			state, _ := cmd.Process.Wait() // not Wait of cmd: that closes what we still hold
			ended <- state.ExitCode()
		}()
		select {
		case code := <-ended:
			if code != 0 {
				t.Errorf("%s: exit code %d", name, code)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it goes on", name)
		}
	}
}

const pings = `{"jsonrpc":"2.0","id":1,"method":"ping"}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"ping"}` + "\n"
