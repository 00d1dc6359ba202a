package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// grantChecks ask the issuer what it must refuse to everybody.
var grantChecks = []check{
	{
		id: "unknown-client", group: "Authorization",
		expected:  "an unknown client is shown an error, and no browser is sent where it asks",
		fix:       "look the client up before anything else, and never redirect for one that is not known",
		reference: "RFC 6749 §4.1.2.1; RFC 9700 §4.11", requirement: "R305",
		run: func(e *exam) outcome {
			if !e.asks(e.as.AuthorizationEndpoint) {
				return skip("there is no authorization endpoint to ask")
			}
			a := e.authorize(map[string]string{"client_id": "gatehouse-doctor-unknown", "redirect_uri": stranger + "/callback"})
			return must(!a.foreign() && a.status != 0, a.String())
		},
	},
	{
		id: "token-error", group: "Authorization",
		expected:  "the token endpoint refuses in JSON with an OAuth error, never cached",
		fix:       `answer 400 or 401 with {"error": "…"} as application/json and Cache-Control: no-store`,
		reference: "RFC 6749 §5.2; OAuth 2.1 §3.2.4", requirement: "R407",
		run: func(e *exam) outcome {
			if !e.asks(e.as.TokenEndpoint) {
				return skip("there is no token endpoint to ask")
			}
			a := e.post(e.as.TokenEndpoint, url.Values{"grant_type": {"authorization_code"}, "client_id": {"gatehouse-doctor-unknown"}, "code": {"none"}, "code_verifier": {oauth.NewVerifier()}})
			seen := fmt.Sprintf("%s, error=%q, Cache-Control=%q", a, a.oauthError(), a.header.Get("Cache-Control"))
			return must((a.status == 400 || a.status == 401) && a.oauthError() != "" && a.uncached(), seen)
		},
	},
	{
		id: "revocation", group: "Authorization",
		expected:  "revocation is refused to who does not say who they are",
		fix:       "demand the client's authentication, or at least its id, at the revocation endpoint",
		reference: "RFC 7009 §2.1", requirement: "R416",
		run: func(e *exam) outcome {
			if !e.asks(e.as.RevocationEndpoint) {
				return skip("there is no revocation endpoint to ask")
			}
			a := e.post(e.as.RevocationEndpoint, url.Values{"token": {nobodys}})
			return must(a.status >= 400 && a.status < 500, a.String())
		},
	},
	{
		id: "introspection", group: "Authorization",
		expected:  "introspection is refused to who does not authenticate",
		fix:       "demand authentication at the introspection endpoint, or anybody can try out tokens",
		reference: "RFC 7662 §2.1", requirement: "R417",
		run: func(e *exam) outcome {
			if !e.asks(e.as.IntrospectionEndpoint) {
				return skip("there is no introspection endpoint to ask")
			}
			a := e.post(e.as.IntrospectionEndpoint, url.Values{"token": {nobodys}})
			return must(a.status >= 400 && a.status < 500, a.String())
		},
	},
}

// asks reports whether an endpoint of the issuer is there and may be asked.
func (e *exam) asks(endpoint string) bool { return e.hasAS && endpoint != "" && e.safe(endpoint) }

// redirect is where the app of the examination would be: on this computer, where
// nobody listens.
const redirect = "http://127.0.0.1:9/callback"

// state comes back as it was sent.
const state = "a b+c&d=é"

// authorize asks as a browser would that has no session, with a good request but
// for what is changed; "" leaves a parameter out.
func (e *exam) authorize(change map[string]string) answer {
	params := map[string]string{
		"response_type": "code", "client_id": e.app.id, "redirect_uri": redirect, "state": state, "resource": e.opts.Server,
		"code_challenge": oauth.Challenge(oauth.NewVerifier()), "code_challenge_method": "S256", "scope": e.challenge.Params["scope"],
	}
	maps.Copy(params, change)
	u, err := url.Parse(e.as.AuthorizationEndpoint)
	if err != nil {
		return answer{err: err}
	}
	q := u.Query()
	for name, value := range params {
		if value != "" {
			q.Set(name, value)
		}
	}
	u.RawQuery = q.Encode()
	return e.fetch(http.MethodGet, u.String(), http.Header{"Accept": {"text/html"}}, "")
}

// app is a client that was registered for the examination.
type app struct {
	id         string
	uri, token string // for its removal
}

// appChecks need an app. They are skipped unless one may be registered.
var appChecks = []check{
	{
		id: "register", group: "With an app",
		expected:  "an app with a loopback address can register, and the answer is not cached",
		fix:       "answer 201 with client_id, as application/json and with Cache-Control: no-store",
		reference: "RFC 7591 §3.2.1", requirement: "R201 R204",
		run: (*exam).register,
	},
	{
		id: "register-http", group: "With an app",
		expected:  "an address over plain http is not registered",
		fix:       "refuse redirect_uris that are neither https nor on the person's computer",
		reference: "OAuth 2.1 §8.4.2; RFC 9700 §2.1", requirement: "R216",
		run: func(e *exam) outcome {
			if e.app.id == "" {
				return skip("there is no app")
			}
			a, second := e.registers("http://stranger.example/callback")
			e.remove(second)
			return must(!a.ok() && a.status != 0, a.String())
		},
	},
	{
		id: "foreign-redirect", group: "With an app",
		expected:  "no browser is sent to an address that the app did not register",
		fix:       "compare redirect_uri byte by byte with what was registered, and show an error page if none fits",
		reference: "RFC 9700 §4.1.3; RFC 6749 §4.1.2.1", requirement: "R304 R305",
		run: func(e *exam) outcome {
			if e.app.id == "" {
				return skip("there is no app")
			}
			for _, to := range []string{stranger + "/callback", "http://127.0.0.1.stranger.example:9/callback", "http://127.0.0.1@stranger.example/callback"} {
				if a := e.authorize(map[string]string{"redirect_uri": to}); a.foreign() || a.status == 0 {
					return fault("redirect_uri=" + quote(to) + ": " + a.String())
				}
			}
			return good("an error page for each of three")
		},
	},
	{
		id: "pkce-missing", group: "With an app",
		expected:  "a request without code_challenge is refused",
		fix:       "refuse it with invalid_request at the authorization endpoint",
		reference: "OAuth 2.1 §4.1.1; RFC 9700 §2.1.1", requirement: "R303",
		run: func(e *exam) outcome {
			return e.refused(map[string]string{"code_challenge": "", "code_challenge_method": ""})
		},
	},
	{
		id: "pkce-plain", group: "With an app",
		expected:  "a request with the method plain is refused",
		fix:       "allow S256 only; a missing code_challenge_method means plain",
		reference: "RFC 7636 §7.2; RFC 9700 §2.1.1", requirement: "R303",
		run: func(e *exam) outcome {
			return e.refused(map[string]string{"code_challenge": oauth.NewVerifier(), "code_challenge_method": "plain"})
		},
	},
	{
		id: "error-redirect", group: "With an app",
		expected:  "an error in the browser brings state back unchanged, and iss if that was promised",
		fix:       "send state as it came and iss with every redirect, errors included",
		reference: "RFC 6749 §4.1.2.1; RFC 9207 §2", requirement: "R116 R312",
		run: func(e *exam) outcome {
			if e.app.id == "" {
				return skip("there is no app")
			}
			a := e.authorize(map[string]string{"code_challenge": "", "code_challenge_method": ""})
			to, err := url.Parse(a.header.Get("Location"))
			if err != nil || to.Query().Get("error") == "" {
				return skip("there is no redirect with an error to look at")
			}
			q := to.Query()
			ok := len(q["state"]) == 1 && q.Get("state") == state && (q.Get("iss") == e.as.Issuer || q.Get("iss") == e.issuer() || !e.as.IssParameter && !q.Has("iss"))
			return must(ok, fmt.Sprintf("state=%q iss=%q", q.Get("state"), q.Get("iss")))
		},
	},
	{
		id: "good-request", group: "With an app",
		expected:  "a request as MCP clients send it is not refused, from any port of this computer",
		fix:       "let a loopback address have another port than it was registered with, and take resource and scope as your metadata and challenge name them",
		reference: "RFC 8252 §7.3; RFC 8707 §2.1", requirement: "R304 R314",
		run: func(e *exam) outcome {
			if e.app.id == "" {
				return skip("there is no app")
			}
			a := e.authorize(map[string]string{"redirect_uri": "http://127.0.0.1:10/callback"})
			to, err := url.Parse(a.header.Get("Location"))
			return must(err == nil && a.status != 0 && a.status < 400 && !to.Query().Has("error"), a.String())
		},
	},
	{
		id: "invalid-code", group: "With an app",
		expected:  "a code that nobody issued is refused with invalid_grant",
		fix:       `answer 400 with {"error": "invalid_grant"}; clients start over at that`,
		reference: "RFC 6749 §5.2", requirement: "R405",
		run: func(e *exam) outcome {
			if e.app.id == "" || !e.asks(e.as.TokenEndpoint) {
				return skip("there is no app")
			}
			a := e.post(e.as.TokenEndpoint, url.Values{
				"grant_type": {"authorization_code"}, "client_id": {e.app.id}, "code": {"none"}, "redirect_uri": {redirect},
				"code_verifier": {oauth.NewVerifier()}, "resource": {e.opts.Server},
			})
			return must(a.status == 400 && a.oauthError() == oauth.InvalidGrant, fmt.Sprintf("%s, error=%q", a, a.oauthError()))
		},
	},
	{
		id: "unregister", group: "With an app",
		expected:  "an app can remove its registration again",
		fix:       "offer client management; without it registrations pile up",
		reference: "RFC 7592 §2.3", requirement: "R212",
		run: func(e *exam) outcome {
			if e.app.id == "" {
				return skip("there is no app")
			}
			id := e.app.id
			a := e.remove(e.app)
			if e.app = (app{}); a.ok() {
				return good(a.String())
			}
			return warning("remains registered: " + id)
		},
	},
}

// refused judges a request that must not lead any further: the answer is an error,
// to the app or to the person.
func (e *exam) refused(change map[string]string) outcome {
	if e.app.id == "" {
		return skip("there is no app")
	}
	a := e.authorize(change)
	to, err := url.Parse(a.header.Get("Location"))
	return must(a.status >= 400 || err == nil && to.Query().Get("error") != "", a.String())
}

func (e *exam) register() outcome {
	switch {
	case !e.asks(e.as.RegistrationEndpoint):
		return skip("apps cannot register here")
	case !e.asks(e.as.AuthorizationEndpoint):
		return skip("there is no authorization endpoint to ask")
	case !e.opts.Register:
		return skip("it would register an app: say --register")
	}
	a, got := e.registers(redirect)
	if got.id == "" {
		return fault(fmt.Sprintf("%s, error=%q", a, a.oauthError()))
	}
	e.app = got
	return must((a.status == http.StatusCreated || a.status == http.StatusOK) && a.isJSON() && a.uncached(), fmt.Sprintf("%s, Cache-Control=%q", a, a.header.Get("Cache-Control")))
}

// registers registers an app (RFC 7591). Its id is empty if that failed.
func (e *exam) registers(redirect string) (answer, app) {
	body, _ := json.Marshal(oauth.Registration{ // strings always marshal
		ClientName: "Gatehouse doctor", RedirectURIs: []string{redirect}, ApplicationType: "native",
		GrantTypes: []string{"authorization_code"}, ResponseTypes: []string{"code"}, TokenAuthMethod: "none",
	})
	a := e.fetch(http.MethodPost, e.as.RegistrationEndpoint, http.Header{"Accept": {"application/json"}, "Content-Type": {"application/json"}}, string(body))
	var r oauth.Registration
	if !a.ok() || json.NewDecoder(bytes.NewReader(a.body)).Decode(&r) != nil {
		return a, app{}
	}
	return a, app{r.ClientID, r.RegistrationURI, r.RegistrationToken}
}

// remove takes a registration back.
func (e *exam) remove(a app) answer {
	if a.uri == "" || a.token == "" {
		return answer{err: fmt.Errorf("it cannot be managed")}
	}
	return e.fetch(http.MethodDelete, a.uri, http.Header{"Authorization": {"Bearer " + a.token}}, "")
}

// cleanUp leaves nothing behind, also when the examination was stopped.
func (e *exam) cleanUp() {
	if e.app.id != "" {
		e.ctx = context.WithoutCancel(e.ctx)
		e.remove(e.app)
	}
}
