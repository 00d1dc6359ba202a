package authserver

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// jagType is the type of an assertion about a person (Identity Assertion JWT
// Authorization Grant, ID-JAG §3).
const jagType = "oauth-id-jag+jwt"

// How long what others signed may live. An assertion about a person is for one use;
// platforms give a workload a token for hours, which it shows again and again.
const (
	jagLife      = 10 * time.Minute
	workloadLife = 24 * time.Hour
)

// brought is what somebody else signed and a client brings: verified, for us, and
// good now.
type brought struct {
	jwks.Claims
	kind    string
	trusted []Trusted // that name its issuer, for this kind
}

// badAssertion is the one answer to every assertion that is not good; why it is not
// goes to the record (RFC 7523 §3.1).
func badAssertion(why string) *oauth.Error {
	return oauth.Errorf(oauth.InvalidGrant, "the assertion is not good").Because(why)
}

// bring reads and verifies the assertion of the JWT bearer grant (RFC 7523 §3, attack
// 123); nil for other grants. It may have to fetch keys, so it comes before any
// transaction.
func (s *Server) bring(ctx context.Context, form url.Values) (*brought, error) {
	if form.Get("grant_type") != grantBearer || len(s.Trusted()) == 0 {
		return nil, nil
	}
	signed, err := jwks.Read(form.Get("assertion"))
	if err != nil {
		return nil, badAssertion("it cannot be read: " + err.Error())
	}
	b := &brought{kind: TrustWorkloads}
	types, life := []string{"", "jwt"}, workloadLife
	if signed.Type == jagType {
		b.kind, types, life = TrustPeople, []string{jagType}, jagLife
	}
	for _, t := range s.Trusted() {
		if t.Kind == b.kind && t.Issuer.URL == signed.Issuer {
			b.trusted = append(b.trusted, t)
		}
	}
	if len(b.trusted) == 0 {
		return nil, badAssertion("its issuer is not trusted, or not with this type")
	}
	b.Claims, err = b.trusted[0].Issuer.Verify(ctx, signed, types...)
	if why, bad := errors.AsType[issuer.ErrToken](err); bad {
		return nil, badAssertion(string(why))
	}
	if err != nil {
		return nil, err
	}
	if err := b.Judge(time.Now(), life); err != nil {
		return nil, badAssertion(err.Error())
	}
	return b, nil
}

// workload is the service account of a program that brings its platform's word and
// nothing else: that is how it proves itself. found is false for everybody else.
func (s *Server) workload(tx *store.Tx, p presented) (c Client, found bool, err error) {
	if p.brought == nil || p.brought.kind != TrustWorkloads || p.id != "" || p.secret != "" || p.signed != nil {
		return Client{}, false, nil
	}
	a, err := s.accountOf(tx, *p.brought)
	if err != nil {
		return Client{}, true, err
	}
	c, found, err = s.client(tx, a.ID)
	if err == nil && !found {
		err = badAssertion("its service account is not active")
	}
	return c, true, err
}

// accountOf is the service account that a workload is. Where several rules fit, all
// must mean the same one.
func (s *Server) accountOf(tx *store.Tx, b brought) (a identity.ServiceAccount, err error) {
	name := ""
	for _, t := range b.trusted {
		audience := t.Audience
		if audience == "" {
			audience = s.Issuer
		}
		switch {
		case !t.is(b.Claims) || !b.Only(audience):
		case name != "" && name != t.Account:
			return a, badAssertion("it fits several service accounts")
		default:
			name = t.Account
		}
	}
	if name == "" {
		return a, badAssertion("its subject, claims or audience fit no service account")
	}
	a, found, err := s.People.ServiceByName(tx, identity.Workspace, name)
	if err == nil && !found {
		err = badAssertion("its service account is not there")
	}
	return a, err
}

// redeemBearer is the JWT bearer grant.
func (s *Server) redeemBearer(tx *store.Tx, c Client, form url.Values) (issue, error) {
	b := c.brought
	switch {
	case b == nil:
		return issue{}, badAssertion("there is none")
	case b.kind == TrustPeople:
		return s.redeemPerson(tx, c, *b, form)
	}
	a, err := s.accountOf(tx, *b)
	if err != nil {
		return issue{}, err
	}
	if c.service == nil || c.service.ID != a.ID {
		return issue{}, badAssertion("it is about another service account than the client")
	}
	return s.issueTo(tx, a, c.key, form)
}

// mayBring reports whether a client may use the grant although it did not register
// for it: the operator named it.
func (s *Server) mayBring(c Client) bool {
	return c.brought != nil && slices.ContainsFunc(c.brought.trusted, func(t Trusted) bool { return slices.Contains(t.Clients, c.ID) })
}

// redeemPerson issues to a member for whom an identity provider lets the client act
// (enterprise-managed authorization). The person is not asked here, so there is
// nothing to refresh with: the provider is asked again instead.
func (s *Server) redeemPerson(tx *store.Tx, c Client, b brought, form url.Values) (issue, error) {
	if err := s.judgePerson(c, b); err != nil {
		return issue{}, err
	}
	at, err := s.named(b, form["resource"])
	if err != nil {
		return issue{}, err
	}
	scopes, err := s.allowed(b, at, form.Get("scope"))
	if err != nil {
		return issue{}, err
	}
	m, err := s.memberOf(tx, b)
	if err != nil {
		return issue{}, err
	}
	first, err := spend(tx, b.Claims)
	if err == nil && !first {
		err = badAssertion("it was used before")
	}
	if err != nil {
		return issue{}, err
	}
	if there, err := holdClient(tx, c.ID); err != nil || !there {
		return issue{}, cmp.Or(err, error(badClient("it was just blocked or removed")))
	}
	made := issue{vouched: true, family: token.Family{
		ID: token.NewFamilyID(), Workspace: m.Workspace, User: m.ID, Client: c.ID, Scopes: scopes, Resource: at.URL,
		Ends: tx.Now + token.AccessLife.Microseconds(),
	}}
	made.family = c.bind(made.family)
	made.pair, err = s.Tokens.Start(tx, made.family)
	return made, err
}

// judgePerson asks for an assertion that is for us alone, names this client, and can
// be used once; and for a client that may bring it.
func (s *Server) judgePerson(c Client, b brought) error {
	id, _ := b.All["client_id"].(string)
	switch {
	case c.AuthMethod == authNone && !s.mayBring(c):
		return oauth.Errorf(oauth.UnauthorizedClient, "a public client needs the operator's permission for this grant")
	case !b.Only(s.Issuer):
		return badAssertion("its audience is not this issuer alone")
	case id != c.ID:
		return badAssertion("it names another client")
	case b.Subject == "" || b.ID == "" || b.Issued == 0:
		return badAssertion("it has no subject, id or time of issue")
	}
	return nil
}

// named is the endpoint that the assertion is for. What the client says besides must
// be the same.
func (s *Server) named(b brought, asked []string) (tool.Audience, error) {
	claim, there := b.All["resource"]
	if list, isList := claim.([]any); isList && len(list) == 1 {
		claim = list[0]
	}
	resource, isText := claim.(string)
	switch {
	case there && !isText:
		return tool.Audience{}, badAssertion("its resource is not one text")
	case !there:
		at, found := s.audience(asked)
		if !found {
			return at, oauth.Errorf(oauth.InvalidTarget, "there is no such resource here, or more than one is named")
		}
		return at, nil
	}
	at, found := s.audience([]string{resource})
	if !found {
		return at, oauth.Errorf(oauth.InvalidTarget, "the resource of the assertion is not here")
	}
	for _, r := range asked {
		if other, found := s.audience([]string{r}); !found || other.URL != at.URL {
			return at, oauth.Errorf(oauth.InvalidTarget, "the assertion is for %s", at.URL)
		}
	}
	return at, nil
}

// allowed are the scopes that the assertion has and the client asks for, of those
// that exist. An assertion that says nothing of scopes is for what the endpoint's
// challenge asks.
func (s *Server) allowed(b brought, at tool.Audience, asked string) ([]string, error) {
	claim, there := b.All["scope"]
	text, isText := claim.(string)
	scopes, fault := oauth.ParseScopes(text)
	switch {
	case there && !isText || fault != nil:
		return nil, badAssertion("its scope cannot be read")
	case !there:
		scopes = at.Scopes
	default:
		if scopes = s.known(scopes); len(scopes) == 0 {
			return nil, oauth.Errorf(oauth.InvalidScope, "none of the scopes of the assertion is known here")
		}
	}
	within, fault := s.within(scopes, asked)
	if fault != nil {
		return nil, fault
	}
	return within, nil
}

// memberOf is who the subject of the issuer is here: as the operator wrote down, or
// by an address that the issuer has verified. Nobody is made a member by it.
func (s *Server) memberOf(tx *store.Tx, b brought) (identity.Member, error) {
	verified, _ := b.All["email_verified"].(bool) // "true" in quotes is no yes
	email, _ := b.All["email"].(string)
	for _, t := range b.trusted {
		address, written := t.Members[b.Subject]
		if !written && t.Emails && verified {
			address = email
		}
		if address == "" {
			continue
		}
		if m, found, err := s.People.ByEmail(tx, address); err != nil || found {
			return m, err
		}
	}
	return identity.Member{}, badAssertion("its subject is no active member")
}
