package oauth

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxState is how long a client's state may be, in bytes.
const maxState = 1024

// AuthorizeRequest is what a client asks of the authorization endpoint (R301).
type AuthorizeRequest struct {
	ClientID     string
	RedirectURI  string
	ResponseType string
	State        string // returned as it is, never interpreted (R312)
	Challenge    string // PKCE, S256
	Scopes       []string
	Resources    []string // RFC 8707; may be empty (C13)
	Prompt       string
	MaxAge       *uint64 // seconds since the person signed in; nil is any (OpenID Connect Core 3.1.2.1)
	ProofKey     string  // thumbprint of the key to which the code is bound (RFC 9449 §10); may be empty
	LoginHint    string  // whom the client expects, for the sign-in page and for nothing else

	// Unchallenged: the one fault is that there is no PKCE at all, neither challenge
	// nor method.
	Unchallenged bool

	// Unanswerable: nothing here says where a redirect could safely go, so the
	// fault may be shown on a page only (R305).
	Unanswerable bool
}

// ParseAuthorize reads an authorization request without knowing any client. The
// client id, the redirect URI and the state are returned as far as they can
// be read, also together with an error; whether the error may be sent to the
// redirect URI is for the caller to decide once the client is known, and never
// when the request is Unanswerable. An empty parameter counts as absent (RFC
// 6749 §3.1).
func ParseAuthorize(query url.Values) (AuthorizeRequest, *Error) {
	req := AuthorizeRequest{
		ClientID:     query.Get("client_id"),
		RedirectURI:  query.Get("redirect_uri"),
		ResponseType: query.Get("response_type"),
		State:        query.Get("state"),
		Challenge:    query.Get("code_challenge"),
		Prompt:       query.Get("prompt"),
		LoginHint:    query.Get("login_hint"),
		ProofKey:     query.Get("dpop_jkt"),
	}
	if req.ResponseType == "" { // C08
		req.ResponseType = "code"
	}
	for _, check := range authorizeChecks {
		if err := check(query, &req); err != nil {
			return req, err
		}
	}
	return req, nil
}

// authorizeChecks in order. Those that decide whether anybody can be answered
// come first, so no later fault hides them.
var authorizeChecks = []func(url.Values, *AuthorizeRequest) *Error{
	checkAddressee, checkState, checkOnce, checkText, checkByReference, checkResponseType, checkResponseMode, checkScopes, checkResources, checkMaxAge, checkProofKey, checkChallenge,
}

func checkAddressee(query url.Values, req *AuthorizeRequest) *Error {
	req.Unanswerable = true
	for _, name := range []string{"client_id", "redirect_uri"} {
		switch v := query[name]; {
		case len(v) > 1:
			return Errorf(InvalidRequest, "%s is given twice", name)
		case len(v) == 0 || v[0] == "":
			return Errorf(InvalidRequest, "%s is missing", name)
		case !Readable(v[0]):
			return Errorf(InvalidRequest, "%s is not readable text", name)
		}
	}
	req.Unanswerable = false
	return nil
}

// checkState refuses what could not be returned unchanged.
func checkState(_ url.Values, req *AuthorizeRequest) *Error {
	if len(req.State) <= maxState && Readable(req.State) {
		return nil
	}
	req.State, req.Unanswerable = "", true
	return Errorf(InvalidRequest, "state must be readable text of at most %d bytes", maxState)
}

func checkOnce(query url.Values, _ *AuthorizeRequest) *Error {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if len(query[name]) > 1 && name != "resource" {
			return Errorf(InvalidRequest, "%.64s is given twice", name)
		}
	}
	return nil
}

func checkText(query url.Values, _ *AuthorizeRequest) *Error {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, v := range append([]string{name}, query[name]...) {
			if !Readable(v) {
				return Errorf(InvalidRequest, "%.64s is not readable text", name)
			}
		}
	}
	return nil
}

// checkByReference refuses requests that stand elsewhere: they would have to be
// fetched.
func checkByReference(query url.Values, _ *AuthorizeRequest) *Error {
	if query.Get("request") != "" {
		return Errorf(RequestNotSupported, "send the parameters themselves, not in a request object")
	}
	if query.Get("request_uri") != "" {
		return Errorf(RequestURINotSupported, "send the parameters themselves, not a reference to them")
	}
	return nil
}

func checkResponseType(_ url.Values, req *AuthorizeRequest) *Error {
	if req.ResponseType != "code" {
		return Errorf(UnsupportedResponseType, "response_type must be code")
	}
	return nil
}

// checkResponseMode refuses the modes that are not offered: a client that waits for
// a form would not find the answer in the query.
func checkResponseMode(query url.Values, _ *AuthorizeRequest) *Error {
	if mode := query.Get("response_mode"); mode != "" && mode != "query" {
		return Errorf(InvalidRequest, "response_mode must be query")
	}
	return nil
}

// checkChallenge demands PKCE with S256 of every client (R303).
func checkChallenge(query url.Values, req *AuthorizeRequest) *Error {
	switch {
	case req.Challenge == "":
		req.Unchallenged = query.Get("code_challenge_method") == ""
		return Errorf(InvalidRequest, "code_challenge is missing: PKCE is required of every client")
	case query.Get("code_challenge_method") != "S256":
		return Errorf(InvalidRequest, "code_challenge_method must be S256")
	case len(req.Challenge) != challengeLen || !only(req.Challenge, isBase64URL):
		return Errorf(InvalidRequest, "code_challenge must be %d characters of base64url", challengeLen)
	}
	return nil
}

func checkProofKey(_ url.Values, req *AuthorizeRequest) *Error {
	if req.ProofKey != "" && !IsThumbprint(req.ProofKey) {
		return Errorf(InvalidRequest, "dpop_jkt must be %d characters of base64url", challengeLen)
	}
	return nil
}

func checkScopes(query url.Values, req *AuthorizeRequest) (err *Error) {
	req.Scopes, err = ParseScopes(query.Get("scope"))
	return err
}

func checkResources(query url.Values, req *AuthorizeRequest) *Error {
	for _, r := range query["resource"] {
		if r == "" {
			continue
		}
		if err := CheckResource(r); err != nil {
			return err
		}
		req.Resources = append(req.Resources, r)
	}
	return nil
}

func checkMaxAge(query url.Values, req *AuthorizeRequest) *Error {
	given := query.Get("max_age")
	if given == "" {
		return nil
	}
	seconds, err := strconv.ParseUint(given, 10, 31)
	if err != nil {
		return Errorf(InvalidRequest, "max_age must be a number of seconds")
	}
	req.MaxAge = &seconds
	return nil
}

// ParseScopes splits a scope parameter (RFC 6749 §3.3) into its tokens, each
// once, in the order given. Nothing is known yet about what they mean.
func ParseScopes(scope string) ([]string, *Error) {
	var tokens []string
	for s := range strings.SplitSeq(scope, " ") {
		if !only(s, isScopeChar) {
			return nil, Errorf(InvalidScope, "a scope contains a character that scopes cannot have")
		}
		if s != "" && !slices.Contains(tokens, s) {
			tokens = append(tokens, s)
		}
	}
	return tokens, nil
}

// Readable reports whether s is text that every database takes: UTF-8 without NUL.
func Readable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func only(s string, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func isScopeChar(c byte) bool { return c > ' ' && c <= '~' && c != '"' && c != '\\' }

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isBase64URL(c byte) bool { return isAlphanumeric(c) || c == '-' || c == '_' }
