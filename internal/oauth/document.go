package oauth

import (
	"net/url"
	"slices"
	"strings"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxDocumentURL is how long a client id may be that is an address, in bytes.
const maxDocumentURL = 1024

// IsDocument reports whether a client id is the address of a document that
// describes the client (draft-ietf-oauth-client-id-metadata-document; R221). Ids
// that we make never are.
func IsDocument(id string) bool { return strings.HasPrefix(id, "https://") }

// CheckDocument says whether an address can be that of a client's document, and at
// which host it is. What two readers could understand differently, and what names
// an address instead of a host, is refused before anybody looks it up (attacks 97,
// 99).
func CheckDocument(id string) (host string, fault *Error) {
	if len(id) > maxDocumentURL || !only(id, isRedirectChar) {
		return "", Errorf(InvalidClient, "the address of a client's document has at most %d characters, and no blanks, backslashes or fragment", maxDocumentURL)
	}
	u, err := url.Parse(id)
	origin, rest, _ := cutOrigin(id)
	switch {
	case err != nil || !IsDocument(id) || strings.ContainsAny(origin, "@%") || strings.HasSuffix(u.Host, ":"):
		return "", Errorf(InvalidClient, "the address of a client's document begins with https and a plain host")
	case !isHostName(u.Hostname()):
		return "", Errorf(InvalidClient, "the address of a client's document names its host in lower case, and no number")
	case rest == "":
		return "", Errorf(InvalidClient, "the address of a client's document has a path")
	case slices.ContainsFunc(strings.Split(u.EscapedPath(), "/"), isDots):
		return "", Errorf(InvalidClient, "the address of a client's document has no segments of dots")
	}
	return u.Hostname(), nil
}

// isDots reports whether a segment of a path leads to another one.
func isDots(segment string) bool {
	plain := strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
	return plain == "." || plain == ".."
}

// isHostName reports whether a host is a name of the public kind, in the one
// spelling. What ends in a number is an address to some reader.
func isHostName(host string) bool {
	dot := strings.LastIndexByte(host, '.')
	if dot <= 0 || dot == len(host)-1 || host[dot+1] >= '0' && host[dot+1] <= '9' || strings.Contains(host, "..") {
		return false
	}
	return only(host, func(c byte) bool { return isAlphanumeric(c) && (c < 'A' || c > 'Z') || c == '-' || c == '.' })
}

// ParseDocument reads the document at the address that is the client's id, and
// judges each member like that of a registration, as well as what only a document
// must not have: a secret, or a way to authenticate with one, since anybody can read
// it (attack 101). Its way to authenticate is the one it names, or none. Unknown
// members, and grant types that we do not have, are no fault (attack 102).
func ParseDocument(id string, body []byte, schemes []string) (r Registration, fault *Error) {
	r, given, fault := ParseRegistration(body, schemes)
	if fault != nil {
		return Registration{}, fault
	}
	switch {
	case r.ClientID != id:
		return Registration{}, Errorf(InvalidClientMetadata, "client_id is not the address of the document")
	case strings.TrimSpace(r.ClientName) == "":
		return Registration{}, Errorf(InvalidClientMetadata, "client_name is missing")
	case slices.Contains(given, "client_secret") || slices.Contains(given, "client_secret_expires_at"):
		return Registration{}, Errorf(InvalidClientMetadata, "a document must not have a secret: anybody can read it")
	case strings.HasPrefix(r.TokenAuthMethod, "client_secret_"):
		return Registration{}, Errorf(InvalidClientMetadata, "a client with a document cannot authenticate with a secret")
	case r.TokenAuthMethod == "":
		r.TokenAuthMethod = "none"
	}
	return r, nil
}

// AlsoPublic reports whether a document says, beside the way in which its client
// authenticates, that it can do without.
func AlsoPublic(body []byte) bool {
	var members map[string]jsontext.Value
	var methods []string
	if strictjson.Unmarshal(body, &members) != nil {
		return false
	}
	listed, ok := members["token_endpoint_auth_methods_supported"]
	return ok && strictjson.Unmarshal(listed, &methods) == nil && slices.Contains(methods, "none")
}

// AtHome says whether all web addresses among a client's redirect URIs are at the
// host of its document, or below it: so that the host that a person is shown is the
// one that gets access. Programs and apps on the person's computer have no host.
func AtHome(host string, redirects []string) *Error {
	for _, uri := range redirects {
		u, err := url.Parse(uri)
		if err != nil || RedirectKind(uri) == RedirectWeb && u.Hostname() != host && !strings.HasSuffix(u.Hostname(), "."+host) {
			return Errorf(InvalidRedirectURI, "the document at %s names a redirect URI at another host", host)
		}
	}
	return nil
}
