package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Addresses and words of a server stand in errors. Whoever shows them to a person need
// not fear for the terminal.
func TestErrorsAreHarmlessToShow(t *testing.T) {
	const rude = "\u009b2J\u202e"
	for name, spoil := range map[string]func(*fake){
		"metadata elsewhere": func(f *fake) { f.challenge = fmt.Sprintf(`Bearer resource_metadata="%s/%s"`, f.URL, rude) },
		"metadata of nobody": func(f *fake) {
			f.challenge = fmt.Sprintf(`Bearer resource_metadata="%s"`, "https://"+rude+".invalid/")
		},
		"issuer without metadata": func(f *fake) { f.prm.AuthorizationServers = []string{f.URL + "/" + rude} },
		"metadata that breaks": func(f *fake) {
			f.challenge = fmt.Sprintf(`Bearer resource_metadata="%s/%s"`, f.URL, rude)
			f.override["/"+rude] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
		},
		"endpoint elsewhere": func(f *fake) { f.as.TokenEndpoint = "https://x.example/" + rude },
		"registration": func(f *fake) {
			f.as.RegistrationEndpoint = f.URL + "/" + rude
			f.override["/"+rude] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
		},
		"refusal": func(f *fake) {
			f.override["/register"] = func(w http.ResponseWriter, _ *http.Request) {
				writeJSON(w, 400, oauth.ErrorResponse{Error: "x" + rude, Description: rude + "\x1b[2J\n"})
			}
		},
	} {
		f := newFake(t)
		spoil(f)
		_, err := newClient(t).Login(short(t), f.server(), LoginOptions{})
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Why == "" || strings.ContainsAny(e.Message+e.Why+e.Fix+e.Link, "\x1b\u009b\u202e\n") {
			t.Errorf("%s: %q", name, err)
		}
	}
}
