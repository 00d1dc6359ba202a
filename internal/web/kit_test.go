package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// house is one with its database open beside it.
type house struct {
	*apptest.House
	t *testing.T
}

// start makes a house. Tests in different houses run side by side.
func start(t *testing.T, change ...func(*app.Config)) house {
	t.Helper()
	t.Parallel()
	return house{apptest.Open(t, change...), t}
}

// onEach runs f in a house on SQLite and in one on PostgreSQL.
func onEach(t *testing.T, f func(t *testing.T, h house), change ...func(*app.Config)) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) { f(t, house{h, t}) }, change...)
}

// post sends a form with the browser's cookies and follows nothing.
func (h house) post(b *apptest.Browser, path string, form url.Values, headers ...string) apptest.Answer {
	h.t.Helper()
	r := h.Request(http.MethodPost, path, form.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...)
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return h.Do(r)
}
