package attacks_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// Group 7 where registration is not open to everybody: these houses have no parties,
// because nobody could register them.
func TestClosedRegistration(t *testing.T) {
	for _, r := range closedRows() {
		t.Run(r.name, func(t *testing.T) {
			mode, _, _ := strings.Cut(r.name, ",")
			apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
				r.story(&world{House: h, nodes: []*apptest.House{h}, t: t, secrets: map[string]string{}, counted: map[string]int{}})
			}, func(c *app.Config) { c.Registration = mode })
		})
	}
}

func closedRows() []row {
	const good = `{"client_name":"x","redirect_uris":["https://b.example/cb"]}`
	offered := func(w *world) bool {
		var m oauth.ServerMetadata
		w.Get("/.well-known/oauth-authorization-server").JSON(w.t, &m)
		return m.RegistrationEndpoint != ""
	}
	return []row{
		{number: 47, name: "off", story: func(w *world) {
			if offered(w) {
				w.t.Error("it is advertised")
			}
			for _, path := range []string{"/oauth/register", "/mcp/register", "/register"} {
				w.refused(plain(http.StatusNotFound, ""), w.json(path, good))
			}
		}},
		{number: 47, name: "token, without and with a wrong one", story: func(w *world) {
			var made, other struct{ ID, Token string }
			w.admin(0, "make_registration_token", `{}`).JSON(w.t, &made)
			w.admin(0, "make_registration_token", `{}`).JSON(w.t, &other)
			w.admin(0, "revoke_registration_token", `{"id":"`+other.ID+`"}`)
			w.keep("the token to register with", made.Token)
			_, secret, _ := strings.Cut(other.Token, ".")
			for name, header := range map[string]string{
				"none": "", "an empty one": "Bearer ", "the wrong secret": "Bearer " + made.ID + "." + secret, "one that is revoked": "Bearer " + other.Token,
				"another scheme": "Basic " + made.Token, "junk after it": "Bearer " + made.Token + " x",
			} {
				for _, body := range []string{good, `{}`, `[]`} { // of what is asked nothing is told
					r := w.json("/oauth/register", body)
					if header != "" {
						r.Header.Set("Authorization", header)
					}
					a := w.refused(plain(http.StatusUnauthorized, ""), r)
					if a.Error() != oauth.InvalidToken || !strings.Contains(a.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
						w.t.Errorf("%s: %v %s", name, a.Header, a.Text)
					}
				}
			}
			a := w.Do(w.json("/oauth/register", good, "Authorization: Bearer "+made.Token))
			var r oauth.Registration
			if err := json.Unmarshal([]byte(a.Text), &r); err != nil || a.StatusCode != http.StatusCreated || r.ClientID == "" {
				w.t.Errorf("the twin: %d %s", a.StatusCode, a.Text)
			}
			if !offered(w) {
				w.t.Error("it is not advertised")
			}
		}},
	}
}
