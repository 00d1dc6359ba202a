package authn

import (
	"crypto/hmac"
	"net/http"
	"slices"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Codes of forms that count for nothing.
var (
	FormForeign = problem.Code{
		Name: "FORM_FOREIGN", Kind: problem.Forbidden,
		Why: "the form was not made for this browser, or its cookies are blocked",
		Fix: "go back, reload the page and try again",
	}
	formUnreadable = problem.Code{
		Name: "FORM_UNREADABLE", Kind: problem.Invalid,
		Why: "it did not arrive whole, or is too long",
		Fix: "go back and send it again",
	}
)

// maxForm bounds a posted form, in bytes.
const maxForm = 64 << 10

// Form reads a posted form into r.PostForm, and the browser, for which it must have
// been made (R1208, attack 61). What is in it is text.
func (a *Authn) Form(w http.ResponseWriter, r *http.Request) (Browser, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return Browser{}, formUnreadable.New("the form can't be read").Because(err)
	}
	for _, values := range r.PostForm {
		if slices.ContainsFunc(values, func(v string) bool { return !oauth.Readable(v) }) {
			return Browser{}, formUnreadable.New("the form can't be read").WithWhy("something in it is not text")
		}
	}
	b, err := a.Browser(nil, r)
	if err == nil && (b.secret == "" || !hmac.Equal([]byte(r.PostForm.Get("csrf")), []byte(b.FormToken()))) {
		err = FormForeign.New("this form can't be accepted")
	}
	return b, err
}
