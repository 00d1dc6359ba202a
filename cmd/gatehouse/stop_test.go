package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// process is gatehouse serve as a process of its own.
func process(t *testing.T, args ...string) (*exec.Cmd, *apptest.House) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	gatehouse, dir, log := filepath.Join(t.TempDir(), "gatehouse"), t.TempDir(), &apptest.Log{}
	if err := os.Symlink(exe, gatehouse); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gatehouse, append([]string{"serve", "--dev", "--listen", "localhost:0", "--data-dir", dir}, args...)...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
	url, _, _ := strings.Cut(log.Wait("✓ Listening on ", nil), " ")
	if url == "" {
		t.Fatalf("it does not serve: %s", log)
	}
	return cmd, apptest.At(t, url, dir, log)
}

// R1309: told to stop, the server takes no new callers and ends the streams, lets
// a running call end, records it, and exits with 0.
func TestStopLetsCallsEnd(t *testing.T) {
	cmd, h := process(t)
	up := apptest.NewUpstream(t)
	running, release := make(chan struct{}), make(chan struct{})
	up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		close(running)
		<-release
		apptest.Reply(w, m, `{"content":[{"type":"text","text":"at last"}]}`)
	})
	h.Add("slow", up)
	tokens, _ := h.Token("", "")
	session := h.RPC("/mcp", tokens.AccessToken, "initialize", `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`).
		Header.Get(mcp.SessionHeader)
	stream, err := h.HTTP.Do(h.Request(http.MethodGet, "/mcp", "", "Authorization: Bearer "+tokens.AccessToken, mcp.SessionHeader+": "+session, "Accept: text/event-stream"))
	if err != nil || stream.StatusCode != http.StatusOK {
		t.Fatalf("no stream: %v %v", stream, err)
	}
	defer func() { _ = stream.Body.Close() }()
	answered := make(chan apptest.Answer, 1)
	go func() { answered <- h.Tool(tokens.AccessToken, "slow_write", "{}") }()
	<-running

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stream.Body); err != nil {
		t.Errorf("the stream did not end in order: %v", err)
	}
	for range 500 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
		if err != nil {
			break // no new callers
		}
		_ = conn.Close()
		time.Sleep(10 * time.Millisecond)
	}
	close(release)
	if a := <-answered; !strings.Contains(a.Text, "at last") {
		t.Errorf("the call that was running: %d %s", a.StatusCode, a.Text)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, h.Log)
	}
}

// A second signal ends the server at once, whatever still runs.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	cmd, h := process(t)
	up := apptest.NewUpstream(t)
	running, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	up.Answer(func(http.ResponseWriter, *http.Request, mcp.Message) { close(running); <-release })
	h.Add("slow", up)
	tokens, _ := h.Token("", "")
	go func() {
		res, err := h.HTTP.Do(h.Request(http.MethodPost, "/mcp/tool/slow_read", "{}", "Authorization: Bearer "+tokens.AccessToken, "Content-Type: application/json"))
		if err == nil {
			_ = res.Body.Close()
		}
	}()
	<-running
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			break // it is gone
		}
		select {
		case <-ended:
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
				t.Errorf("it ended by itself: %s", h.Log)
			}
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}
