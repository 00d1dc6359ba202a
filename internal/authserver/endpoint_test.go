package authserver_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

const formType = "Content-Type: application/x-www-form-urlencoded"

// Attack 30: parameters come from a form in the body, each once, and from nowhere
// else.
func TestTokenEndpointReadsTheBodyOnly(t *testing.T) {
	h := start(t, apptest.Dev)
	client := h.Register()
	post := func(path, body string, headers ...string) apptest.Answer {
		return h.Do(h.Request(http.MethodPost, path, body, headers...))
	}
	for name, send := range map[string]func(form string) apptest.Answer{
		"in the query":          func(form string) apptest.Answer { return post("/oauth/token?"+form, "", formType) },
		"half in the query":     func(form string) apptest.Answer { return post("/oauth/token?client_id="+client, form, formType) },
		"anything in the query": func(form string) apptest.Answer { return post("/oauth/token?x=1", form, formType) },
		"no content type":       func(form string) apptest.Answer { return post("/oauth/token", form) },
		"text/plain":            func(form string) apptest.Answer { return post("/oauth/token", form, "Content-Type: text/plain") },
		"only contains the type": func(form string) apptest.Answer {
			return post("/oauth/token", form, "Content-Type: x-application/x-www-form-urlencoded-x")
		},
		"a type that cannot be one": func(form string) apptest.Answer {
			return post("/oauth/token", form, "Content-Type: application/x-www-form-urlencoded; a=1; a=2")
		},
		"two types": func(form string) apptest.Answer {
			return post("/oauth/token", form, "Content-Type: text/plain", formType)
		},
		"multipart": func(form string) apptest.Answer {
			values, _ := url.ParseQuery(form)
			var body strings.Builder
			for name := range values {
				body.WriteString("--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + values.Get(name) + "\r\n")
			}
			return post("/oauth/token", body.String()+"--b--\r\n", "Content-Type: multipart/form-data; boundary=b")
		},
		"over 64 KB": func(form string) apptest.Answer {
			return post("/oauth/token", form+"&x="+strings.Repeat("x", 64<<10), formType)
		},
		"two types, both served": func(form string) apptest.Answer {
			return post("/oauth/token", form, formType, "Content-Type: application/json")
		},
		"a form called JSON": func(form string) apptest.Answer {
			return post("/oauth/token", form, "Content-Type: application/json")
		},
		"JSON that only contains the type": func(form string) apptest.Answer {
			return post("/oauth/token", object(form), "Content-Type: application/jsonp")
		},
		"JSON with a suffix": func(form string) apptest.Answer {
			return post("/oauth/token", object(form), "Content-Type: application/x+json")
		},
		"semicolons": func(form string) apptest.Answer {
			return post("/oauth/token", strings.ReplaceAll(form, "&", ";"), formType)
		},
		"an escape that is none": func(form string) apptest.Answer { return post("/oauth/token", form+"&x=%zz", formType) },
		"a parameter twice":      func(form string) apptest.Answer { return post("/oauth/token", form+"&"+form, formType) },
		"client_id twice":        func(form string) apptest.Answer { return post("/oauth/token", form+"&client_id="+client, formType) },
		"code_verifier twice":    func(form string) apptest.Answer { return post("/oauth/token", form+"&code_verifier=x", formType) },
		"text that is not UTF-8": func(form string) apptest.Answer { return post("/oauth/token", form+"&x=%ff", formType) },
		"a NUL":                  func(form string) apptest.Answer { return post("/oauth/token", form+"&x=%00", formType) },
	} {
		t.Run(name, func(t *testing.T) {
			code, verifier := h.Code(client, nil)
			form := with("grant_type", "authorization_code", "client_id", client, "code", code, "code_verifier", verifier).Encode()
			h.unchanged(t, func() { refused(t, send(form), oauth.InvalidRequest) })
			if a := post("/oauth/token", form, formType+"; charset=utf-8"); a.StatusCode != http.StatusOK {
				t.Errorf("the twin: %d %s", a.StatusCode, a.Text)
			}
		})
	}
	t.Run("GET", func(t *testing.T) {
		code, verifier := h.Code(client, nil)
		form := with("grant_type", "authorization_code", "client_id", client, "code", code, "code_verifier", verifier)
		h.unchanged(t, func() {
			if a := h.Get("/oauth/token?" + form.Encode()); a.StatusCode != http.StatusMethodNotAllowed || a.Text != "" {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
		})
	})
}

// object is a form as a JSON object.
func object(form string) string {
	values, _ := url.ParseQuery(form)
	members := map[string]string{}
	for name := range values {
		members[name] = values.Get(name)
	}
	return text(members)
}

// R402: what a form may say, a JSON object may say, at both endpoints; what it may
// not, is refused, and nothing is spent.
func TestTokenEndpointReadsJSON(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		c := h.confidential("client_secret_post")
		for name, row := range map[string]struct {
			change func(members map[string]any) string // returns the body
			code   string                              // empty: good
		}{
			"as it is":              {func(m map[string]any) string { return text(m) }, ""},
			"with blanks":           {func(m map[string]any) string { return " \n" + text(m) + "\n" }, ""},
			"null is absent":        {func(m map[string]any) string { m["scope"] = nil; return text(m) }, ""},
			"empty is absent":       {func(m map[string]any) string { m["scope"] = ""; return text(m) }, ""},
			"a resource":            {func(m map[string]any) string { m["resource"] = h.URL + "/mcp"; return text(m) }, ""},
			"an array of resources": {func(m map[string]any) string { m["resource"] = []string{h.URL + "/mcp"}; return text(m) }, ""},
			"something unknown":     {func(m map[string]any) string { m["vendor"] = "x"; return text(m) }, ""},

			"a code in an array":      {func(m map[string]any) string { m["code"] = []any{m["code"]}; return text(m) }, oauth.InvalidRequest},
			"a number":                {func(m map[string]any) string { m["scope"] = 1; return text(m) }, oauth.InvalidRequest},
			"a boolean":               {func(m map[string]any) string { m["vendor"] = true; return text(m) }, oauth.InvalidRequest},
			"an object":               {func(m map[string]any) string { m["client_id"] = map[string]any{"id": m["client_id"]}; return text(m) }, oauth.InvalidRequest},
			"resources of numbers":    {func(m map[string]any) string { m["resource"] = []int{1}; return text(m) }, oauth.InvalidRequest},
			"another resource":        {func(m map[string]any) string { m["resource"] = "https://b.example/mcp"; return text(m) }, oauth.InvalidTarget},
			"a member twice":          {func(m map[string]any) string { return text(m)[:len(text(m))-1] + `,"code":"x"}` }, oauth.InvalidRequest},
			"a member twice, escaped": {func(m map[string]any) string { return text(m)[:len(text(m))-1] + `,"c\u006fde":"x"}` }, oauth.InvalidRequest},
			"an array":                {func(m map[string]any) string { return "[" + text(m) + "]" }, oauth.InvalidRequest},
			"two objects":             {func(m map[string]any) string { return text(m) + text(m) }, oauth.InvalidRequest},
			"a NUL":                   {func(m map[string]any) string { m["vendor"] = "\x00"; return text(m) }, oauth.InvalidRequest},
			"no UTF-8":                {func(m map[string]any) string { return text(m)[:len(text(m))-1] + ",\"x\":\"\xff\"}" }, oauth.InvalidRequest},
			"null":                    {func(map[string]any) string { return "null" }, oauth.InvalidRequest},
			"nothing":                 {func(map[string]any) string { return "" }, oauth.InvalidRequest},
			"no secret":               {func(m map[string]any) string { delete(m, "client_secret"); return text(m) }, oauth.InvalidClient},
			"a null secret":           {func(m map[string]any) string { m["client_secret"] = nil; return text(m) }, oauth.InvalidClient},
			"no grant type":           {func(m map[string]any) string { delete(m, "grant_type"); return text(m) }, oauth.InvalidRequest},
		} {
			t.Run(name, func(t *testing.T) {
				code, verifier := h.Code(c.ClientID, nil)
				members := func() map[string]any {
					return map[string]any{
						"grant_type": "authorization_code", "client_id": c.ClientID, "client_secret": c.ClientSecret,
						"code": code, "code_verifier": verifier, "redirect_uri": apptest.Callback,
					}
				}
				if row.code != "" {
					h.unchanged(t, func() { refused(t, h.PostJSON("/oauth/token", row.change(members())), row.code) })
					row.change = func(m map[string]any) string { return text(m) } // the twin
				}
				var tokens oauth.TokenResponse
				a := h.PostJSON("/oauth/token", row.change(members()))
				a.JSON(t, &tokens)
				if a.StatusCode != http.StatusOK || !h.works(tokens.AccessToken) {
					t.Errorf("%d %s", a.StatusCode, a.Text)
				}
				gone := h.PostJSON("/oauth/revoke", text(map[string]any{"client_id": c.ClientID, "client_secret": c.ClientSecret, "token": tokens.RefreshToken}))
				if gone.StatusCode != http.StatusOK || h.works(tokens.AccessToken) {
					t.Errorf("revoke: %d %s", gone.StatusCode, gone.Text)
				}
			})
		}
		code, verifier := h.Code(c.ClientID, nil)
		two := object(with("grant_type", "authorization_code", "client_id", c.ClientID, "client_secret", c.ClientSecret, "code", code, "code_verifier", verifier).Encode())
		basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(c.ClientID+":"+c.ClientSecret))
		h.unchanged(t, func() { refused(t, h.PostJSON("/oauth/token", two, basic), oauth.InvalidRequest) }) // attack 43
	}, apptest.Dev)
}

// Bytes that a database cannot look for are a fault of the caller, on both engines,
// at every endpoint.
func TestBytesThatAreNoTextAreRefused(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		client := h.Register()
		for _, odd := range []string{"\x00", "\xff", "code_0000000000000000000000000\x00." + strings.Repeat("A", 43)} {
			for _, form := range []url.Values{
				with("client_id", odd), with("client_id", client, "client_secret", odd),
				with("client_id", client, "grant_type", "authorization_code", "code", odd),
				with("client_id", client, "grant_type", "refresh_token", "refresh_token", strings.Replace(odd, "code_", "rt_", 1)),
				with("client_id", client, "grant_type", odd), with("client_id", client, "token", strings.Replace(odd, "code_", "rt_", 1)),
			} {
				for _, path := range []string{"/oauth/token", "/oauth/revoke"} {
					if a := h.Form(path, form); a.StatusCode != http.StatusBadRequest && a.StatusCode != http.StatusUnauthorized {
						t.Errorf("%s %q: %d %s", path, form, a.StatusCode, a.Text)
					}
				}
			}
			basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(odd+":"+odd))
			refused(t, h.Form("/oauth/token", with("grant_type", "refresh_token"), basic), oauth.InvalidClient)
			escaped := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(odd)+":x"))
			refused(t, h.Form("/oauth/token", with("grant_type", "refresh_token"), escaped), oauth.InvalidClient)
			shown(t, h.authorize(authorization(h, odd, nil)), http.StatusBadRequest)
			for _, path := range []string{"/consent/", "/return/"} {
				shown(t, h.Get(path+url.PathEscape(odd)), http.StatusForbidden)
			}
			shown(t, h.Form("/consent", with("request", odd)), http.StatusBadRequest)
			h.register(`{"redirect_uris":["https://b.example/cb"],"client_name":"\u0000"}`)
			refused(t, h.Get("/registration/"+url.PathEscape(odd), "Authorization: Bearer reg-x"), oauth.InvalidToken)
		}
		if strings.Contains(h.Log.String(), "request failed") {
			t.Errorf("something failed inside:\n%s", h.Log)
		}
	}, apptest.Dev)
}

// R404, attacks 41, 43, 44: who a client is, is proven as it was registered.
func TestClientsProveThemselves(t *testing.T) {
	h := start(t, apptest.Dev)
	public := h.Register()
	post, basic := h.confidential("client_secret_post"), h.confidential("client_secret_basic")
	header := func(user, password string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for name, row := range map[string]struct {
		client  oauth.Registration
		form    url.Values
		headers []string
		code    string // empty: good
	}{
		"public":                                  {oauth.Registration{ClientID: public}, nil, nil, ""},
		"public, with an empty secret":            {oauth.Registration{ClientID: public}, with("client_secret", ""), nil, ""},
		"public, in the header":                   {oauth.Registration{ClientID: public}, without("client_id"), []string{header(public, "")}, ""},
		"secret in the body":                      {post, with("client_secret", post.ClientSecret), nil, ""},
		"secret in the header":                    {basic, without("client_id"), []string{header(basic.ClientID, basic.ClientSecret)}, ""},
		"in the header, the id in the body too":   {basic, nil, []string{header(basic.ClientID, basic.ClientSecret)}, ""},
		"in the header, escaped as RFC 6749 says": {basic, nil, []string{header(url.QueryEscape(basic.ClientID), url.QueryEscape(basic.ClientSecret))}, ""},
		"in the header, every byte escaped":       {basic, nil, []string{header(basic.ClientID, percent(basic.ClientSecret))}, ""},
		"told post, sent basic":                   {post, nil, []string{header(post.ClientID, post.ClientSecret)}, ""},
		"told basic, sent post":                   {basic, with("client_secret", basic.ClientSecret), nil, ""},

		"attack 43: header and body":                          {basic, with("client_secret", basic.ClientSecret), []string{header(basic.ClientID, basic.ClientSecret)}, oauth.InvalidRequest},
		"attack 43: two headers":                              {basic, nil, []string{header(basic.ClientID, basic.ClientSecret), header(public, "")}, oauth.InvalidRequest},
		"attack 44: no credentials":                           {post, nil, nil, oauth.InvalidClient},
		"attack 44: an empty secret":                          {post, with("client_secret", ""), nil, oauth.InvalidClient},
		"attack 44: an empty secret in the header":            {basic, nil, []string{header(basic.ClientID, "")}, oauth.InvalidClient},
		"attack 41: a wrong secret":                           {post, with("client_secret", post.ClientSecret[:len(post.ClientSecret)-1]+"_"), nil, oauth.InvalidClient},
		"another client's secret":                             {post, with("client_secret", basic.ClientSecret), nil, oauth.InvalidClient},
		"another client in the body":                          {basic, with("client_id", public), []string{header(basic.ClientID, basic.ClientSecret)}, oauth.InvalidClient},
		"a public client with a secret":                       {oauth.Registration{ClientID: public}, with("client_secret", post.ClientSecret), nil, oauth.InvalidClient},
		"a bearer token for credentials":                      {oauth.Registration{ClientID: public}, nil, []string{"Authorization: Bearer x"}, oauth.InvalidClient},
		"a header that is no base64":                          {basic, nil, []string{"Authorization: Basic !!"}, oauth.InvalidClient},
		"a header without a colon":                            {basic, nil, []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(basic.ClientID))}, oauth.InvalidClient},
		"an escape that is none":                              {basic, nil, []string{header(basic.ClientID, "%zz")}, oauth.InvalidClient},
		"nobody":                                              {oauth.Registration{ClientID: public}, without("client_id"), nil, oauth.InvalidClient},
		"attack 40: the registration answer's id as a secret": {post, with("client_secret", post.ClientID), nil, oauth.InvalidClient},
	} {
		t.Run(name, func(t *testing.T) {
			code, verifier := h.Code(row.client.ClientID, nil)
			form := with("grant_type", "authorization_code", "client_id", row.client.ClientID, "code", code, "code_verifier", verifier)
			for name, values := range row.form {
				form[name] = values
			}
			if row.code == "" {
				if a := h.Form("/oauth/token", form, row.headers...); a.StatusCode != http.StatusOK {
					t.Errorf("%d %s", a.StatusCode, a.Text)
				}
				return
			}
			h.unchanged(t, func() { refused(t, h.Form("/oauth/token", form, row.headers...), row.code) })
			twin := with("grant_type", "authorization_code", "client_id", row.client.ClientID, "code", code, "code_verifier", verifier)
			if row.client.ClientSecret != "" {
				twin.Set("client_secret", row.client.ClientSecret)
			}
			if a := h.Form("/oauth/token", twin); a.StatusCode != http.StatusOK {
				t.Errorf("the twin: %d %s", a.StatusCode, a.Text)
			}
		})
	}
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[s[i]>>4])+string("0123456789abcdef"[s[i]&15])))
	}
	return b.String()
}

// Attack 41: the answer does not tell an unknown client from a wrong secret.
func TestUnknownClientsAndWrongSecretsLookAlike(t *testing.T) {
	h := start(t, apptest.Dev)
	known := h.confidential("client_secret_post").ClientID
	wrong := "cs_00000000000000000000000000." + strings.Repeat("A", 43)
	ask := func(client string) (apptest.Answer, time.Duration) {
		began := time.Now()
		a := h.Form("/oauth/token", with("grant_type", "refresh_token", "client_id", client, "client_secret", wrong))
		return a, time.Since(began)
	}
	var times [2][]time.Duration
	for range 100 {
		a, took := ask(known)
		b, took2 := ask("4b5f2f8e-0000-4000-8000-000000000000")
		if a.StatusCode != b.StatusCode || a.Unreferenced() != b.Unreferenced() || len(a.Header) != len(b.Header) {
			t.Fatalf("%d %s %v\n%d %s %v", a.StatusCode, a.Text, a.Header, b.StatusCode, b.Text, b.Header)
		}
		times[0], times[1] = append(times[0], took), append(times[1], took2)
	}
	slices.Sort(times[0])
	slices.Sort(times[1])
	if a, b := times[0][50], times[1][50]; max(a, b) > 2*min(a, b)+time.Millisecond {
		t.Errorf("a known client takes %v, an unknown one %v", a, b)
	}
}

// R416, attack 124: a client revokes its own tokens, of both kinds, at once; what
// is another's is left alone, with the same answer.
func TestRevocation(t *testing.T) {
	h := start(t, apptest.Dev)
	client, other, secret := h.Register(), h.Register(), h.confidential("client_secret_post")
	revoke := func(form url.Values) apptest.Answer { return h.Form("/oauth/revoke", form) }
	for _, hint := range []string{"", "access_token", "refresh_token", "no_such_kind"} {
		t.Run("own refresh token, hint "+hint, func(t *testing.T) {
			tokens := h.tokens(client, nil)
			events := h.events("token.revoke")
			for range 3 { // what is revoked already is no event: anybody could fill the log with it
				if a := revoke(with("client_id", client, "token", tokens.RefreshToken, "token_type_hint", hint)); a.StatusCode != http.StatusOK || a.Text != "" || a.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			}
			if h.works(tokens.AccessToken) || h.events("token.revoke") != events+1 {
				t.Errorf("the access token works, or %d events", h.events("token.revoke")-events)
			}
			refused(t, h.Refresh(client, tokens.RefreshToken), oauth.InvalidGrant)
		})
		t.Run("own access token, hint "+hint, func(t *testing.T) {
			tokens := h.tokens(client, nil)
			if !h.works(tokens.AccessToken) { // so that it is among the verified ones
				t.Fatal("it does not work")
			}
			events := h.events("token.revoke")
			if a := revoke(with("client_id", client, "token", tokens.AccessToken, "token_type_hint", hint)); a.StatusCode != http.StatusOK {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			if h.works(tokens.AccessToken) || h.events("token.revoke") != events+1 {
				t.Error("it works, or is not on record")
			}
			h.refresh(client, tokens.RefreshToken)
		})
	}
	tokens := h.tokens(client, nil)
	code, _ := h.Code(client, nil)
	for name, form := range map[string]url.Values{
		"another's refresh token":          with("client_id", other, "token", tokens.RefreshToken, "token_type_hint", "refresh_token"),
		"another's access token":           with("client_id", other, "token", tokens.AccessToken, "token_type_hint", "access_token"),
		"with a secret, another's":         with("client_id", secret.ClientID, "client_secret", secret.ClientSecret, "token", tokens.RefreshToken),
		"a code":                           with("client_id", client, "token", code),
		"rubbish":                          with("client_id", client, "token", "rubbish"),
		"own refresh token, wrong secret":  with("client_id", client, "token", tokens.RefreshToken[:len(tokens.RefreshToken)-43]+strings.Repeat("A", 43)),
		"own access token, signature bent": with("client_id", client, "token", tokens.AccessToken[:len(tokens.AccessToken)-43]+strings.Repeat("A", 43)),
	} {
		t.Run(name, func(t *testing.T) {
			h.unchanged(t, func() {
				if a := revoke(form); a.StatusCode != http.StatusOK || a.Text != "" {
					t.Errorf("%d %s", a.StatusCode, a.Text)
				}
			})
		})
	}
	for name, row := range map[string]struct {
		form url.Values
		code string
	}{
		"no token":               {with("client_id", client), oauth.InvalidRequest},
		"an empty token":         {with("client_id", client, "token", ""), oauth.InvalidRequest},
		"two tokens":             {url.Values{"client_id": {client}, "token": {tokens.RefreshToken, tokens.AccessToken}}, oauth.InvalidRequest},
		"no client":              {with("token", tokens.RefreshToken), oauth.InvalidClient},
		"an unknown client":      {with("client_id", "x", "token", tokens.RefreshToken), oauth.InvalidClient},
		"a client and no secret": {with("client_id", secret.ClientID, "token", tokens.RefreshToken), oauth.InvalidClient},
	} {
		t.Run(name, func(t *testing.T) { h.unchanged(t, func() { refused(t, revoke(row.form), row.code) }) })
	}
	t.Run("in the query", func(t *testing.T) {
		h.unchanged(t, func() {
			refused(t, h.Form("/oauth/revoke?token="+tokens.RefreshToken, with("client_id", client)), oauth.InvalidRequest)
		})
	})
	if !h.works(tokens.AccessToken) || h.Refresh(client, tokens.RefreshToken).StatusCode != http.StatusOK {
		t.Error("the tokens that others tried to revoke do not work")
	}
}
