package mcp

import (
	"encoding/json"
	"net/http"
	"slices"
)

// Latest is the newest revision with a handshake, which we speak on both sides.
const Latest = "2025-11-25"

// Modern is the first revision without a handshake: every request says by
// itself what it speaks.
const Modern = "2026-07-28"

// Legacy lists the revisions with a handshake that we serve as they are, newest first.
var Legacy = []string{Latest, "2025-06-18", "2025-03-26"}

// VersionHeader carries the revision on every HTTP request after the handshake.
const VersionHeader = "MCP-Protocol-Version"

// SessionHeader carries the id of a legacy session.
const SessionHeader = "Mcp-Session-Id"

// Headers in which a modern request repeats what it is, for those on the way that
// read no bodies.
const (
	MethodHeader = "Mcp-Method"
	NameHeader   = "Mcp-Name"
	ParamHeader  = "Mcp-Param-" // before the name that the tool's schema gives
)

// Members of params._meta in which a modern request says who sends it.
const (
	CapabilitiesMeta = "io.modelcontextprotocol/clientCapabilities"
	ClientMeta       = "io.modelcontextprotocol/clientInfo"
	ServerMeta       = "io.modelcontextprotocol/serverInfo" // in the _meta of a result
)

// VersionMeta is the member of params._meta in which a modern request says its revision.
const VersionMeta = "io.modelcontextprotocol/protocolVersion"

// Negotiate answers the revision an initialize request asked for: that one if
// we serve it, our latest otherwise, which the client then takes or leaves
// (MCP lifecycle, "Version Negotiation"; R716).
func Negotiate(asked string) string {
	if slices.Contains(Legacy, asked) {
		return asked
	}
	return Latest
}

// IsModern reports whether a request belongs to the era without handshake, by
// its header or by its own _meta. A header that is no revision at all counts as
// modern, so it is refused with the list of what is served and not guessed at.
func IsModern(header http.Header, m Message) bool {
	return header.Get(VersionHeader) >= Modern || Field(m.Params, "_meta", VersionMeta) != nil
}

// Unsupported refuses a revision and says which are served, so that the client
// can fall back (R715).
func Unsupported(asked string) *Error {
	data, _ := json.Marshal(struct { // strings always marshal
		Supported []string `json:"supported"`
		Requested string   `json:"requested"`
	}{Legacy, asked})
	return &Error{Code: UnsupportedVersion, Message: "this protocol version is not served here", Data: data}
}
