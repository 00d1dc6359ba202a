package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// What can go wrong, for errors.Is (R905).
var (
	ErrAuthentication = errors.New("sign-in is needed, or was refused")
	ErrPermission     = errors.New("this may not be done with these rights")
	ErrTool           = errors.New("the tool failed, or does not exist")
	ErrUnreachable    = errors.New("the server cannot be reached, or does not answer as it should")
	ErrInvalid        = errors.New("what was asked for makes no sense")
)

// Error is every error of this package but a context's own.
type Error struct {
	Kind    error  // one of the Err variables, or nil
	Code    string // stable name, UPPER_SNAKE
	Message string // what could not be done
	Why     string
	Fix     string // what to do about it; may be empty
	Link    string // where a person can do it, as the server says; may be empty
	Scope   string // scopes that would help, space separated
	Ref     string // the server's reference of the failure, if it gave one
	Cause   error
}

// Error is the message and the reason.
func (e *Error) Error() string {
	if e.Why == "" {
		return e.Message
	}
	return e.Message + ": " + e.Why
}

// Is reports whether target is the error's kind.
func (e *Error) Is(target error) bool { return e.Kind != nil && target == e.Kind }

func (e *Error) Unwrap() error { return e.Cause }

// A failure is a code with the kind that programs see.
type failure struct {
	problem.Code
	kind error
}

// The codes of this package.
var (
	addressInvalid = failure{problem.Code{
		Name: "MCP_ADDRESS_INVALID", Kind: problem.Invalid,
		Fix:   "give the address of the MCP server, such as https://gw.example/mcp; plain http works on this computer only",
		About: "what was given cannot be the address of an MCP server",
	}, ErrInvalid}
	notSignedIn = failure{problem.Code{
		Name: "NOT_SIGNED_IN", Kind: problem.Unauthenticated,
		Why:   "the server wants a token and there is none for it here",
		About: "sign in with gatehouse login",
	}, ErrAuthentication}
	signedOut = failure{problem.Code{
		Name: "SIGNED_OUT", Kind: problem.Unauthenticated,
		Why:   "the server no longer accepts the token that is kept here",
		About: "sign in again with gatehouse login",
	}, ErrAuthentication}
	signInFailed = failure{problem.Code{
		Name: "SIGN_IN_FAILED", Kind: problem.Unauthenticated,
		Why: "the sign-in did not come to its end",
		Fix: "try again",
	}, ErrAuthentication}
	notAllowed = failure{problem.Code{
		Name: "SIGN_IN_NOT_ALLOWED", Kind: problem.Forbidden,
		Why:   "the person in the browser did not allow it",
		About: "sign in again and allow it, if it was you who asked",
	}, ErrPermission}
	signInNotNeeded = failure{problem.Code{
		Name: "SIGN_IN_NOT_NEEDED", Kind: problem.Conflict,
		Why: "it answers without a token",
		Fix: "use it as it is",
	}, ErrInvalid}
	noSignIn = failure{problem.Code{
		Name: "SIGN_IN_UNKNOWN", Kind: problem.Unavailable,
		Why: "it refuses the first message and describes no sign-in",
		Fix: "check that the address is that of an MCP server",
	}, ErrUnreachable}
	notTrusted = failure{problem.Code{
		Name: "SERVER_NOT_TRUSTED", Kind: problem.Unauthenticated,
		Why: "what the server says about its sign-in does not fit together",
		Fix: "tell the operator of the server; nothing secret was sent",
	}, ErrAuthentication}
	cannotRegister = failure{problem.Code{
		Name: "REGISTRATION_UNAVAILABLE", Kind: problem.Unauthenticated,
		Why: "the server does not let apps register themselves",
		Fix: "register an app there by hand and give its client id",
	}, ErrAuthentication}
	notPermitted = failure{problem.Code{
		Name: "NOT_PERMITTED", Kind: problem.Forbidden,
		Why:   "the token does not allow it",
		About: "the server understood the call and refuses it for this token",
	}, ErrPermission}
	callInvalid = failure{problem.Code{
		Name: "CALL_INVALID", Kind: problem.Invalid,
		Fix:   "give the arguments as a JSON object",
		About: "the arguments of a call cannot be sent as they are",
	}, ErrInvalid}
	toolFailed = failure{problem.Code{
		Name: "TOOL_FAILED", Kind: problem.NotFound,
		About: "the tool was called and answered with an error of its own",
	}, ErrTool}
	unreachable = failure{problem.Code{
		Name: "SERVER_UNREACHABLE", Kind: problem.Unavailable,
		Why: "no connection",
		Fix: "check the address, and whether the server runs",
	}, ErrUnreachable}
	unreadable = failure{problem.Code{
		Name: "SERVER_ANSWER_UNREADABLE", Kind: problem.Unavailable,
		Why: "the answer is not what the protocol asks for",
		Fix: "check that the address is that of an MCP server",
	}, ErrUnreachable}
	sessionGone = failure{problem.Code{
		Name: "SESSION_GONE", Kind: problem.Unavailable,
		Why: "it no longer knows it, again right after it was opened anew",
		Fix: "try again",
	}, ErrUnreachable}
	credentialsUnusable = failure{problem.Code{
		Name: "CREDENTIALS_UNUSABLE", Kind: problem.Internal,
		Fix:   "check the file and who may read and write it",
		About: "the file in which tokens are kept cannot be read or written",
	}, nil}
)

// Codes are the errors of this package, one of each code, with what is usually
// the reason and the cure. Programs compare codes; these are for a reference.
func Codes() []Error {
	var codes []Error
	for _, f := range []failure{
		addressInvalid, notSignedIn, signedOut, signInFailed, notAllowed, signInNotNeeded, noSignIn, notTrusted, cannotRegister,
		notPermitted, callInvalid, toolFailed, unreachable, unreadable, sessionGone, credentialsUnusable,
	} {
		codes = append(codes, Error{Kind: f.kind, Code: f.Name, Message: f.About, Why: f.Why, Fix: f.Fix})
	}
	return codes
}

// fail, why, fix and because take texts of servers as they are: what they say is
// clean, so that it can be shown.
func (f failure) fail(format string, args ...any) *Error {
	return &Error{Kind: f.kind, Code: f.Name, Message: clean(fmt.Sprintf(format, args...)), Why: f.Why, Fix: f.Fix}
}

func (e *Error) why(format string, args ...any) *Error {
	e.Why = clean(fmt.Sprintf(format, args...))
	return e
}

func (e *Error) fix(format string, args ...any) *Error {
	e.Fix = clean(fmt.Sprintf(format, args...))
	return e
}

// because records the cause and says it in words.
func (e *Error) because(cause error) *Error {
	e.Cause, e.Why = cause, clean(reason(cause))
	return e
}

// reason is the innermost sentence of an error: those around it repeat what the
// reader knows.
func reason(err error) string {
	var (
		netErr net.Error
		dns    *net.DNSError
		errno  syscall.Errno
		path   *os.PathError
	)
	switch {
	case errors.As(err, &dns):
		return "no such host: " + dns.Name
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return "no answer in time"
	case errors.As(err, &path):
		return path.Path + ": " + path.Err.Error()
	case errors.As(err, &errno):
		return errno.Error()
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
