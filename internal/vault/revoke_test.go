package vault_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// working runs a job of each node until the returned function is called.
func (w *world) working(job func(*vault.Vault, context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{}, len(w.nodes))
	for _, v := range w.nodes {
		go func() { job(v, ctx); done <- struct{}{} }()
	}
	return func() {
		cancel()
		for range w.nodes {
			<-done
		}
	}
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for began := time.Now(); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			w.t.Fatalf("%s: not within ten seconds", what)
		}
	}
}

// remove calls the tool as a person, for their own account.
func (w *world) remove(p principal.Principal) {
	w.t.Helper()
	all, err := w.nodes[0].Accounts(w.t.Context(), p)
	if err != nil || len(all) != 1 {
		w.t.Fatal(all, err)
	}
	args, _ := json.Marshal(map[string]string{"id": all[0].ID})
	for _, t := range w.nodes[0].Tools() {
		if t.Name == "remove_connection" {
			err = w.db.Do(w.t.Context(), func(tx *store.Tx) error {
				_, err := t.Inside(tx, p, args)
				return err
			})
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) count(query string) string { return w.text(`SELECT count(*) || '' FROM ` + query) }

const revocations = `audit_event WHERE action = 'connection.revoke'`

// instead answers for the service until it gets nil.
func (w *world) instead(lie http.HandlerFunc) {
	if lie == nil {
		w.lie.Store(nil)
		return
	}
	w.lie.Store(&lie)
}

// RFC 7009: a connection that is removed is over here at once, and the provider hears
// of it once, whichever node does it; others' are left alone.
func TestARemovedConnectionIsRevokedAtItsProvider(t *testing.T) {
	onEach(t, 2, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		w.connect(person("erin"), "theo", nil)
		defer w.working((*vault.Vault).Revoke)()
		w.remove(person("dana"))
		_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
		is(t, err, "CONNECTION_NEEDED")
		w.eventually("told", func() bool { return w.service.Grants("mira") == 0 })
		w.eventually("recorded", func() bool { return w.count(revocations+` AND outcome = 'allowed'`) == "1" })
		if w.count(`upstream_revocation`) != "0" || w.count(revocations) != "1" || w.service.Grants("theo") != 1 {
			t.Error("something is left, or too much went")
		}
		w.sees(w.nodes[1], person("erin"), "theo")
		w.connect(person("dana"), "mira", nil)
		w.sees(w.nodes[1], person("dana"), "mira")
	})
}

// A provider that does not answer keeps nothing alive here; it is told later, and what
// waits for that is sealed. In the end it is given up, which is recorded.
func TestAProviderThatIsDownIsToldLater(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		tried := make(chan struct{}, 100)
		w.instead(func(rw http.ResponseWriter, _ *http.Request) {
			tried <- struct{}{}
			rw.WriteHeader(http.StatusServiceUnavailable)
		})
		stop := w.working((*vault.Vault).Revoke)
		w.remove(person("dana"))
		<-tried
		_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
		is(t, err, "CONNECTION_NEEDED")
		w.eventually("tried", func() bool { return w.count(`upstream_revocation WHERE tries = 1`) == "1" })
		var waits []byte
		if err := w.db.View(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(`SELECT refresh FROM upstream_revocation`).Scan(&waits) }); err != nil {
			t.Fatal(err)
		}
		for _, tok := range w.tokens {
			if apptest.Find(tok, string(waits)) != "" {
				t.Error("the credential waits in the clear")
			}
		}
		if w.count(revocations) != "0" {
			t.Error("recorded before it is decided")
		}
		stop()
		w.instead(nil)
		w.exec(`UPDATE upstream_revocation SET due_at = 0`)
		stop = w.working((*vault.Vault).Revoke)
		w.eventually("told", func() bool {
			return w.service.Grants("mira") == 0 && w.count(revocations+` AND outcome = 'allowed'`) == "1"
		})
		stop()

		w.connect(person("dana"), "mira", nil)
		w.instead(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) })
		w.remove(person("dana"))
		w.exec(`UPDATE upstream_revocation SET tries = 11`)
		defer w.working((*vault.Vault).Revoke)()
		w.eventually("given up", func() bool {
			return w.count(`upstream_revocation`) == "0" && w.count(revocations+` AND outcome = 'failed'`) == "1"
		})
	})
}

// What it is no use to repeat is recorded at once: a provider without the endpoint, one
// that cannot end such a token, one that is another by now. The configured address counts.
func TestWhatAProviderCannotBeTold(t *testing.T) {
	for why, change := range map[string]func(w *world, p *vault.Provider){
		"no endpoint":   func(w *world, p *vault.Provider) { p.RevokeURL = "" },
		"not supported": func(w *world, p *vault.Provider) { p.RevokeURL = w.url + "/unsupported" },
		"another one":   func(w *world, p *vault.Provider) { p.ClientID, p.RevokeURL = "another", w.url+"/oauth/revoke" },
		"":              func(w *world, p *vault.Provider) { p.RevokeURL = w.url + "/oauth/revoke" },
	} {
		w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
		v := w.nodes[0]
		p := v.Providers["kb"]
		p.AuthorizeURL, p.TokenURL = w.url+"/oauth/authorize", w.url+"/oauth/token"
		v.Providers["kb"] = p
		w.connect(person("dana"), "mira", nil)
		w.remove(person("dana"))
		w.instead(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/unsupported" {
				rw.WriteHeader(http.StatusBadRequest)
				_, _ = rw.Write([]byte(`{"error":"unsupported_token_type"}`))
				return
			}
			w.service.ServeHTTP(rw, r)
		})
		change(w, &p)
		v.Providers["kb"] = p
		stop := w.working((*vault.Vault).Revoke)
		outcome := map[bool]string{true: "allowed", false: "failed"}[why == ""]
		w.eventually(why, func() bool { return w.count(revocations+` AND outcome = '`+outcome+`'`) == "1" })
		stop()
		if w.count(`upstream_revocation`) != "0" || (w.service.Grants("mira") == 0) != (why == "") {
			t.Errorf("%q: left, or told", why)
		}
	}
}

// Attack 73: a credential that is to be revoked goes where the provider said, and no
// further, whatever is answered there.
func TestARevocationFollowsNoRedirect(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	tried, caught := make(chan struct{}, 100), make(chan struct{}, 100)
	w.instead(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/trap" {
			caught <- struct{}{}
		} else if r.URL.Path == "/oauth/revoke" {
			tried <- struct{}{}
			http.Redirect(rw, r, "/trap", http.StatusTemporaryRedirect)
		} else {
			w.service.ServeHTTP(rw, r)
		}
	})
	w.remove(person("dana"))
	defer w.working((*vault.Vault).Revoke)()
	w.eventually("both tokens are tried", func() bool { return len(tried) == 2 })
	if len(caught) != 0 || w.count(`upstream_revocation`) != "1" {
		t.Error("followed, or taken for a yes")
	}
}

// A server that tells nobody anything is asked with the account of a member: not with
// that of somebody who is suspended, although it was connected first.
func TestAnyoneIsAMember(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		_, err := w.nodes[0].Anyone(t.Context(), "kb")
		is(t, err, "CONNECTION_NEEDED")
		w.connect(person("dana"), "mira", nil)
		w.connect(person("erin"), "theo", nil)
		w.exec(`UPDATE upstream_grant SET created_at = 1 WHERE user_id = 'usr_dana'`)
		for _, want := range []string{"usr_dana", "usr_erin"} {
			if p, err := w.nodes[0].Anyone(t.Context(), "kb"); err != nil || p.User != want {
				t.Errorf("%q, not %s: %v", p.User, want, err)
			}
			w.exec(`UPDATE member SET status = 'suspended' WHERE user_id = 'usr_dana'`)
		}
	})
}

// Who is no member any more has no account here: nothing is lent from then on, and what
// was granted is ended, here and at the provider.
func TestWhoIsNoMemberHasNoAccounts(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		w.connect(person("erin"), "theo", nil)
		for _, status := range []string{"suspended", "revoked"} {
			w.exec(`UPDATE member SET status = $1 WHERE user_id = 'usr_dana'`, status)
			_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
			is(t, err, "CONNECTION_NEEDED")
		}
		w.exec(`UPDATE member SET status = 'suspended' WHERE user_id = 'usr_erin'`) // and keeps it
		defer w.working((*vault.Vault).Run)()
		defer w.working((*vault.Vault).Revoke)()
		w.eventually("ended", func() bool { return w.service.Grants("mira") == 0 })
		if w.count(`audit_event WHERE action = 'connection.end'`) != "1" || w.count(`upstream_grant WHERE access IS NOT NULL`) != "1" {
			t.Error("not recorded, or not wiped")
		}
		w.exec(`UPDATE member SET status = 'active' WHERE user_id = 'usr_erin'`)
		w.sees(w.nodes[0], person("erin"), "theo")
	})
}

// What one authorization server granted is never sent where another that took its name
// wants it, nor is its refresh token shown to that one: also on a node that runs since
// before.
func TestAnotherProviderOfTheSameNameGetsNothing(t *testing.T) {
	onEach(t, 2, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		p := w.nodes[1].Providers["kb"]
		p.ClientID = "another"
		w.nodes[1].Providers = map[string]vault.Provider{"kb": p}
		_, _, err := w.get(w.nodes[1], person("dana"), "/api/me")
		is(t, err, "CONNECTION_LOST")
		w.sees(w.nodes[0], person("dana"), "mira")
		if err := w.nodes[1].Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, v := range w.nodes {
			_, _, err := w.get(v, person("dana"), "/api/me")
			is(t, err, "CONNECTION_LOST")
		}
		if w.count(`upstream_grant WHERE access IS NOT NULL OR refresh IS NOT NULL`) != "0" || w.count(`audit_event WHERE action = 'connection.lost'`) != "1" {
			t.Error("not wiped, or not recorded")
		}
		if err := w.nodes[0].Open(t.Context()); err != nil { // once is enough
			t.Fatal(err)
		}
		w.connect(person("dana"), "mira", nil)
		w.sees(w.nodes[0], person("dana"), "mira")
	})
}

// What was granted by a provider that is not configured any more is wiped once nobody
// used it for a month, and not before: a start with the wrong file costs nothing.
func TestAProviderThatIsGoneIsForgotten(t *testing.T) {
	onEach(t, 2, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		w.nodes[1].Providers = nil
		if err := w.nodes[1].Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		sweep := func(v *vault.Vault) {
			if err := w.db.Do(t.Context(), func(tx *store.Tx) error { _, _, err := v.Sweep(tx); return err }); err != nil {
				t.Fatal(err)
			}
		}
		sweep(w.nodes[1])
		w.sees(w.nodes[0], person("dana"), "mira")
		w.exec(`UPDATE upstream_grant SET connected_at = 1, used_at = 1`)
		sweep(w.nodes[0])
		w.sees(w.nodes[0], person("dana"), "mira") // which notes the use
		sweep(w.nodes[1])
		w.sees(w.nodes[0], person("dana"), "mira")
		w.exec(`UPDATE upstream_grant SET used_at = 1`)
		sweep(w.nodes[1])
		_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
		is(t, err, "CONNECTION_LOST")
		if w.count(`upstream_grant WHERE access IS NOT NULL OR refresh IS NOT NULL`) != "0" {
			t.Error("not wiped")
		}
	})
}

// A removal while the provider is asked for a new token: the new one is not kept, and
// ended as well.
func TestARefreshThatComesTooLateIsEnded(t *testing.T) {
	onEach(t, 1, func(t *testing.T, w *world) {
		w.connect(person("dana"), "mira", nil)
		w.exec(`UPDATE upstream_grant SET expires_at = 1`)
		asked, goOn := make(chan struct{}), make(chan struct{})
		w.instead(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/oauth/token" {
				close(asked)
				<-goOn
			}
			w.service.ServeHTTP(rw, r)
		})
		done := make(chan error)
		go func() {
			_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
			done <- err
		}()
		<-asked
		w.remove(person("dana"))
		close(goOn)
		is(t, <-done, "CONNECTION_NEEDED")
		if w.count(`upstream_grant WHERE access IS NOT NULL OR refresh IS NOT NULL`) != "0" || w.count(`upstream_revocation`) != "2" {
			t.Error("what came late is kept, or forgotten")
		}
		defer w.working((*vault.Vault).Revoke)()
		w.eventually("told", func() bool { return w.count(revocations+` AND outcome = 'allowed'`) == "2" })
		if w.service.Grants("mira") != 0 {
			t.Error("the provider honours it")
		}
	})
}

// A provider that is slow to fail is asked once for all who wait on a node.
func TestASlowFailureIsShared(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	w.exec(`UPDATE upstream_grant SET expires_at = 1`)
	asked := make(chan struct{}, 100)
	w.instead(func(rw http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		time.Sleep(200 * time.Millisecond)
		rw.WriteHeader(http.StatusBadGateway)
	})
	apptest.Together(32, func(int) bool {
		_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
		is(t, err, "PROVIDER_FAILED")
		return true
	})
	if len(asked) > 4 { // who came after the first was refused asks again
		t.Errorf("asked %d times", len(asked))
	}
}

// What a provider answers is judged before it is kept: as a new connection and as a
// refresh. What was there before stays.
func TestLyingTokenResponsesAreRefused(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	v := w.nodes[0]
	w.connect(person("dana"), "mira", nil)
	honest := func() map[string]any {
		return map[string]any{"access_token": "qa-access-x", "token_type": "Bearer", "refresh_token": "qa-refresh-x", "expires_in": 600, "scope": "read_posts write_posts"}
	}
	for why, change := range map[string]func(map[string]any){
		"no token":         func(m map[string]any) { delete(m, "access_token") },
		"another type":     func(m map[string]any) { m["token_type"] = "mac" },
		"bound to a key":   func(m map[string]any) { m["token_type"] = "DPoP" },
		"huge":             func(m map[string]any) { m["access_token"] = strings.Repeat("a", 17<<10) },
		"a huge refresh":   func(m map[string]any) { m["refresh_token"] = strings.Repeat("a", 17<<10) },
		"a header in it":   func(m map[string]any) { m["access_token"] = "a\r\nX-Evil: b" },
		"a blank in it":    func(m map[string]any) { m["access_token"] = "a b" },
		"scopes in a list": func(m map[string]any) { m["scope"] = []string{"read_posts"} },
		"huge scopes":      func(m map[string]any) { m["scope"] = strings.Repeat("a ", 4<<10) },
		"scopes of no use": func(m map[string]any) { m["scope"] = "a\x00b" },
	} {
		query, bound := w.answered(person("dana"), "theo", nil)
		w.instead(func(rw http.ResponseWriter, r *http.Request) {
			said := honest()
			change(said)
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(said)
		})
		a, err := v.Arrive(t.Context(), person("dana"), "kb", query, "req_x", bound)
		if err != nil {
			t.Fatal(err)
		}
		is(t, a.Err, "PROVIDER_FAILED")
		if a.Err != nil && strings.Contains(a.Err.Error(), "qa-") {
			t.Errorf("%s: the error holds a token: %v", why, a.Err)
		}
		w.exec(`UPDATE upstream_grant SET expires_at = 1`)
		_, _, err = w.get(v, person("dana"), "/api/me")
		is(t, err, "PROVIDER_FAILED")
		w.instead(nil)
		w.exec(`UPDATE upstream_grant SET expires_at = NULL`)
		w.sees(v, person("dana"), "mira")
	}
}

// R556: scopes are told apart as RFC 6749 has them, and with commas, as some providers
// do; fewer than before are fewer from then on.
func TestScopesOfARefreshCount(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	for said, want := range map[string]string{"read_posts,write_posts": "read_posts write_posts", "read_posts": "read_posts", "": ""} {
		w.instead(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(map[string]any{"access_token": "a", "token_type": "bearer", "scope": said})
		})
		w.exec(`UPDATE upstream_grant SET expires_at = 1`)
		_, _, _ = w.get(w.nodes[0], person("dana"), "/api/me") // which refreshes
		if got := w.text(`SELECT scopes FROM upstream_grant`); got != want {
			t.Errorf("%q is %q", said, got)
		}
	}
}

// An error code of a provider is told in the log if it is one, and nothing else of it.
func TestWhatAProviderSaysIsNotRepeated(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	w.exec(`UPDATE upstream_grant SET expires_at = 1`)
	for said, repeated := range map[string]bool{"invalid_client": true, w.tokens[1]: false, "a\nb": false} {
		w.instead(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(rw).Encode(map[string]string{"error": said, "error_description": w.tokens[1]})
		})
		_, _, err := w.get(w.nodes[0], person("dana"), "/api/me")
		is(t, err, "PROVIDER_FAILED")
		if text := err.Error(); strings.Contains(text, said) != repeated || strings.Contains(text, w.tokens[1]) {
			t.Errorf("%q: %s", said, text)
		}
	}
}

// A handle leads its own person to the account, and is looked at when a call takes the
// connection as well, not only when the connection was made.
func TestTheHandleIsLookedAtForEachCall(t *testing.T) {
	w := furnish(t, storetest.Open(t, storetest.SQLite(t)), 1)
	w.connect(person("dana"), "mira", nil)
	p := person("dana")
	p.Workspace, p.Family, p.Handle = identity.Workspace, "fam_1", "made up"
	_, err := w.nodes[0].Account(t.Context(), p, "kb")
	is(t, err, "CONNECTION_NEEDED")
	if _, err := w.nodes[0].Account(t.Context(), person("dana"), "kb"); err != nil {
		t.Error(err)
	}
}
