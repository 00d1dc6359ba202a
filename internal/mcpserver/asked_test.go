package mcpserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// call begins a tools/call whose answer is a stream.
func (f *fixture) callStream(path, bearer, session, name string) *listening {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	r := f.Request(http.MethodPost, path, `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"`+name+`"}}`,
		"Authorization: Bearer "+bearer, "Content-Type: application/json", "Accept: application/json, text/event-stream", inSession(session))
	return f.stream(r.WithContext(ctx), cancel)
}

// questionID is the id under which the caller is asked.
func questionID(t *testing.T, question string) string {
	t.Helper()
	m, fault := mcp.Parse([]byte(question))
	if fault != nil || !m.IsRequest() {
		t.Fatalf("not a question: %s", question)
	}
	return string(m.ID)
}

// R719: what a server asks while a call runs reaches the caller of that call, with
// its parameters as they are, and the answer goes back as it is.
func TestServerAsksTheCaller(t *testing.T) {
	f := start(t)
	up := f.withFull()
	for path, name := range map[string]string{atFull: "look", "/mcp": "full_look"} {
		bearer := f.at(path, "full:read")
		session, _ := f.open(path, bearer, everything)
		for method, answer := range map[string]string{
			"elicitation/create": `{"action":"accept","content":{"x":1.0}}`, "sampling/createMessage": `{"role":"assistant","x-odd":[1.0]}`,
		} {
			up.answer("tools/call", up.asking(`{"jsonrpc":"2.0","id":"theirs","method":"`+method+`","params":{"message":"why?","x":1.0}}`))
			call := f.callStream(path, bearer, session, name)
			question := call.next()
			id := questionID(t, question)
			if want := `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{"message":"why?","x":1.0}}`; question != want || strings.Contains(question, "theirs") {
				t.Errorf("at %s the caller was asked %s, want %s", path, question, want)
			}
			if a := f.post(path, bearer, `{"jsonrpc":"2.0","id":`+id+`,"result":`+answer+`}`, inSession(session)); a.StatusCode != http.StatusAccepted {
				t.Errorf("the answer: %d %s", a.StatusCode, a.Text)
			}
			result := call.next()
			var text struct {
				Result struct{ Content []struct{ Text string } }
			}
			apptest.Answer{Text: result}.JSON(t, &text)
			if want := `{"jsonrpc":"2.0","id":"theirs","result":` + answer + `}`; len(text.Result.Content) != 1 || text.Result.Content[0].Text != want {
				t.Errorf("at %s the server heard %s, want %s", path, result, want)
			}
		}
	}
}

// A server that asks for what the client has not declared hears so, and so does
// one whose caller has no session: it is not asked.
func TestServerAsksInVain(t *testing.T) {
	f := start(t)
	up := f.withFull()
	bearer := f.at(atFull, "full:read")
	none, _ := f.open(atFull, bearer, `{}`)
	form, _ := f.open(atFull, bearer, `{"elicitation":{"form":{}}}`)
	for name, tt := range map[string]struct {
		session, method, params, code string
	}{
		"nothing is declared": {none, "elicitation/create", `{}`, "-32601"},
		"something else is":   {form, "sampling/createMessage", `{}`, "-32601"},
		"roots":               {form, "roots/list", `{}`, "-32601"},
		"another mode is":     {form, "elicitation/create", `{"mode":"url","url":"https://evil.example"}`, "-32602"},
		"what nobody knows":   {form, "tools/call", `{"name":"x"}`, "-32601"},
		"without a session":   {"", "elicitation/create", `{}`, "-32601"},
	} {
		up.answer("tools/call", up.asking(`{"jsonrpc":"2.0","id":"q","method":"`+tt.method+`","params":`+tt.params+`}`))
		a := f.RPC(atFull, bearer, "tools/call", `{"name":"look"}`, inSession(tt.session))
		if !strings.Contains(a.Text, `\"code\":`+tt.code) || strings.Contains(a.Text, "event:") {
			t.Errorf("%s: %s", name, a.Text)
		}
	}
	up.answer("tools/call", up.asking(`{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}`))
	r := f.Request(http.MethodPost, atFull, `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"look"}}`,
		"Authorization: Bearer "+bearer, "Content-Type: application/json", "Accept: application/json", inSession(form))
	if a := f.Do(r); !strings.Contains(a.Text, "cannot be reached") {
		t.Errorf("a caller that reads JSON only: %s", a.Text)
	}
}

// Attack 84: only who was asked answers, in the session it was asked in, once, and
// while the call runs.
func TestForeignAnswers(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:read")
	bob := f.token(token.Family{User: "usr_bob", Resource: f.URL + atFull, Scopes: []string{"full:read"}}, 0)
	session, _ := f.open(atFull, dev, everything)
	other, _ := f.open(atFull, dev, everything)
	bobs, _ := f.open(atFull, bob, everything)
	common := f.dev("full:read")
	commons, _ := f.open("/mcp", common, everything)
	up.answer("tools/call", up.asking(`{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}`))
	call := f.callStream(atFull, dev, session, "look")
	id := questionID(t, call.next())
	answer := func(word string) string {
		return `{"jsonrpc":"2.0","id":` + id + `,"result":{"action":"` + word + `"}}`
	}
	for name, tt := range map[string]struct {
		path, bearer, session string
		status                int
	}{
		"bob in his own session":       {atFull, bob, bobs, http.StatusAccepted},
		"bob in the caller's":          {atFull, bob, session, http.StatusNotFound},
		"bob without one":              {atFull, bob, "", http.StatusAccepted},
		"another session":              {atFull, dev, other, http.StatusAccepted},
		"without a session":            {atFull, dev, "", http.StatusAccepted},
		"a session at another place":   {"/mcp", common, commons, http.StatusAccepted},
		"the session at another place": {"/mcp", common, session, http.StatusNotFound},
		"a stranger":                   {atFull, "", session, http.StatusUnauthorized},
	} {
		var headers []string
		if tt.session != "" {
			headers = []string{inSession(tt.session)}
		}
		if a := f.post(tt.path, tt.bearer, answer("stolen"), headers...); a.StatusCode != tt.status {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
		}
	}
	f.post(atFull, dev, `{"jsonrpc":"2.0","id":"gatehouse-guess","result":{"action":"stolen"}}`, inSession(session))
	f.post(atFull, dev, answer("mine"), inSession(session))
	f.post(atFull, dev, answer("again"), inSession(session))
	if got := call.next(); !strings.Contains(got, "mine") || strings.Contains(got, "stolen") {
		t.Errorf("the server heard %s", got)
	}
	there := up.in("tools/call")
	if n := len(up.session(there).told); n != 0 {
		t.Errorf("the server heard %d answers more", n)
	}
}

// A caller that leaves while it is asked ends the call; a server that takes its
// question back has it taken back.
func TestQuestionsEnd(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:read")
	session, _ := f.open(atFull, dev, everything)
	asked := make(chan bool)
	up.answer("tools/call", func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		events := mcp.NewEventWriter(w)
		_ = events.Message([]byte(`{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}`))
		<-asked
		_ = events.Message([]byte(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q"}}`))
		_ = events.Message([]byte(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}`))
		_ = events.Message(mcp.Message{ID: m.ID, Result: []byte(`{"content":[]}`)}.Encode())
	})
	call := f.callStream(atFull, dev, session, "look")
	id := questionID(t, call.next())
	asked <- true
	if got := call.until("cancelled"); got != "the end" && !strings.Contains(got, `"requestId":`+id) { // the result may be faster
		t.Errorf("heard %s", got)
	}
	up.answer("tools/call", func(w http.ResponseWriter, r *http.Request, _ mcp.Message) {
		_ = mcp.NewEventWriter(w).Message([]byte(`{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}`))
		<-r.Context().Done() // it does not make do with no answer, which could end the call first
	})
	call = f.callStream(atFull, dev, session, "look")
	questionID(t, call.next())
	call.close()
	eventually(t, "the server hears that the call is over", func() bool { return len(up.heard("notifications/cancelled")) > 0 })
}

// A server may ask on the stream of a session as well, if the session is the
// caller's own; what the client says of its roots reaches it there.
func TestServerAsksOutsideOfCalls(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:read")
	session, _ := f.open(atFull, dev, everything)
	f.RPC(atFull, dev, "tools/call", `{"name":"look"}`, inSession(session))
	there := up.session(up.in("tools/call"))
	f.post(atFull, dev, `{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}`, inSession(session))
	if got := soon(t, "the notification", there.told); got.Method != "notifications/roots/list_changed" {
		t.Errorf("heard %s", got.Encode())
	}
	stream := f.listen(atFull, dev, session)
	there.stream <- `{"jsonrpc":"2.0","id":5,"method":"roots/list"}`
	id := questionID(t, stream.next())
	f.post(atFull, dev, `{"jsonrpc":"2.0","id":`+id+`,"error":{"code":-1,"message":"not today","data":1.0}}`, inSession(session))
	if got := soon(t, "the answer", there.told); string(got.Encode()) != `{"jsonrpc":"2.0","id":5,"error":{"code":-1,"message":"not today","data":1.0}}` {
		t.Errorf("heard %s", got.Encode())
	}
}
