package attacks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 1, the redirect URI: whoever may choose it receives the code.
func TestRedirectURI(t *testing.T) { attack(t, redirectRows()) }

func redirectRows() []row {
	pubA := func(w *world) party { return w.pubA }
	pubB := func(w *world) party { return w.pubB }
	secC := func(w *world) party { return w.secC }
	rows := []row{
		{number: 1, name: "an address of the attacker", want: mismatch, build: asking(pubA, "https://evil.example/cb")},
		{number: 1, name: "the same, of a client with a secret", want: mismatch, build: asking(secC, "https://evil.example/cb")},
		{number: 1, name: "another client's", want: mismatch, build: asking(pubB, "https://c.example/cb")},
		{number: 1, name: "with markup", want: mismatch, build: asking(pubB, `https://evil.example/"><script>alert(1)</script>`)},
		{number: 1, name: "a javascript address", want: mismatch, build: asking(pubB, "javascript:alert(1)//https://b.example/cb")},
		{number: 5, name: "any port on a registered loopback host is welcome", story: func(w *world) {
			for _, registered := range []string{"http://127.0.0.1/cb", "http://127.0.0.1:9999/cb", "http://localhost/cb", "http://localhost:9999/cb", "http://[::1]/cb", "http://[::1]:9999/cb"} {
				p := w.register(registered)
				host, _, _ := strings.Cut(strings.TrimSuffix(registered, "/cb"), ":9999")
				for _, port := range []string{"", ":1", ":9999", ":50123", ":65535"} {
					p.redirect = host + port + "/cb"
					q, _ := w.query(p, nil)
					w.works(w.authorize(q))
				}
			}
		}},
		{number: 5, name: "a code goes to the port that asked, and is redeemed there", story: func(w *world) {
			p := w.register("http://127.0.0.1:9999/cb")
			p.redirect = "http://127.0.0.1:50123/cb"
			w.alive(w.tokens(w.alice, p, nil))
		}},
		{number: 11, name: "another one at the exchange", want: token(oauth.InvalidGrant, "it was sent to another redirect URI"), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			return w.redemption(w.pubA, code, verifier, with("redirect_uri", "http://localhost/cb")), w.redemption(w.pubA, code, verifier, nil)
		}},
		{number: 11, name: "none at the exchange is fine", story: func(w *world) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			w.works(w.redemption(w.pubA, code, verifier, without("redirect_uri")))
		}},
	}
	for _, uri := range []string{
		"https://b.example/cb/x", "https://b.example/cb/../evil", "https://b.example/other", "https://b.example/cb/", "https://b.example", "https://b.example/",
		"https://b.example//cb", "https://b.example/./cb", "https://b.example/cb;x", "https://b.example/cb%2fx", "https://b.example/cb%2e%2e/evil",
	} {
		rows = append(rows, row{number: 2, name: uri, want: mismatch, build: asking(pubB, uri)})
	}
	for _, uri := range []string{
		"https://b.example@evil.example/cb", `https://b.example\@evil.example/cb`, "https://user@b.example/cb", "https://b.example:x@evil.example/cb",
		"https://evil.example#@b.example/cb", "https://evil.example?@b.example/cb", "https://b.example%40evil.example/cb", "https://b.example%2f@evil.example/cb",
		"https://b.example.evil.example/cb", "https:/b.example/cb", "https:b.example/cb", "//b.example/cb", "https://b.example\t/cb", "https://b.example/cb\r\nX: y",
	} {
		rows = append(rows, row{number: 3, name: fmt.Sprintf("%q", uri), want: mismatch, build: asking(pubB, uri)})
	}
	for _, uri := range []string{
		"http://127.0.0.1@evil.example/cb", "http://user@127.0.0.1/cb", "http://user:x@127.0.0.1:80/cb", `http://127.0.0.1\@evil.example/cb`, "http://127.0.0.1:80@evil.example/cb",
		"http://127.0.0.1.evil.example/cb", "http://127.0.0.1evil.example/cb", "http://localhost.evil.example/cb", "http://127.0.0.1#@evil.example/cb",
	} {
		rows = append(rows, row{number: 3, name: fmt.Sprintf("%q", uri), want: mismatch, build: asking(pubA, uri)})
	}
	for _, uri := range []string{
		"https://b.example/%63b", "https://b.example/CB", "https://B.EXAMPLE/cb", "https://b.example./cb", "https://b.example:443/cb", "https://b.example/cb?x=1",
		"https://b.example/cb?", "https://b.example/cb#", "https://b.example/cb#x", "HTTPS://b.example/cb", "https://b.example/cb ", " https://b.example/cb", "https://b.exämple/cb",
		"https://xn--b.example/cb",
	} {
		rows = append(rows, row{number: 4, name: fmt.Sprintf("%q", uri), want: mismatch, build: asking(pubB, uri)})
	}
	for _, uri := range []string{
		"http://127.0.0.1/%63b", "http://127.0.0.1/CB", "http://127.0.0.1/cb?x=1", "http://LOCALHOST/cb", "http://localhost./cb", "http://127.1/cb", "http://0x7f.0.0.1/cb",
		"http://2130706433/cb", "http://127.0.0.1./cb", "HTTP://127.0.0.1/cb", "http://[::ffff:127.0.0.1]/cb", "http://0.0.0.0/cb",
	} {
		rows = append(rows, row{number: 4, name: uri, want: mismatch, build: asking(pubA, uri)})
	}
	only := func(w *world) party { return w.register("http://127.0.0.1:9999/cb") }
	for _, uri := range []string{
		"http://127.0.0.2:9999/cb", "http://[::1]:9999/cb", "http://localhost:9999/cb", "https://127.0.0.1:9999/cb", "http://127.0.0.1:9999/other", "http://127.0.0.1:9999",
		"http://127.0.0.1:0/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:080/cb", "http://127.0.0.1:+80/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:80:80/cb", "http://127.0.0.1:8x/cb",
	} {
		rows = append(rows, row{number: 5, name: uri, want: mismatch, build: asking(only, uri)})
	}
	rows = append(rows, row{number: 5, name: "https on another port than registered", want: mismatch, build: asking(func(w *world) party { return w.register("https://127.0.0.1:9999/cb") }, "https://127.0.0.1:1/cb")})
	for _, uri := range []string{
		"javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "file:///etc/passwd", "vbscript:x", "blob:https://b.example/x", "about:blank", "view-source:https://b.example/",
		" javascript:alert(1)", "\x01javascript:alert(1)", "java\tscript:alert(1)", "java\nscript:alert(1)", "javascript://b.example/%0aalert(1)", "\u00a0javascript:alert(1)",
	} {
		rows = append(rows, row{number: 7, name: fmt.Sprintf("%q", uri), want: unregistrable, build: registering(uri)})
	}
	for name, uris := range map[string][]string{
		"a fragment": {"https://b.example/cb#x"}, "an empty fragment": {"https://b.example/cb#"}, "a wildcard": {"https://*.b.example/cb"}, "a wildcard path": {"https://b.example/*"},
		"relative": {"/cb"}, "without a scheme": {"b.example/cb"}, "empty": {""}, "none": {}, "2,049 characters": {"https://b.example/" + strings.Repeat("x", 2049-len("https://b.example/"))},
		"21 of them": many(21), "http to another computer": {"http://b.example/cb"}, "http to an address": {"http://192.168.0.1/cb"}, "a second that is bad": {"https://b.example/cb", "http://b.example/cb"},
		"userinfo": {"https://x@b.example/cb"}, "no host": {"https:///cb"}, "an unknown scheme": {"evil://cb"}, "with a code in it": {"https://b.example/cb?code=x"}, "with iss in it": {"https://b.example/cb?iss=x"},
	} {
		rows = append(rows, row{number: 8, name: name, want: unregistrable, build: registering(uris...)})
	}
	for name, change := range map[string]url.Values{
		"a bad scope": with("scope", `"`), "a bad response type": with("response_type", "token"), "no challenge": without("code_challenge"), "a foreign resource": with("resource", "https://evil.example/"),
		"a parameter twice": {"scope": {"mcp:tools", "mcp:tools"}}, "prompt none": with("prompt", "none"), "a request object": with("request", "x"),
	} {
		rows = append(rows,
			row{number: 10, name: name + " and a foreign redirect URI", want: mismatch, build: func(w *world) (*http.Request, *http.Request) {
				q, _ := w.query(w.pubB, change)
				q.Set("redirect_uri", "https://evil.example/cb")
				twin, _ := w.query(w.pubB, nil)
				return w.authorize(q), w.authorize(twin)
			}},
			row{number: 10, name: name + " and an unknown client", want: page(http.StatusBadRequest, "GET /oauth/authorize refused: CLIENT_UNKNOWN"), build: func(w *world) (*http.Request, *http.Request) {
				q, _ := w.query(party{id: "4b5f2f8e-0000-4000-8000-000000000000", redirect: "https://evil.example/cb"}, change)
				twin, _ := w.query(w.pubB, nil)
				return w.authorize(q), w.authorize(twin)
			}})
	}
	for name, change := range map[string]url.Values{
		"no redirect URI": without("redirect_uri"), "an empty one": with("redirect_uri", ""), "two of them": {"redirect_uri": {"https://b.example/cb", "https://evil.example/cb"}},
		"no client": without("client_id"), "two clients": {"client_id": {"x", "y"}}, "a client that is no text": with("client_id", "\xff"), "a state that is no text": with("state", "\x00"),
	} {
		rows = append(rows, row{number: 10, name: name, want: page(http.StatusBadRequest, "GET /oauth/authorize refused: AUTHORIZE_REQUEST_UNREADABLE"), build: func(w *world) (*http.Request, *http.Request) {
			q, _ := w.query(w.pubB, change)
			twin, _ := w.query(w.pubB, nil)
			return w.authorize(q), w.authorize(twin)
		}})
	}
	return rows
}

var (
	mismatch      = page(http.StatusBadRequest, "GET /oauth/authorize refused: REDIRECT_MISMATCH")
	unregistrable = refusal("/oauth/register", oauth.InvalidRedirectURI, "")
)

// asking asks to be answered at uri.
func asking(who func(*world) party, uri string) func(*world) (*http.Request, *http.Request) {
	return func(w *world) (*http.Request, *http.Request) {
		p := who(w)
		q, _ := w.query(p, with("redirect_uri", uri))
		twin, _ := w.query(p, nil)
		return w.authorize(q), w.authorize(twin)
	}
}

// registering registers a client with these redirect URIs.
func registering(uris ...string) func(*world) (*http.Request, *http.Request) {
	return func(w *world) (*http.Request, *http.Request) {
		body, _ := json.Marshal(map[string]any{"client_name": "x", "redirect_uris": uris}) // strings
		return w.json("/oauth/register", string(body)), w.json("/oauth/register", `{"client_name":"x","redirect_uris":["https://b.example/cb"]}`)
	}
}

func many(n int) (uris []string) {
	for i := range n {
		uris = append(uris, fmt.Sprintf("https://b.example/cb%d", i))
	}
	return uris
}
