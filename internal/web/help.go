package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/web/views"
)

// listCodes draws the error reference (ux.md §11).
func (p *Pages) listCodes(w http.ResponseWriter, _ *http.Request, ref string) error {
	all := slices.SortedFunc(slices.Values(p.Codes), func(a, b problem.Code) int { return strings.Compare(a.Name, b.Name) })
	return views.Codes(w, http.StatusOK, views.CodesView{Page: p.frame(ref), Codes: all})
}

// showCode draws what gatehouse help CODE prints.
func (p *Pages) showCode(w http.ResponseWriter, r *http.Request, ref string) error {
	name := problem.Spelt(r.PathValue("code"))
	i := slices.IndexFunc(p.Codes, func(c problem.Code) bool { return c.Name == name })
	if i < 0 {
		return pageUnknown.New("there is no such error code").WithFix("look for it in the list at /help/errors, or run gatehouse help CODE")
	}
	return views.Code(w, http.StatusOK, views.CodeView{Page: p.frame(ref), Code: p.Codes[i]})
}
