package authserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth/oauthtest"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound/outboundtest"
)

const (
	boundOnly  = `,"dpop_bound_access_tokens":true`
	pushedOnly = `,"require_pushed_authorization_requests":true`
)

// RFC 9449 §5.2: a client that registered that it always has a proof gets no token
// without, and nothing is spent; what it registered is answered, and stays when its
// name alone changes.
func TestAClientThatAlwaysProves(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r := h.register(someApp + boundOnly + `}`)
		at := "/registration/" + r.ClientID
		if is := managed(t, h, h.manage(http.MethodPut, at, r.RegistrationToken, `{"client_name":"Other","redirect_uris":["`+apptest.Callback+`"]}`), r.RegistrationToken); !r.BoundTokens || !is.BoundTokens {
			t.Fatalf("%s, then %s", text(r), text(is))
		}
		key := oauthtest.NewKey(t, "ES256")
		code, verifier := h.Code(r.ClientID, nil)
		form := exchanging(r.ClientID, code, verifier)
		h.unchanged(t, func() { refused(t, h.Form("/oauth/token", form), oauth.InvalidProof) })
		var tokens, renewed oauth.TokenResponse
		h.proving("/oauth/token", key, form, nil).JSON(t, &tokens)
		h.unchanged(t, func() { refused(t, h.Refresh(r.ClientID, tokens.RefreshToken), oauth.InvalidProof) })
		if h.proving("/oauth/token", key, refreshing(r.ClientID, tokens.RefreshToken), nil).JSON(t, &renewed); tokens.TokenType != "DPoP" || renewed.TokenType != "DPoP" {
			t.Errorf("%+v, then %+v", tokens, renewed)
		}
		// What it takes back holds from then on; what is bound stays bound.
		managed(t, h, h.manage(http.MethodPut, at, r.RegistrationToken, someApp+`}`), r.RegistrationToken)
		refused(t, h.Refresh(r.ClientID, renewed.RefreshToken), oauth.InvalidGrant)
		if !h.works(h.tokens(r.ClientID, nil).AccessToken) {
			t.Error("it is demanded still")
		}
	}, apptest.Dev)
}

// RFC 9449 §5.2: whatever the grant, and however the client proves itself.
func TestNoGrantWithoutTheProof(t *testing.T) {
	h := start(t, apptest.Dev)
	public, secret := h.register(someApp+boundOnly+`}`), h.register(someApp+boundOnly+`,"token_endpoint_auth_method":"client_secret_post"}`)
	for _, grant := range append(h.metadata().GrantTypes, "nosuch", "") {
		for _, client := range []oauth.Registration{public, secret} {
			form := with("grant_type", grant, "client_id", client.ClientID)
			if client.ClientSecret != "" {
				form.Set("client_secret", client.ClientSecret)
			}
			refused(t, h.Form("/oauth/token", form), oauth.InvalidProof)
		}
	}
	refused(t, h.Form("/oauth/token", with("grant_type", "refresh_token", "client_id", secret.ClientID, "client_secret", "cs_x")), oauth.InvalidClient) // who it is comes first
}

// Our own library pushes where that is demanded, and its browser carries nothing.
func TestOurLibraryPushes(t *testing.T) {
	h := start(t, apptest.Dev, func(c *app.Config) { c.RequirePushed = true })
	c := client.New(client.Options{Name: "test", Credentials: t.TempDir() + "/credentials.json"})
	_, err := c.Login(t.Context(), h.URL+"/mcp", client.LoginOptions{Open: func(address string) error {
		if strings.Contains(address, "code_challenge") {
			t.Errorf("the browser is sent to %s", address)
		}
		a, err := http.Get(address)
		if err == nil {
			err = a.Body.Close()
		}
		return err
	}})
	if err != nil {
		t.Error(err)
	}
}

// RFC 9126 §4, §6: a client that registered that it always pushes, or any where the
// server demands it, is refused at its redirect URI when it did not.
func TestAClientThatAlwaysPushes(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r := h.register(someApp + pushedOnly + `}`)
		if is := managed(t, h, h.manage(http.MethodGet, "/registration/"+r.ClientID, r.RegistrationToken, ""), r.RegistrationToken); !r.PushedOnly || !is.PushedOnly || h.metadata().PushedOnly {
			t.Errorf("%s, then %s", text(r), text(is))
		}
		h.pushes(t, r.ClientID)
		h.tokens(h.Register(), nil) // others need not
	}, apptest.Dev)
	h := start(t, apptest.Dev, func(c *app.Config) { c.RequirePushed = true })
	if !h.metadata().PushedOnly {
		t.Error("the server does not say that it demands it")
	}
	h.pushes(t, h.Register())
}

// pushes fails unless the client is answered when it pushed its request, and only then.
func (h house) pushes(t *testing.T, client string) {
	t.Helper()
	for _, reference := range []string{"", "urn:ietf:params:oauth:request_uri:par_made.up", "https://a.example/request"} {
		query, _ := h.Authorization(client, nil)
		if reference != "" {
			query.Set("request_uri", reference)
		}
		h.unchanged(t, func() {
			a := h.authorize(query)
			if strings.HasPrefix(reference, "urn:") {
				shown(t, a, http.StatusBadRequest)
				return
			}
			if location, _ := a.Location(); location == nil || location.Query().Get("error") == "" || location.Query().Has("code") ||
				reference == "" && location.Query().Get("error") != oauth.InvalidRequest {
				t.Errorf("%q: %d %v", reference, a.StatusCode, location)
			}
		})
	}
	reference, verifier := h.push(client, nil)
	location, _ := h.authorize(with("client_id", client, "request_uri", reference)).Location()
	if location == nil || h.Redeem(client, location.Query().Get("code"), verifier, nil).StatusCode != http.StatusOK {
		t.Errorf("pushed, and answered at %v", location)
	}
}

// What is no yes or no is refused; no is as if nothing was said.
func TestDemandsAreYesOrNo(t *testing.T) {
	h := start(t, apptest.Dev)
	for _, member := range []string{"dpop_bound_access_tokens", "require_pushed_authorization_requests"} {
		for _, value := range []string{`"true"`, `1`, `[true]`} {
			refused(t, h.PostJSON("/oauth/register", someApp+`,"`+member+`":`+value+`}`), oauth.InvalidClientMetadata)
		}
		for _, value := range []string{`false`, `null`} {
			h.tokens(h.register(someApp+`,"`+member+`":`+value+`}`).ClientID, nil)
		}
	}
}

// What a document, an administrator or the file says of a client is demanded like what
// it registers; and a document may take it back.
func TestDemandsFromElsewhere(t *testing.T) {
	world := outboundtest.New(t)
	s := newSite(world, "app.example")
	members := s.members
	h := start(t, apptest.Dev, documented(world), func(c *app.Config) {
		c.Clients = map[string]authserver.FileClient{"filed": {Name: "Filed", Redirects: []string{apptest.Callback}, Bound: true, PushedOnly: true}}
	})
	s.say(members + boundOnly + pushedOnly)
	var one added
	h.do("add_client", map[string]any{
		"id": "one", "name": "One", "redirect_uris": []string{apptest.Callback}, "dpop_bound_access_tokens": true, "require_pushed_authorization_requests": true,
	}, &one)
	key := oauthtest.NewKey(t, "ES256")
	for _, client := range []string{s.id, "filed", "one"} {
		query, _ := h.Authorization(client, nil)
		redirected(t, h, h.authorize(query), apptest.Callback, query.Get("state"), oauth.InvalidRequest)
		reference, verifier := h.push(client, nil)
		location, _ := h.authorize(with("client_id", client, "request_uri", reference)).Location()
		if location == nil {
			t.Fatalf("%s: no code", client)
		}
		form := exchanging(client, location.Query().Get("code"), verifier)
		h.unchanged(t, func() { refused(t, h.Form("/oauth/token", form), oauth.InvalidProof) })
		if a := h.proving("/oauth/token", key, form, nil); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", client, a.StatusCode, a.Text)
		}
	}
	s.say(members)
	h.later(25 * time.Hour)
	h.tokens(s.id, nil)
	if n := h.events("client.change"); n != 1 {
		t.Errorf("%d events of the change", n)
	}
}

// Attack 54: questions that were begun by other rules of the client end when it
// changes them.
func TestOtherDemandsEndQuestions(t *testing.T) {
	for _, member := range []string{boundOnly, pushedOnly} {
		h := house{apptest.Open(t), t}
		b := h.Browser()
		b.SetUp()
		r := h.register(someApp + `}`)
		query, _ := h.Authorization(r.ClientID, nil)
		page := b.Open("/oauth/authorize?" + query.Encode())
		if n := h.Count(`SELECT count(*) FROM flow`); n != 1 {
			t.Fatalf("%d flows: %s", n, page.Text)
		}
		managed(t, h, h.manage(http.MethodPut, "/registration/"+r.ClientID, r.RegistrationToken, someApp+`}`), r.RegistrationToken)
		if n := h.Count(`SELECT count(*) FROM flow`); n != 1 {
			t.Errorf("the same again ended it: %d flows", n)
		}
		managed(t, h, h.manage(http.MethodPut, "/registration/"+r.ClientID, r.RegistrationToken, someApp+member+`}`), r.RegistrationToken)
		if n := h.Count(`SELECT count(*) FROM flow`); n != 0 {
			t.Errorf("%s: %d flows", member, n)
		}
	}
}
