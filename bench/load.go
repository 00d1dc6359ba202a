package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A way leads to the upstream: a process and an MCP session with it.
type way struct {
	name, host, path, token, session string
	pid                              int
	hc                               *http.Client
}

func (w *way) url() string { return "http://" + w.host + w.path }

// callback is where nobody listens: the code is read from the redirect.
const callback, verifier = "http://127.0.0.1:1/callback", "bench-bench-bench-bench-bench-bench-bench-bench"

// An app is an OAuth client of a gatehouse in development mode, where an
// authorization is answered at once.
type app struct {
	base, id, resource, scope string
	hc                        *http.Client
}

// tokens are what an app is given.
type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func register(ctx context.Context, w *way, resource, scope string) (*app, error) {
	a := &app{base: "http://" + w.host, resource: resource, scope: scope, hc: w.hc}
	var got struct {
		Client string `json:"client_id"`
	}
	_, body, err := send(ctx, a.hc, a.base+"/oauth/register", http.Header{"Content-Type": {"application/json"}},
		`{"client_name":"bench","redirect_uris":["`+callback+`"],"token_endpoint_auth_method":"none"}`)
	if err := errors.Join(err, json.Unmarshal(body, &got)); err != nil || got.Client == "" {
		return nil, errors.Join(fmt.Errorf("registering was answered %s", body), err)
	}
	a.id = got.Client
	return a, nil
}

// code authorizes.
func (a *app) code(ctx context.Context) (string, error) {
	sum := sha256.Sum256([]byte(verifier))
	form := url.Values{
		"response_type": {"code"}, "client_id": {a.id}, "redirect_uri": {callback}, "scope": {a.scope}, "resource": {a.resource}, "state": {"s"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	resp, err := a.hc.Transport.RoundTrip(request(ctx, http.MethodGet, a.base+"/oauth/authorize?"+form.Encode(), nil))
	if err != nil {
		return "", err
	}
	_, read := io.Copy(io.Discard, resp.Body) // or the connection could not be used again
	to, err := resp.Location()
	if err := errors.Join(err, read, resp.Body.Close()); err != nil || to.Query().Get("code") == "" {
		return "", errors.Join(fmt.Errorf("authorizing was answered %s to %q, without a code", resp.Status, resp.Header.Get("Location")), err)
	}
	return to.Query().Get("code"), nil
}

func (a *app) exchange(ctx context.Context, code string) (tokens, error) {
	return a.token(ctx, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}})
}

func (a *app) refresh(ctx context.Context, refresh string) (tokens, error) {
	return a.token(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
}

func (a *app) token(ctx context.Context, form url.Values) (got tokens, err error) {
	form.Set("client_id", a.id)
	_, body, err := send(ctx, a.hc, a.base+"/oauth/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
	if err := errors.Join(err, json.Unmarshal(body, &got)); err != nil || got.Access == "" || got.Refresh == "" {
		return got, errors.Join(fmt.Errorf("a token request was answered %s", body), err)
	}
	return got, nil
}

func request(ctx context.Context, method, url string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		panic(err) // the address is our own
	}
	return req
}

// send posts and returns the whole answer.
func send(ctx context.Context, hc *http.Client, url string, header http.Header, body string) (*http.Response, []byte, error) {
	req := request(ctx, http.MethodPost, url, strings.NewReader(body))
	req.Header = header
	resp, err := hc.Do(req)
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(resp.Body)
	return resp, text, errors.Join(err, resp.Body.Close())
}

func (w *way) post(ctx context.Context, message string) (*http.Response, []byte, error) {
	header := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	if w.session != "" {
		header.Set("Mcp-Session-Id", w.session)
		header.Set("Mcp-Protocol-Version", "2025-11-25")
	}
	if w.token != "" {
		header.Set("Authorization", "Bearer "+w.token)
	}
	return send(ctx, w.hc, w.url(), header, message)
}

func (w *way) initialize(ctx context.Context) error {
	resp, text, err := w.post(ctx, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("initialize was answered %s: %s", resp.Status, text)
	}
	w.session = resp.Header.Get("Mcp-Session-Id")
	_, _, err = w.post(ctx, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	return err
}

// call calls a tool and fails unless exactly what was sent came back.
func (w *way) call(ctx context.Context, tool string, id int) error {
	n := strconv.Itoa(id)
	resp, text, err := w.post(ctx, `{"jsonrpc":"2.0","id":`+n+`,"method":"tools/call","params":{"name":"`+tool+`","arguments":{"text":"bench `+n+`"}}}`)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`"text":"bench `+n+`"`)) || !bytes.Contains(text, []byte(`"id":`+n)) {
		return fmt.Errorf("a call of %s was answered wrongly: %s: %s", tool, resp.Status, text)
	}
	return nil
}

// A row is what was measured of one way under one load.
type row struct {
	tool    string
	workers int
	way     *way
	rates   []float64 // operations per second, one per round
	times   []time.Duration
	cpu     time.Duration
	rss     int // MiB, at the end
}

// inTurn goes through the rows in rounds. Their order turns with every round, so
// that a slow minute of the machine hits all.
func inTurn(rows []*row, measure func(*row) error) error {
	for round := range *rounds {
		for i := range rows {
			if err := measure(rows[(i+round)%len(rows)]); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "%s, %d workers: round %d of %d\n", rows[0].tool, rows[0].workers, round+1, *rounds)
	}
	return nil
}

// measure calls tools, in all ways and under all loads.
func measure(ctx context.Context, ways []*way) (rows []*row, err error) {
	for _, tool := range []string{"echo", "note"} {
		for _, workers := range []int{16, 1} {
			here := make([]*row, len(ways))
			for i, w := range ways {
				here[i] = &row{tool: tool, workers: workers, way: w}
			}
			err := inTurn(here, func(r *row) error {
				ids := make([]int, workers)
				return r.drive(during(func(worker int) error {
					ids[worker]++
					return r.way.call(ctx, r.tool, worker*10_000_000+ids[worker])
				}))
			})
			if err != nil {
				return nil, err
			}
			rows = append(rows, here...)
		}
	}
	return rows, nil
}

// during repeats an operation for one span.
func during(do func(worker int) error) func(worker int) (bool, error) {
	begin := time.Now()
	return func(worker int) (bool, error) {
		if time.Since(begin) >= *span {
			return false, nil
		}
		return true, do(worker)
	}
}

// drive lets the workers do something until there is no more to do, and adds what
// they saw to the row.
func (r *row) drive(do func(worker int) (more bool, err error)) error {
	times, errs := make([][]time.Duration, r.workers), make([]error, r.workers)
	cpu, begin := cpuTime(r.way.pid), time.Now()
	var wg sync.WaitGroup
	for i := range r.workers {
		wg.Go(func() {
			for {
				start := time.Now()
				more, err := do(i)
				if errs[i] = err; !more || err != nil {
					return
				}
				times[i] = append(times[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	all, took := slices.Concat(times...), time.Since(begin)
	r.cpu += cpuTime(r.way.pid) - cpu
	r.rss = rss(r.way.pid)
	r.times = append(r.times, all...)
	r.rates = append(r.rates, float64(len(all))/took.Seconds())
	return errors.Join(errs...)
}

// report prints the table of calls. Of each load, the first row is the upstream
// itself and the second the proxy.
func report(rows []*row) {
	fmt.Println("| tool | workers | way | calls/s | of proxy | of upstream | p50 | p99 | CPU per call, this process | memory |")
	fmt.Println("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	var up, through float64
	for i, r := range rows {
		r.sort()
		if r.way == rows[0].way {
			rows[i+1].sort()
			up, through = median(r.rates), median(rows[i+1].rates)
		}
		rate := median(r.rates)
		fmt.Printf("| %s | %d | %s | %.0f | %.2f | %.2f | %s |\n", r.tool, r.workers, r.way.name, rate, rate/through, rate/up, r.cost())
	}
}

// machine says where and how all of it was measured.
func machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // empty where there is none
	loadavg, _ := os.ReadFile("/proc/loadavg")
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	load, _, _ := strings.Cut(string(loadavg), " ")
	return fmt.Sprintf("%s: %s, %d cores, Linux %s, %s, load average at the start %s. %d rounds of %s each, order rotated; rates are the median of the rounds.",
		time.Now().UTC().Format("2006-01-02"), field("/proc/cpuinfo", "model name"), runtime.NumCPU(), release, runtime.Version(), load, *rounds, *span)
}

func (r *row) sort() {
	slices.Sort(r.times)
	slices.Sort(r.rates)
}

// cost is what one operation takes, of a row that is sorted.
func (r *row) cost() string {
	return fmt.Sprintf("%s | %s | %s | %d MiB", median(r.times).Round(time.Microsecond), r.times[len(r.times)*99/100].Round(time.Microsecond),
		(r.cpu / time.Duration(len(r.times))).Round(time.Microsecond), r.rss)
}

func median[T any](sorted []T) T { return sorted[len(sorted)/2] }

// cpuTime is what a process has used so far; zero where there is no /proc.
func cpuTime(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11]) // the kernel writes numbers
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

func rss(pid int) int {
	kib, _ := strconv.Atoi(strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"), " kB"))
	return kib / 1024
}

// field is a value from one of the kernel's "name: value" files, or empty.
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
