package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
)

// say writes a line of data.
func (c *cli) say(format string, args ...any) {
	_, _ = fmt.Fprintln(c.out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// talk writes a line that is not data.
func (c *cli) talk(format string, args ...any) {
	_, _ = fmt.Fprintf(c.err, format+"\n", args...)
}

// done says that something was done.
func (c *cli) done(format string, args ...any) {
	c.talk("%s "+format, append([]any{c.paint(c.err, good)}, args...)...)
}

// print writes data as one line of JSON.
func (c *cli) print(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s\n", escaped(line))
	return err
}

// pretty writes JSON for people.
func (c *cli) pretty(raw json.RawMessage) {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		b.Reset()
		b.Write(raw)
	}
	c.say("%s", escaped(b.Bytes()))
}

// text writes what a tool answered: as it is, unless a terminal would obey it.
func (c *cli) text(s string) {
	if isTerminal(c.out) {
		s = harmless(s)
	}
	c.say("%s", s)
}

// table writes rows under a header; cells are aligned.
func (c *cli) table(indent string, rows [][]string) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = oneLine(row[i])
		}
		_, _ = fmt.Fprintln(w, indent+strings.Join(row, "\t")) // into memory
	}
	_ = w.Flush()
	for line := range strings.SplitSeq(strings.TrimRight(b.String(), "\n"), "\n") {
		c.say("%s", line)
	}
}

// draws reports whether a character does more to a terminal than to stand there: a
// control, or one that turns the direction of what follows.
func draws(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// oneLine keeps text of others from drawing on the terminal or breaking a table.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\ufffd"), func(r rune) bool { return r == ' ' || draws(r) }), " ")
}

// harmless is oneLine for text of several lines.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if draws(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}

// escaped is the same JSON without characters that draw. They can stand in its
// strings only, and there they can be spelt otherwise.
func escaped(json []byte) string {
	var b strings.Builder
	for _, r := range string(json) {
		if draws(r) && r != '\n' {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// cut shortens text to n characters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// plural is a number with its noun: "1 tool", "3 tools".
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(int64(n)) + " " + one + "s"
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
