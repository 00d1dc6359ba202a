package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// modern is a server of the era without handshake. What it answers to a call is
// the test's.
type modern struct {
	*fake
	mu       sync.Mutex
	messages []mcp.Message
	headers  []http.Header
	tools    string
	call     func(w http.ResponseWriter, m mcp.Message)
}

func newModern(t *testing.T) *modern {
	f := &modern{fake: newFake(t), tools: `[{"name":"echo"}]`}
	f.call = func(w http.ResponseWriter, m mcp.Message) {
		answerJSON(w, m.ID, `{"resultType":"complete","content":[{"type":"text","text":"done"}]}`)
	}
	f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m, _ := mcp.Parse(body)
		f.mu.Lock()
		f.messages, f.headers = append(f.messages, m), append(f.headers, r.Header)
		f.mu.Unlock()
		switch {
		case r.Header.Get(mcp.VersionHeader) != mcp.Modern:
			http.Error(w, "no", http.StatusBadRequest)
		case m.Method == "server/discover":
			answerJSON(w, m.ID, `{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"modern","version":"2"}}}`)
		case m.Method == "tools/list":
			answerJSON(w, m.ID, `{"resultType":"complete","tools":`+f.tools+`}`)
		default:
			f.call(w, m)
		}
	}
	return f
}

func (f *modern) last() (mcp.Message, http.Header) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.messages[len(f.messages)-1], f.headers[len(f.headers)-1]
}

func refusal32(w http.ResponseWriter, m mcp.Message, code int, data string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	w.Write(mcp.Message{ID: m.ID, Error: &mcp.Error{Code: code, Message: "no", Data: json.RawMessage(data)}}.Encode())
}

// Each request says by itself what it speaks, twice: for the server, and for those
// on the way.
func TestModernRequestsSpeakForThemselves(t *testing.T) {
	f := newModern(t)
	s, err := newClient(t).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	if i := s.Info(); i.Name != "modern" || i.Protocol != "2026-07-28" {
		t.Errorf("connected to %+v", i)
	}
	if res, err := s.Call(short(t), "echo", json.RawMessage(`{"a":1}`), func(Progress) {}); err != nil || res.Text() != "done" {
		t.Errorf("%+v, %v", res, err)
	}
	for i, m := range f.messages {
		h := f.headers[i]
		if h.Get(mcp.VersionHeader) != "2026-07-28" || h.Get("Mcp-Method") != m.Method || h.Get("Mcp-Session-Id") != "" ||
			mcp.Text(m.Params, "_meta", mcp.VersionMeta) != "2026-07-28" || string(mcp.Field(m.Params, "_meta", mcp.CapabilitiesMeta)) != "{}" ||
			mcp.Text(m.Params, "_meta", mcp.ClientMeta, "name") != "test" {
			t.Errorf("%s: %v %s", m.Method, h, m.Params)
		}
	}
	if m, h := f.last(); h.Get("Mcp-Name") != "echo" || string(mcp.Field(m.Params, "_meta", "progressToken")) != string(m.ID) {
		t.Errorf("%v %s", h, m.Params)
	}
	s.Close(short(t))
	if len(f.messages) != 2 {
		t.Errorf("%d messages: there is neither a handshake nor an end", len(f.messages))
	}
}

// Whoever does not know the question gets a handshake, and is not asked again.
func TestServersWithHandshake(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, mcp.Message){
		"status 400":         func(w http.ResponseWriter, m mcp.Message) { w.WriteHeader(400) },
		"status 404":         func(w http.ResponseWriter, m mcp.Message) { w.WriteHeader(404) },
		"status 500":         func(w http.ResponseWriter, m mcp.Message) { w.WriteHeader(500) },
		"unknown method":     func(w http.ResponseWriter, m mcp.Message) { refusal32(w, m, -32601, "null") },
		"unknown version":    func(w http.ResponseWriter, m mcp.Message) { refusal32(w, m, -32022, `{"supported":["2025-11-25"]}`) },
		"unknown, says none": func(w http.ResponseWriter, m mcp.Message) { refusal32(w, m, -32022, `{}`) },
		"other versions only": func(w http.ResponseWriter, m mcp.Message) {
			answerJSON(w, m.ID, `{"supportedVersions":["2025-11-25"]}`)
		},
		"no answer to it": func(w http.ResponseWriter, m mcp.Message) { answerJSON(w, m.ID, `{}`) },
	} {
		f := newFake(t)
		f.valid = "given"
		probes := 0
		f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if m, _ := mcp.Parse(body); m.Method == "server/discover" {
				probes++
				answer(w, m)
				return
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			f.mcp(w, r)
		}
		c := New(Options{Token: "given", Credentials: t.TempDir() + "/c.json"})
		for range 2 {
			if s, err := c.Connect(short(t), f.server()); err != nil || s.Info().Protocol != "2025-06-18" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if probes != 1 {
			t.Errorf("%s: asked %d times", name, probes)
		}
	}
}

func TestModernServerThatRefusesAtFirst(t *testing.T) {
	f := newModern(t)
	polite, n := f.override["/mcp"], 0
	f.override["/mcp"] = func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			refusal32(w, mcp.Message{ID: json.RawMessage("1")}, -32022, `{"supported":["2026-07-28"]}`)
			return
		}
		polite(w, r)
	}
	if s, err := newClient(t).Connect(short(t), f.server()); err != nil || s.Info().Protocol != "2026-07-28" {
		t.Errorf("%v", err)
	}
}

// A server asks before it answers: the request comes again, with what it wanted to
// know and its state as it was, and with another id.
func TestServerAsksBeforeItAnswers(t *testing.T) {
	f := newModern(t)
	rounds := []string{
		`{"resultType":"input_required","inputRequests":{"q":{"method":"elicitation/create","params":{"message":"sure?","requestedSchema":{"type":"object"}}}},"requestState":"{\"a\": 1}"}`,
		`{"resultType":"input_required","inputRequests":{"r":{"method":"elicitation/create","params":{"message":"really?","requestedSchema":{"type":"object"}}}}}`,
		`{"resultType":"input_required","requestState":"only"}`,
		`{"resultType":"complete","content":[]}`,
	}
	n := 0
	f.call = func(w http.ResponseWriter, m mcp.Message) { answerJSON(w, m.ID, rounds[n]); n++ }
	c := newClient(t)
	c.opts.Ask = func(_ context.Context, q Question) (Reply, error) {
		return Reply{Action: Accept, Content: map[string]any{"to": q.Message}}, nil
	}
	s, err := c.Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(short(t), "echo", json.RawMessage(`{"a":1}`), nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	ids := map[string]bool{}
	for _, m := range f.messages[1:] {
		ids[string(m.ID)] = true
		got = append(got, fmt.Sprintf("%s %s %s", mcp.Field(m.Params, "arguments"), mcp.Field(m.Params, "inputResponses"), mcp.Field(m.Params, "requestState")))
	}
	want := []string{
		`{"a":1}  `,
		`{"a":1} {"q":{"action":"accept","content":{"to":"sure?"}}} "{\"a\": 1}"`,
		`{"a":1} {"r":{"action":"accept","content":{"to":"really?"}}} `,
		`{"a":1}  "only"`,
	}
	if !reflect.DeepEqual(got, want) || len(ids) != 4 {
		t.Errorf("%d ids, sent\n%s", len(ids), strings.Join(got, "\n"))
	}
	if string(mcp.Field(f.messages[0].Params, "_meta", mcp.CapabilitiesMeta)) != `{"elicitation":{"form":{},"url":{}}}` {
		t.Errorf("%s", f.messages[0].Params)
	}

	n, rounds = 0, []string{`{"resultType":"input_required","inputRequests":{"q":{"method":"sampling/createMessage","params":{}}}}`}
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "sampling") {
		t.Errorf("what was not offered: %v", err)
	}
	f.call = func(w http.ResponseWriter, m mcp.Message) {
		answerJSON(w, m.ID, `{"resultType":"input_required","requestState":"again"}`)
	}
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "more and more") {
		t.Errorf("a server that never answers: %v", err)
	}
}

// The headers that a tool wants come from its schema; a tool that wants what is
// not allowed does not exist.
func TestArgumentsInHeaders(t *testing.T) {
	f := newModern(t)
	f.tools = `[{"name":"echo","inputSchema":{"type":"object","properties":{
		"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"},"b":{"type":"boolean","x-mcp-header":"B"},
		"none":{"type":"string","x-mcp-header":"None"},"deep":{"type":"object","properties":{"x":{"type":"string","x-mcp-header":"Deep"}}},"other":{"type":"string"}}}},
		{"name":"bad","inputSchema":{"type":"object","properties":{"a":{"type":"number","x-mcp-header":"A"}}}}]`
	s, err := newClient(t).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	args := json.RawMessage(`{"region":"zürich","n":42,"b":false,"none":null,"deep":{"x":"y"},"other":"z"}`)
	good, calls := f.call, 0
	f.call = func(w http.ResponseWriter, m mcp.Message) {
		if calls++; calls == 1 { // nothing has been listed yet
			refusal32(w, m, mcp.HeaderMismatch, "null")
			return
		}
		good(w, m)
	}
	if _, err := s.Call(short(t), "echo", args, nil); err != nil || calls != 2 {
		t.Fatal(calls, err)
	}
	_, h := f.last()
	for name, want := range map[string]string{"Region": "=?base64?esO8cmljaA==?=", "N": "42", "B": "false", "Deep": "y", "None": "", "Other": ""} {
		if got := h.Get("Mcp-Param-" + name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if h.Values("Mcp-Param-None") != nil {
		t.Error("null has a header")
	}
	if tools, err := s.Tools(short(t)); err != nil || len(tools) != 1 || tools[0].Name != "echo" {
		t.Errorf("%+v, %v", tools, err)
	}
}

func TestMirrors(t *testing.T) {
	for schema, want := range map[string]bool{
		`{"type":"object"}`: true,
		`true`:              true,
		`{"properties":{"x-mcp-header":{"type":"string"}}}`:                                                                     true, // a property of that name
		`{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"B"}}}`:                    true,
		`{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}`:                    false,
		`{"properties":{"a":{"type":"string","x-mcp-header":""}}}`:                                                              false,
		`{"properties":{"a":{"type":"string","x-mcp-header":7}}}`:                                                               false,
		`{"properties":{"a":{"type":"string","x-mcp-header":"A B"}}}`:                                                           false,
		`{"properties":{"a":{"type":"string","x-mcp-header":"A\r\nB"}}}`:                                                        false,
		`{"properties":{"a":{"type":"string","x-mcp-header":"Ä"}}}`:                                                             false,
		`{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}`:                                                             false,
		`{"properties":{"a":{"type":["string","null"],"x-mcp-header":"A"}}}`:                                                    false,
		`{"properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}}`:                                    false,
		`{"anyOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}`:                                                 false,
		`{"$defs":{"d":{"type":"string","x-mcp-header":"A"}},"properties":{"a":{"$ref":"#/$defs/d"}}}`:                          false,
		`{"properties":{"a":{"type":"object","default":{"x-mcp-header":"A"}}}}`:                                                 true,
		`{"properties":{"properties":{"type":"object","properties":{"x":{"type":"integer","x-mcp-header":"X"}}}}}`:              true,
		`{"properties":{"a":{"type":"object","additionalProperties":{"type":"string","x-mcp-header":"A"}}}}`:                    false,
		`{"type":"string","x-mcp-header":"Root"}`:                                                                               false,
		`{"properties":{"a":{"type":"object","x-mcp-header":"A","properties":{"b":{"type":"string","x-mcp-header":"B"}}}}}`:     false,
		`{"properties":{"a":{"type":"object","properties":{"b":{"type":"string","x-mcp-header":"B"}}}},"x-other":{"a":"b"}}`:    true,
		`{"if":{"properties":{"a":{"const":"x-mcp-header"}}},"properties":{"a":{"type":"string","enum":["x-mcp-header","b"]}}}`: true,
	} {
		if _, ok := mirrors(json.RawMessage(schema)); ok != want {
			t.Errorf("%s: %v", schema, ok)
		}
	}
	for in, want := range map[string]string{
		"": "", "a b": "a b", " a": "=?base64?IGE=?=", "a\n": "=?base64?YQo=?=", "a\tb": "=?base64?YQli?=", "é": "=?base64?w6k=?=", "=?base64?YQ==?=": "=?base64?PT9iYXNlNjQ/WVE9PT89?=",
	} {
		if got := headerValue(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestResourcesAndPrompts(t *testing.T) {
	f := newModern(t)
	f.call = func(w http.ResponseWriter, m mcp.Message) {
		answerJSON(w, m.ID, map[string]string{
			"resources/list": `{"resources":[{"uri":"file:///a","name":"a"}]}`,
			"resources/read": `{"contents":[{"uri":"file:///a","blob":"aGk="}]}`,
			"prompts/list":   `{"prompts":[{"name":"p","arguments":[{"name":"x","required":true}]}]}`,
			"prompts/get":    `{"messages":[{"role":"user","content":{"type":"text","text":"hi"}}]}`,
		}[m.Method])
	}
	s, err := newClient(t).Connect(short(t), f.server())
	if err != nil {
		t.Fatal(err)
	}
	if all, err := s.Resources(short(t)); err != nil || len(all) != 1 || all[0].URI != "file:///a" {
		t.Errorf("%+v, %v", all, err)
	}
	if got, err := s.Read(short(t), "file:///a"); err != nil || len(got) != 1 || string(got[0].Blob) != "hi" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, h := f.last(); h.Get("Mcp-Name") != "file:///a" {
		t.Errorf("%v", h)
	}
	if all, err := s.Prompts(short(t)); err != nil || len(all) != 1 || !all[0].Arguments[0].Required {
		t.Errorf("%+v, %v", all, err)
	}
	if got, err := s.Prompt(short(t), "p", map[string]string{"x": "y"}); err != nil || len(got) != 1 || got[0].Role != "user" {
		t.Errorf("%+v, %v", got, err)
	}
	f.call = func(w http.ResponseWriter, m mcp.Message) { refusal32(w, m, -32602, "null") }
	if _, err := s.Read(short(t), "file:///b"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

// A stream that breaks off is asked for the rest, when its server wants it, where
// it was left.
func TestBrokenStreamIsResumed(t *testing.T) {
	var asked []string
	var gap time.Duration
	var broke time.Time
	_, s := scripted(t, func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
		w.Header().Set("Content-Type", "text/event-stream")
		if r.Method == http.MethodGet {
			asked, gap = append(asked, r.Header.Get("Last-Event-ID")), time.Since(broke)
			if len(asked) == 1 {
				fmt.Fprint(w, "id: e2\ndata:\n\n")
				return
			}
			fmt.Fprint(w, "id: e3\ndata: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"late\"}]}}\n\n")
			return
		}
		fmt.Fprint(w, "id: e1\nretry: 40\ndata:\n\n")
		broke = time.Now()
	})
	s.nextID.Store(1)
	if res, err := s.Call(short(t), "echo", nil, nil); err != nil || res.Text() != "late" {
		t.Fatal(res, err)
	}
	if !reflect.DeepEqual(asked, []string{"e1", "e2"}) || gap < 40*time.Millisecond {
		t.Errorf("asked for what follows %q, after %v", asked, gap)
	}
}

// Where a server does not number its events, or has no more to say, nothing is
// asked twice.
func TestBrokenStreamThatCannotBeResumed(t *testing.T) {
	gets := 0
	first := "data:\n\n"
	_, s := scripted(t, func(w http.ResponseWriter, r *http.Request, m mcp.Message) {
		if r.Method == http.MethodGet {
			gets++
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, first)
	})
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrUnreachable) || gets != 0 {
		t.Errorf("%d times, %v", gets, err)
	}
	first = "id: e1\nretry: 1\ndata:\n\n"
	if _, err := s.Call(short(t), "echo", nil, nil); !errors.Is(err, ErrUnreachable) || gets != 1 || !strings.Contains(err.Error(), "before the answer") {
		t.Errorf("%d times, %v", gets, err)
	}
}
