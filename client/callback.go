package client

import (
	"context"
	"crypto/subtle"
	"errors"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// preferredPort is where the browser comes back to if it is free (R902).
const preferredPort = "3001"

// callback waits for the browser on this computer.
type callback struct {
	ln   net.Listener
	srv  *http.Server
	done chan struct{} // closed when the server has ended
}

// listen takes the port of a redirect URI used before, or 3001, or a free one.
func listen(before string) (*callback, error) {
	ports := []string{preferredPort, "0"}
	if u, err := url.Parse(before); err == nil && u.Port() != "" {
		ports = append([]string{u.Port()}, ports...)
	}
	var ln net.Listener
	err := errors.New("no port")
	for _, port := range ports {
		if ln, err = net.Listen("tcp4", "127.0.0.1:"+port); err == nil {
			return &callback{ln: ln, done: make(chan struct{})}, nil
		}
	}
	return nil, err
}

func (b *callback) redirect() string { return "http://" + b.ln.Addr().String() + "/callback" }

// serve answers the one request that knows the state; all others learn
// nothing. finish runs once, and the page waits for it: that somebody is
// signed in is only said when it is true.
func (b *callback) serve(state, title string, finish func(url.Values) error) <-chan error {
	result := make(chan error, 1)
	var once sync.Once
	var outcome error
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.Path != "/callback" || len(q["state"]) != 1 || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.NotFound(w, r)
			return
		}
		once.Do(func() {
			outcome = finish(q)
			result <- outcome
		})
		show(w, title, outcome)
	})
	b.srv = &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10}
	b.srv.SetKeepAlivesEnabled(false)
	go func() {
		defer close(b.done)
		_ = b.srv.Serve(b.ln) // ends with close
	}()
	return result
}

// close ends the waiting once the page that is on its way has been sent.
func (b *callback) close() {
	if b.srv == nil {
		_ = b.ln.Close() // nobody has connected
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if b.srv.Shutdown(ctx) != nil {
		_ = b.srv.Close() // whoever still reads has had two seconds
	}
	<-b.done
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{{if .Error}}Not signed in{{else}}Signed in{{end}}</title>
<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}</style>
{{if .Error}}<h1>Not signed in to {{.Title}}</h1>
<p>{{.Error}}</p>
<p>You can close this page. The terminal says how to go on.</p>
{{else}}<h1>You’re signed in to {{.Title}}</h1>
<p>You can close this page and go back to the terminal.</p>
{{end}}</html>
`))

func show(w http.ResponseWriter, title string, outcome error) {
	view := struct{ Title, Error string }{Title: title}
	status := http.StatusOK
	if outcome != nil {
		view.Error, status = outcome.Error(), http.StatusBadRequest
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_ = page.Execute(w, view) // the browser may have gone
}
