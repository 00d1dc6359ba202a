package attacks_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
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

// Group 13, what strangers make us fetch, and what the documents that describe apps
// may do.
func TestDocuments(t *testing.T) { attack(t, documentRows()) }

// maker is who makes apps, at a host of the internet of these tests: documents by
// their path, each served as a test says.
type maker struct {
	*outboundtest.World
	url   string
	mu    sync.Mutex
	serve map[string]http.HandlerFunc
	asked map[string]int
}

func newMaker(t *testing.T) *maker {
	m := &maker{World: outboundtest.New(t), serve: map[string]http.HandlerFunc{}, asked: map[string]int{}}
	m.url = m.Serve("app.example", m)
	return m
}

func (m *maker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.asked[r.URL.Path]++
	h := m.serve[r.URL.Path]
	m.mu.Unlock()
	if h == nil {
		h = http.NotFound
	}
	h(w, r)
}

func (m *maker) configure(c *app.Config) {
	c.CIMD, c.Internet, c.OutboundAllow = "open", m.Options(), []netip.Prefix{outboundtest.Loopback}
}

// at serves something at a path, and returns its address.
func (m *maker) at(path string, h http.HandlerFunc) (id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serve[path] = h
	return m.url + path
}

// says serves a document with these members besides its own address.
func (m *maker) says(path, members string) (id string) {
	return m.at(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"client_id":%q,%s}`, m.url+path, members)
	})
}

func (m *maker) times(path string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[path]
}

const honest = `"client_name":"Doc app","redirect_uris":["http://127.0.0.1/cb"]`

// document is a party whose id is the address of its document.
func document(id string) party { return party{id: id, redirect: "http://127.0.0.1/cb"} }

// later lets time pass for what is kept of documents.
func (w *world) later(d time.Duration) {
	w.t.Helper()
	w.SQL(`UPDATE client SET fetched_at = fetched_at - $1, fresh_until = fresh_until - $1, retry_at = retry_at - $1 WHERE source = 'document'`, d.Microseconds())
}

var (
	unusable     = page(http.StatusBadRequest, "GET /oauth/authorize refused: CLIENT_DOCUMENT_UNUSABLE")
	notDocuments = page(http.StatusBadRequest, "GET /oauth/authorize refused: CLIENT_DOCUMENT_REFUSED")
)

// trap is a listener on this computer that nobody may connect to.
func (w *world) trap() (at netip.AddrPort, seen *atomic.Int32) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		w.t.Skip("this computer has no 127.0.0.2")
	}
	seen = new(atomic.Int32)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			seen.Add(1)
			_, _ = io.WriteString(conn, "inner banner 5.3\r\n")
			_ = conn.Close()
		}
	})
	w.t.Cleanup(func() { _ = l.Close(); watching.Wait() })
	return netip.MustParseAddrPort(l.Addr().String()), seen
}

func documentRows() []row {
	rows := []row{
		{number: 97, name: "an inner address, as a name and in every spelling", story: func(w *world) {
			at, seen := w.trap()
			var pages []string
			for i, inner := range []string{
				"127.0.0.2", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fc00::1", "fe80::1", "::ffff:127.0.0.2", "64:ff9b::7f00:2", "64:ff9b:1::7f00:2", "2002:7f00:2::", "224.0.0.1",
			} {
				name := fmt.Sprintf("inner%d.example", i)
				w.maker.Name(name, netip.MustParseAddr(inner))
				for _, port := range []string{"", fmt.Sprintf(":%d", at.Port())} {
					q, _ := w.query(document("https://"+name+port+"/c.json"), nil)
					pages = append(pages, w.refused(unusable, w.authorize(q)).Unreferenced())
				}
			}
			pages = slices.Compact(pages)
			if len(pages) != 1 || strings.Contains(pages[0], "banner") || strings.Contains(pages[0], "refused") {
				w.t.Errorf("attack 107: the answers differ, or tell something: %q", pages)
			}
			for _, host := range []string{"2130706433", "0x7f.1", "017700000001", "localhost", "localhost.", "127.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "127.1", "intranet"} {
				q, _ := w.query(document(fmt.Sprintf("https://%s:%d/c.json", host, at.Port())), nil)
				w.refused(notDocuments, w.authorize(q))
			}
			if n := seen.Load(); n > 0 {
				w.t.Errorf("the trap saw %d connections", n)
			}
		}},
		{number: 98, name: "a name that means something else the next time", story: func(w *world) {
			at, seen := w.trap()
			var asked atomic.Int32
			w.maker.Names("rebind.example", func() []netip.Addr {
				if asked.Add(1) <= 2 {
					return []netip.Addr{netip.MustParseAddr("192.0.2.1")}
				}
				return []netip.Addr{at.Addr()}
			})
			w.maker.Name("mixed.example", netip.MustParseAddr("192.0.2.1"), at.Addr())
			for _, host := range []string{"rebind.example", "rebind.example", "mixed.example"} {
				q, _ := w.query(document(fmt.Sprintf("https://%s:%d/c.json", host, at.Port())), nil)
				w.refused(unusable, w.authorize(q))
			}
			if n := seen.Load(); n > 0 {
				w.t.Errorf("the trap saw %d connections", n)
			}
		}},
		{number: 99, name: "addresses that are none", story: func(w *world) {
			before := w.maker.times("/c.json")
			for _, id := range []string{
				w.maker.url, w.maker.url + "/c.json#f", strings.Replace(w.maker.url, "https://", "https://u:p@", 1) + "/c.json", w.maker.url + "/x/../c.json", w.maker.url + "/./c.json", w.maker.url + "/x/%2e%2e/c.json",
				w.maker.url + "/x/.%2E/c.json", w.maker.url + `\c.json`, w.maker.url + "/c.json\n", "https:///c.json", strings.Replace(w.maker.url, "app", "APP", 1) + "/c.json", strings.Replace(w.maker.url, "example", "example.", 1) + "/c.json",
			} {
				q, _ := w.query(document(id), nil)
				w.refused(notDocuments, w.authorize(q))
			}
			for _, id := range []string{strings.Replace(w.maker.url, "https", "http", 1) + "/c.json", strings.Replace(w.maker.url, "https", "HTTPS", 1) + "/c.json", "file:///etc/passwd", "//app.example/c.json"} {
				q, _ := w.query(document(id), nil)
				w.refused(page(http.StatusBadRequest, "GET /oauth/authorize refused: CLIENT_UNKNOWN"), w.authorize(q))
			}
			if w.maker.times("/c.json") != before {
				w.t.Error("something was fetched")
			}
		}},
		{number: 105, name: "one device signs in again, the others stay", story: func(w *world) {
			p := document(w.maker.says("/devices.json", honest))
			laptop := w.tokens(w.alice, p, nil)
			phone := w.tokens(w.alice, p, nil)
			w.tokens(w.alice, p, nil)
			w.alive(laptop)
			w.alive(phone)
			w.refresh(p, laptop.RefreshToken)
			w.refresh(p, phone.RefreshToken)
		}},
		{number: 103, name: "kept for ten years, changed, and gone", story: func(w *world) {
			caching := func(name string) http.HandlerFunc {
				return func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", "application/json")
					rw.Header().Set("Cache-Control", "max-age=315360000")
					_, _ = fmt.Fprintf(rw, `{"client_id":%q,"client_name":%q,"redirect_uris":["%s/cb"]}`, w.maker.url+"/changes.json", name, w.maker.url)
				}
			}
			p := party{id: w.maker.at("/changes.json", caching("First")), redirect: w.maker.url + "/cb"}
			tokens := w.tokens(w.alice, p, nil)
			w.code(w.alice, p, nil) // remembered
			w.maker.at("/changes.json", caching("Second"))
			w.later(25 * time.Hour)
			q, _ := w.query(p, nil)
			w.asked(w.alice, q) // attack 65
			w.maker.at("/changes.json", nil)
			w.later(25 * time.Hour)
			w.refused(unusable, w.authorize(q))
			tokens = w.refresh(p, tokens.RefreshToken)
			w.later(7 * 24 * time.Hour)
			w.refused(token(oauth.InvalidClient, "there is no such client"), w.refreshing(p, tokens.RefreshToken, nil))
		}},
		{number: 104, name: "one document a hundred times, a hundred documents once", story: func(w *world) {
			release := make(chan struct{})
			id := w.maker.at("/slow.json", func(rw http.ResponseWriter, _ *http.Request) {
				<-release
				rw.Header().Set("Content-Type", "application/json")
				_, _ = fmt.Fprintf(rw, `{"client_id":%q,%s}`, w.maker.url+"/slow.json", honest)
			})
			time.AfterFunc(300*time.Millisecond, func() { close(release) })
			for _, a := range apptest.Together(100, func(int) apptest.Answer { q, _ := w.quietly(document(id)); return w.House.Do(w.authorize(q)) }) {
				if a.StatusCode != http.StatusSeeOther {
					w.t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			}
			if n := w.maker.times("/slow.json"); n != 1 {
				w.t.Errorf("fetched %d times", n)
			}
			before := w.Count(`SELECT count(*) FROM client`)
			var hanging, most atomic.Int32
			for i := range 100 {
				w.maker.at(fmt.Sprintf("/hang/%d.json", i), func(_ http.ResponseWriter, r *http.Request) {
					n := hanging.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					<-r.Context().Done()
					hanging.Add(-1)
				})
			}
			answers := apptest.Together(100, func(i int) apptest.Answer {
				p := document(fmt.Sprintf("%s/hang/%d.json", w.maker.url, i))
				if i%10 == 9 {
					p = w.pubA // an app of others meanwhile
				}
				q, _ := w.quietly(p)
				return w.House.Do(w.authorize(q))
			})
			counts := map[int]int{}
			for _, a := range answers {
				counts[a.StatusCode]++
			}
			if counts[http.StatusSeeOther] != 10 || counts[http.StatusTooManyRequests] == 0 || counts[http.StatusSeeOther]+counts[http.StatusTooManyRequests]+counts[http.StatusBadRequest] != 100 || most.Load() > 16 {
				w.t.Errorf("%v, %d at once", counts, most.Load())
			}
			w.counted["GET /oauth/authorize refused: CLIENT_DOCUMENTS_BUSY"] += counts[http.StatusTooManyRequests]
			w.counted["GET /oauth/authorize refused: CLIENT_DOCUMENT_UNUSABLE"] += counts[http.StatusBadRequest]
			if after := w.Count(`SELECT count(*) FROM client`); after != before {
				w.t.Errorf("%d clients more", after-before)
			}
		}},
		{number: 68, name: "on this computer any program can show itself with it", story: func(w *world) {
			q, _ := w.query(document(w.maker.says("/local.json", honest)), nil)
			a := w.alice.Open("/oauth/authorize?" + q.Encode())
			for _, want := range []string{"Domain confirmed: app.example", w.maker.url + "/local.json", "127.0.0.1", "Did you just start this?", `name="started"`} {
				if !strings.Contains(a.Text, want) {
					w.t.Errorf("the page lacks %q: %s", want, a.Text)
				}
			}
			form := apptest.Fields(a.Text)
			form.Set("decision", "allow")
			form.Del("started")
			if a := w.alice.Submit("/consent", form); sentWith(a).Has("code") {
				w.t.Error("allowed without saying that it was started")
			}
			q, _ = w.query(w.pubA, nil)
			if a := w.alice.Open("/oauth/authorize?" + q.Encode()); strings.Contains(a.Text, "Domain confirmed") || !strings.Contains(a.Text, "Unverified app") {
				w.t.Error("an app that registered itself looks confirmed")
			}
		}},
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		rows = append(rows, row{number: 99, name: fmt.Sprintf("a redirect with %d", status), story: func(w *world) {
			target := w.maker.says("/target.json", honest)
			for i, to := range []string{target, "https://app.example/", "http://127.0.0.2/", "/target.json"} {
				path := fmt.Sprintf("/moved/%d/%d.json", status, i)
				id := w.maker.at(path, func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Location", to)
					rw.Header().Set("Content-Type", "application/json")
					rw.WriteHeader(status)
				})
				q, _ := w.query(document(id), nil)
				w.refused(unusable, w.authorize(q))
			}
			if w.maker.times("/target.json") > 0 {
				w.t.Error("it was followed")
			}
		}})
	}
	for name, serve := range map[string]http.HandlerFunc{
		"11 KB": func(w http.ResponseWriter, _ *http.Request) {
			typed(w)
			_, _ = io.WriteString(w, strings.Repeat(" ", 11<<10))
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for typed(w); r.Context().Err() == nil; {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<10)); err != nil {
					return
				}
			}
		},
		"slow": func(w http.ResponseWriter, r *http.Request) {
			for typed(w); r.Context().Err() == nil; time.Sleep(20 * time.Millisecond) {
				_, _ = io.WriteString(w, " ")
				w.(http.Flusher).Flush()
			}
		},
		"packed": func(w http.ResponseWriter, _ *http.Request) {
			typed(w)
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 10<<20))
			_ = z.Close()
		},
		"text": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "{}")
		},
		"a list":  func(w http.ResponseWriter, _ *http.Request) { typed(w); _, _ = io.WriteString(w, "[]") },
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { typed(w); _, _ = io.WriteString(w, "{") },
		"not found": func(w http.ResponseWriter, _ *http.Request) {
			typed(w)
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "{}")
		},
		"a fault": func(w http.ResponseWriter, _ *http.Request) {
			typed(w)
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "{}")
		},
	} {
		rows = append(rows, row{number: 100, name: name, story: func(w *world) {
			path := "/bad/" + url.PathEscape(name) + ".json"
			q, _ := w.query(document(w.maker.at(strings.ReplaceAll(path, "%20", " "), serve)), nil)
			q.Set("client_id", w.maker.url+path)
			began := time.Now()
			w.refused(unusable, w.authorize(q))
			if took := time.Since(began); took > 6*time.Second {
				w.t.Errorf("it took %v", took)
			}
			w.maker.at(strings.ReplaceAll(path, "%20", " "), func(rw http.ResponseWriter, _ *http.Request) { // which was not remembered
				typed(rw)
				_, _ = fmt.Fprintf(rw, `{"client_id":%q,%s}`, w.maker.url+path, honest)
			})
			w.works(w.authorize(q))
		}})
	}
	for name, members := range map[string]string{
		"a secret": honest + `,"client_secret":"x"`, "a secret that never expires": honest + `,"client_secret_expires_at":0`, "authentication with a secret": honest + `,"token_endpoint_auth_method":"client_secret_basic"`,
		"a private key": honest + `,"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"x","d":"x"}]}`, "an unsafe logo": honest + `,"logo_uri":"javascript:alert(1)"`,
		"a second redirect at another host": `"client_name":"x","redirect_uris":["http://127.0.0.1/cb","https://evil.example/cb"]`, "no name": `"redirect_uris":["http://127.0.0.1/cb"]`,
		"the id of another": `"client_id":"https://claude.ai/oauth/claude-code-client-metadata",` + honest,
	} {
		rows = append(rows, row{number: 101, name: name, want: unusable, build: func(w *world) (*http.Request, *http.Request) {
			path := "/judged/" + strings.ReplaceAll(name, " ", "-") + ".json"
			q, _ := w.query(document(w.maker.says(path, members)), nil)
			good, _ := w.query(document(w.maker.says(path+"/good", honest)), nil)
			return w.authorize(q), w.authorize(good)
		}})
	}
	for name, id := range map[string]func(m *maker) string{
		"in capitals": func(m *maker) string { return m.url + "/Other.json" }, "with a slash": func(m *maker) string { return m.url + "/other.json/" },
		"with a query": func(m *maker) string { return m.url + "/other.json?v=1" },
	} {
		rows = append(rows, row{number: 101, name: "another address than its own, " + name, want: unusable, build: func(w *world) (*http.Request, *http.Request) {
			good := w.maker.says("/other.json", honest)
			u, _ := url.Parse(id(w.maker))
			w.maker.at(u.Path, w.maker.serve["/other.json"])
			q, _ := w.query(document(id(w.maker)), nil)
			twin, _ := w.query(document(good), nil)
			return w.authorize(q), w.authorize(twin)
		}})
	}
	for _, uri := range []string{"javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "file:///etc/passwd", "vbscript:x", "blob:https://app.example/x", " https://app.example/cb", "java\\tscript:alert(1)", "http://b.example/cb"} {
		rows = append(rows, row{number: 7, name: "in a document: " + uri, want: unusable, build: func(w *world) (*http.Request, *http.Request) {
			path := fmt.Sprintf("/unsafe/%x.json", uri)
			q, _ := w.query(document(w.maker.says(path, `"client_name":"x","redirect_uris":["http://127.0.0.1/cb","`+uri+`"]`)), nil)
			good, _ := w.query(document(w.maker.says(path+"/good", honest)), nil)
			return w.authorize(q), w.authorize(good)
		}})
	}
	for name, members := range map[string]string{
		"grants that we do not have": honest + `,"grant_types":["authorization_code","refresh_token","implicit","urn:example:new"]`, "a list of methods": honest + `,"token_endpoint_auth_methods_supported":["private_key_jwt","none"]`,
		"members of a vendor": honest + `,"x_vendor":{"a":[{}]},"logo_uri":"https://cdn.example/logo.png"`,
	} {
		rows = append(rows, row{number: 102, name: name, story: func(w *world) {
			p := document(w.maker.says("/generous/"+strings.ReplaceAll(name, " ", "-")+".json", members))
			w.alive(w.tokens(w.alice, p, nil))
		}})
	}
	return append(rows, row{number: 107, name: "what was found is told to nobody", story: func(w *world) {
		at, seen := w.trap()
		w.maker.Name("banner.example", at.Addr())
		var told []string
		for _, id := range []string{
			fmt.Sprintf("https://banner.example:%d/c.json", at.Port()), "https://nowhere.example/c.json",
			w.maker.at("/told/404.json", nil), w.maker.at("/told/500.json", func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(500)
				_, _ = io.WriteString(rw, "stack trace")
			}),
			w.maker.at("/told/html.json", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "<h1>admin console</h1>") }),
		} {
			q, _ := w.query(document(id), nil)
			told = append(told, w.refused(unusable, w.authorize(q)).Unreferenced())
		}
		if told = slices.Compact(told); len(told) != 1 || seen.Load() > 0 {
			w.t.Errorf("the answers differ: %q; the trap saw %d", told, seen.Load())
		}
	}})
}

func typed(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json") }

// quietly is query for many at once: its verifier is nobody's to find.
func (w *world) quietly(p party) (q url.Values, verifier string) {
	verifier = oauth.NewVerifier()
	return url.Values{
		"client_id": {p.id}, "response_type": {"code"}, "redirect_uri": {p.redirect}, "state": {state},
		"code_challenge": {oauth.Challenge(verifier)}, "code_challenge_method": {"S256"},
	}, verifier
}
