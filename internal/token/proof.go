package token

import (
	"encoding/binary"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// NonceLife is how long a nonce for DPoP proofs is good.
const NonceLife = 5 * time.Minute

// ErrProof is why a DPoP proof is refused; its text is for the log.
type ErrProof string

func (e ErrProof) Error() string { return string(e) }

// ErrNonce is the error of a proof without a nonce, where one is needed, or with one
// that is not, or no longer, good. A new one cures it (RFC 9449 §8).
const ErrNonce = ErrProof("the DPoP proof has no nonce that is good now")

// JudgeProof looks at the DPoP headers of a request to an address. It spends
// nothing: that is for SpendProof, when all else is in order. An error is an
// ErrProof.
func (t *Tokens) JudgeProof(headers []string, method, address string) (oauth.Proof, error) {
	p, err := oauth.ParseProof(headers)
	if err == nil {
		err = p.Judge(method, address, time.Now())
	}
	if err != nil {
		return oauth.Proof{}, ErrProof(err.Error())
	}
	if (p.Nonce != "" || t.NeedNonce) && !t.nonceIsGood(p.Nonce, time.Now()) {
		return oauth.Proof{}, ErrNonce
	}
	return p, nil
}

// SpendProof uses a proof up, on every node: the second who shows it gets an
// ErrProof (RFC 9449 §11.1). It is forgotten when it has become too old in any case,
// by the slowest clock.
func (t *Tokens) SpendProof(tx *store.Tx, p oauth.Proof) error {
	expires := time.Unix(p.Issued, 0).Add(oauth.ProofAge + clockSkew).UnixMicro()
	first, err := tx.One(`INSERT INTO dpop_proof (mark, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING`, p.Mark(), expires)
	if err == nil && !first {
		err = ErrProof("the DPoP proof was used before")
	}
	return err
}

const nonceKind = "dpop_nonce"

// Nonce makes one for the next proofs. It says itself when it was made, sealed, so
// that every node knows it again and none keeps it.
func (t *Tokens) Nonce() (string, error) {
	return t.Box.Handle(nonceKind, binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix())))
}

func (t *Tokens) nonceIsGood(nonce string, now time.Time) bool {
	plain, err := t.Box.OpenHandle(nonceKind, nonce)
	if err != nil || len(plain) != 8 {
		return false
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(plain)), 0)
	return now.Sub(made) < NonceLife && made.Sub(now) < clockSkew
}
