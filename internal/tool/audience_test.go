package tool

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

const public = "https://gatehouse.example.org"

func endpoints() *Registry {
	var r Registry
	_ = r.Publish("", []Tool{greet(greetDef)})
	_ = r.Publish(Control, []Tool{greet(Def{Name: "rule_all", Doc: "Rule.", Scope: "x:admin"})})
	_ = r.Publish("a", []Tool{forward("a", "list")})
	_ = r.Publish("ab", nil)
	return &r
}

// Every endpoint is a resource of its own, and nothing else is one (RFC 8707,
// R108, attack 75).
func TestAudiences(t *testing.T) {
	r := endpoints()
	for _, tt := range []struct{ url, origin, scopes string }{
		{public + "/mcp", "", "mcp:tools"},
		{public + "/s/gatehouse/mcp", Control, "mcp:read"},
		{public + "/s/a/mcp", "a", "a:read a:write"},
		{public + "/s/ab/mcp", "ab", "ab:read ab:write"}, // without a tool at the moment
	} {
		for _, found := range []func() (Audience, bool){
			func() (Audience, bool) { return r.AudienceAt(public, tt.url) },
			func() (Audience, bool) { return r.Audience(public, tt.origin) },
		} {
			a, ok := found()
			if !ok || a.URL != tt.url || a.Origin != tt.origin || strings.Join(a.Scopes, " ") != tt.scopes {
				t.Errorf("%s: %+v, %v", tt.url, a, ok)
			}
		}
	}
	for _, url := range []string{
		"", public, public + "/", public + "/mcp/", public + "/mcp/a", public + "/s/mcp", public + "/s//mcp", public + "/s/none/mcp", public + "/s/A/mcp",
		public + "/s/a", public + "/s/a/mcp/x", public + "/s/a/b/mcp", public + "/s/a%2fb/mcp", public + "1/mcp", public + ":8443/mcp",
		"http://gatehouse.example.org/mcp", "https://evil.example/mcp", "/mcp", public + "/s/a/mcp?x", public + "/mcp#x",
	} {
		if a, ok := r.AudienceAt(public, url); ok {
			t.Errorf("%s is %+v", url, a)
		}
	}
	r.Withdraw("a")
	if _, ok := r.Audience(public, "a"); ok {
		t.Error("a server that is gone has an endpoint")
	}
	if _, ok := (&Registry{}).Audience(public, ""); ok {
		t.Error("nothing has an endpoint before it is published")
	}
}

// The control plane's tools are at its own endpoint only; a server's at its own
// and at the common one.
func TestWhatAnEndpointOffers(t *testing.T) {
	r := endpoints()
	for origin, want := range map[string]string{"": "a_list greet_person", "a": "a_list", "ab": "", Control: "rule_all"} {
		a, _ := r.Audience(public, origin)
		if got := names(slices.DeleteFunc(slices.Clone(r.All()), func(t Tool) bool { return !a.Offers(t) })); got != want {
			t.Errorf("%q offers %q, want %q", origin, got, want)
		}
	}
}

func TestWordsForEffects(t *testing.T) {
	for e, want := range map[Effect]string{Reads: "reads, read", Writes: "writes, change", Destroys: "destroys, hard to undo"} {
		if got := e.String() + ", " + e.Risk(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A tool that reaches outside gets its caller and its arguments, nothing else of
// the request, and its output is plain.
func TestReach(t *testing.T) {
	dana := principal.Principal{Kind: principal.Member, User: "dana"}
	var fail error
	reach := Reach(greetDef, func(_ context.Context, p principal.Principal, in greetIn) (greetOut, error) {
		return greetOut{p.User + " & " + in.Name}, fail
	})
	if reach.Inside != nil || reach.Forwarded {
		t.Error("it is not outside")
	}
	out, err := reach.Outside(t.Context(), Request{Principal: dana, Args: json.RawMessage(`{"name":"Ada"}`), Params: json.RawMessage(`{"arguments":{"name":"Eve"}}`)})
	if err != nil || string(out) != `{"text":"dana & Ada"}` {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := reach.Outside(t.Context(), Request{Args: json.RawMessage(`{"name":1}`)}); !problem.Is(err, argumentsInvalid) {
		t.Errorf("%v", err)
	}
	fail = errors.New("no")
	if out, err := reach.Outside(t.Context(), Request{Args: json.RawMessage(`{}`)}); out != nil || !errors.Is(err, fail) {
		t.Errorf("%s, %v", out, err)
	}
}

// What servers behind us take is theirs to judge; ours is judged here.
func TestForwardedArgumentsAreNotJudged(t *testing.T) {
	for _, args := range []string{`{"x":1}`, `[]`, `null`} {
		if err := forward("a", "list").Fits(json.RawMessage(args)); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// Scopes: none in particular is enough for AnyScope, and anyone needs none.
func TestScopeMet(t *testing.T) {
	for _, tt := range []struct {
		def    Def
		scopes string
		met    bool
	}{
		{Def{Scope: "a:write"}, "a:write", true},
		{Def{Scope: "a:write"}, "a:admin", true},
		{Def{Scope: "a:write"}, "mcp:tools", true},
		{Def{Scope: "a:write"}, "a:read", false},
		{Def{Scope: "a:write"}, "b:admin", false},
		{Def{Scope: "a:write"}, "", false},
		{Def{Scope: AnyScope}, "", true},
		{Def{Scope: AnyScope}, "b:read", true},
		{Def{Caller: principal.Anyone}, "", true},
		{Def{}, "b:admin", false}, // says nothing
		{Def{}, "mcp:admin", false},
	} {
		if got := tt.def.ScopeMet(principal.Principal{Scopes: strings.Fields(tt.scopes)}); got != tt.met {
			t.Errorf("%+v with %q: %v", tt.def, tt.scopes, got)
		}
	}
}

// Readers see a whole offer or none of it, while others publish.
func TestReadersSeeWholeOffers(t *testing.T) {
	r := endpoints()
	offers := [][]Tool{{forward("b", "one"), forward("b", "two")}, {forward("b", "three"), forward("b", "four")}}
	done := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		defer close(done)
		for i := range 500 {
			if err := r.Publish("b", offers[i%2]); err != nil {
				t.Error(err)
			}
		}
		r.Withdraw("b")
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		switch got := names(r.All()); got {
		case "a_list greet_person rule_all", "a_list b_one b_two greet_person rule_all", "a_list b_four b_three greet_person rule_all":
		default:
			t.Fatalf("seen %s", got)
		}
	}
	publishing.Wait()
	if _, found := r.Lookup("b_one"); found || r.HasOrigin("b") {
		t.Error("withdrawn tools are still there")
	}
	if found, ok := r.Lookup("a_list"); !ok || found.Origin != "a" || found.Name != "list" {
		t.Errorf("%+v, %v", found, ok)
	}
}
