package authserver_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const web = "https://b.example/cb"

// R305, C11, attacks 1, 2, 10, 12, 15: whoever cannot be answered safely sees a page,
// whatever else is wrong, and the browser stays here.
func TestFaultsOfClientAndRedirectAreShownAndNeverRedirected(t *testing.T) {
	h := start(t, apptest.Dev)
	client, other := h.Register(), h.Register(web)
	for name, change := range map[string]url.Values{
		"attack 1: a redirect URI that nobody registered": with("redirect_uri", "https://evil.example/cb"),
		"attack 1: one that another client registered":    with("redirect_uri", web),
		"no redirect URI":         without("redirect_uri"),
		"an empty one":            with("redirect_uri", ""),
		"no client":               without("client_id"),
		"an empty client":         with("client_id", ""),
		"R304: an unknown client": with("client_id", "4b5f2f8e-0000-4000-8000-000000000000"),
		"another client":          with("client_id", other),
		"attack 10: bad scope and unknown client":       with("client_id", "x", "scope", `"`),
		"attack 10: bad type and bad redirect URI":      with("redirect_uri", "https://evil.example/", "response_type", "token"),
		"attack 10: no PKCE and bad redirect URI":       {"redirect_uri": {"https://evil.example/"}, "code_challenge": nil},
		"attack 10: prompt=none and bad redirect URI":   with("redirect_uri", "https://evil.example/", "prompt", "none"),
		"attack 12: client_id twice":                    {"client_id": {client, client}},
		"attack 12: redirect_uri twice":                 {"redirect_uri": {apptest.Callback, apptest.Callback}},
		"attack 12: redirect_uri twice, second foreign": {"redirect_uri": {apptest.Callback, "https://evil.example/"}},
		"attack 15: a state of over 1 KB":               with("state", strings.Repeat("s", 1025)),
		"attack 15: a request of over 8 KB":             with("x", strings.Repeat("s", 8<<10)),
		"attack 15: NUL in client_id":                   with("client_id", client+"\x00"),
		"attack 15: client_id that is not UTF-8":        with("client_id", "\xff"),
		"attack 15: NUL in redirect_uri":                with("redirect_uri", apptest.Callback+"\x00"),
		"attack 15: state that is not UTF-8":            with("state", "\xff\xfe"),
		"a line break in redirect_uri":                  with("redirect_uri", apptest.Callback+"\r\nX-Evil: 1"),
		"markup in redirect_uri":                        with("redirect_uri", `https://evil.example/"><script>alert(1)</script>`),
		"markup in client_id":                           with("client_id", `"><script>alert(1)</script>`),
	} {
		t.Run(name, func(t *testing.T) {
			h.unchanged(t, func() { shown(t, h.authorize(authorization(h, client, change)), http.StatusBadRequest) })
		})
	}
	for name, raw := range map[string]string{
		"an escape that is none": "client_id=" + client + "&redirect_uri=%zz",
		"semicolons":             strings.ReplaceAll(authorization(h, client, nil).Encode(), "&", ";"),
		"nothing":                "",
	} {
		t.Run(name, func(t *testing.T) {
			h.unchanged(t, func() { shown(t, h.Get("/oauth/authorize?"+raw), http.StatusBadRequest) })
		})
	}
	h.tokens(client, nil) // the twin
}

// R303, R305, R312, R313, R116, C09, attacks 12, 14, 15, 18, 19, 70, 74: every other fault is
// the client's to hear, with its state untouched and our issuer.
func TestOtherFaultsGoToTheClient(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	verifier := oauth.NewVerifier()
	rows := map[string]struct {
		change url.Values
		code   string
	}{
		"attack 18: no code_challenge":            {without("code_challenge"), oauth.InvalidRequest},
		"attack 18: an empty code_challenge":      {with("code_challenge", ""), oauth.InvalidRequest},
		"attack 18: no PKCE at all":               {without("code_challenge", "code_challenge_method"), oauth.InvalidRequest},
		"attack 19: plain":                        {with("code_challenge_method", "plain", "code_challenge", verifier), oauth.InvalidRequest},
		"attack 19: no method, which means plain": {without("code_challenge_method"), oauth.InvalidRequest},
		"attack 19: an unknown method":            {with("code_challenge_method", "S512"), oauth.InvalidRequest},
		"attack 19: another case":                 {with("code_challenge_method", "s256"), oauth.InvalidRequest},
		"a challenge that is too short":           {with("code_challenge", strings.Repeat("a", 42)), oauth.InvalidRequest},
		"a challenge that is no base64url":        {with("code_challenge", strings.Repeat("+", 43)), oauth.InvalidRequest},
		"response_type token":                     {with("response_type", "token"), oauth.UnsupportedResponseType},
		"response_type code token":                {with("response_type", "code token"), oauth.UnsupportedResponseType},
		"attack 12: scope twice":                  {url.Values{"scope": {"mcp:read", "mcp:tools"}}, oauth.InvalidRequest},
		"attack 12: response_type twice":          {url.Values{"response_type": {"code", "code"}}, oauth.InvalidRequest},
		"attack 12: code_challenge twice":         {url.Values{"code_challenge": {oauth.Challenge(verifier), oauth.Challenge(verifier)}}, oauth.InvalidRequest},
		"attack 12: an unknown parameter twice":   {url.Values{"x": {"1", "2"}}, oauth.InvalidRequest},
		"attack 14: request":                      {with("request", "eyJhbGciOiJub25lIn0.e30."), oauth.RequestNotSupported},
		"attack 14: request_uri":                  {with("request_uri", "https://evil.example/r"), oauth.RequestURINotSupported},
		"attack 15: a quote in scope":             {with("scope", `mcp:"read"`), oauth.InvalidScope},
		"attack 15: a backslash in scope":         {with("scope", `mcp\read`), oauth.InvalidScope},
		"attack 15: NUL in a parameter":           {with("login_hint", "a\x00b"), oauth.InvalidRequest},
		"attack 70: response_mode":                {with("response_mode", "form_post"), oauth.InvalidRequest},
		"attack 113: max_age":                     {with("max_age", "soon"), oauth.InvalidRequest},
		"R315: no scope that exists":              {with("scope", "photos:read"), oauth.InvalidScope},
		"attack 74: an unknown resource":          {with("resource", "https://evil.example/mcp"), oauth.InvalidTarget},
		"attack 74: a server that is not here":    {with("resource", h.URL+"/s/nobody/mcp"), oauth.InvalidTarget},
		"attack 74: another path":                 {with("resource", h.URL+"/mcpx"), oauth.InvalidTarget},
		"attack 74: a fragment":                   {with("resource", h.URL+"/mcp#x"), oauth.InvalidTarget},
		"attack 74: relative":                     {with("resource", "/mcp"), oauth.InvalidTarget},
		"attack 74: javascript":                   {with("resource", "javascript:alert(1)"), oauth.InvalidTarget},
		"attack 74: a user name":                  {with("resource", strings.Replace(h.URL, "://", "://a@", 1)+"/mcp"), oauth.InvalidTarget},
		"two resources":                           {url.Values{"resource": {h.URL + "/mcp", h.URL + "/s/gatehouse/mcp"}}, oauth.InvalidTarget},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			h.unchanged(t, func() {
				redirected(t, h, h.authorize(authorization(h, client, row.change)), apptest.Callback, "st&te/1", row.code)
			})
		})
	}
	t.Run("attack 12: state twice", func(t *testing.T) {
		a := h.authorize(authorization(h, client, url.Values{"state": {"one", "two"}}))
		redirected(t, h, a, apptest.Callback, "one", oauth.InvalidRequest)
	})
	t.Run("attack 18: a confidential client as well", func(t *testing.T) {
		secret := h.confidential("client_secret_basic")
		a := h.authorize(authorization(h, secret.ClientID, without("code_challenge")))
		redirected(t, h, a, apptest.Callback, "st&te/1", oauth.InvalidRequest)
	})
	h.tokens(client, nil) // the twin
}

// R312: state is the client's own and comes back byte for byte, whatever it is.
func TestStateComesBackUntouched(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for _, state := range []string{"", "a b+c%20d", "\r\nSet-Cookie: a=b", `"><script>alert(1)</script>`, "&code=forged&iss=forged", "ünï©ode", strings.Repeat("s", 1024), "#fragment?query"} {
		change := with("state", state)
		want := with("code", "*", "iss", h.URL)
		if state != "" {
			want.Set("state", state)
		}
		a := h.authorize(authorization(h, client, change))
		answered(t, a.Header.Get("Location"), apptest.Callback, want)
		if len(a.Header["Set-Cookie"]) > 0 || strings.ContainsAny(a.Header.Get("Location"), "\r\n<>\" ") {
			t.Errorf("state %q: %v", state, a.Header)
		}
		a = h.authorize(authorization(h, client, with("state", state, "scope", `"`)))
		redirected(t, h, a, apptest.Callback, state, oauth.InvalidScope)
	}
}

// R304, C10, attacks 2–5: bytes are compared; a program on this computer may
// listen on any port.
func TestRedirectURIsMatchExactly(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.register(registration(
		"https://b.example/cb", "https://b.example:8443/cb?tenant=1", "http://127.0.0.1/cb", "http://localhost:3001/callback?x=1", "http://[::1]",
		"cursor://anysphere/cb",
	)).ClientID
	for _, uri := range []string{
		// attack 2
		"https://b.example/cb/x", "https://b.example/cb/../evil", "https://b.example/other", "https://b.example/cb/", "https://b.example", "https://b.example/c",
		// attack 3
		"https://b.example@evil.example/cb", `https://b.example\@evil.example/cb`, "http://127.0.0.1@evil.example/cb", "http://user@127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb",
		`http://127.0.0.1\.evil.example/cb`, "http://127.0.0.1.evil.example/cb", "http://localhost.evil.example:3001/callback?x=1", "https://evil.example/https://b.example/cb",
		// attack 4
		"https://b.example/%63b", "https://b.example/CB", "https://B.EXAMPLE/cb", "https://b.example./cb", "https://b.example:443/cb", "https://b.example/cb?x=1", "https://b.example/cb?", "https://b.example/cb#",
		"https://b.example/cb#x", "HTTPS://b.example/cb", " https://b.example/cb", "https://b.example/cb ", "https://b.example//cb", "https://b.example:8443/cb", "https://b.example:8443/cb?tenant=2", "https://b.example:8443/cb?tenant=1&x=1",
		"https://b.example:8444/cb?tenant=1",
		// attack 5
		"http://127.0.0.2/cb", "http://[::1]/cb", "http://localhost/cb", "https://127.0.0.1/cb", "http://127.0.0.1/other", "http://127.0.0.1:0/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:080/cb", "http://127.0.0.1:/cb",
		"http://127.0.0.1:8080", "http://127.0.0.1:8080x/cb", "http://127.0.0.1:8080/cb?x=1", "http://127.0.0.1:8080/cb#x", "http://127.1/cb", "http://2130706433/cb", "http://LOCALHOST:3001/callback?x=1", "http://localhost:3001/callback",
		"http://[::1]:8080/", "http://[0:0:0:0:0:0:0:1]:8080", "http://0.0.0.0/cb",
		"cursor://anysphere/cb2", "cursor://anysphere:1/cb", "Cursor://anysphere/cb",
	} {
		t.Run(uri, func(t *testing.T) {
			h.unchanged(t, func() {
				shown(t, h.authorize(authorization(h, client, with("redirect_uri", uri))), http.StatusBadRequest)
			})
		})
	}
	// The twins, by way of an error: development mode lets no code leave this computer.
	for _, uri := range []string{
		"https://b.example/cb", "https://b.example:8443/cb?tenant=1", "cursor://anysphere/cb",
		"http://127.0.0.1/cb", "http://127.0.0.1:1/cb", "http://127.0.0.1:43112/cb", "http://127.0.0.1:65535/cb",
		"http://localhost:3001/callback?x=1", "http://localhost:40000/callback?x=1", "http://localhost/callback?x=1",
		"http://[::1]", "http://[::1]:8080",
	} {
		t.Run("good "+uri, func(t *testing.T) {
			a := h.authorize(authorization(h, client, with("redirect_uri", uri, "response_type", "token")))
			redirected(t, h, a, uri, "st&te/1", oauth.UnsupportedResponseType)
		})
	}
}

// R301, C08, C13, R315: what honest clients leave out or ask too much of.
func TestGenerousReading(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	for name, row := range map[string]struct {
		change          url.Values
		scope, resource string
	}{
		"C08: no response_type":              {without("response_type"), "mcp:tools", "/mcp"},
		"C13: no resource":                   {nil, "mcp:tools", "/mcp"},
		"C13: the bare origin":               {with("resource", h.URL), "mcp:tools", "/mcp"},
		"C13: the origin with a slash":       {with("resource", h.URL+"/"), "mcp:tools", "/mcp"},
		"an empty resource":                  {with("resource", ""), "mcp:tools", "/mcp"},
		"a resource with a slash at the end": {with("resource", h.URL+"/mcp/"), "mcp:tools", "/mcp"},
		"a host in capitals":                 {with("resource", strings.Replace(h.URL, "localhost", "LOCALHOST", 1)+"/mcp"), "mcp:tools", "/mcp"},
		"the control plane":                  {with("resource", h.URL+"/s/gatehouse/mcp"), "mcp:read", "/s/gatehouse/mcp"},
		"R315: unknown scopes are dropped":   {with("scope", "openid mcp:read profile"), "mcp:read", "/mcp"},
		"scopes twice, blanks in between":    {with("scope", "  mcp:read  mcp:read "), "mcp:read", "/mcp"},
		"only offline_access":                {with("scope", "offline_access"), "mcp:tools", "/mcp"},
		"an empty scope":                     {with("scope", ""), "mcp:tools", "/mcp"},
		"parameters that nobody knows":       {with("nonce", "n", "audience", "x", "utm_source", "y"), "mcp:tools", "/mcp"},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := h.tokens(client, row.change)
			if tokens.Scope != row.scope { // R406
				t.Errorf("scope %q, want %q", tokens.Scope, row.scope)
			}
			if a := h.RPC(row.resource, tokens.AccessToken, "tools/list", ""); a.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", row.resource, a.StatusCode, a.Text)
			}
		})
	}
}

// A redirect URI keeps its own query (RFC 6749 §3.1.2), and the answer is added once.
func TestRedirectURIKeepsItsQuery(t *testing.T) {
	h := start(t, apptest.Dev)
	for _, uri := range []string{"http://127.0.0.1/cb?tenant=1", "http://127.0.0.1/cb?", "http://127.0.0.1/cb?a=%26code%3Dx&b"} {
		client := h.Register(uri)
		a := h.authorize(authorization(h, client, with("redirect_uri", uri)))
		answered(t, a.Header.Get("Location"), uri, with("code", "*", "state", "st&te/1", "iss", h.URL))
	}
}

// A HEAD of a page would take a step of the flow and lose its answer.
func TestHeadTakesNoStep(t *testing.T) {
	h := start(t, apptest.Dev)
	query := authorization(h, h.Register(), nil).Encode()
	for _, path := range []string{"/oauth/authorize?" + query, "/mcp/authorize?" + query, "/authorize?" + query, "/consent/x", "/return/x"} {
		h.unchanged(t, func() {
			a := h.Do(h.Request(http.MethodHead, path, ""))
			if a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != http.MethodGet || a.Header["Location"] != nil {
				t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
			}
		})
	}
}

// R317, C14: what approves itself answers only to programs on this computer.
func TestDevelopmentModeStaysOnThisComputer(t *testing.T) {
	h := start(t, apptest.Dev)
	for _, uri := range []string{web, "cursor://anysphere/cb"} {
		client := h.Register(uri)
		h.unchanged(t, func() {
			shown(t, h.authorize(authorization(h, client, with("redirect_uri", uri))), http.StatusForbidden)
		})
	}
	for _, uri := range []string{"http://127.0.0.1/cb", "http://localhost/cb", "http://[::1]/cb"} {
		a := h.authorize(authorization(h, h.Register(uri), with("redirect_uri", uri)))
		answered(t, a.Header.Get("Location"), uri, with("code", "*", "state", "st&te/1", "iss", h.URL))
		if a.Header.Get("Set-Cookie") != "" {
			t.Error("development mode sets a cookie")
		}
		if a.StatusCode != http.StatusSeeOther || a.Text != "" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("the code can leak: %d %v %q", a.StatusCode, a.Header, a.Text)
		}
	}
}

// R630: outside development mode its identity does not exist, also if an earlier
// start has made it.
func TestDevelopmentIdentityEndsWithItsMode(t *testing.T) {
	h := start(t)
	h.SQL(`INSERT INTO users (id, email, created_at) VALUES ('usr_dev', 'dev@localhost', 0)`)
	h.SQL(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_dev', 'owner', 'active', 0)`)
	a := h.authorize(authorization(h, h.Register(), nil))
	if !strings.HasPrefix(a.Header.Get("Location"), "/login?flow=") || h.Count(`SELECT count(*) FROM authorization_code`) != 0 {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
}
