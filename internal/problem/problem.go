// Package problem is the one error that crosses package boundaries.
//
// A problem has a kind, which a door turns into a status, and a code, which is
// the contract with callers. Detail, Why and Fix are safe to show to a
// stranger; Cause goes to the log and nowhere else. An error that is not a
// problem is an internal one, and its text is shown to nobody.
package problem

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// A Kind tells doors how to answer. The zero value is Internal, so an error
// that nobody classified reveals nothing.
type Kind int

// The nine kinds of doc/design.md §9; the zero value comes first.
const (
	Internal Kind = iota
	Invalid
	Unauthenticated
	Forbidden
	NotFound
	Conflict
	Limited
	Held
	Unavailable
)

var kinds = [...]struct {
	name   string
	means  string
	status int
	oauth  string
	exit   int
}{
	Internal:        {"internal", "something failed that should not", http.StatusInternalServerError, "server_error", 1},
	Invalid:         {"invalid", "what was asked for cannot be understood or used", http.StatusBadRequest, "", 2},
	Unauthenticated: {"unauthenticated", "it is not known who asks", http.StatusUnauthorized, "", 3},
	Forbidden:       {"forbidden", "who asks may not do this", http.StatusForbidden, "", 6},
	NotFound:        {"not_found", "there is no such thing, or not for who asks", http.StatusNotFound, "", 5},
	Conflict:        {"conflict", "it does not go together with what is there", http.StatusConflict, "", 1},
	Limited:         {"limited", "it was asked too often", http.StatusTooManyRequests, "temporarily_unavailable", 1},
	Held:            {"held", "it waits for a person to allow it", http.StatusAccepted, "", 7},
	Unavailable:     {"unavailable", "something that is needed does not answer or cannot be used", http.StatusServiceUnavailable, "temporarily_unavailable", 4},
}

func (k Kind) String() string { return kinds[k].name }

// Means says in words what all problems of the kind have in common.
func (k Kind) Means() string { return kinds[k].means }

// Status is the HTTP status a REST door answers with.
func (k Kind) Status() int { return kinds[k].status }

// OAuth is the error that an OAuth client is told, or "" where no problem of the
// kind reaches one.
func (k Kind) OAuth() string { return kinds[k].oauth }

// Exit is the exit code of the command line.
func (k Kind) Exit() int { return kinds[k].exit }

// Seen says how the kind is answered at each door.
func (k Kind) Seen() string {
	seen := fmt.Sprintf("HTTP %d · exit %d", k.Status(), k.Exit())
	if k.OAuth() != "" {
		seen += " · OAuth " + k.OAuth()
	}
	return seen
}

// A Code is one way in which something can fail. Codes are declared as package
// variables in the room that raises them and never reused for another meaning;
// the room's list Codes has them all, for the error reference.
type Code struct {
	Name  string // UPPER_SNAKE, the contract with callers
	Kind  Kind
	Why   string // the usual cause, in words; may be empty
	Fix   string // what the reader can do about it; may be empty
	About string // for the error reference, where why and fix are known only when it happens
}

// Summary is one phrase that says what the code is.
func (c Code) Summary() string { return cmp.Or(c.About, c.Why) }

// Spelt is a code in its one spelling, however a person typed it.
func Spelt(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

// New makes an error with this code. The message says what could not be done,
// in the caller's words, and is shown to the caller.
func (c Code) New(format string, args ...any) *Error {
	return &Error{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// Error is what crosses package boundaries.
type Error struct {
	Code
	Detail string        // what could not be done; safe to show
	Cause  error         // for the log only
	Scope  string        // scopes that would cure a Forbidden, space separated
	Retry  time.Duration // when trying again makes sense; zero means unknown
	Link   string        // where a person can go on
}

// Error is the text for the log: it includes the cause. Doors show Wire.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Name + ": " + e.Detail + ": " + e.Cause.Error()
	}
	return e.Name + ": " + e.Detail
}

func (e *Error) Unwrap() error { return e.Cause }

// Because records the cause, for the log only.
func (e *Error) Because(cause error) *Error {
	e.Cause = cause
	return e
}

// WithWhy replaces the code's usual cause with what is known to have happened.
// It is shown to the caller.
func (e *Error) WithWhy(format string, args ...any) *Error {
	e.Why = fmt.Sprintf(format, args...)
	return e
}

// WithFix replaces the code's usual cure.
func (e *Error) WithFix(format string, args ...any) *Error {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// Codes are those of this package.
var Codes = []Code{internalCode}

// internalCode is what an unclassified error becomes.
var internalCode = Code{
	Name: "INTERNAL", Kind: Internal,
	Why: "something failed that should not; it has been recorded",
	Fix: "try again; if it stays, give the reference to the operator",
}

// From returns the problem in err's chain. Any other error becomes INTERNAL with
// err as its cause; nil stays nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return internalCode.New("the request could not be carried out").Because(err)
}

// Is reports whether err is a problem with this code.
func Is(err error, c Code) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Name == c.Name
}

// Wire is a problem as callers see it, the same on REST, in tool errors and in
// the JSON output of the command line.
type Wire struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Why     string `json:"why,omitempty"`
	Fix     string `json:"fix,omitempty"`
	Scope   string `json:"scope,omitempty"`
	Link    string `json:"link,omitempty"`
	Retry   int    `json:"retry_after,omitempty"` // seconds
	Ref     string `json:"ref,omitempty"`
	Status  int    `json:"status"`
}

// Wire leaves out the cause. ref is the reference of the flow (req_…).
func (e *Error) Wire(ref string) Wire {
	return Wire{
		Code: e.Name, Message: e.Detail, Why: e.Why, Fix: e.Fix, Scope: e.Scope, Link: e.Link,
		Retry: int((e.Retry + time.Second - 1) / time.Second), Ref: ref, Status: e.Kind.Status(),
	}
}
