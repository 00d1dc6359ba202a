// Package oauth is the OAuth vocabulary as pure functions: parse, match, PKCE,
// metadata, challenges.
//
// Nothing here knows a client, a user or a clock, opens a connection or keeps
// anything. What a stranger sent comes in as strings and goes out either
// checked or as an Error, and no text of a stranger can break out of the header
// or parameter it is put into.
package oauth

import (
	"fmt"
	"net/http"
	"strings"
)

// The error codes of RFC 6749 §4.1.2.1 and §5.2, RFC 6750 §3.1, RFC 7591
// §3.2.2, RFC 8628 §3.5, RFC 8707 §2, RFC 9449 §5 and §8, and
// OpenID Connect Core §3.1.2.6.
const (
	InvalidRequest          = "invalid_request"
	InvalidClient           = "invalid_client"
	InvalidGrant            = "invalid_grant"
	UnauthorizedClient      = "unauthorized_client"
	UnsupportedGrantType    = "unsupported_grant_type"
	UnsupportedResponseType = "unsupported_response_type"
	InvalidScope            = "invalid_scope"
	AccessDenied            = "access_denied"
	ServerError             = "server_error"
	TemporarilyUnavailable  = "temporarily_unavailable"
	InvalidTarget           = "invalid_target"
	InvalidToken            = "invalid_token"
	InsufficientScope       = "insufficient_scope"
	InvalidRedirectURI      = "invalid_redirect_uri"
	InvalidClientMetadata   = "invalid_client_metadata"
	RequestNotSupported     = "request_not_supported"
	RequestURINotSupported  = "request_uri_not_supported"
	LoginRequired           = "login_required"
	ConsentRequired         = "consent_required"
	InteractionRequired     = "interaction_required"
	AuthorizationPending    = "authorization_pending"
	SlowDown                = "slow_down"
	ExpiredToken            = "expired_token"
	InvalidProof            = "invalid_dpop_proof"
	UseNonce                = "use_dpop_nonce"
)

// statuses of the codes whose JSON answer is not a 400.
var statuses = map[string]int{
	InvalidClient:          http.StatusUnauthorized,
	InvalidToken:           http.StatusUnauthorized,
	AccessDenied:           http.StatusForbidden,
	InsufficientScope:      http.StatusForbidden,
	ServerError:            http.StatusInternalServerError,
	TemporarilyUnavailable: http.StatusServiceUnavailable,
}

// Error is an OAuth error as a client is told it. Status is for answers in
// JSON; a redirect ignores it. Why is for the record and told to nobody.
type Error struct {
	Code, Description string
	Status            int
	Why               string
}

// Errorf makes an Error with the status that belongs to its code. The
// description is for the developer of the client; characters that RFC 6749
// forbids in it are replaced, so it may quote what was received.
func Errorf(code, format string, args ...any) *Error {
	status := statuses[code]
	if status == 0 {
		status = http.StatusBadRequest
	}
	return &Error{Code: code, Description: plain(fmt.Sprintf(format, args...)), Status: status}
}

func (e *Error) Error() string { return e.Code + ": " + e.Description }

// Because says why it is refused, where the client must not be told. It is one
// of a few sentences, without anything that was received.
func (e *Error) Because(why string) *Error {
	e.Why = why
	return e
}

// Reason is the error for the record.
func (e *Error) Reason() string {
	if e.Why == "" {
		return e.Code
	}
	return e.Code + ", " + e.Why
}

// plain keeps what error_description may contain (RFC 6749 §5.2: printable ASCII
// without quote and backslash) and replaces the rest. The result needs no
// escaping inside a quoted string of a header.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\\':
			return '/'
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
}
