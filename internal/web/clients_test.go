package web_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// R218: an administrator sees the apps, adds, approves, blocks and forgets them, all
// without a script, and each is an event.
func TestAdministratorDecidesAboutApps(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		b := h.Browser()
		b.SetUp()
		tokens, client := h.connect(b, "Helper", hosted, nil)
		list := b.Open("/admin/clients")
		for _, want := range []string{"“<bdi>Helper</bdi>”", "Unverified app", "1 person", "b.example", "Registered itself", "/admin/client?id=" + client} {
			if !strings.Contains(list.Text, want) {
				t.Errorf("the list lacks %q: %s", want, list.Text)
			}
		}
		if !strings.Contains(b.Open("/me").Text, "/admin/clients") {
			t.Error("an administrator's own page does not lead there")
		}
		open := func() string { return b.Open("/admin/client?" + url.Values{"id": {client}}.Encode()).Text }
		csrf := apptest.Fields(open()).Get("csrf")
		do := func(action string, more url.Values) apptest.Answer {
			form := url.Values{"csrf": {csrf}, "id": {client}}
			for name, values := range more {
				form[name] = values
			}
			return b.Submit("/admin/clients/"+action, form)
		}
		if a := do("approve", nil); !strings.Contains(a.Text, "Approved by ") || !strings.Contains(a.Text, "Approved. People see that it is.") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if a := do("block", url.Values{"reason": {"see <b>ticket</b> 12"}}); !strings.Contains(a.Text, "Blocked: see &lt;b&gt;ticket&lt;/b&gt; 12") || h.works(tokens.AccessToken) {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		h.SQL(`UPDATE client SET earlier = '{"client_name":"Helper","redirect_uris":["https://old.example/<cb>"]}', changed_at = $1`, time.Now().UnixMicro())
		if text := open(); !strings.Contains(text, "<del class=\"exact\">https://old.example/&lt;cb&gt;</del>") || !strings.Contains(text, "<ins class=\"exact\">https://b.example") || strings.Contains(text, "<code>client_name") || !strings.Contains(text, "Nowhere now") {
			t.Errorf("what changed: %s", text)
		}
		if text := b.Open("/admin/clients?state=blocked").Text; !strings.Contains(text, "Helper") || strings.Contains(b.Open("/admin/clients?state=approved").Text, "Helper") {
			t.Errorf("the list of blocked apps: %s", text)
		}
		do("unblock", nil)
		if a := do("remove", nil); !strings.Contains(a.Text, "Removed, with everything it was given.") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if a := b.Open("/admin/client?id=" + client); a.StatusCode != http.StatusNotFound {
			t.Errorf("%d", a.StatusCode)
		}
		for _, action := range []string{"client.approve", "client.block", "client.unblock", "client.remove"} {
			if n := h.Count(`SELECT count(*) FROM audit_event WHERE action = $1`, action); n != 1 {
				t.Errorf("%s: %d events", action, n)
			}
		}
	})
}

// An app that is added works with what the page shows once; a form that does not
// count is shown again as it was.
func TestAdministratorAddsAnApp(t *testing.T) {
	h := start(t)
	b := h.Browser()
	b.SetUp()
	csrf := apptest.Fields(b.Open("/admin/clients").Text).Get("csrf")
	add := func(name, redirects string) apptest.Answer {
		return h.post(b, "/admin/clients/add", url.Values{"csrf": {csrf}, "name": {name}, "redirects": {redirects}, "secret": {"yes"}})
	}
	a := add("Wiki", "http://wiki.example/cb")
	if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "must be https") || !strings.Contains(a.Text, "http://wiki.example/cb</textarea>") || !strings.Contains(a.Text, `value="Wiki"`) {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	a = add("Wiki", "https://wiki.example/cb\r\nhttps://wiki.example/other")
	secret := regexp.MustCompile(`cs_[^<]+`).FindString(a.Text)
	if a.StatusCode != http.StatusOK || secret == "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	id := regexp.MustCompile(`Client id: <code class="copy">([^<]+)`).FindStringSubmatch(a.Text)[1]
	again := h.post(b, "/admin/clients/secret", url.Values{"csrf": {csrf}, "id": {id}})
	if renewed := regexp.MustCompile(`cs_[^<]+`).FindString(again.Text); renewed == "" || renewed == secret {
		t.Errorf("%d %s", again.StatusCode, again.Text)
	}
	for _, page := range []string{"/admin/clients", "/admin/client?id=" + id} {
		if strings.Contains(b.Open(page).Text, "cs_") {
			t.Errorf("%s shows a secret again", page)
		}
	}
	if strings.Contains(h.Log.String(), secret) {
		t.Error("the log has the secret")
	}
}

// Who is no administrator sees nothing of it and decides nothing, and no other site
// decides for who is.
func TestClientsPageIsForAdministrators(t *testing.T) {
	h := start(t)
	owner := h.Browser()
	owner.SetUp()
	client := h.register("Helper", hosted).ClientID
	b := h.bob("standard")
	csrf := apptest.Fields(b.Open("/me").Text).Get("csrf")
	for _, page := range []string{"/admin/clients", "/admin/client?id=" + client} {
		if a := b.Open(page); a.StatusCode != http.StatusForbidden || strings.Contains(a.Text, "Helper") {
			t.Errorf("%s: %d %s", page, a.StatusCode, a.Text)
		}
		if a := h.Get(page); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login" {
			t.Errorf("%s for a stranger: %d %v", page, a.StatusCode, a.Header)
		}
	}
	for _, action := range []string{"approve", "block", "unblock", "remove", "secret"} {
		if a := h.post(b, "/admin/clients/"+action, url.Values{"csrf": {csrf}, "id": {client}}); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %s", action, a.StatusCode, a.Text)
		}
		if a := h.post(owner, "/admin/clients/"+action, url.Values{"csrf": {csrf}, "id": {client}}); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s with the form of another: %d", action, a.StatusCode)
		}
		own := url.Values{"csrf": {apptest.Fields(owner.Open("/admin/clients").Text).Get("csrf")}, "id": {client}}
		if a := h.post(owner, "/admin/clients/"+action, own, "Sec-Fetch-Site: cross-site"); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s from another site: %d", action, a.StatusCode)
		}
	}
	if a := h.post(b, "/admin/clients/add", url.Values{"csrf": {csrf}, "name": {"x"}, "redirects": {"https://x.example/cb"}}); a.StatusCode != http.StatusForbidden {
		t.Errorf("add: %d", a.StatusCode)
	}
	if strings.Contains(b.Open("/me").Text, "/admin/") {
		t.Error("a page leads there all the same")
	}
	if n := h.Count(`SELECT count(*) FROM client WHERE approved_at IS NULL AND blocked_at IS NULL`); n != 1 {
		t.Errorf("%d clients as they were", n)
	}
}
