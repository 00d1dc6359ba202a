package qa

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

type grant struct {
	person string
	scopes []string
	ended  bool
}

type code struct {
	grant               *grant
	redirect, challenge string
	expires             time.Time
	used                bool
}

type access struct {
	grant   *grant
	expires time.Time
}

type refresh struct {
	grant *grant
	used  bool
}

func (s *Service) metadata(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"issuer": s.Issuer, "authorization_endpoint": s.Issuer + "/oauth/authorize", "token_endpoint": s.Issuer + "/oauth/token",
		"revocation_endpoint":      s.Issuer + "/oauth/revoke",
		"response_types_supported": []string{"code"}, "grant_types_supported": []string{"authorization_code", "refresh_token"},
		"code_challenge_methods_supported": []string{"S256"}, "scopes_supported": []string{Read, Write},
		"authorization_response_iss_parameter_supported": true,
	})
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Q&amp;A: allow access</title></head><body><main>
<h1>Let {{.Client}} use your questions and answers?</h1>
<form method="post" action="/oauth/authorize">
{{range $name, $value := .Hidden}}<input type="hidden" name="{{$name}}" value="{{$value}}">
{{end}}<p><label for="person">You are</label> <select id="person" name="person">{{range .People}}<option>{{.}}</option>{{end}}</select></p>
{{range .Scopes}}<p><label><input type="checkbox" name="allow" value="{{.}}" checked> {{.}}</label></p>
{{end}}<p><button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Don’t allow</button></p>
</form></main></body></html>
`))

// registered reports whether the request comes from the client and goes back to it.
func (s *Service) registered(q url.Values) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return q.Get("client_id") == s.client.ID && q.Get("redirect_uri") == s.client.Redirect
}

func (s *Service) ask(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !s.registered(q) {
		http.Error(w, "this app is not registered here, or not with this address", http.StatusBadRequest)
		return
	}
	if q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" {
		s.back(w, r, q, url.Values{"error": {"invalid_request"}})
		return
	}
	hidden := map[string]string{}
	for _, name := range []string{"client_id", "redirect_uri", "state", "code_challenge"} {
		hidden[name] = q.Get(name)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, map[string]any{ // the caller is gone
		"Client": q.Get("client_id"), "Hidden": hidden, "People": slices.Sorted(maps.Keys(Teams)), "Scopes": strings.Fields(q.Get("scope")),
	})
}

// decide makes a code for what the person allowed.
func (s *Service) decide(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || !s.registered(r.PostForm) || Teams[r.PostForm.Get("person")] == "" {
		http.Error(w, "the form can't be used", http.StatusBadRequest)
		return
	}
	q := r.PostForm
	if q.Get("decision") != "allow" {
		s.back(w, r, q, url.Values{"error": {"access_denied"}})
		return
	}
	scopes := slices.DeleteFunc(q["allow"], func(scope string) bool { return scope != Read && scope != Write })
	text := random("code-")
	s.mu.Lock()
	s.codes[text] = &code{&grant{person: q.Get("person"), scopes: scopes}, q.Get("redirect_uri"), q.Get("code_challenge"), time.Now().Add(time.Minute), false}
	s.mu.Unlock()
	s.back(w, r, q, url.Values{"code": {text}})
}

func (s *Service) back(w http.ResponseWriter, r *http.Request, q, with url.Values) {
	with.Set("iss", s.Issuer)
	with.Set("state", q.Get("state"))
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+with.Encode(), http.StatusSeeOther)
}

func (s *Service) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.ParseForm(); err != nil || id != s.client.ID || secret != s.client.Secret {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	var g *grant
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		g = s.redeem(r.PostForm)
	case "refresh_token":
		g = s.rotate(r.PostForm.Get("refresh_token"))
	}
	if g == nil || g.ended {
		refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	a, next := random("qa-access-"), random("qa-refresh-")
	s.access[a], s.refresh[next] = access{g, time.Now().Add(s.AccessLife)}, &refresh{grant: g}
	answer(w, http.StatusOK, map[string]any{
		"access_token": a, "token_type": "Bearer", "expires_in": int(s.AccessLife / time.Second), "refresh_token": next, "scope": strings.Join(g.scopes, " "),
	})
}

// revoke ends the grant of a token, whichever kind it is (RFC 7009). One that is not
// known is not honoured anyway.
func (s *Service) revoke(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.ParseForm(); err != nil || id != s.client.ID || secret != s.client.Secret {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	text := r.PostForm.Get("token")
	if a, known := s.access[text]; known {
		a.grant.ended = true
	}
	if t := s.refresh[text]; t != nil {
		t.grant.ended = true
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Service) redeem(form url.Values) *grant {
	c := s.codes[form.Get("code")]
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if c == nil || c.used || time.Now().After(c.expires) || c.redirect != form.Get("redirect_uri") || c.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		return nil
	}
	c.used = true
	s.grants = append(s.grants, c.grant)
	return c.grant
}

// rotate spends a refresh token. One that was spent before ends the grant: somebody
// else may have it.
func (s *Service) rotate(text string) *grant {
	t := s.refresh[text]
	if t == nil {
		return nil
	}
	if t.used {
		t.grant.ended = true
	}
	t.used = true
	return t.grant
}
