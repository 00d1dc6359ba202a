package mcp

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestField(t *testing.T) {
	const raw = `{"a":1, "n\u0061me":"x\u0079", "_meta":{"token" : [1, 2] }, "z":null}`
	tests := []struct {
		path []string
		want string
	}{
		{[]string{"a"}, `1`},
		{[]string{"name"}, `"x\u0079"`},
		{[]string{"_meta", "token"}, `[1, 2]`},
		{[]string{"z"}, `null`},
		{nil, raw},
		{[]string{"b"}, ``},
		{[]string{"a", "b"}, ``},
		{[]string{"_meta", "b"}, ``},
	}
	for _, tt := range tests {
		if got := Field(json.RawMessage(raw), tt.path...); string(got) != tt.want {
			t.Errorf("Field(%q) = %s, want %s", tt.path, got, tt.want)
		}
	}
	if got := Text(json.RawMessage(raw), "name"); got != "xy" {
		t.Errorf("Text gave %q", got)
	}
	for _, bad := range []string{``, `{`, `{"a"`, `[]`, `{"b":x,"a":1}`, `nul`} {
		if got := Field(json.RawMessage(bad), "a"); got != nil {
			t.Errorf("Field in %s gave %s", bad, got)
		}
	}
}

func TestReplaceTouchesNothingElse(t *testing.T) {
	tests := []struct{ raw, value, want string }{
		{`{ "name" : "billing_list" , "arguments":{"name":1.0} }`, `"list"`, `{ "name" : "list" , "arguments":{"name":1.0} }`},
		{`{"n\u0061me":"x","a":1e5}`, `"y"`, `{"n\u0061me":"y","a":1e5}`},
		{`{"a":{"name":1}}`, `2`, `{"a":{"name":1},"name":2}`},
		{`{}`, `2`, `{"name":2}`},
		{` { } `, `2`, ` { "name":2} `},
		{``, `2`, `{"name":2}`},
	}
	for _, tt := range tests {
		got, err := Replace(json.RawMessage(tt.raw), []byte(tt.value), "name")
		if err != nil || string(got) != tt.want {
			t.Errorf("Replace in %s gave %s, %v, want %s", tt.raw, got, err, tt.want)
		}
	}
}

func TestReplaceMakesTheObjectsOnTheWay(t *testing.T) {
	tests := []struct{ raw, want string }{
		{``, `{"_meta":{"progressToken":7}}`},
		{`{"name":"x"}`, `{"name":"x","_meta":{"progressToken":7}}`},
		{`{"_meta":{},"name":"x"}`, `{"_meta":{"progressToken":7},"name":"x"}`},
		{`{"_meta":{"a":1},"name":"x"}`, `{"_meta":{"a":1,"progressToken":7},"name":"x"}`},
		{`{"_meta":{"progressToken":"abc","a":1}}`, `{"_meta":{"progressToken":7,"a":1}}`},
	}
	for _, tt := range tests {
		got, err := Replace(json.RawMessage(tt.raw), []byte("7"), "_meta", "progressToken")
		if err != nil || string(got) != tt.want {
			t.Errorf("Replace in %s gave %s, %v, want %s", tt.raw, got, err, tt.want)
		}
	}
	for _, bad := range []string{`{"_meta":5}`, `{"_meta":null}`, `[]`, `{"_meta":{`, `{"x":}`} {
		if got, err := Replace(json.RawMessage(bad), []byte("7"), "_meta", "progressToken"); err == nil {
			t.Errorf("Replace in %s gave %s", bad, got)
		}
	}
}

func FuzzReplace(f *testing.F) {
	f.Add([]byte(`{"name":"x","_meta":{"progressToken":1}}`), "_meta", "progressToken")
	f.Add([]byte(`{"a":{"b":{}}}`), "a", "\"")
	f.Add([]byte(` { } `), "a\\", "")
	f.Fuzz(func(t *testing.T, raw []byte, a, b string) {
		before := bytes.Clone(raw)
		out, err := Replace(raw, []byte(`[7]`), a, b)
		if !bytes.Equal(before, raw) {
			t.Fatal("the input was changed")
		}
		if err != nil || !strictObject(raw) || !utf8Names(a, b) {
			return
		}
		if !json.Valid(out) || string(Field(out, a, b)) != `[7]` {
			t.Fatalf("Replace(%q, %q, %q) = %q", raw, a, b, out)
		}
	})
}

func strictObject(raw []byte) bool {
	if len(raw) == 0 {
		return true
	}
	_, err := Parse([]byte(`{"jsonrpc":"2.0","method":"x","params":` + string(raw) + `}`))
	return err == nil
}

func utf8Names(names ...string) bool {
	for _, n := range names {
		if text(appendString(nil, n)) != n {
			return false
		}
	}
	return true
}

func BenchmarkField(b *testing.B) {
	raw := json.RawMessage(`{"name":"server_echo","arguments":{"message":"hello world, this is a usual argument"},"_meta":{"progressToken":3}}`)
	b.ReportAllocs()
	for b.Loop() {
		if Field(raw, "_meta", "progressToken") == nil {
			b.Fatal("not found")
		}
	}
}

func TestIsObject(t *testing.T) {
	for raw, want := range map[string]bool{
		`{}`: true, " {\"a\": [1, {\"a\": 2}], \"A\": null}\n": true,
		``: false, ` `: false, `null`: false, `[]`: false, `"x"`: false, `{`: false, `{}{}`: false, `{} x`: false, `{"a":1,}`: false,
		`{"a":1,"a":1}`: false, `{"a":1,"\u0061":1}`: false, `{"x":[{"a":1,"a":2}]}`: false, "{\"a\":\"\xff\"}": false, `{"a":"\ud800"}`: false,
		`{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`: false,
	} {
		if got := IsObject([]byte(raw)); got != want {
			t.Errorf("%.40q: %t", raw, got)
		}
	}
}

func TestTwin(t *testing.T) {
	for raw, want := range map[string]bool{
		`{"name":1}`: false, `{"Name":1}`: true, `{"name":1,"NAME":2}`: true, `{"n\u0061me":1}`: false, `{"names":1,"nam":2}`: false,
		`{"x":{"Name":1}}`: false, `{"argument\u017f":1}`: true, ``: false, `[]`: false, `"Name"`: false, `{"Name`: true,
	} {
		if got := Twin([]byte(raw), "name", "arguments"); got != want {
			t.Errorf("%s: %v, want %v", raw, got, want)
		}
	}
}

// What is taken out is gone, and what is not there changes nothing.
func TestWithout(t *testing.T) {
	for _, tt := range []struct{ raw, path, want string }{
		{`{"a":1, "b":{ "c":2,"d":[1, 2] } }`, "b c", `{"a":1, "b":{"d":[1, 2]} }`},
		{`{ "a":1, "b":2 }`, "a", `{"b":2}`},
		{`{"b":{"c":2}}`, "b c", `{"b":{}}`},
		{`{"b":{"\u0063":2,"e\"":3}}`, "b c", `{"b":{"e\"":3}}`},
		{`{ "a":1 }`, "b c", `{ "a":1 }`},
		{`{"b":"c"}`, "b c", `{"b":"c"}`},
		{``, "b c", ``},
	} {
		if got := string(Without([]byte(tt.raw), strings.Fields(tt.path)...)); got != tt.want {
			t.Errorf("%s without %s: %s, want %s", tt.raw, tt.path, got, tt.want)
		}
	}
}
