// Package endurance drives the built server, in processes of their own, as it is
// used and abused over time: refresh storms, kill -9, several nodes, a long day.
//
// A test fails when a rule is broken, not when something is slow, except for the
// bounds that are promised; those count only while the machine itself keeps up.
// Each test prints one line of figures. Usually the sizes are small; with
// GATEHOUSE_TEST_FULL=1 they are those that doc/performance.md speaks of.
package endurance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// full is whether the sizes are the real ones.
var full = os.Getenv("GATEHOUSE_TEST_FULL") == "1"

// size is how much of something a test does.
func size[T any](small, real T) T {
	if full {
		return real
	}
	return small
}

// figures prints the line of a test.
func figures(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("%s, %s size: %s", t.Name(), size("small", "full"), fmt.Sprintf(format, args...))
}

// gatehouse is the built program.
var gatehouse string

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == childArgument {
		child()
		return
	}
	os.Exit(run(m))
}

// run builds the program, unless GATEHOUSE_BIN names one, and runs the tests.
func run(m *testing.M) int {
	if gatehouse = os.Getenv("GATEHOUSE_BIN"); gatehouse != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "endurance")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		gatehouse = filepath.Join(dir, "gatehouse")
		cmd := exec.Command("go", "build", "-o", gatehouse, "github.com/gatehouse-mcp/gatehouse/cmd/gatehouse")
		cmd.Stderr = os.Stderr
		err = cmd.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gatehouse was not built:", err)
		return 1
	}
	return m.Run()
}

// each runs f with the address of a new database of either engine.
func each(t *testing.T, f func(t *testing.T, database string)) {
	if !full {
		t.Parallel() // the real sizes have the machine for themselves
	}
	for engine, address := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(engine, func(t *testing.T) {
			if !full {
				t.Parallel()
			}
			f(t, address(t))
		})
	}
}

// A server is a process that can be killed and started again, with the same
// address and data folder.
type server struct {
	*apptest.House
	t        *testing.T
	database string
	args     []string
	cmd      *exec.Cmd
	ended    chan error
}

// serve starts a server. Nodes of one database have one key and one public
// address; an empty one is the server's own.
func serve(t *testing.T, database, key, public string, args ...string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		t.Fatal(err)
	}
	at := "localhost:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &server{t: t, database: database, args: append([]string{
		"serve", "--listen", at, "--data-dir", dir, "--database", database, "--public-url", cmp.Or(public, "http://"+at),
		"--master-key-file", cmp.Or(key, filepath.Join(dir, "master.key")),
	}, args...)}
	s.House = apptest.At(t, "http://"+at, dir, nil)
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			text := s.Log.String()
			t.Logf("the server at %s printed at the end:\n%s", at, text[max(0, len(text)-4000):])
		}
	})
	s.start()
	return s
}

func environment() []string {
	return append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GATEHOUSE_") }), "GOTRACEBACK=all")
}

// start waits until the server listens. It may be called where t.Fatal may not.
func (s *server) start() {
	s.t.Helper()
	for try := 0; ; try++ {
		s.Log = &apptest.Log{}
		s.cmd, s.ended = exec.Command(gatehouse, s.args...), make(chan error, 1)
		s.cmd.Stdout, s.cmd.Stderr, s.cmd.Env = s.Log, s.Log, environment()
		s.cmd.WaitDelay = time.Second // a child of its own may hold the pipe
		if err := s.cmd.Start(); err != nil {
			s.t.Error(err)
			return
		}
		cmd, ended := s.cmd, s.ended
		go func() { ended <- cmd.Wait() }()
		if s.Log.Wait("✓ Listening on ", nil) != "" {
			return
		}
		if s.kill(); try == 2 {
			s.t.Errorf("the server does not start:\n%s", s.Log)
			return
		}
	}
}

// signal ends the process and says how it ended.
func (s *server) signal(sig syscall.Signal) error {
	_ = s.cmd.Process.Signal(sig) // it may have ended
	select {
	case err := <-s.ended:
		s.ended <- err
		return err
	case <-time.After(time.Minute):
		_ = s.cmd.Process.Kill()
		return errors.New("it did not end within a minute")
	}
}

// kill is kill -9.
func (s *server) kill() { _ = s.signal(syscall.SIGKILL) }

// stop asks the server to end, as an operator does.
func (s *server) stop() {
	s.t.Helper()
	if err := s.signal(syscall.SIGTERM); err != nil {
		s.t.Errorf("the server ended with %v", err)
	}
}

// run runs a command of the terminal against the server's admin socket.
func (s *server) run(args ...string) []byte {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	end := len(args)
	if i := slices.Index(args, "--"); i >= 0 {
		end = i
	}
	cmd := exec.CommandContext(ctx, gatehouse, slices.Insert(slices.Clone(args), end, "--data-dir", s.Dir)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &said, environment()
	if err := cmd.Run(); err != nil {
		s.t.Errorf("gatehouse %s: %v\n%s%s", strings.Join(args, " "), err, &out, &said)
	}
	return out.Bytes()
}

// intact has the server verify its chain, and then an export of it that is read
// without the server. It returns the events.
func (s *server) intact() (events []audit.Event) {
	s.t.Helper()
	s.run("audit", "verify")
	path := filepath.Join(s.t.TempDir(), "log.jsonl")
	s.run("audit", "export", path)
	s.run("audit", "verify", path)
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Error(err)
	}
	for line := range bytes.Lines(text) {
		var e audit.Event
		if err := json.Unmarshal(line, &e); err != nil {
			s.t.Errorf("%v: %s", err, line)
		}
		if e.Action != "" { // the last line is the head
			events = append(events, e)
		}
	}
	return events
}

// usage is what the process has now.
type usage struct {
	MiB, handles, threads int
}

func (s *server) usage() (u usage) {
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		s.t.Skipf("memory is read in /proc: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			u.MiB = n / 1024
		case "Threads":
			u.threads = n
		}
	}
	handles, _ := os.ReadDir(proc + "fd")
	u.handles = len(handles)
	return u
}

// goroutines ends the process with a stack dump and counts them in it.
func (s *server) goroutines() (n int, dump string) {
	_ = s.signal(syscall.SIGQUIT)
	dump = s.Log.String()
	return strings.Count(dump, "\ngoroutine "), dump
}

// delays measures how late the machine wakes a sleeper, until the returned
// function is called.
func delays() (worst func() time.Duration) {
	stop, most := make(chan struct{}), make(chan time.Duration)
	go func() {
		const nap = 5 * time.Millisecond
		var late time.Duration
		for {
			select {
			case <-stop:
				most <- late
				return
			default:
				began := time.Now()
				time.Sleep(nap)
				late = max(late, time.Since(began)-nap)
			}
		}
	}()
	return func() time.Duration { close(stop); return <-most }
}

// spread says where durations lie.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %v, p99 %v, max %v", quantile(all, .5), quantile(all, .99), quantile(all, 1))
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Round(100 * time.Microsecond)
}
