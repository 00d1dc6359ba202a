package authserver

import (
	"errors"
	"net/http"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// badProof is the one answer for every DPoP proof that is not good, except that one
// without a good nonce is asked for another (RFC 9449 §5, §8); why goes to the record.
func badProof(err error) error {
	why, bad := errors.AsType[token.ErrProof](err)
	switch {
	case !bad:
		return err
	case why == token.ErrNonce:
		return oauth.Errorf(oauth.UseNonce, "send the DPoP proof again, with the nonce of this answer").Because(string(why))
	}
	return oauth.Errorf(oauth.InvalidProof, "the DPoP proof is not good").Because(string(why))
}

// keyProof is what the client proves with the DPoP headers of a request, if it has
// any. Like present it comes before the transaction: nothing is spent yet.
func (s *Server) keyProof(r *http.Request) (oauth.Proof, error) {
	headers := r.Header.Values("DPoP")
	if len(headers) == 0 {
		return oauth.Proof{}, nil
	}
	p, err := s.Tokens.JudgeProof(headers, r.Method, s.Issuer+r.URL.EscapedPath())
	return p, badProof(err)
}

// spend uses the proof up, in the transaction of what it is for: what fails rolls
// that back.
func (s *Server) spend(tx *store.Tx, p oauth.Proof) error {
	if p.Key == "" {
		return nil
	}
	return badProof(s.Tokens.SpendProof(tx, p))
}

// nextNonce gives whoever needs one the nonce for the next proof (RFC 9449 §8.2).
func (s *Server) nextNonce(w http.ResponseWriter, r *http.Request) {
	if !s.Tokens.NeedNonce || r.Header["Dpop"] == nil {
		return
	}
	if nonce, err := s.Tokens.Nonce(); err == nil { // without, the next proof is asked for another
		w.Header().Set("DPoP-Nonce", nonce)
	}
}

// bind binds the next access token of a family to the key that the client proved
// to have, and for a public client, which has nothing else, its refresh tokens too
// (RFC 9449 §5).
func (c Client) bind(f token.Family) token.Family {
	f.Key = c.key
	if c.AuthMethod == authNone {
		f.Holder = c.key
	}
	return f
}

// scheme is how a token is shown that is bound to a key, or to none.
func scheme(key string) string {
	if key == "" {
		return "Bearer"
	}
	return "DPoP"
}
