package attacks_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 9, the issuer: a client can tell who answered it, and nobody can make the
// server call itself something else.
func TestIssuer(t *testing.T) { attack(t, issuerRows()) }

// addresses that say who we are, by their names in tests.
var addresses = map[string]string{
	"server metadata": "/.well-known/oauth-authorization-server", "the same under OpenID's name": "/.well-known/openid-configuration",
	"resource metadata": "/.well-known/oauth-protected-resource/s/a/mcp", "resource metadata at the root": "/.well-known/oauth-protected-resource",
	"keys": "/.well-known/jwks.json", "sign-in page": "/login", "front page": "/", "authorization": "/oauth/authorize", "token": "/oauth/token", "MCP": "/mcp", "REST": "/mcp/tools",
}

// forwarded are headers of a proxy that nobody declared.
var forwarded = []string{
	"X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "X-Forwarded-Port: 444", "X-Forwarded-Prefix: /evil", "X-Forwarded-Server: evil.example",
	"Forwarded: for=1.2.3.4;host=evil.example;proto=https", "X-Host: evil.example", "X-Original-Host: evil.example", "X-Original-URL: /evil", "X-Rewrite-URL: /evil",
	"X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4",
}

func issuerRows() []row {
	rows := []row{
		{number: 70, name: "iss at every answer is the issuer of both documents", story: func(w *world) {
			for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
				var m oauth.ServerMetadata
				w.Get(path).JSON(w.t, &m)
				if m.Issuer != w.URL || !m.IssParameter {
					w.t.Errorf("%s: issuer %q, iss %v", path, m.Issuer, m.IssParameter)
				}
			}
			for _, decision := range []string{"allow", "deny"} {
				for _, p := range []party{w.register("http://127.0.0.1/cb"), w.register("https://b.example/cb")} { // nothing is remembered of them
					q, _ := w.query(p, nil)
					form := w.asked(w.alice, q)
					form.Set("decision", decision)
					target := apptest.Target(w.alice.Submit("/consent", form).Text)
					if target == nil || target.Query().Get("iss") != w.URL || target.Query().Get("state") != state || target.Query().Has("code") != (decision == "allow") {
						w.t.Errorf("%s: %v", decision, target)
						continue
					}
					if code := target.Query().Get("code"); code != "" {
						w.keep("the code", code)
					}
				}
			}
		}},
		{number: 70, name: "another response mode is refused, in the query", want: redirect(oauth.InvalidRequest), build: func(w *world) (*http.Request, *http.Request) {
			q, _ := w.query(w.pubB, with("response_mode", "form_post"))
			twin, _ := w.query(w.pubB, with("response_mode", "query"))
			return w.authorize(q), w.authorize(twin)
		}},
		{number: 71, name: "headers of a proxy that nobody declared change nothing", story: func(w *world) {
			for name, path := range addresses {
				if name == "authorization" || name == "token" {
					continue // below, and by POST
				}
				plainly := w.Get(path)
				a := w.Get(path, forwarded...)
				if name == "MCP" {
					w.counted["no access token"] += 2
				}
				if a.StatusCode != plainly.StatusCode || strings.Contains(a.Text, "evil") || strings.Contains(a.Text, "1.2.3.4") || len(a.Header) != len(plainly.Header) ||
					a.Header.Get("Location") != plainly.Header.Get("Location") || !strings.Contains(a.Header.Get("WWW-Authenticate"), w.URL) && a.StatusCode == http.StatusUnauthorized {
					w.t.Errorf("%s: %d %v %s, otherwise %d %v", name, a.StatusCode, a.Header, a.Text, plainly.StatusCode, plainly.Header)
				}
			}
			q, _ := w.query(w.pubB, nil)
			r := w.authorize(q)
			add(r, forwarded...)
			if a := w.works(r); !strings.HasPrefix(a.Header.Get("Location"), "/login?flow=") {
				w.t.Errorf("%v", a.Header)
			}
			q, _ = w.query(w.pubB, without("code_challenge"))
			r = w.authorize(q)
			add(r, forwarded...)
			w.refused(redirect(oauth.InvalidRequest), r)
		}},
		{number: 71, name: "nor a mailed link", story: func(w *world) {
			b := w.Browser()
			form := apptest.Fields(b.Open("/login").Text)
			form.Set("email", apptest.Owner)
			r := w.form("/login", form, append(forwarded, "Origin: "+w.URL)...)
			for name, value := range b.Cookies {
				r.AddCookie(&http.Cookie{Name: name, Value: value})
			}
			before := strings.Count(w.printed(), "/login/link?token=")
			w.works(r)
			if n := strings.Count(w.printed(), w.URL+"/login/link?token="); n != before+1 || strings.Contains(w.printed(), "evil") {
				w.t.Errorf("%d links", n-before)
			}
			w.mailed[strings.TrimPrefix(b.Link(), w.URL+"/login/link?token=")] = "the link"
		}},
		{number: 71, name: "a whole address in the request line", story: func(w *world) {
			for _, text := range []string{
				"GET http://evil.example/.well-known/oauth-authorization-server HTTP/1.1\r\nHost: " + host(w.URL) + "\r\nConnection: close\r\n\r\n",
				"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: " + host(w.URL) + "\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
				"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
				"GET /.well-known/oauth-authorization-server HTTP/1.0\r\n\r\n",
				"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n",
			} {
				answer := w.raw(text)
				if !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.0 4") || strings.Contains(answer, "evil") {
					w.t.Errorf("%q: %s", text, answer)
				}
				if strings.Contains(answer, " 421 ") {
					w.counted[otherHost]++
				}
			}
		}},
	}
	for _, evil := range []string{"evil.example", "evil.example:80", "localhost.evil.example", "localhost:1", "127.0.0.1", "[::1]", "localhost."} {
		for name, path := range addresses {
			rows = append(rows, row{number: 71, name: name + " at " + evil, want: misdirected, build: func(w *world) (*http.Request, *http.Request) {
				r := w.Request(http.MethodGet, path, "")
				r.Host = evil
				return r, w.Request(http.MethodGet, "/.well-known/oauth-authorization-server", "")
			}})
		}
	}
	for name, change := range map[string]url.Values{
		oauth.InvalidScope: with("scope", `"`), oauth.InvalidTarget: with("resource", "https://evil.example/"), oauth.UnsupportedResponseType: with("response_type", "token"),
		oauth.RequestNotSupported: with("request", "x"), oauth.RequestURINotSupported: with("request_uri", "https://evil.example/"), oauth.LoginRequired: with("prompt", "none"),
		oauth.InvalidRequest: without("code_challenge"),
	} {
		rows = append(rows, row{number: 70, name: "iss with " + name, want: redirect(name), build: func(w *world) (*http.Request, *http.Request) {
			q, _ := w.query(w.pubA, change)
			twin, _ := w.query(w.pubA, nil)
			return w.authorize(q), w.authorize(twin)
		}})
	}
	return rows
}

// misdirected is the answer to whoever calls us by a name that is not ours.
var misdirected = want{status: http.StatusMisdirectedRequest, reason: otherHost, check: func(w *world, a apptest.Answer) {
	if strings.Contains(a.Text, "evil") || strings.Contains(a.Text, w.URL) || a.Header["Location"] != nil {
		w.t.Errorf("%v %s", a.Header, a.Text)
	}
}}

const otherHost = "request for another host"

func add(r *http.Request, headers ...string) {
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
}

func host(address string) string { return strings.TrimPrefix(address, "http://") }

// raw sends a request as text, byte for byte, and returns what comes back.
func (w *world) raw(text string) string {
	w.t.Helper()
	conn, err := net.Dial("tcp", host(w.URL))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		w.t.Fatal(err)
	}
	answer, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(answer)
}
