package upstream

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// phoenix is a server that can be killed and comes back at its address without its
// sessions. It remembers how often it has carried out each call.
type phoenix struct {
	t       *testing.T
	address string
	server  *httptest.Server

	mu       sync.Mutex
	sessions map[string]bool
	done     map[string]int // by the argument of the call
}

func (p *phoenix) rise() {
	p.t.Helper()
	address := p.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	var l net.Listener
	eventually(p.t, "the address is free", func() (free bool) {
		var err error
		l, err = net.Listen("tcp", address)
		return err == nil
	})
	p.address = l.Addr().String()
	p.mu.Lock()
	p.sessions = map[string]bool{}
	p.mu.Unlock()
	p.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: p}}
	p.server.Start()
}

func (p *phoenix) die() {
	p.server.CloseClientConnections()
	p.server.Close()
}

func (p *phoenix) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m, _ := mcp.Parse(body)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch id := r.Header.Get(mcp.SessionHeader); {
	case r.Method != http.MethodPost:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case m.Method == "initialize":
		id = fmt.Sprintf("%p-%d", p.sessions, len(p.sessions))
		p.sessions[id] = true
		w.Header().Set(mcp.SessionHeader, id)
		answerJSON(w, m, json.RawMessage(`{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"phoenix","version":"1"}}`))
	case !p.sessions[id]:
		w.WriteHeader(http.StatusNotFound)
	case m.Method == "tools/call":
		p.done[mcp.Text(m.Params, "name")]++
		answerJSON(w, m, m.Params)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// A server is killed while many call it, in sessions of their own and in the shared
// one, and comes back without its sessions. No call is carried out twice; one that
// failed says whether it can have been; and afterwards calls work without anybody
// doing anything.
func TestServerIsKilledUnderLoad(t *testing.T) {
	p := &phoenix{t: t, done: map[string]int{}}
	p.rise()
	defer func() { p.die() }()
	h := connect(t, "http://"+p.address)
	if _, err := h.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var next atomic.Int64
	var stop atomic.Bool
	var mu sync.Mutex
	outcomes := map[string]error{}
	call := func(s tool.Session) error {
		name := strconv.FormatInt(next.Add(1), 10)
		_, err := h.Call(t.Context(), s, "tools/call", json.RawMessage(`{"name":"`+name+`"}`), nil)
		mu.Lock()
		defer mu.Unlock()
		outcomes[name] = err
		return err
	}
	var working sync.WaitGroup
	for i := range 8 {
		working.Go(func() {
			s := tool.Session{}
			if i%2 == 0 {
				s = tool.Session{Key: strconv.Itoa(i), Alone: true, Offers: json.RawMessage("{}")}
			}
			for !stop.Load() {
				_ = call(s)
			}
		})
	}
	calls := func(n int64) { eventually(t, "calls are made", func() bool { return next.Load() > n }) }
	for range 3 {
		calls(next.Load() + 50)
		p.die()
		calls(next.Load() + 50)
		p.rise()
	}
	calls(next.Load() + 50)
	stop.Store(true)
	working.Wait()
	eventually(t, "calls work again", func() bool { return call(tool.Session{Key: "0", Alone: true}) == nil && call(tool.Session{}) == nil })

	failed, unclear := 0, 0
	for name, err := range outcomes {
		n, why := p.done[name], ""
		if err != nil {
			why = problem.From(err).Why
		}
		switch sure := strings.Contains(why, "nothing was carried out"); {
		case err == nil && n != 1:
			t.Errorf("call %s answered, and was carried out %d times", name, n)
		case err != nil && n > 1:
			t.Errorf("call %s failed, and was carried out %d times", name, n)
		case err != nil && sure && n != 0:
			t.Errorf("call %s was carried out and says it was not: %v", name, err)
		case err != nil && !sure && !strings.Contains(why, "is not known"):
			t.Errorf("call %s does not say whether it was carried out: %v, %s", name, err, why)
		case err != nil && !sure:
			unclear++
		case err != nil:
			failed++
		}
	}
	t.Logf("%d calls through three restarts: %d not carried out and said so, %d unclear", len(outcomes), failed, unclear)
	if state, _, err := h.State(); state != Connected || err != nil {
		t.Errorf("afterwards it is %s, %v", state, err)
	}
}

// The same for a child that is killed: the next call goes to the next one.
func TestChildIsKilledUnderLoad(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	first := said(callTool(t, s, "pid"))
	time.Sleep(settled + 50*time.Millisecond) // it has served well
	var calls, failed atomic.Int64
	var stop atomic.Bool
	var working sync.WaitGroup
	for range 4 {
		working.Go(func() {
			for !stop.Load() {
				_, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"any"}`), nil)
				calls.Add(1)
				if err != nil {
					failed.Add(1)
					why := problem.From(err).Why
					if !problem.Is(err, unavailable) || !strings.Contains(why, "is not known") {
						t.Errorf("%v, %s", err, why)
					}
				}
			}
		})
	}
	eventually(t, "calls are made", func() bool { return calls.Load() > 20 })
	pid, _ := strconv.Atoi(first)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	before := calls.Load()
	eventually(t, "calls go on", func() bool { return calls.Load() > before+20 })
	stop.Store(true)
	working.Wait()
	if second := said(callTool(t, s, "pid")); second == first {
		t.Errorf("it is still %s", first)
	}
	if n := failed.Load(); n > 4 {
		t.Errorf("%d calls failed, and 4 can have been in flight", n)
	}
	if state, since, err := s.State(); state != Connected || err != nil || time.Since(since) > 30*time.Second {
		t.Errorf("%s since %v, %v", state, since, err)
	}
}
