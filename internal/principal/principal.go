// Package principal says who is calling, on whose behalf, and with what rank
// and scopes.
//
// A principal is an argument, never a context value. Its zero value is nobody:
// anonymous, without rank, workspace or scope.
package principal

import (
	"slices"
	"strings"
	"time"
)

// A Kind is the kind of caller.
type Kind int

// The kinds of callers; the zero value is a stranger.
const (
	Anonymous      Kind = iota
	Member              // a person, directly or through an app
	ServiceAccount      // a program that acts for nobody (R620)
)

var kindNames = [...]string{"anonymous", "member", "service"}

func (k Kind) String() string { return kindNames[k] }

// ServicePrefix begins the id of a service account, and no other.
const ServicePrefix = "svc_"

// KindOf is the kind of the subject with this id. It is evident from the id, so
// that no subject is ever looked for among those of another kind.
func KindOf(subject string) Kind {
	switch {
	case subject == "":
		return Anonymous
	case strings.HasPrefix(subject, ServicePrefix):
		return ServiceAccount
	}
	return Member
}

// NameOf is how logs and audit events call the subject with this id: kind and id.
func NameOf(subject string) string {
	if subject == "" {
		return Anonymous.String()
	}
	return KindOf(subject).String() + ":" + subject
}

// A Rank is what a caller may at most do. A tool declares the lowest rank that
// may use it. Unset may do what Anyone may.
type Rank int

// The ranks, lowest first.
const (
	Unset Rank = iota
	Anyone
	Readonly
	Standard
	Admin
	Owner
)

var rankNames = [...]string{"unset", "anyone", "readonly", "standard", "admin", "owner"}

func (r Rank) String() string { return rankNames[r] }

// ParseRank is the inverse of String. An unknown word is Unset.
func ParseRank(s string) Rank {
	for r, name := range rankNames {
		if name == s {
			return Rank(r)
		}
	}
	return Unset
}

// Principal is an authenticated caller, or a stranger.
type Principal struct {
	Kind      Kind
	Workspace string
	User      string // the subject: a member, or a service account
	Client    string // the OAuth client it came through; empty for a person acting directly
	Token     string // id of the token it came with
	Family    string // id of the token family, the authorization, that token belongs to
	Key       string // id of the key that signed that token
	Audience  string
	Expires   time.Time
	Rank      Rank
	Scopes    []string // what the credential carries; none means none
	Tools     []string // full names of all that a service account may call; not used for others
	Handle    string   // the token's sealed way to what was granted elsewhere (public_token); empty without one
}

// Direct reports whether a person acts without an app in between.
func (p Principal) Direct() bool { return p.Kind == Member && p.Client == "" }

// Name is how logs and audit events call the principal: kind and id.
func (p Principal) Name() string {
	if p.Kind == Anonymous {
		return p.Kind.String()
	}
	return p.Kind.String() + ":" + p.User
}

// Has reports whether the principal's scopes cover needed, by the hierarchy
// of Covers.
func (p Principal) Has(needed string) bool {
	for _, s := range p.Scopes {
		if Covers(s, needed) {
			return true
		}
	}
	return false
}

// Covers reports whether the scope granted includes the scope needed (R509):
// x:admin includes x:write, x:write includes x:read; mcp:read includes every
// x:read, mcp:tools every x:read and x:write, mcp:admin everything.
func Covers(granted, needed string) bool {
	if granted == needed || granted == "mcp:admin" {
		return needed != ""
	}
	have, haveVerb, _ := strings.Cut(granted, ":")
	want, wantVerb, _ := strings.Cut(needed, ":")
	if have != want && have != "mcp" {
		return false
	}
	return height[wantVerb] > 0 && height[haveVerb] >= height[wantVerb]
}

// CoverAll reports whether each of the scopes needed is included in one of those
// granted.
func CoverAll(granted, needed []string) bool {
	return !slices.ContainsFunc(needed, func(n string) bool {
		return !slices.ContainsFunc(granted, func(g string) bool { return Covers(g, n) })
	})
}

// height orders the verbs that include one another. A verb that is not listed
// is covered by itself and by mcp:admin only.
var height = map[string]int{"read": 1, "write": 2, "tools": 2, "admin": 3}
