package apptest

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Owner is the address that SetUp makes the owner.
const Owner = "dana@acme.example"

// Browser is a browser without scripting: it keeps cookies, follows redirects
// within the house and posts the forms it is shown.
type Browser struct {
	*House
	Cookies map[string]string
}

// Browser makes a new browser.
func (h *House) Browser() *Browser { return &Browser{House: h, Cookies: map[string]string{}} }

// Open fetches a path or an address of the house, as a navigation.
func (b *Browser) Open(address string) Answer {
	b.t.Helper()
	return b.follow(b.Request(http.MethodGet, strings.TrimPrefix(address, b.URL), ""))
}

// Submit posts a form as a page of the house would.
func (b *Browser) Submit(path string, form url.Values) Answer {
	b.t.Helper()
	return b.follow(b.Request(http.MethodPost, path, form.Encode(),
		"Content-Type: application/x-www-form-urlencoded", "Origin: "+b.URL, "Sec-Fetch-Site: same-origin"))
}

func (b *Browser) follow(r *http.Request) Answer {
	b.t.Helper()
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Dest", "document")
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	a := b.Do(r)
	for _, c := range a.Cookies() {
		b.Cookies[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(b.Cookies, c.Name)
		}
	}
	location := a.Header.Get("Location")
	if location == "" || !strings.HasPrefix(location, "/") {
		return a // shown, or on its way to the client
	}
	return b.Open(location)
}

var field = regexp.MustCompile(`<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"`)

// Fields are the fields of the forms on a page that have a value.
func Fields(page string) url.Values {
	fields := url.Values{}
	for _, m := range field.FindAllStringSubmatch(page, -1) {
		fields.Set(m[1], html.UnescapeString(m[2]))
	}
	return fields
}

// SetUp makes the owner with the setup code from the log and signs the browser
// in with the link from the log.
func (b *Browser) SetUp() {
	b.t.Helper()
	code := b.Log.Wait("  code  ", nil)
	form := Fields(b.Open("/setup").Text)
	form.Set("code", code)
	form.Set("email", Owner)
	if a := b.Submit("/setup", form); a.StatusCode != http.StatusOK {
		b.t.Fatalf("setup: %d %s", a.StatusCode, a.Text)
	}
	if a := b.UseLink(); a.StatusCode != http.StatusOK {
		b.t.Fatalf("sign-in: %d %s", a.StatusCode, a.Text)
	}
}

// Link waits for the last sign-in link in the log.
func (b *Browser) Link() string {
	b.t.Helper()
	link := b.Log.Wait(b.URL+"/login/link?token=", nil)
	if link == "" {
		b.t.Fatal("no link was printed")
	}
	return b.URL + "/login/link?token=" + link
}

// UseLink opens the last sign-in link and presses its button. It returns the
// page after that.
func (b *Browser) UseLink() Answer {
	b.t.Helper()
	return b.Submit("/login/link", Fields(b.Open(b.Link()).Text))
}

// Target is where a hand-back page sends the browser.
func Target(page string) *url.URL {
	m := regexp.MustCompile(`http-equiv="?refresh"? content="0;url=([^"]+)"`).FindStringSubmatch(page)
	if m == nil {
		return nil
	}
	u, err := url.Parse(html.UnescapeString(m[1]))
	if err != nil {
		return nil
	}
	return u
}
