package jwks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// issuer is a source whose keys and whose health change.
type issuer struct {
	Source
	fetches  atomic.Int64
	document []byte
	err      error
	wait     func() // of a fetch
}

func newIssuer(keys ...any) *issuer {
	i := &issuer{document: document(keys...), wait: func() {}}
	i.Fetch = func(context.Context) ([]byte, error) {
		i.fetches.Add(1)
		i.wait()
		return i.document, i.err
	}
	return i
}

func (i *issuer) knows(t *testing.T, raw string) bool {
	t.Helper()
	j, err := Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	set, err := i.For(t.Context(), j)
	if err != nil {
		return false
	}
	_, err = j.Verify(set)
	return err == nil
}

// R518: keys are kept, fetched anew for one that is not among them, and strangers
// who make up ids cause no more than one fetch in half a minute.
func TestKeysAreFetchedAnewWhereOneIsUnknown(t *testing.T) {
	old, next := pairs(t)["ES256"], pairs(t)["EdDSA"]
	first, second, made := old.sign(t, `{}`), next.sign(t, `{}`), pair{old.alg, old.private, "made-up"}.sign(t, `{}`)
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(old.public())
		for range 3 {
			if !i.knows(t, first) {
				t.Fatal("a good one is refused")
			}
		}
		if n := i.fetches.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		time.Sleep(pause)
		i.document = document(old.public(), next.public())
		if !i.knows(t, second) || i.fetches.Load() != 2 {
			t.Error("a new key is not found")
		}
		for range 100 {
			if i.knows(t, made) {
				t.Fatal("an id that was made up is good")
			}
		}
		if n := i.fetches.Load(); n != 2 {
			t.Errorf("made-up ids caused %d fetches", n-2)
		}
		time.Sleep(pause)
		i.knows(t, made)
		i.document = document(next.public())
		time.Sleep(fresh)
		if i.knows(t, second); i.knows(t, first) || i.fetches.Load() != 4 {
			t.Errorf("a key that was withdrawn is good, after %d fetches", i.fetches.Load())
		}
	})
}

func TestKeysOutliveAFailureForADay(t *testing.T) {
	p := pairs(t)["ES256"]
	raw := p.sign(t, `{}`)
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(p.public())
		i.knows(t, raw)
		i.err = errors.New("down")
		time.Sleep(23 * time.Hour)
		if !i.knows(t, raw) {
			t.Error("keys are lost while the issuer is down")
		}
		i.err, i.document = nil, []byte(`{"keys":[]}`)
		time.Sleep(30 * time.Minute)
		if !i.knows(t, raw) {
			t.Error("an empty document takes keys away at once")
		}
		time.Sleep(time.Hour)
		if i.knows(t, raw) {
			t.Error("keys of yesterday are good")
		}
	})
}

// Who needs keys at the same time shares a fetch, and who has one that is known
// does not wait for it.
func TestAFetchIsShared(t *testing.T) {
	p := pairs(t)["ES256"]
	good, made := p.sign(t, `{}`), pair{p.alg, p.private, "made-up"}.sign(t, `{}`)
	i := newIssuer(p.public())
	begun, end := make(chan bool, 2), make(chan bool)
	i.wait = func() { begun <- true; <-end }
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if !i.knows(t, good) {
				t.Error("a good one is refused")
			}
		})
	}
	<-begun
	end <- true
	all.Wait()
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	i.tried = i.tried.Add(-pause)
	all.Go(func() { i.knows(t, made) })
	<-begun
	if !i.knows(t, good) { // while another's fetch is under way, which does not end before
		t.Error("a good one is refused")
	}
	end <- true
	all.Wait()
}

// What a rude issuer answers is no key set, within a bound of size and time.
func TestRudeIssuers(t *testing.T) {
	p := pairs(t)["ES256"]
	raw := p.sign(t, `{}`)
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a redirect is followed")
	}))
	defer trap.Close()
	for what, answer := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, trap.URL, http.StatusFound) },
		"an error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a page":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no end":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", 10*MaxBytes)) },
		"half of it": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"keys":[`)
		},
	} {
		server := httptest.NewServer(answer)
		i := &issuer{}
		i.Fetch = At(server.URL).Fetch
		if i.knows(t, raw) {
			t.Errorf("%s is a key set", what)
		}
		server.Close()
		if i.knows(t, raw) {
			t.Errorf("%s: nobody answers", what)
		}
	}
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document(p.public())) }))
	defer good.Close()
	i := &issuer{}
	if i.Fetch = At(good.URL).Fetch; !i.knows(t, raw) {
		t.Error("a good issuer is refused")
	}
}
