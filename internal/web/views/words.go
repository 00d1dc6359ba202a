package views

import (
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

var funcs = template.FuncMap{
	"ago":      ago,
	"asset":    asset,
	"claim":    claim,
	"count":    count,
	"plain":    plain,
	"sentence": sentence,
	"span":     span,
	"verbatim": verbatim,
}

// Longest texts of strangers that a page shows, in characters.
const (
	longestName = 64
	longestText = 300
)

// claim prepares a name that somebody chose for themselves.
func claim(s string) string { return shorten(clean(s), longestName) }

// plain prepares a text that somebody else wrote.
func plain(s string) string { return shorten(clean(s), longestText) }

// clean drops what cannot be seen or would reorder its surroundings (controls,
// direction marks, zero-width characters) and folds white space.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// verbatim keeps lines and blanks of a text, and writes out what cannot be seen.
func verbatim(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == ' ' || unicode.IsPrint(r) && r != utf8.RuneError {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return strings.TrimSpace(string([]rune(s)[:n-1])) + "…"
}

// sentence makes a phrase stand alone: capital first, full stop last.
func sentence(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return ""
	}
	s = string(unicode.ToUpper(r)) + s[size:]
	if strings.ContainsRune(".!?…", []rune(s)[utf8.RuneCountInString(s)-1]) {
		return s
	}
	return s + "."
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// span is a length of time in its largest unit, rounded down.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return count(max(int(d/time.Second), 1), "second", "seconds")
	case d < time.Hour:
		return count(int(d/time.Minute), "minute", "minutes")
	case d < 48*time.Hour:
		return count(int(d/time.Hour), "hour", "hours")
	}
	return count(int(d/(24*time.Hour)), "day", "days")
}

func ago(d time.Duration) string {
	if d < time.Second {
		return "just now"
	}
	return span(d) + " ago"
}
