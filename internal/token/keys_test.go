package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// age makes all keys older, as if time had passed.
func age(t *testing.T, tok *Tokens, by time.Duration) {
	t.Helper()
	do(t, tok, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE signing_key SET created_at = created_at - $1, active_at = active_at - $1, retired_at = retired_at - $1, revoked_at = revoked_at - $1`, by.Microseconds())
		return err
	})
}

// keep is the job, once.
func keep(t *testing.T, tok *Tokens) (rotated string) {
	t.Helper()
	do(t, tok, func(tx *store.Tx) (err error) { rotated, err = tok.KeepKeys(tx); return err })
	return rotated
}

// states are those of the keys, in their order.
func states(t *testing.T, tok *Tokens) (found []string) {
	t.Helper()
	do(t, tok, func(tx *store.Tx) error {
		out, err := tok.listKeys(tx, principal.Principal{}, listKeysIn{})
		found = nil
		for _, k := range out.Keys {
			found = append(found, k.State)
		}
		return err
	})
	return found
}

func look(t *testing.T, nodes ...*Tokens) {
	t.Helper()
	for _, n := range nodes {
		if err := n.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// R419, R112: a key is published for a day before it signs, signs for its life, is
// published until what it signed has expired, and is gone then; on every node, and
// no token dies of it.
func TestKeyLivesFromNextToGone(t *testing.T) {
	twoNodes(t, func(t *testing.T, one, two *Tokens) {
		first := one.KeyID()
		old := start(t, one, family())
		if got := keep(t, one); got != "" {
			t.Errorf("young keys were rotated to %s", got)
		}
		age(t, one, KeyLife-time.Hour)
		if got := keep(t, one); got != "" {
			t.Errorf("rotated an hour too early to %s", got)
		}
		age(t, one, time.Hour)
		next := keep(t, one)
		if next == "" || next == first || one.KeyID() != next {
			t.Fatalf("%s, then %s; %s signs", first, next, one.KeyID())
		}
		if got := states(t, one); !slices.Equal(got, []string{keyRetiring, keyActive, keyNext}) {
			t.Errorf("%v", got)
		}
		if _, err := two.Verify(start(t, one, family()).Access); err != nil {
			t.Errorf("a node that has not looked yet does not know the key: %v", err)
		}
		look(t, one, two)
		for i, node := range []*Tokens{one, two} {
			if node.KeyID() != next || !bytes.Contains(node.JWKS(), []byte(first)) {
				t.Errorf("node %d signs with %s and publishes %s", i+1, node.KeyID(), node.JWKS())
			}
			if _, err := node.Verify(old.Access); err != nil {
				t.Errorf("node %d refuses what the retiring key signed: %v", i+1, err)
			}
		}
		var private []byte
		do(t, one, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT private FROM signing_key WHERE kid = $1`, first).Scan(&private)
		})
		if len(private) > 0 {
			t.Error("a retired key could still sign")
		}

		age(t, one, keyGrace)
		for _, node := range []*Tokens{one, two} { // what they remember is as old
			older := *node.keys.Load()
			older.until -= keyGrace.Microseconds()
			node.keys.Store(&older)
		}
		look(t, one, two) // nobody has done anything but to look: it is time that ends it
		for i, node := range []*Tokens{one, two} {
			if bytes.Contains(node.JWKS(), []byte(first)) {
				t.Errorf("node %d publishes a key that is gone", i+1)
			}
			if _, err := node.Verify(old.Access); err == nil {
				t.Errorf("attack 92: node %d accepts a token of a key that is gone", i+1)
			}
		}
		keep(t, two)
		if got := states(t, one); !slices.Equal(got, []string{keyActive, keyNext}) {
			t.Errorf("%v", got)
		}
	})
}

// A key that nobody knows does not sign: neither by the clock, nor by hand, nor in
// haste.
func TestUnknownKeyDoesNotSign(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		rotate := func(now bool) error {
			return tok.DB.Do(t.Context(), func(tx *store.Tx) error { return tok.RotateKeys(tx, now) })
		}
		first := tok.KeyID()
		for _, now := range []bool{false, true} {
			err := rotate(now)
			if !problem.Is(err, keyTooYoung) || problem.From(err).Retry <= 0 || tok.KeyID() != first {
				t.Errorf("now %v: %v", now, err)
			}
		}
		age(t, tok, keyFollowed)
		if err := rotate(false); !problem.Is(err, keyTooYoung) {
			t.Errorf("after some seconds: %v", err)
		}
		if err := rotate(true); err != nil || tok.KeyID() == first {
			t.Errorf("in haste: %v", err)
		}
		age(t, tok, keyPublished)
		second := tok.KeyID()
		if err := rotate(false); err != nil || tok.KeyID() == second {
			t.Errorf("after a day: %v", err)
		}
		// A life that is shorter than a day does not make the key known earlier.
		tok.KeyLife = time.Hour
		age(t, tok, 2*time.Hour)
		if got := keep(t, tok); got != "" {
			t.Errorf("%s was published for two hours and signs", got)
		}
	})
}

// R419: another algorithm comes by rotation, so that every token stays good on the
// way; and each key verifies by its own algorithm only.
func TestAlgorithmIsChangedByRotation(t *testing.T) {
	storetest.EachAddress(t, func(t *testing.T, address string) {
		b := box(t)
		one, two := open(t, storetest.Open(t, address), b), open(t, storetest.Open(t, address), b)
		tokens := []string{start(t, one, family()).Access}
		for _, alg := range []jose.SignatureAlgorithm{jose.EdDSA, jose.RS256, jose.ES256} {
			one.Alg, two.Alg = string(alg), string(alg)
			if got := keep(t, one); got != "" {
				t.Fatalf("%s: %s signs at once", alg, got)
			}
			age(t, one, keyPublished)
			if got := keep(t, one); got == "" {
				t.Fatalf("%s: a day later nothing has changed", alg)
			}
			look(t, one, two)
			tokens = append(tokens, start(t, two, family()).Access)
			if got := one.keys.Load().public[one.KeyID()].alg; got != alg {
				t.Errorf("%s signs, want %s", got, alg)
			}
			if got := header(t, tokens[len(tokens)-1]); got["alg"] != string(alg) {
				t.Errorf("%v, want %s", got, alg)
			}
			if err := two.Signs(); err != nil {
				t.Error(err)
			}
			var set jose.JSONWebKeySet
			if err := json.Unmarshal(one.JWKS(), &set); err != nil {
				t.Fatal(err)
			}
			for _, k := range set.Keys {
				if !k.IsPublic() || k.Algorithm == "" || k.Use != "sig" {
					t.Errorf("%s publishes %+v", alg, k)
				}
			}
			for _, other := range []string{"ES256", "EdDSA", "RS256", "PS256", "HS256", "none"} {
				if other == string(alg) {
					continue
				}
				if _, err := one.Verify(renamed(t, tokens[len(tokens)-1], other)); err != ErrToken("the type, the algorithm or the key is not one of ours") {
					t.Errorf("a %s key named %s: %v", alg, other, err)
				}
			}
			for _, raw := range tokens[len(tokens)-2:] { // those before are too old by now
				if _, err := one.Verify(raw); err != nil {
					t.Errorf("%s: %v", alg, err)
				}
			}
		}
	})
}

func header(t *testing.T, raw string) (h map[string]string) {
	t.Helper()
	head, _, _ := strings.Cut(raw, ".")
	plain, err := base64.RawURLEncoding.DecodeString(head)
	if err == nil {
		err = json.Unmarshal(plain, &h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// renamed is a token whose header names another algorithm.
func renamed(t *testing.T, raw, alg string) string {
	t.Helper()
	h := header(t, raw)
	h["alg"] = alg
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(raw, ".")
	return base64.RawURLEncoding.EncodeToString(text) + "." + rest
}

// Many nodes that start, rotate and revoke at once agree on one key that signs and
// one that is next.
func TestNodesAgreeOnTheirKeys(t *testing.T) {
	storetest.EachAddress(t, func(t *testing.T, address string) {
		b := box(t)
		nodes := make([]*Tokens, 4)
		for i := range nodes {
			nodes[i] = open(t, storetest.Open(t, address), b)
		}
		age(t, nodes[0], KeyLife)
		done := make(chan string)
		for i, n := range nodes {
			go func() {
				var rotated string
				err := n.DB.Do(t.Context(), func(tx *store.Tx) (err error) {
					if i == 0 {
						return n.RevokeKey(tx, n.KeyID())
					}
					rotated, err = n.KeepKeys(tx)
					return err
				})
				if err != nil && !problem.Is(err, keyNotThere) {
					t.Error(err)
				}
				done <- rotated
			}()
		}
		var rotated int
		for range nodes {
			if <-done != "" {
				rotated++
			}
		}
		look(t, nodes...)
		for i, n := range nodes {
			if !bytes.Equal(n.JWKS(), nodes[0].JWKS()) || n.KeyID() != nodes[0].KeyID() {
				t.Errorf("node %d: %s", i+1, n.JWKS())
			}
		}
		got := states(t, nodes[0])
		if active, next := count(got, keyActive), count(got, keyNext); active != 1 || next != 1 || rotated > 1 {
			t.Errorf("%v, %d rotations", got, rotated)
		}
	})
}

func count(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

// What a token costs by its algorithm, at the door and at the token endpoint.
func BenchmarkAlgorithms(b *testing.B) {
	for _, alg := range []string{"ES256", "EdDSA", "RS256"} {
		tok := &Tokens{DB: storetest.Open(b, storetest.SQLite(b)), Box: box(b), Issuer: issuer, Alg: alg}
		if err := tok.Open(b.Context()); err != nil {
			b.Fatal(err)
		}
		raw := ""
		b.Run("sign/"+alg, func(b *testing.B) {
			for b.Loop() {
				var err error
				if raw, _, err = tok.mint(time.Now(), AccessLife, family(), []string{"a:read"}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("verify/"+alg, func(b *testing.B) {
			for b.Loop() {
				tok.revoked.fresh = time.Now()
				if _, err := tok.Verify(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
