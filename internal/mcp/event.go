package mcp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Event is one server-sent event (HTML Living Standard §9.2).
type Event struct {
	ID    string
	Name  string // "message" when the stream does not say
	Data  []byte
	Retry time.Duration // how long to wait before connecting again; 0 when the stream does not say
}

// EventWriter sends events on an HTTP response, each at once. It may be used by
// several goroutines.
type EventWriter struct {
	mu sync.Mutex
	w  http.ResponseWriter
	rc *http.ResponseController
}

// NewEventWriter sets the headers of a stream: not cached, not held back by
// proxies (R737). The status goes out with the first event.
func NewEventWriter(w http.ResponseWriter) *EventWriter {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	return &EventWriter{w: w, rc: http.NewResponseController(w)}
}

// Message sends one MCP message.
func (e *EventWriter) Message(data []byte) error {
	return e.Send(Event{Name: "message", Data: data})
}

// Send sends an event. Line breaks in Data, which JSON has only between its
// tokens, become line breaks of the event.
func (e *EventWriter) Send(ev Event) error {
	b := make([]byte, 0, len(ev.Data)+len(ev.Name)+len(ev.ID)+32)
	b = appendLine(b, "event", ev.Name)
	b = appendLine(b, "id", ev.ID)
	for line := range lines(ev.Data) {
		b = append(append(append(b, "data: "...), line...), '\n')
	}
	return e.write(append(b, '\n'))
}

// Comment sends a line that readers ignore. It keeps idle connections open.
func (e *EventWriter) Comment(text string) error {
	return e.write([]byte(": " + oneLine(text) + "\n\n"))
}

// writePatience is how long a reader may leave an event unread before the stream
// is given up: whoever sends must not wait for it any longer.
const writePatience = 15 * time.Second

func (e *EventWriter) write(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.rc.SetWriteDeadline(time.Now().Add(writePatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	if err := e.rc.Flush(); err != nil {
		return err
	}
	_ = e.rc.SetWriteDeadline(time.Time{}) // the connection serves other requests later
	return nil
}

func appendLine(b []byte, field, value string) []byte {
	if value == "" {
		return b
	}
	return append(b, field+": "+oneLine(value)+"\n"...)
}

func oneLine(s string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(s) }

// lines yields data once, unless it has line breaks.
func lines(data []byte) iter.Seq[[]byte] {
	if bytes.IndexByte(data, '\r') >= 0 {
		data = bytes.ReplaceAll(data, []byte{'\r'}, []byte{'\n'})
	}
	return bytes.SplitSeq(data, []byte{'\n'})
}

// ErrTooLong is what ReadEvents ends with when the sender exceeds the bound.
var ErrTooLong = errors.New("an event is longer than allowed")

// ReadEvents yields the events of a stream until it ends. Each may have at most
// max bytes. An event that the end of the stream cuts off is dropped, as the
// standard says. The data of an event is the receiver's to keep.
func ReadEvents(r io.Reader, max int) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		in := bufio.NewScanner(r)
		in.Buffer(make([]byte, 0, min(4096, max+16)), max+16) // the longest line is "data: " and max bytes
		in.Split(splitLines())
		var next partial
		for in.Scan() {
			if len(in.Bytes()) > 0 {
				next.line(in.Bytes())
				if len(next.Data) > max+1 {
					yield(Event{}, fmt.Errorf("%w (%d bytes)", ErrTooLong, max))
					return
				}
				continue
			}
			if ev, ok := next.finish(); ok && !yield(ev, nil) {
				return
			}
			next = partial{}
		}
		err := in.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("%w (%d bytes)", ErrTooLong, max)
		}
		if err != nil {
			yield(Event{}, err)
		}
	}
}

// partial is an event while its lines arrive.
type partial struct {
	Event
	some bool // there was a data line
}

func (p *partial) line(line []byte) {
	field, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(field) {
	case "event":
		p.Name = string(value)
	case "id":
		p.ID = string(value)
	case "retry":
		if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
			p.Retry = time.Duration(ms) * time.Millisecond
		}
	case "data":
		p.some = true
		p.Data = append(append(p.Data, value...), '\n')
	}
}

func (p *partial) finish() (Event, bool) {
	if !p.some {
		return Event{}, false
	}
	if p.Name == "" {
		p.Name = "message"
	}
	p.Data = p.Data[:len(p.Data)-1]
	return p.Event, true
}

// splitLines ends a line at CR, LF or CRLF, without waiting after a CR for an LF
// that may never come, and drops a byte order mark.
func splitLines() bufio.SplitFunc {
	first, afterCR := true, false
	return func(data []byte, atEOF bool) (int, []byte, error) {
		skip := 0
		if first && bytes.HasPrefix(data, []byte("\ufeff")) {
			skip = 3
		}
		if afterCR && len(data) > 0 && data[0] == '\n' {
			skip = 1
		}
		i := bytes.IndexAny(data[skip:], "\r\n")
		if i < 0 {
			return 0, nil, nil // what has no end of line at the end of the stream is dropped
		}
		end := skip + i
		first, afterCR = false, data[end] == '\r'
		return end + 1, data[skip:end], nil
	}
}
