// Command bench measures a whole tools/call: what a caller pays for Gatehouse between
// itself and an MCP server; and the token endpoint. Run it by hand, on a machine
// that does nothing else:
//
//	go run ./bench
//	go run ./bench -before ./gatehouse-of-last-week -postgres postgres://postgres@127.0.0.1/postgres
//
// It starts a fast MCP server, a bare httputil.ReverseProxy in front of it and a
// real gatehouse in front of it, each in a process of its own, and drives the
// same calls through all in turn. Then it exchanges codes, refreshes and has
// tokens checked. Every answer is verified. The report is Markdown, for
// doc/performance.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var (
	rounds = flag.Int("rounds", 5, "how often each way is measured")
	span   = flag.Duration("for", 2*time.Second, "how long one measurement lasts")
	binary = flag.String("gatehouse", "", `the gatehouse to measure; empty builds ./cmd/gatehouse, "none" leaves it out`)
	before = flag.String("before", "", "another build of gatehouse, to compare with")
	server = flag.String("postgres", "", "address of a PostgreSQL on which databases may be created; empty measures SQLite alone")
	only   = flag.String("only", "", "measure only calls or tokens")
	role   = flag.String("role", "", "what this process is: upstream, proxy, or empty for the benchmark itself")
	listen = flag.String("listen", "", "where an upstream or a proxy listens")
	behind = flag.String("behind", "", "where the proxy sends what it gets")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch *role {
	case "upstream":
		err = http.ListenAndServe(*listen, http.HandlerFunc(upstream))
	case "proxy":
		err = http.ListenAndServe(*listen, proxy())
	default:
		err = bench(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// proxy is the yardstick: the standard library's reverse proxy and nothing else,
// allowed to keep as many connections as there are callers.
func proxy() http.Handler {
	to := &url.URL{Scheme: "http", Host: *behind}
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}
}

// results of the upstream, whose tools answer with the text they were given.
var results = map[string]string{
	"initialize": `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}`,
	"tools/list": `{"tools":[{"name":"echo","description":"Says it again.","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}},` +
		`{"name":"note","description":"Would write it down.","inputSchema":{"type":"object"}}]}`,
	"tools/call": `{"content":[{"type":"text","text":%s}]}`,
	"ping":       `{}`,
}

// upstream is an MCP server that does nothing as fast as it can.
func upstream(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ID     json.RawMessage
		Method string
		Params struct {
			Arguments struct{ Text json.RawMessage }
		}
	}
	switch err := json.NewDecoder(r.Body).Decode(&m); {
	case r.Method != http.MethodPost:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case m.ID == nil:
		w.WriteHeader(http.StatusAccepted)
	default:
		result := strings.Replace(results[m.Method], "%s", string(m.Params.Arguments.Text), 1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID, result) // who has gone away needs no answer
	}
}

// bench starts everything, measures, prints the report, and has each gatehouse
// check that its log is whole.
func bench(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "gatehouse-bench")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	h := &house{dir: dir}
	defer func() {
		cancel()
		for _, cmd := range h.running {
			_ = cmd.Wait() // it was told to end
		}
		for _, clean := range h.clean {
			err = errors.Join(err, clean())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := h.build(ctx); err != nil {
		return err
	}
	fmt.Println(machine())
	if *only != "tokens" {
		if err := h.calls(ctx); err != nil {
			return err
		}
	}
	if *only != "calls" {
		return h.tokens(ctx)
	}
	return nil
}

// A house is what runs during a benchmark.
type house struct {
	dir     string
	builds  []build
	running []*exec.Cmd
	clean   []func() error
}

// A build is a gatehouse to measure.
type build struct{ name, program string }

// build makes what is to be measured.
func (h *house) build(ctx context.Context) error {
	if *before != "" {
		h.builds = append(h.builds, build{"gatehouse before", *before})
	}
	if *binary == "" {
		*binary = filepath.Join(h.dir, "gatehouse")
		if err := command(ctx, "go", "build", "-o", *binary, "./cmd/gatehouse"); err != nil {
			return err
		}
	}
	if *binary != "none" {
		h.builds = append(h.builds, build{"gatehouse", *binary})
	}
	return nil
}

// calls measures calls of tools.
func (h *house) calls(ctx context.Context) error {
	ways, err := h.ways(ctx)
	if err != nil {
		return err
	}
	rows, err := measure(ctx, ways)
	if err != nil {
		return err
	}
	fmt.Println()
	report(rows)
	for i, b := range h.builds {
		out, err := exec.CommandContext(ctx, b.program, "audit", "verify", "--data-dir", h.data("calls", i)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		verdict, _, _ := strings.Cut(string(out), "\n")
		fmt.Printf("\nAfter the run, %s verified its chain: %s\n", b.name, verdict)
	}
	return nil
}

// data is the folder of a build.
func (h *house) data(what string, build int) string {
	return filepath.Join(h.dir, fmt.Sprintf("%s%d", what, build))
}

// ways brings up all processes and opens an MCP session with each.
func (h *house) ways(ctx context.Context) ([]*way, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	up, err := h.run(ctx, "upstream directly", self, "-role", "upstream", "-listen")
	if err != nil {
		return nil, err
	}
	through, err := h.run(ctx, "bare reverse proxy", self, "-role", "proxy", "-behind", up.host, "-listen")
	if err != nil {
		return nil, err
	}
	ways := []*way{up, through}
	for i := range h.builds {
		w, err := h.gatehouse(ctx, i, up)
		if err != nil {
			return nil, err
		}
		ways = append(ways, w)
	}
	for _, w := range ways {
		if err := w.initialize(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return ways, nil
}

// gatehouse starts a real server in development mode on an empty folder, adds
// the upstream to it and signs in.
func (h *house) gatehouse(ctx context.Context, i int, up *way) (*way, error) {
	b, data := h.builds[i], h.data("calls", i)
	w, err := h.run(ctx, b.name, b.program, "serve", "--dev", "--data-dir", data, "--listen")
	if err != nil {
		return nil, err
	}
	if err := command(ctx, b.program, "add", "bench", up.url(), "--data-dir", data); err != nil {
		return nil, err
	}
	w.path = "/s/bench/mcp"
	a, err := register(ctx, w, w.url(), "bench:read bench:write bench:admin")
	if err != nil {
		return nil, err
	}
	code, err := a.code(ctx)
	if err != nil {
		return nil, err
	}
	got, err := a.exchange(ctx, code)
	w.token = got.Access
	return w, err
}

// run starts a server whose last argument is the address to listen on and waits
// until it listens. It ends when ctx does.
func (h *house) run(ctx context.Context, name, program string, args ...string) (*way, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		return nil, err
	}
	host := strings.Replace(l.Addr().String(), "127.0.0.1", "localhost", 1)
	if err := l.Close(); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(h.dir, filepath.Base(program)+host+".log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, append(args, host)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return nil, err
	}
	h.running = append(h.running, cmd)
	for range 400 {
		if c, err := net.Dial("tcp", host); err == nil {
			transport := &http.Transport{MaxIdleConnsPerHost: 64}
			return &way{name: name, host: host, path: "/mcp", pid: cmd.Process.Pid, hc: &http.Client{Transport: transport}}, c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	said, err := os.ReadFile(log.Name())
	return nil, errors.Join(fmt.Errorf("%s does not listen at %s; it said:\n%s", name, host, said), err)
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
