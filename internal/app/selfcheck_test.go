package app

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// A house whose documents contradict its configuration does not open.
func TestHouseThatClientsCouldNotUseDoesNotOpen(t *testing.T) {
	h := furnished(t)
	if err := h.checkDocuments(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(){
		"the issuer":   func() { h.oauth.Issuer = "http://localhost:3001" },
		"the resource": func() { h.oauth.Public = "http://localhost:3001" },
	} {
		t.Run(name, func(t *testing.T) {
			defer func(issuer, public string) { h.oauth.Issuer, h.oauth.Public = issuer, public }(h.oauth.Issuer, h.oauth.Public)
			spoil()
			if err := h.checkDocuments(); !problem.Is(err, selfCheckFailed) {
				t.Errorf("%v", err)
			}
		})
	}
}

// R109: what would make clients give up keeps the server from starting.
func TestSelfCheckFindsContradictions(t *testing.T) {
	const issuer, resource = "https://auth.example", "https://mcp.example/mcp"
	right := map[string]string{
		"https://mcp.example/.well-known/oauth-protected-resource/mcp": `{"resource":"` + resource + `","authorization_servers":["` + issuer + `"]}`,
		issuer + "/.well-known/jwks.json":                              `{"keys":[{"kid":"old"},{"kid":"k1"}]}`,
	}
	const server = `{"issuer":"https://auth.example","authorization_endpoint":"https://auth.example/a","token_endpoint":"https://auth.example/t","revocation_endpoint":"https://auth.example/r",
		"introspection_endpoint":"https://auth.example/oauth/introspect","jwks_uri":"https://auth.example/.well-known/jwks.json","code_challenge_methods_supported":["S256"],"authorization_response_iss_parameter_supported":true}`
	right[issuer+"/.well-known/oauth-authorization-server"] = server
	right[issuer+"/.well-known/openid-configuration"] = server

	check := func(documents map[string]string) error {
		outside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, there := documents["https://"+r.Host+r.URL.Path]
			if !there {
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = w.Write([]byte(body))
		})
		if err := checkResources(outside, []string{resource}, issuer); err != nil {
			return err
		}
		return checkIssuer(outside, issuer, "k1")
	}
	if err := check(right); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ at, old, new string }{
		"another resource":             {"/oauth-protected-resource/mcp", resource, "https://mcp.example/s/x/mcp"},
		"another issuer is named":      {"/oauth-protected-resource/mcp", issuer, "https://evil.example"},
		"the issuer with a slash":      {"/oauth-protected-resource/mcp", issuer, issuer + "/"},
		"no issuer is named":           {"/oauth-protected-resource/mcp", `"` + issuer + `"`, ""},
		"another issuer is described":  {"/oauth-authorization-server", `"issuer":"https://auth.example"`, `"issuer":"https://mcp.example"`},
		"the alias differs":            {"/openid-configuration", `"issuer":"https://auth.example"`, `"issuer":"https://mcp.example"`},
		"an endpoint on another host":  {"/oauth-authorization-server", `https://auth.example/t`, `https://auth.example.evil.example/t`},
		"an endpoint is missing":       {"/oauth-authorization-server", `"token_endpoint":"https://auth.example/t",`, ""},
		"no S256":                      {"/oauth-authorization-server", "S256", "plain"},
		"no iss":                       {"/oauth-authorization-server", "true", "false"},
		"the keys are somewhere else":  {"/openid-configuration", "/.well-known/jwks.json", "/keys"},
		"the signing key is not there": {"/jwks.json", "k1", "k2"},
		"the keys are not JSON":        {"/jwks.json", "{", ""},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := maps.Clone(right)
			for address, body := range right {
				if strings.HasSuffix(address, row.at) {
					wrong[address] = strings.ReplaceAll(body, row.old, row.new)
				}
			}
			if maps.Equal(wrong, right) {
				t.Fatal("nothing was changed")
			}
			if err := check(wrong); err == nil {
				t.Error("it passes")
			}
		})
	}
	for address := range right {
		t.Run("not served: "+address, func(t *testing.T) {
			wrong := maps.Clone(right)
			delete(wrong, address)
			if err := check(wrong); err == nil {
				t.Error("it passes")
			}
		})
	}
}
