package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// How long keys are believed, and how often they are asked for.
const (
	fresh   = 15 * time.Minute // then they are fetched again
	stale   = 24 * time.Hour   // so long they are good while nobody answers
	pause   = 30 * time.Second // between two fetches for keys that were not there, or that failed
	timeout = 5 * time.Second
)

// Source is where an issuer that the operator trusts publishes its keys (R518). It
// is safe for concurrent use.
type Source struct {
	Fetch func(ctx context.Context) ([]byte, error) // the document; the context ends after a few seconds

	turn sync.Mutex // of whoever fetches

	mu      sync.Mutex
	set     Set
	fetched time.Time // when set was
	tried   time.Time
	failure error // of the last try
}

// At is a Source at an address that the operator chose.
func At(url string) *Source {
	hc := &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Source{Fetch: func(ctx context.Context) ([]byte, error) { return fetch(ctx, hc, url) }}
}

func fetch(ctx context.Context, hc *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := hc.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxBytes+1))
	if err == nil && len(body) > MaxBytes {
		err = errors.New("the document is too long")
	}
	return body, err
}

// For are the keys with which to verify a JWT. Where its key is not among those
// that are known, they are fetched anew, but not again within half a minute,
// whatever ids strangers make up; who has a key that is known never waits for
// another's fetch. What was fetched stays good for a day while the issuer does not
// answer. An error means that there are no keys.
func (s *Source) For(ctx context.Context, j JWT) (Set, error) {
	set, there, due, _ := s.look(j)
	switch {
	case there && !due:
		return set, nil
	case !there:
		s.turn.Lock()
	case !s.turn.TryLock():
		return set, nil
	}
	defer s.turn.Unlock()
	set, _, due, err := s.look(j)
	if due {
		s.refresh(ctx)
		set, _, _, err = s.look(j)
	}
	return set, err
}

// look says what is known, whether the key of the JWT is there, and whether to
// fetch now.
func (s *Source) look(j JWT) (set Set, there, due bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	age := now.Sub(s.fetched)
	if age > stale {
		err = fmt.Errorf("the keys of the issuer cannot be had: %w", s.failure)
	} else {
		set = s.set
	}
	there = set.has(j.kid) || j.kid == "" && !set.Empty()
	return set, there, (!there || age >= fresh) && now.Sub(s.tried) >= pause, err
}

// refresh fetches the keys, also when the caller is gone: others wait for them.
func (s *Source) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	s.mu.Lock()
	s.tried = time.Now()
	s.mu.Unlock()
	document, err := s.Fetch(ctx)
	var set Set
	if err == nil {
		set, err = Parse(document)
	}
	if err == nil && set.Empty() {
		err = errors.New("there is no key in it that could verify anything")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure = err; err == nil {
		s.set, s.fetched = set, time.Now()
	}
}
