package authserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Ask is what the consent page shows (R1202–R1204).
type Ask struct {
	Flow, Ref string
	FormToken string
	Client    Client
	Redirect  string
	Member    identity.Member
	Tools     []tool.Tool // what the scopes let the app call
	Later     bool        // they cover servers that are added later as well
	From      string      // address the question came from
	Asked     time.Time
	Fault     string // why the last answer did not count
}

// Answer is what the hand-back page shows: where the browser goes, and whether
// it goes by itself.
type Answer struct {
	Ref      string
	Client   Client
	Location string
	Denied   bool
	First    bool
	Decided  time.Time
	Until    time.Time // when the code in Location stops working
}

func (s *Server) askConsent(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	return s.Pages.Consent(w, r, s.question(r.Context(), b, f, ""))
}

func (s *Server) question(ctx context.Context, b authn.Browser, f flow, fault string) Ask {
	return Ask{
		Flow: f.ID, Ref: f.Ref, FormToken: b.FormToken(), Client: f.Client, Redirect: f.Redirect, Member: b.Member,
		Tools: s.covered(ctx, b.Member, f), Later: f.later(), From: f.From, Asked: time.UnixMicro(f.Created), Fault: fault,
	}
}

// later reports whether the scopes cover servers that do not exist yet.
func (f flow) later() bool {
	return f.Audience.Origin == "" && slices.ContainsFunc(f.Scopes, func(scope string) bool { return strings.HasPrefix(scope, "mcp:") })
}

// covered are the tools that the app could call, by the gate's own judgement, at
// the endpoint the token is for; the base tools, which every token may call, are
// not worth a line. REST belongs to the common endpoint, so there the control
// plane's tools count as well.
func (s *Server) covered(ctx context.Context, m identity.Member, f flow) []tool.Tool {
	p := m.Principal()
	p.Client, p.Scopes = f.Client.ID, f.Scopes
	var tools []tool.Tool
	for _, t := range s.Gate.List(ctx, p) {
		if t.Scope != "" && t.Scope != tool.AnyScope && (f.Audience.Origin == "" || f.Audience.Offers(t)) {
			tools = append(tools, t)
		}
	}
	return tools
}

var (
	// FormForeign is the code of a form that was made for another browser, or for
	// nobody.
	FormForeign = problem.Code{
		Name: "FORM_FOREIGN", Kind: problem.Forbidden,
		Why: "the form was not made for this browser, or its cookies are blocked",
		Fix: "go back, reload the page and try again",
	}
	answerUnclear = problem.Code{
		Name: "ANSWER_UNCLEAR", Kind: problem.Invalid,
		Why: "it holds neither allow nor deny",
		Fix: "go back and choose one of the two buttons",
	}
)

const maxForm = 64 << 10

// decide records what the person answered, once, and goes back to the client
// (R308, R309, attacks 60, 61, 69).
func (s *Server) decide(w http.ResponseWriter, r *http.Request, _ string) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return answerUnclear.New("the form did not arrive whole").WithWhy("it is too long, or was cut off").WithFix("go back and send it again").Because(err)
	}
	b, f, err := s.own(nil, r, r.PostForm.Get("request"))
	if err != nil {
		return err
	}
	if !b.OwnForm(r.PostForm.Get("csrf")) {
		return FormForeign.New("this answer can't be accepted")
	}
	if f.Decided != nil || !b.SignedIn() {
		return s.next(w, r, b, f)
	}
	switch decision := r.PostForm.Get("decision"); {
	case decision == "deny":
		return s.deny(w, r, b, f)
	case decision != "allow":
		return answerUnclear.New("the form says neither yes nor no")
	case oauth.RedirectKind(f.Redirect) != oauth.RedirectWeb && r.PostForm.Get("started") != "yes":
		return s.Pages.Consent(w, r, s.question(r.Context(), b, f, "Say first that you just started this from an app on this computer."))
	}
	var location string
	err = s.DB.Do(r.Context(), func(tx *store.Tx) (err error) {
		if location, err = s.allow(tx, f, b.Member, "web"); err != nil {
			return err
		}
		return s.settle(tx, f, true, location)
	})
	return s.settled(w, r, b, f, location, err)
}

func (s *Server) deny(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	e := oauth.Errorf(oauth.AccessDenied, "the person did not allow it")
	location := s.location(f, url.Values{"error": {e.Code}, "error_description": {e.Description}})
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		event := consentEvent(f, b.Member, "web")
		event.Outcome, event.Code = audit.Denied, "CONSENT_DENIED"
		s.Audit.Append(tx, event)
		return s.settle(tx, f, false, location)
	})
	return s.settled(w, r, b, f, location, err)
}

// errDecided says that another request was first.
var errDecided = flowUnknown.New("this request has been answered already")

// settle marks the flow answered; one request wins.
func (s *Server) settle(tx *store.Tx, f flow, allowed bool, location string) error {
	sealed, err := s.Box.Seal("flow/"+f.ID+"/answer", []byte(location))
	if err != nil {
		return err
	}
	// The page that leads back lasts as long as the code on it.
	won, err := tx.One(`UPDATE flow SET decided_at = $1, allowed = $2, answer = $3, expires_at = $5
		WHERE id = $4 AND decided_at IS NULL AND expires_at > $1`, tx.Now, allowed, sealed, f.ID, max(f.Expires, tx.Now+CodeLife.Microseconds()))
	if err == nil && !won {
		err = errDecided
	}
	return err
}

// settled sends a browser to the hand-back page and a program to the client. A
// double click lands on the same page as the first.
func (s *Server) settled(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow, location string, err error) error {
	if err != nil && !errors.Is(err, errDecided) {
		return err
	}
	if err == nil && !isBrowser(r) {
		sendTo(w, location)
		return nil
	}
	return s.goBack(w, r, b, f)
}

func (s *Server) goBack(w http.ResponseWriter, _ *http.Request, _ authn.Browser, f flow) error {
	sendTo(w, "/return/"+f.ID)
	return nil
}

// isBrowser tells a browser's navigation from a program's request.
func isBrowser(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Dest") != "" || strings.Contains(r.Header.Get("Accept"), "text/html")
}

// handBack returns the browser to the client by a page of our own: a redirect in
// the answer to a form would be blocked by its policy (U3). A program cannot
// follow a page, and is redirected.
func (s *Server) handBack(w http.ResponseWriter, r *http.Request, _ string) error {
	b, f, err := s.own(w, r, r.PathValue("flow"))
	if err != nil {
		return err
	}
	if f.Decided == nil {
		return s.next(w, r, b, f)
	}
	location, err := s.Box.Open("flow/"+f.ID+"/answer", f.answer)
	if err != nil {
		return err
	}
	if !isBrowser(r) {
		sendTo(w, string(location))
		return nil
	}
	var first bool
	err = s.DB.Do(r.Context(), func(tx *store.Tx) (err error) {
		first, err = tx.One(`UPDATE flow SET shown_at = $1 WHERE id = $2 AND shown_at IS NULL`, tx.Now, f.ID)
		return err
	})
	if err != nil {
		return err
	}
	decided := time.UnixMicro(*f.Decided)
	return s.Pages.HandBack(w, r, Answer{
		Ref: f.Ref, Client: f.Client, Location: string(location), Denied: !*f.Allowed, First: first,
		Decided: decided, Until: decided.Add(CodeLife),
	})
}

// approve is development mode: the local identity allows everything by itself,
// to programs on this computer only (R317, C14).
func (s *Server) approve(w http.ResponseWriter, r *http.Request, f flow) error {
	if !oauth.IsLoopback(f.Redirect) {
		return devNeedsLoopback.New("this app can't be connected in development mode")
	}
	var location string
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		m, found, err := s.People.DevMember(tx)
		if err != nil {
			return err
		}
		if !found {
			return devNeedsLoopback.New("there is no development identity")
		}
		location, err = s.allow(tx, f, m, "dev")
		return err
	})
	if err != nil {
		return err
	}
	sendTo(w, location)
	return nil
}

func consentEvent(f flow, m identity.Member, door string) audit.Event {
	return audit.Event{
		Workspace: m.Workspace, Actor: m.Principal().Name(), Client: f.Client.ID, Action: "consent", Target: f.Audience.URL,
		Door: door, Ref: f.Ref, Detail: map[string]string{
			"scopes": strings.Join(f.Scopes, " "), "redirect": f.Redirect, "from": f.From, "client_name": f.Client.Name,
		},
	}
}

// allow keeps the consent and makes the code (R1211, R1213, R310). It returns
// where the browser goes.
func (s *Server) allow(tx *store.Tx, f flow, m identity.Member, door string) (location string, err error) {
	consent, scopes := store.ID("cns_"), strings.Join(f.Scopes, " ")
	_, err = tx.Exec(`INSERT INTO consent (id, workspace, user_id, client, redirect_uri, scopes, resource, granted_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, consent, m.Workspace, m.ID, f.Client.ID, f.Redirect, scopes, f.Audience.URL, tx.Now)
	if err != nil {
		return "", err
	}
	code := token.NewSplit("code_")
	_, err = tx.Exec(`INSERT INTO authorization_code
		(id, hash, workspace, user_id, client, consent, redirect_uri, challenge, scopes, resource, family, ref, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		code.ID, code.Hash, m.Workspace, m.ID, f.Client.ID, consent, f.Redirect, f.Challenge, scopes, f.Audience.URL,
		token.NewFamilyID(), f.Ref, tx.Now, tx.Now+CodeLife.Microseconds())
	if err != nil {
		return "", err
	}
	event := consentEvent(f, m, door)
	event.Outcome = audit.Allowed
	event.Detail["consent"] = consent
	s.Audit.Append(tx, event)
	return s.location(f, url.Values{"code": {code.Token}}), nil
}

// host is an address without its port.
func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}
