package oauth

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxRedirect is how long a redirect URI may be, in bytes.
const maxRedirect = 2048

// The kinds of redirect URIs, by where they lead.
const (
	RedirectWeb      = "web"      // an https server
	RedirectLoopback = "loopback" // a program on the same computer
	RedirectApp      = "app"      // a program that owns a private-use scheme
)

// deniedSchemes run code or read files in the browser that follows them; no
// configuration allows them.
var deniedSchemes = []string{"javascript", "data", "file", "vbscript", "blob", "about", "view-source"}

var loopbackHosts = []string{"127.0.0.1", "::1", "localhost"}

// CheckRedirect says whether a redirect URI may be registered (R216): absolute,
// https, http on this computer, or one of the private-use schemes. What two
// readers could understand differently is refused.
func CheckRedirect(uri string, schemes []string) *Error {
	if uri == "" || len(uri) > maxRedirect {
		return Errorf(InvalidRedirectURI, "a redirect URI must have 1 to %d characters", maxRedirect)
	}
	if !only(uri, isRedirectChar) {
		return Errorf(InvalidRedirectURI, "a redirect URI must not contain blanks, control characters, backslashes, wildcards or a fragment")
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return Errorf(InvalidRedirectURI, "a redirect URI must be absolute")
	}
	if origin, _, _ := cutOrigin(uri); strings.ContainsAny(origin, "@%") || strings.HasSuffix(u.Host, ":") {
		return Errorf(InvalidRedirectURI, "a redirect URI must name its host plainly: no user name, no percent sign, no colon without a port")
	}
	return checkScheme(u, schemes)
}

func checkScheme(u *url.URL, schemes []string) *Error {
	switch {
	case slices.Contains(deniedSchemes, u.Scheme):
		return Errorf(InvalidRedirectURI, "this scheme is never allowed in a redirect URI")
	case u.Scheme == "https" && u.Hostname() != "":
		return nil
	case u.Scheme == "http" && slices.Contains(loopbackHosts, u.Hostname()):
		return nil
	case u.Scheme != "http" && u.Scheme != "https" && slices.Contains(schemes, u.Scheme):
		return nil
	}
	return Errorf(InvalidRedirectURI, "a redirect URI must be https, or http on 127.0.0.1, [::1] or localhost")
}

// isRedirectChar allows what RFC 3986 allows in a URI, less the fragment and
// the star.
func isRedirectChar(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("-._~:/?[]@!$&'()+,;=%", c) >= 0
}

// MatchRedirect says whether asked is one of the registered redirect URIs
// (R304). The comparison is of bytes, except that a program on the same
// computer may listen on another port than it registered (RFC 8252 §7.3, C10).
func MatchRedirect(registered []string, asked string) bool {
	if slices.Contains(registered, asked) {
		return asked != ""
	}
	host, rest, ok := cutLoopback(asked)
	return ok && slices.ContainsFunc(registered, func(r string) bool {
		h, s, ok := cutLoopback(r)
		return ok && h == host && s == rest
	})
}

// cutLoopback splits "http://HOST[:PORT]REST" for the three loopback hosts. It
// works on the text, so nothing is decoded or repaired on the way.
func cutLoopback(uri string) (host, rest string, ok bool) {
	for _, host := range []string{"http://127.0.0.1", "http://[::1]", "http://localhost"} {
		if rest, ok := strings.CutPrefix(uri, host); ok {
			rest, ok = cutPort(rest)
			return host, rest, ok
		}
	}
	return "", "", false
}

func cutPort(s string) (rest string, ok bool) {
	if port, found := strings.CutPrefix(s, ":"); found {
		end := strings.IndexAny(port, "/?")
		if end < 0 {
			end = len(port)
		}
		n, err := strconv.ParseUint(port[:end], 10, 16)
		if err != nil || n == 0 || port[0] == '0' {
			return "", false
		}
		s = port[end:]
	}
	return s, s == "" || s[0] == '/' || s[0] == '?'
}

// RedirectKey is what of a redirect URI stays the same from one sign-in to the
// next: all of it, except the port of a program on the same computer.
func RedirectKey(uri string) string {
	if host, rest, ok := cutLoopback(uri); ok {
		return host + rest
	}
	return uri
}

// IsLoopback reports whether a redirect URI leads to a program on the person's
// own computer.
func IsLoopback(uri string) bool { return RedirectKind(uri) == RedirectLoopback }

// RedirectKind says where a redirect URI that passed CheckRedirect leads.
func RedirectKind(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http":
		return RedirectApp
	case slices.Contains(loopbackHosts, u.Hostname()):
		return RedirectLoopback
	}
	return RedirectWeb
}
