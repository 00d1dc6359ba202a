package authserver

import (
	"slices"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// What the demonstrations do that came before PKCE: a program on this computer
// registers without a word about how it authenticates, is given a secret, and
// sends no challenge. It is good with POC, which needs development mode, and
// nowhere else (R806, C03, C09).

// isDemonstration reports whether a registration is to be given a secret that it
// did not ask for.
func (s *Server) isDemonstration(asked oauth.Registration) bool {
	return s.POC && asked.TokenAuthMethod == "" && onlyHere(asked.RedirectURIs)
}

// mayOmitPKCE reports whether a client needs no challenge: its secret is then all
// that keeps its code from others.
func (s *Server) mayOmitPKCE(c Client) bool {
	return s.POC && c.AuthMethod == authPost && onlyHere(c.Redirects)
}

func onlyHere(redirects []string) bool {
	return !slices.ContainsFunc(redirects, func(uri string) bool { return !oauth.IsLoopback(uri) })
}

// verifies reports whether the verifier is that of the challenge. Where none was
// needed, none may come.
func (s *Server) verifies(c Client, challenge, verifier string) bool {
	if challenge == "" {
		return s.mayOmitPKCE(c) && verifier == ""
	}
	return oauth.VerifyPKCE(challenge, verifier)
}
