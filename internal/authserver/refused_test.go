package authserver_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Every refusal of somebody who is not known is counted, once and with the reason
// that the answer does not tell; a replay has an event of its own.
func TestRefusalsAreCountedWithTheirReason(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client, other, secret := h.Register(), h.Register(), h.confidential("client_secret_post")
		code, verifier := h.Code(client, nil)
		wrong := code[:len(code)-43] + strings.Repeat("A", 43)
		h.Redeem(client, "code", verifier, nil)
		h.Redeem(client, wrong, verifier, nil)
		h.Redeem(other, code, verifier, nil)
		h.Redeem(client, code, oauth.NewVerifier(), nil)
		h.Redeem(client, code, verifier, with("redirect_uri", "http://127.0.0.1:1/callback"))
		h.Redeem(secret.ClientID, code, verifier, nil)
		h.Redeem("nobody", code, verifier, nil)
		h.Redeem(client, code, verifier, nil)
		h.Redeem(client, code, verifier, nil) // the replay
		h.Refresh(client, wrong)
		h.authorize(authorization(h, client, without("code_challenge")))
		h.authorize(authorization(h, "nobody", nil))
		h.authorize(authorization(h, client, with("redirect_uri", "http://127.0.0.1/other")))
		h.PostJSON("/register", `{"redirect_uris":["javascript:alert(1)"]}`)
		h.Form("/mcp/revoke", with("client_id", client))
		h.Form("/consent", with("request", "x"), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
		h.Form("/login", with("email", "x"), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
		h.Get("/mcp")
		h.Do(h.Request(http.MethodPost, "/mcp", "{}", "Origin: https://evil.example"))

		want := map[string]int{
			"/oauth/token refused: invalid_grant, it does not have the form of a code": 1,
			"/oauth/token refused: invalid_grant, its secret is wrong":                 1,
			"/oauth/token refused: invalid_grant, it was made for another client":      1,
			"/oauth/token refused: invalid_grant, the verifier is wrong":               1,
			"/oauth/token refused: invalid_grant, it was sent to another redirect URI": 1,
			"/oauth/token refused: invalid_client, its secret is wrong":                1,
			"/oauth/token refused: invalid_client, there is no such client":            1,
			"/oauth/token refused: invalid_grant, it does not have the form of one":    1,
			"GET /oauth/authorize refused: invalid_request":                            1,
			"GET /oauth/authorize refused: CLIENT_UNKNOWN":                             1,
			"GET /oauth/authorize refused: REDIRECT_MISMATCH":                          1,
			"/register refused: invalid_redirect_uri":                                  1,
			"/mcp/revoke refused: invalid_request":                                     1,
			"POST /consent refused: FORM_FOREIGN":                                      1,
			"POST /login refused: FORM_FOREIGN":                                        1,
			"no access token":                                                          1,
			"call from a web page that may not":                                        1,
		}
		if err := h.Stop(); err != nil { // the counts are written at the end, and once a minute
			t.Error(err)
		}
		got := h.Strangers()
		for reason, n := range got {
			if want[reason] != n {
				t.Errorf("%s: %d, want %d", reason, n, want[reason])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%v", got)
		}
		if n := h.events("token.replay"); n != 1 {
			t.Errorf("%d replays", n)
		}
	}, apptest.Dev)
}
