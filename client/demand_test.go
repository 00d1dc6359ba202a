package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// signsIn is a client whose person is asked when a server demands it, and agrees.
func signsIn(t *testing.T, demands *[]Demand) *Client {
	c := newClient(t)
	var mu sync.Mutex
	c.opts.SignIn = func(ctx context.Context, c *Client, d Demand) error {
		mu.Lock()
		*demands = append(*demands, d)
		mu.Unlock()
		_, err := c.Login(ctx, d.Server, LoginOptions{Open: new(browser).open, Demand: d})
		return err
	}
	return c
}

// R906: who is not signed in, or no longer, is asked, once, and the call goes on.
func TestDemandedSignIn(t *testing.T) {
	f := newFake(t)
	var demands []Demand
	c := signsIn(t, &demands)
	s, err := c.Connect(short(t), f.server())
	if err != nil || len(demands) != 1 || demands[0].Server != f.server() || demands[0].Scope != "mcp:tools" {
		t.Fatalf("%+v, %v", demands, err)
	}
	f.set(func() { f.valid, f.n = "another", 7 }) // and the refresh token is worth nothing
	if _, err := s.Call(short(t), "echo", nil, nil); err != nil || len(demands) != 2 {
		t.Errorf("%d demands, %v", len(demands), err)
	}
	if f.count("POST /register") != 1 {
		t.Errorf("registered %d times", f.count("POST /register"))
	}
}

// Nobody sees two pages because two calls needed a token at once.
func TestOneSignInForAll(t *testing.T) {
	f := newFake(t)
	var demands []Demand
	c := signsIn(t, &demands)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.Connect(short(t), f.server()); err != nil && !isGone(err) { // the fake keeps one session only
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(demands) != 1 {
		t.Errorf("%d sign-ins", len(demands))
	}
}

func TestRefusedSignInIsTheAnswer(t *testing.T) {
	f, c := newFake(t), newClient(t)
	no := errors.New("not today")
	c.opts.SignIn = func(context.Context, *Client, Demand) error { return no }
	if _, err := c.Connect(short(t), f.server()); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
	c.opts.SignIn = func(context.Context, *Client, Demand) error { return nil } // says so, and has not
	if _, err := c.Connect(short(t), f.server()); !errors.Is(err, ErrAuthentication) {
		t.Errorf("%v", err)
	}
}

// stepping answers calls with 403 until the token has all scopes of need; nil
// never has enough.
func stepping(f *fake, need func(scope string) bool, challenge string) {
	f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		f.set(func() { f.n++; f.valid = "token-with-scopes-in-the-order-asked" + strings.Repeat("x", f.n) })
		writeJSON(w, 200, oauth.TokenResponse{AccessToken: f.valid, TokenType: "Bearer", Scope: f.forms["/authorize"].Get("scope")})
	}
	f.refuse = func(method string) (int, string) {
		if method == "tools/call" && !need(f.forms["/authorize"].Get("scope")) {
			return 403, challenge
		}
		return 0, ""
	}
}

// Step-up asks for what is new and keeps what was there; a server that refuses
// all the same is believed.
func TestStepUp(t *testing.T) {
	f := newFake(t)
	stepping(f, func(scope string) bool { return scope == "mcp:tools x:write" }, `Bearer error="insufficient_scope", scope="x:write"`)
	var demands []Demand
	s, err := signsIn(t, &demands).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(short(t), "echo", nil, nil); err != nil || len(demands) != 2 || demands[1].Scope != "mcp:tools x:write" {
		t.Errorf("%+v, %v", demands, err)
	}

	f = newFake(t)
	stepping(f, func(string) bool { return false }, `Bearer error="insufficient_scope", scope="x:write"`)
	demands = nil
	if s, err = signsIn(t, &demands).Connect(short(t), f.server()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrPermission) || len(demands) != 2 {
		t.Errorf("%d sign-ins, %v", len(demands), err)
	}

	f = newFake(t) // always something new
	n := 0
	stepping(f, func(string) bool { return false }, "")
	f.refuse = func(method string) (int, string) {
		if method != "tools/call" {
			return 0, ""
		}
		n++
		return 403, `Bearer error="insufficient_scope", scope="s` + strings.Repeat("s", n) + `"`
	}
	demands = nil
	if s, err = signsIn(t, &demands).Connect(short(t), f.server()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrPermission) || len(demands) != 1+maxSignIns {
		t.Errorf("%d sign-ins, %v", len(demands), err)
	}
}

// A 403 that names no scope is a no, and no reason to bother the person.
func TestForbiddenIsNoDemand(t *testing.T) {
	f := newFake(t)
	var demands []Demand
	s, err := signsIn(t, &demands).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	f.refuse = func(string) (int, string) { return 403, `Bearer error="access_denied"` }
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrPermission) || len(demands) != 1 {
		t.Errorf("%d sign-ins, %v", len(demands), err)
	}
}

// A server that moves to another issuer gets a new registration there; the old
// issuer's never travels (MCP 2026-07-28, credential binding).
func TestMovedIssuerGetsNothingOfTheOldOne(t *testing.T) {
	f, other := newFake(t), newFake(t)
	var demands []Demand
	c := signsIn(t, &demands)
	s, err := c.Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	other.override["/register"] = func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 201, oauth.Registration{ClientID: "client-of-other"})
	}
	other.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		other.token(w, r)
		f.set(func() { f.valid = other.valid })
	}
	f.set(func() {
		f.prm.AuthorizationServers = []string{other.URL}
		f.valid, f.n = "another", 7
	})
	if _, err := s.Call(short(t), "echo", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := other.forms["/authorize"].Get("client_id"); got != "client-of-other" {
		t.Errorf("at the other issuer we are %q", got)
	}
	if cr, _ := c.load(); len(cr.Clients) != 2 || cr.Logins[f.server()].Issuer != other.URL {
		t.Errorf("stored %+v", cr)
	}
	for _, form := range other.forms {
		if strings.Contains(form.Encode(), "refresh-") || strings.Contains(form.Encode(), "client-1") {
			t.Errorf("the other issuer saw %v", form)
		}
	}
}
