package mcp

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestParseKeepsWhatItDoesNotUnderstand(t *testing.T) {
	const params = `{ "name":"x", "unknown":{"b":1,"a":[1.50,"\u00e9"]}, "_meta":{"traceparent":"00-a"} }`
	in := `{"method":"tools/call","extra":[1],"params":` + params + `,"jsonrpc":"2.0","id":"7"}`
	m, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Params) != params || m.Method != "tools/call" || string(m.ID) != `"7"` || !m.IsRequest() {
		t.Errorf("got %+v", m)
	}
	if out := m.Encode(); !bytes.Contains(out, []byte(params)) {
		t.Errorf("params changed on the way out: %s", out)
	}
}

func TestParseTellsMessagesApart(t *testing.T) {
	tests := []struct {
		name, in          string
		request, response bool
	}{
		{"request", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, true, false},
		{"request with a negative id", `{"jsonrpc":"2.0","id":-1,"method":"ping"}`, true, false},
		{"request with an empty id", `{"jsonrpc":"2.0","id":"","method":"ping"}`, true, false},
		{"request with params null", `{"jsonrpc":"2.0","id":1,"method":"ping","params":null}`, true, false},
		{"escaped member name", `{"jsonrpc":"2.0","\u0069d":1,"method":"ping"}`, true, false},
		{"escaped version", `{"jsonrpc":"\u0032.0","id":1,"method":"ping"}`, true, false},
		{"notification", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, false, false},
		{"result", `{"jsonrpc":"2.0","id":1,"result":{}}`, false, true},
		{"error", `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}`, false, true},
		{"error to nobody", `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}`, false, true},
		{"error without id", `{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}`, false, true},
		{"space around", " \n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\r\n ", true, false},
	}
	for _, tt := range tests {
		m, err := Parse([]byte(tt.in))
		if err != nil {
			t.Errorf("%s: refused: %v", tt.name, err)
			continue
		}
		if m.IsRequest() != tt.request || m.IsResponse() != tt.response {
			t.Errorf("%s: request %v, response %v", tt.name, m.IsRequest(), m.IsResponse())
		}
		again, err := Parse(m.Encode())
		if err != nil || again.Method != m.Method || !bytes.Equal(again.ID, m.ID) {
			t.Errorf("%s: encoded as %s, which reads as %+v, %v", tt.name, m.Encode(), again, err)
		}
	}
}

// R717 and the base protocol: what has two meanings, or none, is refused.
func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name, in string
		code     int
		id       string
	}{
		{"empty", ``, ParseError, ""},
		{"not JSON", `hello`, ParseError, ""},
		{"truncated", `{"jsonrpc":"2.0","id":1,"method":"pi`, ParseError, "1"},
		{"invalid UTF-8", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", ParseError, "1"},
		{"lone surrogate", `{"jsonrpc":"2.0","id":1,"method":"\ud800"}`, ParseError, "1"},
		{"trailing message", `{"jsonrpc":"2.0","id":1,"method":"ping"}{}`, ParseError, "1"},
		{"trailing garbage", `{"jsonrpc":"2.0","id":1,"method":"ping"} x`, ParseError, "1"},
		{"byte order mark", "\ufeff{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", ParseError, ""},
		{"too deep", `{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`, ParseError, "1"},
		{"batch", `[{"jsonrpc":"2.0","id":1,"method":"ping"}]`, InvalidRequest, ""},
		{"empty batch", `[]`, InvalidRequest, ""},
		{"a string", `"ping"`, InvalidRequest, ""},
		{"no version", `{"id":1,"method":"ping"}`, InvalidRequest, "1"},
		{"old version", `{"jsonrpc":"1.0","id":1,"method":"ping"}`, InvalidRequest, "1"},
		{"version as number", `{"jsonrpc":2.0,"id":1,"method":"ping"}`, InvalidRequest, "1"},
		{"duplicate member", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, InvalidRequest, "1"},
		{"duplicate by escape", `{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}`, InvalidRequest, "1"},
		{"duplicate deep inside", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}`, InvalidRequest, "1"},
		{"duplicate before the id", `{"result":{"x":1,"x":2},"jsonrpc":"2.0","id":3}`, InvalidRequest, "3"},
		{"invalid UTF-8 before the id", "{\"result\":\"\xff\",\"jsonrpc\":\"2.0\",\"id\":3}", ParseError, "3"},
		{"duplicate id", `{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`, InvalidRequest, "1"},
		{"id null", `{"jsonrpc":"2.0","id":null,"method":"ping"}`, InvalidRequest, ""},
		{"id object", `{"jsonrpc":"2.0","id":{},"method":"ping"}`, InvalidRequest, ""},
		{"id boolean", `{"jsonrpc":"2.0","id":true,"method":"ping"}`, InvalidRequest, ""},
		{"id fraction", `{"jsonrpc":"2.0","id":1.5,"method":"ping"}`, InvalidRequest, ""},
		{"id exponent", `{"jsonrpc":"2.0","id":1e3,"method":"ping"}`, InvalidRequest, ""},
		{"method number", `{"jsonrpc":"2.0","id":1,"method":5}`, InvalidRequest, "1"},
		{"method empty", `{"jsonrpc":"2.0","id":1,"method":""}`, InvalidRequest, "1"},
		{"method null", `{"jsonrpc":"2.0","id":1,"method":null}`, InvalidRequest, "1"},
		{"params array", `{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}`, InvalidParams, "1"},
		{"params string", `{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}`, InvalidParams, "1"},
		{"request and response", `{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}`, InvalidRequest, "1"},
		{"result and error", `{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}`, InvalidRequest, "1"},
		{"neither", `{"jsonrpc":"2.0","id":1}`, InvalidRequest, "1"},
		{"result without id", `{"jsonrpc":"2.0","result":{}}`, InvalidRequest, ""},
		{"error no object", `{"jsonrpc":"2.0","id":1,"error":"x"}`, InvalidRequest, "1"},
		{"error code no number", `{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}`, InvalidRequest, "1"},
		{"other case", `{"JSONRPC":"2.0","ID":1,"Method":"ping"}`, InvalidRequest, ""},
	}
	for _, tt := range tests {
		m, err := Parse([]byte(tt.in))
		if err == nil {
			t.Errorf("%s: accepted as %+v", tt.name, m)
			continue
		}
		if err.Code != tt.code || string(m.ID) != tt.id || m.Method != "" {
			t.Errorf("%s: got %d %q with id %s, want %d with id %s", tt.name, err.Code, err.Message, m.ID, tt.code, tt.id)
		}
		if answer := (Message{ID: m.ID, Error: err}).Encode(); !json.Valid(answer) {
			t.Errorf("%s: answered with %s", tt.name, answer)
		}
	}
}

func TestErrorGoesOutWordForWord(t *testing.T) {
	in := `{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"no \"x\"","data":{"a":[1]}}}`
	m, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(m.Encode()); got != in {
		t.Errorf("got  %s\nwant %s", got, in)
	}
	if got := (Message{Error: &Error{Code: ParseError, Message: "x"}}).Encode(); string(got) != `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}` {
		t.Errorf("an error to nobody is %s", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":{}}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":"a","result":{}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"\n"}}`))
	f.Add([]byte(`[{"jsonrpc":"2.0"}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		m, refusal := Parse(data)
		if !bytes.Equal(before, data) {
			t.Fatal("the input was changed")
		}
		if refusal != nil {
			return
		}
		again, refusal := Parse(m.Encode())
		if refusal != nil {
			t.Fatalf("%q was accepted but its encoding %q was not: %v", data, m.Encode(), refusal)
		}
		if again.Method != m.Method || !bytes.Equal(again.ID, m.ID) || !bytes.Equal(again.Params, m.Params) || !bytes.Equal(again.Result, m.Result) {
			t.Fatalf("%q became %q", data, m.Encode())
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data := []byte(`{"method":"tools/call","params":{"name":"server_echo","arguments":{"message":"hello world, this is a usual argument"},"_meta":{"progressToken":3}},"jsonrpc":"2.0","id":3}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
