package authserver

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// What is counted of those who are not known: each of these makes a row, or is a
// guess.
const (
	Authorizations throttle.Group = "authorize"   // begun: at the authorization endpoint, pushed, for a device
	Registrations  throttle.Group = "register"    // of apps that register themselves; their changes, and documents that are fetched, each by themselves
	Guesses        throttle.Group = "typed_codes" // codes of devices, right or wrong
	Failures       throttle.Group = "failures"    // at the endpoints for programs
)

// mayBegin counts an authorization that begins. Where strangers have used up what there
// is, whoever is known goes on, and is counted by themselves: a person who is signed
// in, and an app that somebody has allowed (attack 57, libraries.md §4).
func (s *Server) mayBegin(r *http.Request, b authn.Browser, client string) error {
	address := throttle.Address(r.RemoteAddr)
	full := s.Throttle.Take(Authorizations, address)
	if full == nil {
		return nil
	}
	if b.SignedIn() {
		return s.Throttle.Take(Authorizations+"/person", b.Member.ID)
	}
	return s.unlessAllowed(r.Context(), address, client, full)
}

// mayRegister counts a registration. Where a token of the operator is needed, those who
// have none are counted by themselves, and take nothing from those who do.
func (s *Server) mayRegister(r *http.Request, mode string) error {
	group := Registrations
	if mode == RegistrationToken {
		err := s.DB.View(r.Context(), func(tx *store.Tx) error {
			_, err := shownAdmission(tx, r)
			return err
		})
		if _, stranger := errors.AsType[*oauth.Error](err); stranger {
			group += "/stranger"
		} else if err != nil {
			return err
		}
	}
	return s.Throttle.Take(group, throttle.Address(r.RemoteAddr))
}

// mayFetch counts a document that is fetched on account of an address. One that was
// not known makes a row, like a registration (attacks 57, 104).
func (s *Server) mayFetch(ctx context.Context, address, client string) error {
	full := s.Throttle.Take(Registrations+"/document", address)
	if full == nil {
		return nil
	}
	return s.unlessAllowed(ctx, address, client, full)
}

// unlessAllowed is full, except for an app that somebody has allowed, which is counted
// by itself.
func (s *Server) unlessAllowed(ctx context.Context, address, client string, full error) error {
	allowed, err := s.somebodyAllows(ctx, client)
	if err != nil || !allowed {
		return cmp.Or(err, full)
	}
	return s.Throttle.Take(Authorizations+"/app", address+" "+client)
}

// somebodyAllows reports whether an app has a consent of anybody.
func (s *Server) somebodyAllows(ctx context.Context, client string) (allowed bool, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM consent WHERE client = $1 AND ended_at IS NULL)`, client).Scan(&allowed)
	})
	return allowed, err
}

// failed counts a request that an endpoint for programs refused, and is what to answer
// in its place where there were too many from this address. What does not fail is
// answered all the same: who shares the address with an attacker, as the users of a
// hosted client do, goes on (R418). A device that asks too early is told so, and
// whoever waits for a person, or has to send a proof again with a nonce, has not
// failed.
func (s *Server) failed(r *http.Request, e *oauth.Error) error {
	waits := slices.Contains([]string{oauth.AuthorizationPending, oauth.SlowDown, oauth.UseNonce}, e.Code)
	if waits || e.Status >= http.StatusInternalServerError || e.Status == http.StatusTooManyRequests {
		return nil
	}
	return s.Throttle.Take(Failures, throttle.Address(r.RemoteAddr))
}
