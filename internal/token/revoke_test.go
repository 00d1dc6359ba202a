package token

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

func do(t *testing.T, tok *Tokens, f func(tx *store.Tx) error) {
	t.Helper()
	if err := tok.DB.Do(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// twoNodes runs f with two nodes that share a database, on each engine.
func twoNodes(t *testing.T, f func(t *testing.T, one, two *Tokens)) {
	storetest.EachAddress(t, func(t *testing.T, address string) {
		b := box(t)
		f(t, open(t, storetest.Open(t, address), b), open(t, storetest.Open(t, address), b))
	})
}

// R416, R1212, attack 81: what is revoked takes every family it stands for with
// it, on the same node at once and on the other with its next look, and no other.
func TestRevokingTakesExactlyItsFamilies(t *testing.T) {
	type verb func(t *Tokens, tx *store.Tx, f Family) (int, error)
	for name, row := range map[string]struct {
		revoke verb
		spared func(*Family) // makes another family that lives on
	}{
		"consent": {
			func(t *Tokens, tx *store.Tx, f Family) (int, error) {
				return t.RevokeConsent(tx, f.Workspace, f.Consent, "test")
			},
			func(f *Family) { f.Consent = "cns_2" },
		},
		"user": {
			func(t *Tokens, tx *store.Tx, f Family) (int, error) {
				return t.RevokeUser(tx, f.Workspace, f.User, "test")
			},
			func(f *Family) { f.User = "usr_2" },
		},
		"user elsewhere": {
			func(t *Tokens, tx *store.Tx, f Family) (int, error) {
				return t.RevokeUser(tx, f.Workspace, f.User, "test")
			},
			func(f *Family) { f.Workspace = "other" },
		},
		"client": {
			func(t *Tokens, tx *store.Tx, f Family) (int, error) { return t.RevokeClient(tx, f.Client, "test") },
			func(f *Family) { f.Client = "app2" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			twoNodes(t, func(t *testing.T, one, two *Tokens) {
				gone, spared := family(), family()
				row.spared(&spared)
				first, second, other := start(t, one, gone), start(t, one, func() Family { f := gone; f.ID = NewFamilyID(); return f }()), start(t, one, spared)
				if _, err := two.Verify(first.Access); err != nil {
					t.Fatal(err)
				}
				var n int
				do(t, one, func(tx *store.Tx) (err error) { n, err = row.revoke(one, tx, gone); return err })
				if n != 2 {
					t.Errorf("%d families", n)
				}
				if err := two.poll(t.Context()); err != nil {
					t.Fatal(err)
				}
				for i, node := range []*Tokens{one, two} {
					for _, pair := range []Pair{first, second} {
						if _, err := node.Verify(pair.Access); err == nil {
							t.Errorf("node %d accepts an access token", i+1)
						}
						if _, err := rotate(t, node, pair.Refresh, Asked{}, 0); !isCode(err, "invalid_grant") {
							t.Errorf("node %d: %v", i+1, err)
						}
					}
					if _, err := node.Verify(other.Access); err != nil {
						t.Errorf("node %d refuses a bystander: %v", i+1, err)
					}
				}
				if _, err := one.Verify(start(t, one, func() Family { f := gone; f.ID = NewFamilyID(); return f }()).Access); err != nil {
					t.Errorf("what was allowed afterwards is refused: %v", err)
				}
			})
		})
	}
}

// R419: a revoked key is refused everywhere, leaves the document everywhere, and
// the next one, which every node knows, signs.
func TestRevokedKeyIsReplaced(t *testing.T) {
	twoNodes(t, func(t *testing.T, one, two *Tokens) {
		old := start(t, one, family())
		c, err := two.Verify(old.Access)
		if err != nil {
			t.Fatal(err)
		}
		before := one.JWKS()
		do(t, one, func(tx *store.Tx) error { return one.RevokeKey(tx, c.Key) })
		if _, err := one.Verify(old.Access); err == nil {
			t.Error("not refused at once on the same node")
		}
		if one.Live(c.IDs()...) == nil {
			t.Error("a remembered token is not refused")
		}
		young := start(t, one, family())
		if _, err := two.Verify(young.Access); err != nil {
			t.Errorf("a node that has not looked yet does not know the next key: %v", err)
		}
		if err := two.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := two.Verify(old.Access); err == nil {
			t.Error("not refused on the other node")
		}
		for i, node := range []*Tokens{one, two} {
			jwks := node.JWKS()
			if bytes.Contains(jwks, []byte(c.Key)) || bytes.Equal(jwks, before) || len(node.keys.Load().public) != 2 {
				t.Errorf("node %d publishes %s", i+1, jwks)
			}
			if n, err := node.Verify(start(t, node, family()).Access); err != nil || n.Key == c.Key {
				t.Errorf("node %d signs with %s: %v", i+1, n.Key, err)
			}
		}
		if !bytes.Equal(one.JWKS(), two.JWKS()) {
			t.Error("two nodes, two documents")
		}
		for _, kid := range []string{c.Key, "nonsense", ""} {
			err := one.DB.Do(t.Context(), func(tx *store.Tx) error { return one.RevokeKey(tx, kid) })
			if !problem.Is(err, keyNotThere) || one.Live(kid) != nil && kid != c.Key {
				t.Errorf("revoking %q: %v", kid, err)
			}
		}
	})
}

// watched counts how often each watch was ended.
type watched struct {
	mu   sync.Mutex
	errs []error
}

func (w *watched) end(err error) { w.mu.Lock(); w.errs = append(w.errs, err); w.mu.Unlock() }

func (w *watched) ended() []error { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.errs) }

func TestWatchesAreTold(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		many := make([]watched, 3000)
		var stops []func()
		for i := range many {
			id := []string{"fam_1", "fam_2"}[i%2]
			stops = append(stops, tok.Watch(many[i].end, "at_1", id, "app"))
		}
		do(t, tok, func(tx *store.Tx) error { return tok.Revoke(tx, "fam_1", time.Hour) })
		for i := range many {
			if told := len(many[i].ended()) > 0; told != (i%2 == 0) { // reading the log may tell it again
				t.Fatalf("watch %d was told: %v", i, told)
			}
		}
		var late watched
		stop := tok.Watch(late.end, "fam_1")
		if len(late.ended()) == 0 {
			t.Error("what is revoked already is watched")
		}
		for _, stop := range append(stops, stop) {
			stop()
		}
		if n := len(tok.watches.byID); n != 0 {
			t.Errorf("%d ids are still watched", n)
		}
	})
}

// A node that is cut off from the database ends what runs, without any call.
func TestCutOffNodeEndsItsWatches(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	tok := cutOff(t, db, box(t))
	var w watched
	defer tok.Watch(w.end, "fam_1")()
	for deadline := time.Now().Add(30 * time.Second); len(w.ended()) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it runs on")
		}
	}
	if err := w.ended()[0]; !problem.Is(err, Unknown) {
		t.Errorf("ended with %v", err)
	}
	var e ErrToken
	if err := tok.Live("fam_1"); errors.As(err, &e) {
		t.Errorf("the token is blamed: %v", err)
	}
}
