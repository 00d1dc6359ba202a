package authserver_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/qa"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// known is a house with a server behind it that answers for accounts.
type known struct {
	house
	k *apptest.Knowledge
}

func onEachKnown(t *testing.T, f func(t *testing.T, h known), change ...func(*app.Config)) {
	for engine, database := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(engine, func(t *testing.T) {
			address := database(t)
			t.Parallel()
			k := apptest.NewKnowledge(t)
			h := apptest.Open(t, append(change, k.Behind, func(c *app.Config) { c.Database = address })...)
			k.Knows(h)
			f(t, known{house{h, t}, k})
		})
	}
}

// consented is the page after the person has allowed the app what it asks.
func (h known) consented(b *apptest.Browser, query url.Values) apptest.Answer {
	h.t.Helper()
	form := h.asked(b, query)
	form.Set("decision", "allow")
	form.Set("started", "yes")
	return b.Submit("/consent", form)
}

// connected goes through everything for a person who is called name at the service.
func (h known) connected(b *apptest.Browser, client, name string, change url.Values) (tokens oauth.TokenResponse) {
	h.t.Helper()
	query, verifier := h.Authorization(client, change)
	page := h.consented(b, query)
	if apptest.Departs(page.Text) != "" {
		page = b.Connect(h.k, page, name, nil)
	}
	target := apptest.Target(page.Text)
	if target == nil || target.Query().Get("code") == "" {
		h.t.Fatalf("no code: %d %v %s", page.StatusCode, target, page.Text)
	}
	h.Redeem(client, target.Query().Get("code"), verifier, nil).JSON(h.t, &tokens)
	if tokens.AccessToken == "" {
		h.t.Fatal("no token")
	}
	return tokens
}

// result is what a tool answers at an endpoint: its text, or the problem.
func (h known) result(path, token, name, args string) string {
	h.t.Helper()
	a := h.RPC(path, token, "tools/call", `{"name":"`+name+`","arguments":`+args+`}`)
	text := a.Text
	if _, data, streamed := strings.Cut(text, "data: "); streamed {
		text = data
	}
	var m struct {
		Result struct {
			Structured json.RawMessage `json:"structuredContent"`
		} `json:"result"`
	}
	if json.Unmarshal([]byte(text), &m) == nil && m.Result.Structured != nil {
		return string(m.Result.Structured)
	}
	return text
}

// posts are all posts that a token sees, page by page.
func (h known) posts(path, token, tool string) (all []qa.Post) {
	h.t.Helper()
	for page := 1; ; page++ {
		var found qa.Page
		text := h.result(path, token, tool, fmt.Sprintf(`{"query":"","page":%d}`, page))
		if err := json.Unmarshal([]byte(text), &found); err != nil || found.Items == nil {
			h.t.Fatalf("page %d: %s", page, text)
		}
		if all = append(all, found.Items...); !found.More {
			return all
		}
	}
}

// own fails unless the posts are those of a person, all of them.
func own(t *testing.T, posts []qa.Post, person string) {
	t.Helper()
	teams := map[string]int{}
	for _, p := range posts {
		if teams[p.Team]++; p.Team != "everyone" && p.Team != qa.Teams[person] {
			t.Errorf("%s got a post of %s", person, p.Team)
		}
	}
	if len(teams) != 2 || teams["everyone"] != 6 || teams[qa.Teams[person]] < 6 {
		t.Errorf("%s got %v", person, teams)
	}
}

// R307, R551–R554, R557, R410: two people connect their own accounts on the way to
// their first token, and no call ever returns what only the other may see, however
// many run at once and at whichever endpoint.
func TestTwoPeopleUseTheirOwnAccounts(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		dana := h.person()
		erin := h.again(h.bob())
		client := h.Register()
		common := [2]oauth.TokenResponse{h.connected(dana, client, "mira", nil), h.connected(erin, client, "theo", nil)}
		single := with("resource", h.URL+"/s/knowledge/mcp")
		alone := [2]oauth.TokenResponse{h.connected(dana, client, "", single), h.connected(erin, client, "", single)} // the accounts are there
		who := [2]string{"mira", "theo"}
		rounds := 16
		if testing.Short() {
			rounds = 4
		}
		for range 2 {
			apptest.Together(rounds, func(i int) bool {
				p := i % 2
				if i%4 < 2 {
					own(t, h.posts("/mcp", common[p].AccessToken, "knowledge_kb_search"), who[p])
				} else {
					own(t, h.posts("/s/knowledge/mcp", alone[p].AccessToken, "kb_search"), who[p])
				}
				return true
			})
			h.k.Expire() // then every call needs a new access token of the service at once
		}
		if text := h.result("/mcp", common[0].AccessToken, "knowledge_kb_create_draft", `{"title":"Mine","body":"of dana"}`); !strings.Contains(text, `"by":"mira"`) {
			t.Errorf("drafted: %s", text)
		}
		var hidden qa.Post
		for _, p := range h.posts("/mcp", common[0].AccessToken, "knowledge_kb_search") {
			if p.Team == "support" {
				hidden = p
			}
		}
		if text := h.result("/mcp", common[1].AccessToken, "knowledge_kb_get", fmt.Sprintf(`{"id":%d}`, hidden.ID)); strings.Contains(text, hidden.Body) {
			t.Errorf("theo got the post of mira: %s", text)
		}
		h.sealed(common[0].AccessToken)
		for _, header := range h.k.Got() {
			for name, values := range header {
				for _, tokens := range common {
					if strings.Contains(strings.Join(values, " "), tokens.AccessToken) {
						t.Errorf("our token went out as %s", name)
					}
				}
			}
		}
		dump := h.Dump() + h.Log.String()
		for _, secret := range h.k.Tokens() {
			if where := apptest.Find(secret, dump); where != "" {
				t.Errorf("a token of the service is kept or printed %s", where)
			}
		}
	})
}

func claimsOf(t *testing.T, access string) map[string]any {
	t.Helper()
	plain, err := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[1])
	claims := map[string]any{}
	if err == nil {
		err = json.Unmarshal(plain, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// sealed fails unless the access token has the claim public_token, which says
// nothing of what it leads to (C16).
func (h known) sealed(access string) {
	h.t.Helper()
	handle, _ := claimsOf(h.t, access)["public_token"].(string)
	if len(handle) < 100 {
		h.t.Errorf("public_token is %q", handle)
	}
	for _, secret := range h.k.Tokens() {
		if where := apptest.Find(secret, access+" "+handle); where != "" {
			h.t.Errorf("the access token holds what the service granted, %s", where)
		}
	}
}

// Attack 63: nothing of the service is begun before the person has consented; the
// step comes after it and is remembered with the account.
func TestConsentComesBeforeTheService(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		before := len(b.Cookies)
		query, _ := h.Authorization(h.Register(), nil)
		page := b.Open("/oauth/authorize?" + query.Encode())
		if apptest.Departs(page.Text) != "" || len(b.Cookies) != before+1 || h.Count(`SELECT count(*) FROM departure`) != 0 {
			t.Errorf("begun before consent: %v", b.Cookies)
		}
		form := apptest.Fields(page.Text)
		form.Set("decision", "allow")
		form.Set("started", "yes")
		page = b.Submit("/consent", form)
		if apptest.Departs(page.Text) == "" || len(b.Cookies) != before+2 || h.Count(`SELECT count(*) FROM departure`) != 1 || h.Count(`SELECT count(*) FROM authorization_code`) != 0 {
			t.Errorf("after consent: %v %s", b.Cookies, page.Text)
		}
		again := b.Open("/consent/" + form.Get("request")) // Back, reload, a second tab
		if apptest.Departs(again.Text) == "" {
			t.Errorf("a reload shows %s", again.Text)
		}
		if page = b.Connect(h.k, page, "mira", nil); apptest.Target(page.Text) == nil {
			t.Errorf("not answered: %s", page.Text)
		}
	})
}

// A person who does not let the app use the server needs no account there.
func TestWhatIsNotAllowedNeedsNoAccount(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		query, _ := h.Authorization(h.Register(), with("scope", "mcp:read"))
		form := h.asked(b, query)
		form.Set("decision", "allow")
		form.Set("started", "yes")
		form.Del("scope:knowledge:read")
		page := b.Submit("/consent", form)
		if apptest.Departs(page.Text) != "" {
			t.Errorf("sent to the service: %s", page.Text)
		}
	})
}

// A person who says no at the service leaves the client without a code; a service
// that fails shows a page from which the person can go on.
func TestTheServiceSaysNo(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		client := h.Register()
		query, _ := h.Authorization(client, nil)
		page := b.Connect(h.k, h.consented(b, query), "mira", with("decision", "deny"))
		target := apptest.Target(page.Text)
		if target == nil || target.Query().Get("error") != oauth.AccessDenied || target.Query().Get("state") != query.Get("state") || target.Query().Get("iss") != h.URL {
			t.Errorf("answered at %v", target)
		}

		query, _ = h.Authorization(client, nil)
		page = h.consented(b, query)
		back := h.k.Answer(h.House, apptest.Departs(page.Text), "mira", nil)
		page = b.Open(regexp.MustCompile(`code=[^&]+`).ReplaceAllString(back, "code=code-made-up"))
		if page.StatusCode != http.StatusServiceUnavailable || !strings.Contains(page.Text, "PROVIDER_FAILED") && !strings.Contains(page.Text, "req_") {
			t.Errorf("a failing service: %d %s", page.StatusCode, page.Text)
		}
		shown(t, page, http.StatusServiceUnavailable)
	})
}

// Attacks 62, 73: the way back is open to the browser that was sent, once.
func TestOnlyTheBrowserThatWasSentComesBack(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		other := h.again(h.bob())
		query, _ := h.Authorization(h.Register(), nil)
		page := h.consented(b, query)
		back := h.k.Answer(h.House, apptest.Departs(page.Text), "theo", nil)
		for why, path := range map[string]string{
			"": back, "without state": regexp.MustCompile(`state=[^&]+`).ReplaceAllString(back, ""), "to another callback": strings.Replace(back, "/knowledge/", "/other/", 1),
			"of another issuer": regexp.MustCompile(`iss=[^&]+`).ReplaceAllString(back, "iss=https%3A%2F%2Fevil.example"),
		} {
			browser := b
			if why == "" {
				browser = other
			}
			h.unchanged(t, func() { shown(t, browser.Open(path), http.StatusForbidden) })
			if len(h.k.Tokens()) != 0 {
				t.Fatalf("%q: the code was redeemed", why)
			}
		}
		if page := b.Open(back); apptest.Target(page.Text) == nil {
			t.Errorf("the own browser is refused: %s", page.Text)
		}
		shown(t, b.Open(back), http.StatusForbidden) // once
	})
}

// R558: an account that is lost is a tool error that says where to connect it again,
// and there it can be.
func TestALostAccountCanBeConnectedAgain(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		tokens := h.connected(b, h.Register(), "mira", nil)
		h.k.Forget("mira")
		var told string
		for range 2 {
			told = h.result("/mcp", tokens.AccessToken, "knowledge_kb_search", `{"query":""}`)
			if !strings.Contains(told, "CONNECTION_LOST") || !strings.Contains(told, h.URL+"/connect/knowledge") {
				t.Errorf("told: %s", told)
			}
		}
		page := b.Open("/connect/knowledge")
		if page = b.Connect(h.k, page, "mira", nil); !strings.Contains(page.Text, "is connected") {
			t.Errorf("connected again: %d %s", page.StatusCode, page.Text)
		}
		own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
	})
}

// R556: what the person did not allow at the service is refused here, with the way
// to allow it.
func TestTheServiceAllowedLess(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		client := h.Register()
		query, verifier := h.Authorization(client, nil)
		page := b.Connect(h.k, h.consented(b, query), "mira", with("allow", qa.Read))
		var tokens oauth.TokenResponse
		h.Redeem(client, apptest.Target(page.Text).Query().Get("code"), verifier, nil).JSON(t, &tokens)
		own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
		told := h.result("/mcp", tokens.AccessToken, "knowledge_kb_create_draft", `{"title":"x","body":"y"}`)
		if !strings.Contains(told, "CONNECTION_NARROW") || !strings.Contains(told, "write_posts") || !strings.Contains(told, "/connect/knowledge") {
			t.Errorf("told: %s", told)
		}
	})
}

// In development mode the way leads over the service as well, and nothing else is
// asked; a program that follows redirects gets its code.
func TestDevelopmentModeConnectsAccounts(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.Browser()
		client := h.Register()
		query, verifier := h.Authorization(client, nil)
		page := b.Open("/oauth/authorize?" + query.Encode())
		page = b.Connect(h.k, page, "mira", nil)
		target := apptest.Target(page.Text)
		if target == nil {
			t.Fatalf("not answered: %d %s", page.StatusCode, page.Text)
		}
		var tokens oauth.TokenResponse
		h.Redeem(client, target.Query().Get("code"), verifier, nil).JSON(t, &tokens)
		own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
		code, verifier := h.Code(client, nil) // now straight away
		h.Redeem(client, code, verifier, nil).JSON(t, &tokens)
		h.sealed(tokens.AccessToken)
	}, apptest.Dev)
}

// A person sees their own accounts and no other's, removes one, and everything that
// needs it says how to connect it again; who has the server sees all.
func TestAccountsCanBeSeenAndRemoved(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		dana := h.person()
		erin := h.again(h.bob())
		client := h.Register()
		tokens := h.connected(dana, client, "mira", nil)
		if page := erin.Open("/me/connections"); !strings.Contains(page.Text, "Not connected") || apptest.Fields(page.Text).Get("id") != "" {
			t.Errorf("erin sees %s", page.Text)
		}
		page := dana.Open("/me/connections")
		form := apptest.Fields(page.Text)
		if !strings.Contains(page.Text, "write_posts") || form.Get("id") == "" {
			t.Fatalf("dana sees %s", page.Text)
		}
		h.connected(erin, client, "theo", nil)
		if all := h.Admin("list_connections", "{}").Text; strings.Count(all, `"connected"`) != 2 || apptest.Find(h.k.Tokens()[0], all) != "" {
			t.Errorf("the operator sees %s", all)
		}
		foreign := apptest.Fields(erin.Open("/me/connections").Text)
		foreign.Set("id", form.Get("id"))
		if page := erin.Submit("/me/connections/remove", foreign); !strings.Contains(page.Text, "removed already") {
			t.Errorf("erin removes what is not hers: %s", page.Text)
		}
		own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
		if page := dana.Submit("/me/connections/remove", form); !strings.Contains(page.Text, "Not connected") {
			t.Errorf("removed: %d %s", page.StatusCode, page.Text)
		}
		if told := h.result("/mcp", tokens.AccessToken, "knowledge_kb_search", `{"query":""}`); !strings.Contains(told, "CONNECTION_NEEDED") {
			t.Errorf("told: %s", told)
		}
		if n := h.Count(`SELECT count(*) FROM upstream_grant WHERE access IS NULL AND refresh IS NULL`); n != 1 {
			t.Errorf("%d are wiped", n)
		}
	})
}

// A server that tells nobody anything without a token is served once the first
// account is connected; until then the list of servers says where.
func TestAServerThatNeedsATokenForEverything(t *testing.T) {
	t.Parallel()
	k := apptest.NewKnowledge(t)
	k.Strict.Store(true)
	h := known{house{apptest.Open(t, k.Behind), t}, k}
	k.Introduce(h.House)
	dana := h.person()
	var list string
	for began := time.Now(); !strings.Contains(list, h.URL+"/connect/knowledge"); time.Sleep(20 * time.Millisecond) {
		if list = h.Admin("list_servers", "{}").Text; time.Since(began) > 10*time.Second {
			t.Fatalf("the list says %s", list)
		}
	}
	dana.Connect(k, dana.Open("/connect/knowledge"), "mira", nil)
	k.Served(h.House)
	client := h.Register()
	own(t, h.posts("/mcp", h.connected(dana, client, "", nil).AccessToken, "knowledge_kb_search"), "mira")
	erin := h.again(h.bob())
	own(t, h.posts("/s/knowledge/mcp", h.connected(erin, client, "theo", with("resource", h.URL+"/s/knowledge/mcp")).AccessToken, "kb_search"), "theo")
	if list = h.Admin("list_servers", "{}").Text; !strings.Contains(list, `"connected"`) {
		t.Errorf("the list says %s", list)
	}
}

// A device gets its tokens once the account is connected as well.
func TestADeviceWaitsForTheAccount(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		grant := "urn:ietf:params:oauth:grant-type:device_code"
		client := h.register(`{"client_name":"TV","redirect_uris":["http://127.0.0.1/callback"],"grant_types":["` + grant + `","refresh_token"]}`).ClientID
		var asked struct {
			Device string `json:"device_code"`
			User   string `json:"user_code"`
		}
		h.Form("/oauth/device", with("client_id", client)).JSON(t, &asked)
		form := apptest.Fields(b.Open("/device").Text)
		form.Set("user_code", asked.User)
		page := b.Submit("/device/code", form)
		form = apptest.Fields(page.Text)
		form.Set("decision", "allow")
		form.Set("started", "yes")
		page = b.Submit("/consent", form)
		poll := func() apptest.Answer {
			return h.Form("/oauth/token", with("grant_type", grant, "client_id", client, "device_code", asked.Device))
		}
		if a := poll(); a.Error() != "authorization_pending" {
			t.Errorf("before the account: %d %s", a.StatusCode, a.Text)
		}
		h.SQL(`UPDATE device_code SET polled_at = NULL`)
		b.Connect(h.k, page, "mira", nil)
		var tokens oauth.TokenResponse
		poll().JSON(t, &tokens)
		own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
	})
}

// R555: several services side by side: one authorization connects an account at
// each, and each server gets the token of its own.
func TestSeveralServicesSideBySide(t *testing.T) {
	t.Parallel()
	k, second := apptest.NewKnowledge(t), apptest.NewKnowledge(t)
	h := known{house{apptest.Open(t, k.Behind, second.BehindAs("second")), t}, k}
	k.Knows(h.House)
	second.Knows(h.House)
	dana := h.person()
	client := h.Register()
	query, verifier := h.Authorization(client, nil)
	page := dana.Connect(k, h.consented(dana, query), "mira", nil)
	if to := apptest.Departs(page.Text); !strings.HasPrefix(to, second.Issuer) {
		t.Fatalf("the second service is %q: %s", to, page.Text)
	}
	page = dana.Connect(second, page, "theo", nil)
	var tokens oauth.TokenResponse
	h.Redeem(client, apptest.Target(page.Text).Query().Get("code"), verifier, nil).JSON(t, &tokens)
	own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
	own(t, h.posts("/mcp", tokens.AccessToken, "second_kb_search"), "theo")
	for _, header := range k.Got() {
		for _, foreign := range second.Tokens() {
			if strings.Contains(fmt.Sprint(header), foreign) {
				t.Error("a token of the second service went to the first")
			}
		}
	}
	dana.Connect(k, dana.Open("/connect/knowledge"), "theo", nil) // another account in the place of the first
	own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "theo")
}

// A service that does not answer keeps nobody out of the common endpoint: its tools say
// there how to connect the account, and work once it is connected. At its own endpoint
// the person sees a page that says so.
func TestAServiceThatIsDownKeepsNobodyOut(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		client := h.Register()
		h.k.Down.Store(true)
		query, verifier := h.Authorization(client, nil)
		page := h.consented(b, query)
		var tokens oauth.TokenResponse
		target := apptest.Target(page.Text)
		if target == nil {
			t.Fatalf("not answered: %d %s", page.StatusCode, page.Text)
		}
		h.Redeem(client, target.Query().Get("code"), verifier, nil).JSON(t, &tokens)
		if told := h.result("/mcp", tokens.AccessToken, "knowledge_kb_search", `{"query":""}`); !strings.Contains(told, "CONNECTION_NEEDED") || !strings.Contains(told, h.URL+"/connect/knowledge") {
			t.Errorf("told: %s", told)
		}
		if told := h.result("/mcp", tokens.AccessToken, "whoami", `{}`); !strings.Contains(told, "usr_") {
			t.Errorf("another tool: %s", told)
		}

		query, _ = h.Authorization(client, with("resource", h.URL+"/s/knowledge/mcp"))
		page = h.consented(b, query)
		if shown(t, page, http.StatusServiceUnavailable); !strings.Contains(page.Text, "can’t be reached") && !strings.Contains(page.Text, "can&#39;t be reached") {
			t.Errorf("shown: %s", page.Text)
		}
		h.k.Down.Store(false)
		if page = b.Open(page.Request.URL.Path); apptest.Departs(page.Text) == "" { // reloaded
			t.Errorf("shown: %d %s", page.StatusCode, page.Text)
		}
		if page = b.Connect(h.k, page, "mira", nil); apptest.Target(page.Text) == nil {
			t.Errorf("not answered: %s", page.Text)
		}
		own(t, h.posts("/mcp", tokens.AccessToken, "knowledge_kb_search"), "mira")
	})
}

// A person can go on without an account at the common endpoint, by a form of their own
// browser that does nothing else: it answers no other request, and none at the endpoint
// of the server itself.
func TestAPersonCanGoOnWithoutAnAccount(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		other := h.again(h.bob())
		client := h.Register()
		query, verifier := h.Authorization(client, nil)
		page := h.consented(b, query)
		form := apptest.Fields(page.Text)
		const without = "/connect/knowledge/without"
		if apptest.Departs(page.Text) == "" || form.Get("request") == "" || !strings.Contains(page.Text, without) {
			t.Fatalf("no way on: %s", page.Text)
		}
		h.unchanged(t, func() {
			spoilt := url.Values{"request": form["request"], "csrf": {"made-up"}}
			shown(t, b.Submit(without, spoilt), http.StatusForbidden)
			shown(t, other.Submit(without, form), http.StatusForbidden)
		})
		if page := b.Submit("/connect/nothing/without", form); apptest.Target(page.Text) != nil {
			t.Errorf("another name: %s", page.Text)
		}
		page = b.Submit(without, form)
		target := apptest.Target(page.Text)
		if target == nil || target.Query().Get("code") == "" {
			t.Fatalf("not answered: %d %s", page.StatusCode, page.Text)
		}
		if again := b.Submit(without, form); again.StatusCode != http.StatusOK {
			t.Errorf("pressed twice: %d %s", again.StatusCode, again.Text)
		}
		if n := h.Count(`SELECT count(*) FROM authorization_code`); n != 1 {
			t.Errorf("%d codes", n)
		}
		var tokens oauth.TokenResponse
		h.Redeem(client, target.Query().Get("code"), verifier, nil).JSON(t, &tokens)
		if told := h.result("/mcp", tokens.AccessToken, "knowledge_kb_search", `{"query":""}`); !strings.Contains(told, "CONNECTION_NEEDED") {
			t.Errorf("told: %s", told)
		}

		query, _ = h.Authorization(client, with("resource", h.URL+"/s/knowledge/mcp"))
		page = h.consented(b, query)
		if apptest.Departs(page.Text) == "" || strings.Contains(page.Text, without) {
			t.Fatalf("at its own endpoint: %s", page.Text)
		}
		form.Set("request", path.Base(page.Request.URL.Path))
		if page = b.Submit(without, form); apptest.Departs(page.Text) == "" {
			t.Errorf("gone on without: %d %s", page.StatusCode, page.Text)
		}
	})
}

// Consent comes first here as well: a form from before it does not let an app in.
func TestGoingOnWithoutAnAccountIsNoConsent(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		query, _ := h.Authorization(h.Register(), nil)
		form := h.asked(b, query)
		page := b.Submit("/connect/knowledge/without", form)
		if apptest.Target(page.Text) != nil || h.Count(`SELECT count(*) FROM authorization_code`) != 0 || !strings.Contains(page.Text, `action="/consent"`) {
			t.Errorf("%d %s", page.StatusCode, page.Text)
		}
		form.Set("decision", "allow")
		if page = b.Submit("/consent", form); apptest.Departs(page.Text) == "" {
			t.Errorf("it counts after the consent: %d %s", page.StatusCode, page.Text)
		}
	})
}

// Who opens the page of a connection signed out comes back there after signing in, and
// nowhere that this server has no such page.
func TestConnectingGoesOnAfterTheSignIn(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		h.person()
		b := h.Browser()
		page := b.Open("/connect/knowledge")
		form := apptest.Fields(page.Text)
		if form.Get("flow") != "connect:knowledge" {
			t.Fatalf("shown: %d %s", page.StatusCode, page.Text)
		}
		form.Set("email", apptest.Owner)
		b.Submit("/login", form)
		page = b.UseLink()
		if apptest.Departs(page.Text) == "" || page.Request.URL.Path != "/connect/knowledge" {
			t.Fatalf("after the sign-in: %s %s", page.Request.URL, page.Text)
		}
		if page = b.Connect(h.k, page, "mira", nil); !strings.Contains(page.Text, "is connected") {
			t.Errorf("connected: %d %s", page.StatusCode, page.Text)
		}
		for i, waits := range []string{"connect:nothing", "connect:knowledge/../../me", "connect://evil.example", "connect:", "connect:knowledge?x", "//evil.example", `connect:\\evil.example`} {
			page := b.Open("/login?" + url.Values{"flow": {waits}}.Encode()) // who is signed in goes on
			if page.Request.URL.Host != strings.TrimPrefix(h.URL, "http://") || strings.HasPrefix(page.Request.URL.Path, "/connect") || page.Request.URL.Path == "/me" || page.Header.Get("Location") != "" {
				t.Errorf("%q led to %s", waits, page.Request.URL)
			}
			if i > 2 {
				continue // a letter each is enough
			}
			stranger := h.Browser()
			form := apptest.Fields(stranger.Open("/login?" + url.Values{"flow": {waits}}.Encode()).Text)
			if form.Get("flow") != "" {
				t.Errorf("%q is kept", waits)
			}
			form.Set("flow", waits)
			form.Set("email", apptest.Owner)
			stranger.Submit("/login", form)
			if page := stranger.UseLink(); page.Request.URL.Path != "/login" {
				t.Errorf("%q led to %s", waits, page.Request.URL)
			}
		}
	})
}

// Attack 120: an account is connected for the person who began it, who is still in front
// of the browser: a sign-in in between, whosever, ends it.
func TestAnAccountIsNotConnectedForSomebodyElse(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		page := b.Open("/connect/knowledge")
		back := h.k.Answer(h.House, apptest.Departs(page.Text), "mira", nil)
		session := b.Cookies["__Host-gatehouse-session"]
		erin := h.again(h.bob())
		b.Cookies["__Host-gatehouse-session"] = erin.Cookies["__Host-gatehouse-session"]
		h.unchanged(t, func() { shown(t, b.Open(back), http.StatusForbidden) })
		delete(b.Cookies, "__Host-gatehouse-session")
		h.unchanged(t, func() { shown(t, b.Open(back), http.StatusForbidden) })
		if len(h.k.Tokens()) != 0 {
			t.Fatal("the code was redeemed")
		}
		b.Cookies["__Host-gatehouse-session"] = session
		if page := b.Open(back); !strings.Contains(page.Text, "is connected") {
			t.Errorf("the same person: %d %s", page.StatusCode, page.Text)
		}
	})
}

// An account that a person removes is ended at the service; what an app held of it ends
// with the app, and the account stays for the others.
func TestWhatIsRemovedEndsWhereItIs(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		dana := h.person()
		one, other := h.Register(), h.Register()
		first := h.connected(dana, one, "mira", nil)
		second := h.connected(dana, other, "", nil)
		h.sealed(first.AccessToken)
		h.Admin("remove_app", `{"id":"`+h.one(`SELECT id FROM consent WHERE client = '`+one+`'`)+`"}`)
		if a := h.RPC("/mcp", first.AccessToken, "tools/list", ""); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("the app that is removed: %d", a.StatusCode)
		}
		own(t, h.posts("/mcp", second.AccessToken, "knowledge_kb_search"), "mira")
		dana.Submit("/me/connections/remove", apptest.Fields(dana.Open("/me/connections").Text))
		for began := time.Now(); h.k.Grants("mira") != 0; time.Sleep(20 * time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("the service is not told")
			}
		}
		if told := h.result("/mcp", second.AccessToken, "knowledge_kb_search", `{"query":""}`); !strings.Contains(told, "CONNECTION_NEEDED") {
			t.Errorf("told: %s", told)
		}
		dump := h.Dump() + h.Log.String()
		for _, secret := range h.k.Tokens() {
			if where := apptest.Find(secret, dump); where != "" {
				t.Errorf("a token of the service is kept or printed %s", where)
			}
		}
	})
}

// R558: a client that said that it opens addresses for its person is given the one where
// the account is connected, as MCP 2025-11-25 has it ("URL Elicitation Required Error");
// others read it in the error of the tool.
func TestAClientThatOpensAddressesIsGivenOne(t *testing.T) {
	onEachKnown(t, func(t *testing.T, h known) {
		b := h.person()
		query, verifier := h.Authorization(h.Register(), nil)
		form := apptest.Fields(h.consented(b, query).Text)
		page := b.Submit("/connect/knowledge/without", form)
		var tokens oauth.TokenResponse
		h.Redeem(query.Get("client_id"), apptest.Target(page.Text).Query().Get("code"), verifier, nil).JSON(t, &tokens)
		session := func(capabilities string) string {
			a := h.RPC("/mcp", tokens.AccessToken, "initialize", `{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"test","version":"1"}}`)
			return "Mcp-Session-Id: " + a.Header.Get("Mcp-Session-Id")
		}
		search := func(headers ...string) string {
			return h.RPC("/mcp", tokens.AccessToken, "tools/call", `{"name":"knowledge_kb_search","arguments":{"query":""}}`, headers...).Text
		}
		var m struct {
			Error struct {
				Code int
				Data struct {
					Code         string
					Elicitations []struct{ Mode, URL, Message, ElicitationID string }
				}
			}
		}
		opening := session(`{"elicitation":{"form":{},"url":{}}}`)
		text := search(opening)
		if _, data, streamed := strings.Cut(text, "data: "); streamed {
			text = data
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if e := m.Error.Data.Elicitations; m.Error.Code != -32042 || m.Error.Data.Code != "CONNECTION_NEEDED" || len(e) != 1 || e[0].Mode != "url" ||
			e[0].URL != h.URL+"/connect/knowledge" || e[0].ElicitationID == "" || e[0].Message == "" {
			t.Errorf("answered %s", text)
		}
		for _, header := range []string{session(`{"elicitation":{}}`), session(`{}`)} {
			if text := search(header); strings.Contains(text, "-32042") || !strings.Contains(text, `"isError":true`) || !strings.Contains(text, h.URL+"/connect/knowledge") {
				t.Errorf("answered %s", text)
			}
		}
		b.Connect(h.k, b.Open("/connect/knowledge"), "mira", nil)
		if text := search(opening); !strings.Contains(text, `"structuredContent"`) {
			t.Errorf("once it is connected: %s", text)
		}
	})
}
