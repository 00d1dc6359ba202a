package app_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
)

// ux.md §11: the reference says of every code what it is about, in words that
// stand in a sentence, and what to do or why there is nothing to do.
func TestEveryCodeIsExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range app.Codes {
		if c.Summary() == "" || c.Fix == "" && c.About == "" {
			t.Errorf("%s: say in About what it is, or give it a Why and a Fix", c.Name)
		}
		for _, text := range []string{c.About, c.Why, c.Fix} {
			if strings.HasSuffix(text, ".") || strings.Contains(text, "%") {
				t.Errorf("%s: a phrase without a full stop or a verb: %q", c.Name, text)
			}
		}
		if seen[c.Name] {
			t.Errorf("%s is listed twice", c.Name)
		}
		seen[c.Name] = true
	}
}
