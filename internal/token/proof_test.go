package token

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth/oauthtest"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

const door = issuer + "/mcp"

// Attack 95: of many who show one proof at several nodes at once, one is first.
func TestProofIsGoodOnce(t *testing.T) {
	twoNodes(t, func(t *testing.T, one, two *Tokens) {
		key := oauthtest.NewKey(t, "ES256")
		p, err := one.JudgeProof([]string{key.Proof(http.MethodPost, door, "", nil)}, http.MethodPost, door)
		if err != nil {
			t.Fatal(err)
		}
		results := make([]error, 24)
		var all sync.WaitGroup
		for i := range results {
			all.Go(func() {
				node := []*Tokens{one, two}[i%2]
				results[i] = node.DB.Do(t.Context(), func(tx *store.Tx) error { return node.SpendProof(tx, p) })
			})
		}
		all.Wait()
		var first int
		for _, err := range results {
			if err == nil {
				first++
			} else if !errors.Is(err, ErrProof("the DPoP proof was used before")) {
				t.Error(err)
			}
		}
		if first != 1 {
			t.Errorf("%d were first", first)
		}
		for name, change := range map[string]map[string]any{"another address": {"htu": door + "2"}, "another id": {"jti": "other"}} {
			other, err := oauth.ParseProof([]string{key.Proof(http.MethodPost, door, "", change)})
			if err != nil {
				t.Fatal(err)
			}
			do(t, two, func(tx *store.Tx) error {
				if err := two.SpendProof(tx, other); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				return nil
			})
		}
		failing := errors.New("the grant failed")
		again, _ := oauth.ParseProof([]string{key.Proof(http.MethodPost, door, "", nil)})
		for range 2 { // what fails spends nothing
			err := one.DB.Do(t.Context(), func(tx *store.Tx) error { return errors.Join(one.SpendProof(tx, again), failing) })
			if errors.Is(err, ErrProof("the DPoP proof was used before")) {
				t.Error(err)
			}
		}
	})
}

// A proof is remembered for as long as it could be shown, and swept then.
func TestSpentProofsAreKeptWhileTheyCouldBeShown(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		key := oauthtest.NewKey(t, "ES256")
		for _, issued := range []time.Duration{-oauth.ProofAge + time.Minute, oauth.ProofAge - time.Minute, 0, -oauth.ProofAge - clockSkew - time.Minute} {
			p, err := oauth.ParseProof([]string{key.Proof(http.MethodPost, door, "", map[string]any{"iat": time.Now().Add(issued).Unix()})})
			if err != nil {
				t.Fatal(err)
			}
			do(t, tok, func(tx *store.Tx) error { return tok.SpendProof(tx, p) })
		}
		do(t, tok, func(tx *store.Tx) error { _, _, err := tok.Sweep(tx); return err })
		var left int
		do(t, tok, func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM dpop_proof`).Scan(&left) })
		if left != 3 {
			t.Errorf("%d are left", left)
		}
	})
}

// RFC 9449 §8: every node knows a nonce of another, for five minutes; nobody else's.
func TestNonces(t *testing.T) {
	twoNodes(t, func(t *testing.T, one, two *Tokens) {
		nonce, err := one.Nonce()
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		for after, good := range map[time.Duration]bool{0: true, NonceLife - 2*time.Second: true, NonceLife + time.Second: false, -clockSkew / 2: true, -time.Hour: false} {
			if two.nonceIsGood(nonce, now.Add(after)) != good {
				t.Errorf("after %v", after)
			}
		}
		foreign, err := (&Tokens{Box: box(t)}).Nonce()
		if err != nil {
			t.Fatal(err)
		}
		session, _ := one.Box.Handle("session", make([]byte, 8))
		for _, bad := range []string{"", "x", nonce + "x", foreign, session} {
			if two.nonceIsGood(bad, now) {
				t.Errorf("%q is good", bad)
			}
		}
		key := oauthtest.NewKey(t, "ES256")
		judge := func(nonce any) error {
			_, err := two.JudgeProof([]string{key.Proof(http.MethodPost, door, "", map[string]any{"nonce": nonce})}, http.MethodPost, door)
			return err
		}
		if err := judge(nil); err != nil {
			t.Errorf("none where none is needed: %v", err)
		}
		if err := judge(nonce); err != nil {
			t.Error(err)
		}
		if err := judge(foreign); err != ErrNonce {
			t.Errorf("one of somebody else's: %v", err)
		}
		two.NeedNonce = true
		if err := judge(nil); err != ErrNonce {
			t.Errorf("none where one is needed: %v", err)
		}
	})
}

// RFC 9449 §5: refresh tokens that are bound to a key rotate for who has it; a thief
// without it cannot even end the family.
func TestBoundRefreshTokens(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		f := family()
		f.Key, f.Holder = "key-1", "key-1"
		first := start(t, tok, f)
		if c, err := tok.Verify(first.Access); err != nil || c.Confirm == nil || c.Confirm.Key != "key-1" || first.Key != "key-1" {
			t.Fatalf("%+v %v", c, err)
		}
		for _, key := range []string{"", "key-2"} {
			if _, err := rotate(t, tok, first.Refresh, Asked{Key: key}, 0); !isCode(err, oauth.InvalidGrant) {
				t.Errorf("with %q: %v", key, err)
			}
		}
		second, err := rotate(t, tok, first.Refresh, Asked{Key: "key-1"}, 0)
		if err != nil || second.Key != "key-1" {
			t.Fatal(err)
		}
		third, err := rotate(t, tok, second.Refresh, Asked{Key: "key-1"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rotate(t, tok, first.Refresh, Asked{}, ReuseWindow+time.Second); errors.Is(err, ErrReplay) {
			t.Errorf("a thief without the key ended the family: %v", err)
		}
		if _, err := rotate(t, tok, third.Refresh, Asked{Key: "key-1"}, 0); err != nil {
			t.Errorf("the family has ended: %v", err)
		}
	})
}
