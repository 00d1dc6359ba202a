package authserver

import (
	"bytes"
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/mail"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// The grant types, in the order of the metadata.
const (
	grantCode     = "authorization_code"
	grantRefresh  = "refresh_token"
	grantOwn      = "client_credentials"
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantBearer   = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// A grant turns what a client presents into tokens. What all grants share, the
// client before and the subject and the record after, is done around redeem, so
// that no grant can forget it.
type grant struct {
	name   string
	open   bool // a client that registers itself may have it (attack 50)
	redeem func(*Server, *store.Tx, Client, url.Values) (issue, error)
}

func grants() []grant {
	return []grant{
		{grantCode, true, (*Server).redeemCode},
		{grantRefresh, true, (*Server).redeemRefresh},
		{grantOwn, false, (*Server).redeemOwn},
		{grantDevice, true, (*Server).redeemDevice},
		{grantExchange, false, (*Server).redeemExchange},
		{grantBearer, false, (*Server).redeemBearer},
	}
}

// grantNames are those that are served: the JWT bearer grant where somebody's word is
// trusted (R105).
func (s *Server) grantNames() []string {
	return namesOf(func(g grant) bool { return g.name != grantBearer || len(s.Trusted()) > 0 })
}

// openGrants are those that a client gets by registering itself.
func openGrants() []string { return namesOf(func(g grant) bool { return g.open }) }

func namesOf(wanted func(grant) bool) (names []string) {
	for _, g := range grants() {
		if wanted(g) {
			names = append(names, g.name)
		}
	}
	return names
}

// issue is what a grant made.
type issue struct {
	family token.Family
	pair   token.Pair
	ref    string // of the flow in which the person consented; empty if not known
	kind   string // of token, where the answer has to say it (RFC 8693)
	ended  bool   // none: the family ended, because what was presented was used twice

	vouched bool // no person was asked: the issuer of an assertion, which the operator trusts, answers for the member
}

// token is the token endpoint (RFC 6749 §3.2, R401–R420).
func (s *Server) token(w http.ResponseWriter, r *http.Request, ref string) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	answer, err := s.issued(r, form, ref)
	if err != nil {
		return err
	}
	s.nextNonce(w, r)
	reply(w, http.StatusOK, answer)
	return nil
}

// issued authenticates the client that sent the form and redeems what it presents,
// in one transaction with its event.
func (s *Server) issued(r *http.Request, form url.Values, ref string) (answer oauth.TokenResponse, err error) {
	shown, err := s.present(r, form)
	if err == nil {
		shown.brought, err = s.bring(r.Context(), form)
	}
	if err == nil {
		shown.proof, err = s.keyProof(r)
	}
	if err != nil {
		return answer, err
	}
	var made issue
	var letter *mail.Message
	err = s.DB.Do(r.Context(), func(tx *store.Tx) error {
		c, err := s.authenticate(tx, shown)
		if err != nil {
			return err
		}
		if c.key = shown.proof.Key; c.Bound && c.key == "" {
			return oauth.Errorf(oauth.InvalidProof, "the client registered dpop_bound_access_tokens, so each token request needs a DPoP proof")
		}
		if made, err = s.redeem(tx, c, form); err == nil {
			err = s.spend(tx, shown.proof)
		}
		tell(request.Of(r.Context()), c, made)
		if !slices.Contains(c.Grants, grantRefresh) {
			made.pair.Refresh = "" // it could not be used
		}
		if made.ended {
			warning, failed := s.usedTwice(tx, c, made.family, ref)
			if failed != nil {
				return failed
			}
			tx.AfterCommit(func() { letter = warning })
		}
		return s.recorded(tx, c, form, made, ref, err)
	})
	if letter != nil {
		if failed := s.Mail.Send(*letter); failed != nil {
			s.Log.Error("a person could not be told that a sign-in was used twice", "ref", ref, "family", made.family.ID, "err", failed)
		}
	}
	if err != nil {
		return answer, err
	}
	return oauth.TokenResponse{
		AccessToken: made.pair.Access, TokenType: scheme(made.pair.Key), ExpiresIn: int64(made.pair.Expires.Seconds()),
		RefreshToken: made.pair.Refresh, Scope: strings.Join(made.pair.Scopes, " "), IssuedTokenType: made.kind,
	}, nil
}

// tell says in the log whose token it is, and which. The reference is that of the
// authorization, where that is known.
func tell(record *request.Record, c Client, made issue) {
	record.Client, record.Token, record.Ref = c.ID, made.pair.Token, cmp.Or(made.ref, record.Ref)
	if made.family.User != "" {
		record.Principal = principal.NameOf(made.family.User)
	}
}

// maxRequest bounds the parameters of a request, in bytes.
const maxRequest = 64 << 10

// readForm reads parameters from the body and from nowhere else (R402, attack 30).
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	parse := map[string]func([]byte) (url.Values, *oauth.Error){
		"application/x-www-form-urlencoded": oauth.ParseForm, "application/json": oauth.ParseObject,
	}
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || parse[t] == nil || len(r.Header.Values("Content-Type")) > 1 {
		return nil, oauth.Errorf(oauth.InvalidRequest, "send the parameters as application/x-www-form-urlencoded, or as application/json")
	}
	if r.URL.RawQuery != "" {
		return nil, oauth.Errorf(oauth.InvalidRequest, "parameters belong in the body, not in the address")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return nil, oauth.Errorf(oauth.InvalidRequest, "the body has more than %d bytes, or did not arrive whole", maxRequest)
	}
	form, fault := parse[t](body)
	if fault != nil {
		return nil, fault
	}
	return form, nil
}

// redeem finds the grant by its name and checks what all grants have in common.
func (s *Server) redeem(tx *store.Tx, c Client, form url.Values) (issue, error) {
	name := form.Get("grant_type")
	i := slices.IndexFunc(grants(), func(g grant) bool { return g.name == name })
	switch {
	case name == "":
		return issue{}, oauth.Errorf(oauth.InvalidRequest, "grant_type is missing")
	case !slices.Contains(s.grantNames(), name):
		return issue{}, oauth.Errorf(oauth.UnsupportedGrantType, "there is no grant type %.40q", name)
	case !slices.Contains(c.Grants, name) && !s.mayExchange(c, name) && !s.mayBring(c):
		return issue{}, oauth.Errorf(oauth.UnauthorizedClient, "the client did not register for %s", name)
	}
	made, err := grants()[i].redeem(s, tx, c, form)
	if err != nil {
		return made, err
	}
	// An error from here on rolls back what redeem spent and made.
	if made.pair.Key != c.key {
		return made, fmt.Errorf("the grant %s does not bind its token to the key that the client proved to have", name)
	}
	return made, s.standing(tx, made)
}

// recorded appends the event of an issued token, or of a replay that revoked a
// family. Other refusals change nothing and are only counted.
func (s *Server) recorded(tx *store.Tx, c Client, form url.Values, made issue, ref string, err error) error {
	replay := errors.Is(err, token.ErrReplay)
	if err != nil && !replay {
		return err
	}
	if made.ref != "" {
		ref = made.ref
	}
	event := audit.Event{
		Workspace: made.family.Workspace, Actor: principal.NameOf(made.family.User), Client: c.ID, Token: made.pair.Token,
		Action: "token.issue", Target: made.family.ID, Outcome: audit.Allowed, Door: "oauth", Ref: ref,
		Detail: map[string]string{
			"grant": form.Get("grant_type"), "scopes": strings.Join(made.pair.Scopes, " "), "audience": made.family.Resource,
		},
	}
	if replay {
		event.Action, event.Outcome, event.Code = "token.replay", audit.Denied, "TOKEN_REPLAYED"
		event.Detail = map[string]string{"grant": form.Get("grant_type")}
	}
	s.Audit.Append(tx, event)
	return err
}

// badCode is the one answer for every code that is not good; why it is not goes
// to the record.
func badCode(why string) *oauth.Error {
	return oauth.Errorf(oauth.InvalidGrant, "the code is not good; start again").Because(why)
}

// maxVerifiers is how many wrong verifiers a code survives.
const maxVerifiers = 5

type code struct {
	id, redirect, challenge string
	key                     string // to which the client bound it
	hash                    []byte
	family                  token.Family
	ref                     string
	tries, expires          int64
	used                    *int64
}

// redeemCode is the authorization code grant (R403–R406, attacks 23–29): judge
// first, spend in one statement, sign in the same transaction. So a typo or a
// failing key burns nothing, and a second use revokes what the first one made.
func (s *Server) redeemCode(tx *store.Tx, c Client, form url.Values) (issue, error) {
	id, presented, ok := token.Parse("code_", form.Get("code"))
	if !ok {
		return issue{}, badCode("it does not have the form of a code")
	}
	row, err := loadCode(tx, id)
	if err != nil {
		return issue{}, err
	}
	switch {
	case row == nil:
		return issue{}, badCode("there is none with this id")
	case !presented.Matches(row.hash):
		return issue{}, badCode("its secret is wrong")
	case row.family.Client != c.ID:
		return issue{}, badCode("it was made for another client")
	}
	made := issue{family: row.family, ref: row.ref}
	if row.used != nil {
		return s.replayed(tx, made)
	}
	if err := s.judgeCode(tx, c, row, form); err != nil {
		return made, err
	}
	won, err := tx.One(`UPDATE authorization_code SET used_at = $1
		WHERE id = $2 AND workspace = $3 AND used_at IS NULL AND expires_at > $1`, tx.Now, row.id, row.family.Workspace)
	if err != nil {
		return made, err
	}
	if !won {
		return s.late(tx, made, row.id)
	}
	made.family = c.bind(made.family)
	made.pair, err = s.Tokens.Start(tx, made.family)
	return made, err
}

func loadCode(tx *store.Tx, id string) (*code, error) {
	r := code{id: id}
	var scopes string
	var ends *int64
	err := tx.QueryRow(`SELECT a.hash, a.workspace, a.user_id, a.client, a.consent, a.redirect_uri, a.challenge, a.scopes, a.resource, a.family,
			a.ref, a.jkt, a.tries, a.expires_at, a.used_at, c.ends_at
		FROM authorization_code a JOIN consent c ON c.id = a.consent AND c.workspace = a.workspace WHERE a.id = $1`, id). // its workspace is read from it
		Scan(&r.hash, &r.family.Workspace, &r.family.User, &r.family.Client, &r.family.Consent, &r.redirect, &r.challenge, &scopes, &r.family.Resource, &r.family.ID,
			&r.ref, &r.key, &r.tries, &r.expires, &r.used, &ends)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if ends != nil {
		r.family.Ends = *ends
	}
	r.hash, r.family.Scopes = bytes.Clone(r.hash), strings.Fields(scopes)
	return &r, err
}

// late is the answer where another was first: another redemption, so that this one
// is a replay, or whoever ended the code meanwhile, which is nothing to revoke for.
func (s *Server) late(tx *store.Tx, made issue, id string) (issue, error) {
	row, err := loadCode(tx, id)
	if err != nil {
		return made, err
	}
	if row == nil || row.used == nil {
		return made, badCode("it ended while it was redeemed")
	}
	return s.replayed(tx, made)
}

// replayed revokes what came of the code, and keeps that although the request
// fails (R319). Once that is done another use changes nothing, and is no event.
func (s *Server) replayed(tx *store.Tx, made issue) (issue, error) {
	var err error
	made.ended, err = s.Tokens.RevokeFamily(tx, made.family.ID, token.UsedTwice)
	if err != nil || !made.ended {
		return made, cmp.Or(err, error(badCode("it was used before")))
	}
	return made, store.Keep(errors.Join(badCode("it was used before"), token.ErrReplay))
}

// usedTwice is the letter that tells the person that a sign-in was ended (R413).
// Whoever is no member any more gets none.
func (s *Server) usedTwice(tx *store.Tx, c Client, f token.Family, ref string) (*mail.Message, error) {
	m, found, err := s.People.Member(tx, f.Workspace, f.User)
	if err != nil || !found {
		return nil, err
	}
	return &mail.Message{
		To: m.Email, Subject: "An app was signed out because its sign-in was used twice",
		Text: fmt.Sprintf("Somebody used an old sign-in of an app calling itself %q again, so that sign-in was ended. It can be a fault of the app, or a copy in other hands.\n"+
			"If you use the app, sign in again in it. See and remove your apps here:\n%s/me\nReference: %s", c.Name, s.Issuer, ref),
	}, nil
}

func (s *Server) judgeCode(tx *store.Tx, c Client, row *code, form url.Values) error {
	switch uri := form.Get("redirect_uri"); {
	case row.expires <= tx.Now:
		return badCode("it has expired")
	case row.tries >= maxVerifiers:
		return badCode("it came with too many wrong verifiers")
	case uri != "" && uri != row.redirect:
		return badCode("it was sent to another redirect URI")
	case row.key != "" && row.key != c.key:
		return badCode("it is bound to a key, and came without a proof of it")
	}
	for _, asked := range form["resource"] {
		if a, found := s.audience([]string{asked}); !found || a.URL != row.family.Resource {
			return oauth.Errorf(oauth.InvalidTarget, "the code is for %s", row.family.Resource)
		}
	}
	scopes, fault := oauth.ParseScopes(form.Get("scope"))
	if fault != nil {
		return fault
	}
	for _, scope := range scopes {
		if scope != offlineAccess && !slices.Contains(row.family.Scopes, scope) {
			return oauth.Errorf(oauth.InvalidScope, "the scope %s was not granted", scope)
		}
	}
	if !s.verifies(c, row.challenge, form.Get("code_verifier")) {
		_, err := tx.Exec(`UPDATE authorization_code SET tries = tries + 1 WHERE id = $1 AND workspace = $2`, row.id, row.family.Workspace)
		if err != nil {
			return err
		}
		return store.Keep(badCode("the verifier is wrong"))
	}
	return nil
}

// redeemRefresh is the refresh token grant (R412, R413).
func (s *Server) redeemRefresh(tx *store.Tx, c Client, form url.Values) (issue, error) {
	scopes, fault := oauth.ParseScopes(form.Get("scope"))
	if fault != nil {
		return issue{}, fault
	}
	var resources []string
	for _, asked := range form["resource"] {
		a, found := s.audience([]string{asked})
		if !found {
			return issue{}, oauth.Errorf(oauth.InvalidTarget, "there is no such resource here")
		}
		resources = append(resources, a.URL)
	}
	family, pair, err := s.Tokens.Rotate(tx, form.Get("refresh_token"), token.Asked{Client: c.ID, Scopes: scopes, Resources: resources, Key: c.key})
	return issue{family: family, pair: pair, ended: errors.Is(err, token.ErrReplay)}, err
}

// revoke is RFC 7009 (R416, attack 124). What is not the client's own token is
// answered like success and left alone.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, ref string) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	shown, err := s.present(r, form)
	if err != nil {
		return err
	}
	err = s.DB.Do(r.Context(), func(tx *store.Tx) error {
		c, err := s.authenticate(tx, shown)
		if err != nil {
			return err
		}
		raw := form.Get("token")
		if raw == "" {
			return oauth.Errorf(oauth.InvalidRequest, "token is missing")
		}
		f, found, err := s.Tokens.Lookup(tx, raw, c.ID)
		if err != nil {
			return err
		}
		if found {
			won, err := s.Tokens.RevokeFamily(tx, f.ID, "revoked by its client")
			if won {
				s.revoked(tx, f, f.ID, ref)
			}
			return err
		}
		claims, err := s.Tokens.Accept(tx, raw)
		if _, bad := errors.AsType[token.ErrToken](err); bad || err == nil && claims.Client != c.ID {
			return nil // nothing of this client's that works
		}
		if err != nil {
			return err
		}
		s.revoked(tx, token.Family{Workspace: claims.Workspace, User: claims.Subject, Client: c.ID}, claims.ID, ref)
		return s.Tokens.Revoke(tx, claims.ID, token.AccessLife)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) revoked(tx *store.Tx, f token.Family, target, ref string) {
	s.Audit.Append(tx, audit.Event{
		Workspace: f.Workspace, Actor: principal.NameOf(f.User), Client: f.Client, Action: "token.revoke", Target: target,
		Outcome: audit.Allowed, Door: "oauth", Ref: ref,
	})
}

func asOAuth(err error) (*oauth.Error, bool) { return errors.AsType[*oauth.Error](err) }
