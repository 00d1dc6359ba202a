package authserver_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
)

// R621: the same as the client credentials grant, for programs that know nothing of
// OAuth.
func TestMachineTokenIsATwinOfClientCredentials(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		a := h.account("nightly", "whoami", "")
		answer := h.PostJSON("/auth/m2m/token", `{"client_id":"`+a.ID+`","client_secret":"`+a.Secret+`"}`)
		var got struct {
			Access  string `json:"access_token"`
			Expires int    `json:"expires_in"`
			Tier    string `json:"tier"`
			Refresh string `json:"refresh_token"`
		}
		answer.JSON(t, &got)
		if answer.StatusCode != http.StatusOK || got.Tier != "service" || got.Expires != 3600 || got.Refresh != "" || !h.works(got.Access) {
			t.Errorf("%d %s", answer.StatusCode, answer.Text)
		}
		if answer.Header.Get("Cache-Control") != "no-store" {
			t.Error("it may be cached")
		}
		public := h.Register()
		for body, code := range map[string]string{
			`{"client_id":"` + a.ID + `","client_secret":"wrong"}`:                            oauth.InvalidClient,
			`{"client_id":"` + a.ID + `"}`:                                                    oauth.InvalidClient,
			`{"client_id":"` + public + `"}`:                                                  oauth.UnauthorizedClient,
			`{"client_id":"` + public + `","grant_type":"authorization_code","code":"code_"}`: oauth.UnauthorizedClient,
			`{}`:   oauth.InvalidClient,
			`[]`:   oauth.InvalidRequest,
			`null`: oauth.InvalidRequest,
		} {
			h.unchanged(t, func() { refused(t, h.PostJSON("/auth/m2m/token", body), code) })
		}
		if get := h.Get("/auth/m2m/token"); get.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", get.StatusCode)
		}
	})
}

// exchanger is a confidential app that may exchange: the operator's doing.
func (h house) exchanger() oauth.Registration {
	h.t.Helper()
	r := h.confidential("client_secret_post")
	h.SQL(`UPDATE client SET grant_types = 'authorization_code refresh_token `+exchangeGrant+`' WHERE id = $1`, r.ClientID)
	return r
}

func exchange(r oauth.Registration, subject string, change url.Values) url.Values {
	form := with("grant_type", exchangeGrant, "client_id", r.ClientID, "client_secret", r.ClientSecret, "subject_token", subject, "subject_token_type", accessType)
	for name, values := range change {
		if form[name] = values; values == nil {
			form.Del(name)
		}
	}
	return form
}

// held are the tokens of a person for a confidential app.
func (h house) held(r oauth.Registration, change url.Values) (tokens oauth.TokenResponse) {
	h.t.Helper()
	code, verifier := h.Code(r.ClientID, change)
	h.Redeem(r.ClientID, code, verifier, with("client_secret", r.ClientSecret)).JSON(h.t, &tokens)
	return tokens
}

func payload(t *testing.T, access string) (c map[string]any) {
	t.Helper()
	plain, err := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[1])
	if err == nil {
		err = json.Unmarshal(plain, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RFC 8693: what comes of an exchange can do no more than what was exchanged, does
// not outlive it, and ends with it.
func TestAnExchangedTokenIsLess(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		up := apptest.NewUpstream(t)
		h.Add("files", up)
		app := h.exchanger()
		first := h.held(app, with("scope", "mcp:tools"))
		a := h.Form("/oauth/token", exchange(app, first.AccessToken, with("scope", "files:read", "resource", h.URL+"/s/files/mcp")))
		var second oauth.TokenResponse
		a.JSON(t, &second)
		if a.StatusCode != http.StatusOK || second.IssuedTokenType != accessType || second.TokenType != "Bearer" || second.RefreshToken != "" || second.Scope != "files:read" {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
		was, is := payload(t, first.AccessToken), payload(t, second.AccessToken)
		if is["aud"] != h.URL+"/s/files/mcp" || is["sub"] != was["sub"] || is["family"] != was["family"] || is["jti"] == was["jti"] || is["exp"].(float64) > was["exp"].(float64) {
			t.Errorf("was %v\nis %v", was, is)
		}
		if list := h.RPC("/s/files/mcp", second.AccessToken, "tools/list", "{}"); list.StatusCode != http.StatusOK {
			t.Errorf("it does not work: %d %s", list.StatusCode, list.Text)
		}
		third := h.Form("/oauth/token", exchange(app, second.AccessToken, nil))
		if third.StatusCode != http.StatusOK || payload(t, second.AccessToken)["scope"] != "files:read" {
			t.Errorf("again: %d %s", third.StatusCode, third.Text)
		}
		h.Form("/oauth/revoke", with("client_id", app.ClientID, "client_secret", app.ClientSecret, "token", first.RefreshToken))
		if list := h.RPC("/s/files/mcp", second.AccessToken, "tools/list", "{}"); list.StatusCode != http.StatusUnauthorized {
			t.Errorf("its family ended, and it works: %d", list.StatusCode)
		}

		robot := h.account("nightly", "whoami list_audit_events", "")
		machine := oauth.Registration{ClientID: robot.ID, ClientSecret: robot.Secret}
		var own oauth.TokenResponse
		h.Form("/oauth/token", exchange(machine, h.machineToken(robot.asks(nil)).AccessToken, nil)).JSON(t, &own)
		if !h.works(own.AccessToken) {
			t.Error("a service account cannot exchange its own")
		}
		h.Admin("change_service_account", `{"id":"`+robot.ID+`","active":false}`)
		if h.works(own.AccessToken) {
			t.Error("the account is off, and its exchanged token works")
		}
	}, apptest.Dev)
}

// An app that the operator approved may exchange its own tokens if it proves itself; one
// that is public may not.
func TestAnApprovedAppMayExchange(t *testing.T) {
	h := start(t, apptest.Dev)
	app, public := h.confidential("client_secret_basic"), h.Register()
	tokens, publics := h.held(app, nil), h.tokens(public, nil)
	refused(t, h.Form("/oauth/token", exchange(app, tokens.AccessToken, nil)), oauth.UnauthorizedClient)
	for _, id := range []string{app.ClientID, public} {
		if a := h.Admin("approve_client", `{"id":"`+id+`"}`); a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
	}
	if a := h.Form("/oauth/token", exchange(app, tokens.AccessToken, nil)); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	form := with("grant_type", exchangeGrant, "client_id", public, "subject_token", publics.AccessToken, "subject_token_type", accessType)
	refused(t, h.Form("/oauth/token", form), oauth.UnauthorizedClient)
}

// Attack 122.
func TestExchangesAreRefused(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		h.Add("files", apptest.NewUpstream(t))
		app, other, closed := h.exchanger(), h.exchanger(), h.confidential("client_secret_post")
		mine := h.held(app, with("scope", "files:write"))
		atFiles := h.held(app, with("resource", h.URL+"/s/files/mcp", "scope", "files:read"))
		gone := h.held(app, with("resource", h.URL+"/s/gatehouse/mcp"))
		h.Form("/oauth/revoke", with("client_id", app.ClientID, "client_secret", app.ClientSecret, "token", gone.RefreshToken))
		public := h.Register()
		h.SQL(`UPDATE client SET grant_types = grant_types || ' `+exchangeGrant+`' WHERE id = $1`, public)
		publics := h.tokens(public, nil)
		for name, r := range map[string]struct {
			form url.Values
			code string
		}{
			"a public client":                     {with("grant_type", exchangeGrant, "client_id", public, "subject_token", publics.AccessToken, "subject_token_type", accessType), oauth.UnauthorizedClient},
			"a client without the grant":          {exchange(closed, h.held(closed, nil).AccessToken, nil), oauth.UnauthorizedClient},
			"no subject token":                    {exchange(app, "", with("subject_token", "")), oauth.InvalidRequest},
			"no type":                             {exchange(app, mine.AccessToken, without("subject_token_type")), oauth.InvalidRequest},
			"a refresh token":                     {exchange(app, mine.RefreshToken, nil), oauth.InvalidRequest},
			"a refresh token that says so":        {exchange(app, mine.RefreshToken, with("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token")), oauth.InvalidRequest},
			"another's token":                     {exchange(other, mine.AccessToken, nil), oauth.InvalidRequest},
			"a revoked one":                       {exchange(app, gone.AccessToken, nil), oauth.InvalidRequest},
			"a foreign one":                       {exchange(app, mine.AccessToken[:len(mine.AccessToken)-40]+strings.Repeat("A", 40), nil), oauth.InvalidRequest},
			"a wider scope":                       {exchange(app, mine.AccessToken, with("scope", "files:admin")), oauth.InvalidScope},
			"another scope":                       {exchange(app, mine.AccessToken, with("scope", "files:read audit:read")), oauth.InvalidScope},
			"a scope that is none":                {exchange(app, mine.AccessToken, with("scope", `"`)), oauth.InvalidScope},
			"from one server to all":              {exchange(app, atFiles.AccessToken, with("resource", h.URL+"/mcp")), oauth.InvalidTarget},
			"to the tools of the gateway":         {exchange(app, mine.AccessToken, with("resource", h.URL+"/s/gatehouse/mcp")), oauth.InvalidTarget},
			"to a server that is not here":        {exchange(app, mine.AccessToken, with("resource", h.URL+"/s/other/mcp")), oauth.InvalidTarget},
			"to somewhere else":                   {exchange(app, mine.AccessToken, with("resource", "https://evil.example/mcp")), oauth.InvalidTarget},
			"to two":                              {exchange(app, mine.AccessToken, url.Values{"resource": {h.URL + "/mcp", h.URL + "/s/files/mcp"}}), oauth.InvalidTarget},
			"to an audience":                      {exchange(app, mine.AccessToken, with("audience", "files")), oauth.InvalidTarget},
			"with an actor":                       {exchange(app, mine.AccessToken, with("actor_token", mine.AccessToken, "actor_token_type", accessType)), oauth.InvalidRequest},
			"for a refresh token":                 {exchange(app, mine.AccessToken, with("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")), oauth.InvalidRequest},
			"without the secret":                  {exchange(app, mine.AccessToken, without("client_secret")), oauth.InvalidClient},
			"a registration token":                {exchange(app, app.RegistrationToken, nil), oauth.InvalidRequest},
			"a client secret":                     {exchange(app, app.ClientSecret, nil), oauth.InvalidRequest},
			"what has the form of an opaque one":  {exchange(app, "at_00000000000000000000000000."+strings.Repeat("A", 43), nil), oauth.InvalidRequest},
			"the token of a service account":      {exchange(app, h.machineToken(h.account("robot", "whoami", "").asks(nil)).AccessToken, nil), oauth.InvalidRequest},
			"an exchange for an ID token instead": {exchange(app, mine.AccessToken, with("requested_token_type", "urn:ietf:params:oauth:token-type:id_token")), oauth.InvalidRequest},
		} {
			h.unchanged(t, func() {
				a := h.Form("/oauth/token", r.form)
				if a.Error() != r.code {
					t.Errorf("%s: want %s, got %d %s", name, r.code, a.StatusCode, a.Text)
				}
			})
		}
		if a := h.Form("/oauth/token", exchange(app, mine.AccessToken, nil)); a.StatusCode != http.StatusOK {
			t.Fatalf("in order: %d %s", a.StatusCode, a.Text)
		}
		h.SQL(`UPDATE consent SET ended_at = $1 WHERE client = $2`, time.Now().UnixMicro(), app.ClientID)
		h.unchanged(t, func() {
			refused(t, h.Form("/oauth/token", exchange(app, mine.AccessToken, nil)), oauth.InvalidGrant)
		})
	}, apptest.Dev)
}
