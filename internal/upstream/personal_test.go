package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// byName lends each person their name as the credential, at an account that can be
// changed.
type byName struct {
	mu      sync.Mutex
	account map[string]string // by user
}

func (l *byName) Account(_ context.Context, p principal.Principal, _ string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.account[p.User] == "" {
		return "", unavailable.New("%q has no account", p.User)
	}
	return p.User + " " + l.account[p.User], nil
}

func (l *byName) Anyone(context.Context, string) (principal.Principal, error) {
	return person("dana"), nil
}

func (l *byName) Lend(p principal.Principal, _ string, next http.RoundTripper) http.RoundTripper {
	return lending(func(r *http.Request) (*http.Response, error) {
		l.mu.Lock()
		r.Header.Set("Authorization", "Bearer "+l.account[p.User])
		l.mu.Unlock()
		return next.RoundTrip(r)
	})
}

type lending func(*http.Request) (*http.Response, error)

func (f lending) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header = r.Header.Clone()
	return f(r)
}

func person(user string) principal.Principal {
	return principal.Principal{Kind: principal.Member, Workspace: "default", User: user}
}

// keeper is a server that believes a session to be whoever opened it, whatever
// credential a later request has: the worst that can be behind us.
func keeper(t *testing.T) string {
	var mu sync.Mutex
	sessions := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // of a test
		m, fault := mcp.Parse(body)
		if fault != nil {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case who == "":
			w.WriteHeader(http.StatusUnauthorized)
		case m.Method == "initialize":
			id := fmt.Sprint("session-", len(sessions))
			sessions[id] = who
			w.Header().Set(mcp.SessionHeader, id)
			_, _ = w.Write(mcp.Message{ID: m.ID, Result: []byte(`{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"k","version":"1"}}`)}.Encode())
		case !m.IsRequest():
			w.WriteHeader(http.StatusAccepted)
		default:
			_, _ = w.Write(mcp.Message{ID: m.ID, Result: fmt.Appendf(nil, `{"content":[{"type":"text","text":%q}]}`, sessions[r.Header.Get(mcp.SessionHeader)])}.Encode())
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// R557: each account has sessions of its own at a server, also one that tells people
// apart by sessions alone; another account in the place of the first gets new ones.
func TestAccountsShareNoSession(t *testing.T) {
	l := &byName{account: map[string]string{"dana": "mira", "erin": "theo"}}
	conn := (&Servers{Lending: l, Log: quiet()}).open(Spec{Name: "k", URL: keeper(t), Provider: "p"})
	defer conn.Close()
	answer := func(s tool.Session) string {
		result, err := conn.Call(t.Context(), s, "tools/call", json.RawMessage(`{"name":"who"}`), nil)
		if err != nil {
			return err.Error()
		}
		return string(result)
	}
	var calling sync.WaitGroup
	for i := range 40 {
		user, account := "dana", "mira"
		if i%2 == 1 {
			user, account = "erin", "theo"
		}
		calling.Go(func() {
			s := tool.Session{Caller: person(user)}
			if i%4 > 1 { // with a session of its own
				s.Key, s.Alone, s.Offers = fmt.Sprint("key-", user, i), true, json.RawMessage("{}")
				if _, _, err := conn.Open(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
			if got := answer(s); !strings.Contains(got, account) {
				t.Errorf("%s is answered as %s", user, got)
			}
		})
	}
	calling.Wait()
	kept := tool.Session{Caller: person("dana"), Key: "kept", Alone: true, Offers: json.RawMessage("{}")}
	var err error
	if kept.Upstream, _, err = conn.Open(t.Context(), kept); err != nil || kept.Upstream == "" {
		t.Fatalf("no session of one's own: %q, %v", kept.Upstream, err)
	}
	if got := answer(kept); !strings.Contains(got, "mira") {
		t.Errorf("in a session that was kept: %s", got)
	}
	l.mu.Lock()
	l.account["dana"] = "theo"
	l.mu.Unlock()
	if got := answer(kept); !strings.Contains(got, "theo") {
		t.Errorf("in a session that was kept, after another account was connected: %s", got)
	}
	if got := answer(tool.Session{Caller: person("dana")}); !strings.Contains(got, "theo") {
		t.Errorf("after another account was connected: %s", got)
	}
	if got := answer(tool.Session{}); strings.Contains(got, "mira") || strings.Contains(got, "theo") { // a call of nobody's uses nobody's account
		t.Errorf("a stranger is answered as %s", got)
	}
	if got := answer(tool.Session{Caller: person("nobody")}); !strings.Contains(got, "has no account") {
		t.Errorf("without an account: %s", got)
	}
	if state, _, err := conn.State(); state != Connected {
		t.Errorf("it is %s: %v", state, err)
	}
}
