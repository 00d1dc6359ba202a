// Package views draws the pages that people see: sign-in, setup, consent, the
// hand-back to an app, errors and the front page. Each page is a function of
// one typed struct.
//
// A page is rendered whole before its first byte is sent, so a failing template
// never leaves half a page. No page carries script, an inline style or an
// address of another origin, and nobody may frame or cache one (R1214, R1215).
// What an app says about itself is quoted as its claim; it never names a button.
package views

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

// Page is what every page shows, whatever it is about.
type Page struct {
	Product string // what the operator calls this server
	Host    string // the public host, so that people can see where they are
	Ref     string // reference of the flow (req_…); empty shows none
	Dev     bool   // development mode: says so in a red bar
}

//go:embed layout.html pages/*.html
var templateFiles embed.FS

var templates = parse()

// parse reads one template set per page, each with the layout. A page that does
// not parse ends the program, and every test.
func parse() map[string]*template.Template {
	files, err := templateFiles.ReadDir("pages")
	if err != nil {
		panic(err)
	}
	sets := map[string]*template.Template{}
	for _, f := range files {
		t := template.New("layout.html").Funcs(funcs).Option("missingkey=error")
		sets[strings.TrimSuffix(f.Name(), ".html")] = template.Must(t.ParseFS(templateFiles, "layout.html", "pages/"+f.Name()))
	}
	return sets
}

// A policy is the headers that tell a browser what a page may do.
type policy map[string]string

const formPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Pages that an authorization may pass through have no opener policy: with any,
// a client that opened them in a popup would see its popup as closed.
var (
	inFlow   = policy{"Content-Security-Policy": formPolicy}
	handBack = policy{"Content-Security-Policy": strings.Replace(formPolicy, "form-action 'self'", "form-action 'none'", 1)}
	outside  = policy{"Content-Security-Policy": formPolicy, "Cross-Origin-Opener-Policy": "same-origin"}
)

var always = policy{
	"Content-Type":           "text/html; charset=utf-8",
	"Cache-Control":          "no-store",
	"Referrer-Policy":        "no-referrer",
	"X-Content-Type-Options": "nosniff",
	"X-Frame-Options":        "DENY",
}

// render draws the page called name. If it cannot, it has written nothing and
// returns why, so that the caller can still answer with an error page. A reader
// who went away is no error.
func render(w http.ResponseWriter, status int, name string, p policy, view any) error {
	var page bytes.Buffer
	if err := templates[name].Execute(&page, view); err != nil {
		return fmt.Errorf("draw page %s: %w", name, err)
	}
	for _, headers := range []policy{always, p} {
		for k, v := range headers {
			w.Header().Set(k, v)
		}
	}
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
	return nil
}
