package authserver_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// manage sends a request of registration management. An empty token sends none.
func (h house) manage(method, path, token, body string) apptest.Answer {
	h.t.Helper()
	headers := []string{"Content-Type: application/json"}
	if token != "" {
		headers = append(headers, "Authorization: Bearer "+token)
	}
	return h.Do(h.Request(method, path, body, headers...))
}

// managed fails unless the answer describes the registration that token manages.
func managed(t *testing.T, h house, a apptest.Answer, token string) (r oauth.Registration) {
	t.Helper()
	a.JSON(t, &r)
	if a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" || r.RegistrationToken != token || r.RegistrationURI != h.URL+"/registration/"+r.ClientID {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.Text)
	}
	return r
}

const someApp = `{"client_name":"App","redirect_uris":["` + apptest.Callback + `"],"client_uri":"https://app.example","contacts":["a@app.example"]`

// R204, R209, R210, R213, C31: a client reads what it registered, under every prefix; its
// secret is not shown again.
func TestClientReadsItsRegistration(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r := h.register(someApp + `,"token_endpoint_auth_method":"client_secret_post"}`)
		if !regexp.MustCompile(`^reg-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(r.RegistrationToken) {
			t.Errorf("R209: %q", r.RegistrationToken)
		}
		want := r
		want.ClientSecret, want.SecretExpiresAt = "", nil
		for _, prefix := range []string{"", "/mcp", "/oauth"} {
			got := managed(t, h, h.manage(http.MethodGet, prefix+"/registration/"+r.ClientID, r.RegistrationToken, ""), r.RegistrationToken)
			if a, b := text(got), text(want); a != b {
				t.Errorf("%s: %s\nwant %s", prefix, a, b)
			}
		}
		if a := h.manage(http.MethodHead, "/registration/"+r.ClientID, r.RegistrationToken, ""); a.StatusCode != http.StatusOK || a.Text != "" {
			t.Errorf("HEAD: %d %q", a.StatusCode, a.Text)
		}
		if a := h.manage(http.MethodPost, "/registration/"+r.ClientID, r.RegistrationToken, ""); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "DELETE, GET, PUT, OPTIONS" {
			t.Errorf("POST: %d %v", a.StatusCode, a.Header)
		}
	}, apptest.Dev)
}

func text(v any) string {
	text, _ := json.Marshal(v) // a registration always marshals
	return string(text)
}

// R211, C31: name and redirect URIs alone leave the rest as it is; everything else
// is replaced whole.
func TestClientChangesItsRegistration(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		const redirects = `"redirect_uris":["https://b.example/cb"]`
		for name, row := range map[string]struct {
			body string
			ok   func(was, is oauth.Registration) bool
		}{
			"R211: the two members of S0": {`{"client_name":"New",` + redirects + `}`, func(was, is oauth.Registration) bool {
				return is.ClientName == "New" && is.ClientURI == was.ClientURI && slices.Equal(is.Contacts, was.Contacts) && slices.Equal(is.RedirectURIs, []string{"https://b.example/cb"})
			}},
			"the redirect URIs alone": {`{` + redirects + `}`, func(was, is oauth.Registration) bool {
				return is.ClientName == was.ClientName && is.ClientURI == was.ClientURI
			}},
			"RFC 7592: what is not sent is gone": {`{` + redirects + `,"client_name":"New","logo_uri":"https://b.example/l.png"}`, func(was, is oauth.Registration) bool {
				return is.ClientName == "New" && is.LogoURI == "https://b.example/l.png" && is.ClientURI == "" && is.Contacts == nil
			}},
			"grants are reduced, and the answer says so": {`{` + redirects + `,"grant_types":["authorization_code","implicit"]}`, func(_, is oauth.Registration) bool {
				return slices.Equal(is.GrantTypes, []string{"authorization_code"})
			}},
			"members that are not known": {`{"client_name":"New",` + redirects + `,"vendor":1}`, func(_, is oauth.Registration) bool { return is.ClientURI == "" }},
		} {
			t.Run(name, func(t *testing.T) {
				was := h.register(someApp + `}`)
				events := h.events("client.change")
				is := managed(t, h, h.manage(http.MethodPut, "/registration/"+was.ClientID, was.RegistrationToken, row.body), was.RegistrationToken)
				if is.ClientID != was.ClientID || is.ClientIDIssuedAt != was.ClientIDIssuedAt || is.ClientSecret != "" || !row.ok(was, is) {
					t.Errorf("%s became %s", text(was), text(is))
				}
				again := managed(t, h, h.manage(http.MethodGet, "/registration/"+was.ClientID, was.RegistrationToken, ""), was.RegistrationToken)
				if text(again) != text(is) || h.events("client.change") != events+1 {
					t.Errorf("kept is %s", text(again))
				}
				shown(t, h.authorize(authorization(h, was.ClientID, nil)), http.StatusBadRequest) // the old address
			})
		}
		t.Run("what the answer said can be sent back", func(t *testing.T) {
			was := h.register(someApp + `}`)
			is := managed(t, h, h.manage(http.MethodPut, "/registration/"+was.ClientID, was.RegistrationToken, text(was)), was.RegistrationToken)
			if text(is) != text(was) {
				t.Errorf("%s became %s", text(was), text(is))
			}
		})
	}, apptest.Dev)
}

// R211, R215: what may not be changed is refused, and nothing changes.
func TestBadChangesAreRefused(t *testing.T) {
	h := start(t, apptest.Dev)
	r := h.register(someApp + `}`)
	other := h.register(someApp + `,"token_endpoint_auth_method":"client_secret_post"}`)
	const redirects = `"redirect_uris":["https://b.example/cb"]`
	for name, row := range map[string]struct{ body, code string }{
		"another client_id":     {`{` + redirects + `,"client_id":"` + other.ClientID + `"}`, oauth.InvalidClientMetadata},
		"a secret of one's own": {`{` + redirects + `,"client_secret":"mine"}`, oauth.InvalidClientMetadata},
		"another's secret":      {`{` + redirects + `,"client_secret":"` + other.ClientSecret + `"}`, oauth.InvalidClientMetadata},
		"no redirect URIs":      {`{"client_name":"New"}`, oauth.InvalidRedirectURI},
		"a bad redirect URI":    {`{"redirect_uris":["javascript:alert(1)"]}`, oauth.InvalidRedirectURI},
		"no object":             {`[]`, oauth.InvalidClientMetadata},
		"nothing":               {``, oauth.InvalidClientMetadata},
		"a member twice":        {`{` + redirects + `,` + redirects + `}`, oauth.InvalidClientMetadata},
		"over 8 KB":             {registration(slices.Repeat([]string{"https://b.example/" + strings.Repeat("x", 2000)}, 5)...), oauth.InvalidClientMetadata},
		"over 64 KB":            {`{` + redirects + `,"x":"` + strings.Repeat("x", 65<<10) + `"}`, oauth.InvalidClientMetadata},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, h.manage(http.MethodPut, "/registration/"+r.ClientID, r.RegistrationToken, row.body), row.code)
			is := managed(t, h, h.manage(http.MethodGet, "/registration/"+r.ClientID, r.RegistrationToken, ""), r.RegistrationToken)
			if text(is) != text(r) {
				t.Errorf("it became %s", text(is))
			}
		})
	}
	if h.events("client.change") != 0 {
		t.Error("a change is on record")
	}
}

// R220: a confidential client that does not show its secret gets a new one, except
// with the two members of S0; the old one is worth nothing then.
func TestSecretsAreRotated(t *testing.T) {
	h := start(t, apptest.Dev)
	const redirects = `"redirect_uris":["` + apptest.Callback + `"]`
	proves := func(id, secret string) bool {
		a := h.Form("/oauth/token", with("grant_type", "refresh_token", "client_id", id, "client_secret", secret, "refresh_token", "x"))
		return a.Error() == oauth.InvalidGrant
	}
	for name, row := range map[string]struct {
		from, body string
		rotated    bool
	}{
		"left out":                  {"client_secret_post", `,"client_name":"New","token_endpoint_auth_method":"client_secret_post"}`, true},
		"left out, the method too":  {"client_secret_post", `,"logo_uri":"https://b.example/l.png"}`, true},
		"shown":                     {"client_secret_post", `,"client_name":"New","client_secret":"SECRET"}`, false},
		"S0":                        {"client_secret_basic", `,"client_name":"New"}`, false},
		"a public client wants one": {"none", `,"token_endpoint_auth_method":"client_secret_basic"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			was := h.confidential(row.from)
			body := strings.ReplaceAll(`{`+redirects+row.body, "SECRET", was.ClientSecret)
			is := managed(t, h, h.manage(http.MethodPut, "/registration/"+was.ClientID, was.RegistrationToken, body), was.RegistrationToken)
			secret := was.ClientSecret
			if row.rotated {
				secret = is.ClientSecret
			}
			if row.rotated != (is.ClientSecret != "" && is.ClientSecret != was.ClientSecret) || is.ClientSecret != "" && is.SecretExpiresAt == nil {
				t.Errorf("the answer is %s", text(is))
			}
			if !proves(was.ClientID, secret) || row.rotated && proves(was.ClientID, was.ClientSecret) {
				t.Error("the wrong secret counts")
			}
		})
	}
	t.Run("a confidential client becomes public", func(t *testing.T) {
		was := h.confidential("client_secret_post")
		is := managed(t, h, h.manage(http.MethodPut, "/registration/"+was.ClientID, was.RegistrationToken, `{`+redirects+`,"token_endpoint_auth_method":"none"}`), was.RegistrationToken)
		if is.TokenAuthMethod != "none" || proves(was.ClientID, was.ClientSecret) || !proves(was.ClientID, "") {
			t.Errorf("the answer is %s", text(is))
		}
	})
}

// R212, attacks 29, 56: with the client goes everything it was given, at once.
func TestRemovedClientIsForgotten(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r, other := h.register(someApp+`}`), h.register(someApp+`}`)
		tokens, kept := h.tokens(r.ClientID, nil), h.tokens(other.ClientID, nil)
		code, verifier := h.Code(r.ClientID, nil)
		if !h.works(tokens.AccessToken) {
			t.Fatal("the token does not work")
		}
		a := h.manage(http.MethodDelete, "/registration/"+r.ClientID, r.RegistrationToken, "")
		if a.StatusCode != http.StatusNoContent || a.Text != "" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if h.works(tokens.AccessToken) {
			t.Error("its access token works")
		}
		refused(t, h.Refresh(r.ClientID, tokens.RefreshToken), oauth.InvalidClient)
		refused(t, h.Redeem(r.ClientID, code, verifier, nil), oauth.InvalidClient)
		refused(t, h.manage(http.MethodGet, "/registration/"+r.ClientID, r.RegistrationToken, ""), oauth.InvalidToken)
		refused(t, h.manage(http.MethodDelete, "/registration/"+r.ClientID, r.RegistrationToken, ""), oauth.InvalidToken)
		shown(t, h.authorize(authorization(h, r.ClientID, nil)), http.StatusBadRequest)
		for _, left := range []string{
			`SELECT count(*) FROM client WHERE id = $1`, `SELECT count(*) FROM consent WHERE client = $1`,
			`SELECT count(*) FROM authorization_code WHERE client = $1`, `SELECT count(*) FROM flow WHERE client = $1`,
			`SELECT count(*) FROM token_family WHERE client = $1 AND revoked_at IS NULL`,
		} {
			if n := h.Count(left, r.ClientID); n != 0 {
				t.Errorf("%d: %s", n, left)
			}
		}
		if h.events("client.remove") != 1 {
			t.Error("it is not on record, once")
		}
		if !h.works(kept.AccessToken) || h.Refresh(other.ClientID, kept.RefreshToken).StatusCode != http.StatusOK {
			t.Error("the other client's tokens do not work")
		}
	}, apptest.Dev)
}

// Of many removals at once one wins, and is on record.
func TestClientIsRemovedOnce(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r := h.register(someApp + `}`)
		h.tokens(r.ClientID, nil)
		counts := statuses(apptest.Together(16, func(int) apptest.Answer {
			return h.manage(http.MethodDelete, "/registration/"+r.ClientID, r.RegistrationToken, "")
		}))
		if counts[http.StatusNoContent] != 1 || counts[http.StatusUnauthorized] != 15 || h.events("client.remove") != 1 {
			t.Errorf("%v, %d events", counts, h.events("client.remove"))
		}
	}, apptest.Dev)
}

// Attack 29: whatever is redeemed while the client is being removed is worth nothing
// afterwards, and nobody meets an error of ours.
func TestRemovalWinsOverWhatIsUnderWay(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r := h.register(someApp + `}`)
		const n = 24
		var codes, verifiers, refresh [n]string
		for i := range n {
			codes[i], verifiers[i] = h.Code(r.ClientID, nil)
			refresh[i] = h.tokens(r.ClientID, nil).RefreshToken
		}
		answers := apptest.Together(2*n+1, func(i int) apptest.Answer {
			switch {
			case i < n:
				return h.Redeem(r.ClientID, codes[i], verifiers[i], nil)
			case i < 2*n:
				return h.Refresh(r.ClientID, refresh[i-n])
			}
			return h.manage(http.MethodDelete, "/registration/"+r.ClientID, r.RegistrationToken, "")
		})
		if answers[2*n].StatusCode != http.StatusNoContent {
			t.Fatalf("not removed: %d %s", answers[2*n].StatusCode, answers[2*n].Text)
		}
		for _, a := range answers[:2*n] {
			var tokens oauth.TokenResponse
			a.JSON(t, &tokens)
			if a.StatusCode >= http.StatusInternalServerError || tokens.AccessToken != "" && h.works(tokens.AccessToken) {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		}
		if live := h.Count(`SELECT count(*) FROM token_family WHERE client = $1 AND revoked_at IS NULL`, r.ClientID); live != 0 {
			t.Errorf("%d families live", live)
		}
	}, apptest.Dev)
}

// A client that was given nothing leaves nothing behind, in the memory of no node.
func TestClientThatWasGivenNothingIsForgotten(t *testing.T) {
	h := start(t, apptest.Dev)
	before := h.trace()
	r := h.register(someApp + `}`)
	if a := h.manage(http.MethodDelete, "/registration/"+r.ClientID, r.RegistrationToken, ""); a.StatusCode != http.StatusNoContent {
		t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	if after := h.trace(); after != before {
		t.Errorf("%s\nwas\n%s", after, before)
	}
}

// R214, attack 53: no token, another's, one of another kind, and a client that does
// not exist get one answer, and change nothing.
func TestManagementTellsStrangersNothing(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		r, other := h.register(someApp+`}`), h.register(someApp+`,"token_endpoint_auth_method":"client_secret_post"}`)
		tokens := h.tokens(r.ClientID, nil)
		old := h.register(someApp + `}`) // as one from before there were tokens
		err := h.DB.Do(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE client SET registration_hash = NULL WHERE id = $1`, old.ClientID)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		const unknown = "4b5f2f8e-0000-4000-8000-000000000000"
		first, n := h.manage(http.MethodGet, "/registration/"+unknown, "reg-"+unknown, ""), 1
		h.unchanged(t, func() {
			for name, row := range map[string]struct{ client, token string }{
				"no token":                   {r.ClientID, ""},
				"another client's":           {r.ClientID, other.RegistrationToken},
				"an access token":            {r.ClientID, tokens.AccessToken},
				"a refresh token":            {r.ClientID, tokens.RefreshToken},
				"a client secret":            {other.ClientID, other.ClientSecret},
				"the prefix alone":           {r.ClientID, "reg-"},
				"one bit off":                {r.ClientID, r.RegistrationToken[:len(r.RegistrationToken)-1] + "z"},
				"upper case":                 {r.ClientID, "reg-" + strings.ToUpper(r.RegistrationToken[4:]) + "A"},
				"with a blank":               {r.ClientID, r.RegistrationToken + " x"},
				"an unknown client":          {unknown, r.RegistrationToken},
				"an unknown client, none":    {unknown, ""},
				"from before the migration":  {old.ClientID, old.RegistrationToken},
				"from before, no token":      {old.ClientID, ""},
				"from before, empty":         {old.ClientID, "reg-"},
				"a client id that is no one": {"%2e%2e", r.RegistrationToken},
			} {
				for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
					for _, body := range []string{"", `{"redirect_uris":["https://evil.example/cb"]}`} {
						a := h.manage(method, "/registration/"+row.client, row.token, body)
						n++
						refused(t, a, oauth.InvalidToken)
						if a.Unreferenced() != first.Unreferenced() || a.Header.Get("WWW-Authenticate") != first.Header.Get("WWW-Authenticate") {
							t.Errorf("%s %s: %s %v\nunlike %s", method, name, a.Text, a.Header, first.Text)
						}
					}
				}
			}
			two := h.Request(http.MethodDelete, "/registration/"+r.ClientID, "", "Authorization: Bearer "+r.RegistrationToken, "Authorization: Bearer "+r.RegistrationToken)
			refused(t, h.Do(two), oauth.InvalidToken)
			refused(t, h.Do(h.Request(http.MethodGet, "/registration/"+r.ClientID+"?access_token="+r.RegistrationToken, "")), oauth.InvalidToken)
		})
		managed(t, h, h.manage(http.MethodGet, "/registration/"+r.ClientID, r.RegistrationToken, ""), r.RegistrationToken) // the twin
		if err := h.Stop(); err != nil {
			t.Fatal(err)
		}
		if counted := h.Strangers()["/registration/{client} refused: invalid_token"]; counted != n+2 {
			t.Errorf("%d of %d refusals are on record: %v", counted, n+2, h.Strangers())
		}
	}, apptest.Dev)
}

// R209: a registration token is good for its registration and nothing else.
func TestRegistrationTokenWorksNowhereElse(t *testing.T) {
	h := start(t, apptest.Dev)
	r := h.register(someApp + `,"token_endpoint_auth_method":"client_secret_post"}`)
	for _, path := range []string{"/mcp", "/s/gatehouse/mcp"} {
		if a := h.RPC(path, r.RegistrationToken, "tools/list", ""); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
		}
	}
	if a := h.Get("/mcp/tools", "Authorization: Bearer "+r.RegistrationToken); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("REST: %d %s", a.StatusCode, a.Text)
	}
	secret := with("grant_type", "refresh_token", "client_id", r.ClientID, "client_secret", r.ClientSecret, "refresh_token", r.RegistrationToken)
	refused(t, h.Form("/oauth/token", secret), oauth.InvalidGrant)
	refused(t, h.Form("/oauth/token", with("grant_type", "refresh_token", "client_id", r.ClientID, "client_secret", r.RegistrationToken)), oauth.InvalidClient)
	refused(t, h.Form("/oauth/token", with("grant_type", "refresh_token"), "Authorization: Bearer "+r.RegistrationToken), oauth.InvalidClient)
}

// Attack 54: a person is never asked about one app and answers about another.
func TestChangeEndsTheQuestion(t *testing.T) {
	h := start(t)
	b := h.Browser()
	b.SetUp()
	r := h.register(someApp + `}`)
	for name, row := range map[string]struct {
		body string
		ends bool
	}{
		"another name":         {`{"client_name":"Bank","redirect_uris":["` + apptest.Callback + `"]}`, true},
		"another address":      {`{"redirect_uris":["` + apptest.Callback + `","https://evil.example/cb"]}`, true},
		"another logo":         {`{"client_name":"App","redirect_uris":["` + apptest.Callback + `"],"logo_uri":"https://b.example/l.png"}`, false},
		"the same as they are": {`{"client_name":"App","redirect_uris":["` + apptest.Callback + `"]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			managed(t, h, h.manage(http.MethodPut, "/registration/"+r.ClientID, r.RegistrationToken, someApp+`}`), r.RegistrationToken)
			form := h.asked(b, authorization(h, r.ClientID, nil))
			managed(t, h, h.manage(http.MethodPut, "/registration/"+r.ClientID, r.RegistrationToken, row.body), r.RegistrationToken)
			a := b.Submit("/consent", form)
			if ended := a.StatusCode == http.StatusForbidden && apptest.Target(a.Text) == nil; ended != row.ends {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		})
	}
}
