package authserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound/outboundtest"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
)

// do calls a tool as the local owner.
func (h house) do(tool string, args map[string]any, out any) {
	h.t.Helper()
	body, err := json.Marshal(args)
	if err != nil {
		h.t.Fatal(err)
	}
	a := h.Admin(tool, string(body))
	if a.StatusCode != http.StatusOK {
		h.t.Fatalf("%s: %d %s", tool, a.StatusCode, a.Text)
	}
	if out != nil {
		a.JSON(h.t, out)
	}
}

// notDone fails unless the tool refuses with the code.
func (h house) notDone(tool string, args map[string]any, code string) {
	h.t.Helper()
	body, err := json.Marshal(args)
	if err != nil {
		h.t.Fatal(err)
	}
	if a := h.Admin(tool, string(body)); a.StatusCode < 400 || !strings.Contains(a.Text, code) {
		h.t.Errorf("%s %v: %d %s, want %s", tool, args, a.StatusCode, a.Text, code)
	}
}

type added struct {
	ID     string `json:"id"`
	Secret string `json:"client_secret"`
}

// R218: with registration off, a client that an administrator added goes through
// everything, with its secret and not without.
func TestAddedClient(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		if m := h.metadata(); m.RegistrationEndpoint != "" {
			t.Errorf("registration is offered at %s", m.RegistrationEndpoint)
		}
		var public, secret added
		h.do("add_client", map[string]any{"id": "my-editor", "name": "My editor", "redirect_uris": []string{apptest.Callback}}, &public)
		h.do("add_client", map[string]any{"name": "Intranet", "redirect_uris": []string{apptest.Callback}, "secret": true}, &secret)
		if public.ID != "my-editor" || public.Secret != "" || secret.Secret == "" {
			t.Fatalf("%+v %+v", public, secret)
		}
		if !h.works(h.tokens(public.ID, nil).AccessToken) {
			t.Error("the public client's token does not work")
		}
		code, verifier := h.Code(secret.ID, nil)
		refused(t, h.Redeem(secret.ID, code, verifier, nil), oauth.InvalidClient)
		var tokens oauth.TokenResponse
		h.Redeem(secret.ID, code, verifier, with("client_secret", secret.Secret)).JSON(t, &tokens)
		if !h.works(tokens.AccessToken) {
			t.Error("the confidential client's token does not work")
		}
		var renewed added
		h.do("rotate_client_secret", map[string]any{"id": secret.ID}, &renewed)
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {secret.ID}, "refresh_token": {tokens.RefreshToken}, "client_secret": {secret.Secret}}
		refused(t, h.Form("/oauth/token", form), oauth.InvalidClient)
		form.Set("client_secret", renewed.Secret)
		if a := h.Form("/oauth/token", form); a.StatusCode != http.StatusOK {
			t.Errorf("with the new secret: %d %s", a.StatusCode, a.Text)
		}
		for _, action := range []string{"client.add", "client.rotate"} {
			if h.events(action) == 0 {
				t.Errorf("no event %s", action)
			}
		}
	}, apptest.Dev, func(c *app.Config) { c.Registration = "off" })
}

func TestWhatCannotBeAdded(t *testing.T) {
	h := start(t, apptest.Dev)
	h.do("add_client", map[string]any{"id": "one", "name": "One", "redirect_uris": []string{"https://a.example/cb"}}, nil)
	for _, in := range []struct {
		id, name, redirect, code string
	}{
		{"one", "One", "https://a.example/cb", "CLIENT_TAKEN"}, {"https://a.example/c.json", "A", "https://a.example/cb", "CLIENT_INVALID"}, {"Upper", "A", "https://a.example/cb", "CLIENT_INVALID"}, {"all", "A", "https://a.example/cb", "CLIENT_INVALID"}, {"mcp", "A", "https://a.example/cb", "CLIENT_INVALID"},
		{"", "", "https://a.example/cb", "CLIENT_INVALID"}, {"", "\u202e", "https://a.example/cb", "CLIENT_INVALID"}, {"", "A", "javascript:alert(1)", "CLIENT_INVALID"}, {"", "A", "http://a.example/cb", "CLIENT_INVALID"},
	} {
		h.notDone("add_client", map[string]any{"id": in.id, "name": in.name, "redirect_uris": []string{in.redirect}}, in.code)
	}
	for _, tool := range []string{"show_client", "approve_client", "block_client", "unblock_client", "remove_client", "rotate_client_secret"} {
		h.notDone(tool, map[string]any{"id": "nosuch"}, "CLIENT_MISSING")
	}
	signs := h.register(`{"redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"private_key_jwt","jwks":` + published(newKey(t)) + `}`)
	for _, id := range []string{"one", signs.ClientID} { // a secret would be worth nothing
		h.notDone("rotate_client_secret", map[string]any{"id": id}, "CLIENT_INVALID")
	}
	h.notDone("list_clients", map[string]any{"state": "odd"}, "CLIENT_INVALID")
	h.notDone("list_clients", map[string]any{"after": "nosuch"}, "CLIENT_MISSING")
}

// R218: a blocked client can do nothing any more, anywhere, and people hear why; once
// unblocked it asks anew.
func TestBlockedClient(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		tokens := h.tokens(client, nil)
		code, verifier := h.Code(client, nil)
		h.SQL(`UPDATE client SET grant_types = grant_types || ' urn:ietf:params:oauth:grant-type:device_code'`)
		if a := h.Form("/oauth/device", with("client_id", client)); a.StatusCode != http.StatusOK {
			t.Fatalf("no device code: %d %s", a.StatusCode, a.Text)
		}
		h.do("block_client", map[string]any{"id": client, "reason": "see ticket 12"}, nil)
		if h.works(tokens.AccessToken) {
			t.Error("its token works")
		}
		if n := h.Count(`SELECT count(*) FROM device_code`); n != 0 {
			t.Errorf("%d devices still wait for it", n)
		}
		refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidClient)
		refused(t, h.Redeem(client, code, verifier, nil), oauth.InvalidClient)
		query, _ := h.Authorization(client, nil)
		a := h.authorize(query)
		shown(t, a, http.StatusForbidden)
		if !strings.Contains(a.Text, "See ticket 12") {
			t.Errorf("the page does not say why: %s", a.Text)
		}
		h.notDone("approve_client", map[string]any{"id": client}, "CLIENT_BLOCKED")
		h.do("unblock_client", map[string]any{"id": client}, nil)
		refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant)
		if !h.works(h.tokens(client, nil).AccessToken) {
			t.Error("unblocked, its new token does not work")
		}
	}, apptest.Dev)
}

type list struct {
	Clients []authserver.KnownClient `json:"clients"`
	Next    string                   `json:"next"`
}

// The list says who is who, in pages that neither repeat nor leave out a client.
func TestListOfClients(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		used := h.Register()
		h.tokens(used, nil)
		for range 4 {
			h.Register("https://a.example/cb")
		}
		h.do("add_client", map[string]any{"id": "added", "name": "Added", "redirect_uris": []string{"https://a.example/cb"}, "secret": true}, nil)
		h.do("approve_client", map[string]any{"id": used}, nil)
		h.SQL(`UPDATE client SET created_at = (SELECT max(created_at) FROM client)`) // as if at once
		seen := map[string]authserver.KnownClient{}
		after, pages := "", 0
		for ; pages == 0 || after != ""; pages++ {
			var page list
			h.do("list_clients", map[string]any{"limit": 2, "after": after}, &page)
			for _, k := range page.Clients {
				if _, twice := seen[k.ID]; twice {
					t.Errorf("%s is there twice", k.ID)
				}
				seen[k.ID] = k
			}
			after = page.Next
		}
		if len(seen) != 6 || pages != 3 {
			t.Errorf("%d clients on %d pages", len(seen), pages)
		}
		if k := seen[used]; k.State != "approved" || k.People != 1 || k.Used.IsZero() || k.Kind != "registered" || k.From == "" {
			t.Errorf("%+v", k)
		}
		if k := seen["added"]; k.State != "approved" || k.People != 0 || !k.Used.IsZero() || k.Kind != "added" || !k.Confidential {
			t.Errorf("%+v", k)
		}
		for state, want := range map[string]int{"approved": 2, "unverified": 4, "blocked": 0, "": 6} {
			var page list
			if h.do("list_clients", map[string]any{"state": state}, &page); len(page.Clients) != want {
				t.Errorf("%s: %d clients", state, len(page.Clients))
			}
		}
		h.do("remove_client", map[string]any{"id": used}, nil)
		h.notDone("show_client", map[string]any{"id": used}, "CLIENT_MISSING")
	}, apptest.Dev)
}

// Attack 47: with registration by token, who brings none that counts learns nothing
// about the rest of the request.
func TestRegistrationToken(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		if m := h.metadata(); m.RegistrationEndpoint == "" {
			t.Error("registration is not offered")
		}
		var made struct{ ID, Token string }
		h.do("make_registration_token", map[string]any{"note": "build", "days": 7}, &made)
		good, bad := `{"client_name":"x","redirect_uris":["https://a.example/cb"]}`, `{"redirect_uris":[]}`
		post := func(body string, headers ...string) apptest.Answer {
			return h.PostJSON("/oauth/register", body, headers...)
		}
		for name, header := range map[string]string{
			"none": "X: y", "another secret": "Authorization: Bearer " + made.Token[:len(made.Token)-3] + "xxx", "no token": "Authorization: Bearer x", "another scheme": "Authorization: Basic " + made.Token,
			"another kind": "Authorization: Bearer " + strings.Replace(made.Token, "iat_", "reg-", 1), "only its id": "Authorization: Bearer " + made.ID,
		} {
			for _, body := range []string{good, bad} {
				h.unchanged(t, func() { refused(t, post(body, header), oauth.InvalidToken) })
			}
			_ = name
		}
		right := "Authorization: Bearer " + made.Token
		h.unchanged(t, func() { refused(t, post(good, right, right), oauth.InvalidToken) })
		refused(t, post(bad, right), oauth.InvalidRedirectURI)
		for range 2 {
			if a := post(good, right); a.StatusCode != http.StatusCreated {
				t.Errorf("with it: %d %s", a.StatusCode, a.Text)
			}
		}
		if n := h.Count(`SELECT uses FROM registration_token`); n != 2 {
			t.Errorf("used %d times", n)
		}
		h.SQL(`UPDATE registration_token SET expires_at = $1`, time.Now().Add(-time.Minute).UnixMicro())
		refused(t, post(good, right), oauth.InvalidToken)
		h.notDone("revoke_registration_token", map[string]any{"id": made.ID}, "REGISTRATION_TOKEN_UNKNOWN")
		h.do("make_registration_token", map[string]any{}, &made)
		h.do("revoke_registration_token", map[string]any{"id": made.ID}, nil)
		refused(t, post(good, "Authorization: Bearer "+made.Token), oauth.InvalidToken)
		h.notDone("make_registration_token", map[string]any{"days": 400}, "CLIENT_INVALID")
		if a := h.Admin("list_registration_tokens", "{}"); strings.Contains(a.Text, made.Token) || strings.Count(a.Text, `"id":`) != 2 {
			t.Errorf("the list: %s", a.Text)
		}
		if dump := h.Dump(); strings.Contains(dump, strings.Split(made.Token, ".")[1]) {
			t.Error("the database has the token")
		}
	}, apptest.Dev, func(c *app.Config) { c.Registration = "token" })
}

// The file owns its clients: they come, change and go with it.
func TestClientsOfTheFile(t *testing.T) {
	secret := strings.Repeat("s", 40)
	h := start(t, apptest.Dev, func(c *app.Config) {
		c.Clients = map[string]authserver.FileClient{
			"intranet": {Name: "Intranet", Redirects: []string{apptest.Callback}, Secret: seal.Hide(secret)},
			"editor":   {Name: "Editor", Redirects: []string{apptest.Callback}},
		}
	})
	code, verifier := h.Code("intranet", nil)
	refused(t, h.Redeem("intranet", code, verifier, with("client_secret", secret+"x")), oauth.InvalidClient)
	if a := h.Redeem("intranet", code, verifier, with("client_secret", secret)); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	tokens := h.tokens("editor", nil)
	var k authserver.KnownClient
	if h.do("show_client", map[string]any{"id": "editor"}, &k); k.Kind != "file" || k.State != "approved" {
		t.Errorf("%+v", k)
	}
	h.notDone("remove_client", map[string]any{"id": "editor"}, "CLIENT_OF_FILE")
	h.notDone("rotate_client_secret", map[string]any{"id": "intranet"}, "CLIENT_OF_FILE")
	if strings.Contains(h.Dump(), secret) {
		t.Error("the database has the secret")
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	again := house{apptest.Start(t, apptest.Dev, func(c *app.Config) {
		c.DataDir, c.Listen, c.PublicURL = h.Dir, strings.TrimPrefix(h.URL, "http://"), h.URL
		c.Clients = map[string]authserver.FileClient{"intranet": {Name: "Intranet 2", Redirects: []string{apptest.Callback}, Secret: seal.Hide(secret)}}
	}), t}
	refused(t, again.Refresh("editor", tokens.RefreshToken), oauth.InvalidClient)
	if a := again.Admin("show_client", `{"id":"intranet"}`); !strings.Contains(a.Text, "Intranet 2") {
		t.Errorf("%s", a.Text)
	}
}

// Attack 52: who goes by the name of an approved app, and is not it, is shown as that.
func TestImitationIsShown(t *testing.T) {
	h := start(t, func(c *app.Config) {
		c.CIMD, c.CIMDDocuments = "allowlist", map[string]string{
			"https://pinned.example/client.json": `{"client_id":"https://pinned.example/client.json","client_name":"Pinned app","redirect_uris":["` + apptest.Callback + `"]}`,
		}
	})
	b := h.Browser()
	b.SetUp()
	h.do("add_client", map[string]any{"id": "real", "name": "Acme Assistant", "redirect_uris": []string{apptest.Callback}}, nil)
	page := func(client string) string {
		query, _ := h.Authorization(client, nil)
		return b.Open("/oauth/authorize?" + query.Encode()).Text
	}
	const warning = "This is not the app called"
	for name, marked := range map[string]bool{"Acme Assistant": true, "acme  assistant": true, "Acme\u200b Assistant": true, "Acme": false, "Acme Assistant 2": false, "": false} {
		var r oauth.Registration
		h.PostJSON("/oauth/register", fmt.Sprintf(`{"client_name":%q,"redirect_uris":[%q]}`, name, apptest.Callback)).JSON(t, &r)
		if text := page(r.ClientID); strings.Contains(text, warning) != marked || !strings.Contains(text, "Unverified app") {
			t.Errorf("%q: marked %v, want %v", name, !marked, marked)
		}
	}
	pinned, _ := h.Authorization("https://pinned.example/client.json", nil)
	if text := b.Open("/oauth/authorize?" + pinned.Encode()).Text; !strings.Contains(text, "Approved by ") {
		t.Errorf("the pinned one: %s", text)
	}
	if text := page(h.register(`{"client_name":"Pinned app","redirect_uris":["` + apptest.Callback + `"]}`).ClientID); !strings.Contains(text, warning) {
		t.Error("who goes by the name of a pinned app is not marked")
	}
	if text := page("real"); strings.Contains(text, warning) || !strings.Contains(text, "Approved by ") || strings.Contains(text, "Unverified") {
		t.Errorf("the approved one: %s", text)
	}
}

// Attacks 52, 54: an approval is for the app as it was: one that takes another name, or
// other addresses, is one that nobody vouches for. A document vouches for its
// addresses, by its host.
func TestApprovalIsForTheAppAsItWas(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		s := newSite(world, "app.example")
		state := func(id string) string {
			var k authserver.KnownClient
			h.do("show_client", map[string]any{"id": id}, &k)
			return k.State
		}
		redirects := `"redirect_uris":["` + apptest.Callback + `"]`
		for name, row := range map[string]struct{ body, want string }{
			"the same":        {`{"client_name":"App",` + redirects + `}`, "approved"},
			"another contact": {`{"client_name":"App",` + redirects + `,"contacts":["b@app.example"]}`, "approved"},
			"another name":    {`{"client_name":"Claude",` + redirects + `}`, "unverified"},
			"another address": {`{"client_name":"App","redirect_uris":["https://evil.example/cb"]}`, "unverified"},
			"one more":        {`{"client_name":"App","redirect_uris":["` + apptest.Callback + `","https://evil.example/cb"]}`, "unverified"},
		} {
			r := h.register(someApp + `}`)
			h.do("approve_client", map[string]any{"id": r.ClientID}, nil)
			managed(t, h, h.manage(http.MethodPut, "/registration/"+r.ClientID, r.RegistrationToken, row.body), r.RegistrationToken)
			if got := state(r.ClientID); got != row.want {
				t.Errorf("%s: %s, want %s", name, got, row.want)
			}
		}
		host := strings.TrimSuffix(s.id, "/client.json")
		for _, step := range []struct{ name, redirect, want string }{{"Doc app", "", "approved"}, {"Doc app", `,"` + host + `/cb"`, "approved"}, {"Claude", "", "unverified"}} {
			s.say(`"client_name":"` + step.name + `","redirect_uris":["` + apptest.Callback + `"` + step.redirect + `]`)
			h.later(2 * time.Hour)
			query, _ := h.Authorization(s.id, nil)
			h.authorize(query)
			if step.redirect == "" && step.name == "Doc app" {
				h.do("approve_client", map[string]any{"id": s.id}, nil)
			}
			if got := state(s.id); got != step.want {
				t.Errorf("the document %+v: %s", step, got)
			}
		}
	})
}

// ux.md §9.9: what an app says of itself is compared, member by member, with what it
// said when it was approved, or else before its last change; and it is approved again
// as it is.
func TestWhatChangedIsShown(t *testing.T) {
	onEachIn(t, func(t *testing.T, h house, world *outboundtest.World) {
		s := newSite(world, "app.example")
		host := strings.TrimSuffix(s.id, "/client.json")
		shown := func() (k struct {
			authserver.KnownClient
			Changed time.Time           `json:"changed_at"`
			Changes []authserver.Change `json:"changes"`
		}) {
			t.Helper()
			h.do("show_client", map[string]any{"id": s.id}, &k)
			return k
		}
		says := func(more string) {
			t.Helper()
			s.say(`"client_name":"Doc app","redirect_uris":["` + apptest.Callback + `"` + more)
			h.later(25 * time.Hour)
			query, _ := h.Authorization(s.id, nil)
			h.authorize(query)
		}
		is := func(step, want string) {
			t.Helper()
			if k := shown(); text(k.Changes) != want || (want != "null") != (time.Since(k.Changed) < time.Hour) {
				t.Errorf("%s: %s at %v, want %s", step, text(k.Changes), k.Changed, want)
			}
		}
		says(`]`)
		is("at first", "null")
		says(`]`)
		is("fetched again", "null")
		says(`,"` + host + `/a"],"logo_uri":"` + host + `/a.png","dpop_bound_access_tokens":true`)
		is("changed", `[{"member":"dpop_bound_access_tokens","added":["true"]},{"member":"logo_uri","added":["`+host+`/a.png"]},{"member":"redirect_uris","added":["`+host+`/a"]}]`)
		says(`,"` + host + `/a"],"logo_uri":"` + host + `/b.png"`)
		is("changed again", `[{"member":"dpop_bound_access_tokens","removed":["true"]},{"member":"logo_uri","removed":["`+host+`/a.png"],"added":["`+host+`/b.png"]}]`)
		h.do("approve_client", map[string]any{"id": s.id}, nil)
		if k := shown(); k.Changes != nil || k.State != "approved" {
			t.Errorf("approved: %+v", k)
		}
		says(`,"` + host + `/b"],"logo_uri":"` + host + `/b.png"`)
		says(`,"` + host + `/c","` + host + `/b"]`)
		is("changed since it was approved", `[{"member":"logo_uri","removed":["`+host+`/b.png"]},{"member":"redirect_uris","removed":["`+host+`/a"],"added":["`+host+`/c","`+host+`/b"]}]`)
		h.do("approve_client", map[string]any{"id": s.id}, nil)
		if k := shown(); k.Changes != nil || h.events("client.approve") != 2 {
			t.Errorf("approved again: %+v, %d events", k, h.events("client.approve"))
		}
		h.do("approve_client", map[string]any{"id": s.id}, nil) // nothing to approve
		if n := h.events("client.approve"); n != 2 {
			t.Errorf("%d events", n)
		}
	})
}

// How often an app is signed in is how many of its families work.
func TestLiveFamiliesAreCounted(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		live := func(want int) {
			t.Helper()
			var k authserver.KnownClient
			if h.do("show_client", map[string]any{"id": client}, &k); k.Live != want || (k.Used.IsZero()) != (h.Count(`SELECT count(*) FROM token_family`) == 0) {
				t.Errorf("%d, want %d; used %v", k.Live, want, k.Used)
			}
		}
		live(0)
		first := h.tokens(client, nil)
		h.Refresh(client, first.RefreshToken)
		h.tokens(client, nil)
		h.tokens(h.Register(), nil)
		live(2)
		h.SQL(`UPDATE token_family SET expires_at = $1 WHERE client = $2 AND id = (SELECT min(id) FROM token_family WHERE client = $2)`, time.Now().UnixMicro(), client)
		live(1)
		h.do("block_client", map[string]any{"id": client}, nil)
		live(0)
	}, apptest.Dev)
}

// Growth: what an administrator decided about stays, however long nobody uses it.
func TestDecisionsAreNotSwept(t *testing.T) {
	h := start(t, apptest.Dev)
	var kept []string
	for range 3 {
		kept = append(kept, h.Register())
	}
	h.do("approve_client", map[string]any{"id": kept[0]}, nil)
	h.do("block_client", map[string]any{"id": kept[1]}, nil)
	h.do("add_client", map[string]any{"id": "added", "name": "Added", "redirect_uris": []string{"https://a.example/cb"}}, nil)
	h.SQL(`UPDATE client SET created_at = created_at - $1`, (400 * 24 * time.Hour).Microseconds())
	h.sweep()
	if n := h.Count(`SELECT count(*) FROM client`); n != 3 {
		t.Errorf("%d clients are left", n)
	}
	if n := h.Count(`SELECT count(*) FROM client WHERE id = $1`, kept[2]); n != 0 {
		t.Error("one that nobody decided about is kept")
	}
}
