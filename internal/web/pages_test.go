package web_test

import (
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// R1214, R1401, attack 64: every page, wherever it comes from and whatever went
// wrong, cannot be framed, kept, sniffed, scripted or told about.
func TestEveryPageIsGuarded(t *testing.T) {
	h := start(t)
	client, b := h.Register(), h.Browser()
	query, _ := h.Authorization(client, nil)
	pages := map[string]apptest.Answer{
		"front, no owner":      b.Open("/"),
		"set up":               b.Open("/setup"),
		"sign in":              b.Open("/login"),
		"sign in, app waiting": b.Open("/oauth/authorize?" + query.Encode()),
		"link":                 b.Open("/login/link?token=x"),
		"no page":              b.Open("/nowhere"),
		"a question of nobody": b.Open("/consent/x"),
		"an answer of nobody":  b.Open("/return/x"),
		"no client":            b.Open("/oauth/authorize?client_id=x&redirect_uri=https://b.example"),
		"form of nobody":       h.Form("/login", nil),
		"cross-site":           h.Form("/consent", nil, "Sec-Fetch-Site: cross-site"),
		"PUT":                  h.Do(h.Request(http.MethodPut, "/login", "")),
		"DELETE":               h.Do(h.Request(http.MethodDelete, "/", "")),
		"POST of a question":   h.Form("/oauth/authorize?"+query.Encode(), nil),
		"no asset":             b.Open("/assets/x"),
	}
	submit := func(path string, change url.Values) apptest.Answer {
		form := apptest.Fields(b.Open(path).Text)
		maps.Copy(form, change)
		return b.Submit(strings.Split(path, "?")[0], form)
	}
	pages["a wrong setup code"] = submit("/setup", url.Values{"code": {"x"}, "email": {apptest.Owner}})
	pages["a bad address"] = submit("/login", url.Values{"email": {"dana"}})
	pages["a bent link"] = submit("/login/link?token=x", nil)
	pages["set up done"] = submit("/setup", url.Values{"code": {h.Log.Wait("  code  ", nil)}, "email": {apptest.Owner}})
	b.UseLink()
	pages["link sent"] = submit("/login?switch=1", url.Values{"email": {apptest.Owner}})
	pages["front, signed in"] = b.Open("/")
	pages["signed in"] = b.Open("/login")
	pages["set up again"] = b.Open("/setup")
	pages["question"] = b.Open("/oauth/authorize?" + query.Encode())
	question := apptest.Fields(pages["question"].Text)
	pages["no tick"] = b.Submit("/consent", url.Values{"request": question["request"], "csrf": question["csrf"], "decision": {"allow"}})
	pages["neither yes nor no"] = b.Submit("/consent", question)
	question.Set("decision", "deny")
	pages["way back"] = b.Submit("/consent", question)
	pages["way back, later"] = b.Open("/return/" + question.Get("request"))

	ref := regexp.MustCompile(`req_[0-9A-Z]{26}`)
	for name, page := range pages {
		if name == "no asset" && page.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			continue // not a page
		}
		csp := page.Header.Get("Content-Security-Policy")
		for header, want := range map[string]string{
			"Content-Type": "text/html; charset=utf-8", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		} {
			if got := page.Header.Values(header); !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action '"} {
			if !strings.Contains(csp, directive) {
				t.Errorf("%s: policy %q lacks %s", name, csp, directive)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script") || regexp.MustCompile(`(?i)<script|\son[a-z]+=|style=|javascript:`).MatchString(page.Text) {
			t.Errorf("%s: something could run: %s %s", name, csp, page.Text)
		}
		if page.StatusCode >= 400 && page.StatusCode != http.StatusNotFound && !strings.Contains(page.Text, "name=\"csrf\"") && !ref.MatchString(page.Text) { // R320
			t.Errorf("%s: no reference: %s", name, page.Text)
		}
		for header := range page.Header {
			if strings.HasPrefix(header, "Access-Control") || header == "Server" || header == "X-Powered-By" {
				t.Errorf("%s: %s", name, header)
			}
		}
	}
}

// Every step that sends the browser on has no body that a cache could keep.
func TestRedirectsSayNothing(t *testing.T) {
	h := start(t)
	b := h.Browser()
	b.SetUp()
	query, _ := h.Authorization(h.Register(), nil)
	fresh := h.Get("/oauth/authorize?"+query.Encode(), "Accept: text/html")
	form := apptest.Fields(b.Open("/login?switch=1").Text)
	question := apptest.Fields(b.Open("/oauth/authorize?" + query.Encode()).Text)
	question.Set("decision", "deny")
	for name, row := range map[string]struct {
		a        apptest.Answer
		location string
	}{
		"to the sign-in":  {fresh, "/login?flow="},
		"to the way back": {h.post(b, "/consent", question, "Accept: text/html"), "/return/"},
		"after sign-out":  {h.post(b, "/logout", form), "/"},
	} {
		if row.a.StatusCode != http.StatusSeeOther || row.a.Text != "" || row.a.Header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(row.a.Header.Get("Location"), row.location) {
			t.Errorf("%s: %d %v %q", name, row.a.StatusCode, row.a.Header, row.a.Text)
		}
	}
}

// Whatever a handle or an address in our own links is, the browser stays here.
func TestOwnLinksLeadNowhereElse(t *testing.T) {
	h := start(t)
	b := h.Browser()
	b.SetUp()
	for _, flow := range []string{"//evil.example", "https://evil.example", `\\evil.example`, "/../../x", "..", "%0d%0aX-Evil: 1", "\r\nX-Evil: 1", "x?y#z", "javascript:alert(1)"} {
		r := h.Request(http.MethodGet, "/login?flow="+url.QueryEscape(flow), "")
		for name, value := range b.Cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		a := h.Do(r)
		location, err := a.Location()
		if err != nil || "http://"+location.Host != h.URL || a.Header.Get("X-Evil") != "" || !strings.HasPrefix(a.Header.Get("Location"), "/consent/") {
			t.Errorf("%q leads to %v %v", flow, a.Header, err)
		}
	}
	for _, path := range []string{"//evil.example/", "//evil.example/%2e%2e", "/\\evil.example", "/login//evil.example", "/%2f%2fevil.example"} {
		a := h.Get(path)
		if location, err := a.Location(); err == nil && "http://"+location.Host != h.URL {
			t.Errorf("%s leads to %s", path, location)
		}
	}
}

// R601: what is typed into our forms is shown as text.
func TestWhatIsTypedIsShownAsText(t *testing.T) {
	h := start(t)
	b := h.Browser()
	const probe = `"><script>alert(1)</script><img src=x onerror=alert(2)>@acme.example`
	form := apptest.Fields(b.Open("/login").Text)
	form.Set("email", probe)
	setup := apptest.Fields(b.Open("/setup").Text)
	setup.Set("email", probe)
	setup.Set("code", probe)
	for where, a := range map[string]apptest.Answer{
		"sent": b.Submit("/login", form), "fault": b.Submit("/login", url.Values{"csrf": form["csrf"], "email": {strings.ReplaceAll(probe, "@", "")}}),
		"setup": b.Submit("/setup", setup), "link": b.Open("/login/link?token=" + url.QueryEscape(probe)), "path": b.Open("/" + url.PathEscape(probe)),
		"flow": b.Open("/login?flow=" + url.QueryEscape(probe)),
	} {
		if strings.Contains(a.Text, "<script") || strings.Contains(a.Text, "<img") {
			t.Errorf("%s: %s", where, a.Text)
		}
	}
}

// Forms are bounded, and what cannot be read is the sender's fault.
func TestFormsAreBounded(t *testing.T) {
	h := start(t)
	b := h.Browser()
	csrf := apptest.Fields(b.Open("/login").Text)["csrf"]
	for name, form := range map[string]url.Values{
		"over 64 KB":             {"csrf": csrf, "email": {strings.Repeat("x", 65<<10) + "@acme.example"}},
		"a NUL":                  {"csrf": csrf, "email": {"a\x00@acme.example"}},
		"text that is not UTF-8": {"csrf": csrf, "email": {"\xff@acme.example"}},
	} {
		for _, path := range []string{"/login", "/login/link", "/logout"} {
			if a := b.Submit(path, form); a.StatusCode != http.StatusBadRequest {
				t.Errorf("%s at %s: %d", name, path, a.StatusCode)
			}
		}
	}
	r := h.Request(http.MethodPost, "/login", "csrf=%zz", "Content-Type: application/x-www-form-urlencoded")
	if a := h.Do(r); a.StatusCode != http.StatusBadRequest {
		t.Errorf("an escape that is none: %d", a.StatusCode)
	}
	r = h.Request(http.MethodPost, "/login", "--b\r\n\r\n--b--", "Content-Type: multipart/form-data; boundary=b")
	if a := h.Do(r); a.StatusCode != http.StatusForbidden {
		t.Errorf("multipart: %d", a.StatusCode)
	}
}

// R733: the front page says where clients connect, and in development mode that
// it is one.
func TestFrontPage(t *testing.T) {
	h := start(t, apptest.Dev)
	a := h.Get("/")
	if a.StatusCode != http.StatusOK || !strings.Contains(a.Text, h.URL+"/mcp") || !strings.Contains(strings.ToLower(a.Text), "development mode") {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if strings.Contains(a.Text, "/setup") || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("it offers the set-up, or names the browser: %v %s", a.Header, a.Text)
	}
}

// Attack 63: before anybody has allowed anything there is one cookie more, which
// only says that this browser is the one that asked.
func TestNothingIsHandedOutBeforeTheAnswer(t *testing.T) {
	h := start(t)
	b := h.Browser()
	b.SetUp()
	before := maps.Clone(b.Cookies)
	query, _ := h.Authorization(h.Register(), nil)
	b.Open("/oauth/authorize?" + query.Encode())
	maps.DeleteFunc(b.Cookies, func(name, _ string) bool { return strings.HasPrefix(name, "__Host-gatehouse-flow_") })
	if !maps.Equal(b.Cookies, before) {
		t.Errorf("cookies %v", b.Cookies)
	}
	if n := h.Count(`SELECT count(*) FROM authorization_code`) + h.Count(`SELECT count(*) FROM consent`); n != 0 {
		t.Errorf("%d codes and consents", n)
	}
}
