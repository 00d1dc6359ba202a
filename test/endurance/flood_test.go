package endurance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Attacks 57 and 125: a million registrations and 100,000 authorizations of strangers,
// from many addresses, against the limits as they are set unless somebody changes
// them. What they leave is bounded, in memory and in tables; an app that was allowed
// before goes on all the time, at an address of its own and at one that it shares with
// attackers; and the sweep takes away what is left.
func TestFlood(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		f := newFlood(t, database)
		before := f.usage()
		began := time.Now()
		stop := f.honest()
		registered, limited := f.storm(size(10_000, 1_000_000), f.register)
		asked, held := f.storm(size(1_000, 100_000), f.authorize)
		served := stop()
		took := time.Since(began)
		after := f.usage()
		if after.MiB > before.MiB+64 {
			t.Errorf("memory grew from %d to %d MiB", before.MiB, after.MiB)
		}
		clients, flows, counters := f.rows("client"), f.rows("flow"), f.rows("throttle")
		hours, minutes := int(took/time.Hour)+2, int(took/time.Minute)+2
		if clients > 1200*hours+2 || flows > 3000*min(minutes, 12) || counters > 2000 || registered == 0 || limited == 0 {
			t.Errorf("%d clients, %d flows, %d counters; %d registered, %d limited", clients, flows, counters, registered, limited)
		}
		left := f.swept()
		figures(t, "%d registrations: %d made, %d refused; %d authorizations: %d begun, %d refused; in %v; at most %d clients, %d flows, %d counters; memory %d → %d MiB; "+
			"refresh and call of an allowed app meanwhile %s, beside attackers %s; clients after the sweep %d", registered+limited, registered, limited, asked+held, asked, held,
			took.Round(time.Second), clients, flows, counters, before.MiB, after.MiB, spread(served[0]), spread(served[1]), left)
	})
}

// flood is a server and who comes to it.
type flood struct {
	*server
	db   *store.DB
	apps [2]*allowed // at an address of its own, and at one of an attacker
}

// allowed is an app that somebody allowed, with how long its answers took.
type allowed struct {
	hc              *http.Client
	id              string
	access, refresh string
	took            []time.Duration
}

// attackers is how many addresses they have.
const attackers = 200

func newFlood(t *testing.T, database string) *flood {
	f := &flood{server: serve(t, database, "", "")}
	db, err := store.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	f.db = db
	b := f.Browser()
	b.SetUp()
	for i := range f.apps {
		f.apps[i] = f.allow(b, fmt.Sprintf("127.0.%d.1", i)) // 127.0.1.1 is an attacker's as well
	}
	return f
}

// from is a client whose connections come from an address of this computer.
func from(address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{
		Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second,
			DialContext: func(ctx context.Context, _, at string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(at)
				if err != nil {
					return nil, err
				}
				return dialer.DialContext(ctx, "tcp4", "127.0.0.1:"+port)
			},
		},
	}
}

// do sends a request and reads its answer to the end.
func do(hc *http.Client, method, address, kind, body string, header ...string) answer {
	r, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	r.Header.Set("Content-Type", kind)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := hc.Do(r)
	if err != nil {
		return answer{err: err}
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

// allow registers an app and has the person allow it.
func (f *flood) allow(b *apptest.Browser, address string) *allowed {
	f.t.Helper()
	a := &allowed{hc: from(address), id: f.Register()}
	query, verifier := f.Authorization(a.id, nil)
	form := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
	form.Set("decision", "allow")
	form.Set("started", "yes")
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil {
		f.t.Fatal("no way back")
	}
	var tokens oauth.TokenResponse
	f.Redeem(a.id, target.Query().Get("code"), verifier, nil).JSON(f.t, &tokens)
	if a.access, a.refresh = tokens.AccessToken, tokens.RefreshToken; a.refresh == "" {
		f.t.Fatal("no tokens")
	}
	return a
}

// honest lets the apps refresh and call without a pause, until the returned function
// is called.
func (f *flood) honest() (stop func() [2][]time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for _, a := range f.apps {
		working.Go(func() {
			for ctx.Err() == nil {
				f.use(a)
				time.Sleep(20 * time.Millisecond) // as an app would
			}
		})
	}
	return func() [2][]time.Duration {
		cancel()
		working.Wait()
		return [2][]time.Duration{f.apps[0].took, f.apps[1].took}
	}
}

// use is a refresh and a call with what it brought.
func (f *flood) use(a *allowed) {
	began := time.Now()
	got := do(a.hc, http.MethodPost, f.URL+"/oauth/token", "application/x-www-form-urlencoded",
		url.Values{"grant_type": {"refresh_token"}, "client_id": {a.id}, "refresh_token": {a.refresh}}.Encode())
	var tokens oauth.TokenResponse
	if err := json.Unmarshal([]byte(got.text), &tokens); got.status != http.StatusOK || err != nil {
		f.t.Errorf("an allowed app is refused: %s", got)
		return
	}
	a.access, a.refresh = tokens.AccessToken, tokens.RefreshToken
	got = do(a.hc, http.MethodPost, f.URL+"/mcp", "application/json", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","arguments":{}}}`,
		"Accept", "application/json, text/event-stream", "Authorization", "Bearer "+a.access)
	if got.status != http.StatusOK {
		f.t.Errorf("an allowed app's call is refused: %s", got)
	}
	a.took = append(a.took, time.Since(began))
}

// storm has n requests sent by all attackers, and says how many were let through and
// how many were told to wait.
func (f *flood) storm(n int, send func(hc *http.Client, i int) answer) (through, limited int) {
	f.t.Helper()
	var next, passed, waits atomic.Int64
	var attacking sync.WaitGroup
	for w := range 16 {
		var hcs []*http.Client
		for i := w; i < attackers; i += 16 {
			hcs = append(hcs, from(fmt.Sprintf("127.0.1.%d", i+1)))
		}
		attacking.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				switch a := send(hcs[i%len(hcs)], i); {
				case a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") != "":
					waits.Add(1)
				case a.status == http.StatusCreated || a.status == http.StatusSeeOther:
					passed.Add(1)
				default:
					f.t.Errorf("a stranger is answered %s", a)
					return
				}
			}
			for _, hc := range hcs {
				hc.CloseIdleConnections()
			}
		})
	}
	attacking.Wait()
	return int(passed.Load()), int(waits.Load())
}

func (f *flood) register(hc *http.Client, i int) answer {
	return do(hc, http.MethodPost, f.URL+"/oauth/register", "application/json", fmt.Sprintf(`{"client_name":"Flood %d","redirect_uris":["https://flood%d.example/cb"]}`, i, i),
		"X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i%250))
}

// authorize asks as one of the apps, which strangers know as well.
func (f *flood) authorize(hc *http.Client, i int) answer {
	query, _ := f.Authorization(f.apps[i%2].id, nil)
	return do(hc, http.MethodGet, f.URL+"/oauth/authorize?"+query.Encode(), "", "", "Accept", "text/html")
}

func (f *flood) rows(table string) (n int) {
	f.t.Helper()
	if err := f.db.View(f.t.Context(), func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM ` + table).Scan(&n) }); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// swept makes what the strangers left a fortnight old, and says how many clients are
// there when the sweep has been through.
func (f *flood) swept() int {
	f.t.Helper()
	f.stop()
	const fortnight = int64(14 * 24 * time.Hour / time.Microsecond)
	err := f.db.Do(f.t.Context(), func(tx *store.Tx) error {
		for _, age := range []string{
			`UPDATE client SET created_at = created_at - $1`, `UPDATE flow SET expires_at = expires_at - $1`, `UPDATE throttle SET ends_at = ends_at - $1`,
			`UPDATE lease SET expires_at = expires_at - $1`,
		} {
			if _, err := tx.Exec(age, fortnight); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.start()
	for began := time.Now(); f.rows("client") > len(f.apps) || f.rows("flow") > 0 || f.rows("throttle") > 0; time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			f.t.Fatalf("%d clients, %d flows and %d counters are left", f.rows("client"), f.rows("flow"), f.rows("throttle"))
		}
	}
	f.use(f.apps[0])
	return f.rows("client")
}
