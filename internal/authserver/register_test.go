package authserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// R201, R204, R205, R206, R207, C02, C03, C04: what real clients send is accepted, and
// the answer says what was granted.
func TestRegistrationAnswersWhatWasGranted(t *testing.T) {
	h := start(t, apptest.Dev)
	const redirects = `"redirect_uris":["https://b.example/cb","http://localhost:3001/callback"]`
	public := func(r oauth.Registration) bool {
		return r.TokenAuthMethod == "none" && r.ClientSecret == "" && r.SecretExpiresAt == nil
	}
	both := []string{"authorization_code", "refresh_token"}
	for name, row := range map[string]struct {
		body string
		ok   func(oauth.Registration) bool
	}{
		"R205: public is the default": {`{` + redirects + `}`, func(r oauth.Registration) bool {
			return public(r) && slices.Equal(r.GrantTypes, both) && slices.Equal(r.ResponseTypes, []string{"code"}) &&
				slices.Equal(r.RedirectURIs, []string{"https://b.example/cb", "http://localhost:3001/callback"}) && r.ClientIDIssuedAt > 0
		}},
		"R205: public when asked": {`{` + redirects + `,"token_endpoint_auth_method":"none"}`, public},
		"R206: a secret when asked, in the body": {`{` + redirects + `,"token_endpoint_auth_method":"client_secret_post"}`, func(r oauth.Registration) bool {
			return r.TokenAuthMethod == "client_secret_post" && strings.HasPrefix(r.ClientSecret, "cs_") && r.SecretExpiresAt != nil && *r.SecretExpiresAt == 0
		}},
		"R206: a secret when asked, in the header": {`{` + redirects + `,"token_endpoint_auth_method":"client_secret_basic"}`, func(r oauth.Registration) bool {
			return r.TokenAuthMethod == "client_secret_basic" && strings.HasPrefix(r.ClientSecret, "cs_")
		}},
		"a method that is not served becomes none": {`{` + redirects + `,"token_endpoint_auth_method":"tls_client_auth"}`, public},
		"attack 50: grants that are not served are dropped and missing from the answer": {`{` + redirects + `,"grant_types":["authorization_code","client_credentials","password","implicit"]}`, func(r oauth.Registration) bool {
			return slices.Equal(r.GrantTypes, []string{"authorization_code"})
		}},
		"attack 50: response types that are not served are dropped": {`{` + redirects + `,"response_types":["code","token","id_token"]}`, func(r oauth.Registration) bool {
			return slices.Equal(r.ResponseTypes, []string{"code"})
		}},
		"attack 58: unknown members are ignored": {`{` + redirects + `,"resource":"x","vendor":{"deep":[1,{"a":null}]},"contacts":["a@b.example"],"jwks":{"keys":[]}}`, public},
		"R203: further metadata": {`{` + redirects + `,"client_name":"App","client_uri":"https://b.example","logo_uri":"https://b.example/l.png","scope":"mcp:tools offline_access","application_type":"native","software_id":"s","contacts":["a@b.example"]}`, func(r oauth.Registration) bool {
			return r.ClientName == "App" && r.Scope == "mcp:tools offline_access" && r.ApplicationType == "native" && r.LogoURI == "https://b.example/l.png" &&
				r.SoftwareID == "s" && slices.Equal(r.Contacts, []string{"a@b.example"})
		}},
		"null is absent":           {`{` + redirects + `,"client_name":null,"jwks":null,"jwks_uri":null,"grant_types":null,"contacts":null}`, public},
		"attack 49: public keys":   {`{` + redirects + `,"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b"},{"kty":"RSA","n":"a","e":"AQAB"}]}}`, public},
		"keys at a public address": {`{` + redirects + `,"jwks_uri":"https://b.example/jwks"}`, public},
		"what only the server may say is not taken": {`{` + redirects + `,"client_id":"mine","client_secret":"mine","client_secret_expires_at":7,"registration_access_token":"mine","client_id_issued_at":1}`, func(r oauth.Registration) bool {
			return public(r) && r.ClientID != "mine" && r.RegistrationToken != "mine" && r.ClientIDIssuedAt > 1
		}},
		"R216: schemes of editors":                 {`{"redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback","vscode://vscode.github-authentication/did-authenticate"]}`, public},
		"R216: loopback with port, path and query": {`{"redirect_uris":["http://127.0.0.1:8080/cb?tenant=1","http://[::1]/cb","http://localhost"]}`, public},
		"twenty redirect URIs":                     {registration(slices.Repeat([]string{"https://b.example/cb"}, 20)...), public},
		"64 KB":                                    {`{` + redirects + `,"padding":"` + strings.Repeat("x", 64<<10-120) + `"}`, public},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.PostJSON("/oauth/register", row.body)
			var r oauth.Registration
			a.JSON(t, &r)
			if a.StatusCode != http.StatusCreated || a.Header.Get("Cache-Control") != "no-store" || !row.ok(r) {
				t.Errorf("%d %.1000s", a.StatusCode, a.Text)
			}
			if uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`); !uuid.MatchString(r.ClientID) {
				t.Errorf("R207: client_id %q", r.ClientID)
			}
		})
	}
}

// registration is a body with these redirect URIs.
func registration(redirects ...string) string {
	body, _ := json.Marshal(map[string]any{"redirect_uris": redirects}) // strings always marshal
	return string(body)
}

// R215, R217, attacks 7, 8, 48–51: what is refused is refused whole.
func TestRegistrationRefuses(t *testing.T) {
	h := start(t, apptest.Dev)
	const ok = `"redirect_uris":["https://b.example/cb"]`
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	rows := map[string]struct{ body, code string }{
		"R217: no redirect_uris":               {`{}`, oauth.InvalidRedirectURI},
		"R217: empty redirect_uris":            {`{"redirect_uris":[]}`, oauth.InvalidRedirectURI},
		"attack 8: twenty-one":                 {registration(slices.Repeat([]string{"https://b.example/cb"}, 21)...), oauth.InvalidRedirectURI},
		"attack 48: ten thousand":              {registration(slices.Repeat([]string{"h"}, 10_000)...), oauth.InvalidRedirectURI},
		"attack 48: 65 KB":                     {`{` + ok + `,"x":"` + strings.Repeat("x", 65<<10) + `"}`, oauth.InvalidClientMetadata},
		"over 8 KB of what is kept":            {registration(slices.Repeat([]string{"https://b.example/" + strings.Repeat("x", 2000)}, 5)...), oauth.InvalidClientMetadata},
		"attack 48: an array":                  {`[{` + ok + `}]`, oauth.InvalidClientMetadata},
		"attack 48: null":                      {`null`, oauth.InvalidClientMetadata},
		"attack 48: a string":                  {`"x"`, oauth.InvalidClientMetadata},
		"attack 48: nothing":                   {``, oauth.InvalidClientMetadata},
		"attack 48: cut off":                   {`{` + ok, oauth.InvalidClientMetadata},
		"attack 48: two objects":               {`{` + ok + `}{}`, oauth.InvalidClientMetadata},
		"attack 48: redirect_uris a string":    {`{"redirect_uris":"https://b.example/cb"}`, oauth.InvalidClientMetadata},
		"attack 48: redirect_uris an object":   {`{"redirect_uris":{"0":"https://b.example/cb"}}`, oauth.InvalidClientMetadata},
		"attack 48: redirect_uris of numbers":  {`{"redirect_uris":[1]}`, oauth.InvalidClientMetadata},
		"attack 48: client_name a number":      {`{` + ok + `,"client_name":1}`, oauth.InvalidClientMetadata},
		"attack 48: grant_types a string":      {`{` + ok + `,"grant_types":"authorization_code"}`, oauth.InvalidClientMetadata},
		"attack 48: redirect_uris nested":      {`{"redirect_uris":` + nested(1000) + `}`, oauth.InvalidClientMetadata},
		"attack 48: nested beyond reason":      {`{` + ok + `,"x":` + nested(20_000) + `}`, oauth.InvalidClientMetadata},
		"attack 48: a member twice":            {`{` + ok + `,` + ok + `}`, oauth.InvalidClientMetadata},
		"attack 48: text that is not UTF-8":    {`{` + ok + `,"client_name":"` + "\xff" + `"}`, oauth.InvalidClientMetadata},
		"attack 50: only client_credentials":   {`{` + ok + `,"grant_types":["client_credentials"]}`, oauth.InvalidClientMetadata},
		"attack 50: only refresh_token":        {`{` + ok + `,"grant_types":["refresh_token"]}`, oauth.InvalidClientMetadata},
		"attack 51: logo_uri with javascript":  {`{` + ok + `,"logo_uri":"javascript:alert(1)"}`, oauth.InvalidClientMetadata},
		"attack 51: client_uri with data":      {`{` + ok + `,"client_uri":"data:text/html,x"}`, oauth.InvalidClientMetadata},
		"attack 51: tos_uri with http":         {`{` + ok + `,"tos_uri":"http://b.example"}`, oauth.InvalidClientMetadata},
		"attack 51: policy_uri without a host": {`{` + ok + `,"policy_uri":"https:///x"}`, oauth.InvalidClientMetadata},
		"a scope that cannot be one":           {`{` + ok + `,"scope":"a\"b"}`, oauth.InvalidClientMetadata},
		"attack 51: a localized logo":          {`{` + ok + `,"logo_uri#fr":"javascript:alert(1)"}`, oauth.InvalidClientMetadata},
		"attack 51: a localized policy, http":  {`{` + ok + `,"policy_uri#x":"http://b.example"}`, oauth.InvalidClientMetadata},
		"attack 51: a localized name, number":  {`{` + ok + `,"client_name#de":1}`, oauth.InvalidClientMetadata},
		"attack 51: a user in client_uri":      {`{` + ok + `,"client_uri":"https://b.example@evil.example"}`, oauth.InvalidClientMetadata},
		"attack 51: a long logo_uri":           {`{` + ok + `,"logo_uri":"https://b.example/` + strings.Repeat("x", 2048) + `"}`, oauth.InvalidClientMetadata},
		"attack 49: a private key":             {`{` + ok + `,"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b","d":"c"}]}}`, oauth.InvalidClientMetadata},
		"attack 49: a symmetric key":           {`{` + ok + `,"jwks":{"keys":[{"kty":"oct","k":"a"}]}}`, oauth.InvalidClientMetadata},
		"attack 49: a symmetric key, no k":     {`{` + ok + `,"jwks":{"keys":[{"kty":"oct"}]}}`, oauth.InvalidClientMetadata},
		"attack 49: a key of no kind":          {`{` + ok + `,"jwks":{"keys":[{}]}}`, oauth.InvalidClientMetadata},
		"attack 49: jwks that are none":        {`{` + ok + `,"jwks":[]}`, oauth.InvalidClientMetadata},
		"attack 49: jwks and jwks_uri":         {`{` + ok + `,"jwks":{"keys":[]},"jwks_uri":"https://b.example/jwks"}`, oauth.InvalidClientMetadata},
		"attack 49: jwks_uri with http":        {`{` + ok + `,"jwks_uri":"http://b.example/jwks"}`, oauth.InvalidClientMetadata},
		"attack 49: jwks_uri a number":         {`{` + ok + `,"jwks_uri":1}`, oauth.InvalidClientMetadata},
		"application_type unknown":             {`{` + ok + `,"application_type":"toaster"}`, oauth.InvalidClientMetadata},
		"response_types without code":          {`{` + ok + `,"response_types":["token"]}`, oauth.InvalidClientMetadata},
		"contacts a string":                    {`{` + ok + `,"contacts":"a@b.example"}`, oauth.InvalidClientMetadata},
		"a long contact":                       {`{` + ok + `,"contacts":["` + strings.Repeat("x", 256) + `"]}`, oauth.InvalidClientMetadata},
		"many contacts":                        {`{` + ok + `,"contacts":["a"` + strings.Repeat(`,"a"`, 20) + `]}`, oauth.InvalidClientMetadata},
		"a long software_version":              {`{` + ok + `,"software_version":"` + strings.Repeat("x", 256) + `"}`, oauth.InvalidClientMetadata},
		"a NUL in software_id":                 {`{` + ok + `,"software_id":"\u0000"}`, oauth.InvalidClientMetadata},
	}
	for _, host := range []string{"localhost", "a.localhost", "LOCALHOST.", "127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "192.168.1.1", "[fd00::1]", "[::ffff:10.0.0.1]", "0.0.0.0", "2130706433", "127.1", "0x7f.0.0.1", "printer.local", "metadata.google.internal"} {
		rows["attack 49: jwks_uri at "+host] = struct{ body, code string }{`{` + ok + `,"jwks_uri":"https://` + host + `/jwks"}`, oauth.InvalidClientMetadata}
	}
	for i, uri := range []string{
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\tscript:alert(1)", "\x01javascript:alert(1)",
		"data:text/html,x", "file:///etc/passwd", "vbscript:x", "blob:https://b.example/x", "about:blank",
	} {
		rows[fmt.Sprintf("attack 7: %q %d", uri, i)] = struct{ body, code string }{registration(uri), oauth.InvalidRedirectURI}
	}
	for _, uri := range []string{
		"", "/cb", "b.example/cb", "https://", "https:///cb", "https://b.example/cb#frag", "https://b.example/cb#", "https://*.b.example/cb", "http://b.example/cb", "http://127.0.0.2/cb",
		"http://127.0.0.1.evil.example/cb", "http://localhost.evil.example/cb", "https://user@b.example/cb", `https://b.example\@evil.example/cb`, "https://b.example/" + strings.Repeat("x", 2049),
		"https://b.example/cb\r\nX: y", "https://b.example/cb\nhttps://evil.example/cb", "unknown-app://cb",
	} {
		rows[fmt.Sprintf("attack 8: %.60q", uri)] = struct{ body, code string }{registration("https://b.example/cb", uri), oauth.InvalidRedirectURI}
	}
	for _, parameter := range []string{"code=x", "state=x", "iss=x", "error=x", "a=1&st%61te=x", "error_description", "a;state=x"} {
		rows["a parameter of the answer: "+parameter] = struct{ body, code string }{registration("https://b.example/cb?" + parameter), oauth.InvalidRedirectURI}
	}
	before := h.trace()
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { refused(t, h.PostJSON("/oauth/register", row.body), row.code) })
	}
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"} {
		t.Run("content type "+media, func(t *testing.T) {
			refused(t, h.Do(h.Request(http.MethodPost, "/oauth/register", `{`+ok+`}`, "Content-Type: "+media)), oauth.InvalidClientMetadata)
		})
	}
	if after := h.trace(); after != before {
		t.Errorf("something was kept:\n%s", after)
	}
	h.register(`{` + ok + `}`) // the twin
}

// Attack 52: of a claimed name only what can be shown is kept.
func TestNamesAreCleaned(t *testing.T) {
	h := start(t, apptest.Dev)
	for asked, want := range map[string]string{
		`Claude`:                         "Claude",
		`  Claude  `:                     "Claude",
		"Cla\u200bude\u200d\ufeff":       "Claude",
		"\u202eedualC\u202c\u2066":       "edualC",
		"a\nb\tc\x00d\x1b[31m":           "abcd[31m",
		`<script>alert(1)</script>`:      `<script>alert(1)</script>`, // pages escape
		strings.Repeat("ä", 300):         strings.Repeat("ä", 200),
		"\u200b\u200b":                   "",
		"日本語のアプリ":                        "日本語のアプリ",
		"\U000e0041\U000e0042 invisible": "invisible",
	} {
		body, _ := json.Marshal(map[string]any{"redirect_uris": []string{apptest.Callback}, "client_name": asked}) // strings always marshal
		if got := h.register(string(body)).ClientName; got != want {
			t.Errorf("%q became %q, want %q", asked, got, want)
		}
	}
}

// Attack 51: localized members are judged like the others; none of them is served,
// so none comes back.
func TestLocalizedMembersAreDropped(t *testing.T) {
	h := start(t, apptest.Dev)
	a := h.PostJSON("/oauth/register", `{"redirect_uris":["https://b.example/cb"],"client_uri#ja":"https://b.example/ja","client_name#de":"Beispiel","Logo_URI":"javascript:alert(2)"}`)
	if a.StatusCode != http.StatusCreated || strings.Contains(a.Text, "javascript") || strings.Contains(a.Text, "#") {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if n := h.Count(`SELECT count(*) FROM client WHERE metadata LIKE '%javascript%'`); n > 0 {
		t.Error("it was kept")
	}
}
