package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// scanner walks JSON text and hands out slices of it.
type scanner struct {
	jsontext.Decoder
	data []byte
	in   bytes.Buffer
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// scan begins at the start of data. A lax scanner lets duplicate members and
// broken UTF-8 pass: it is for text that a strict one has judged before.
func scan(data []byte, lax bool) *scanner {
	s := scanners.Get().(*scanner)
	s.data = data
	s.in = *bytes.NewBuffer(data)
	s.Reset(&s.in, jsontext.AllowDuplicateNames(lax), jsontext.AllowInvalidUTF8(lax))
	return s
}

// free gives the scanner back; it forgets the text.
func (s *scanner) free() {
	s.data, s.in = nil, bytes.Buffer{}
	s.Reset(&s.in)
	scanners.Put(s)
}

// value reads one value and returns where it is.
func (s *scanner) value() (start, end int, err error) {
	v, err := s.ReadValue()
	end = int(s.InputOffset())
	return end - len(v), end, err
}

// object reads an object and gives every member to each: the name unescaped,
// the value as it stands in the text.
func (s *scanner) object(each func(name, value []byte)) error {
	if _, err := s.ReadToken(); err != nil {
		return err
	}
	for s.PeekKind() != '}' {
		name, err := s.ReadValue()
		if err != nil {
			return err
		}
		name = unescape(name)
		start, end, err := s.value()
		if err != nil {
			return err
		}
		each(name, s.data[start:end:end])
	}
	_, err := s.ReadToken()
	return err
}

// unescape strips the quotes of a valid JSON string, without copying where
// nothing is escaped.
func unescape(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	plain, _ := jsontext.AppendUnquote(nil, quoted) // the scanner has found it valid
	return plain
}

// text is the string that raw spells, or "" if it spells none.
func text(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	return string(unescape(raw))
}

// Field returns the value at the path of member names inside raw, as a slice of
// raw, or nil if there is none. It believes that raw has been parsed before: of
// a member given twice it sees the first.
func Field(raw json.RawMessage, path ...string) json.RawMessage {
	p, err := find(raw, path)
	if err != nil || p.depth < len(path) {
		return nil
	}
	return raw[p.start:p.end:p.end]
}

// Text is Field for a string; "" stands for absent and for any other type.
func Text(raw json.RawMessage, path ...string) string { return text(Field(raw, path...)) }

// Replace returns raw with the value at the path exchanged, or added where it is
// absent, together with the objects on the way. Every other byte stays as it
// is. value must be valid JSON. Empty raw counts as an empty object; it fails
// where the path leads through something that is not an object.
func Replace(raw json.RawMessage, value []byte, path ...string) (json.RawMessage, error) {
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	p, err := find(raw, path)
	if err != nil {
		return nil, fmt.Errorf("replace %q: %w", path, err)
	}
	if p.depth < len(path) {
		value = p.member(value, path[p.depth:])
	}
	return slices.Concat(raw[:p.start], value, raw[p.end:]), nil
}

// Without returns raw without the member at the path. Where there is none it is raw
// itself; otherwise the object that had the member is spelt anew, and every other
// byte stays as it is.
func Without(raw json.RawMessage, path ...string) json.RawMessage {
	last := len(path) - 1
	inside, name := Field(raw, path[:last]...), path[last]
	if Field(inside, name) == nil {
		return raw
	}
	rest := []byte{'{'}
	s := scan(inside, true)
	defer s.free()
	_ = s.object(func(key, value []byte) { // it was read before
		if string(key) == name {
			return
		}
		if len(rest) > 1 {
			rest = append(rest, ',')
		}
		rest = append(append(appendString(rest, string(key)), ':'), value...)
	})
	rest = append(rest, '}')
	without, err := Replace(raw, rest, path[:last]...)
	if err != nil {
		return rest // cannot be: the path was followed before
	}
	return without
}

// IsObject reports whether data is one JSON object that all readers read alike, as
// Parse demands of a message: its text is UTF-8, and no member is given twice at any
// depth.
func IsObject(data []byte) bool {
	s := scan(data, false)
	defer s.free()
	if s.PeekKind() != '{' || s.SkipValue() != nil {
		return false
	}
	_, err := s.ReadToken()
	return errors.Is(err, io.EOF)
}

// Twin reports whether the object raw has a member that a reader who ignores the
// case of letters would take for one of names, without being it. Such readers
// exist (Go's encoding/json is one), so what is decided by name must not come
// with a twin. What is no object has none.
func Twin(raw json.RawMessage, names ...string) (twin bool) {
	if len(raw) == 0 || raw[0] != '{' {
		return false
	}
	s := scan(raw, true)
	defer s.free()
	err := s.object(func(name, _ []byte) {
		for _, want := range names {
			twin = twin || string(name) != want && strings.EqualFold(string(name), want)
		}
	})
	return twin || err != nil
}

// place is where a path leads: to a value, or, if depth is less than the length
// of the path, to the end of the deepest object that exists.
type place struct {
	start, end int
	depth      int
	empty      bool // the object there has no members
}

// member spells the missing rest of a path with its value.
func (p place) member(value []byte, names []string) []byte {
	var b []byte
	if !p.empty {
		b = append(b, ',')
	}
	for i, name := range names {
		if i > 0 {
			b = append(b, '{')
		}
		b = append(appendString(b, name), ':')
	}
	b = append(b, value...)
	return append(b, bytes.Repeat([]byte{'}'}, len(names)-1)...)
}

func find(raw []byte, path []string) (place, error) {
	s := scan(raw, true)
	defer s.free()
	for depth, name := range path {
		if kind := s.PeekKind(); kind != '{' {
			return place{}, fmt.Errorf("not an object")
		}
		p, err := s.enter(name)
		if p.depth = depth; err != nil || p.end > 0 {
			return p, err
		}
	}
	start, end, err := s.value()
	return place{start: start, end: end, depth: len(path)}, err
}

// enter goes into an object up to the value of the member called name. If there
// is no such member, the place is the end of the object.
func (s *scanner) enter(name string) (place, error) {
	if _, err := s.ReadToken(); err != nil {
		return place{}, err
	}
	empty := true
	for s.PeekKind() != '}' {
		n, err := s.ReadValue()
		if err != nil {
			return place{}, err
		}
		if string(unescape(n)) == name {
			return place{}, nil
		}
		if err := s.SkipValue(); err != nil {
			return place{}, err
		}
		empty = false
	}
	if _, err := s.ReadToken(); err != nil {
		return place{}, err
	}
	end := int(s.InputOffset()) - 1
	return place{start: end, end: end, empty: empty}, nil
}
