package oauth

import (
	"net/url"
	"strings"
	"testing"
)

// Attacks 97 and 99: what cannot be the address of a document is not looked up.
func TestAddressOfADocument(t *testing.T) {
	for id, want := range map[string]string{
		"https://app.example/client.json": "app.example", "https://app.example/": "app.example", "https://app.example:8443/c": "app.example",
		"https://app.example/a/b?v=1": "app.example", "https://xn--bcher-kva.example/c": "xn--bcher-kva.example", "https://app.example/a/..b/.c./...": "app.example",
		"https://app.example/%41": "app.example",
	} {
		if host, fault := CheckDocument(id); fault != nil || host != want {
			t.Errorf("%s: %q, %v", id, host, fault)
		}
	}
	for _, id := range []string{
		"", "x", "http://app.example/c", "HTTPS://app.example/c", "ftp://app.example/c", "https:app.example/c", "https:/app.example/c", "https:///c", "https://",
		"https://app.example", "https://app.example?x", "https://app.example/c#f", "https://app.example/c#", "https://user@app.example/c", "https://user:p@app.example/c", "https://@app.example/c",
		"https://app.example/./c", "https://app.example/../c", "https://app.example/a/..", "https://app.example/%2e%2e/c", "https://app.example/%2E./c", "https://app.example/.%2e", "https://app.example/%2e",
		`https://app.example\c`, `https://app.example/\c`, "https://app.example/c\n", "https://app.example/c\x00", "https://app.example/ c", "https://app.example/\u202e", " https://app.example/c",
		"https://APP.example/c", "https://app.example./c", "https://.example/c", "https://app..example/c", "https://app.example:/c", "https://app.example:x/c", "https://app%2eexample/c",
		"https://localhost/c", "https://localhost./c", "https://intranet/c", "https://127.0.0.1/c", "https://[::1]/c", "https://[::ffff:127.0.0.1]/c", "https://2130706433/c", "https://0x7f.1/c", "https://017700000001/c",
		"https://0x7f000001/c", "https://127.1/c", "https://10.0.0.1:8443/c", "https://a.0x7f/c", "https://①②⑦.⓪.⓪.①/c", "https://app.example/" + strings.Repeat("x", 1024),
	} {
		if host, fault := CheckDocument(id); fault == nil {
			t.Errorf("%q is taken, at %q", id, host)
		}
	}
}

const documentID = "https://app.example/client.json"

func document(members string) []byte {
	return []byte(`{"client_id":"` + documentID + `",` + members + `}`)
}

const honest = `"client_name":"App","redirect_uris":["http://127.0.0.1/cb"]`

// Attack 101: a document is judged in every member, also those that nothing uses.
func TestDocumentIsJudged(t *testing.T) {
	for name, body := range map[string][]byte{
		"no object": []byte(`[]`), "half of one": document(honest)[:40], "another id": []byte(`{"client_id":"https://app.example/Client.json",` + honest + `}`),
		"a slash more": []byte(`{"client_id":"` + documentID + `/",` + honest + `}`), "another host": []byte(`{"client_id":"https://evil.example/client.json",` + honest + `}`), "no id": []byte(`{` + honest + `}`),
		"an id twice": document(`"client_id":"` + documentID + `",` + honest), "no name": document(`"redirect_uris":["http://127.0.0.1/cb"]`), "an empty name": document(`"client_name":" ","redirect_uris":["http://127.0.0.1/cb"]`),
		"no redirects": document(`"client_name":"App"`), "an unsafe second redirect": document(`"client_name":"App","redirect_uris":["http://127.0.0.1/cb","javascript:alert(1)"]`),
		"a secret": document(honest + `,"client_secret":"x"`), "a secret that expires": document(honest + `,"client_secret_expires_at":0`),
		"a secret in the body": document(honest + `,"token_endpoint_auth_method":"client_secret_post"`), "a secret in the header": document(honest + `,"token_endpoint_auth_method":"client_secret_basic"`),
		"a signature with a secret": document(honest + `,"token_endpoint_auth_method":"client_secret_jwt"`),
		"a private key":             document(honest + `,"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"x","d":"x"}]}`), "a shared key": document(honest + `,"jwks":{"keys":[{"kty":"oct","k":"x"}]}`),
		"keys at an inner address": document(honest + `,"jwks_uri":"https://127.0.0.1/jwks"`), "an unsafe logo": document(honest + `,"logo_uri":"javascript:alert(1)"`), "a logo over http": document(honest + `,"logo_uri":"http://app.example/x"`),
	} {
		if _, fault := ParseDocument(documentID, body, nil); fault == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Attack 102: what honest clients say is understood, also where it is more than we
// need.
func TestHonestDocuments(t *testing.T) {
	for name, members := range map[string]string{
		"plain": honest, "more grants": honest + `,"grant_types":["authorization_code","refresh_token","urn:ietf:params:oauth:grant-type:device_code","urn:example:new"]`,
		"methods listed": honest + `,"token_endpoint_auth_methods_supported":["none","private_key_jwt"]`, "vendor members": honest + `,"x_vendor":{"a":[1,2]},"mcp":true`,
		"null members": honest + `,"client_secret":null,"jwks":null`, "none said": honest + `,"token_endpoint_auth_method":"none"`, "types": honest + `,"application_type":"native","response_types":["code"]`,
	} {
		r, fault := ParseDocument(documentID, document(members), nil)
		if fault != nil || r.TokenAuthMethod != "none" {
			t.Errorf("%s: %q, %v", name, r.TokenAuthMethod, fault)
		}
	}
	r, fault := ParseDocument(documentID, document(honest+`,"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"https://app.example/jwks"`), nil)
	if fault != nil || r.TokenAuthMethod != "private_key_jwt" {
		t.Errorf("%q, %v", r.TokenAuthMethod, fault)
	}
}

// Attack 101: access goes to the host that the person is shown, or stays on the
// person's computer.
func TestRedirectsAreAtHome(t *testing.T) {
	for _, ok := range [][]string{nil, {"https://app.example/cb"}, {"https://app.example:8443/cb"}, {"https://auth.app.example/cb", "http://127.0.0.1/cb", "http://localhost/cb", "cursor://x"}} {
		if fault := AtHome("app.example", ok); fault != nil {
			t.Errorf("%v: %v", ok, fault)
		}
	}
	for _, uri := range []string{"https://evil.example/cb", "https://app.example.evil.example/cb", "https://xapp.example/cb", "https://example/cb"} {
		if AtHome("app.example", []string{"https://app.example/cb", uri}) == nil {
			t.Errorf("%s is at home", uri)
		}
	}
}

// Nothing that is sent brings the readers down, and what they let pass keeps the
// rules.
func FuzzDocument(f *testing.F) {
	f.Add(documentID, document(honest))
	f.Add("https://app.example/%2e%2e/c", []byte(`{}`))
	f.Add("https://2130706433/", document(honest+`,"jwks":{"keys":[{"kty":"RSA"}]}`))
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		if host, fault := CheckDocument(id); fault == nil {
			u, err := url.Parse(id)
			if err != nil || u.Scheme != "https" || u.Hostname() != host || u.User != nil || u.Path == "" || strings.Contains(u.Path+"/", "/../") || isInner(id) && host != "" && !strings.HasSuffix(host, ".local") && !strings.HasSuffix(host, ".internal") && !strings.HasSuffix(host, ".localhost") {
				t.Errorf("%q passed as %q", id, host)
			}
		}
		if r, fault := ParseDocument(id, body, []string{"cursor"}); fault == nil {
			if r.ClientID != id || r.ClientSecret != "" || len(r.RedirectURIs) == 0 || strings.HasPrefix(r.TokenAuthMethod, "client_secret") {
				t.Errorf("%q passed: %+v", id, r)
			}
		}
	})
}
