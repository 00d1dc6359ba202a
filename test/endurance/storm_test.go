package endurance

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// Clients that share one refresh token, lose answers, use old ones and see their
// server killed are never signed out: nothing is refused within the window and
// no family revoked. What comes back after the window revokes the family (R413,
// attacks 32–34; doc/design.md §5).
func TestRefreshStorm(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		s := &storm{t: t}
		key := filepath.Join(t.TempDir(), "master.key")
		s.nodes = []*server{serve(t, database, key, "", "--dev")}
		if strings.HasPrefix(database, "postgres") {
			s.nodes = append(s.nodes, serve(t, database, key, s.nodes[0].URL, "--dev"))
		}
		var first oauth.TokenResponse
		first, s.client = s.nodes[0].Token("", "")
		s.keep(first, nil)
		s.blow()
		s.calm()
		s.steal()
	})
}

// held is a refresh token that some client keeps.
type held struct {
	value     string
	parent    *held
	childUsed time.Time // when a child of it was first presented; from then on the window runs
}

type storm struct {
	t      *testing.T
	client string
	nodes  []*server

	mu     sync.Mutex
	tokens []*held
	access []string

	kills             int
	lost, again, late atomic.Int64
	took              []time.Duration
}

const stormClients = 8

func (s *storm) blow() {
	rounds, every := size(60, 1000), size(20, 150)
	for round := range rounds {
		over := make(chan struct{})
		if round%every == every-1 { // all go on while a node is killed and comes back
			victim := s.nodes[rand.IntN(len(s.nodes))]
			s.kills++
			go func() {
				time.Sleep(rand.N(10 * time.Millisecond))
				victim.kill()
				victim.start()
				close(over)
			}()
		} else {
			close(over)
		}
		apptest.Together(stormClients, func(i int) error {
			for again := true; again; {
				s.turn(i)
				select {
				case <-over:
					again = false
				default:
				}
			}
			return nil
		})
		if s.t.Failed() {
			s.t.FailNow()
		}
	}
	if s.again.Load() == 0 {
		s.t.Error("no request met a node that was killed")
	}
}

// turn lets one client refresh until it has an answer. In one of ten turns the
// first answer is lost.
func (s *storm) turn(i int) {
	chosen := s.choose()
	at := rand.IntN(len(s.nodes))
	if rand.IntN(10) == 0 {
		s.lost.Add(1)
		s.present(chosen)
		hangUp(s.nodes[at].URL, s.client, chosen.value)
	}
	began := time.Now()
	for try := 0; time.Since(began) < time.Minute; try++ {
		s.present(chosen)
		asked := time.Now()
		a := refresh(context.Background(), s.nodes[(at+try)%len(s.nodes)].URL, s.client, chosen.value)
		if a.lost() {
			s.again.Add(1)
			time.Sleep(20 * time.Millisecond)
			continue
		}
		s.mu.Lock()
		s.took = append(s.took, time.Since(asked))
		s.mu.Unlock()
		s.judge(i, chosen, a)
		return
	}
	s.t.Errorf("client %d got no answer within a minute", i)
}

// judge is the rule: within the window every answer is a complete new pair that
// works.
func (s *storm) judge(i int, chosen *held, a answer) {
	s.mu.Lock()
	outside := !chosen.childUsed.IsZero() && time.Since(chosen.childUsed) > token.ReuseWindow
	s.mu.Unlock()
	var pair oauth.TokenResponse
	switch {
	case a.status != http.StatusOK && outside:
		s.late.Add(1) // the machine was too slow for this one
		return
	case a.status != http.StatusOK || json.Unmarshal([]byte(a.text), &pair) != nil || pair.RefreshToken == "" || pair.AccessToken == "":
		s.t.Errorf("client %d was refused within the window: %v", i, a)
		return
	}
	s.keep(pair, chosen)
	if rand.IntN(10) == 0 {
		s.works(pair.AccessToken)
	}
}

// works calls with a token at any node.
func (s *storm) works(access string) {
	for range 1000 {
		a := call(context.Background(), s.nodes[rand.IntN(len(s.nodes))].URL+"/mcp", access, "", "echo", `{"message":"storm"}`)
		if a.lost() || strings.Contains(a.text, "AVAILABLE") {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if a.status != http.StatusOK || !strings.Contains(a.text, "storm") {
			s.t.Errorf("a token that was handed out does not work: %v", a)
		}
		return
	}
	s.t.Error("no node answers")
}

func (s *storm) keep(pair oauth.TokenResponse, parent *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, &held{value: pair.RefreshToken, parent: parent})
	s.access = append(s.access, pair.AccessToken)
}

// choose takes the newest token, or any that is certainly within its window.
func (s *storm) choose() *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.tokens[len(s.tokens)-1]
	if rand.IntN(2) == 0 {
		return newest
	}
	for range 20 {
		h := s.tokens[rand.IntN(len(s.tokens))]
		if h.childUsed.IsZero() || time.Since(h.childUsed) < token.ReuseWindow/2 {
			return h
		}
	}
	return newest
}

// present notes that a token is about to be presented.
func (s *storm) present(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.parent != nil && h.parent.childUsed.IsZero() {
		h.parent.childUsed = time.Now()
	}
}

// hangUp sends a refresh and goes away without reading the answer.
func hangUp(base, client, refresh string) {
	u, _ := url.Parse(base)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return // the server is gone as well
	}
	defer func() { _ = conn.Close() }()
	body := url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {refresh}}.Encode()
	_, _ = fmt.Fprintf(conn, "POST /oauth/token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", u.Host, len(body), body)
	time.Sleep(rand.N(5 * time.Millisecond))
}

// calm looks at what the storm left: the chain is whole, no answered pair lacks
// its event, nothing was revoked, and old access tokens still work.
func (s *storm) calm() {
	issued := map[string]bool{}
	for _, e := range s.nodes[0].intact() {
		switch e.Action {
		case "token.issue":
			issued[e.Token] = true
		case "token.replay", "token.revoke":
			s.t.Errorf("%s: %+v", e.Action, e)
		}
	}
	for _, access := range s.access {
		if !issued[jti(access)] {
			s.t.Errorf("the log does not know the token %s, which was handed out", jti(access))
		}
	}
	for range 20 {
		s.works(s.access[rand.IntN(len(s.access))])
	}
	for range 20 {
		s.works(s.access[len(s.access)-1-rand.IntN(min(20, len(s.access)))])
	}
	figures(s.t, "%d clients of one family, %d nodes, %d refreshes answered, %d answers lost, %d kills, %d tries again, %d too slow to judge, 0 refused; answers %s",
		stormClients, len(s.nodes), len(s.access)-1, s.lost.Load(), s.kills, s.again.Load(), s.late.Load(), spread(s.took))
}

// steal presents an old token after its window.
func (s *storm) steal() {
	var old *held
	for _, h := range s.tokens {
		if !h.childUsed.IsZero() {
			old = h
			break
		}
	}
	if old == nil {
		s.t.Fatal("the storm left no old token")
	}
	s.turnClock(old)
	a := refresh(s.t.Context(), s.nodes[0].URL, s.client, old.value)
	if a.status != http.StatusBadRequest || !strings.Contains(a.text, `"invalid_grant"`) {
		s.t.Errorf("an old token after its window: %v", a)
	}
	newest := s.tokens[len(s.tokens)-1]
	for _, n := range s.nodes {
		if a := refresh(s.t.Context(), n.URL, s.client, newest.value); a.status != http.StatusBadRequest {
			s.t.Errorf("the newest token after that: %v", a)
		}
		began := time.Now()
		for {
			a := call(s.t.Context(), n.URL+"/mcp", s.access[len(s.access)-1], "", "echo", `{"message":"storm"}`)
			if a.status == http.StatusUnauthorized {
				break
			}
			if time.Since(began) > 10*time.Second {
				s.t.Fatalf("the newest access token still works after that: %v", a)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	var replays int
	for _, e := range s.nodes[0].intact() {
		if e.Action == "token.replay" {
			replays++
			if e.Outcome != "denied" || e.Code != "TOKEN_REPLAYED" || e.Client != s.client {
				s.t.Errorf("the replay in the log: %+v", e)
			}
		}
	}
	if replays != 1 {
		s.t.Errorf("%d replays in the log, want 1", replays)
	}
	const letter = "Mail to dev@localhost: An app was signed out because its sign-in was used twice"
	if text := s.nodes[0].Log.String(); strings.Count(text, letter) != 1 {
		s.t.Errorf("the person was not told, once:\n%s", text)
	}
}

// turnClock lets the window of a token pass: in the rows, or really.
func (s *storm) turnClock(h *held) {
	if full {
		time.Sleep(time.Until(h.childUsed.Add(token.ReuseWindow + 5*time.Second)))
		return
	}
	db := storetest.Open(s.t, s.nodes[0].database)
	err := db.Do(s.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE refresh_token SET child_used_at = child_used_at - $1`, (2 * token.ReuseWindow).Microseconds())
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
