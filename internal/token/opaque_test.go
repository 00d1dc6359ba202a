package token

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// opaqueNodes are two nodes whose access tokens are no JWTs.
func opaqueNodes(t *testing.T, f func(t *testing.T, one, two *Tokens)) {
	twoNodes(t, func(t *testing.T, one, two *Tokens) {
		yes := func(client, resource string) bool { return client == "app" && resource == issuer+"/mcp" }
		one.Opaque, two.Opaque = yes, yes
		f(t, one, two)
	})
}

func accept(t *testing.T, tok *Tokens, raw string) (c Claims, err error) {
	t.Helper()
	_ = tok.DB.View(t.Context(), func(tx *store.Tx) error { c, err = tok.Accept(tx, raw); return nil })
	return c, err
}

// R409, R506: an opaque token says what a JWT would, on every node, and only its
// client and its resource get one.
func TestOpaqueTokenStandsForTheSame(t *testing.T) {
	opaqueNodes(t, func(t *testing.T, one, two *Tokens) {
		f := family()
		pair := start(t, one, f)
		if !IsOpaque(pair.Access) || strings.Count(pair.Access, ".") != 1 || !strings.HasPrefix(pair.Access, pair.Token+".") {
			t.Fatalf("%s", pair.Access)
		}
		for i, node := range []*Tokens{one, two} {
			c, err := accept(t, node, pair.Access)
			if err != nil || c.Subject != "usr_1" || c.Client != "app" || c.Scope != "a:read a:write" || c.Family != f.ID || c.ID != pair.Token ||
				c.Workspace != "default" || c.Expires-c.Issued != 3600 || !c.For(issuer+"/mcp") || c.For(issuer+"/s/x/mcp") {
				t.Errorf("node %d: %+v, %v", i+1, c, err)
			}
		}
		if _, err := one.Verify(pair.Access); err == nil {
			t.Error("it passes as a JWT")
		}
		other := family()
		other.Client = "other"
		for name, f := range map[string]Family{"client": other, "resource": func() Family { f := family(); f.Resource += "2"; return f }()} {
			jwt := start(t, one, f)
			if IsOpaque(jwt.Access) {
				t.Errorf("another %s has an opaque token", name)
			}
			if _, err := accept(t, two, jwt.Access); err != nil {
				t.Errorf("another %s: %v", name, err)
			}
		}
	})
}

// R506: what is no row, another's secret, expired or revoked is refused; a row
// without its secret is worth nothing.
func TestBadOpaqueTokensAreRefused(t *testing.T) {
	opaqueNodes(t, func(t *testing.T, one, two *Tokens) {
		good, second := start(t, one, family()), start(t, one, family())
		id, secret, _ := strings.Cut(good.Access, ".")
		_, stolen, _ := strings.Cut(second.Access, ".")
		for name, c := range map[string]struct{ raw, why string }{
			"another's secret": {id + "." + stolen, "the secret of the token is wrong"},
			"no secret":        {id, "the token does not have the form of one"},
			"empty secret":     {id + ".", "the token does not have the form of one"},
			"no row":           {NewSplit("at_").Token, "there is no such token"},
			"refresh token":    {good.Refresh, "the token is too long or no JWT"},
			"as a refresh one": {"at_" + strings.TrimPrefix(good.Refresh, "rt_"), "there is no such token"},
			"id in small":      {strings.ToLower(id) + "." + secret, "the token does not have the form of one"},
			"no text":          {"at_" + strings.Repeat("\xff", 26) + "." + secret, "the token does not have the form of one"},
			"a NUL":            {id[:len(id)-1] + "\x00." + secret, "the token does not have the form of one"},
			"long":             {id + "." + strings.Repeat("A", 64<<10), "the token does not have the form of one"},
		} {
			if _, err := accept(t, two, c.raw); err != ErrToken(c.why) {
				t.Errorf("%s: %v", name, err)
			}
		}
		var kept []byte
		do(t, one, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT hash FROM access_token WHERE id = $1`, id).Scan(&kept)
		})
		if bytes.Contains(kept, []byte(secret)) || len(kept) != 32 {
			t.Errorf("%q is kept", kept)
		}
		do(t, one, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE access_token SET created_at = created_at - $1, expires_at = expires_at - $1 WHERE id = $2`, AccessLife.Microseconds(), second.Token)
			return err
		})
		if _, err := accept(t, one, second.Access); err != ErrToken("the token has expired") {
			t.Errorf("%v", err)
		}
		do(t, one, func(tx *store.Tx) error { return one.Revoke(tx, good.Token, time.Hour) })
		look(t, two)
		for i, node := range []*Tokens{one, two} {
			if _, err := accept(t, node, good.Access); err != errRevoked {
				t.Errorf("node %d: %v", i+1, err)
			}
		}
		do(t, one, func(tx *store.Tx) error { _, _, err := one.Sweep(tx); return err })
		var left int
		do(t, one, func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM access_token`).Scan(&left) })
		if left != 1 {
			t.Errorf("%d rows are left of one that lives", left)
		}
	})
}

func BenchmarkVerifyOpaque(b *testing.B) {
	tok := &Tokens{DB: storetest.Open(b, storetest.SQLite(b)), Box: box(b), Issuer: issuer}
	if err := tok.Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	var raw string
	err := tok.DB.Do(b.Context(), func(tx *store.Tx) (err error) {
		raw, _, err = tok.keep(tx, AccessLife, family(), []string{"a:read"})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		tok.revoked.fresh = time.Now()
		err := tok.DB.View(b.Context(), func(tx *store.Tx) error { _, err := tok.VerifyOpaque(tx, raw); return err })
		if err != nil {
			b.Fatal(err)
		}
	}
}
