package attacks_test

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 4, the authorization code: it works once, for the client it was made for.
func TestCode(t *testing.T) { attack(t, codeRows()) }

// replayed is the answer to a code that came back.
var replayed = want{
	status: http.StatusBadRequest, error: oauth.InvalidGrant, reason: "token.replay TOKEN_REPLAYED", check: token(oauth.InvalidGrant, "it was used before").check,
}

func codeRows() []row {
	rows := []row{
		{number: 23, name: "redeemed again after success, refresh and all", story: func(w *world) {
			bystander := w.tokens(w.alice, w.pubA, nil)
			for name, again := range map[string]func(code, verifier string) *http.Request{
				"the same request":      func(code, verifier string) *http.Request { return w.redemption(w.pubA, code, verifier, nil) },
				"with another verifier": func(code, _ string) *http.Request { return w.redemption(w.pubA, code, oauth.NewVerifier(), nil) },
				"for another resource": func(code, verifier string) *http.Request {
					return w.redemption(w.pubA, code, verifier, with("resource", w.URL+"/s/a/mcp"))
				},
			} {
				code, verifier := w.code(w.alice, w.pubA, nil)
				tokens := w.granted(w.Do(w.redemption(w.pubA, code, verifier, nil)))
				later := w.refresh(w.pubA, tokens.RefreshToken)
				w.alive(tokens)
				w.alive(later)
				told := strings.Count(w.printed(), "its sign-in was used twice")
				if a := w.refusedWhatever(replayed, again(code, verifier)); a.StatusCode == http.StatusOK {
					w.t.Error(name)
				}
				if n := strings.Count(w.printed(), "its sign-in was used twice"); n != told+1 {
					w.t.Errorf("%s: the person was told %d times", name, n-told)
				}
				w.dead(w.pubA, tokens, "its family is revoked")
				w.dead(w.pubA, later, "its family is revoked")
			}
			w.alive(bystander)
			w.refresh(w.pubA, bystander.RefreshToken)
		}},
		{number: 24, name: "64 at once, over all nodes", story: func(w *world) {
			for range 2 {
				code, verifier := w.code(w.alice, w.pubA, nil)
				families := w.Count(`SELECT count(*) FROM token_family`)
				answers := apptest.Together(64, func(i int) apptest.Answer { return w.at(i, w.redemption(w.pubA, code, verifier, nil)) })
				var won []oauth.TokenResponse
				for _, a := range answers {
					if a.StatusCode == http.StatusOK {
						won = append(won, w.granted(a))
					} else if a.StatusCode != http.StatusBadRequest || a.Error() != oauth.InvalidGrant {
						w.t.Errorf("%d %s", a.StatusCode, a.Text)
					}
				}
				if len(won) != 1 || w.Count(`SELECT count(*) FROM token_family`) != families+1 {
					w.t.Fatalf("%d winners", len(won))
				}
				w.dead(w.pubA, won[0], "its family is revoked") // the others were replays: one has the event, and the rest changed nothing
				w.counted["/oauth/token refused: invalid_grant, it was used before"] += 62
			}
		}},
		{number: 26, name: "a wrong secret part of a code that was used revokes nothing", story: func(w *world) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			tokens := w.granted(w.Do(w.redemption(w.pubA, code, verifier, nil)))
			w.refused(token(oauth.InvalidGrant, "its secret is wrong"), w.redemption(w.pubA, spoilt(code), verifier, nil))
			w.refused(token(oauth.InvalidGrant, "it does not have the form of a code"), w.redemption(w.pubA, code[:len(code)-1], verifier, nil))
			w.refused(token(oauth.InvalidGrant, "it was made for another client"), w.redemption(w.pubB, code, verifier, nil))
			w.alive(tokens)
			w.refresh(w.pubA, tokens.RefreshToken)
		}},
		{number: 27, name: "after its life", story: func(w *world) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			id, _, _ := strings.Cut(code, ".")
			w.SQL(`UPDATE authorization_code SET expires_at = expires_at - 120000000 WHERE id = $1`, id)
			w.refused(token(oauth.InvalidGrant, "it has expired"), w.redemption(w.pubA, code, verifier, nil))
			w.SQL(`UPDATE authorization_code SET expires_at = expires_at + 120000000 WHERE id = $1`, id)
			w.works(w.redemption(w.pubA, code, verifier, nil))
		}},
		{number: 29, name: "the person is suspended meanwhile", story: func(w *world) {
			code, verifier := w.code(w.bob, w.pubA, nil)
			w.SQL(`UPDATE member SET status = 'suspended' WHERE user_id = 'usr_bob'`)
			w.refused(token(oauth.InvalidGrant, "the person is no active member"), w.redemption(w.pubA, code, verifier, nil))
			w.SQL(`UPDATE member SET status = 'active' WHERE user_id = 'usr_bob'`)
			w.works(w.redemption(w.pubA, code, verifier, nil))
		}},
		{number: 29, name: "the consent is withdrawn meanwhile", story: func(w *world) {
			for i := range len(w.nodes) {
				p := w.register("https://w.example/cb")
				code, verifier := w.code(w.alice, p, nil)
				w.withdraw(i, p)
				w.refused(token(oauth.InvalidGrant, "it has expired"), w.redemption(p, code, verifier, nil))
				w.tokens(w.alice, p, nil) // allowed anew
			}
		}},
		{number: 29, name: "the client is removed meanwhile", story: func(w *world) {
			p := w.register("https://w.example/cb")
			code, verifier := w.code(w.alice, p, nil)
			if a := w.Do(w.manage(http.MethodDelete, p.id, p.manage)); a.StatusCode != http.StatusNoContent {
				w.t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			w.refused(token(oauth.InvalidClient, "there is no such client"), w.redemption(p, code, verifier, nil))
		}},
		{number: 29, name: "the consent is withdrawn while 64 are redeemed and refreshed, over all nodes", story: func(w *world) {
			for round := range 4 {
				p := w.register("https://w.example/cb")
				first := w.tokens(w.alice, p, nil)
				type exchange struct{ code, verifier string }
				var codes []exchange
				for range 8 {
					code, verifier := w.code(w.alice, p, nil)
					codes = append(codes, exchange{code, verifier})
				}
				answers := apptest.Together(64, func(i int) apptest.Answer {
					switch {
					case i == 32:
						w.withdraw(round, p)
						return apptest.Answer{}
					case i%8 == 0:
						return w.at(i/8, w.redemption(p, codes[i/8].code, codes[i/8].verifier, nil))
					}
					return w.at(i, w.refreshing(p, first.RefreshToken, nil))
				})
				for i, a := range answers {
					switch {
					case i == 32:
					case a.StatusCode == http.StatusOK:
						w.dead(p, w.granted(a), "its family is revoked")
					case a.Error() == oauth.InvalidGrant:
						w.countAny("/oauth/token refused: invalid_grant, ", "it has expired", "it ended while it was redeemed", "its family is revoked", "its family was just revoked, or its window just ended", "the consent has ended")
					default:
						w.t.Errorf("%d %s", a.StatusCode, a.Text)
					}
				}
				w.dead(p, first, "its family is revoked")
				if n := w.Count(`SELECT count(*) FROM token_family WHERE client = $1 AND revoked_at IS NULL`, p.id); n > 0 {
					w.t.Errorf("%d families live on", n)
				}
			}
		}},
		{number: 30, name: "a form of browsers with files", want: token(oauth.InvalidRequest, ""), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			var body bytes.Buffer
			m := multipart.NewWriter(&body)
			for name, value := range map[string]string{"grant_type": "authorization_code", "client_id": w.pubA.id, "code": code, "code_verifier": verifier} {
				_ = m.WriteField(name, value) // into memory
			}
			_ = m.Close()
			return w.Request(http.MethodPost, "/oauth/token", body.String(), "Content-Type: "+m.FormDataContentType()), w.redemption(w.pubA, code, verifier, nil)
		}},
	}
	for name, change := range map[string]url.Values{
		"the parameters in the query":      nil,
		"one parameter in the query":       without("code"),
		"in the query as well as the body": with("grant_type", "authorization_code"),
	} {
		rows = append(rows, row{number: 30, name: name, want: token(oauth.InvalidRequest, ""), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			all := url.Values{"grant_type": {"authorization_code"}, "client_id": {w.pubA.id}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {w.pubA.redirect}}
			body := url.Values{}
			if change != nil {
				body = edit(all, change)
			}
			return w.form("/oauth/token?"+all.Encode(), body), w.redemption(w.pubA, code, verifier, nil)
		}})
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		rows = append(rows, row{number: 30, name: "by " + method, want: plain(http.StatusMethodNotAllowed, ""), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			good := w.redemption(w.pubA, code, verifier, nil)
			body := "grant_type=authorization_code&client_id=" + w.pubA.id + "&code=" + code + "&code_verifier=" + verifier
			bad := w.Request(method, "/oauth/token", body, "Content-Type: application/x-www-form-urlencoded")
			if method == http.MethodGet || method == http.MethodHead {
				bad = w.Request(method, "/oauth/token?"+body, "")
			}
			return bad, good
		}})
	}
	for name, body := range map[string]func(code, verifier string) string{
		"a member twice": func(c, v string) string {
			return `{"grant_type":"authorization_code","code":"` + c + `","code":"x","code_verifier":"` + v + `","client_id":"%s"}`
		},
		"a list for the code": func(c, v string) string {
			return `{"grant_type":"authorization_code","code":["` + c + `"],"code_verifier":"` + v + `","client_id":"%s"}`
		},
		"an object for the code": func(c, v string) string {
			return `{"grant_type":"authorization_code","code":{"$ne":""},"code_verifier":"` + v + `","client_id":"%s"}`
		},
		"true for the verifier": func(c, _ string) string {
			return `{"grant_type":"authorization_code","code":"` + c + `","code_verifier":true,"client_id":"%s"}`
		},
		"a list of requests": func(c, v string) string {
			return `[{"grant_type":"authorization_code","code":"` + c + `","code_verifier":"` + v + `","client_id":"%s"}]`
		},
		"junk after it": func(c, v string) string {
			return `{"grant_type":"authorization_code","code":"` + c + `","code_verifier":"` + v + `","client_id":"%s"} x`
		},
		"a NUL in a member": func(c, v string) string {
			return `{"grant_type":"authorization_code","code":"` + c + `","code_verifier":"` + v + `","client_id":"%s","x":"\u0000"}`
		},
		"nested a thousand times": func(c, v string) string {
			return `{"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"code":"` + c + `","code_verifier":"` + v + `","client_id":"%s"}`
		},
	} {
		rows = append(rows, row{number: 30, name: "as JSON with " + name, want: token(oauth.InvalidRequest, ""), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			good := `{"grant_type":"authorization_code","code":"` + code + `","code_verifier":"` + verifier + `","client_id":"` + w.pubA.id + `","resource":["` + w.URL + `/mcp"],"scope":null}`
			return w.json("/oauth/token", strings.Replace(body(code, verifier), "%s", w.pubA.id, 1)), w.json("/oauth/token", good)
		}})
	}
	for _, media := range []string{
		"", "text/plain", "text/plain; application/x-www-form-urlencoded", "application/x-www-form-urlencoded-x", "x-application/x-www-form-urlencoded",
		"application/x-www-form-urlencoded, text/plain", "multipart/form-data", "application/jsonp", "application/x-www-form-urlencoded;;x",
	} {
		rows = append(rows, row{number: 30, name: "as " + media, want: token(oauth.InvalidRequest, ""), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			bad := w.redemption(w.pubA, code, verifier, nil)
			bad.Header.Set("Content-Type", media)
			return bad, w.redemption(w.pubA, code, verifier, nil)
		}})
	}
	for _, r := range []struct {
		number int
		name   string
		want   want
		thief  func(w *world) party
	}{
		{25, "by another public client", token(oauth.InvalidGrant, "it was made for another client"), func(w *world) party { return w.pubB }},
		{25, "by another client with its secret", token(oauth.InvalidGrant, "it was made for another client"), func(w *world) party { return w.secC }},
		{25, "by a client that has just registered", token(oauth.InvalidGrant, "it was made for another client"), func(w *world) party { return w.register("http://127.0.0.1/cb") }},
		{25, "by nobody", token(oauth.InvalidClient, "there is no such client"), func(w *world) party { return party{id: "nobody"} }},
	} {
		rows = append(rows, row{number: r.number, name: r.name, want: r.want, build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			thief := r.thief(w)
			thief.redirect = w.pubA.redirect
			return w.redemption(thief, code, verifier, nil), w.redemption(w.pubA, code, verifier, nil)
		}})
	}
	for _, r := range []struct {
		name, why string
		change    func(code string) string
	}{
		{"a wrong secret part", "its secret is wrong", spoilt},
		{"a secret part cut short", "it does not have the form of a code", func(code string) string { return code[:len(code)-1] }},
		{"a secret part too long", "it does not have the form of a code", func(code string) string { return code + "A" }},
		{"no secret part", "it does not have the form of a code", func(code string) string { return strings.Split(code, ".")[0] }},
		{"an empty secret part", "it does not have the form of a code", func(code string) string { return strings.Split(code, ".")[0] + "." }},
		{"an unknown id", "there is none with this id", func(code string) string { return "code_00000000000000000000000000" + code[strings.Index(code, "."):] }},
		{"another kind", "it does not have the form of a code", func(code string) string { return "rt_" + strings.TrimPrefix(code, "code_") }},
		{"in capitals", "it does not have the form of a code", strings.ToUpper},
		{"a pattern of SQL", "it does not have the form of a code", func(code string) string { return "code_%" + code[6:] + "' OR '1'='1" }},
	} {
		rows = append(rows, row{number: 26, name: r.name, want: token(oauth.InvalidGrant, r.why), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			return w.redemption(w.pubA, r.change(code), verifier, nil), w.redemption(w.pubA, code, verifier, nil)
		}})
	}
	for _, r := range []struct {
		name, code string
		change     func(w *world) url.Values
	}{
		{"for another resource", oauth.InvalidTarget, func(w *world) url.Values { return with("resource", w.URL+"/s/a/mcp") }},
		{"for a foreign resource", oauth.InvalidTarget, func(w *world) url.Values { return with("resource", "https://evil.example/mcp") }},
		{"for the right one and another", oauth.InvalidTarget, func(w *world) url.Values { return with("resource", w.URL+"/mcp", "resource", w.URL+"/s/a/mcp") }},
		{"with a wider scope", oauth.InvalidScope, func(*world) url.Values { return with("scope", "mcp:tools mcp:admin") }},
		{"with a scope that cannot be one", oauth.InvalidScope, func(*world) url.Values { return with("scope", `mcp:tools "`) }},
	} {
		rows = append(rows, row{number: 28, name: r.name, want: token(r.code, ""), build: func(w *world) (*http.Request, *http.Request) {
			code, verifier := w.code(w.alice, w.pubA, nil)
			return w.redemption(w.pubA, code, verifier, r.change(w)), w.redemption(w.pubA, code, verifier, nil)
		}})
	}
	return rows
}

// spoilt is a split token with another secret part.
func spoilt(split string) string { return split[:len(split)-43] + strings.Repeat("A", 43) }
