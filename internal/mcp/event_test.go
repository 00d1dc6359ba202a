package mcp

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

// R737: streams are not cached and not held back.
func TestEventWriter(t *testing.T) {
	rec := httptest.NewRecorder()
	e := NewEventWriter(rec)
	for _, err := range []error{
		e.Message([]byte(`{"a":1}`)),
		e.Message([]byte("{\n\"a\":\r1}")),
		e.Comment("still\nhere"),
		e.Send(Event{ID: "4", Name: "connected", Data: []byte("x")}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := "event: message\ndata: {\"a\":1}\n\n" +
		"event: message\ndata: {\ndata: \"a\":\ndata: 1}\n\n" +
		": still here\n\n" +
		"event: connected\nid: 4\ndata: x\n\n"
	if got := rec.Body.String(); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if !rec.Flushed || rec.Header().Get("X-Accel-Buffering") != "no" || rec.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("flushed %v, headers %v", rec.Flushed, rec.Header())
	}
}

func TestReadEvents(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string // id|name|data
	}{
		{"plain", "event: message\ndata: {}\n\n", []string{"|message|{}"}},
		{"no name", "data: {}\n\n", []string{"|message|{}"}},
		{"no space", "id:3\ndata:{}\n\n", []string{"3|message|{}"}},
		{"CRLF", "data: 1\r\n\r\ndata: 2\r\n\r\n", []string{"|message|1", "|message|2"}},
		{"CR", "data: 1\r\rdata: 2\r\r", []string{"|message|1", "|message|2"}},
		{"byte order mark", "\ufeffdata: 1\n\n", []string{"|message|1"}},
		{"two lines", "data: 1\ndata:  2\n\n", []string{"|message|1\n 2"}},
		{"empty data", "data\n\n", []string{"|message|"}},
		{"comments and retry", ": hi\nretry: 5\n\ndata: 1\n: x\n\n", []string{"|message|1"}},
		{"id without data", "id: 1\n\n", nil},
		{"cut off", "data: 1\n\ndata: 2\n", []string{"|message|1"}},
		{"cut off inside a line", "data: 1\n\ndata: 2", []string{"|message|1"}},
	}
	for _, tt := range tests {
		for _, r := range []int{0, 1} {
			in := strings.NewReader(tt.in)
			stream := ReadEvents(in, 1000)
			if r == 1 {
				stream = ReadEvents(iotest.OneByteReader(in), 1000)
			}
			var got []string
			for ev, err := range stream {
				if err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
				got = append(got, ev.ID+"|"+ev.Name+"|"+string(ev.Data))
			}
			if strings.Join(got, "§") != strings.Join(tt.want, "§") {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}
	}
}

func TestReadEventsIsBounded(t *testing.T) {
	last := func(in string, max int) (n int, err error) {
		for _, e := range ReadEvents(strings.NewReader(in), max) {
			if err = e; e == nil {
				n++
			}
		}
		return n, err
	}
	exact := "data: " + strings.Repeat("x", 100) + "\n\n"
	if n, err := last(exact, 100); n != 1 || err != nil {
		t.Errorf("an event of the allowed length gave %d, %v", n, err)
	}
	for _, in := range []string{exact, strings.Repeat("data: xxxxxxxxx\n", 100), "data: " + strings.Repeat("x", 5000)} {
		if n, err := last(in, 99); n != 0 || !errors.Is(err, ErrTooLong) {
			t.Errorf("a long event gave %d, %v", n, err)
		}
	}
	broken := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(exact)))
	for _, err := range ReadEvents(broken, 1000) {
		if !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("a broken stream gave %v", err)
		}
	}
}
