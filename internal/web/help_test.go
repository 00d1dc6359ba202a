package web_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
)

// ux.md §11: the error reference stands at /help/errors, a page for each code,
// and an error page leads to the page of its own.
func TestErrorReference(t *testing.T) {
	h := start(t)
	list := h.Get("/help/errors").Text
	for _, c := range app.Codes {
		page := h.Get("/help/errors/" + c.Name)
		if page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "<h1>"+c.Name+"</h1>") || !strings.Contains(list, `href="/help/errors/`+c.Name+`"`) {
			t.Errorf("%s: %d, or it is not in the list", c.Name, page.StatusCode)
		}
	}
	for path, want := range map[string]int{
		"/help/errors/token-invalid": http.StatusOK, "/help/errors/token_invalid": http.StatusOK,
		"/help/errors/NOSUCH": http.StatusNotFound, "/help/errors/%3Cscript%3E": http.StatusNotFound, "/help/errors/TOKEN_INVALID/x": http.StatusNotFound,
	} {
		if a := h.Get(path); a.StatusCode != want || strings.Contains(a.Text, "<script") {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	link := regexp.MustCompile(`href="(/help/errors/[A-Z_]+)"`).FindStringSubmatch(h.Get("/nowhere").Text)
	if link == nil || h.Get(link[1]).StatusCode != http.StatusOK {
		t.Errorf("the error page leads to %v", link)
	}
}
