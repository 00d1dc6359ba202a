package attacks_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// The gateway as an OAuth client of others: the way to a service and back, in a
// world whose server answers for accounts at a service. Two more providers are
// configured, of which one lies about itself and one names inner addresses.
func TestThirdParty(t *testing.T) {
	for engine, at := range map[string]struct {
		database func(testing.TB) string
		nodes    int
	}{"sqlite": {storetest.SQLite, 1}, "postgres": {storetest.Postgres, 2}} {
		t.Run(engine, func(t *testing.T) {
			database := at.database(t)
			t.Parallel()
			k, bad := apptest.NewKnowledge(t), newStrange(t)
			w := furnish(t, database, at.nodes, k.Behind, bad.configure)
			k.Knows(w.House)
			w.known, w.strange = k, bad
			for _, r := range thirdPartyRows() {
				t.Run(fmt.Sprintf("%02d %s", r.number, r.name), func(t *testing.T) { w.in(t).run(r) })
			}
			w.t = t
			for i, secret := range k.Tokens() {
				w.keep(fmt.Sprintf("token %d of the service", i), secret)
			}
			w.close()
		})
	}
}

// strange is a provider that says of itself what it should not, and counts who asks.
type strange struct {
	url, inner     string
	tokens, inside atomic.Int64 // requests for tokens, and to the inner address
	says           atomic.Pointer[string]
}

func newStrange(t *testing.T) *strange {
	s := &strange{}
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.inside.Add(1) }))
	t.Cleanup(inner.Close)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/token") {
			if says := s.says.Load(); says != nil {
				_, _ = w.Write([]byte(*says))
				return
			}
			http.Redirect(w, r, inner.URL+r.URL.Path, http.StatusFound)
			return
		}
		s.tokens.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"of-the-strange-provider","token_type":"Bearer","picture":"` + inner.URL + `/picture","profile":"` + inner.URL +
			`","id_token":"x","jwks_uri":"` + inner.URL + `/jwks","userinfo_endpoint":"` + inner.URL + `/me"}`))
	}))
	t.Cleanup(server.Close)
	s.url, s.inner = server.URL, inner.URL
	return s
}

func (s *strange) configure(c *app.Config) {
	p := vault.Provider{ClientID: "us", Secret: seal.Hide("hush"), Auth: vault.AuthBasic, Hosts: []string{strings.TrimPrefix(s.url, "http://")}}
	liar, nosy := p, p
	liar.Issuer = s.url
	nosy.AuthorizeURL, nosy.TokenURL = s.url+"/oauth/authorize", s.url+"/token"
	c.Providers["liar"], c.Providers["nosy"] = liar, nosy
}

// sent is a browser in which the person has allowed an app, and the page that sends
// it to the service.
func (w *world) sent(b *apptest.Browser) apptest.Answer {
	w.t.Helper()
	w.SQL(`UPDATE upstream_grant SET status = 'removed'`) // as if nobody had been there
	q, _ := w.query(w.pubA, nil)
	page := b.Submit("/consent", w.asked(b, q))
	if apptest.Departs(page.Text) == "" {
		w.t.Fatalf("nobody is sent anywhere: %d %s", page.StatusCode, page.Text)
	}
	return page
}

// returning is the request with which a browser comes back.
func (w *world) returning(b *apptest.Browser, path string) *http.Request {
	r := w.Request(http.MethodGet, path, "", "Accept: text/html", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: cross-site")
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r
}

func thirdPartyRows() []row {
	const callback = "GET /connect/{name}/callback refused: "
	unknown, foreign := page(http.StatusForbidden, callback+"CONNECT_UNKNOWN"), page(http.StatusForbidden, callback+"CONNECT_FOREIGN")
	without := func(name string) func(string) string {
		return func(path string) string { return regexp.MustCompile(name+`=[^&]*&?`).ReplaceAllString(path, "") }
	}
	instead := func(name, value string) func(string) string {
		return func(path string) string {
			return regexp.MustCompile(name+`=[^&]*`).ReplaceAllString(path, name+"="+url.QueryEscape(value))
		}
	}
	var rows []row
	for _, r := range []struct {
		number int
		name   string
		want   want
		change func(path string) string
	}{
		{62, "without state", unknown, without("state")},
		{62, "with a state that is none", unknown, instead("state", "dep_00000000000000000000000000."+strings.Repeat("A", 43))},
		{62, "with the client's own state", unknown, instead("state", state)},
		{62, "with state twice", unknown, func(path string) string { return path + "&state=x" }},
		{73, "with another iss", foreign, instead("iss", "https://evil.example")},
		{73, "with our own iss", foreign, instead("iss", "http://localhost:3000")},
		{73, "without the iss that its metadata promises", foreign, without("iss")},
		{73, "with neither code nor error", foreign, without("code")},
		{73, "with code and error", foreign, func(path string) string { return path + "&error=access_denied" }},
		{73, "at the callback of another provider", unknown, func(path string) string { return strings.Replace(path, "/knowledge/", "/nosy/", 1) }},
		{73, "at the callback of a provider that is none", unknown, func(path string) string { return strings.Replace(path, "/knowledge/", "/evil/", 1) }},
	} {
		rows = append(rows, row{number: r.number, name: r.name, want: r.want, build: func(w *world) (*http.Request, *http.Request) {
			back := w.known.Answer(w.House, apptest.Departs(w.sent(w.alice).Text), "mira", nil)
			return w.returning(w.alice, r.change(back)), w.returning(w.alice, back)
		}})
	}
	return append(rows,
		row{number: 62, name: "in another browser", want: unknown, build: func(w *world) (*http.Request, *http.Request) {
			back := w.known.Answer(w.House, apptest.Departs(w.sent(w.alice).Text), "theo", nil)
			return w.returning(w.bob, back), w.returning(w.alice, back)
		}},
		row{number: 62, name: "in a browser with the authorization's cookie and not with this one's", want: unknown, build: func(w *world) (*http.Request, *http.Request) {
			back := w.known.Answer(w.House, apptest.Departs(w.sent(w.alice).Text), "theo", nil)
			r := w.returning(w.alice, back)
			r.Header.Del("Cookie")
			for name, value := range w.alice.Cookies {
				if !strings.Contains(name, "key_") {
					r.AddCookie(&http.Cookie{Name: name, Value: value})
				}
			}
			return r, w.returning(w.alice, back)
		}},
		row{number: 62, name: "a second time", want: unknown, build: func(w *world) (*http.Request, *http.Request) {
			back := w.known.Answer(w.House, apptest.Departs(w.sent(w.alice).Text), "mira", nil)
			w.works(w.returning(w.alice, back))
			return w.returning(w.alice, back), nil
		}},
		row{number: 62, name: "too late", want: unknown, build: func(w *world) (*http.Request, *http.Request) {
			back := w.known.Answer(w.House, apptest.Departs(w.sent(w.alice).Text), "mira", nil)
			w.SQL(`UPDATE departure SET expires_at = 1`)
			return w.returning(w.alice, back), nil
		}},
		row{number: 62, name: "forty at once are one", story: func(w *world) {
			back := w.known.Answer(w.House, apptest.Departs(w.sent(w.alice).Text), "mira", nil)
			before := len(w.known.Tokens())
			answers := apptest.Together(40, func(i int) apptest.Answer { return w.at(i, w.returning(w.alice, back)) })
			won := len(slices.DeleteFunc(answers, func(a apptest.Answer) bool { return a.StatusCode != http.StatusSeeOther }))
			w.counted[callback+"CONNECT_UNKNOWN"] += 40 - won
			if won != 1 || len(w.known.Tokens()) != before+2 {
				w.t.Errorf("%d won, %d tokens", won, len(w.known.Tokens())-before)
			}
		}},
		row{number: 63, name: "before consent there is neither state nor its cookie", story: func(w *world) {
			w.SQL(`UPDATE upstream_grant SET status = 'removed'`)
			b := w.signIn("bob@acme.example")
			q, _ := w.query(w.pubA, nil)
			named := func() (names []string) {
				for name := range b.Cookies {
					if strings.Contains(name, "key_") || strings.Contains(name, "dep_") {
						names = append(names, name)
					}
				}
				return names
			}
			departures := w.Count(`SELECT count(*) FROM departure`)
			page := b.Open("/oauth/authorize?" + q.Encode())
			if names := named(); len(names) > 0 || apptest.Departs(page.Text) != "" || strings.Contains(page.Text, w.known.Issuer) || w.Count(`SELECT count(*) FROM departure`) != departures {
				w.t.Errorf("before consent: %v", names)
			}
			form := apptest.Fields(page.Text)
			form.Set("decision", "allow")
			form.Set("started", "yes")
			if b.Submit("/consent", form); len(named()) != 1 {
				w.t.Errorf("after consent: %v", named())
			}
			w.keepBrowser(b)
		}},
		row{number: 73, name: "metadata of another issuer, or that redirects", story: func(w *world) {
			for _, says := range []string{
				"", `{"issuer":"https://evil.example","authorization_endpoint":"` + w.strange.url + `/oauth/authorize","token_endpoint":"` + w.strange.url + `/token"}`,
				`{"issuer":"` + w.strange.url + `","authorization_endpoint":"` + w.strange.url + `/oauth/authorize","token_endpoint":"http://service.example/token"}`, `{`,
			} {
				if w.strange.says.Store(&says); says == "" {
					w.strange.says.Store(nil)
				}
				if a := w.alice.Open("/connect/liar"); a.StatusCode != http.StatusServiceUnavailable || apptest.Departs(a.Text) != "" {
					w.t.Errorf("%q: %d %s", says, a.StatusCode, a.Text)
				}
			}
			if w.strange.tokens.Load() != 0 || w.strange.inside.Load() != 0 {
				w.t.Error("the provider was asked for a token, or followed")
			}
		}},
		row{number: 82, name: "a server that answers for accounts gets the account's token and nothing of ours", story: lending},
		row{number: 106, name: "what a provider says of pictures, keys and profiles is not fetched", story: func(w *world) {
			to, err := url.Parse(apptest.Departs(w.alice.Open("/connect/nosy").Text))
			if err != nil || to.Query().Get("state") == "" {
				w.t.Fatalf("sent to %v", to)
			}
			a := w.alice.Open("/connect/nosy/callback?" + with("code", "x", "state", to.Query().Get("state")).Encode())
			if a.StatusCode != http.StatusOK || w.strange.tokens.Load() != 1 || w.strange.inside.Load() != 0 {
				w.t.Errorf("%d, %d tokens, %d requests inside: %s", a.StatusCode, w.strange.tokens.Load(), w.strange.inside.Load(), a.Text)
			}
			w.keep("the token of the strange provider", "of-the-strange-provider")
		}},
	)
}

// lending is attack 82 where a credential goes upstream: it is the account's, and
// what the service says of it comes back to nobody.
func lending(w *world) {
	page := w.alice.Connect(w.known, w.sent(w.alice), "mira", nil)
	code := sentWith(page).Get("code")
	if code == "" {
		w.t.Fatalf("no code: %d %s", page.StatusCode, page.Text)
	}
	q, verifier := w.query(w.pubA, nil)
	again := w.alice.Submit("/consent", w.asked(w.alice, q)) // the account is there now
	tokens := w.granted(w.Do(w.redemption(w.pubA, w.keep("the code", sentWith(again).Get("code")), verifier, nil)))
	stolen := []string{"Cookie: session=stolen-cookie", "DPoP: stolen-proof", "Proxy-Authorization: Basic stolen-proxy", "X-User: stolen-user"}
	args := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"knowledge_kb_search","arguments":{"query":"support"}}}`
	call := func() apptest.Answer {
		return w.Do(w.json("/mcp", args, append(stolen, "Authorization: Bearer "+tokens.AccessToken)...))
	}
	answers := []apptest.Answer{call()}
	w.known.Forget("mira")
	answers = append(answers, call())
	if !strings.Contains(answers[0].Text, "support") || !strings.Contains(answers[1].Text, "CONNECTION_LOST") {
		w.t.Errorf("answered %s, then %s", answers[0].Text, answers[1].Text)
	}
	for _, a := range answers {
		if a.StatusCode != http.StatusOK || a.Header["Set-Cookie"] != nil || a.Header["Www-Authenticate"] != nil {
			w.t.Errorf("came back: %d %v", a.StatusCode, a.Header)
		}
		for _, secret := range w.known.Tokens() {
			if strings.Contains(a.Text, secret) {
				w.t.Error("the answer holds a token of the service")
			}
		}
	}
	lent := 0
	for _, header := range w.known.Got() {
		if text := fmt.Sprint(header); strings.Contains(text, "stolen") || w.leak(text) != "" {
			w.t.Errorf("the server was sent %v", header)
		}
		if slices.Contains(w.known.Tokens(), strings.TrimPrefix(header.Get("Authorization"), "Bearer ")) {
			lent++
		}
	}
	if lent == 0 {
		w.t.Error("no call had the account's token")
	}
}
