package views

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestClaimsAreCleanedAndCut(t *testing.T) {
	tests := []struct{ in, want string }{
		{"Claude Code", "Claude Code"},
		{"  Claude\n\tCode ", "Claude Code"},
		{"evil\u202egnp.exe", "evilgnp.exe"},
		{"Cla\u200bude\ufeff\x00\x1b", "Claude"},
		{"\xff\xfe", ""},
		{"日本語 عربى", "日本語 عربى"},
		{strings.Repeat("é", 64), strings.Repeat("é", 64)},
		{strings.Repeat("é", 300), strings.Repeat("é", 63) + "…"},
	}
	for _, tt := range tests {
		if got := claim(tt.in); got != tt.want || !utf8.ValidString(got) {
			t.Errorf("claim(%q) = %q", tt.in, got)
		}
	}
}

func TestTimesAreFullWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "just now", -time.Hour: "just now", time.Second: "1 second ago", 12 * time.Second: "12 seconds ago",
		time.Minute: "1 minute ago", 119 * time.Second: "1 minute ago", 15 * time.Minute: "15 minutes ago",
		time.Hour: "1 hour ago", 47 * time.Hour: "47 hours ago", 72 * time.Hour: "3 days ago",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestSentences(t *testing.T) {
	for in, want := range map[string]string{"": "", "it failed": "It failed.", "why?": "Why?", "Étude": "Étude."} {
		if got := sentence(in); got != want {
			t.Errorf("sentence(%q) = %q, want %q", in, got, want)
		}
	}
}

// What cannot be seen is written out where a text is shown as it is.
func TestVerbatim(t *testing.T) {
	if got := verbatim("{\n  \"a\": \"x\u202e\u200b\x00é\"\n}"); got != "{\n  \"a\": \"x\\u202e\\u200b\\u0000é\"\n}" {
		t.Errorf("%q", got)
	}
}
