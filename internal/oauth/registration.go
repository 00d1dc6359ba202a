package oauth

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Registration is a client as it registers and as the answer describes it (RFC
// 7591 §2 and §3.2.1, RFC 7592 §3; R203, R204). Members that are not listed are
// ignored.
type Registration struct {
	ClientName      string   `json:"client_name,omitempty"`
	RedirectURIs    []string `json:"redirect_uris,omitempty"`
	GrantTypes      []string `json:"grant_types,omitempty"`
	ResponseTypes   []string `json:"response_types,omitempty"`
	Scope           string   `json:"scope,omitempty"`
	TokenAuthMethod string   `json:"token_endpoint_auth_method,omitempty"`
	ApplicationType string   `json:"application_type,omitempty"`
	LogoURI         string   `json:"logo_uri,omitempty"`
	ClientURI       string   `json:"client_uri,omitempty"`
	TOSURI          string   `json:"tos_uri,omitempty"`
	PolicyURI       string   `json:"policy_uri,omitempty"`
	Contacts        []string `json:"contacts,omitempty"`
	SoftwareID      string   `json:"software_id,omitempty"`
	SoftwareVersion string   `json:"software_version,omitempty"`

	BoundTokens bool `json:"dpop_bound_access_tokens,omitempty"`              // it asks for no token without a proof (RFC 9449 §5.2)
	PushedOnly  bool `json:"require_pushed_authorization_requests,omitempty"` // it begins with a pushed request only (RFC 9126 §6)

	JWKS    json.RawMessage `json:"jwks,omitempty"`     // public keys of a client that signs (RFC 7517)
	JWKSURI string          `json:"jwks_uri,omitempty"` // or where they are

	ClientID          string `json:"client_id,omitempty"`
	ClientIDIssuedAt  int64  `json:"client_id_issued_at,omitempty"` // seconds since 1970
	ClientSecret      string `json:"client_secret,omitempty"`
	SecretExpiresAt   *int64 `json:"client_secret_expires_at,omitempty"` // seconds since 1970; 0 is never; required beside a secret
	RegistrationURI   string `json:"registration_client_uri,omitempty"`
	RegistrationToken string `json:"registration_access_token,omitempty"`
}

// Bounds of what a client may say of itself.
const (
	maxRedirects = 20
	maxContacts  = 20
	maxWord      = 255 // bytes of a contact, an id or a version
)

// ParseRegistration reads the metadata of a client and judges each member that is
// known, also those that nothing uses: nobody can rely later on what was never
// looked at (R215–R217, attacks 7, 8, 48–52). What of it is granted is for the
// caller to decide. Unknown members are ignored (attack 58). given are the names
// of the members that have a value.
func ParseRegistration(body []byte, schemes []string) (r Registration, given []string, fault *Error) {
	var members map[string]jsontext.Value
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) || strictjson.Unmarshal(body, &members) != nil || strictjson.Unmarshal(body, &r) != nil {
		return Registration{}, nil, Errorf(InvalidClientMetadata, "the metadata is not a JSON object with members of the right types, each once")
	}
	for name, value := range members {
		if value.Kind() != 'n' { // null
			given = append(given, name)
		}
	}
	for _, fault := range []*Error{
		checkRedirects(r.RedirectURIs, schemes), checkAddresses(r), checkLocalized(members), checkWords(r), checkTypes(r), checkKeys(members),
	} {
		if fault != nil {
			return Registration{}, nil, fault
		}
	}
	return r, given, nil
}

// checkRedirects demands at least one (R217).
func checkRedirects(uris, schemes []string) *Error {
	if len(uris) == 0 {
		return Errorf(InvalidRedirectURI, "redirect_uris is missing")
	}
	if len(uris) > maxRedirects {
		return Errorf(InvalidRedirectURI, "there are more than %d redirect_uris", maxRedirects)
	}
	for _, uri := range uris {
		if fault := CheckRedirect(uri, schemes); fault != nil {
			return fault
		}
		if fault := checkQuery(uri); fault != nil {
			return fault
		}
	}
	return nil
}

// answerNames are the parameters that an answer adds to a redirect URI.
var answerNames = []string{"code", "state", "iss", "error", "error_description"}

// checkQuery refuses a redirect URI that has a parameter of the answer already: it
// could be read as another answer.
func checkQuery(uri string) *Error {
	u, err := url.Parse(uri)
	if err != nil {
		return Errorf(InvalidRedirectURI, "a redirect URI cannot be read")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || slices.ContainsFunc(answerNames, query.Has) {
		return Errorf(InvalidRedirectURI, "a redirect URI must not have the parameters %s", strings.Join(answerNames, ", "))
	}
	return nil
}

// checkAddresses refuses what a page of ours could not safely lead to (attack 51).
func checkAddresses(r Registration) *Error {
	for _, uri := range []string{r.LogoURI, r.ClientURI, r.TOSURI, r.PolicyURI} {
		if uri != "" && !isWeb(uri) {
			return Errorf(InvalidClientMetadata, "logo_uri, client_uri, tos_uri and policy_uri must be https addresses of at most %d bytes", maxRedirect)
		}
	}
	return nil
}

func isWeb(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && len(uri) <= maxRedirect && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && Readable(uri)
}

// checkLocalized judges members like logo_uri#de as those without a language tag
// (RFC 7591 §2.2). None of them is kept.
func checkLocalized(members map[string]jsontext.Value) *Error {
	for name, value := range members {
		of, _, localized := strings.Cut(name, "#")
		isName, isAddress := of == "client_name", slices.Contains([]string{"logo_uri", "client_uri", "tos_uri", "policy_uri"}, of)
		if !localized || !isName && !isAddress {
			continue
		}
		var text string
		if err := strictjson.Unmarshal(value, &text); err != nil || isAddress && text != "" && !isWeb(text) {
			return Errorf(InvalidClientMetadata, "a localized name must be text, a localized address an https address")
		}
	}
	return nil
}

func checkWords(r Registration) *Error {
	if len(r.Contacts) > maxContacts {
		return Errorf(InvalidClientMetadata, "there are more than %d contacts", maxContacts)
	}
	for _, word := range append([]string{r.SoftwareID, r.SoftwareVersion}, r.Contacts...) {
		if len(word) > maxWord || !Readable(word) {
			return Errorf(InvalidClientMetadata, "software_id, software_version and each of the contacts must be text of at most %d bytes", maxWord)
		}
	}
	return nil
}

func checkTypes(r Registration) *Error {
	if !slices.Contains([]string{"", "web", "native"}, r.ApplicationType) {
		return Errorf(InvalidClientMetadata, "application_type must be web or native")
	}
	if len(r.ResponseTypes) > 0 && !slices.Contains(r.ResponseTypes, "code") {
		return Errorf(InvalidClientMetadata, "response_types must contain code")
	}
	if _, fault := ParseScopes(r.Scope); fault != nil {
		return Errorf(InvalidClientMetadata, "scope cannot be read")
	}
	return nil
}

// secretMembers are the members of a JWK that only its owner may know (RFC 7518
// §6): a key with one of them is not a key to publish.
var secretMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// checkKeys judges keys, whether the client signs or not, without fetching any
// (attack 49).
func checkKeys(members map[string]jsontext.Value) *Error {
	var uri *string
	var set *struct {
		Keys []map[string]jsontext.Value `json:"keys"`
	}
	for name, into := range map[string]any{"jwks_uri": &uri, "jwks": &set} {
		if value, there := members[name]; there && strictjson.Unmarshal(value, into) != nil {
			return Errorf(InvalidClientMetadata, "jwks_uri must be text, and jwks an object with keys")
		}
	}
	if uri != nil && set != nil {
		return Errorf(InvalidClientMetadata, "jwks and jwks_uri exclude each other")
	}
	if uri != nil && (!isWeb(*uri) || isInner(*uri)) {
		return Errorf(InvalidClientMetadata, "jwks_uri must be a public https address")
	}
	if set == nil {
		return nil
	}
	for _, key := range set.Keys {
		private := slices.ContainsFunc(secretMembers, func(name string) bool { return key[name] != nil })
		if private || string(key["kty"]) == `"oct"` || key["kty"].Kind() != '"' {
			return Errorf(InvalidClientMetadata, "jwks must hold public keys only")
		}
	}
	return nil
}

// isInner reports whether an address names a host that is not on the public
// network, as far as its text can tell. Anything that ends in a number is an
// address to some reader, so it must be one to us.
func isInner(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil {
		return true
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if !strings.Contains(host, ":") && (last == "" || last[0] < '0' || last[0] > '9') {
		return host == "localhost" || last == "localhost" || last == "local" || last == "internal"
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	return err != nil || !ip.IsGlobalUnicast() || ip.IsPrivate()
}
