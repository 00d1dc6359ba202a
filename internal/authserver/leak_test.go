package authserver_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R1305, R1402, attack 126: after everything that can happen to them, no secret is
// in the log, in the database or in a file, in any spelling. The log may hold what
// is printed on purpose: the setup code and the mailed links.
func TestNoSecretIsKeptInTheClear(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		printed, secrets := h.live(t)
		dump := h.Dump() + h.Files()
		for name, secret := range secrets {
			if where := apptest.Find(secret, h.Log.String()); where != "" {
				t.Errorf("the log holds the %s: %s", name, where)
			}
		}
		maps.Copy(secrets, printed)
		for name, secret := range secrets {
			if where := apptest.Find(secret, dump); where != "" {
				t.Errorf("the database holds the %s: %s", name, where)
			}
		}
		if apptest.Find("Leak test app", dump) == "" || apptest.Find("the control", base64.StdEncoding.EncodeToString([]byte("xthe control"))) == "" || apptest.Find("cs_1.the secret part", "the secret part") == "" {
			t.Error("the search finds nothing at all")
		}
	})
}

// live does all there is to do, honest and not, and returns the secrets it saw.
func (h house) live(t *testing.T) (printed, secrets map[string]string) {
	printed, secrets = map[string]string{}, map[string]string{}
	b := h.Browser()
	printed["setup code"] = strings.TrimSpace(h.Log.Wait("  code  ", nil))
	b.SetUp()
	printed["sign-in link"] = strings.TrimSpace(strings.TrimPrefix(b.Link(), h.URL+"/login/link?token="))
	for name, value := range b.Cookies {
		secrets["cookie "+name] = value
	}

	client := h.register(`{"client_name":"Leak test app","redirect_uris":["` + apptest.Callback + `"],"token_endpoint_auth_method":"client_secret_post"}`)
	secrets["client secret"], secrets["registration token"] = client.ClientSecret, client.RegistrationToken
	query, verifier := h.Authorization(client.ClientID, nil)
	form := h.asked(b, query)
	secrets["form token"] = form.Get("csrf")
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil {
		t.Fatal("no way back")
	}
	code := target.Query().Get("code")
	secrets["code"], secrets["verifier"] = code, verifier
	withSecret := url.Values{"client_secret": {client.ClientSecret}}
	var tokens, refreshed oauth.TokenResponse
	h.Redeem(client.ClientID, code, verifier, withSecret).JSON(t, &tokens)
	refresh := with("grant_type", "refresh_token", "client_id", client.ClientID, "client_secret", client.ClientSecret, "refresh_token", tokens.RefreshToken)
	h.Form("/oauth/token", refresh).JSON(t, &refreshed)
	secrets["access token"], secrets["refresh token"] = tokens.AccessToken, tokens.RefreshToken
	secrets["second access token"], secrets["second refresh token"] = refreshed.AccessToken, refreshed.RefreshToken
	secrets["signature of the access token"] = tokens.AccessToken[strings.LastIndex(tokens.AccessToken, ".")+1:]
	if !h.works(tokens.AccessToken) {
		t.Fatal("the token does not work")
	}

	// Each secret goes wherever it does not belong; no answer repeats it.
	for name, secret := range secrets {
		for where, a := range map[string]apptest.Answer{
			"client_id at the token endpoint": h.Form("/oauth/token", with("grant_type", "refresh_token", "client_id", secret)),
			"grant_type":                      h.Form("/oauth/token", with("grant_type", "x", "client_id", client.ClientID, "client_secret", secret)),
			"code":                            h.Form("/oauth/token", with("grant_type", "authorization_code", "client_id", client.ClientID, "client_secret", client.ClientSecret, "code", secret)),
			"token to revoke":                 h.Form("/oauth/revoke", with("client_id", client.ClientID, "client_secret", secret, "token", secret)),
			"registration token":              h.Get("/registration/"+client.ClientID, "Authorization: Bearer reg-"+secret),
			"bearer":                          h.Tool(secret+"x", "whoami", "{}"),
			"query of the MCP endpoint":       h.PostJSON("/mcp?access_token="+url.QueryEscape(secret), "{}"),
			"client_id of an authorization":   h.authorize(authorization(h, secret, nil)),
			"handle":                          h.Get("/consent/" + url.PathEscape(secret)),
			"path":                            h.Get("/" + url.PathEscape(secret)),
			"name of a tool":                  h.PostJSON("/mcp/tool/whoami", `{"x":"`+secret+`"}`),
		} {
			if a.StatusCode >= http.StatusInternalServerError {
				t.Errorf("%s as %s: %d", name, where, a.StatusCode)
			}
			if apptest.Find(secret, a.Text+fmt.Sprint(a.Header)) != "" {
				t.Errorf("%s as %s is repeated: %d %s", name, where, a.StatusCode, a.Text)
			}
		}
	}
	h.Redeem(client.ClientID, code, verifier, withSecret) // a replay
	h.signIn(b, apptest.Owner)                            // another session
	printed["second sign-in link"] = strings.TrimSpace(strings.TrimPrefix(b.Link(), h.URL+"/login/link?token="))
	secrets["second session"] = b.Cookies["__Host-gatehouse-session"]
	fields := apptest.Fields(b.Open("/login?switch=1").Text)
	if a := b.Submit("/logout", fields); a.StatusCode != http.StatusOK {
		t.Errorf("sign-out: %d %s", a.StatusCode, a.Text)
	}
	for name, secret := range secrets {
		if len(secret) < 20 {
			t.Errorf("the %s is %q", name, secret)
		}
	}
	return printed, secrets
}
