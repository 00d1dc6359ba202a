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

// authorize does what an MCP client does once: register, authorize, redeem. In
// development mode the authorization answers at once.
func authorize(ctx context.Context, base, resource, scope string) (string, error) {
	const callback, verifier = "http://127.0.0.1:1/callback", "bench-bench-bench-bench-bench-bench-bench-bench" // nobody listens there: the code is read from the redirect
	var got struct {
		Client string `json:"client_id"`
		Token  string `json:"access_token"`
	}
	_, body, err := send(ctx, http.DefaultClient, base+"/oauth/register", http.Header{"Content-Type": {"application/json"}},
		`{"client_name":"bench","redirect_uris":["`+callback+`"],"token_endpoint_auth_method":"none"}`)
	if err := errors.Join(err, json.Unmarshal(body, &got)); err != nil {
		return "", fmt.Errorf("registering: %w: %s", err, body)
	}
	sum := sha256.Sum256([]byte(verifier))
	form := url.Values{
		"response_type": {"code"}, "client_id": {got.Client}, "redirect_uri": {callback}, "scope": {scope}, "resource": {resource}, "state": {"s"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	resp, err := http.DefaultTransport.RoundTrip(request(ctx, http.MethodGet, base+"/oauth/authorize?"+form.Encode(), nil))
	if err != nil {
		return "", err
	}
	to, err := resp.Location()
	if err := errors.Join(err, resp.Body.Close()); err != nil || to.Query().Get("code") == "" {
		return "", errors.Join(fmt.Errorf("authorizing was answered %s to %q, without a code", resp.Status, resp.Header.Get("Location")), err)
	}
	form = url.Values{"grant_type": {"authorization_code"}, "code": {to.Query().Get("code")}, "client_id": {got.Client},
		"redirect_uri": {callback}, "code_verifier": {verifier}, "resource": {resource}}
	_, body, err = send(ctx, http.DefaultClient, base+"/oauth/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
	if err := errors.Join(err, json.Unmarshal(body, &got)); err != nil || got.Token == "" {
		return "", errors.Join(fmt.Errorf("redeeming gave no token: %s", body), err)
	}
	return got.Token, nil
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
	rates   []float64 // calls per second, one per round
	times   []time.Duration
	cpu     time.Duration
	rss     int // MiB, at the end
}

// measure goes through all loads, each in rounds. The order of the ways turns
// with every round, so that a slow minute of the machine hits all.
func measure(ctx context.Context, ways []*way) (rows []*row, err error) {
	for _, tool := range []string{"echo", "note"} {
		for _, workers := range []int{16, 1} {
			here := make([]*row, len(ways))
			for i, w := range ways {
				here[i] = &row{tool: tool, workers: workers, way: w}
			}
			for round := range *rounds {
				for i := range ways {
					if err := here[(i+round)%len(ways)].drive(ctx); err != nil {
						return nil, err
					}
				}
				fmt.Fprintf(os.Stderr, "%s, %d workers: round %d of %d\n", tool, workers, round+1, *rounds)
			}
			rows = append(rows, here...)
		}
	}
	return rows, nil
}

// drive lets the workers call for one span and adds what they saw to the row.
func (r *row) drive(ctx context.Context) error {
	times, errs := make([][]time.Duration, r.workers), make([]error, r.workers)
	cpu, begin := cpuTime(r.way.pid), time.Now()
	var wg sync.WaitGroup
	for i := range r.workers {
		wg.Go(func() {
			for id := i*10_000_000 + 1; time.Since(begin) < *span && errs[i] == nil; id++ {
				start := time.Now()
				errs[i] = r.way.call(ctx, r.tool, id)
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

// report prints the table. Of each load, the first row is the upstream itself
// and the second the proxy.
func report(rows []*row) {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // empty where there is none
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	fmt.Printf("%s: %s, %d cores, Linux %s, %s. %d rounds of %s each, order rotated; calls/s is the median of the rounds.\n\n", time.Now().UTC().Format("2006-01-02"),
		field("/proc/cpuinfo", "model name"), runtime.NumCPU(), release, runtime.Version(), *rounds, *span)
	fmt.Println("| tool | workers | way | calls/s | of proxy | of upstream | p50 | p99 | CPU per call, this process | memory |")
	fmt.Println("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	var up, through float64
	for i, r := range rows {
		slices.Sort(r.times)
		slices.Sort(r.rates)
		if r.way == rows[0].way {
			slices.Sort(rows[i+1].rates)
			up, through = median(r.rates), median(rows[i+1].rates)
		}
		rate, p99 := median(r.rates), r.times[len(r.times)*99/100]
		fmt.Printf("| %s | %d | %s | %.0f | %.2f | %.2f | %s | %s | %s | %d MiB |\n", r.tool, r.workers, r.way.name, rate, rate/through, rate/up,
			median(r.times).Round(time.Microsecond), p99.Round(time.Microsecond), (r.cpu / time.Duration(len(r.times))).Round(time.Microsecond), r.rss)
	}
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
