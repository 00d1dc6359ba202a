package authserver_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// push leaves a request in order and returns its reference. change may spoil it.
func (h house) push(client string, change url.Values) (reference, verifier string) {
	h.t.Helper()
	query, verifier := h.Authorization(client, change)
	a := h.Form("/oauth/par", query)
	var pushed oauth.PushedResponse
	a.JSON(h.t, &pushed)
	if a.StatusCode != http.StatusCreated || a.Header.Get("Cache-Control") != "no-store" || pushed.ExpiresIn != 300 || !strings.HasPrefix(pushed.RequestURI, "urn:ietf:params:oauth:request_uri:") {
		h.t.Fatalf("not pushed: %d %v %s", a.StatusCode, a.Header, a.Text)
	}
	return pushed.RequestURI, verifier
}

// RFC 9126: the browser carries a reference only, and what was pushed counts, at
// every family of paths, whatever the browser brings besides (attack 17).
func TestAPushedRequestIsAuthorized(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		for name, besides := range map[string]url.Values{
			"the reference alone": nil,
			"a wider scope":       with("scope", "mcp:admin"),
			"another address":     with("redirect_uri", "https://evil.example/cb"),
			"another state":       with("state", "forged"),
			"another challenge":   with("code_challenge", oauth.Challenge(oauth.NewVerifier())),
			"what is unreadable":  {"scope": {`"`, `"`}, "x": {"\xff"}},
			"a request object":    with("request", "eyJ"),
		} {
			t.Run(name, func(t *testing.T) {
				reference, verifier := h.push(client, with("scope", "mcp:read"))
				query := with("client_id", client, "request_uri", reference)
				for k, v := range besides {
					query[k] = v
				}
				location, _ := h.authorize(query).Location()
				if location == nil || !strings.HasPrefix(location.String(), apptest.Callback) || location.Query().Get("state") != "st&te/1" {
					t.Fatalf("at %s", location)
				}
				var tokens oauth.TokenResponse
				if h.Redeem(client, location.Query().Get("code"), verifier, nil).JSON(t, &tokens); tokens.Scope != "mcp:read" {
					t.Errorf("scope %q", tokens.Scope)
				}
			})
		}
		query, _ := h.Authorization(client, nil)
		for _, path := range []string{"/oauth/par", "/mcp/par", "/par"} {
			if a := h.Form(path, query); a.StatusCode != http.StatusCreated {
				t.Errorf("%s: %d %s", path, a.StatusCode, a.Text)
			}
		}
		if a := h.PostJSON("/oauth/par", object(query.Encode())); a.StatusCode != http.StatusCreated { // R402
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	}, apptest.Dev)
}

// Attack 17: a reference works once, for the client that pushed it, and not for long.
func TestAPushedRequestIsSpentOnce(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client, other := h.Register(), h.Register()
		open := func(client, reference string) apptest.Answer {
			return h.authorize(with("client_id", client, "request_uri", reference))
		}
		expired, _ := h.push(client, nil)
		h.SQL(`UPDATE pushed_request SET expires_at = created_at`)
		shown(t, open(client, expired), http.StatusBadRequest) // or swept meanwhile
		h.SQL(`DELETE FROM pushed_request`)
		reference, _ := h.push(client, nil)
		h.unchanged(t, func() {
			shown(t, open(other, reference), http.StatusBadRequest)
			shown(t, open("", reference), http.StatusBadRequest)
			shown(t, open(client, reference[:len(reference)-1]+"_"), http.StatusBadRequest)
			shown(t, open(client, reference+"\x00"), http.StatusBadRequest)
			shown(t, open(client, "urn:ietf:params:oauth:request_uri:"), http.StatusBadRequest)
			a := h.authorize(url.Values{"client_id": {client}, "request_uri": {reference, reference}})
			shown(t, a, http.StatusBadRequest)
		})
		answers := apptest.Together(32, func(int) apptest.Answer { return open(client, reference) }) // the twin, and all that come with it
		if got := statuses(answers); got[http.StatusSeeOther] != 1 || got[http.StatusBadRequest] != 31 {
			t.Errorf("%v", got)
		}
		h.unchanged(t, func() { shown(t, open(client, reference), http.StatusBadRequest) })
		gone, _ := h.push(client, nil)
		h.SQL(`UPDATE client SET redirect_uris = 'https://c.example/cb' WHERE id = $1`, client)
		shown(t, open(client, gone), http.StatusBadRequest)
	}, apptest.Dev)
}

// Attacks 14, 17: what would be refused at the authorization endpoint is refused
// when it is pushed, and nothing is kept of it.
func TestAPushedRequestIsJudged(t *testing.T) {
	h := start(t, apptest.Dev)
	client, secret := h.Register(), h.confidential("client_secret_basic")
	good, _ := h.Authorization(client, nil)
	for name, row := range map[string]struct {
		change url.Values
		code   string
	}{
		"no client":                       {without("client_id"), oauth.InvalidClient},
		"an unknown client":               {with("client_id", "x"), oauth.InvalidClient},
		"attack 17: without the secret":   {with("client_id", secret.ClientID), oauth.InvalidClient},
		"a wrong secret":                  {with("client_id", secret.ClientID, "client_secret", "cs_x"), oauth.InvalidClient},
		"a secret of a client with none":  {with("client_secret", secret.ClientSecret), oauth.InvalidClient},
		"another redirect URI":            {with("redirect_uri", "https://evil.example/cb"), oauth.InvalidRequest},
		"no redirect URI":                 {without("redirect_uri"), oauth.InvalidRequest},
		"no challenge":                    {without("code_challenge"), oauth.InvalidRequest},
		"a scope with a quote":            {with("scope", `"`), oauth.InvalidScope},
		"no scope that exists":            {with("scope", "photos:read"), oauth.InvalidScope},
		"an unknown resource":             {with("resource", "https://evil.example/mcp"), oauth.InvalidTarget},
		"a reference in it":               {with("request_uri", "urn:ietf:params:oauth:request_uri:x"), oauth.InvalidRequest},
		"attack 14: a request object":     {with("request", "eyJ"), oauth.RequestNotSupported},
		"attack 14: a request elsewhere":  {with("request_uri", "https://evil.example/"), oauth.InvalidRequest},
		"another response type":           {with("response_type", "token"), oauth.UnsupportedResponseType},
		"a parameter twice":               {url.Values{"state": {"a", "b"}}, oauth.InvalidRequest},
		"attack 15: a state of over 1 KB": {with("state", strings.Repeat("s", 1025)), oauth.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			form := url.Values{}
			for _, values := range []url.Values{good, row.change} {
				for k, v := range values {
					form[k] = v
				}
			}
			h.unchanged(t, func() { refused(t, h.Form("/oauth/par", form), row.code) })
		})
	}
	h.unchanged(t, func() {
		form, _ := h.Authorization(client, with("x", strings.Repeat("x", 8<<10)))
		if a := h.Form("/oauth/par", form); a.StatusCode != http.StatusRequestEntityTooLarge || a.Error() != oauth.InvalidRequest {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if a := h.Get("/oauth/par?" + good.Encode()); a.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
	})
	form, _ := h.Authorization(secret.ClientID, without("client_id"))
	if a := h.Form("/oauth/par", form, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(secret.ClientID+":"+secret.ClientSecret))); a.StatusCode != http.StatusCreated { // the twin
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	form.Set("client_id", secret.ClientID)
	form.Set("client_secret", secret.ClientSecret)
	if a := h.Form("/oauth/par", form); a.StatusCode != http.StatusCreated || strings.Contains(h.Dump(), strings.Split(secret.ClientSecret, ".")[1]) {
		t.Error("the secret is kept")
	}
}
