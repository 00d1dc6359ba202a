package oauth

import (
	"net/url"
	"strings"
)

// CheckResource says whether a resource identifier has the form that RFC 8707 §2
// demands: absolute and without a fragment; here also http or https, like every
// MCP endpoint. Whether such a resource exists is for the caller to know.
func CheckResource(uri string) *Error {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || strings.Contains(uri, "#") {
		return Errorf(InvalidTarget, "resource must be an absolute http or https address without a fragment")
	}
	return nil
}

// SameResource reports whether two resource identifiers mean the same: the
// case of scheme and host and one slash at the end of the path do not
// count, everything else does (MCP authorization, canonical server URI).
func SameResource(a, b string) bool { return a != "" && Canonical(a) == Canonical(b) }

// Canonical is the one spelling of a resource identifier: scheme and host in lower
// case, no slash at the end of the path.
func Canonical(uri string) string {
	origin, path, query := cutOrigin(uri)
	if strings.Contains(origin, "@") {
		return uri
	}
	return strings.ToLower(origin) + strings.TrimSuffix(path, "/") + query
}
