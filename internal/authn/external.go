package authn

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// External are the authorization servers whose tokens are accepted instead of our
// own (R517). A token's subject is a member by issuer and subject, made at first
// sight with the least rank; what the token says of groups may raise it.
type External struct {
	Issuers   []*issuer.Issuer
	Audiences []string             // good at every endpoint, beside the endpoint's own address
	RankClaim string               // claim with the person's groups or roles, with a dot between levels
	Admins    []string             // values of it that make an admin
	Standards []string             // values of it that make a standard member
	Opaque    *issuer.Introspector // asked about tokens that are no JWT; nil: those are refused
}

// external checks a token of another authorization server.
func (a *Authn) external(ctx context.Context, raw string) (verified, error) {
	c, err := a.External.claims(ctx, raw)
	if err != nil {
		return verified{}, refuseExternal(err)
	}
	if err := c.judge(time.Now()); err != nil {
		return verified{}, refuse(err)
	}
	m, err := a.externalMember(ctx, c.Issuer, c.Subject)
	if err != nil {
		return verified{}, err
	}
	v := verified{principal: m.Principal(), audiences: c.Audience}
	sum := sha256.Sum256([]byte(raw))
	v.claims = token.Claims{ID: "ext_" + hex.EncodeToString(sum[:16]), Client: c.client(), Confirm: c.confirm()}
	v.principal.Rank = a.External.rank(c)
	v.principal.Client, v.principal.Token = v.claims.Client, v.claims.ID
	v.principal.Expires = time.Unix(c.Expires, 0)
	v.principal.Scopes = c.scopes()
	v.anywhere = slices.ContainsFunc(c.Audience, func(aud string) bool { return slices.Contains(a.External.Audiences, aud) })
	return v, nil
}

// refuseExternal tells what is wrong with a token from an issuer that cannot be
// reached.
func refuseExternal(err error) error {
	var why issuer.ErrToken
	if errors.As(err, &why) {
		return refuse(token.ErrToken(why))
	}
	return err
}

// claims are those of a token, as its issuer says or has signed.
func (e *External) claims(ctx context.Context, raw string) (externalClaims, error) {
	j, err := jwks.Read(raw)
	if err != nil && e.Opaque != nil {
		c, err := e.Opaque.Ask(ctx, raw)
		return externalClaims{c}, err
	}
	if err != nil {
		return externalClaims{}, issuer.ErrToken(err.Error())
	}
	i := slices.IndexFunc(e.Issuers, func(i *issuer.Issuer) bool { return i.URL == j.Issuer })
	if i < 0 {
		return externalClaims{}, issuer.ErrToken("it comes from no issuer that is trusted here")
	}
	c, err := e.Issuers[i].Verify(ctx, j, "at+jwt", "jwt", "")
	return externalClaims{c}, err
}

// externalClaims are those of a token of another issuer.
type externalClaims struct{ jwks.Claims }

// judge refuses what is no access token, or not good now. Many issuers give their
// access tokens no type of their own, so an ID token is told by what only it has
// (OpenID Connect Core §2; attack 77).
func (c externalClaims) judge(now time.Time) error {
	typ := c.text("typ")
	switch {
	case c.All["nonce"] != nil || c.All["at_hash"] != nil || c.All["events"] != nil || typ != "" && !strings.EqualFold(typ, "Bearer"):
		return token.ErrToken("it is no access token")
	case c.Subject == "" || len(c.Subject) > 255:
		return token.ErrToken("it names no subject")
	case len(c.Audience) == 0:
		return token.ErrToken("it names no audience")
	}
	if err := c.Judge(now, externalLife); err != nil {
		return token.ErrToken(err.Error())
	}
	return nil
}

// externalLife is how long a token of another issuer may live: longer ones are
// no access tokens, and nobody here could take them back.
const externalLife = 24 * time.Hour

// text is a claim that is text; anything else is none.
func (c externalClaims) text(name string) string {
	text, _ := c.All[name].(string)
	return text
}

func (c externalClaims) client() string {
	return cmp.Or(c.text("client_id"), c.text("azp"), "unnamed") // nobody acts directly with a token
}

// confirm is the key to which the token is bound, if it is; none that anybody has
// where that is said in another way than by a thumbprint (RFC 7800 §3).
func (c externalClaims) confirm() *oauth.Confirmation {
	if c.All["cnf"] == nil {
		return nil
	}
	cnf, _ := c.All["cnf"].(map[string]any)
	key, _ := cnf["jkt"].(string)
	return &oauth.Confirmation{Key: key}
}

// scopes are those of RFC 9068, and as some issuers spell them.
func (c externalClaims) scopes() []string {
	return strings.Fields(strings.Join(append(words(c.All["scope"]), words(c.All["scp"])...), " "))
}

// words are the texts of a claim that is text or a list of texts.
func words(claim any) (words []string) {
	switch v := claim.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			if text, is := e.(string); is {
				words = append(words, text)
			}
		}
	}
	return words
}

// rank is what the token's groups make of its subject, at least Readonly.
func (e *External) rank(c externalClaims) principal.Rank {
	groups := words(at(c.All, e.RankClaim))
	among := func(these []string) bool {
		return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(these, g) })
	}
	switch {
	case among(e.Admins):
		return principal.Admin
	case among(e.Standards):
		return principal.Standard
	}
	return principal.Readonly
}

// at is a claim by its whole name, or else by its levels.
func at(claims map[string]any, path string) any {
	if value, whole := claims[path]; whole {
		return value
	}
	name, rest, deeper := strings.Cut(path, ".")
	level, _ := claims[name].(map[string]any)
	if !deeper || level == nil {
		return nil
	}
	return at(level, rest)
}

// externalMember is who the subject of another issuer is here; at first sight a
// new member.
func (a *Authn) externalMember(ctx context.Context, from, subject string) (m identity.Member, err error) {
	for range 2 { // another request may have been first
		var user string
		err = a.DB.View(ctx, func(tx *store.Tx) (err error) {
			user, err = a.People.ExternalID(tx, from, subject)
			return err
		})
		if err == nil && user == "" {
			user, err = a.addExternal(ctx, from, subject)
		}
		if !errors.Is(err, identity.ErrFirst) {
			if err != nil {
				return m, err
			}
			return a.activeMember(ctx, user)
		}
	}
	return m, err
}

func (a *Authn) addExternal(ctx context.Context, from, subject string) (user string, err error) {
	err = a.DB.Do(ctx, func(tx *store.Tx) (err error) {
		if user, err = a.People.AddExternal(tx, from, subject); err != nil {
			return err
		}
		a.Audit.Append(tx, audit.Event{
			Workspace: identity.Workspace, Actor: "member:" + user, Action: "member.add", Target: user,
			Outcome: audit.Allowed, Door: "oauth", Detail: map[string]string{"issuer": from, "subject": subject},
		})
		return nil
	})
	return user, err
}

func (a *Authn) activeMember(ctx context.Context, user string) (m identity.Member, err error) {
	var found bool
	err = a.DB.View(ctx, func(tx *store.Tx) (err error) {
		m, found, err = a.People.Member(tx, identity.Workspace, user)
		return err
	})
	if err == nil && !found {
		err = refuse(token.ErrToken("the subject is no member"))
	}
	return m, err
}
