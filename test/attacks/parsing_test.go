package attacks_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Attacks 12 to 17: what is strange about an authorization request.
func TestParsing(t *testing.T) { attack(t, parsingRows()) }

// spoiled is an authorization request with one change, and the same without.
func spoiled(change url.Values) func(*world) (*http.Request, *http.Request) {
	return func(w *world) (*http.Request, *http.Request) {
		q, _ := w.query(w.pubB, change)
		twin, _ := w.query(w.pubB, nil)
		return w.authorize(q), w.authorize(twin)
	}
}

// unpushed is the answer to a reference that is not good.
var unpushed = page(http.StatusBadRequest, "GET /oauth/authorize refused: PUSHED_REQUEST_UNKNOWN")

// pushed leaves a request of the client's and returns the reference to it.
func (w *world) pushed(p party, change url.Values) string {
	w.t.Helper()
	q, _ := w.query(p, change)
	var answer oauth.PushedResponse
	if w.Form("/oauth/par", q).JSON(w.t, &answer); answer.RequestURI == "" {
		w.t.Fatal("not pushed")
	}
	return w.keep("the reference", answer.RequestURI)
}

func parsingRows() []row {
	unreadable := page(http.StatusBadRequest, "GET /oauth/authorize refused: AUTHORIZE_REQUEST_UNREADABLE")
	rows := []row{
		{number: 15, name: "a request of over 8 KB", want: unreadable, build: spoiled(with("x", strings.Repeat("x", 8<<10)))},
		{number: 15, name: "a state of over 1 KB", want: unreadable, build: spoiled(with("state", strings.Repeat("x", 1025)))},
		{number: 15, name: "a state with NUL", want: unreadable, build: spoiled(with("state", "a\x00"))},
		{number: 15, name: "NUL elsewhere", want: redirect(oauth.InvalidRequest), build: spoiled(with("login_hint", "a\x00"))},
		{number: 15, name: "what is no UTF-8", want: redirect(oauth.InvalidRequest), build: spoiled(with("prompt", "\xff"))},
		{number: 15, name: "a scope with a quote", want: redirect(oauth.InvalidScope), build: spoiled(with("scope", `mcp:"read`))},
		{number: 15, name: "a scope with a backslash", want: redirect(oauth.InvalidScope), build: spoiled(with("scope", `mcp\read`))},
		{number: 14, name: "a request object", want: redirect(oauth.RequestNotSupported), build: spoiled(with("request", "eyJhbGciOiJub25lIn0.e30."))},
		{number: 14, name: "a request that stands elsewhere is not fetched", story: func(w *world) {
			var fetched atomic.Int32
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
			defer elsewhere.Close()
			for _, uri := range []string{elsewhere.URL, elsewhere.URL + "/request.jwt", "https://evil.example/r"} {
				q, _ := w.query(w.pubB, with("request_uri", uri))
				w.refused(redirect(oauth.RequestURINotSupported), w.authorize(q))
			}
			if n := fetched.Load(); n > 0 {
				w.t.Errorf("%d requests went out", n)
			}
		}},
		{number: 16, name: "prompt=none without a session", want: redirect(oauth.LoginRequired), build: spoiled(with("prompt", "none"))},
		{number: 16, name: "prompt=none without a remembered consent, or to a program on the computer", story: func(w *world) {
			for _, p := range []party{w.register("https://b.example/none"), w.register("http://127.0.0.1/cb")} {
				q, _ := w.query(p, with("prompt", "none"))
				code := oauth.ConsentRequired
				if strings.HasPrefix(p.redirect, "http:") {
					code = oauth.InteractionRequired
				}
				before := w.traces()
				if got := sentWith(w.alice.Open("/oauth/authorize?" + q.Encode())); got.Get("error") != code || got.Has("code") || w.traces() != before {
					w.t.Errorf("%s: %v", p.redirect, got)
				}
				w.counted["GET /oauth/authorize refused: "+code]++
			}
		}},
		{number: 17, name: "pushing for a client with a secret, without it", want: refusal("/oauth/par", oauth.InvalidClient, "its secret is wrong"), build: func(w *world) (*http.Request, *http.Request) {
			q, _ := w.query(w.secC, nil)
			return w.form("/oauth/par", q), w.form("/oauth/par", edit(q, with("client_secret", w.secC.secret)))
		}},
		{number: 17, name: "a reference of another client", story: func(w *world) {
			reference := w.pushed(w.pubB, nil)
			w.refused(unpushed, w.authorize(with("client_id", w.pubA.id, "request_uri", reference)))
			w.works(w.authorize(with("client_id", w.pubB.id, "request_uri", reference)))
		}},
		{number: 17, name: "a reference twice, ∥ too", story: func(w *world) {
			reference := w.pushed(w.pubB, nil)
			answers := apptest.Together(64, func(i int) apptest.Answer {
				return w.at(i, w.authorize(with("client_id", w.pubB.id, "request_uri", reference)))
			})
			led := 0
			for _, a := range answers {
				if a.StatusCode == http.StatusSeeOther {
					led++
				} else {
					unpushed.check(w, a)
					w.counted[unpushed.reason]++
				}
			}
			if led != 1 {
				w.t.Errorf("it led on %d times", led)
			}
			w.refused(unpushed, w.authorize(with("client_id", w.pubB.id, "request_uri", reference)))
		}},
		{number: 17, name: "a reference after its time", story: func(w *world) {
			reference := w.pushed(w.pubB, nil)
			w.SQL(`UPDATE pushed_request SET expires_at = created_at`)
			w.refused(unpushed, w.authorize(with("client_id", w.pubB.id, "request_uri", reference)))
			w.works(w.authorize(with("client_id", w.pubB.id, "request_uri", w.pushed(w.pubB, nil))))
		}},
		{number: 17, name: "parameters that contradict the pushed ones", story: func(w *world) {
			p := w.register("https://b.example/pushed")
			q := with("client_id", p.id, "request_uri", w.pushed(p, with("scope", "a:read")), "scope", "a:read a:write ab:read", "redirect_uri", "https://evil.example/cb", "state", "forged")
			form := w.asked(w.alice, q)
			if form.Has("scope:a:write") || form.Has("scope:ab:read") {
				w.t.Errorf("more is asked than was pushed: %v", form)
			}
			target := apptest.Target(w.alice.Submit("/consent", form).Text)
			if target == nil || !strings.HasPrefix(target.String(), p.redirect) || target.Query().Get("state") != state {
				w.t.Fatalf("at %v", target)
			}
			w.keep("the code", target.Query().Get("code"))
		}},
		{number: 113, name: "a session from before is asked for anew", story: func(w *world) {
			p := w.register("https://b.example/aged")
			w.tokens(w.alice, p, nil) // remembered from here on
			for _, change := range []url.Values{with("max_age", "0"), with("prompt", "login")} {
				q, _ := w.query(p, change)
				if a := w.alice.Open("/oauth/authorize?" + q.Encode()); a.Request.URL.Path != "/login" || sentWith(a).Has("code") {
					w.t.Errorf("%v: at %s %s", change, a.Request.URL, a.Text)
				}
			}
			w.tokens(w.alice, p, with("max_age", "3600")) // the twin
		}},
	}
	for _, name := range []string{"scope", "state", "response_type", "code_challenge", "prompt", "max_age"} {
		rows = append(rows, row{number: 12, name: name + " twice", want: redirect(oauth.InvalidRequest), build: func(w *world) (*http.Request, *http.Request) {
			q, _ := w.query(w.pubB, nil)
			twin, _ := w.query(w.pubB, nil)
			if first := q.Get(name); first != "" {
				q.Add(name, first)
			} else {
				q[name] = []string{"1", "1"}
			}
			return w.authorize(q), w.authorize(twin)
		}})
	}
	return rows
}
