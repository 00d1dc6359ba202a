package authn_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// tool calls whoami with these Authorization headers.
func (h house) tool(path string, authorization ...string) apptest.Answer {
	h.t.Helper()
	var headers []string
	for _, value := range authorization {
		headers = append(headers, "Authorization: "+value)
	}
	return h.RPC(path, "", "tools/call", `{"name":"whoami","arguments":{}}`, headers...)
}

// R501, R503, R514, C19, C20, attacks 40, 77, 80: one bearer token in the header
// opens, and nothing else does, wherever it stands.
func TestOnlyOneBearerTokenOpens(t *testing.T) {
	h := start(t, apptest.Dev)
	tokens, client := h.Token("", "")
	good := tokens.AccessToken
	code, _ := h.Code(client, nil)
	header, rest, _ := strings.Cut(good, ".")
	for how, a := range map[string]apptest.Answer{
		"Bearer": h.tool("/mcp", "Bearer "+good),
		"bearer": h.tool("/mcp", "bearer "+good),
		"BEARER": h.tool("/mcp", "BEARER "+good),
	} {
		if a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "dev@localhost") {
			t.Errorf("%s: %d %s", how, a.StatusCode, a.Text)
		}
	}
	for how, values := range map[string][]string{
		"attack 80: two headers":              {"Bearer " + good, "Bearer " + good},
		"attack 80: junk after it":            {"Bearer " + good + " x"},
		"attack 80: a list":                   {"Bearer " + good + ", Bearer " + good},
		"attack 80: two blanks":               {"Bearer  " + good},
		"attack 80: Basic carrying it":        {"Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+good))},
		"attack 80: Basic with it":            {"Basic " + good},
		"attack 80: DPoP":                     {"DPoP " + good},
		"no scheme":                           {good},
		"nothing after the scheme":            {"Bearer"},
		"an empty token":                      {"Bearer "},
		"attack 40: a refresh token":          {"Bearer " + tokens.RefreshToken},
		"attack 40: a code":                   {"Bearer " + code},
		"attack 77: a client id":              {"Bearer " + client},
		"attack 86: no signature":             {"Bearer " + good[:strings.LastIndex(good, ".")+1]},
		"attack 86: another header":           {"Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + rest},
		"attack 89: a header only":            {"Bearer " + header},
		"attack 89: a long one":               {"Bearer " + good + strings.Repeat("A", 9000)},
		"attack 89: dots":                     {"Bearer " + strings.Repeat(".", 5000)},
		"a session of a browser":              {"Bearer ses_00000000000000000000000000." + strings.Repeat("A", 43)},
		"a key of a kind that does not exist": {"Bearer sk_00000000000000000000000000"},
	} {
		a := h.tool("/mcp", values...)
		challenge := a.Header.Get("WWW-Authenticate")
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, `error="invalid_token"`) || !strings.Contains(challenge, `resource_metadata="`+h.URL+`/.well-known/oauth-protected-resource/mcp"`) {
			t.Errorf("%s: %d %s %s", how, a.StatusCode, challenge, a.Text)
		}
		if len(values[0]) > 40 && strings.Contains(a.Text+challenge, values[0][len(values[0])-30:]) {
			t.Errorf("%s is repeated in the answer", how)
		}
	}
	for how, a := range map[string]apptest.Answer{
		"nothing":                      h.tool("/mcp"),
		"attack 80: in the query":      h.tool("/mcp?access_token=" + good),
		"C20: as ?token=":              h.tool("/mcp?token=" + good),
		"attack 80: in a form":         h.Form("/mcp", url.Values{"access_token": {good}}),
		"attack 83: in another header": h.RPC("/mcp", "", "tools/list", "", "X-Authorization: Bearer "+good, "Proxy-Authorization: Bearer "+good),
		"attack 83: as a name":         h.RPC("/mcp", "", "tools/list", "", "X-User: usr_dev", "X-Forwarded-User: usr_dev", "X-User-Id: usr_dev"),
		"in a cookie":                  h.RPC("/mcp", "", "tools/list", "", "Cookie: access_token="+good+"; __Host-gatehouse-session="+good),
	} {
		if a.StatusCode != http.StatusUnauthorized && a.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d %s", how, a.StatusCode, a.Text)
		}
		if challenge := a.Header.Get("WWW-Authenticate"); a.StatusCode == http.StatusUnauthorized && strings.Contains(challenge, "error=") { // RFC 6750 §3.1
			t.Errorf("%s: %s", how, challenge)
		}
	}
}

// R420, R505, attack 75: a token opens the endpoint it was made for, and the
// challenge of another one names that one's own document.
func TestATokenIsForOneEndpoint(t *testing.T) {
	h := start(t, apptest.Dev)
	common, _ := h.Token("", "")
	control, _ := h.Token("", h.URL+"/s/gatehouse/mcp")
	list := func(path, token string) apptest.Answer { return h.RPC(path, token, "tools/list", "") }
	for token, own := range map[string]string{common.AccessToken: "/mcp", control.AccessToken: "/s/gatehouse/mcp"} {
		for _, path := range []string{"/mcp", "/s/gatehouse/mcp"} {
			a := list(path, token)
			if (a.StatusCode == http.StatusOK) != (path == own) {
				t.Errorf("a token for %s at %s: %d", own, path, a.StatusCode)
			}
			if path != own && !strings.Contains(a.Header.Get("WWW-Authenticate"), `resource_metadata="`+h.URL+`/.well-known/oauth-protected-resource`+path+`"`) {
				t.Errorf("%s: %s", path, a.Header.Get("WWW-Authenticate"))
			}
		}
	}
	// REST belongs to the common endpoint.
	if a := h.Get("/mcp/tools", "Authorization: Bearer "+control.AccessToken); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("REST: %d", a.StatusCode)
	}
}

// R503, attack 81: what is revoked is refused at once, although it was just found
// good.
func TestRevokedTokensAreRefusedAtOnce(t *testing.T) {
	h := start(t, apptest.Dev)
	tokens, client := h.Token("", "")
	bystander, _ := h.Token("", "")
	for range 3 {
		if a := h.tool("/mcp", "Bearer "+tokens.AccessToken); a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
	}
	h.Form("/oauth/revoke", url.Values{"client_id": {client}, "token": {tokens.AccessToken}})
	for range 3 {
		if a := h.tool("/mcp", "Bearer "+tokens.AccessToken); a.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%d %s", a.StatusCode, a.Text)
		}
	}
	if a := h.tool("/mcp", "Bearer "+bystander.AccessToken); a.StatusCode != http.StatusOK {
		t.Errorf("another token: %d %s", a.StatusCode, a.Text)
	}
}

// R510: a token is worth what its person is now.
func TestATokenNeedsAMember(t *testing.T) {
	h := start(t, apptest.Dev)
	tokens, _ := h.Token("", "")
	h.SQL(`UPDATE member SET status = 'suspended'`)
	if a := h.tool("/mcp", "Bearer "+tokens.AccessToken); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	h.SQL(`UPDATE member SET status = 'active', role = 'readonly'`)
	if a := h.tool("/mcp", "Bearer "+tokens.AccessToken); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "readonly") {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
}
