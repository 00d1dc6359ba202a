package endurance

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// A server that is killed at any moment loses nothing and logs nobody out: the
// chain verifies, every answered call has its outcome event, every forwarded one
// was recorded before, what was pending is closed as unknown, and tokens,
// registration, consent, browser and MCP sessions work on.
func TestKilledServerLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		k := &killed{t: t, up: newUpstream(t, 2), postgres: strings.HasPrefix(database, "postgres")}
		k.server = serve(t, database, "", "")
		k.enter()
		kills := size(3, 20)
		var recovery []time.Duration
		for n := range kills {
			k.work(300*time.Millisecond + rand.N(700*time.Millisecond))
			began := time.Now()
			k.server.start()
			recovery = append(recovery, time.Since(began))
			k.unnoticed()
			if full || !k.postgres || n == kills-1 { // other nodes wait before they take one for dead
				k.recorded()
			}
			if t.Failed() {
				t.FailNow()
			}
		}
		figures(t, "%d kills during 16-way calls, %d calls answered, %d forwarded, %d closed as unknown, 0 without outcome; restart to listening %s",
			kills, k.answered.Load(), len(k.up.sent), k.unknown, spread(recovery))
	})
}

type killed struct {
	t        *testing.T
	server   *server
	up       *upstream
	postgres bool

	browser         *apptest.Browser
	client, session string
	tokens          oauth.TokenResponse

	ids      sync.Map // payload hash → whether the call was answered
	answered atomic.Int64
	serial   atomic.Int64
	seen     int64               // seq up to which the log was read
	calls    map[string][]string // call → outcomes
	payloads map[string]string   // payload hash → call
	unknown  int
}

const fixEndpoint = "/s/fix/mcp"

// enter is all that a person does, once: setup, sign-in, consent; and an app its
// registration, exchange and session.
func (k *killed) enter() {
	s := k.server
	k.calls, k.payloads = map[string][]string{}, map[string]string{}
	if a := s.Admin("add_server", `{"name":"fix","url":"`+k.up.URL+`"}`); a.StatusCode != http.StatusOK {
		k.t.Fatal(a.Text)
	}
	k.browser = s.Browser()
	k.browser.SetUp()
	k.client = s.Register()
	code, verifier := k.consent()
	s.Redeem(k.client, code, verifier, nil).JSON(k.t, &k.tokens)
	k.session = rpc(k.t.Context(), s.URL+fixEndpoint, k.tokens.AccessToken, "", "initialize", initialize).header.Get(mcp.SessionHeader)
	if k.session == "" {
		k.t.Fatal("no session")
	}
}

// consent goes through an authorization in the browser; signing in again is not
// part of it.
func (k *killed) consent() (code, verifier string) {
	k.t.Helper()
	query, verifier := k.server.Authorization(k.client, map[string][]string{
		"resource": {k.server.URL + fixEndpoint}, "scope": {"fix:read fix:write fix:admin"},
	})
	page := k.browser.Open("/oauth/authorize?" + query.Encode())
	if target := apptest.Target(page.Text); target != nil { // consent was remembered
		return target.Query().Get("code"), verifier
	}
	form := apptest.Fields(page.Text)
	form.Set("started", "yes")
	form.Set("decision", "allow")
	page = k.browser.Submit("/consent", form)
	target := apptest.Target(page.Text)
	if target == nil || target.Query().Get("code") == "" {
		k.t.Fatalf("no code: %d %s", page.StatusCode, page.Text)
	}
	return target.Query().Get("code"), verifier
}

// work calls sixteen times at once, again and again, until the server is killed.
func (k *killed) work(life time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for range 16 {
		working.Go(func() {
			for ctx.Err() == nil {
				k.callOnce(ctx)
			}
		})
	}
	time.Sleep(life)
	k.server.kill()
	cancel()
	working.Wait()
}

func (k *killed) callOnce(ctx context.Context) {
	id := fmt.Sprintf("call-%d", k.serial.Add(1))
	args := `{"id":"` + id + `"}`
	k.ids.Store(audit.Digest([]byte(args)), false)
	tool := toolName(1)
	if rand.IntN(4) == 0 {
		tool = toolName(0) // changes nothing
	}
	a := call(ctx, k.server.URL+fixEndpoint, k.tokens.AccessToken, k.session, tool, args)
	switch {
	case a.err != nil:
		time.Sleep(time.Millisecond)
	case a.status == http.StatusOK && strings.Contains(a.text, `"did `+id+`"`):
		k.ids.Store(audit.Digest([]byte(args)), true)
		k.answered.Add(1)
	default:
		k.t.Errorf("a call of a server that runs: %v", a)
		time.Sleep(100 * time.Millisecond)
	}
}

// unnoticed is what a restart must not be noticed by.
func (k *killed) unnoticed() {
	k.t.Helper()
	s := k.server
	a := call(k.t.Context(), s.URL+fixEndpoint, k.tokens.AccessToken, k.session, toolName(0), `{"id":"after"}`)
	if a.status != http.StatusOK || !strings.Contains(a.text, `"did after"`) {
		k.t.Errorf("token and MCP session after the restart: %v", a)
	}
	a = refresh(k.t.Context(), s.URL, k.client, k.tokens.RefreshToken)
	if err := json.Unmarshal([]byte(a.text), &k.tokens); a.status != http.StatusOK || err != nil {
		k.t.Errorf("refresh token and registration after the restart: %v", a)
	}
	code, verifier := k.consent() // the browser is still signed in
	if a := s.Redeem(k.client, code, verifier, nil); a.StatusCode != http.StatusOK {
		k.t.Errorf("code of a browser that stayed signed in: %d %s", a.StatusCode, a.Text)
	}
}

// recorded compares the log with what callers and the upstream saw.
func (k *killed) recorded() {
	k.t.Helper()
	k.server.run("audit", "verify")
	for began := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		k.read()
		open := 0
		for _, outcomes := range k.calls {
			if len(outcomes) == 1 && outcomes[0] == string(audit.Pending) {
				open++
			}
		}
		if open == 0 {
			break
		}
		if !k.postgres || time.Since(began) > 90*time.Second {
			k.t.Fatalf("%d calls are still pending %v after the restart", open, time.Since(began).Round(time.Second))
		}
	}
	k.ids.Range(func(payload, answered any) bool {
		outcomes := k.calls[k.payloads[payload.(string)]]
		if answered.(bool) && (len(outcomes) == 0 || outcomes[len(outcomes)-1] != string(audit.Allowed)) {
			k.t.Errorf("an answered call has the outcomes %q", outcomes)
		}
		return true
	})
	k.up.mu.Lock()
	defer k.up.mu.Unlock()
	for id := range k.up.sent {
		payload := audit.Digest([]byte(`{"id":"` + id + `"}`))
		if outcomes := k.calls[k.payloads[payload]]; len(outcomes) != 2 || outcomes[0] != string(audit.Pending) {
			k.t.Errorf("the forwarded call %s has the outcomes %q", id, outcomes)
		}
	}
}

// read follows the log, as gatehouse audit tail shows it.
func (k *killed) read() {
	k.t.Helper()
	for line := range strings.Lines(string(k.server.run("audit", "tail", "--since-seq", fmt.Sprint(max(k.seen, 1)), "-o", "json"))) {
		var e audit.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			k.t.Fatalf("%v: %s", err, line)
		}
		k.seen = e.Seq
		if e.Action != "tool.call" {
			continue
		}
		k.calls[e.Call] = append(k.calls[e.Call], string(e.Outcome))
		k.payloads[e.Payload] = e.Call
		if e.Outcome == audit.Unknown {
			k.unknown++
		}
	}
}
