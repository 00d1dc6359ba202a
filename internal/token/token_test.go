package token

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

const issuer = "http://localhost:3000"

func each(t *testing.T, f func(t *testing.T, tok *Tokens)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { f(t, open(t, db, box(t))) })
}

func box(t testing.TB) *seal.Box {
	t.Helper()
	key, err := seal.LoadKey(filepath.Join(t.TempDir(), "master.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	return &seal.Box{Keeper: key}
}

// open makes a node that follows the log.
func open(t *testing.T, db *store.DB, b *seal.Box) *Tokens {
	t.Helper()
	tok := cutOff(t, db, b)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { tok.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return tok
}

// cutOff makes one that looked once, and does not any more.
func cutOff(t *testing.T, db *store.DB, b *seal.Box) *Tokens {
	t.Helper()
	tok := &Tokens{DB: db, Box: b, Issuer: issuer, Log: slog.New(slog.DiscardHandler)}
	if err := tok.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tok
}

func family() Family {
	return Family{
		ID: NewFamilyID(), Workspace: "default", User: "usr_1", Client: "app", Consent: "cns_1",
		Scopes: []string{"a:read", "a:write"}, Resource: issuer + "/mcp",
	}
}

func start(t *testing.T, tok *Tokens, f Family) (pair Pair) {
	t.Helper()
	err := tok.DB.Do(t.Context(), func(tx *store.Tx) (err error) {
		pair, err = tok.Start(tx, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// rotate redeems as if it were later than now.
func rotate(t *testing.T, tok *Tokens, refresh string, asked Asked, later time.Duration) (pair Pair, err error) {
	t.Helper()
	if asked.Client == "" {
		asked.Client = "app"
	}
	err = tok.DB.Do(t.Context(), func(tx *store.Tx) (err error) {
		tx.Now += later.Microseconds()
		_, pair, err = tok.Rotate(tx, refresh, asked)
		return err
	})
	return pair, err
}

func isCode(err error, code string) bool {
	e, ok := errors.AsType[*oauth.Error](err)
	return ok && e.Code == code
}

func TestAccessTokenSaysWhatWasGranted(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		f := family()
		pair := start(t, tok, f)
		c, err := tok.Verify(pair.Access)
		if err != nil {
			t.Fatal(err)
		}
		if c.Subject != "usr_1" || c.Client != "app" || c.Scope != "a:read a:write" || c.Family != f.ID || c.ID != pair.Token || c.Expires-c.Issued != 3600 {
			t.Errorf("%+v", c)
		}
		if !c.For(issuer+"/mcp") || c.For(issuer+"/mcp/") || c.For(issuer+"/mc") || c.For("") {
			t.Error("the audience is not matched exactly")
		}
		if (Claims{}).For(issuer + "/mcp") {
			t.Error("a token without audience is for something")
		}
	})
}

func TestForgedTokensAreRefused(t *testing.T) {
	tok := open(t, storetest.Open(t, storetest.SQLite(t)), box(t))
	good := start(t, tok, family()).Access
	parts := strings.Split(good, ".")
	header := func(h string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(h)) + "." + parts[1] + "." + parts[2]
	}
	kid := tok.KeyID()
	forged := map[string]string{
		"empty":         "",
		"no dots":       "abc",
		"none":          header(`{"alg":"none","typ":"at+jwt","kid":"`+kid+`"}`) + "",
		"nOnE":          header(`{"alg":"nOnE","typ":"at+jwt","kid":"` + kid + `"}`),
		"HS256":         header(`{"alg":"HS256","typ":"at+jwt","kid":"` + kid + `"}`),
		"other type":    header(`{"alg":"ES256","typ":"jwt","kid":"` + kid + `"}`),
		"unknown kid":   header(`{"alg":"ES256","typ":"at+jwt","kid":"../../x"}`),
		"no kid":        header(`{"alg":"ES256","typ":"at+jwt"}`),
		"jku":           header(`{"alg":"ES256","typ":"at+jwt","kid":"` + kid + `","jku":"https://evil.example"}`),
		"crit":          header(`{"alg":"ES256","typ":"at+jwt","kid":"` + kid + `","crit":["x"]}`),
		"no signature":  parts[0] + "." + parts[1] + ".",
		"other payload": parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"usr_2"}`)) + "." + parts[2],
		"trailing":      good + "x",
		"64 KB":         good + strings.Repeat("x", 64<<10),
		"dots":          strings.Repeat(".", 1000),
		"five parts":    good + "." + parts[1] + "." + parts[2],
		"other signer":  start(t, open(t, storetest.Open(t, storetest.SQLite(t)), box(t)), family()).Access,
	}
	for name, raw := range forged {
		if _, err := tok.Verify(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := tok.Verify(good); err != nil {
		t.Errorf("the positive twin: %v", err)
	}
}

func TestClaimsAreJudged(t *testing.T) {
	tok := open(t, storetest.Open(t, storetest.SQLite(t)), box(t))
	now := time.Now()
	good := Claims{Issuer: issuer, Subject: "u", ID: "i", Client: "c", Family: "f", Workspace: "w", Issued: now.Unix(), Expires: now.Add(time.Hour).Unix()}
	if err := tok.judge(good, now); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Claims){
		"other issuer":   func(c *Claims) { c.Issuer += "/" },
		"no issuer":      func(c *Claims) { c.Issuer = "" },
		"expired":        func(c *Claims) { c.Expires = now.Unix() },
		"no expiry":      func(c *Claims) { c.Expires = 0 },
		"not yet":        func(c *Claims) { c.NotBefore = now.Add(time.Hour).Unix() },
		"issued later":   func(c *Claims) { c.Issued = now.Add(time.Hour).Unix() },
		"never issued":   func(c *Claims) { c.Issued = 0 },
		"no subject":     func(c *Claims) { c.Subject = "" },
		"no id":          func(c *Claims) { c.ID = "" },
		"no client":      func(c *Claims) { c.Client = "" },
		"no family":      func(c *Claims) { c.Family = "" },
		"no workspace":   func(c *Claims) { c.Workspace = "" },
		"lives too long": func(c *Claims) { c.Expires++ },
		"clock too fast": func(c *Claims) { c.Issued = now.Add(clockSkew + 2*time.Second).Unix() },
	} {
		c := good
		spoil(&c)
		if tok.judge(c, now) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPublicKeysHoldNothingPrivate(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		var set struct{ Keys []map[string]any }
		if err := json.Unmarshal(tok.JWKS(), &set); err != nil || len(set.Keys) != 2 {
			t.Fatalf("%s %v", tok.JWKS(), err)
		}
		for _, k := range set.Keys {
			if k["d"] != nil || k["kid"] == "" || k["alg"] != "ES256" || k["use"] != "sig" {
				t.Errorf("%v", k)
			}
		}
	})
}

func TestSecondNodeSharesTheKey(t *testing.T) {
	storetest.EachAddress(t, func(t *testing.T, address string) {
		b := box(t)
		one := open(t, storetest.Open(t, address), b)
		two := open(t, storetest.Open(t, address), b)
		if !bytes.Equal(one.JWKS(), two.JWKS()) {
			t.Error("two nodes, two keys")
		}
		if _, err := two.Verify(start(t, one, family()).Access); err != nil {
			t.Error(err)
		}
		stranger := &Tokens{DB: storetest.Open(t, address), Box: box(t), Issuer: issuer}
		if err := stranger.Open(t.Context()); err == nil {
			t.Error("a node with another master key started")
		}
	})
}

// R413, attack 33: an old token is good while no child was used, and inside the
// window at any depth; what was handed out before still works.
func TestHonestClientIsNeverSignedOut(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		first := start(t, tok, family())
		second, err := rotate(t, tok, first.Refresh, Asked{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rotate(t, tok, first.Refresh, Asked{}, time.Hour); err != nil {
			t.Errorf("the answer was lost, no child used: %v", err)
		}
		third, err := rotate(t, tok, second.Refresh, Asked{}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, old := range []string{first.Refresh, second.Refresh, third.Refresh} {
			if _, err := rotate(t, tok, old, Asked{}, time.Hour+ReuseWindow-time.Second); err != nil {
				t.Errorf("inside the window: %v", err)
			}
		}
		for _, p := range []Pair{first, second} { // the third is from an hour ahead
			if _, err := tok.Verify(p.Access); err != nil {
				t.Errorf("an earlier access token stopped working: %v", err)
			}
		}
	})
}

// Attack 32: after the window the family dies, access tokens included.
func TestReplayRevokesTheFamily(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		first := start(t, tok, family())
		second, _ := rotate(t, tok, first.Refresh, Asked{}, 0)
		third, _ := rotate(t, tok, second.Refresh, Asked{}, 0)
		_, err := rotate(t, tok, first.Refresh, Asked{}, ReuseWindow+time.Second)
		if !isCode(err, oauth.InvalidGrant) || !errors.Is(err, ErrReplay) {
			t.Fatalf("got %v", err)
		}
		if _, err := rotate(t, tok, third.Refresh, Asked{}, 0); !isCode(err, oauth.InvalidGrant) {
			t.Errorf("the family lives on: %v", err)
		}
		if _, err := tok.Verify(third.Access); err == nil {
			t.Error("an access token of the family lives on")
		}
	})
}

// R413: the window can be made longer, for apps that keep old tokens in several
// processes; it ends all the same.
func TestWindowIsASetting(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		tok.Window = 30 * time.Minute
		first := start(t, tok, family())
		second, _ := rotate(t, tok, first.Refresh, Asked{}, 0)
		if _, err := rotate(t, tok, second.Refresh, Asked{}, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := rotate(t, tok, first.Refresh, Asked{}, 29*time.Minute); err != nil {
			t.Errorf("inside the window: %v", err)
		}
		if _, err := rotate(t, tok, first.Refresh, Asked{}, 31*time.Minute); !errors.Is(err, ErrReplay) {
			t.Errorf("after it: %v", err)
		}
	})
}

// Attacks 26, 35, 36, 39, 40: refused, and nothing is rotated or revoked.
func TestRefusedRefreshChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		first := start(t, tok, family())
		id, _, _ := strings.Cut(first.Refresh, ".")
		cases := map[string]struct {
			refresh, code string
			asked         Asked
			later         time.Duration
		}{
			"another client":   {first.Refresh, oauth.InvalidGrant, Asked{Client: "other"}, 0},
			"wrong secret":     {id + "." + strings.Repeat("A", 43), oauth.InvalidGrant, Asked{}, 0},
			"truncated":        {first.Refresh[:len(first.Refresh)-1], oauth.InvalidGrant, Asked{}, 0},
			"unknown":          {NewSplit("rt_").Token, oauth.InvalidGrant, Asked{}, 0},
			"access token":     {first.Access, oauth.InvalidGrant, Asked{}, 0},
			"other kind":       {NewSplit("ses_").Token, oauth.InvalidGrant, Asked{}, 0},
			"empty":            {"", oauth.InvalidGrant, Asked{}, 0},
			"wider scope":      {first.Refresh, oauth.InvalidScope, Asked{Scopes: []string{"a:read", "a:admin"}}, 0},
			"other resource":   {first.Refresh, oauth.InvalidTarget, Asked{Resources: []string{issuer + "/s/x/mcp"}}, 0},
			"idle too long":    {first.Refresh, oauth.InvalidGrant, Asked{}, RefreshIdle},
			"family too old":   {first.Refresh, oauth.InvalidGrant, Asked{}, FamilyLife},
			"resource is path": {first.Refresh, oauth.InvalidTarget, Asked{Resources: []string{issuer}}, 0},
		}
		for name, c := range cases {
			if _, err := rotate(t, tok, c.refresh, c.asked, c.later); !isCode(err, c.code) {
				t.Errorf("%s: %v", name, err)
			}
		}
		pair, err := rotate(t, tok, first.Refresh, Asked{Scopes: []string{"a:read", "offline_access"}, Resources: []string{issuer + "/mcp/"}}, 0)
		if err != nil || !slices.Equal(pair.Scopes, []string{"a:read"}) {
			t.Errorf("the positive twin: %v %v", pair.Scopes, err)
		}
	})
}

// Attack 34: every answer holds working tokens and no family is revoked.
func TestRefreshRace(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		first := start(t, tok, family())
		pairs := make([]Pair, 32)
		var all sync.WaitGroup
		for i := range pairs {
			all.Go(func() {
				var err error
				if pairs[i], err = rotate(t, tok, first.Refresh, Asked{}, 0); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, p := range pairs {
			if err := tok.poll(t.Context()); err != nil { // a busy machine takes its time
				t.Fatal(err)
			}
			if _, err := tok.Verify(p.Access); err != nil {
				t.Error(err)
			}
			if _, err := rotate(t, tok, p.Refresh, Asked{}, 0); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRevocationReachesOtherNodes(t *testing.T) {
	storetest.EachAddress(t, func(t *testing.T, address string) {
		b := box(t)
		one, two := open(t, storetest.Open(t, address), b), open(t, storetest.Open(t, address), b)
		f := family()
		pair := start(t, one, f)
		if _, err := two.Verify(pair.Access); err != nil {
			t.Fatal(err)
		}
		if err := one.DB.Do(t.Context(), func(tx *store.Tx) error { _, err := one.RevokeFamily(tx, f.ID, "test"); return err }); err != nil {
			t.Fatal(err)
		}
		if _, err := one.Verify(pair.Access); err == nil {
			t.Error("not refused at once on the same node")
		}
		if err := two.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := two.Verify(pair.Access); err == nil {
			t.Error("not refused on the other node")
		}
		late := open(t, storetest.Open(t, address), b)
		if _, err := late.Verify(pair.Access); err == nil {
			t.Error("not refused on a node that started later")
		}
	})
}

func TestRolledBackRevocationRevokesNothing(t *testing.T) {
	each(t, func(t *testing.T, tok *Tokens) {
		f := family()
		pair := start(t, tok, f)
		_ = tok.DB.Do(t.Context(), func(tx *store.Tx) error {
			_, _ = tok.RevokeFamily(tx, f.ID, "test")
			return errors.New("no")
		})
		if _, err := tok.Verify(pair.Access); err != nil {
			t.Error(err)
		}
	})
}

func TestNodeThatCannotTellRefuses(t *testing.T) {
	tok := cutOff(t, storetest.Open(t, storetest.SQLite(t)), box(t))
	pair := start(t, tok, family())
	tok.revoked.fresh = time.Now().Add(-staleAfter - time.Second)
	if _, err := tok.Verify(pair.Access); !problem.Is(err, Unknown) {
		t.Errorf("a node that has not read revocations for too long says %v", err)
	}
	var never Tokens
	if never.Live("x") == nil {
		t.Error("a node that never read revocations accepts")
	}
}
