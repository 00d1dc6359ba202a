package authn

import (
	"errors"
	"net/http"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// Codes of tokens that are bound to a key (RFC 9449).
var (
	ProofMissing = problem.Code{
		Name: "PROOF_MISSING", Kind: problem.Unauthenticated,
		Why: "the access token is bound to a key, so it is worth nothing without a proof of it",
		Fix: "send it as Authorization: DPoP, with a DPoP header",
	}
	ProofInvalid = problem.Code{
		Name: "PROOF_INVALID", Kind: problem.Unauthenticated,
		Why: "it is for another request or token, is too old, was used before, or is no DPoP proof",
		Fix: "make a new proof for each request, with the clock set right",
	}
	NonceNeeded = problem.Code{
		Name: "PROOF_NONCE_NEEDED", Kind: problem.Unauthenticated,
		Why: "the DPoP proof has no nonce that is good now",
		Fix: "make a new one with the nonce of the header DPoP-Nonce",
	}
)

// proofErrors are what a refused proof is called in a challenge (RFC 9449 §7.1).
var proofErrors = map[string]string{
	ProofMissing.Name: oauth.InvalidToken, ProofInvalid.Name: oauth.InvalidProof, NonceNeeded.Name: oauth.UseNonce,
}

// proved demands what a token demands of who shows it: a bound one comes with a
// proof of its key for this request, which is good once, and an unbound one as a
// plain bearer token (attacks 93–95).
func (a *Authn) proved(r *http.Request, c token.Claims, scheme, raw string) error {
	key, bound := c.BoundTo()
	dpop := strings.EqualFold(scheme, "DPoP")
	switch {
	case bound && !dpop:
		return ProofMissing.New("the access token comes without a proof").Because(token.ErrProof("the token is bound to a key, and came as a bearer token"))
	case !bound && dpop:
		return refuse(token.ErrToken("the token is bound to no key, and came with a proof"))
	case !bound:
		return nil
	}
	p, err := a.Tokens.JudgeProof(r.Header.Values("DPoP"), r.Method, a.Public+r.URL.EscapedPath())
	switch {
	case err != nil:
	case p.Key != key:
		err = token.ErrProof("the DPoP proof is of another key")
	case !p.For(raw):
		err = token.ErrProof("the DPoP proof goes with another token")
	default:
		err = a.DB.Do(r.Context(), func(tx *store.Tx) error { return a.Tokens.SpendProof(tx, p) })
	}
	return refuseProof(err)
}

func refuseProof(err error) error {
	why, bad := errors.AsType[token.ErrProof](err)
	switch {
	case !bad:
		return err
	case why == token.ErrNonce:
		return NonceNeeded.New("the DPoP proof needs a nonce").Because(why)
	}
	return ProofInvalid.New("the DPoP proof is not accepted").Because(why)
}

// Challenge tells a caller who was refused what would be accepted: a bearer token,
// and where the caller uses DPoP, or has to, a proof. What was wrong is told under
// the scheme that the caller used; bearer is the challenge as it is for others.
func (a *Authn) Challenge(h http.Header, r *http.Request, bearer oauth.BearerChallenge, err error) {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	fault, about := proofErrors[problem.From(err).Name]
	dpop := strings.EqualFold(scheme, "DPoP")
	if !dpop && !about {
		h.Set("WWW-Authenticate", bearer.String())
		return
	}
	proof := oauth.ProofChallenge{Error: bearer.Error, Description: bearer.Description, ResourceMetadata: bearer.ResourceMetadata}
	if about {
		proof.Error = fault
	}
	if fault == oauth.UseNonce {
		if nonce, failed := a.Tokens.Nonce(); failed == nil {
			h.Set("DPoP-Nonce", nonce)
		}
	}
	if dpop {
		bearer.Error, bearer.Description = "", ""
		h["Www-Authenticate"] = []string{proof.String(), bearer.String()}
		return
	}
	h["Www-Authenticate"] = []string{bearer.String(), proof.String()}
}
