package authserver_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound/outboundtest"
)

// site serves the document of a client, and counts how often it is asked.
type site struct {
	id      string // address of the document
	asked   atomic.Int32
	mu      sync.Mutex
	members string // besides client_id
	status  int
	caching string
	wait    chan struct{} // answers when it is closed; nil: at once
}

func newSite(world *outboundtest.World, name string) *site {
	s := &site{members: `"client_name":"Doc app","redirect_uris":["` + apptest.Callback + `"]`, status: http.StatusOK}
	s.id = world.Serve(name, s) + "/client.json"
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	s.mu.Lock()
	members, status, caching, wait := s.members, s.status, s.caching, s.wait
	s.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-r.Context().Done():
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if caching != "" {
		w.Header().Set("Cache-Control", caching)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"client_id":%q,%s}`, s.id, members)
}

func (s *site) say(members string) { s.mu.Lock(); s.members = members; s.mu.Unlock() }
func (s *site) answer(status int)  { s.mu.Lock(); s.status = status; s.mu.Unlock() }

// documented lets clients be documents, in a world of the test's own.
func documented(world *outboundtest.World) func(*app.Config) {
	return func(c *app.Config) {
		c.CIMD, c.Internet, c.OutboundAllow = "open", world.Options(), []netip.Prefix{outboundtest.Loopback}
	}
}

// later lets time pass for what is kept of documents.
func (h house) later(d time.Duration) {
	h.t.Helper()
	h.SQL(`UPDATE client SET fetched_at = fetched_at - $1, fresh_until = fresh_until - $1, retry_at = retry_at - $1 WHERE source = 'document'`, d.Microseconds())
}

// R221: an app that never registered goes through everything with the address of
// its document, which is fetched once.
func TestDocumentIsAClient(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		s := newSite(world, "app.example")
		s.asked.Store(0)
		if m := h.metadata(); !m.ClientDocuments {
			t.Error("it is not offered")
		}
		tokens := h.tokens(s.id, nil)
		if !h.works(tokens.AccessToken) {
			t.Error("the token does not work")
		}
		var again oauth.TokenResponse
		h.Refresh(s.id, tokens.RefreshToken).JSON(t, &again)
		h.tokens(s.id, nil)
		if again.AccessToken == "" || s.asked.Load() != 1 {
			t.Errorf("%q, fetched %d times", again.AccessToken, s.asked.Load())
		}
		if a := h.Form("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {s.id}, "client_secret": {"x"}, "refresh_token": {again.RefreshToken}}); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("with a secret: %d", a.StatusCode)
		}
	}, apptest.Dev)
}

func (h house) metadata() (m oauth.ServerMetadata) {
	h.t.Helper()
	h.Get("/.well-known/oauth-authorization-server").JSON(h.t, &m)
	return m
}

// R105: what is off is not offered, not fetched, and not known.
func TestDocumentsAreOffOrLimited(t *testing.T) {
	world := outboundtest.New(t)
	s := newSite(world, "app.example")
	for name, change := range map[string]func(*app.Config){
		"unset": func(c *app.Config) { c.CIMD = "" }, "off": func(c *app.Config) { c.CIMD = "off" },
		"allowlist of none": func(c *app.Config) { c.CIMD = "allowlist" },
		"allowlist of others": func(c *app.Config) {
			c.CIMD, c.CIMDAllow = "allowlist", []string{"other.example", "example", "xapp.example"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, documented(world), change)
			if m := h.metadata(); m.ClientDocuments != (name == "allowlist of others") {
				t.Errorf("offered: %v", m.ClientDocuments)
			}
			h.unchanged(t, func() {
				query, _ := h.Authorization(s.id, nil)
				shown(t, h.authorize(query), http.StatusBadRequest)
			})
			if n := s.asked.Load(); n > 0 {
				t.Errorf("fetched %d times", n)
			}
		})
	}
	t.Run("allowlist of this", func(t *testing.T) {
		s := newSite(world, "this.example")
		h := start(t, apptest.Dev, documented(world), func(c *app.Config) { c.CIMD, c.CIMDAllow = "allowlist", []string{"this.example"} })
		h.tokens(s.id, nil)
		if s.asked.Load() == 0 {
			t.Error("not fetched")
		}
	})
}

// R212: what a removed client was given is over; where it may come back, as one with a
// document may, it gets new tokens, and those work.
func TestRemovedDocumentComesBack(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		s := newSite(world, "back.example")
		before := h.tokens(s.id, nil)
		h.do("remove_client", map[string]any{"id": s.id}, nil)
		refused(t, h.Refresh(s.id, before.RefreshToken), oauth.InvalidClient)
		after := h.tokens(s.id, nil)
		if h.works(before.AccessToken) || !h.works(after.AccessToken) {
			t.Errorf("the old token works: %v, the new one: %v", h.works(before.AccessToken), h.works(after.AccessToken))
		}
		refused(t, h.Refresh(s.id, before.RefreshToken), oauth.InvalidGrant)
	}, apptest.Dev)
}

// What is pinned is a client without a network, and counts as approved.
func TestPinnedDocumentIsNotFetched(t *testing.T) {
	const id = "https://claude.example/client.json"
	pin := func(c *app.Config) {
		c.CIMD = "allowlist"
		c.CIMDDocuments = map[string]string{id: `{"client_id":"` + id + `","client_name":"Pinned","redirect_uris":["https://elsewhere.example/cb","` + apptest.Callback + `"]}`}
	}
	h := start(t, apptest.Dev, pin)
	if m := h.metadata(); !m.ClientDocuments {
		t.Error("it is not offered")
	}
	tokens := h.tokens(id, nil)
	h.later(30 * 24 * time.Hour)
	var again oauth.TokenResponse
	if h.Refresh(id, tokens.RefreshToken).JSON(t, &again); again.AccessToken == "" {
		t.Error("a pinned document went stale")
	}
}

// Attack 103: a server's word about how long a document stays counts within bounds.
func TestFreshnessIsBounded(t *testing.T) {
	for caching, want := range map[string]time.Duration{
		"": time.Hour, "max-age=7200": 2 * time.Hour, "max-age=315360000": 24 * time.Hour, "max-age=0": time.Minute, "no-store": time.Minute, "no-cache, max-age=600": time.Minute,
		"public, Max-Age=\"600\"": 10 * time.Minute, "max-age=-5": time.Minute, "max-age=999999999999999999999": time.Minute, "max-age=x": time.Minute, "private": time.Hour,
	} {
		t.Run(caching, func(t *testing.T) {
			world := outboundtest.New(t)
			s := newSite(world, "app.example")
			s.caching = caching
			h := start(t, apptest.Dev, documented(world))
			h.tokens(s.id, nil)
			if fresh := h.Count(`SELECT fresh_until - fetched_at FROM client`); time.Duration(fresh)*time.Microsecond != want {
				t.Errorf("fresh for %v, want %v", time.Duration(fresh)*time.Microsecond, want)
			}
		})
	}
}

// Attack 103: a document that is gone does not sign anybody out at once, but in the
// end; and no new authorization begins with it.
func TestDocumentGone(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		s := newSite(world, "app.example")
		s.answer(http.StatusOK)
		tokens := h.tokens(s.id, nil)
		s.answer(http.StatusNotFound)
		s.asked.Store(0)
		h.later(2 * time.Hour)
		for range 3 { // the first looks, the others do not try at once again
			h.Refresh(s.id, tokens.RefreshToken).JSON(t, &tokens)
		}
		if tokens.RefreshToken == "" || s.asked.Load() != 1 {
			t.Errorf("%+v, fetched %d times", tokens, s.asked.Load())
		}
		query, _ := h.Authorization(s.id, nil)
		shown(t, h.authorize(query), http.StatusBadRequest)
		h.later(7 * 24 * time.Hour)
		refused(t, h.Refresh(s.id, tokens.RefreshToken), oauth.InvalidClient)
		s.answer(http.StatusOK)
		h.later(time.Hour)
		if h.Refresh(s.id, tokens.RefreshToken).JSON(t, &tokens); tokens.RefreshToken == "" {
			t.Error("the document is there again, the client is not")
		}
	}, apptest.Dev)
}

// Attack 100: no fault is remembered: who was down a moment ago is asked again.
func TestFaultsAreNotRemembered(t *testing.T) {
	world := outboundtest.New(t)
	s := newSite(world, "app.example")
	h := start(t, apptest.Dev, documented(world))
	for _, spoil := range []func(){
		func() { s.answer(http.StatusInternalServerError) },
		func() { s.answer(http.StatusOK); s.say(`"client_name":"x"`) },
	} {
		spoil()
		query, _ := h.Authorization(s.id, nil)
		shown(t, h.authorize(query), http.StatusBadRequest)
		if n := h.Count(`SELECT count(*) FROM client`); n != 0 {
			t.Errorf("%d clients", n)
		}
	}
	s.say(`"client_name":"x","redirect_uris":["` + apptest.Callback + `"]`)
	h.tokens(s.id, nil)
}

// Attack 104: many who ask for one document wait for one request; of many documents
// a few are fetched at once, and who comes too late is told so, while other apps go
// on.
func TestFetchesAreBounded(t *testing.T) {
	world := outboundtest.New(t)
	h := start(t, apptest.Dev, documented(world))
	one := newSite(world, "one.example")
	one.wait = make(chan struct{})
	query, _ := h.Authorization(one.id, nil)
	time.AfterFunc(200*time.Millisecond, func() { close(one.wait) })
	counts := statuses(atOnce(50, func(int) apptest.Answer { return h.authorize(query) }))
	if counts[http.StatusSeeOther] != 50 || one.asked.Load() != 1 {
		t.Errorf("%v, fetched %d times", counts, one.asked.Load())
	}

	var running, most atomic.Int32
	slow := world.Serve("slow.example", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-r.Context().Done()
		running.Add(-1)
	}))
	registered := h.Register()
	counts = statuses(atOnce(60, func(i int) apptest.Answer {
		if i == 30 {
			query, _ := h.Authorization(registered, nil)
			return h.authorize(query)
		}
		query, _ := h.Authorization(fmt.Sprintf("%s/%d.json", slow, i), nil)
		return h.authorize(query)
	}))
	if counts[http.StatusTooManyRequests] == 0 || counts[http.StatusSeeOther] != 1 || most.Load() > 16 {
		t.Errorf("%v, %d at once", counts, most.Load())
	}
	if n := h.Count(`SELECT count(*) FROM client WHERE source = 'document'`); n != 1 {
		t.Errorf("%d documents are kept", n)
	}
}

// atOnce runs f n times side by side.
func atOnce(n int, f func(i int) apptest.Answer) []apptest.Answer {
	answers := make([]apptest.Answer, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { answers[i] = f(i) })
	}
	running.Wait()
	return answers
}

// Attack 65: a document that says something else now is another app to who allowed
// it; who looks at the question looks at what it was.
func TestChangedDocumentAsksAnew(t *testing.T) {
	world := outboundtest.New(t)
	s := newSite(world, "app.example")
	host := strings.TrimSuffix(s.id, "/client.json")
	s.say(`"client_name":"Doc app","redirect_uris":["` + host + `/cb"]`)
	h := start(t, documented(world))
	b := h.Browser()
	b.SetUp()
	change := with("redirect_uri", host+"/cb")
	query, _ := h.Authorization(s.id, change)
	allow := func() {
		t.Helper()
		form := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
		if form.Get("request") == "" {
			t.Fatal("not asked")
		}
		form.Set("decision", "allow")
		b.Submit("/consent", form)
	}
	allow()
	if a := b.Open("/oauth/authorize?" + query.Encode()); apptest.Target(a.Text) == nil {
		t.Errorf("asked again: %s", a.Text)
	}
	s.say(`"client_name":"Doc app","redirect_uris":["` + host + `/cb","` + host + `/other"]`)
	h.later(2 * time.Hour)
	allow()
	query.Set("prompt", "consent")
	open := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
	s.say(`"client_name":"Other app","redirect_uris":["` + host + `/cb"]`)
	h.later(2 * time.Hour)
	other := h.Browser()
	other.Open("/oauth/authorize?" + query.Encode())
	open.Set("decision", "allow")
	if a := b.Submit("/consent", open); a.StatusCode != http.StatusForbidden {
		t.Errorf("what was shown before can still be allowed: %d", a.StatusCode)
	}
	if n := h.events("client.change"); n != 2 {
		t.Errorf("%d events", n)
	}
}

// R1305: what is kept of a document that nobody allowed goes soon; one that
// somebody uses stays.
func TestSweepOfDocuments(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		s := newSite(world, "app.example")
		h.tokens(s.id, nil)
		b := newSite(world, "idle.example")
		query, _ := h.Authorization(b.id, with("redirect_uri", "http://127.0.0.1/other"))
		h.authorize(query)
		h.later(3 * time.Hour)
		h.sweep()
		if n := h.Count(`SELECT count(*) FROM client WHERE source = 'document'`); n != 1 {
			t.Errorf("%d documents are kept", n)
		}
	}, apptest.Dev)
}
