package authserver_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// refresh redeems and decodes.
func (h house) refresh(client, refresh string) (tokens oauth.TokenResponse) {
	h.t.Helper()
	a := h.Refresh(client, refresh)
	a.JSON(h.t, &tokens)
	if a.StatusCode != http.StatusOK || tokens.AccessToken == "" || tokens.RefreshToken == "" || tokens.RefreshToken == refresh {
		h.t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	return tokens
}

// R413, attack 33: an honest client that lost an answer, or works in several
// processes, is never signed out, and what it was handed before goes on working.
func TestAnOldRefreshTokenIsForgivenInItsWindow(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	first := h.tokens(client, nil)
	chain := []oauth.TokenResponse{first}
	for range 4 { // each answer is used once
		chain = append(chain, h.refresh(client, chain[len(chain)-1].RefreshToken))
	}
	for depth := range chain { // and asked for again, at any depth
		chain = append(chain, h.refresh(client, chain[depth].RefreshToken))
	}
	for i, tokens := range chain {
		if !h.works(tokens.AccessToken) {
			t.Errorf("access token %d does not work", i)
		}
	}
	// No child was used: its age does not matter.
	leaf := h.refresh(client, chain[len(chain)-1].RefreshToken)
	h.SQL(`UPDATE refresh_token SET used_at = 1 WHERE used_at IS NOT NULL`)
	h.refresh(client, leaf.RefreshToken)
}

// R413, attack 32: after the window its return is a theft: everything of the
// authorization dies, and it is on record.
func TestAnOldRefreshTokenAfterItsWindowRevokesItsFamily(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	bystander := h.tokens(client, nil)
	first := h.tokens(client, nil)
	second := h.refresh(client, first.RefreshToken)
	third := h.refresh(client, second.RefreshToken)
	id, _, _ := strings.Cut(first.RefreshToken, ".")
	h.SQL(`UPDATE refresh_token SET child_used_at = $1 WHERE id = $2`, time.Now().Add(-token.ReuseWindow-time.Second).UnixMicro(), id)

	refused(t, h.Refresh(client, first.RefreshToken), oauth.InvalidGrant)
	for i, tokens := range []oauth.TokenResponse{first, second, third} {
		if h.works(tokens.AccessToken) {
			t.Errorf("access token %d works", i)
		}
		refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant)
	}
	if h.events("token.replay") != 1 {
		t.Errorf("%d events", h.events("token.replay"))
	}
	if !h.works(bystander.AccessToken) {
		t.Error("another authorization died as well")
	}
}

// R405, R415, attacks 35, 36, 39, 40: refusals rotate nothing and reveal nothing.
func TestBadRefreshSpendsNothing(t *testing.T) {
	h := start(t, apptest.Dev)
	client, other, secret := h.Register(), h.Register(), h.confidential("client_secret_post")
	code, _ := h.Code(client, nil)
	foreign := h.tokens(other, nil)
	rows := map[string]struct {
		change func(oauth.TokenResponse) url.Values
		code   string
	}{
		"attack 35: another client": {func(oauth.TokenResponse) url.Values { return with("client_id", other) }, oauth.InvalidGrant},
		"attack 35: a client with a secret": {func(oauth.TokenResponse) url.Values {
			return with("client_id", secret.ClientID, "client_secret", secret.ClientSecret)
		}, oauth.InvalidGrant},
		"attack 35: another client's token":     {func(oauth.TokenResponse) url.Values { return with("refresh_token", foreign.RefreshToken) }, oauth.InvalidGrant},
		"attack 36: a wider scope":              {func(oauth.TokenResponse) url.Values { return with("scope", "mcp:tools mcp:admin") }, oauth.InvalidScope},
		"attack 36: a scope that cannot be one": {func(oauth.TokenResponse) url.Values { return with("scope", `\`) }, oauth.InvalidScope},
		"attack 36: another resource":           {func(oauth.TokenResponse) url.Values { return with("resource", h.URL+"/s/gatehouse/mcp") }, oauth.InvalidTarget},
		"attack 36: an unknown resource":        {func(oauth.TokenResponse) url.Values { return with("resource", "https://evil.example/mcp") }, oauth.InvalidTarget},
		"attack 40: an access token":            {func(t oauth.TokenResponse) url.Values { return with("refresh_token", t.AccessToken) }, oauth.InvalidGrant},
		"attack 40: a code":                     {func(oauth.TokenResponse) url.Values { return with("refresh_token", code) }, oauth.InvalidGrant},
		"attack 40: a client secret":            {func(oauth.TokenResponse) url.Values { return with("refresh_token", secret.ClientSecret) }, oauth.InvalidGrant},
		"attack 26: a wrong secret part": {func(t oauth.TokenResponse) url.Values {
			return with("refresh_token", t.RefreshToken[:len(t.RefreshToken)-43]+strings.Repeat("A", 43))
		}, oauth.InvalidGrant},
		"attack 26: no secret part": {func(t oauth.TokenResponse) url.Values {
			return with("refresh_token", strings.Split(t.RefreshToken, ".")[0])
		}, oauth.InvalidGrant},
		"no refresh token": {func(oauth.TokenResponse) url.Values { return without("refresh_token") }, oauth.InvalidGrant},
		"as a code": {func(t oauth.TokenResponse) url.Values {
			return with("grant_type", "authorization_code", "code", t.RefreshToken, "code_verifier", oauth.NewVerifier())
		}, oauth.InvalidGrant},
		"attack 44: a client without a client id": {func(oauth.TokenResponse) url.Values { return without("client_id") }, oauth.InvalidClient},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			tokens := h.tokens(client, nil)
			form := with("grant_type", "refresh_token", "client_id", client, "refresh_token", tokens.RefreshToken)
			for name, values := range row.change(tokens) {
				form[name] = values
			}
			h.unchanged(t, func() { refused(t, h.Form("/oauth/token", form), row.code) })
			h.refresh(client, tokens.RefreshToken) // the twin
			if !h.works(tokens.AccessToken) {
				t.Error("the access token died")
			}
		})
	}
}

// Attack 39: idle and absolute lifetimes.
func TestRefreshTokensAndFamiliesExpire(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for name, row := range map[string]struct{ age, heal string }{
		"idle":     {`UPDATE refresh_token SET expires_at = $1`, `UPDATE refresh_token SET expires_at = $1`},
		"absolute": {`UPDATE token_family SET expires_at = $1`, `UPDATE token_family SET expires_at = $1`},
	} {
		tokens := h.tokens(client, nil)
		h.SQL(row.age, time.Now().UnixMicro())
		h.unchanged(t, func() { refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant) })
		h.SQL(row.heal, time.Now().Add(time.Hour).UnixMicro())
		if a := h.Refresh(client, tokens.RefreshToken); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
		}
	}
}

// R415, RFC 6749 §6: a client may ask for less, and keeps the rest for later.
func TestARefreshMayAskForLess(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	tokens := h.tokens(client, with("scope", "mcp:tools mcp:read"))
	form := with("grant_type", "refresh_token", "client_id", client, "refresh_token", tokens.RefreshToken, "scope", "mcp:read", "resource", h.URL+"/mcp/")
	var less oauth.TokenResponse
	h.Form("/oauth/token", form).JSON(t, &less)
	if less.Scope != "mcp:read" || !h.works(less.AccessToken) {
		t.Errorf("%+v", less)
	}
	if all := h.refresh(client, less.RefreshToken); all.Scope != "mcp:tools mcp:read" {
		t.Errorf("scope %q", all.Scope)
	}
}

// Attack 34: of 64 at once every answer holds working tokens and nobody is
// signed out.
func TestManyRefreshAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		tokens := h.tokens(client, nil)
		answers := apptest.Together(64, func(int) apptest.Answer { return h.Refresh(client, tokens.RefreshToken) })
		if got := statuses(answers); got[http.StatusOK] != 64 {
			t.Fatalf("%v", got)
		}
		all := make([]oauth.TokenResponse, len(answers))
		for i, a := range answers {
			a.JSON(t, &all[i])
		}
		for i, works := range apptest.Together(len(all), func(i int) bool { return h.works(all[i].AccessToken) }) {
			if !works {
				t.Errorf("access token %d does not work", i)
			}
		}
		for i := 0; i < len(all); i += 16 {
			h.refresh(client, all[i].RefreshToken)
		}
		if n := h.Count(`SELECT count(*) FROM token_family WHERE revoked_at IS NOT NULL`); n > 0 {
			t.Error("the family was revoked")
		}
	}, apptest.Dev)
}

// A replay and honest refreshes at once: whatever the order, after it nothing of
// the family works.
func TestAReplayWinsAgainstRefreshes(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		code, verifier := h.Code(client, nil)
		var first oauth.TokenResponse
		h.Redeem(client, code, verifier, nil).JSON(t, &first)
		answers := apptest.Together(32, func(i int) apptest.Answer {
			if i == 7 {
				return h.Redeem(client, code, verifier, nil)
			}
			return h.Refresh(client, first.RefreshToken)
		})
		for i, a := range answers {
			var tokens oauth.TokenResponse
			a.JSON(t, &tokens)
			switch {
			case a.StatusCode == http.StatusOK && (h.works(tokens.AccessToken) || h.Refresh(client, tokens.RefreshToken).StatusCode == http.StatusOK):
				t.Errorf("answer %d outlived the replay", i)
			case a.StatusCode != http.StatusOK:
				refused(t, a, oauth.InvalidGrant)
			}
		}
	}, apptest.Dev)
}

// R412, attack 44: who did not register for refresh_token is not handed one that
// it could not use.
func TestRefreshIsForClientsThatRegisteredForIt(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.register(`{"redirect_uris":["` + apptest.Callback + `"],"grant_types":["authorization_code"]}`).ClientID
	code, verifier := h.Code(client, nil)
	a := h.Redeem(client, code, verifier, nil)
	var tokens oauth.TokenResponse
	a.JSON(t, &tokens)
	if !h.works(tokens.AccessToken) || strings.Contains(a.Text, "refresh_token") {
		t.Errorf("%s", a.Text)
	}
	foreign := h.tokens(h.Register(), nil)
	refused(t, h.Refresh(client, foreign.RefreshToken), oauth.UnauthorizedClient)
}
