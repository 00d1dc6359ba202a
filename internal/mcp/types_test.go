package mcp

import (
	"encoding/json"
	"net/http"
	"testing"
)

// R716: a known revision is answered with itself, any other with our latest.
func TestNegotiate(t *testing.T) {
	for asked, want := range map[string]string{
		"2025-11-25": "2025-11-25", "2025-06-18": "2025-06-18", "2025-03-26": "2025-03-26",
		"2024-11-05": Latest, "2026-07-28": Latest, "": Latest, "x": Latest,
	} {
		if got := Negotiate(asked); got != want {
			t.Errorf("Negotiate(%q) = %q, want %q", asked, got, want)
		}
	}
}

// R715: a request of the era that is not served is recognised by header or by _meta.
func TestIsModern(t *testing.T) {
	meta := Message{Method: "tools/list", Params: json.RawMessage(`{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}`)}
	tests := []struct {
		header string
		m      Message
		want   bool
	}{
		{"", Message{}, false},
		{"2025-11-25", Message{Params: json.RawMessage(`{"_meta":{}}`)}, false},
		{"2024-11-05", Message{}, false},
		{"2026-07-28", Message{}, true},
		{"2027-01-01", Message{}, true},
		{"latest", Message{}, true},
		{"", meta, true},
		{"2025-11-25", meta, true},
	}
	for _, tt := range tests {
		h := http.Header{}
		if tt.header != "" {
			h.Set(VersionHeader, tt.header)
		}
		if got := IsModern(h, tt.m); got != tt.want {
			t.Errorf("IsModern(%q, %s) = %v", tt.header, tt.m.Params, got)
		}
	}
	if got := string(Unsupported("2026-07-28").Data); got != `{"supported":["2025-11-25","2025-06-18","2025-03-26"],"requested":"2026-07-28"}` {
		t.Errorf("Unsupported says %s", got)
	}
}

func TestDefinitionIsKeptAndRead(t *testing.T) {
	const raw = `{"name":"list","x":{"y":1.0},"annotations":{"readOnlyHint":true,"destructiveHint":false}}`
	var list ToolList
	if err := json.Unmarshal([]byte(`{"tools":[`+raw+`,{"name":"b"},{"name":"c","annotations":{"readOnlyHint":"yes"}}],"nextCursor":"n"}`), &list); err != nil {
		t.Fatal(err)
	}
	d := list.Tools[0]
	a := d.Annotations()
	if string(d) != raw || d.Name() != "list" || a.ReadOnly == nil || !*a.ReadOnly || a.Destructive == nil || *a.Destructive {
		t.Errorf("got %s, %+v", d, a)
	}
	for _, d := range list.Tools[1:] {
		if d.Annotations() != (Annotations{}) {
			t.Errorf("%s has hints", d)
		}
	}
	if out, err := json.Marshal(d); err != nil || string(out) != raw {
		t.Errorf("marshalled as %s, %v", out, err)
	}
}

// R718: structured content comes with its text.
func TestTextResult(t *testing.T) {
	tests := []struct {
		structured json.RawMessage
		failed     bool
		want       string
	}{
		{nil, false, `{"content":[{"type":"text","text":"a \"b\""}]}`},
		{json.RawMessage(`{"n":1}`), false, `{"content":[{"type":"text","text":"a \"b\""}],"structuredContent":{"n":1}}`},
		{nil, true, `{"content":[{"type":"text","text":"a \"b\""}],"isError":true}`},
	}
	for _, tt := range tests {
		got := TextResult(tt.structured, `a "b"`, tt.failed)
		if string(got) != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}
