package attacks_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 8, consent: nobody but the person says yes, to nobody but the app that was
// shown, and once.
func TestConsent(t *testing.T) { attack(t, consentRows()) }

// oneVerifier is for races, which do not care.
const oneVerifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

// posting is an answered consent form as a browser would post it, with other
// headers and cookies.
func (w *world) posting(b *apptest.Browser, form url.Values, headers ...string) *http.Request {
	r := w.form("/consent", form, append(headers, "Accept: text/html")...)
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r
}

func consentRows() []row {
	ours := func(w *world) []string { return []string{"Origin: " + w.URL, "Sec-Fetch-Site: same-origin"} }
	foreignForm := page(http.StatusForbidden, "POST /consent refused: FORM_FOREIGN")
	unknownFlow := page(http.StatusForbidden, "POST /consent refused: FLOW_UNKNOWN")
	var rows []row
	for _, r := range []struct {
		number int
		name   string
		want   want
		attack func(w *world, b *apptest.Browser, form url.Values) *http.Request
	}{
		{60, "without cookies", foreignForm, func(w *world, _ *apptest.Browser, form url.Values) *http.Request {
			return w.posting(w.Browser(), form, ours(w)...)
		}},
		{60, "without the cookie of the request", unknownFlow, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			other := *b
			other.Cookies = maps.Clone(b.Cookies)
			maps.DeleteFunc(other.Cookies, func(name, _ string) bool { return strings.Contains(name, "flow_") })
			return w.posting(&other, form, ours(w)...)
		}},
		{60, "without a form token", foreignForm, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			return w.posting(b, edit(form, without("csrf")), ours(w)...)
		}},
		{60, "with another form token", foreignForm, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			return w.posting(b, edit(form, with("csrf", apptest.Fields(w.bob.Open("/login?switch=1").Text).Get("csrf"))), ours(w)...)
		}},
		{60, "with a foreign handle", unknownFlow, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			q, _ := w.query(w.pubA, nil)
			return w.posting(b, edit(form, with("request", w.asked(w.bob, q).Get("request"))), ours(w)...)
		}},
		{60, "with a handle that is none", unknownFlow, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			return w.posting(b, edit(form, with("request", "flow_00000000000000000000000000")), ours(w)...)
		}},
		{60, "from another site", foreignForm, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			return w.posting(b, form, "Origin: https://evil.example")
		}},
		{60, "from another site, as the browser says", foreignForm, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			return w.posting(b, form, "Sec-Fetch-Site: cross-site")
		}},
		{60, "from a site beside ours", foreignForm, func(w *world, b *apptest.Browser, form url.Values) *http.Request {
			return w.posting(b, form, "Origin: http://localhost:1", "Sec-Fetch-Site: same-site")
		}},
		{61, "opened here, posted in another browser of the same person", foreignForm, func(w *world, _ *apptest.Browser, form url.Values) *http.Request {
			return w.posting(w.signIn(apptest.Owner), form, ours(w)...)
		}},
		{61, "opened by alice, posted in bob's browser", foreignForm, func(w *world, _ *apptest.Browser, form url.Values) *http.Request {
			return w.posting(w.bob, form, ours(w)...)
		}},
	} {
		rows = append(rows, row{number: r.number, name: r.name, want: r.want, story: func(w *world) {
			q, _ := w.query(w.pubA, nil)
			form := w.asked(w.alice, q)
			attack := r.attack(w, w.alice, form)
			w.refused(r.want, attack)
			if target := apptest.Target(w.alice.Submit("/consent", form).Text); target == nil || target.Query().Get("code") == "" {
				w.t.Errorf("the twin: %v", target)
			} else {
				w.keep("the code", target.Query().Get("code"))
			}
		}})
	}
	return append(rows,
		row{number: 59, name: "a client of the attacker's with the name of one that was allowed", story: func(w *world) {
			p := w.registered(`{"client_name":"Popular","redirect_uris":["https://b.example/cb"]}`)
			w.tokens(w.alice, p, nil)
			for _, uri := range []string{"https://evil.example/cb", "https://b.example/cb", "http://127.0.0.1/cb", "cursor://anysphere.cursor-mcp/oauth/callback"} {
				newF := w.registered(`{"client_name":"Popular","redirect_uris":["` + uri + `"]}`)
				q, _ := w.query(newF, nil)
				w.asked(w.alice, q)
				q, _ = w.query(newF, with("prompt", "none"))
				r := w.authorize(q)
				for name, value := range w.alice.Cookies {
					r.AddCookie(&http.Cookie{Name: name, Value: value})
				}
				code := oauth.ConsentRequired
				if !strings.HasPrefix(uri, "https://") {
					code = oauth.InteractionRequired
				}
				w.refused(redirect(code), r)
			}
		}},
		row{number: 61, name: "opened by alice, posted after bob signed in on the same browser", story: func(w *world) {
			b := w.signIn(apptest.Owner)
			q, _ := w.query(w.pubA, nil)
			form := w.asked(b, q)
			switched := apptest.Fields(b.Open("/login?switch=1").Text)
			switched.Set("email", "bob@acme.example")
			b.Submit("/login", switched)
			b.UseLink()
			w.keepBrowser(b)
			w.refused(foreignForm, w.posting(b, form, ours(w)...))
		}},
		row{number: 64, name: "every page keeps out of frames and caches, and tells nobody where one came from", story: func(w *world) {
			q, _ := w.query(w.pubA, nil)
			consent := w.alice.Open("/oauth/authorize?" + q.Encode())
			form := w.asked(w.alice, q)
			for name, a := range map[string]apptest.Answer{
				"consent": consent, "hand-back": w.alice.Submit("/consent", form), "sign-in": w.Get("/login"), "link": w.Get("/login/link?token=x"), "front": w.Get("/"), "mine": w.alice.Open("/me"),
				"mine, signed out": w.Browser().Open("/me"), "unknown": w.Get("/nothing"), "error": w.Get("/oauth/authorize"), "foreign": w.Get("/consent/x"), "signed in": w.alice.Open("/login"),
			} {
				csp := a.Header.Get("Content-Security-Policy")
				if a.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(csp, "frame-ancestors 'none'") || a.Header.Get("X-Frame-Options") != "DENY" ||
					a.Header.Get("Referrer-Policy") != "no-referrer" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("X-Content-Type-Options") != "nosniff" ||
					strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
					w.t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
				}
			}
			w.counted["GET /oauth/authorize refused: AUTHORIZE_REQUEST_UNREADABLE"]++
			w.counted["GET /consent/{flow} refused: FLOW_UNKNOWN"]++
		}},
		row{number: 65, name: "what is remembered is what was allowed, and nothing near it", story: func(w *world) {
			p := w.registered(`{"client_name":"Remembered","redirect_uris":["https://r.example/cb","https://r.example/other"]}`)
			asked := edit(w.resource(atA), with("scope", "a:read"))
			w.tokens(w.alice, p, asked)
			remembered := func(b *apptest.Browser, p party, change url.Values) bool {
				q, _ := w.query(p, change)
				a := b.Open("/oauth/authorize?" + q.Encode())
				if code := sentWith(a).Get("code"); code != "" {
					w.keep("the code", code)
					return true
				}
				if apptest.Fields(a.Text).Get("request") == "" {
					w.t.Errorf("neither: %d %v %s", a.StatusCode, a.Header, a.Text)
				}
				return false
			}
			if !remembered(w.alice, p, asked) {
				w.t.Error("the same is asked again")
			}
			for name, change := range map[string]url.Values{
				"more scopes": edit(asked, with("scope", "a:read a:write")), "all scopes": edit(asked, without("scope")), "wider scopes": edit(asked, with("scope", "mcp:admin")),
				"another resource": edit(asked, w.resource(atAB)), "the common endpoint": edit(asked, without("resource")), "another redirect URI": edit(asked, with("redirect_uri", "https://r.example/other")),
				"asking to be asked": edit(asked, with("prompt", "consent")),
			} {
				if remembered(w.alice, p, change) {
					w.t.Errorf("%s: nobody was asked", name)
				}
			}
			b := w.signIn(apptest.Owner) // alice, who leaves
			if !remembered(b, p, asked) {
				w.t.Error("the same is asked again in another browser")
			}
			form := apptest.Fields(b.Open("/login?switch=1").Text)
			form.Set("email", "bob@acme.example")
			b.Submit("/login", form)
			b.UseLink()
			w.keepBrowser(b)
			if remembered(b, p, asked) {
				w.t.Error("bob was not asked, after alice on the same browser")
			}
			if a := w.Do(w.manage(http.MethodPut, p.id, p.manage, `{"client_name":"Remembered","redirect_uris":["https://r.example/cb","https://evil.example/cb"]}`)); a.StatusCode != http.StatusOK {
				w.t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			if remembered(w.alice, p, asked) {
				w.t.Error("nobody was asked, after the client changed")
			}
		}},
		row{number: 65, name: "a program on this computer is never remembered", story: func(w *world) {
			for range 2 {
				q, _ := w.query(w.pubA, nil)
				form := w.asked(w.alice, q)
				form.Del("started")
				if a := w.alice.Submit("/consent", form); apptest.Target(a.Text) != nil || a.StatusCode != http.StatusBadRequest {
					w.t.Errorf("allowed without saying that one started it: %d", a.StatusCode)
				}
				w.tokens(w.alice, w.pubA, nil)
			}
		}},
		row{number: 65, name: "less is less, at once and for all that was allowed before", story: func(w *world) {
			p := w.registered(`{"client_name":"Less","redirect_uris":["https://l.example/cb"]}`)
			both, ask := edit(w.resource(atA), with("scope", "a:read a:write")), edit(w.resource(atA), with("scope", "a:read a:write", "prompt", "consent"))
			wide := w.tokens(w.alice, p, both)
			code, verifier := w.code(w.alice, p, both)
			narrow := w.tokens(w.alice, p, edit(both, with("scope", "a:read")))
			w.alive(wide)
			q, _ := w.query(p, ask)
			form := w.asked(w.alice, q)
			if form.Get("scope:a:write") != "yes" {
				w.t.Fatalf("%v", form)
			}
			form.Del("scope:a:write")
			less := sentWith(w.alice.Submit("/consent", form))
			w.keep("the code", less.Get("code"))
			w.dead(p, wide, "its family is revoked")
			w.refused(token(oauth.InvalidGrant, "it has expired"), w.redemption(p, code, verifier, nil))
			w.alive(narrow)
			w.alive(w.refresh(p, narrow.RefreshToken))
			q, _ = w.query(p, both)
			w.asked(w.alice, q) // what was taken back is asked anew
		}},
		row{number: 65, name: "a form that says more than was asked", story: func(w *world) {
			p := w.registered(`{"client_name":"More","redirect_uris":["https://more.example/cb"]}`)
			q, verifier := w.query(p, edit(w.resource(atA), with("scope", "a:read")))
			form := w.asked(w.alice, q)
			for _, scope := range []string{"a:write", "a:admin", "mcp:admin", "ab:read", "apps:write"} {
				form.Set("scope:"+scope, "yes")
			}
			for name, value := range map[string]string{"scope": "mcp:admin", "scopes": "mcp:admin", "resource": w.URL + "/mcp", "redirect_uri": "https://evil.example/cb", "client_id": w.pubA.id, "user": "usr_bob"} {
				form.Set(name, value)
			}
			answer := sentWith(w.alice.Submit("/consent", form))
			tokens := w.granted(w.Do(w.redemption(p, w.keep("the code", answer.Get("code")), verifier, nil)))
			c := claims(w.t, tokens.AccessToken)
			if tokens.Scope != "a:read" || c["scope"] != "a:read" || c["aud"] != w.URL+atA || c["client_id"] != p.id || c["sub"] == "usr_bob" {
				w.t.Errorf("%v", c)
			}
			form = w.asked(w.alice, edit(q, with("prompt", "consent")))
			form.Set("keep", "forever")
			if a := w.alice.Submit("/consent", form); sentWith(a).Has("code") || a.StatusCode != http.StatusBadRequest {
				w.t.Errorf("a time that is none of the choices: %d", a.StatusCode)
			}
		}},
		row{number: 65, name: "what is remembered, used while it is withdrawn, over all nodes", story: func(w *world) {
			for round := range 4 {
				p := w.registered(`{"client_name":"Recall","redirect_uris":["https://recall.example/cb"]}`)
				w.tokens(w.alice, p, nil)
				answers := apptest.Together(32, func(i int) apptest.Answer {
					if i == 16 {
						w.withdraw(round, p)
						return apptest.Answer{}
					}
					b := *w.alice
					b.Cookies = maps.Clone(w.alice.Cookies)
					q := url.Values{
						"client_id": {p.id}, "response_type": {"code"}, "redirect_uri": {p.redirect}, "code_challenge": {oauth.Challenge(oneVerifier)}, "code_challenge_method": {"S256"},
					}
					code := sentWith(b.Open("/oauth/authorize?" + q.Encode())).Get("code")
					if code == "" {
						return apptest.Answer{} // the person was asked
					}
					return w.at(i, w.redemption(p, code, oneVerifier, nil))
				})
				for _, a := range answers {
					switch {
					case a.Response == nil:
					case a.StatusCode == http.StatusOK:
						w.dead(p, w.granted(a), "its family is revoked")
					case a.Error() == oauth.InvalidGrant:
						w.countAny("/oauth/token refused: invalid_grant, ", "it has expired", "it ended while it was redeemed", "the consent has ended")
					default:
						w.t.Errorf("%d %s", a.StatusCode, a.Text)
					}
				}
				if n := w.Count(`SELECT count(*) FROM token_family WHERE client = $1 AND revoked_at IS NULL`, p.id); n > 0 {
					w.t.Errorf("%d families live on", n)
				}
			}
		}},
		row{number: 65, name: "a wide and a narrow yes at once leave no token wider than the consent", story: func(w *world) {
			for range 4 {
				p := w.registered(`{"client_name":"Race","redirect_uris":["https://race.example/cb"]}`)
				var forms []url.Values
				var verifiers []string
				for i := range 8 {
					q, verifier := w.query(p, edit(w.resource(atA), with("scope", "a:read a:write", "prompt", "consent")))
					form := w.asked(w.alice, q)
					if i%2 == 1 {
						form.Del("scope:a:write")
					}
					forms, verifiers = append(forms, form), append(verifiers, verifier)
				}
				codes := apptest.Together(len(forms), func(i int) string {
					b := *w.alice
					b.Cookies = maps.Clone(w.alice.Cookies)
					return sentWith(b.Submit("/consent", forms[i])).Get("code")
				})
				answers := apptest.Together(len(codes), func(i int) apptest.Answer { return w.at(i, w.redemption(p, codes[i], verifiers[i], nil)) })
				for i, a := range answers {
					w.keep("the code", codes[i])
					switch {
					case a.StatusCode == http.StatusOK:
						w.granted(a)
					case a.Error() == oauth.InvalidGrant:
						w.countAny("/oauth/token refused: invalid_grant, ", "it has expired", "it ended while it was redeemed", "the consent covers less")
					default:
						w.t.Errorf("%d %s", a.StatusCode, a.Text)
					}
				}
				if n := w.Count(`SELECT count(*) FROM consent WHERE client = $1 AND ended_at IS NULL`, p.id); n != 1 {
					w.t.Errorf("%d consents", n)
				}
				wide := w.Count(`SELECT count(*) FROM consent WHERE client = $1 AND ended_at IS NULL AND scopes LIKE '%a:write%'`, p.id)
				if n := w.Count(`SELECT count(*) FROM token_family WHERE client = $1 AND revoked_at IS NULL AND scopes LIKE '%a:write%'`, p.id); n > 0 && wide == 0 {
					w.t.Errorf("%d families hold more than is allowed", n)
				}
			}
		}},
		row{number: 60, name: "a person's own page, from elsewhere and by others", story: func(w *world) {
			p := w.registered(`{"client_name":"Mine","redirect_uris":["https://mine.example/cb"]}`)
			tokens := w.tokens(w.alice, p, nil)
			form := url.Values{"id": {w.consent(p)}, "csrf": {apptest.Fields(w.alice.Open("/me").Text).Get("csrf")}}
			bobs := url.Values{"id": {w.consent(p)}, "csrf": {apptest.Fields(w.bob.Open("/me").Text).Get("csrf")}}
			post := func(b *apptest.Browser, path string, form url.Values, headers ...string) *http.Request {
				r := w.posting(b, form, headers...)
				r.URL.Path = path
				return r
			}
			for _, path := range []string{"/me/remove", "/me/stop", "/me/sign-out"} {
				foreign := page(http.StatusForbidden, "POST "+path+" refused: FORM_FOREIGN")
				w.refused(foreign, post(w.alice, path, form, "Origin: https://evil.example"))
				w.refused(foreign, post(w.alice, path, form, "Sec-Fetch-Site: cross-site"))
				w.refused(foreign, post(w.alice, path, without("csrf"), ours(w)...))
				w.refused(foreign, post(w.alice, path, bobs, ours(w)...))
				w.refused(foreign, post(w.Browser(), path, form, ours(w)...))
			}
			w.bob.Submit("/me/remove", bobs) // which is none of his
			w.alive(tokens)
			if a := w.bob.Open("/me"); strings.Contains(a.Text, "mine.example") {
				w.t.Error("bob sees what alice allowed")
			}
			w.alice.Submit("/me/remove", form)
			if !w.gone(0, tokens.AccessToken) {
				w.t.Error("it was not refused at once")
			}
		}},
		row{number: 67, name: "no is no", story: func(w *world) {
			q, _ := w.query(w.pubA, nil)
			form := w.asked(w.alice, q)
			consents, codes := w.Count(`SELECT count(*) FROM consent`), w.Count(`SELECT count(*) FROM authorization_code`)
			form.Set("decision", "deny")
			target := apptest.Target(w.alice.Submit("/consent", form).Text)
			if target == nil || target.Query().Get("error") != oauth.AccessDenied || target.Query().Get("state") != state {
				w.t.Errorf("%v", target)
			}
			form.Set("decision", "allow") // what was answered stays answered
			if a := w.alice.Submit("/consent", form); sentWith(a).Has("code") || strings.Contains(a.Text, "code=") {
				w.t.Errorf("%v %s", a.Header, a.Text)
			}
			if w.Count(`SELECT count(*) FROM consent`) != consents || w.Count(`SELECT count(*) FROM authorization_code`) != codes {
				w.t.Error("something was granted")
			}
		}},
		row{number: 69, name: "two tabs, and a double click", story: func(w *world) {
			var forms []url.Values
			for range 2 {
				q, _ := w.query(w.pubA, nil)
				forms = append(forms, w.asked(w.alice, q))
			}
			codes := map[string]bool{}
			for _, form := range forms {
				before := w.Count(`SELECT count(*) FROM authorization_code`)
				answers := apptest.Together(8, func(int) apptest.Answer {
					b := *w.alice
					b.Cookies = maps.Clone(w.alice.Cookies)
					return b.Submit("/consent", form)
				})
				for _, a := range answers {
					target := apptest.Target(a.Text)
					if target == nil || target.Query().Get("code") == "" {
						if !strings.Contains(a.Text, "code=") {
							w.t.Errorf("a click went nowhere: %d %s", a.StatusCode, a.Text)
						}
						continue
					}
					codes[w.keep("the code", target.Query().Get("code"))] = true
				}
				if n := w.Count(`SELECT count(*) FROM authorization_code`); n != before+1 {
					w.t.Errorf("%d codes", n-before)
				}
			}
			if len(codes) != 2 {
				w.t.Errorf("%d codes for two tabs", len(codes))
			}
		}})
}
