package authserver_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R403, R405, attacks 11, 21, 22, 25, 26, 28: a request that is not in order gets
// nothing, and the code stays good for its owner.
func TestBadRedemptionSpendsNothing(t *testing.T) {
	h := start(t, apptest.Dev)
	client, other, secret := h.Register(), h.Register(), h.confidential("client_secret_post")
	foreignCode, foreignVerifier := h.Code(other, nil)
	rows := map[string]struct {
		change func(code, verifier string) url.Values
		code   string
	}{
		"attack 21: no verifier":             {func(string, string) url.Values { return without("code_verifier") }, oauth.InvalidGrant},
		"attack 21: a wrong verifier":        {func(string, string) url.Values { return with("code_verifier", oauth.NewVerifier()) }, oauth.InvalidGrant},
		"attack 21: 42 characters":           {func(_, v string) url.Values { return with("code_verifier", v[:42]) }, oauth.InvalidGrant},
		"attack 21: 129 characters":          {func(_, v string) url.Values { return with("code_verifier", strings.Repeat("a", 129)) }, oauth.InvalidGrant},
		"attack 21: illegal characters":      {func(_, v string) url.Values { return with("code_verifier", v[:42]+"!") }, oauth.InvalidGrant},
		"attack 21: the challenge itself":    {func(_, v string) url.Values { return with("code_verifier", oauth.Challenge(v)) }, oauth.InvalidGrant},
		"attack 22: another flow's verifier": {func(string, string) url.Values { return with("code_verifier", foreignVerifier) }, oauth.InvalidGrant},
		"attack 11: another redirect URI":    {func(string, string) url.Values { return with("redirect_uri", "http://127.0.0.1:1/callback") }, oauth.InvalidGrant},
		"attack 25: as another client":       {func(string, string) url.Values { return with("client_id", other) }, oauth.InvalidGrant},
		"attack 25: as a client with a secret": {func(string, string) url.Values {
			return with("client_id", secret.ClientID, "client_secret", secret.ClientSecret)
		}, oauth.InvalidGrant},
		"attack 25: another client's code":   {func(string, string) url.Values { return with("code", foreignCode, "code_verifier", foreignVerifier) }, oauth.InvalidGrant},
		"attack 26: a wrong secret part":     {func(c, _ string) url.Values { return with("code", c[:len(c)-43]+strings.Repeat("A", 43)) }, oauth.InvalidGrant},
		"attack 26: a secret part cut short": {func(c, _ string) url.Values { return with("code", c[:len(c)-1]) }, oauth.InvalidGrant},
		"attack 26: no secret part":          {func(c, _ string) url.Values { return with("code", strings.Split(c, ".")[0]) }, oauth.InvalidGrant},
		"attack 26: a secret part too long":  {func(c, _ string) url.Values { return with("code", c+"A") }, oauth.InvalidGrant},
		"attack 26: an unknown id": {func(c, _ string) url.Values {
			return with("code", "code_00000000000000000000000000."+strings.Repeat("A", 43))
		}, oauth.InvalidGrant},
		"no code":                        {func(string, string) url.Values { return without("code") }, oauth.InvalidGrant},
		"attack 28: another resource":    {func(string, string) url.Values { return with("resource", h.URL+"/s/gatehouse/mcp") }, oauth.InvalidTarget},
		"attack 28: an unknown resource": {func(string, string) url.Values { return with("resource", "https://evil.example/mcp") }, oauth.InvalidTarget},
		"attack 28: right and wrong resource": {func(string, string) url.Values {
			return url.Values{"resource": {h.URL + "/mcp", h.URL + "/s/gatehouse/mcp"}}
		}, oauth.InvalidTarget},
		"attack 28: a wider scope":              {func(string, string) url.Values { return with("scope", "mcp:tools mcp:admin") }, oauth.InvalidScope},
		"attack 28: a scope that cannot be one": {func(string, string) url.Values { return with("scope", `"`) }, oauth.InvalidScope},
		"an unknown grant":                      {func(string, string) url.Values { return with("grant_type", "AUTHORIZATION_CODE") }, oauth.UnsupportedGrantType},
		"no grant":                              {func(string, string) url.Values { return without("grant_type") }, oauth.InvalidRequest},
		"the refresh grant, with a code":        {func(c, _ string) url.Values { return with("grant_type", "refresh_token", "refresh_token", c) }, oauth.InvalidGrant},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			code, verifier := h.Code(client, nil)
			h.unchanged(t, func() { refused(t, h.Redeem(client, code, verifier, row.change(code, verifier)), row.code) })
			if a := h.Redeem(client, code, verifier, nil); a.StatusCode != http.StatusOK {
				t.Errorf("the code is burnt: %d %s", a.StatusCode, a.Text)
			}
		})
	}
}

// R403, R406: what may be left out or repeated in agreement.
func TestGoodRedemptions(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for name, change := range map[string]url.Values{
		"attack 11: no redirect URI": without("redirect_uri"),
		"an empty redirect URI":      with("redirect_uri", ""),
		"the same resource":          with("resource", h.URL+"/mcp"),
		"the bare origin":            with("resource", h.URL),
		"an empty resource":          with("resource", ""),
		"the same scope":             with("scope", "mcp:tools"),
		"offline_access":             with("scope", "mcp:tools offline_access"),
		"unknown parameters":         with("nonce", "x"),
	} {
		t.Run(name, func(t *testing.T) {
			code, verifier := h.Code(client, nil)
			a := h.Redeem(client, code, verifier, change)
			var tokens oauth.TokenResponse
			a.JSON(t, &tokens)
			if a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %v", a.StatusCode, a.Header)
			}
			if tokens.TokenType != "Bearer" || tokens.ExpiresIn != 3600 || tokens.Scope != "mcp:tools" || tokens.RefreshToken == "" || !h.works(tokens.AccessToken) { // R411, R412
				t.Errorf("%s", a.Text)
			}
		})
	}
}

// Attack 21: five wrong verifiers, and the code is dead for everybody.
func TestACodeSurvivesFourWrongVerifiersNotFive(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for _, wrong := range []int{4, 5} {
		code, verifier := h.Code(client, nil)
		for range wrong {
			refused(t, h.Redeem(client, code, oauth.NewVerifier(), nil), oauth.InvalidGrant)
		}
		if a := h.Redeem(client, code, verifier, nil); (a.StatusCode == http.StatusOK) != (wrong < 5) {
			t.Errorf("after %d wrong ones: %d %s", wrong, a.StatusCode, a.Text)
		}
	}
}

// R310, R405, attack 27.
func TestACodeExpires(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for { // the sweep at the start may take a code that has expired before it is tried
		code, verifier := h.Code(client, nil)
		id, _, _ := strings.Cut(code, ".")
		if n := h.Count(`SELECT expires_at - created_at FROM authorization_code WHERE id = $1`, id); time.Duration(n)*time.Microsecond != authserver.CodeLife || authserver.CodeLife != 2*time.Minute {
			t.Errorf("a code lives %d µs", n)
		}
		before := h.trace()
		h.SQL(`UPDATE authorization_code SET expires_at = $1 WHERE id = $2`, time.Now().UnixMicro(), id)
		refused(t, h.Redeem(client, code, verifier, nil), oauth.InvalidGrant)
		after := h.trace()
		h.SQL(`UPDATE authorization_code SET expires_at = $1 WHERE id = $2`, time.Now().Add(time.Second*10).UnixMicro(), id)
		if h.Count(`SELECT count(*) FROM authorization_code WHERE id = $1`, id) == 0 {
			continue
		}
		if after != before {
			t.Errorf("it left a trace:\n%s\nwas\n%s", after, before)
		}
		if n := h.events("token.replay"); n != 0 {
			t.Error("a late code is taken for a stolen one")
		}
		if a := h.Redeem(client, code, verifier, nil); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		return
	}
}

// R319, attack 23: a second use kills what the first one made, at every door, and
// is on record; expired or not, with the right verifier or not.
func TestASecondUseRevokesTheFirst(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for name, again := range map[string]func(code, verifier string) apptest.Answer{
		"at once":               func(code, verifier string) apptest.Answer { return h.Redeem(client, code, verifier, nil) },
		"with another verifier": func(code, _ string) apptest.Answer { return h.Redeem(client, code, oauth.NewVerifier(), nil) },
		"after its life": func(code, verifier string) apptest.Answer {
			id, _, _ := strings.Cut(code, ".")
			h.SQL(`UPDATE authorization_code SET expires_at = 1 WHERE id = $1`, id)
			return h.Redeem(client, code, verifier, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bystander := h.tokens(client, nil)
			code, verifier := h.Code(client, nil)
			var tokens, refreshed oauth.TokenResponse
			h.Redeem(client, code, verifier, nil).JSON(t, &tokens)
			h.Refresh(client, tokens.RefreshToken).JSON(t, &refreshed)
			if !h.works(tokens.AccessToken) || !h.works(refreshed.AccessToken) {
				t.Fatal("the tokens do not work")
			}
			events := h.events("token.replay")
			refused(t, again(code, verifier), oauth.InvalidGrant)
			for _, dead := range []oauth.TokenResponse{tokens, refreshed} {
				if h.works(dead.AccessToken) {
					t.Error("the access token still works")
				}
				refused(t, h.Refresh(client, dead.RefreshToken), oauth.InvalidGrant)
			}
			for range 3 { // a stranger could go on for ever
				refused(t, again(code, verifier), oauth.InvalidGrant)
			}
			if h.events("token.replay") != events+1 {
				t.Errorf("%d events", h.events("token.replay")-events)
			}
			if !h.works(bystander.AccessToken) || h.Refresh(client, bystander.RefreshToken).StatusCode != http.StatusOK {
				t.Error("another authorization of the same client was revoked")
			}
		})
	}
}

// Attacks 25, 26: whoever has only a part of a used code, or is another client,
// cannot revoke anything with it.
func TestAGuessRevokesNothing(t *testing.T) {
	h := start(t, apptest.Dev)
	client, other := h.Register(), h.Register()
	code, verifier := h.Code(client, nil)
	var tokens oauth.TokenResponse
	h.Redeem(client, code, verifier, nil).JSON(t, &tokens)
	h.unchanged(t, func() {
		refused(t, h.Redeem(other, code, verifier, nil), oauth.InvalidGrant)
		refused(t, h.Redeem(client, code[:len(code)-43]+strings.Repeat("A", 43), verifier, nil), oauth.InvalidGrant)
		refused(t, h.Redeem(client, strings.Split(code, ".")[0], verifier, nil), oauth.InvalidGrant)
	})
	if !h.works(tokens.AccessToken) || h.Refresh(client, tokens.RefreshToken).StatusCode != http.StatusOK {
		t.Error("the tokens were revoked")
	}
}

// Attack 24: of 64 at once exactly one gets tokens, nobody an error of ours.
func TestOneOfManyRedeemsACode(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		for round := range 2 {
			code, verifier := h.Code(client, nil)
			answers := apptest.Together(64, func(int) apptest.Answer { return h.Redeem(client, code, verifier, nil) })
			if got := statuses(answers); got[http.StatusOK] != 1 || got[http.StatusBadRequest] != 63 {
				t.Fatalf("round %d: %v", round, got)
			}
			var tokens oauth.TokenResponse
			for _, a := range answers {
				if a.StatusCode == http.StatusOK {
					a.JSON(t, &tokens)
				} else {
					refused(t, a, oauth.InvalidGrant)
				}
			}
			if h.works(tokens.AccessToken) { // R319: the others were replays
				t.Error("the tokens of a replayed code work")
			}
			if n := h.Count(`SELECT count(*) FROM token_family`); n != round+1 {
				t.Errorf("%d families after %d codes", n, round+1)
			}
		}
	}, apptest.Dev)
}

// Attacks 29, 37: who is no member any more gets no tokens, whatever was allowed
// before; nothing is spent, and what works meanwhile is asked anew.
func TestASuspendedPersonGetsNoTokens(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	code, verifier := h.Code(client, nil)
	tokens, fresh := h.tokens(client, nil), h.tokens(client, nil)
	h.SQL(`UPDATE member SET status = 'suspended' WHERE user_id = 'usr_dev'`)
	h.unchanged(t, func() {
		refused(t, h.Redeem(client, code, verifier, nil), oauth.InvalidGrant)
		refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant)
		shown(t, h.authorize(authorization(h, client, nil)), http.StatusForbidden)
	})
	if h.works(fresh.AccessToken) {
		t.Error("an access token that was not seen before the suspension works")
	}
	h.SQL(`UPDATE member SET status = 'active' WHERE user_id = 'usr_dev'`)
	if a := h.Redeem(client, code, verifier, nil); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if a := h.Refresh(client, tokens.RefreshToken); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
}

// A server that is taken away takes its authorizations along.
func TestATokenNeedsItsServer(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	code, verifier := h.Code(client, nil)
	h.SQL(`UPDATE authorization_code SET resource = $1`, h.URL+"/s/gone/mcp")
	h.unchanged(t, func() { refused(t, h.Redeem(client, code, verifier, nil), oauth.InvalidTarget) })
}
