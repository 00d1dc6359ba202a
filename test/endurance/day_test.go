package endurance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// A day of use in minutes: many clients, each with several sessions, list, call
// tools over HTTP and stdio, refresh, sign in anew, revoke and make mistakes,
// while the server is restarted and killed. At the end it holds no more memory,
// goroutines, file handles and rows than at the beginning, but for what is kept
// on purpose.
func TestDayOfUse(t *testing.T) {
	if !full {
		t.Parallel()
	}
	d := newDay(t, size(20, 200), 10)
	span := size(10*time.Second, 10*time.Minute)

	d.use(span / 10) // everything has happened once
	before, _ := d.rest()
	d.server.start()
	d.use(3 * span / 10)
	d.server.stop()
	d.server.start()
	d.use(2 * span / 10)
	d.server.kill()
	d.server.start()
	samples := d.use(4 * span / 10)
	after, dump := d.rest()

	early, late := samples[len(samples)/4:len(samples)/2], samples[3*len(samples)/4:]
	first, last := middle(early), middle(late)
	if last.MiB > first.MiB+first.MiB/4+8 {
		t.Errorf("memory grew from %d to %d MiB in a life", first.MiB, last.MiB)
	}
	if after.handles > before.handles+8 || after.goroutines > before.goroutines+8 {
		t.Errorf("at rest at the end: %+v, at the beginning: %+v\n%s", after, before, dump)
	}
	d.server.start()
	d.recorded()
	kept, left := d.yearLater()
	figures(t, "%d clients, %d sessions, %d tools over HTTP and stdio, %d operations in %v (%.0f/s), 2 restarts, 1 kill; "+
		"memory under load %d → %d MiB; at rest %s → %s; rows that expire %d, a year later %d", len(d.clients), d.sessions.Load(), httpTools+childTools, d.done.Load(), span,
		float64(d.done.Load())/span.Seconds(), first.MiB, last.MiB, before, after, kept, left)
}

// unlimited is a configuration in which one address may be everybody.
func unlimited(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(path, []byte("limits:\n  register: 0/0/1m\n  strangers: 0/0/1m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const httpTools = 40

type day struct {
	t       *testing.T
	server  *server
	clients []*dayClient

	done, sessions atomic.Int64
}

// A dayClient is an app in the hands of one person. One goroutine uses it at a
// time.
type dayClient struct {
	busy            sync.Mutex
	id              string
	access, refresh string
	sessions        []string
	wanted          int
}

// state is what a process has that rests.
type state struct {
	usage
	goroutines int
}

func (s state) String() string {
	return fmt.Sprintf("%d MiB, %d goroutines, %d handles, %d threads", s.MiB, s.goroutines, s.handles, s.threads)
}

func newDay(t *testing.T, clients, sessions int) *day {
	d := &day{t: t, server: serve(t, storetest.SQLite(t), "", "", "--dev", "--config", unlimited(t))}
	d.server.Add("web", &apptest.Upstream{URL: newUpstream(t, httpTools).URL})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d.server.run("add", "local", "--", self, childArgument)
	for range clients {
		c := &dayClient{wanted: sessions}
		d.signIn(c)
		d.clients = append(d.clients, c)
	}
	return d
}

// signIn registers, authorizes and exchanges.
func (d *day) signIn(c *dayClient) {
	var tokens oauth.TokenResponse
	tokens, c.id = d.server.Token("mcp:tools mcp:admin", "")
	c.access, c.refresh, c.sessions = tokens.AccessToken, tokens.RefreshToken, nil
}

// use lets sixteen people use their apps for a while and samples the process.
func (d *day) use(span time.Duration) (samples []usage) {
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	var using sync.WaitGroup
	for range 16 {
		using.Go(func() {
			for ctx.Err() == nil && !d.t.Failed() {
				d.operate(d.clients[rand.IntN(len(d.clients))])
				time.Sleep(rand.N(40 * time.Millisecond))
			}
		})
	}
	for every := time.NewTicker(max(span/100, 50*time.Millisecond)); ctx.Err() == nil; <-every.C {
		samples = append(samples, d.server.usage())
	}
	using.Wait()
	if d.t.Failed() {
		d.t.FailNow()
	}
	return samples
}

// operate does one thing with an app, and says so if it did not go as it should.
func (d *day) operate(c *dayClient) {
	if !c.busy.TryLock() {
		return // somebody else uses it
	}
	defer c.busy.Unlock()
	d.done.Add(1)
	ctx, base := context.Background(), d.server.URL
	expect := func(what string, a answer, status int, says string) {
		if a.status != status || !strings.Contains(a.text, says) {
			d.t.Errorf("%s: %v, want %d %q", what, a, status, says)
		}
	}
	if len(c.sessions) < c.wanted {
		a := rpc(ctx, base+"/mcp", c.access, "", "initialize", initialize)
		expect("initialize", a, http.StatusOK, "gatehouse")
		c.sessions = append(c.sessions, a.header.Get(mcp.SessionHeader))
		d.sessions.Add(1)
		return
	}
	session := c.sessions[rand.IntN(len(c.sessions))]
	id := fmt.Sprintf("day-%d", rand.Int64())
	args := `{"id":"` + id + `"}`
	switch n := rand.IntN(100); {
	case n < 10:
		expect("list", rpc(ctx, base+"/mcp", c.access, session, "tools/list", "{}"), http.StatusOK, "web_"+toolName(httpTools-1))
	case n < 50:
		expect("HTTP tool", call(ctx, base+"/mcp", c.access, session, "web_"+toolName(rand.IntN(httpTools)), args), http.StatusOK, "did "+id)
	case n < 70:
		expect("stdio tool", call(ctx, base+"/mcp", c.access, session, "local_"+toolName(rand.IntN(childTools)), args), http.StatusOK, "did "+id)
	case n < 75:
		expect("whoami", call(ctx, base+"/mcp", c.access, session, "whoami", "{}"), http.StatusOK, c.id)
	case n < 80:
		expect("REST", send(ctx, base+"/mcp/tool/echo", "application/json", `{"message":"`+id+`"}`, "Authorization", "Bearer "+c.access), http.StatusOK, id)
	case n < 84:
		expect("unknown tool", call(ctx, base+"/mcp", c.access, session, "none", "{}"), http.StatusOK, "TOOL_UNKNOWN")
	case n < 88:
		expect("bad token", rpc(ctx, base+"/mcp", id, session, "tools/list", "{}"), http.StatusUnauthorized, "")
	case n < 90:
		expect("gone away", d.leave(c, session), 0, "")
	case n < 91:
		listening, cancel := context.WithTimeout(ctx, 30*time.Millisecond+rand.N(time.Second))
		defer cancel()
		if ended, err := listen(listening, base+"/mcp", c.access); err == nil {
			<-ended
		} else if listening.Err() == nil {
			d.t.Errorf("stream: %v", err)
		}
	case n < 97:
		d.refresh(c, expect)
	case n < 99: // the sessions are the client's, so they go on
		code, verifier := d.server.Code(c.id, map[string][]string{"scope": {"mcp:tools mcp:admin"}})
		var tokens oauth.TokenResponse
		d.server.Redeem(c.id, code, verifier, nil).JSON(d.t, &tokens)
		c.access, c.refresh = tokens.AccessToken, tokens.RefreshToken
	default:
		expect("revocation", revoke(ctx, base, c.id, c.refresh), http.StatusOK, "")
		expect("revoked", rpc(ctx, base+"/mcp", c.access, session, "tools/list", "{}"), http.StatusUnauthorized, "")
		d.signIn(c)
	}
}

func (d *day) refresh(c *dayClient, expect func(string, answer, int, string)) {
	a := refresh(context.Background(), d.server.URL, c.id, c.refresh)
	expect("refresh", a, http.StatusOK, "access_token")
	var tokens oauth.TokenResponse
	if err := json.Unmarshal([]byte(a.text), &tokens); err == nil && tokens.AccessToken != "" {
		c.access, c.refresh = tokens.AccessToken, tokens.RefreshToken
	}
}

// leave gives up a call before it is answered.
func (d *day) leave(c *dayClient, session string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), rand.N(5*time.Millisecond))
	defer cancel()
	if a := call(ctx, d.server.URL+"/mcp", c.access, session, "web_"+toolName(1), `{"id":"gone"}`); a.err == nil && a.status != http.StatusOK {
		return a
	}
	return answer{} // gone, or answered sooner
}

// rest waits until nothing happens, takes stock and ends the process with a dump
// of its goroutines.
func (d *day) rest() (s state, dump string) {
	hc.CloseIdleConnections()
	d.server.HTTP.CloseIdleConnections()
	time.Sleep(6 * time.Second) // connections to upstreams that nobody uses are closed after 4
	s.usage = d.server.usage()
	s.goroutines, dump = d.server.goroutines()
	if s.goroutines == 0 {
		d.t.Fatalf("no goroutines in the dump:\n%s", dump)
	}
	return s, dump
}

// recorded looks at the log: it is whole and nothing is pending.
func (d *day) recorded() {
	open := map[string]bool{}
	for _, e := range d.server.intact() {
		if e.Outcome == audit.Pending {
			open[e.Call] = true
		} else {
			delete(open, e.Call)
		}
	}
	if len(open) > 0 {
		d.t.Errorf("%d calls are still pending", len(open))
	}
}

// expiring are the tables whose rows all go some time after they were last of use.
var expiring = []string{
	"flow", "authorization_code", "refresh_token", "token_family", "revocation", "consent", "client", "browser_session", "sign_in_link", "setup_code",
}

// yearLater turns the clock of every row, starts the server again, and sees that
// nothing is left of what expires. It returns how many rows there were, and are.
func (d *day) yearLater() (kept, left int) {
	d.server.stop()
	db := storetest.Open(d.t, d.server.database)
	count := func() (n int) {
		err := db.View(d.t.Context(), func(tx *store.Tx) error {
			n = 0
			for _, table := range expiring {
				var rows int
				if err := tx.QueryRow(`SELECT count(*) FROM ` + table).Scan(&rows); err != nil {
					return err
				}
				n += rows
			}
			return nil
		})
		if err != nil {
			d.t.Fatal(err)
		}
		return n
	}
	kept = count()
	err := db.Do(d.t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c
			WHERE t.type = 'table' AND c.type = 'BIGINT' AND c.name LIKE '%\_at' ESCAPE '\'`)
		if err != nil {
			return err
		}
		var turn []string
		for rows.Next() {
			var table, column string
			if err := rows.Scan(&table, &column); err != nil {
				return err
			}
			turn = append(turn, `UPDATE `+table+` SET `+column+` = `+column+` - $1`)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, statement := range turn {
			if _, err := tx.Exec(statement, (400 * 24 * time.Hour).Microseconds()); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.server.start() // it sweeps at once
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(200 * time.Millisecond) {
		if left = count(); left == 0 {
			return kept, left
		}
	}
	d.t.Errorf("of %d rows that expire %d are left a year later", kept, left)
	return kept, left
}

// middle is the median of each figure.
func middle(all []usage) usage {
	pick := func(of func(usage) int) int {
		var values []int
		for _, u := range all {
			values = append(values, of(u))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return usage{pick(func(u usage) int { return u.MiB }), pick(func(u usage) int { return u.handles }), pick(func(u usage) int { return u.threads })}
}
