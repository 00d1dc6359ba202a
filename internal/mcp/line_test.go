package mcp

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestLinesAreCutAndBounded(t *testing.T) {
	var got []string
	l := &Lines{Max: 300, Each: func(b []byte) { got = append(got, string(b)) }, Over: func(head, tail []byte) {
		got = append(got, fmt.Sprintf("over %d %d %s", len(head), len(tail), tail[len(tail)-3:]))
	}}
	long := strings.Repeat("x", 1000) + "end"
	for _, chunk := range []string{"a\nb", "c\n\n \nd", "\n", long[:200], long[200:400], long[400:], "\n", strings.Repeat("y", 300) + "\ne\n"} {
		if n, err := l.Write([]byte(chunk)); n != len(chunk) || err != nil {
			t.Fatal(n, err)
		}
	}
	want := []string{"a", "bc", "d", "over 256 256 end", strings.Repeat("y", 300), "e"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q", got)
	}
}

// A line that has no break at its end is one all the same, once somebody says so.
func TestLastLineNeedsNoBreak(t *testing.T) {
	var got []string
	l := &Lines{Max: 300, Each: func(b []byte) { got = append(got, string(b)) }}
	_, _ = l.Write([]byte("a\nb")) // it never fails
	l.End()
	l.End()
	if strings.Join(got, "|") != "a|b" {
		t.Errorf("got %q", got)
	}
}

// Whatever a message was made of, it is one line (MCP transports, "stdio").
func TestMessageIsOneLine(t *testing.T) {
	m := Message{ID: []byte("1"), Result: []byte("{\n\t\"a\": \r\n \"b\\n\"}\n")}
	line := string(Line(m.Encode()))
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") || strings.Contains(line, "\r") {
		t.Errorf("%q", line)
	}
	if again, fault := Parse([]byte(line)); fault != nil || Text(again.Result, "a") != "b\n" {
		t.Errorf("%q became %+v, %v", line, again, fault)
	}
}

// The id of a message that is too long is at either end.
func TestIDAtTheEdges(t *testing.T) {
	for _, tt := range []struct{ head, tail, want string }{
		{`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"x":"yyy`, `yyy"}}`, "7"},
		{`{"jsonrpc":"2.0","id":"a","params":{"x":"yyy`, `yyy"}}`, `"a"`},
		{`{"params":{"x":"yyy`, `yyy"},"id" : 12 }`, "12"},
		{`{"params":{"id":3,"x":"yyy`, `yyy","id":4}}`, ""},
		{`{"id":{},"params":{"x":"yyy`, `yyy"}}`, ""},
		{`xxx`, `xxx`, ""},
	} {
		if got := string(EdgeID([]byte(tt.head), []byte(tt.tail))); got != tt.want {
			t.Errorf("%s…%s: %q, want %q", tt.head, tt.tail, got, tt.want)
		}
	}
}

// However the bytes come, the lines are the same, whole or with both their ends, and
// an id that is found at an end is one.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\n \t\nc"), 1)
	f.Add([]byte(strings.Repeat("x", 1000)+"\n"+strings.Repeat("y", 300)+"\ne\n"), 7)
	f.Add([]byte(`{"id":"a`+strings.Repeat("b", 400)+`","method":"m"}`+"\n"), 64)
	f.Add([]byte(`{"method":"m","params":"`+strings.Repeat("b", 400)+`", "id" : 12 }`), 299)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		const most = 300
		var want, got []string
		for line := range bytes.SplitSeq(data, []byte{'\n'}) {
			switch {
			case len(line) > most:
				want = append(want, fmt.Sprintf("over %q %q", line[:edge], line[len(line)-edge:]))
			case len(bytes.TrimSpace(line)) > 0:
				want = append(want, fmt.Sprintf("%q", line))
			}
		}
		l := &Lines{Max: most, Each: func(b []byte) { got = append(got, fmt.Sprintf("%q", b)) }, Over: func(head, tail []byte) {
			got = append(got, fmt.Sprintf("over %q %q", head, tail))
			if id := EdgeID(head, tail); id != nil && !validID(id) {
				t.Errorf("the id %s, of %q and %q", id, head, tail)
			}
		}}
		for chunk := range slices.Chunk(data, max(1, size)) {
			if n, err := l.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
		}
		if l.End(); !slices.Equal(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
