package authserver

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Codes are the problems of this package.
var Codes = []problem.Code{
	clientUnknown, AppUnknown, redirectMismatch, requestUnreadable, devNeedsLoopback, flowUnknown, pushedUnknown, deviceGone, endpointUnknown, introspectorUnknown, answerUnclear,
	documentRefused, documentUnusable, documentsBusy,
	clientBlocked, clientMissing, clientInvalid, clientTaken, clientOfFile, registrationTokenUnknown,
}

// Codes of pages: what cannot be told to the client.
var (
	clientUnknown = problem.Code{
		Name: "CLIENT_UNKNOWN", Kind: problem.Invalid,
		Why: "it registered at another server, or with a database that is no longer this one",
		Fix: "remove the server in the app and add it again",
	}
	redirectMismatch = problem.Code{
		Name: "REDIRECT_MISMATCH", Kind: problem.Invalid,
		Why: "an app may send people only to an address that it registered",
		Fix: "if you did not start this, close the page; if it is your app, register the address it uses",
	}
	requestUnreadable = problem.Code{
		Name: "AUTHORIZE_REQUEST_UNREADABLE", Kind: problem.Invalid,
		Why: "the app left out or repeated something that is needed to answer it",
		Fix: "update the app, or start again in it",
	}
	devNeedsLoopback = problem.Code{
		Name: "DEV_NEEDS_LOOPBACK", Kind: problem.Forbidden,
		Why: "development mode allows everything by itself, so it answers programs on this computer only",
		Fix: "start the server without --dev to connect other apps",
	}
	flowUnknown = problem.Code{
		Name: "FLOW_UNKNOWN", Kind: problem.Forbidden,
		Why: "it took longer than ten minutes, or it was begun in another browser",
		Fix: "start again in the app",
	}
)

// A flow is an authorization on its way. It lives in the store, bound to the
// browser that began it, so any node can take the next step and nothing that is
// trusted comes back from a form.
type flow struct {
	ID, Ref   string
	browser   []byte // hash of the key that the browser has
	Client    Client
	Redirect  string
	Device    string // that waits, in place of a redirect URI
	State     string
	Challenge string
	Key       string // thumbprint of the key to which the client binds its code; may be empty
	Scopes    []string
	Audience  tool.Audience
	From      string
	Prompt    string // consent: the person is asked, whatever is remembered
	Since     int64  // a sign-in from before does not answer it, µs
	Hint      string // address for the sign-in page; may be empty
	Created   int64
	Expires   int64
	Decided   *int64
	Allowed   *bool
	answer    []byte

	member, consent string   // who allowed it, while accounts have to be connected; empty otherwise
	granted         []string // what that person allowed
	without         []string // providers at which no account is connected for it
}

const maxAuthorizeURL = 8 << 10

// authorize begins an authorization (R301–R318). Faults of the client or the
// redirect URI are shown; every other one is the client's to hear (R305).
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, ref string) error {
	if len(r.URL.RawQuery) > maxAuthorizeURL {
		return requestUnreadable.New("the app's request is too long")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return requestUnreadable.New("the app's request cannot be read")
	}
	reference, pushed := strings.CutPrefix(query.Get("request_uri"), pushedPrefix)
	if pushed = pushed && len(query["request_uri"]) == 1; pushed {
		if query, err = s.pushed(r.Context(), query.Get("client_id"), reference); err != nil {
			return err
		}
	}
	req, fault := oauth.ParseAuthorize(query)
	if fault != nil && req.Unanswerable {
		return requestUnreadable.New("the app's request is incomplete").WithWhy("%s", fault.Description)
	}
	f := flow{Ref: ref, Redirect: req.RedirectURI, State: req.State, Challenge: req.Challenge, Key: req.ProofKey, From: host(r.RemoteAddr)}
	if f.Client, err = s.addressee(r.Context(), throttle.Address(r.RemoteAddr), req); err != nil {
		return err
	}
	if req.Unchallenged && s.mayOmitPKCE(f.Client) {
		fault = nil
	}
	if !pushed && (s.RequirePushed || f.Client.PushedOnly) {
		fault = oauth.Errorf(oauth.InvalidRequest, "the request has to be pushed: send it to pushed_authorization_request_endpoint first") // RFC 9126 §4
	}
	if fault == nil {
		fault = s.ask(&f, req, grantCode)
	}
	if fault != nil {
		return s.refuse(w, r, f, fault)
	}
	return s.begin(w, r, f, req)
}

// addressee is the client, if it may be answered at the redirect URI. from is who asks.
func (s *Server) addressee(ctx context.Context, from string, req oauth.AuthorizeRequest) (c Client, err error) {
	if err := s.meet(ctx, from, req.ClientID); err != nil {
		return c, err
	}
	var found, may bool
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, found, err = s.row(tx, req.ClientID)
		may = s.mayAct(c, tx.Now)
		return err
	})
	switch {
	case err != nil:
		return c, err
	case c.blocked:
		return c, blockedApp(c)
	case !found || !may:
		return c, clientUnknown.New("this app isn't known here")
	case !s.mayAnswerAt(c, req.RedirectURI):
		return c, redirectMismatch.New("this app asked to be sent somewhere it didn't register").
			WithWhy("it asked for %.200s, which is not among the addresses it registered", req.RedirectURI)
	}
	return c, nil
}

// ask works out for which audience and scopes the client asks, to have tokens by a
// grant.
func (s *Server) ask(f *flow, req oauth.AuthorizeRequest, grant string) *oauth.Error {
	var found bool
	if f.Audience, found = s.audience(req.Resources); !found {
		return oauth.Errorf(oauth.InvalidTarget, "there is no such resource here")
	}
	f.Scopes = s.known(req.Scopes)
	if len(f.Scopes) == 0 {
		if slices.ContainsFunc(req.Scopes, func(s string) bool { return s != offlineAccess }) {
			return oauth.Errorf(oauth.InvalidScope, "none of the scopes asked for exists here")
		}
		f.Scopes = f.Audience.Scopes
	}
	if !slices.Contains(f.Client.Grants, grant) {
		return oauth.Errorf(oauth.UnauthorizedClient, "the client did not register for %s", grant)
	}
	return nil
}

// offlineAccess is accepted and needs no answer: refresh tokens are always issued.
const offlineAccess = "offline_access"

// audience finds the resource asked for. None, or the bare origin, means the
// common endpoint, unless clients have to say what they mean (C13).
func (s *Server) audience(asked []string) (tool.Audience, bool) {
	switch {
	case len(asked) > 1:
		return tool.Audience{}, false
	case len(asked) == 0 || oauth.SameResource(asked[0], s.Public):
		if s.RequireResource {
			return tool.Audience{}, false
		}
		return s.Registry.Audience(s.Public, "")
	}
	return s.Registry.AudienceAt(s.Public, oauth.Canonical(asked[0]))
}

// known are the scopes that exist; others are dropped (R315).
func (s *Server) known(asked []string) []string {
	exist := s.Registry.Scopes()
	return slices.DeleteFunc(slices.Clone(asked), func(scope string) bool { return !slices.Contains(exist, scope) })
}

// begin leads to the first step of the authorization.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, f flow, req oauth.AuthorizeRequest) error {
	if s.Dev {
		return s.approve(w, r, f, req)
	}
	b, err := s.Authn.Browser(w, r)
	if err != nil {
		return err
	}
	if err := s.mayBegin(r, b, f.Client.ID); err != nil {
		return err
	}
	f.Hint = mailAddress(req.LoginHint)
	if demands(req, promptConsent) {
		f.Prompt = promptConsent
	}
	if demands(req, promptNone) {
		f.Since = since(req, time.Now().UnixMicro())
		return s.unasked(w, r, b, f)
	}
	return s.lead(w, r, b, f, req)
}

// lead parks the authorization and leads to its first step.
func (s *Server) lead(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow, req oauth.AuthorizeRequest) error {
	f, err := s.park(w, r, f, req)
	if err != nil {
		return err
	}
	if b.SignedIn() { // the question has an address of its own: Back finds what was decided
		sendTo(w, f.address())
		return nil
	}
	return s.next(w, r, b, f)
}

// park keeps the authorization, and binds it to the browser.
func (s *Server) park(w http.ResponseWriter, r *http.Request, f flow, req oauth.AuthorizeRequest) (flow, error) {
	handle := token.NewSplit("flow_")
	f.ID = handle.ID
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		f.Created, f.Since = tx.Now, since(req, tx.Now)
		_, err := tx.Exec(`INSERT INTO flow
			(id, ref, browser, client, redirect_uri, state, challenge, scopes, resource, asked_from, prompt, since, login_hint, device, created_at, expires_at, jkt)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`,
			f.ID, f.Ref, handle.Hash, f.Client.ID, f.Redirect, f.State, f.Challenge, strings.Join(f.Scopes, " "), f.Audience.URL,
			f.From, f.Prompt, f.Since, f.Hint, f.Device, tx.Now, tx.Now+FlowLife.Microseconds(), f.Key)
		return err
	})
	if err == nil {
		authn.Bind(w, handle, FlowLife+CodeLife)
	}
	return f, err
}

// What a client may say of how the person is asked (R318).
const (
	promptNone    = "none"
	promptLogin   = "login"
	promptConsent = "consent"
)

func demands(req oauth.AuthorizeRequest, prompt string) bool {
	return slices.Contains(strings.Fields(req.Prompt), prompt)
}

// since is from when on a sign-in answers the client: one from before it asked does
// not where it demands a new one, which max_age=0 does as well, and one from before
// max_age neither (attack 113).
func since(req oauth.AuthorizeRequest, now int64) int64 {
	switch {
	case demands(req, promptLogin):
		return now
	case req.MaxAge != nil:
		return now - int64(*req.MaxAge)*1_000_000
	}
	return 0
}

// mailAddress is the hint if it can be one. What else a client sends is no fault: a
// hint is a help, and nobody looks whether the address is known.
func mailAddress(hint string) string {
	if len(hint) > 254 || !strings.Contains(hint, "@") {
		return ""
	}
	return hint
}

// signedIn reports whether the browser's session is good for the flow.
func (f flow) signedIn(b authn.Browser) bool { return b.SignedIn() && b.Began >= f.Since }

// step is one thing that may have to happen before the client is answered.
type step struct {
	needed func(authn.Browser, flow) bool
	take   func(*Server, http.ResponseWriter, *http.Request, authn.Browser, flow) error
}

// steps in their order. They do not know each other: each records what the
// person did and comes back to resume.
var steps = []step{
	{func(_ authn.Browser, f flow) bool { return f.Decided != nil }, (*Server).goBack},
	{func(b authn.Browser, f flow) bool { return !f.signedIn(b) }, (*Server).signIn},
	{agreed, (*Server).connect},
	{func(_ authn.Browser, f flow) bool { return f.mayRecall() }, (*Server).recall},
	{func(authn.Browser, flow) bool { return true }, (*Server).askConsent},
}

// next takes the first step that is needed.
func (s *Server) next(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	i := slices.IndexFunc(steps, func(st step) bool { return st.needed(b, f) })
	return steps[i].take(s, w, r, b, f)
}

// resume goes on with an authorization, after any step.
func (s *Server) resume(w http.ResponseWriter, r *http.Request, _ string) error {
	b, f, err := s.own(w, r, r.PathValue("flow"))
	if err != nil {
		return err
	}
	return s.next(w, r, b, f)
}

// own loads an authorization for the browser that began it, and for no other.
func (s *Server) own(w http.ResponseWriter, r *http.Request, id string) (b authn.Browser, f flow, err error) {
	if b, err = s.browser(w, r); err == nil {
		f, err = s.owned(r, id)
	}
	return b, f, err
}

// answered reads a form by which the owner of a flow answers a page of it.
func (s *Server) answered(w http.ResponseWriter, r *http.Request) (b authn.Browser, f flow, err error) {
	if b, err = s.form(w, r); err == nil {
		f, err = s.owned(r, r.PostForm.Get("request"))
	}
	return b, f, err
}

// owned is the waiting authorization with this id, if it is the browser's.
func (s *Server) owned(r *http.Request, id string) (f flow, err error) {
	var found bool
	if oauth.Readable(id) {
		err = s.DB.View(r.Context(), func(tx *store.Tx) error {
			f, found, err = s.load(tx, id)
			return err
		})
	}
	if err == nil && (!found || !authn.Bound(r, f.ID, f.browser)) {
		err = flowUnknown.New("this request can't be continued here")
	}
	if err == nil {
		request.Of(r.Context()).Ref = f.Ref // all steps of an authorization share one
	}
	return f, err
}

// browser is the one that asks.
func (s *Server) browser(w http.ResponseWriter, r *http.Request) (authn.Browser, error) {
	b, err := s.Authn.Browser(w, r)
	return s.used(r, b, err)
}

// form reads a posted form, and the browser that sends it.
func (s *Server) form(w http.ResponseWriter, r *http.Request) (authn.Browser, error) {
	b, err := s.Authn.Form(w, r)
	return s.used(r, b, err)
}

// used says who uses the browser: in development mode everybody is the local identity.
func (s *Server) used(r *http.Request, b authn.Browser, err error) (authn.Browser, error) {
	if err != nil || !s.Dev {
		return b, err
	}
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		b.Member, _, err = s.People.DevMember(tx)
		return err
	})
	return b, err
}

func (s *Server) load(tx *store.Tx, id string) (f flow, found bool, err error) {
	var client, scopes, resource, granted, without string
	err = tx.QueryRow(`SELECT id, ref, browser, client, redirect_uri, state, challenge, jkt, scopes, resource, asked_from,
			prompt, since, login_hint, device, created_at, expires_at, decided_at, allowed, answer, member, consent, granted, without
		FROM flow WHERE id = $1 AND expires_at > $2`, id, tx.Now).
		Scan(&f.ID, &f.Ref, &f.browser, &client, &f.Redirect, &f.State, &f.Challenge, &f.Key, &scopes, &resource, &f.From,
			&f.Prompt, &f.Since, &f.Hint, &f.Device, &f.Created, &f.Expires, &f.Decided, &f.Allowed, &f.answer, &f.member, &f.consent, &granted, &without)
	if errors.Is(err, sql.ErrNoRows) {
		return f, false, nil
	}
	if err != nil {
		return f, false, err
	}
	f.browser, f.answer = bytes.Clone(f.browser), bytes.Clone(f.answer)
	f.Scopes, f.granted, f.without = strings.Fields(scopes), strings.Fields(granted), strings.Fields(without)
	f.Client, found, err = s.client(tx, client)
	if err != nil || !found {
		return f, false, err
	}
	f.Audience, found = s.Registry.AudienceAt(s.Public, resource)
	return f, found, nil
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	return s.Pages.SignIn(w, r, f.ID, b.SignedIn())
}

// mayRecall reports whether the flow may be answered with what is remembered
// (C27): at an https address, which is the client's own. On the same computer it
// could be any program, so there a person says each time that it was started
// (R316).
func (f flow) mayRecall() bool {
	return oauth.RedirectKind(f.Redirect) == oauth.RedirectWeb && f.Prompt != promptConsent
}

// recall answers with what the person allowed before, where that is enough;
// otherwise it asks. A browser goes back by the page of our own also here: it may
// come from the form of the sign-in (U3).
func (s *Server) recall(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	location, err := s.recalled(r.Context(), b, f)
	if err == nil && location == "" {
		return s.askConsent(w, r, b, f)
	}
	return s.settled(w, r, b, f, location, err)
}

// recalled is where the browser goes with what is remembered; empty if a person
// has to answer.
func (s *Server) recalled(ctx context.Context, b authn.Browser, f flow) (location string, err error) {
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		location = ""
		c, found, err := remembered(tx, b.Member, f)
		if err != nil || !found || !principal.CoverAll(c.scopes, f.Scopes) {
			return err
		}
		if held, err := c.hold(tx, b.Member.Workspace); err != nil || !held {
			return err
		}
		location, err = s.again(tx, f, b.Member, c)
		return err
	})
	return location, err
}

// unasked answers a client that wants no page: with a code where nobody needs to
// be asked, and otherwise with what is needed (OpenID Connect Core 3.1.2.6).
func (s *Server) unasked(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	switch {
	case !f.signedIn(b):
		return s.refuse(w, r, f, oauth.Errorf(oauth.LoginRequired, "a person has to sign in"))
	case !f.mayRecall():
		return s.refuse(w, r, f, oauth.Errorf(oauth.InteractionRequired, "a person has to say each time that the app on this computer was started"))
	}
	location, err := s.recalled(r.Context(), b, f)
	if err != nil {
		return err
	}
	if location == "" {
		return s.refuse(w, r, f, oauth.Errorf(oauth.ConsentRequired, "a person has to allow it"))
	}
	sendTo(w, location)
	return nil
}

// refuse tells the client why not, at its redirect URI (RFC 6749 4.1.2.1, R313,
// R116).
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, f flow, e *oauth.Error) error {
	s.refused(r, e.Reason())
	sendTo(w, s.location(f, url.Values{"error": {e.Code}, "error_description": {e.Description}}))
	return nil
}

// location is the redirect URI with an answer: state untouched and iss always
// (RFC 9207).
func (s *Server) location(f flow, answer url.Values) string {
	answer.Set("iss", s.Issuer)
	if f.State != "" {
		answer.Set("state", f.State)
	}
	separator := "?"
	if strings.Contains(f.Redirect, "?") {
		separator = "&"
	}
	return f.Redirect + separator + answer.Encode()
}

// A Wait is what the sign-in page knows of an app that waits for it.
type Wait struct {
	Client   Client
	Redirect string
	Hint     string // address that the app expects to sign in; may be empty
}

// Waiting says which app waits for this browser's sign-in, if one does.
func (s *Server) Waiting(r *http.Request, id string) (Wait, bool) {
	if id == "" {
		return Wait{}, false
	}
	_, f, err := s.own(nil, r, id)
	return Wait{f.Client, f.Redirect, f.Hint}, err == nil
}
