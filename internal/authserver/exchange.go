package authserver

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// tokenType is the one type of token that is exchanged, and exchanged for (RFC 8693
// §3).
const tokenType = "urn:ietf:params:oauth:token-type:access_token"

// badSubject is the one answer to every token that cannot be exchanged; why it
// cannot goes to the record (RFC 8693 §2.2.2).
func badSubject(why string) *oauth.Error {
	return oauth.Errorf(oauth.InvalidRequest, "the subject token is not good").Because(why)
}

// redeemExchange is token exchange (RFC 8693, attack 122): a client gets for an access
// token of its own one that can do less, to hand on. It is of the same family and
// expires no later, so whatever ends that one's authorization ends this one.
func (s *Server) redeemExchange(tx *store.Tx, c Client, form url.Values) (issue, error) {
	if err := exchangeable(c, form); err != nil {
		return issue{}, err
	}
	claims, err := s.Tokens.Accept(tx, form.Get("subject_token"))
	if why, bad := errors.AsType[token.ErrToken](err); bad {
		return issue{}, badSubject(string(why))
	}
	if err != nil {
		return issue{}, err
	}
	if claims.Client != c.ID {
		return issue{}, badSubject("it was made for another client")
	}
	if key, bound := claims.BoundTo(); bound && key != c.key {
		return issue{}, badSubject("it is bound to a key, and came without a proof of it")
	}
	made, err := s.ofFamily(tx, claims)
	if err != nil {
		return issue{}, err
	}
	if made.family.Resource, err = s.inside(claims.Audience, form["resource"]); err != nil {
		return issue{}, err
	}
	if made.family.Scopes, err = less(strings.Fields(claims.Scope), form.Get("scope")); err != nil {
		return issue{}, err
	}
	left := time.Unix(claims.Expires, 0).Sub(time.UnixMicro(tx.Now))
	if left < time.Second {
		return issue{}, badSubject("it has expired")
	}
	made.kind, made.family.Key = tokenType, c.key
	made.pair, err = s.Tokens.Access(tx, made.family, made.family.Scopes, left)
	return made, err
}

// mayExchange reports whether a client may exchange its tokens although it did not
// register for it: one that who runs this server vouches for, and that proves itself.
func (s *Server) mayExchange(c Client, name string) bool {
	return name == grantExchange && c.Approved && c.AuthMethod != authNone
}

// exchangeable judges what is asked for, as far as no token is needed for that.
func exchangeable(c Client, form url.Values) error {
	switch asked := form.Get("requested_token_type"); {
	case c.AuthMethod == authNone:
		return oauth.Errorf(oauth.UnauthorizedClient, "a public client cannot exchange tokens")
	case form.Get("subject_token") == "" || form.Get("subject_token_type") != tokenType:
		return oauth.Errorf(oauth.InvalidRequest, "subject_token must be an access token, and subject_token_type %s", tokenType)
	case asked != "" && asked != tokenType:
		return oauth.Errorf(oauth.InvalidRequest, "requested_token_type must be %s", tokenType)
	case form.Get("actor_token") != "" || form.Get("actor_token_type") != "":
		return oauth.Errorf(oauth.InvalidRequest, "nobody acts for another here: actor_token is not supported")
	case form.Get("audience") != "":
		return oauth.Errorf(oauth.InvalidTarget, "name the endpoint with resource; audience is not supported")
	}
	return nil
}

// ofFamily is what the token came of, as it stands now.
func (s *Server) ofFamily(tx *store.Tx, c token.Claims) (issue, error) {
	if principal.KindOf(c.Subject) == principal.ServiceAccount {
		return issue{family: token.Family{ID: c.Family, Workspace: c.Workspace, User: c.Subject, Client: c.Client}}, nil
	}
	f, found, err := s.Tokens.Family(tx, c.Workspace, c.Family)
	if err == nil && !found {
		err = badSubject("its family has ended")
	}
	return issue{family: f, vouched: f.Consent == ""}, err
}

// inside is the endpoint asked for, if the token reaches it: its own, or for one of
// the common endpoint that of one server, whose tools it can call anyway.
func (s *Server) inside(audience string, asked []string) (string, error) {
	if len(asked) == 0 {
		return audience, nil
	}
	at, found := s.audience(asked)
	common, _ := s.Registry.Audience(s.Public, "")
	if !found || at.URL != audience && (audience != common.URL || at.Origin == "" || at.Origin == tool.Control) {
		return "", oauth.Errorf(oauth.InvalidTarget, "the subject token is for %s, and reaches no other resource that was named", audience)
	}
	return at.URL, nil
}

// less is what of the scopes held is asked for; none means all, and more is a fault.
func less(held []string, asked string) ([]string, error) {
	wanted, fault := oauth.ParseScopes(asked)
	switch {
	case fault != nil:
		return nil, fault
	case len(wanted) == 0:
		return held, nil
	case !principal.CoverAll(held, wanted):
		return nil, oauth.Errorf(oauth.InvalidScope, "the subject token covers less")
	}
	return wanted, nil
}
