package authserver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
)

// What an issuer is trusted with.
const (
	TrustPeople    = "id-jag"   // an identity provider that says which member an app may act for (enterprise-managed authorization)
	TrustWorkloads = "workload" // a platform that says which program is calling
)

// Trusted is somebody else's word that the operator takes in place of a sign-in or a
// secret (RFC 7523 §2.1). What it is not told to trust it does not.
type Trusted struct {
	Kind   string // TrustPeople or TrustWorkloads
	Issuer *issuer.Issuer

	// Of TrustPeople:
	Clients []string          // ids of clients that may bring its assertions; others may if they are confidential and have the grant
	Members map[string]string // members' addresses by the issuer's subject
	Emails  bool              // does an address that the issuer has verified name a member?

	// Of TrustWorkloads:
	Account  string            // name of the service account that the workload is
	Audience string            // of its tokens; empty: our issuer identifier
	Subject  string            // of its tokens; a * at the end stands for anything; empty: any
	Claims   map[string]string // that its tokens have, each with this text
}

// Check says what is wrong with it, apart from the issuer; "" if nothing is.
func (t Trusted) Check() string {
	switch {
	case t.Kind == TrustPeople && (t.Account != "" || t.Audience != "" || t.Subject != "" || t.Claims != nil):
		return "account, audience, subject and claims are for the kind " + TrustWorkloads
	case t.Kind == TrustPeople && len(t.Members) == 0 && !t.Emails:
		return "it says for nobody who that is here: name members by subject, or set match_email"
	case t.Kind == TrustPeople:
		return ""
	case t.Kind != TrustWorkloads:
		return fmt.Sprintf("its kind is either %s or %s", TrustPeople, TrustWorkloads)
	case t.Clients != nil || t.Members != nil || t.Emails:
		return "clients, members and match_email are for the kind " + TrustPeople
	case t.Account == "":
		return "name the service account that the workload is: account"
	case strings.Trim(t.Subject, "*") == "" && len(t.Claims) == 0:
		return "every workload of the issuer would be that account: say its subject, or claims that it has"
	case strings.Contains(strings.TrimSuffix(t.Subject, "*"), "*"):
		return "a * in its subject stands at the end only"
	}
	return ""
}

// grantProfiles are the profiles of grants that are served.
func (s *Server) grantProfiles() []string {
	if slices.ContainsFunc(s.Trusted(), func(t Trusted) bool { return t.Kind == TrustPeople }) {
		return []string{"urn:ietf:params:oauth:grant-profile:id-jag"}
	}
	return nil
}

// is reports whether a token of the issuer is this workload's.
func (t Trusted) is(c jwks.Claims) bool {
	if start, open := strings.CutSuffix(t.Subject, "*"); open && !strings.HasPrefix(c.Subject, start) || !open && t.Subject != "" && c.Subject != t.Subject {
		return false
	}
	for name, want := range t.Claims {
		if got, ok := c.All[name].(string); !ok || got != want {
			return false
		}
	}
	return c.Subject != ""
}
