package mcp

import (
	"bytes"
	"encoding/json"
	"regexp"
)

// Line makes one line of an encoded message, with the break at its end (MCP
// 2025-11-25 transports, "stdio"). It may use the message's own bytes.
func Line(encoded []byte) []byte {
	line := append(encoded, '\n')
	for i, b := range line[:len(line)-1] {
		if b == '\n' || b == '\r' { // between tokens; inside strings JSON has none
			line[i] = ' '
		}
	}
	return line
}

// Lines is a writer that hands on whole lines that are not blank, each as a slice
// of its own. Of a line longer than Max only the beginning and the end are kept.
type Lines struct {
	Max  int // bytes
	Each func(line []byte)
	Over func(head, tail []byte)

	rest []byte
	head []byte // the beginning of the current line once it is too long
}

// edge is how much of each end of a line that is too long is kept, in bytes.
const edge = 256

// Write takes a piece of the text. It never fails.
func (l *Lines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, after, found := bytes.Cut(p, []byte{'\n'})
		l.add(line)
		if !found {
			return n, nil
		}
		l.End()
		p = after
	}
}

func (l *Lines) add(p []byte) {
	l.rest = append(l.rest, p...)
	if l.head == nil && len(l.rest) <= l.Max {
		return
	}
	if l.head == nil {
		l.head = bytes.Clone(l.rest[:min(len(l.rest), edge)])
	}
	l.rest = bytes.Clone(l.rest[max(0, len(l.rest)-edge):])
}

// End ends the line that was begun, as a break does.
func (l *Lines) End() {
	switch {
	case l.head != nil:
		l.Over(l.head, l.rest)
	case len(bytes.TrimSpace(l.rest)) > 0:
		l.Each(l.rest)
	}
	l.rest, l.head = nil, nil
}

// EdgeID is the id of a message of which only both ends are known, or nil.
func EdgeID(head, tail []byte) json.RawMessage {
	if id := Field(head, "id"); validID(id) {
		return id
	}
	if found := idAtEnd.FindSubmatch(tail); found != nil {
		return found[1]
	}
	return nil
}

var idAtEnd = regexp.MustCompile(`"id"\s*:\s*(\d+)\s*}\s*$`)
