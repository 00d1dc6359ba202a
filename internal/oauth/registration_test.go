package oauth

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

var editors = []string{"cursor", "vscode"}

// Attack 48: no metadata makes the parser fail otherwise than by an error, and what
// it accepts keeps the rules, also when it is sent again as it was understood.
func FuzzRegistration(f *testing.F) {
	for _, seed := range []string{
		`{"redirect_uris":["https://b.example/cb"],"client_name":"App","grant_types":["authorization_code"],"scope":"a b"}`,
		`{"redirect_uris":["http://127.0.0.1/cb","cursor://x/cb"],"logo_uri#de":"https://b.example/l","contacts":["a"]}`,
		`{"redirect_uris":["https://b.example/cb"],"jwks":{"keys":[{"kty":"EC","d":"x"}]}}`, `{"redirect_uris":["https://b.example/cb"],"jwks_uri":"https://2130706433/"}`,
		`{"redirect_uris":["javascript:alert(1)"]}`, `{"redirect_uris":[null]}`, `{"redirect_uris":[]}`, `{}`, `[]`, `null`, `{"a":1,"a":2}`, "", "{",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, given, fault := ParseRegistration(body, editors)
		if fault != nil {
			if fault.Code != InvalidClientMetadata && fault.Code != InvalidRedirectURI || r.RedirectURIs != nil || given != nil {
				t.Errorf("%v with %v", fault, r)
			}
			return
		}
		if len(r.RedirectURIs) == 0 || len(r.RedirectURIs) > maxRedirects || !slices.Contains(given, "redirect_uris") {
			t.Errorf("redirect URIs %q, given %q", r.RedirectURIs, given)
		}
		for _, uri := range r.RedirectURIs {
			if CheckRedirect(uri, editors) != nil || !MatchRedirect(r.RedirectURIs, uri) {
				t.Errorf("redirect URI %q", uri)
			}
		}
		for _, uri := range []string{r.LogoURI, r.ClientURI, r.TOSURI, r.PolicyURI} {
			if uri != "" && !strings.HasPrefix(strings.ToLower(uri), "https://") {
				t.Errorf("address %q", uri)
			}
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, _, fault := ParseRegistration(text, editors)
		if second, _ := json.Marshal(again); fault != nil || string(second) != string(text) {
			t.Errorf("%s became %s, %v", text, second, fault)
		}
	})
}
