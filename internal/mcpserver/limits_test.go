package mcpserver_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// R1314, attack 125: strangers are limited, with a good token nobody is.
func TestStrangersAreLimited(t *testing.T) {
	h := apptest.Open(t, apptest.Dev, func(c *app.Config) { c.StrangerLimit = throttle.Limit{Each: 9, Per: 24 * time.Hour} })
	tokens, _ := h.Token("mcp:tools", h.URL+"/mcp")
	call := func(token string) apptest.Answer { return h.Tool(token, "public_info", "{}") }
	for i := range 3 {
		if a := call(""); a.StatusCode != http.StatusOK {
			t.Errorf("%d: %d %s", i, a.StatusCode, a.Text)
		}
		if a := h.RPC("/mcp", "", "initialize", "{}"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%d: %d %s", i, a.StatusCode, a.Text)
		}
		if a := call("eyJ.x.y"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%d: %d %s", i, a.StatusCode, a.Text)
		}
	}
	for _, token := range []string{"", "eyJ.x.y"} {
		a := call(token)
		var m struct {
			Error struct {
				Data struct {
					Code  string
					Retry int `json:"retry_after"`
				}
			}
		}
		if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" || json.Unmarshal([]byte(a.Text), &m) != nil || m.Error.Data.Code != "TOO_OFTEN" || m.Error.Data.Retry <= 0 {
			t.Errorf("%d %v %s", a.StatusCode, a.Header, a.Text)
		}
	}
	for range 30 {
		if a := call(tokens.AccessToken); a.StatusCode != http.StatusOK {
			t.Fatalf("with a token: %d %s", a.StatusCode, a.Text)
		}
	}
}
