package mcpserver

import (
	"strings"
	"testing"
)

// A URI template fits what it can become, and little else (RFC 6570).
func TestTemplatesFit(t *testing.T) {
	for template, uris := range map[string]string{
		"x://{a}":         "x://1 x://1%202 !x://1/2 !y://1 !x://1?q",
		"x://{+a}":        "x://1 x://1/2/3?q !y://1",
		"x://a.b/{a}":     "x://a.b/1 !x://aXb/1",
		"x://p{/a,b}":     "x://p x://p/1/2 !x://q/1",
		"x://p{?a,b}":     "x://p x://p?a=1&b=2 !x://p/1 !x://p#f",
		"x://p?z=1{&a}":   "x://p?z=1 x://p?z=1&a=2 !x://p",
		"x://p{#a}":       "x://p x://p#f !x://pf",
		"x://{a}/y/{b}":   "x://1/y/2 !x://1/2 !x://1/y/2/3",
		"x://{a}{.ext}":   "x://1.txt !x://1/t",
		"x://{not closed": "x://{not !x://y",
		"x://literal":     "x://literal !x://literal2 !ax://literal",
		"(.*)+$":          "!anything",
	} {
		m := matcher(template)
		if m == nil {
			t.Fatalf("%s is none", template)
		}
		for uri := range strings.FieldsSeq(uris) {
			want := !strings.HasPrefix(uri, "!")
			if template == "x://{not closed" && want {
				uri = template
			}
			if got := m.MatchString(strings.TrimPrefix(uri, "!")); got != want {
				t.Errorf("%s fits %s: %v", template, uri, got)
			}
		}
	}
	if matcher("") != nil || matcher(strings.Repeat("{a}", maxName)) != nil {
		t.Error("an empty template, or one too long, fits something")
	}
}
