package attacks_test

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

func TestLeakage(t *testing.T) { attack(t, leakRows()) }

// probe is text that would run if a page took it as it is.
const probe = `"'><script>alert(1)</script><img src=x onerror=alert(2)>`

// leakRows are group 19. That no secret of any suite is in the log or in the
// database, in whatever spelling, is looked for when each house closes.
func leakRows() []row {
	return []row{
		{number: 126, name: "whatever a stranger calls an app, asks for or is told, a page shows it as text", story: func(w *world) {
			p := w.registered(`{"client_name":"` + strings.ReplaceAll(probe, `"`, `\"`) + `","redirect_uris":["http://127.0.0.1/cb"],"client_uri":"https://x.example/%22onclick=alert(3)"}`)
			q, _ := w.query(p, with("state", probe, "scope", "a:read"))
			asked := w.alice.Open("/oauth/authorize?" + q.Encode())
			w.harmless("the question", asked)
			form := apptest.Fields(asked.Text)
			form.Set("decision", "allow")
			form.Set("started", "yes")
			back := w.alice.Submit("/consent", form)
			w.harmless("the way back", back)
			if target := apptest.Target(back.Text); target == nil || target.Query().Get("state") != probe {
				w.t.Errorf("state comes back as %v", target)
			}
			w.harmless("the connected apps", w.alice.Open("/me"))
			w.harmless("the sign-in", w.Browser().Open("/oauth/authorize?"+q.Encode()))
			for name, path := range map[string]string{
				"an unknown client":  "/oauth/authorize?" + url.Values{"client_id": {probe}, "redirect_uri": {"https://x.example/cb"}}.Encode(),
				"an unknown address": "/oauth/authorize?" + edit(q, with("redirect_uri", "https://x.example/"+probe)).Encode(),
				"an unknown page":    "/" + url.PathEscape(probe),
				"an unknown code":    "/help/errors/" + url.PathEscape(probe),
				"an unknown link":    "/login/link?token=" + url.QueryEscape(probe),
				"a hint":             "/login?" + url.Values{"email": {probe}, "flow": {probe}}.Encode(),
			} {
				w.harmless(name, w.Browser().Open(path))
			}
			w.counted["GET /oauth/authorize refused: CLIENT_UNKNOWN"]++
			w.counted["GET /oauth/authorize refused: REDIRECT_MISMATCH"]++
		}},
		{number: 126, name: "an answer to a program is JSON that no browser takes for a page", story: func(w *world) {
			for path, a := range map[string]apptest.Answer{
				"/oauth/token":    w.Form("/oauth/token", with("grant_type", probe)),
				"/oauth/register": w.PostJSON("/oauth/register", `{"redirect_uris":["`+strings.ReplaceAll(probe, `"`, `\"`)+`"]}`),
				"/mcp":            w.RPC("/mcp", "", probe, ""),
			} {
				if a.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") || a.StatusCode < http.StatusBadRequest {
					w.t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
				}
			}
			w.counted["/oauth/token refused: invalid_client, there is no such client"]++
			w.counted["/oauth/register refused: invalid_redirect_uri"]++
			w.counted["no access token"]++
		}},
	}
}

// harmless fails if a page holds the probe as markup, may run a script, or lacks it
// where it should be shown.
func (w *world) harmless(name string, a apptest.Answer) {
	w.t.Helper()
	for _, markup := range []string{"<script>alert", "<img src=x", `"onclick=`} {
		if strings.Contains(a.Text, markup) {
			w.t.Errorf("%s runs: %s", name, a.Text)
		}
	}
	if policy := a.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe-inline") {
		w.t.Errorf("%s: policy %q", name, policy)
	}
	if name == "the question" && !strings.Contains(html.UnescapeString(a.Text), probe) {
		w.t.Errorf("%s does not say what the app calls itself: %s", name, a.Text)
	}
}
