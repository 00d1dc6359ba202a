package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// What the person leaves as it was takes the default of the schema; who is not
// asked has answered nothing.
func TestQuestions(t *testing.T) {
	const form = `{"message":"who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string","default":"Ann"},"age":{"type":"integer","default":7},"x":{"type":"string"}}}}`
	say := func(r Reply) func(context.Context, Question) (Reply, error) {
		return func(context.Context, Question) (Reply, error) { return r, nil }
	}
	tests := []struct {
		name   string
		method string
		params string
		ask    func(context.Context, Question) (Reply, error)
		want   string // "" refuses
	}{
		{"accepted", "elicitation/create", form, say(Reply{Action: Accept, Content: map[string]any{"age": 8}}), `{"action":"accept","content":{"age":8,"name":"Ann"}}`},
		{"accepted as it is", "elicitation/create", form, say(Reply{Action: Accept}), `{"action":"accept","content":{"age":7,"name":"Ann"}}`},
		{"declined", "elicitation/create", form, say(Reply{Action: Decline, Content: map[string]any{"age": 8}}), `{"action":"decline"}`},
		{"nothing said", "elicitation/create", form, say(Reply{}), `{"action":"cancel"}`},
		{"failed", "elicitation/create", form, func(context.Context, Question) (Reply, error) {
			return Reply{Action: Accept}, errors.New("no terminal")
		}, `{"action":"cancel"}`},
		{"page", "elicitation/create", `{"mode":"url","message":"open","url":"https://as.example/x"}`, say(Reply{Action: Accept, Content: map[string]any{"secret": 1}}), `{"action":"accept"}`},
		{"page that is none", "elicitation/create", `{"mode":"url","message":"open","url":"javascript:alert(1)"}`, say(Reply{Action: Accept}), ""},
		{"page over http", "elicitation/create", `{"mode":"url","message":"open","url":"http://as.example/"}`, say(Reply{Action: Accept}), ""},
		{"unreadable", "elicitation/create", `[]`, say(Reply{Action: Accept}), ""},
		{"nobody there", "elicitation/create", form, nil, ""},
		{"something else", "sampling/createMessage", `{}`, say(Reply{Action: Accept}), ""},
	}
	for _, tt := range tests {
		c := newClient(t)
		c.opts.Ask = tt.ask
		got, err := (&Session{c: c}).ask(short(t), tt.method, json.RawMessage(tt.params))
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %s, %v", tt.name, got, err)
		}
	}
}

// R909: what a server says of its own accord arrives while nobody calls, questions
// too, and the stream is opened before the first call and again when it ends.
func TestServerSpeaksUnasked(t *testing.T) {
	f := newFake(t)
	f.valid = "given"
	say, answered, opened := make(chan string), make(chan string, 1), make(chan string, 10)
	f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			opened <- r.Header.Get("Last-Event-ID")
			out := mcp.NewEventWriter(w)
			out.Send(mcp.Event{ID: "e1"})
			select {
			case text := <-say:
				out.Send(mcp.Event{ID: "e2", Data: []byte(text)})
			case <-r.Context().Done():
			}
		case http.MethodPost:
			body, _ := io.ReadAll(r.Body)
			if m, _ := mcp.Parse(body); m.IsResponse() {
				answered <- string(body)
				w.WriteHeader(202)
				return
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			fallthrough
		default:
			f.mcp(w, r)
		}
	}
	heard := make(chan string, 1)
	c := New(Options{
		Token: "given", Credentials: t.TempDir() + "/c.json",
		Notify: func(method string, params json.RawMessage) { heard <- method + string(params) },
		Ask:    func(context.Context, Question) (Reply, error) { return Reply{Action: Accept}, nil },
	})
	s, err := c.Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-opened:
	default:
		t.Error("connected before the stream was open")
	}
	wait := func(what string, from chan string, part string) {
		t.Helper()
		select {
		case got := <-from:
			if !strings.Contains(got, part) {
				t.Errorf("%s: %s", what, got)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no", what)
		}
	}
	say <- `{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"a":1}}`
	wait("notification", heard, `notifications/tools/list_changed{"a":1}`)
	wait("second stream", opened, "e2")
	say <- `{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"?","requestedSchema":{"type":"object"}}}`
	wait("answer", answered, `{"jsonrpc":"2.0","id":"q","result":{"action":"accept","content":{}}}`)
	s.Close(short(t))
	if s.deaf != nil {
		t.Error("still listening")
	}
}

// A server of the era without handshake is asked to tell what changes.
func TestModernServerIsAskedForChanges(t *testing.T) {
	f := newModern(t)
	say, opened := make(chan string), make(chan string, 10)
	f.call = func(w http.ResponseWriter, m mcp.Message) {
		if m.Method != "subscriptions/listen" {
			answerJSON(w, m.ID, `{}`)
			return
		}
		opened <- string(mcp.Field(m.Params, "notifications"))
		out := mcp.NewEventWriter(w)
		out.Message([]byte(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true}}}`))
		out.Message([]byte(<-say))
	}
	heard := make(chan string, 2)
	c := newClient(t)
	c.opts.Notify = func(method string, _ json.RawMessage) { heard <- method }
	s, err := c.Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	if got := <-opened; got != `{"promptsListChanged":true,"resourcesListChanged":true,"toolsListChanged":true}` {
		t.Errorf("asked for %s", got)
	}
	say <- `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`
	select {
	case got := <-heard:
		if got != "notifications/tools/list_changed" {
			t.Errorf("heard %s", got)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("heard nothing")
	}
	if err := s.Ping(short(t)); err != nil {
		t.Error(err)
	}
	<-opened // again, since it ended
	close(say)
	s.Close(short(t))
}

func TestPing(t *testing.T) {
	f := newFake(t)
	s, err := signedIn(t, f).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(short(t)); err != nil || f.count("ping") != 1 {
		t.Errorf("%d pings, %v", f.count("ping"), err)
	}
	f.Close()
	if err := s.Ping(short(t)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}
