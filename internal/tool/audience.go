package tool

import "strings"

// Audience is one MCP endpoint as an OAuth resource (RFC 8707, RFC 9728): what
// tokens are made for.
type Audience struct {
	URL    string   // the canonical resource identifier
	Origin string   // whose tools it offers; empty for all servers together
	Scopes []string // what a challenge asks for
}

// Audience is the endpoint of origin under the public address: PUBLIC/mcp for "",
// PUBLIC/s/NAME/mcp for one server. It exists as long as origin is published.
func (r *Registry) Audience(public, origin string) (Audience, bool) {
	switch {
	case !r.HasOrigin(origin):
		return Audience{}, false
	case origin == "":
		return Audience{URL: public + "/mcp", Scopes: []string{ScopeTools}}, true
	case origin == Control:
		return Audience{URL: public + "/s/" + origin + "/mcp", Origin: origin, Scopes: []string{ScopeRead}}, true
	}
	return Audience{URL: public + "/s/" + origin + "/mcp", Origin: origin, Scopes: []string{origin + ":read", origin + ":write"}}, true
}

// AudienceAt finds the endpoint whose canonical identifier is url.
func (r *Registry) AudienceAt(public, url string) (Audience, bool) {
	path, ok := strings.CutPrefix(url, public)
	if !ok {
		return Audience{}, false
	}
	if path == "/mcp" {
		return r.Audience(public, "")
	}
	name, ok := strings.CutPrefix(path, "/s/")
	if !ok {
		return Audience{}, false
	}
	name, ok = strings.CutSuffix(name, "/mcp")
	if !ok || name == "" {
		return Audience{}, false
	}
	return r.Audience(public, name)
}

// Offers reports whether the tool is offered at the endpoint: at the endpoint of
// one server its own tools, at the common one those of all servers and the base
// tools, never those of the control plane.
func (a Audience) Offers(t Tool) bool {
	if a.Origin == "" {
		return t.Origin != Control
	}
	return t.Origin == a.Origin
}
