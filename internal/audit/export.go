package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Export writes a chain as JSON Lines: its events up to the head, then the
// signed head. The events are those of the head's chain in order, from its
// From; later ones are left out.
func Export(w io.Writer, events iter.Seq2[Event, error], head SignedHead) error {
	out := bufio.NewWriter(w)
	for e, err := range events {
		if err != nil {
			return err
		}
		if e.Seq > head.Seq {
			break
		}
		line, err := e.line()
		if err != nil {
			return fmt.Errorf("event %d cannot be written: %w", e.Seq, err)
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	line, err := head.canonical()
	if err != nil {
		return fmt.Errorf("the head cannot be written: %w", err)
	}
	_, err = out.Write(append(line, '\n'))
	return errors.Join(err, out.Flush())
}

// line is the event in canonical form.
func (e Event) line() ([]byte, error) {
	detail, err := encodeDetail(e.Detail)
	if err != nil {
		return nil, err
	}
	return (&row{e, detail}).appendJSON(nil, true)
}

// maxLine bounds a line of an export, in bytes; no event comes near it.
const maxLine = 1 << 20

// headStart tells the line of the head from those of events, which begin with
// their action.
var headStart = []byte(`{"from":`)

// VerifyExport reads an export without any database and returns a *Break for the
// first line that is not as it was written: changed in any byte, dropped, added,
// moved, or cut off at the end. pin is the thumbprint of the key that must have
// signed it; without one, whoever can make a key can make an export, so Report
// says which key it was. Other errors are those of r.
func VerifyExport(r io.Reader, pin string) (Report, error) {
	v := &exportReader{in: bufio.NewScanner(r)}
	v.in.Buffer(nil, maxLine)
	v.in.Split(wholeLines)
	for {
		text, err := v.next()
		if err != nil {
			return Report{}, err
		}
		if bytes.HasPrefix(text, headStart) {
			return v.head(text, pin)
		}
		if err := v.event(text); err != nil {
			return Report{}, err
		}
	}
}

// exportReader walks the lines of an export.
type exportReader struct {
	in   *bufio.Scanner
	line int64
	from int64 // seq of the first event; 0 before it
	walk
}

func (v *exportReader) wrong(format string, args ...any) error {
	return &Break{Line: v.line, Seq: v.seq + 1, What: fmt.Sprintf(format, args...)}
}

// wholeLines splits after each line feed and keeps it, so that a missing one is
// seen.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// next is the next line without its end. It is valid until the one after.
func (v *exportReader) next() ([]byte, error) {
	v.line++
	if v.in.Scan() {
		text, whole := bytes.CutSuffix(v.in.Bytes(), []byte("\n"))
		if !whole {
			return nil, v.wrong("the line was cut off")
		}
		return text, nil
	}
	switch err := v.in.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, v.wrong("the line is too long")
	case err != nil:
		return nil, err
	}
	return nil, v.wrong("the signed head is missing: the end was cut off")
}

func (v *exportReader) event(text []byte) error {
	var r row
	if err := json.Unmarshal(text, &r.Event); err != nil {
		return v.wrong("the line is not an event")
	}
	// One spelling: a second member of a name, other escapes or spaces do not
	// come out as they went in.
	written, err := r.Event.line()
	if err != nil || !bytes.Equal(written, text) {
		return v.wrong("the line was changed: it is not in canonical form")
	}
	if r.Seq < 1 {
		return v.wrong("the event has no place in the chain")
	}
	r.detail, _ = encodeDetail(r.Detail) // it could be encoded just now
	if v.from == 0 {
		v.from, v.walk = r.Seq, walk{workspace: r.Workspace, seq: r.Seq - 1, hash: r.Prev}
		if r.Seq == 1 {
			v.hash = genesis
		}
	}
	if wrong := v.step(&r); wrong != "" {
		return v.wrong("%s", wrong)
	}
	return nil
}

func (v *exportReader) head(text []byte, pin string) (Report, error) {
	var h SignedHead
	if err := json.Unmarshal(text, &h); err != nil {
		return Report{}, v.wrong("the signed head was changed")
	}
	written, err := h.canonical()
	if err != nil || !bytes.Equal(written, text) {
		return Report{}, v.wrong("the signed head was changed: it is not in canonical form")
	}
	thumbprint, ok := h.verify()
	if !ok {
		return Report{}, v.wrong("the signed head was changed: its signature does not hold")
	}
	if pin != "" && pin != thumbprint {
		return Report{}, v.wrong("the head is signed by key %s, not by %s", thumbprint, pin)
	}
	if err := v.meets(h); err != nil {
		return Report{}, err
	}
	v.line++
	if v.in.Scan() || errors.Is(v.in.Err(), bufio.ErrTooLong) {
		return Report{}, v.wrong("something follows the signed head")
	}
	if err := v.in.Err(); err != nil {
		return Report{}, err
	}
	return Report{
		Chain: h.Workspace, From: h.From, Seq: h.Seq, Hash: h.Hash,
		Time: h.Time, Key: thumbprint, Pinned: pin != "",
	}, nil
}

// meets compares the walk with a head whose signature holds.
func (v *exportReader) meets(h SignedHead) error {
	if v.from == 0 {
		v.from, v.walk = h.From, walk{workspace: h.Workspace, seq: h.From - 1, hash: genesis}
	}
	if v.from != h.From {
		return &Break{Line: 1, Seq: h.From, What: fmt.Sprintf("the export begins with event %d, not %d", v.from, h.From)}
	}
	if v.workspace != h.Workspace {
		return v.wrong("the head is of the chain %q", h.Workspace)
	}
	if wrong := v.end(h.Seq, h.Hash); wrong != "" {
		return v.wrong("%s", wrong)
	}
	return nil
}
