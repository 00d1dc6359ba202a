package upstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// What many want of one session: the server is asked for the most, and each hears
// its own part.
func TestWishes(t *testing.T) {
	var w wishes
	add := func(key, method, params string) string {
		t.Helper()
		ask, needless, err := w.add(key, method, json.RawMessage(params))
		if err != nil {
			return err.Error()
		}
		if needless {
			return "needless"
		}
		return string(ask)
	}
	for _, tt := range []struct{ key, method, params, want string }{
		{"a", setLevel, `{"level":"error","x":1.0}`, `{"level":"error","x":1.0}`},
		{"b", setLevel, `{"level":"info"}`, `{"level":"info"}`},
		{"a", setLevel, `{"level":"alert"}`, `{"level":"info"}`},
		{"a", subscribe, `{"uri":"x://1"}`, `{"uri":"x://1"}`},
		{"b", subscribe, `{"uri":"x://1"}`, `{"uri":"x://1"}`},
		{"a", unsubscribe, `{"uri":"x://1"}`, "needless"},
		{"a", unsubscribe, `{"uri":"x://none"}`, `{"uri":"x://none"}`},
		{"a", "tools/call", `{"level":"x"}`, `{"level":"x"}`},
	} {
		if got := add(tt.key, tt.method, tt.params); got != tt.want {
			t.Errorf("%s %s %s: %s, want %s", tt.key, tt.method, tt.params, got, tt.want)
		}
	}
	if got := add("a", setLevel, `{"level":"loud"}`); !strings.Contains(got, "-32602") {
		t.Errorf("a level that is none: %s", got)
	}
	log := func(level string) mcp.Message {
		return mcp.Message{Method: "notifications/message", Params: json.RawMessage(`{"level":"` + level + `"}`)}
	}
	updated := func(uri string) mcp.Message {
		return mcp.Message{Method: "notifications/resources/updated", Params: json.RawMessage(`{"uri":"` + uri + `"}`)}
	}
	for _, tt := range []struct {
		key  string
		m    mcp.Message
		want bool
	}{
		{"a", log("critical"), false}, {"a", log("alert"), true}, {"a", log("emergency"), true}, {"b", log("debug"), false}, {"c", log("debug"), true}, {"a", log("?"), false},
		{"b", updated("x://1"), true}, {"b", updated("x://1/below"), true}, {"b", updated("x://2"), false}, {"a", updated("x://1"), false}, {"c", updated("x://1"), false},
		{"c", mcp.Message{Method: "notifications/progress"}, true},
	} {
		if got := w.wants(tt.key, tt.m); got != tt.want {
			t.Errorf("%s hears %s: %v", tt.key, tt.m.Encode(), got)
		}
	}
	again := fmt.Sprint(w.again())
	if len(w.again()) != 2 || !strings.Contains(fmt.Sprintf("%s", w.again()), "info") {
		t.Errorf("asked again for %s", again)
	}
	if ask := w.forget("b"); len(ask) != 1 || ask[0].Method != unsubscribe || string(ask[0].Params) != `{"uri":"x://1"}` {
		t.Errorf("after the last has gone: %v", ask)
	}
	if len(w.forget("a")) != 0 || len(w.again()) != 0 {
		t.Errorf("kept %v", w.again())
	}
}

// What is remembered has a bound, and who comes first keeps what it has.
func TestWishesAreBounded(t *testing.T) {
	var w wishes
	for i := range maxWishes {
		if err := w.watch("a", fmt.Sprint("x://", i)); err != nil {
			t.Fatal(err)
		}
	}
	if w.watch("b", "x://more") == nil || w.watch("b", "x://1") != nil {
		t.Error("the bound is not kept, or keeps out who asks for what is known")
	}
	for i := range maxWishes {
		if _, err := w.level(fmt.Sprint(i), json.RawMessage(`{"level":"info"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.level("more", json.RawMessage(`{"level":"info"}`)); err == nil {
		t.Error("one level too many is remembered")
	}
}

// A child that callers share can ask the only one whose call runs. Of two nobody
// knows whom it means, and it is told so.
func TestChildAsksTheOnlyCaller(t *testing.T) {
	s := startStdio(t, fixtureSpec(t, "good"))
	p := &peer{answer: func(method string, params json.RawMessage) (json.RawMessage, error) {
		if method != "sampling/createMessage" || string(params) != `{}` {
			return nil, errors.New("another question")
		}
		return json.RawMessage(`{"x":1.0}`), nil
	}}
	ask := func() string {
		t.Helper()
		result, err := s.Call(t.Context(), tool.Session{Key: "a"}, "tools/call", json.RawMessage(`{"name":"ask"}`), p)
		if err != nil {
			t.Fatal(err)
		}
		return said(result)
	}
	if got := ask(); !strings.Contains(got, `"id":"q1","result":{"x":1.0}`) || !strings.Contains(got, `"id":"q2","result":{}`) {
		t.Errorf("the child heard %s", got)
	}
	p.answer = func(string, json.RawMessage) (json.RawMessage, error) { return nil, errors.New("gone, with a secret") }
	if got := ask(); !strings.Contains(got, `"id":"q1","error":{"code":-32603`) || strings.Contains(got, "secret") {
		t.Errorf("the child heard %s", got)
	}
	p.answer = func(string, json.RawMessage) (json.RawMessage, error) {
		t.Error("the wrong caller was asked")
		return nil, nil
	}
	other := make(chan error)
	go func() {
		_, err := s.Call(t.Context(), nobody, "tools/call", json.RawMessage(`{"name":"hang"}`), nil)
		other <- err
	}()
	eventually(t, "another call runs", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.current.mu.Lock()
		defer s.current.mu.Unlock()
		return len(s.current.waiting) == 1
	})
	if got := ask(); !strings.Contains(got, `"id":"q1","error":{"code":-32601`) {
		t.Errorf("the child heard %s", got)
	}
	s.Close()
	<-other
}
