package web

import (
	"net/http"
	"strings"
)

// about is what the server says of itself to programs (R733).
type about struct {
	Server    string            `json:"server"`
	Version   string            `json:"version"`
	Docs      string            `json:"docs"`
	Endpoints map[string]string `json:"endpoints"`
}

// wantsJSON reports whether a request for the front page is a program's: browsers
// ask for HTML.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return accept == "*/*" || strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

func (p *Pages) about(w http.ResponseWriter) error {
	endpoints := map[string]string{
		"mcp": p.Public + "/mcp", "tools": p.Public + "/mcp/tools", "health": p.Public + "/health",
		"protected_resource_metadata": p.Public + "/.well-known/oauth-protected-resource",
	}
	if len(p.AuthServer.External) == 0 {
		m := p.AuthServer.Metadata()
		endpoints["authorization_server_metadata"] = p.Issuer + "/.well-known/oauth-authorization-server"
		endpoints["authorize"], endpoints["token"], endpoints["revoke"] = m.AuthorizationEndpoint, m.TokenEndpoint, m.RevocationEndpoint
		if m.RegistrationEndpoint != "" {
			endpoints["register"] = m.RegistrationEndpoint
		}
	}
	w.Header().Set("Vary", "Accept")
	send(w, http.StatusOK, about{Server: "gatehouse", Version: p.Version, Docs: p.Issuer + "/", Endpoints: endpoints})
	return nil
}
