// Package attacks_test attacks a house that runs, from outside: what a stranger, a
// foreign client or a thief sends, and what it must be answered. Rows are numbered
// as the attacks are everywhere in this project; coverage_test.go lists them all.
//
// A row goes in over HTTP and knows addresses only. After each that is refused the
// suite asserts that nothing was made, spent or revoked, that the refusal is on
// record once and with a reason that the answer does not tell, that no secret is
// in the answer or the log, and that the same request, corrected, works. What
// must not be refused is attacked as well: honest clients that a server shuts out
// are a hole of their own.
package attacks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// A row is one attack: a request that must be refused as want says, and its twin,
// the same request as it should be, which must work. An attack that takes more
// than one request is a story instead.
type row struct {
	number int
	name   string
	want   want
	build  func(w *world) (attack, twin *http.Request)
	story  func(w *world)
}

// attack runs rows in a house on SQLite and in one of two nodes on PostgreSQL.
func attack(t *testing.T, rows []row) {
	for engine, open := range map[string]func(*testing.T) *world{"sqlite": onSQLite, "postgres": onPostgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			for _, r := range rows {
				t.Run(fmt.Sprintf("%02d %s", r.number, r.name), func(t *testing.T) { w.in(t).run(r) })
			}
			w.t = t
			w.close()
		})
	}
}

func (w *world) in(t *testing.T) *world {
	w.t = t
	return w
}

func (w *world) run(r row) {
	w.t.Helper()
	if r.story != nil {
		r.story(w)
		return
	}
	attack, twin := r.build(w)
	w.refused(r.want, attack)
	if twin != nil {
		w.works(twin)
	}
}

// want is how an attack is answered and what is on record about it afterwards.
type want struct {
	status int
	error  string // of OAuth, in JSON or at the redirect URI
	reason string // under which it is counted; with an action and a code, separated by a blank, its event
	check  func(w *world, a apptest.Answer)
}

// page is an answer for people that leads nowhere.
func page(status int, reason string) want {
	return want{status: status, reason: reason, check: func(w *world, a apptest.Answer) {
		if a.Header["Location"] != nil || a.Header.Get("Content-Type") != "text/html; charset=utf-8" || a.Header.Get("Cache-Control") != "no-store" ||
			a.Header.Get("X-Frame-Options") != "DENY" || a.Header.Get("Referrer-Policy") != "no-referrer" ||
			!strings.Contains(a.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			w.t.Errorf("this is no page of ours that leads nowhere: %v", a.Header)
		}
		if strings.Contains(a.Text, "<script>alert") || strings.Contains(a.Text, `http-equiv="refresh"`) {
			w.t.Errorf("the page runs or moves: %s", a.Text)
		}
	}}
}

// redirect is an answer at the client's redirect URI.
func redirect(code string) want {
	return want{status: http.StatusSeeOther, error: code, reason: "GET /oauth/authorize refused: " + code, check: func(w *world, a apptest.Answer) {
		location, err := url.Parse(a.Header.Get("Location"))
		if err != nil {
			w.t.Error(err)
			return
		}
		q := location.Query()
		if q.Get("error") != code || q.Get("state") != state || q.Get("iss") != w.URL || q.Has("code") || a.Header.Get("Cache-Control") != "no-store" {
			w.t.Errorf("want %s, got %s", code, location)
		}
	}}
}

// refusal is an answer in JSON of an endpoint for programs.
func refusal(path, code, why string) want {
	reason := path + " refused: " + code
	if why != "" {
		reason += ", " + why
	}
	status := http.StatusBadRequest
	if code == "invalid_client" {
		status = http.StatusUnauthorized
	}
	return want{status: status, error: code, reason: reason, check: func(w *world, a apptest.Answer) {
		if a.Error() != code || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" || a.Header["Location"] != nil {
			w.t.Errorf("want %s, got %v %s", code, a.Header, a.Text)
		}
		if why != "" && strings.Contains(a.Text, why) {
			w.t.Errorf("the answer tells why: %s", a.Text)
		}
	}}
}

func token(code, why string) want { return refusal("/oauth/token", code, why) }

// unauthorized is an MCP endpoint's answer to a bearer that is not good there.
func unauthorized(why string) want {
	return want{status: http.StatusUnauthorized, reason: "bearer token refused: " + why, check: func(w *world, a apptest.Answer) {
		path, _, _ := strings.Cut(strings.TrimPrefix(a.Request.URL.Path, "/"), "?")
		challenge := a.Header.Get("WWW-Authenticate")
		if !strings.Contains(challenge, `error="invalid_token"`) || !strings.Contains(challenge, `resource_metadata="`+w.URL+"/.well-known/oauth-protected-resource/"+path+`"`) {
			w.t.Errorf("challenge %q", challenge)
		}
		if strings.Contains(challenge+a.Text, why) {
			w.t.Errorf("the answer tells why: %s %s", challenge, a.Text)
		}
	}}
}

// plain is any other refusal.
func plain(status int, reason string) want { return want{status: status, reason: reason} }

// refused sends the attack and asserts that it is refused as want says, leaves no
// trace but the one on record, and tells no secret.
func (w *world) refused(want want, r *http.Request) apptest.Answer {
	w.t.Helper()
	before := w.traces()
	a := w.refusedWhatever(want, r)
	if after := w.traces(); after != before {
		w.t.Errorf("it left a trace:\n%s\nwas\n%s", after, before)
	}
	return a
}

// refusedWhatever is refused for an attack that is meant to revoke or to end something.
func (w *world) refusedWhatever(want want, r *http.Request) apptest.Answer {
	w.t.Helper()
	events, printed := w.events(), len(w.printed())
	a := w.Do(r)
	if a.StatusCode != want.status {
		w.t.Errorf("want %d %s, got %d %v %s", want.status, want.error, a.StatusCode, a.Header, a.Text)
	}
	if want.check != nil {
		want.check(w, a)
	}
	w.expect(want.reason, events)
	if where := w.leak(a.Text + fmt.Sprint(a.Header)); where != "" {
		w.t.Errorf("the answer tells %s", where)
	}
	if where := w.leak(w.printed()[printed:]); where != "" {
		w.t.Errorf("the log tells %s", where)
	}
	return a
}

// expect asserts that exactly one event, or none but a count, came to be since
// events were counted.
func (w *world) expect(reason string, events int) {
	w.t.Helper()
	action, code, isEvent := strings.Cut(reason, " ")
	isEvent = isEvent && strings.Contains(action, ".")
	more := w.events() - events
	switch {
	case !isEvent && more != 0:
		w.t.Errorf("%d events, besides the count", more)
	case isEvent && more != 1:
		w.t.Errorf("%d events, want one", more)
	case isEvent:
		if got := w.lastEvent(); got != action+" denied "+code {
			w.t.Errorf("event %q, want %q", got, action+" denied "+code)
		}
	case reason != "":
		w.counted[reason]++
	}
}

// works asserts that a request in order is answered as one.
func (w *world) works(r *http.Request) apptest.Answer {
	w.t.Helper()
	path := r.URL.Path
	a := w.Do(r)
	switch {
	case a.StatusCode >= http.StatusBadRequest || strings.Contains(a.Header.Get("Location"), "error="):
		w.t.Errorf("the twin is refused: %d %v %s", a.StatusCode, a.Header, a.Text)
	case strings.HasSuffix(path, "/token"):
		w.alive(w.granted(a))
	case strings.HasSuffix(path, "/authorize") && !strings.HasPrefix(a.Header.Get("Location"), "/"):
		w.t.Errorf("the twin does not lead to a person: %d %v", a.StatusCode, a.Header)
	case strings.HasSuffix(path, "/mcp") && failed(a):
		w.t.Errorf("the twin's call failed: %s", a.Text)
	}
	return a
}

// failed reports whether a message of MCP is an error, or the result of a tool
// that failed.
func failed(a apptest.Answer) bool {
	var m struct {
		Error  json.RawMessage
		Result struct{ IsError bool }
	}
	return a.StatusCode == http.StatusOK && (json.Unmarshal([]byte(a.Text), &m) != nil || m.Error != nil || m.Result.IsError)
}
