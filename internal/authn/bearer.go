package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// Codes are the problems of this package.
var Codes = []problem.Code{TokenMissing, TokenInvalid, ProofMissing, ProofInvalid, NonceNeeded, LinkUsed, SetupRefused, FormForeign, formUnreadable}

// Codes of refused bearer tokens.
var (
	TokenMissing = problem.Code{
		Name: "TOKEN_MISSING", Kind: problem.Unauthenticated,
		Why: "the request carries no access token",
		Fix: "sign in: the WWW-Authenticate header says where to begin",
	}
	TokenInvalid = problem.Code{
		Name: "TOKEN_INVALID", Kind: problem.Unauthenticated,
		Why: "it is expired, revoked, made for another server, or not one of ours",
		Fix: "refresh it, or sign in again",
	}
)

// Bearer says who calls, by the Authorization header (R501–R506), and uses up the
// proof that comes with it: call it once for a request. Without one the caller is
// anonymous. A token is good only at the resource it was made for. The error is a
// TokenInvalid, or one about a proof, whose cause, for the log, says what was wrong,
// or a problem of ours.
func (a *Authn) Bearer(r *http.Request, resource string) (principal.Principal, error) {
	p, err := a.bearer(r, r.Header.Values("Authorization"), resource)
	a.note(request.Of(r.Context()), p, err, r.RemoteAddr)
	return p, err
}

// note puts into the record who calls, or why nobody does, which is counted.
func (a *Authn) note(record *request.Record, p principal.Principal, err error, remote string) {
	record.Principal, record.Client, record.Token = named(p), p.Client, p.Token
	if e := problem.From(err); err != nil && e.Kind == problem.Unauthenticated && e.Cause != nil {
		record.Why = e.Cause.Error()
		a.Refused(remote, "bearer token refused: "+e.Cause.Error())
	}
}

// Refused counts a request that was refused before anybody knew who sent it, from a
// remote address, or "" where there is none.
func (a *Authn) Refused(remote, why string) {
	a.Audit.Stranger(audit.Denied, why, audit.Prefix(remote))
}

// named is the principal in the log; a stranger has no name.
func named(p principal.Principal) string {
	if p.Kind == principal.Anonymous {
		return ""
	}
	return p.Name()
}

func (a *Authn) bearer(r *http.Request, values []string, resource string) (principal.Principal, error) {
	if len(values) == 0 {
		return principal.Principal{}, nil
	}
	scheme, raw, ok := strings.Cut(values[0], " ")
	if len(values) > 1 || !ok || !slices.Contains([]string{"bearer", "dpop"}, strings.ToLower(scheme)) || raw == "" || strings.ContainsAny(raw, " ,\t") {
		return principal.Principal{}, refuse(token.ErrToken("the header is not one bearer token"))
	}
	v, err := a.judge(r.Context(), raw, resource)
	if err != nil {
		return principal.Principal{}, err
	}
	if err := a.proved(r, v.claims, scheme, raw); err != nil {
		return principal.Principal{}, err
	}
	return v.caller(resource), nil
}

// Token says who calls with an access token that came in another way than with a
// request over HTTP, and is good at the resource. key is the thumbprint of a key that
// the caller is known to hold, or empty: a token that is bound to another is refused,
// because nothing proves it here (RFC 9449). The error is as with Bearer; record may
// be that of the message.
func (a *Authn) Token(ctx context.Context, raw, key, resource string, record *request.Record) (principal.Principal, error) {
	v, err := a.judge(ctx, raw, resource)
	if bound, is := v.claims.BoundTo(); err == nil && is && (key == "" || bound != key) {
		err = ProofMissing.New("the access token comes without a proof").WithFix("use a token that is bound to no key, or sign in on this computer").
			Because(token.ErrProof("the token is bound to a key that was not shown"))
	}
	p := v.caller(resource)
	if err != nil {
		p = principal.Principal{}
	}
	a.note(record, p, err, "")
	return p, err
}

// judge finds out whose the token is, and whether it is good at the resource now.
// Whether its bearer may use it is not asked.
func (a *Authn) judge(ctx context.Context, raw, resource string) (verified, error) {
	now := time.Now()
	key := sha256.Sum256([]byte(raw))
	v, hit := a.verified.get(key, now)
	if hit {
		if err := a.Tokens.Live(v.claims.IDs()...); err != nil {
			return verified{}, refuse(err)
		}
	}
	if !hit {
		var err error
		if v, err = a.verify(ctx, raw); err != nil {
			return verified{}, err
		}
		a.verified.put(key, v, now)
	}
	if !v.good(resource) {
		return verified{}, refuse(token.ErrToken("the token was made for another resource"))
	}
	return v, nil
}

// caller is who calls with the token at the resource.
func (v verified) caller(resource string) principal.Principal {
	p := v.principal
	p.Audience = resource
	return p
}

// refuse is for what is wrong with the token. What is not the token's fault
// stays what it is, so that no client signs itself out for it.
func refuse(cause error) error {
	if problem.Is(cause, token.Unknown) {
		return cause
	}
	return TokenInvalid.New("the access token is not accepted").Because(cause)
}

// unlessOurs refuses for what is wrong with the token, and for nothing else.
func unlessOurs(err error) error {
	if why, bad := errors.AsType[token.ErrToken](err); bad {
		return refuse(why)
	}
	return err
}

// verify checks the token itself and that its subject is still active.
func (a *Authn) verify(ctx context.Context, raw string) (verified, error) {
	if a.External != nil {
		return a.external(ctx, raw)
	}
	var v verified
	if !token.IsOpaque(raw) {
		c, err := a.Tokens.Verify(raw)
		if err != nil {
			return verified{}, refuse(err)
		}
		v.claims = c
	}
	err := a.DB.View(ctx, func(tx *store.Tx) (err error) {
		if token.IsOpaque(raw) {
			if v.claims, err = a.Tokens.VerifyOpaque(tx, raw); err != nil {
				return unlessOurs(err)
			}
		}
		v.principal, err = a.Subject(tx, v.claims.Workspace, v.claims.Subject)
		return err
	})
	c := v.claims
	v.principal.Client = c.Client
	v.principal.Token = c.ID
	v.principal.Family = c.Family
	v.principal.Key = c.Key
	v.principal.Handle = c.Handle
	v.principal.Expires = time.Unix(c.Expires, 0)
	v.principal.Scopes = strings.Fields(c.Scope)
	return v, err
}

// Subject is who a token is about, as that stands now. The error is a TokenInvalid
// if that one may do nothing any more.
func (a *Authn) Subject(tx *store.Tx, workspace, id string) (principal.Principal, error) {
	if principal.KindOf(id) == principal.ServiceAccount {
		s, found, err := a.People.ServiceAccount(tx, workspace, id)
		if err == nil && !found {
			err = refuse(token.ErrToken("the service account is not active"))
		}
		return s.Principal(), err
	}
	m, found, err := a.People.Member(tx, workspace, id)
	if err == nil && !found {
		err = refuse(token.ErrToken("the subject is no member"))
	}
	return m.Principal(), err
}

// verified is a token that was found good.
type verified struct {
	principal principal.Principal
	claims    token.Claims
	audiences []string  // of another issuer's
	anywhere  bool      // good at every endpoint: another issuer's, for an audience that stands for all
	until     time.Time // when it is looked at again
}

// good reports whether the token was made for this resource (R505).
func (v verified) good(resource string) bool {
	return resource != "" && (v.anywhere || v.claims.For(resource) || slices.ContainsFunc(v.audiences, func(aud string) bool { return oauth.SameResource(aud, resource) }))
}

// cacheLife is how long a verified token is believed without asking again who
// its subject is; cacheSize bounds the memory.
const (
	cacheLife = time.Minute
	cacheSize = 10_000
)

// cache remembers verified tokens by their hash. What is revoked is asked at
// every use, not remembered here.
type cache struct {
	mu sync.RWMutex
	m  map[[sha256.Size]byte]verified
}

func (c *cache) get(key [sha256.Size]byte, now time.Time) (verified, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.m[key]
	return v, ok && now.Before(v.until)
}

func (c *cache) put(key [sha256.Size]byte, v verified, now time.Time) {
	v.until = now.Add(cacheLife)
	if v.principal.Expires.Before(v.until) {
		v.until = v.principal.Expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= cacheSize {
		c.m = map[[sha256.Size]byte]verified{}
	}
	c.m[key] = v
}
