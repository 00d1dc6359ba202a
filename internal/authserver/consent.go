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
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Ask is what the consent page shows (R1202–R1204).
type Ask struct {
	Flow, Ref string
	FormToken string
	Client    Client
	Imitates  bool // another app, which is approved, has its name
	Redirect  string
	Device    *Device // that waits, in place of a redirect URI; nil if none does
	Member    identity.Member
	Lines     []Line    // what the person may allow, each by itself
	Known     []Line    // what was allowed before and stays so
	Before    time.Time // when; zero: never
	Later     bool      // the scopes cover servers that are added later as well
	More      bool      // they cover more than the lines: tools that are added to servers later
	From      string    // address the question came from
	Asked     time.Time
	Fault     string     // why the last answer did not count
	Given     url.Values // that answer; nil the first time
}

// A Line is one scope with the tools that it lets an app call.
type Line struct {
	Origin, Scope string
	Tools         []tool.Tool
}

// Field is the name of the line's box in the form.
func (l Line) Field() string { return "scope:" + l.Scope }

// Answer is what the hand-back page shows: where the browser goes, and whether
// it goes by itself.
type Answer struct {
	Ref      string
	Client   Client
	Location string
	Device   bool // nothing goes anywhere: a device waits, and fetches the answer
	Denied   bool
	First    bool
	Decided  time.Time
	Until    time.Time // when the code in Location stops working
}

func (s *Server) askConsent(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	ask, err := s.question(r.Context(), b, f)
	if err != nil {
		return err
	}
	return s.Pages.Consent(w, r, ask)
}

// question is what the person is asked. Where something is new, only that; what
// was allowed before stands below it.
func (s *Server) question(ctx context.Context, b authn.Browser, f flow) (Ask, error) {
	lines := s.lines(ctx, b.Member, f.Client, f.Audience, f.Scopes)
	ask := Ask{
		Flow: f.ID, Ref: f.Ref, FormToken: b.FormToken(), Client: f.Client, Redirect: f.Redirect, Member: b.Member,
		Lines: lines, Later: f.later(), More: f.exceeds(lines), From: f.From, Asked: time.UnixMicro(f.Created),
	}
	var c consent
	var found bool
	err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		if ask.Imitates, err = s.imitated(tx, f.Client); err != nil {
			return err
		}
		if c, found, err = remembered(tx, b.Member, f); err == nil && f.Device != "" {
			err = s.showDevice(tx, f, &ask)
		}
		return err
	})
	if err != nil || !found {
		return ask, err
	}
	ask.Before = time.UnixMicro(c.granted)
	var fresh []Line
	for _, l := range ask.Lines {
		if principal.CoverAll(c.scopes, []string{l.Scope}) {
			ask.Known = append(ask.Known, l)
		} else {
			fresh = append(fresh, l)
		}
	}
	if len(fresh) > 0 {
		ask.Lines = fresh
	} else {
		ask.Known = nil
	}
	return ask, nil
}

// later reports whether the scopes cover servers that do not exist yet.
func (f flow) later() bool {
	return f.Audience.Origin == "" && slices.ContainsFunc(f.Scopes, func(scope string) bool { return strings.HasPrefix(scope, "mcp:") })
}

// exceeds reports whether the scopes stand for a kind of tools of which the person has
// none yet.
func (f flow) exceeds(lines []Line) bool {
	return slices.ContainsFunc(f.Scopes, func(scope string) bool {
		of, _, _ := strings.Cut(scope, ":")
		if of == "mcp" {
			of = f.Audience.Origin
		}
		return slices.ContainsFunc([]string{of + ":read", of + ":write", of + ":admin"}, func(kind string) bool {
			return principal.Covers(scope, kind) && !slices.ContainsFunc(lines, func(l Line) bool { return l.Scope == kind })
		})
	})
}

// lines are the scopes that would let the client call something, with the tools:
// by the gate's own judgement, at the endpoint the token is for. The base tools,
// which every token may call, are not worth a line. REST belongs to the common
// endpoint, so there the control plane's tools count as well.
func (s *Server) lines(ctx context.Context, m identity.Member, c Client, a tool.Audience, scopes []string) []Line {
	p := m.Principal()
	p.Client, p.Scopes = c.ID, scopes
	var lines []Line
	for _, t := range s.Gate.List(ctx, p) {
		if t.Scope == "" || t.Scope == tool.AnyScope || a.Origin != "" && !a.Offers(t) {
			continue
		}
		i := slices.IndexFunc(lines, func(l Line) bool { return l.Origin == t.Origin && l.Scope == t.Scope })
		if i < 0 {
			i, lines = len(lines), append(lines, Line{Origin: t.Origin, Scope: t.Scope})
		}
		lines[i].Tools = append(lines[i].Tools, t)
	}
	return lines
}

// decided is what the answered form allows: all that was asked, less the lines
// that were not ticked. What was allowed before is no line of the question, so
// nothing of it is taken back by leaving out something new.
func (ask Ask) decided(f flow, form url.Values) decision {
	d := decision{keep: form.Get("keep")}
	for _, l := range ask.Lines {
		if form.Get(l.Field()) == "yes" {
			d.scopes = append(d.scopes, l.Scope)
		} else {
			d.refused = append(d.refused, l.Scope)
		}
	}
	if len(d.refused) == 0 {
		d.scopes = f.Scopes
		return d
	}
	for _, l := range ask.Known {
		d.scopes = append(d.scopes, l.Scope)
	}
	if len(d.scopes) > 0 {
		d.scopes = append(d.scopes, without(f.Scopes, d.refused)...)
	}
	slices.Sort(d.scopes)
	d.scopes = slices.Compact(d.scopes)
	return d
}

var answerUnclear = problem.Code{
	Name: "ANSWER_UNCLEAR", Kind: problem.Invalid,
	Why: "it holds neither allow nor deny",
	Fix: "go back and choose one of the two buttons",
}

// decide records what the person answered, once, and goes back to the client
// (R308, R309, attacks 60, 61, 69).
func (s *Server) decide(w http.ResponseWriter, r *http.Request, _ string) error {
	b, f, err := s.answered(w, r)
	if err != nil {
		return err
	}
	if f.Decided != nil || !f.signedIn(b) {
		return s.next(w, r, b, f)
	}
	switch said := r.PostForm.Get("decision"); {
	case said == "deny":
		return s.deny(w, r, b, f)
	case said != "allow":
		return answerUnclear.New("the form says neither yes nor no")
	}
	ask, err := s.question(r.Context(), b, f)
	if err != nil {
		return err
	}
	d := ask.decided(f, r.PostForm)
	if ask.Fault = d.fault(f, r.PostForm); ask.Fault != "" {
		ask.Given = r.PostForm
		return s.Pages.Consent(w, r, ask)
	}
	var location string
	err = s.DB.Do(r.Context(), func(tx *store.Tx) (err error) {
		location, err = s.allow(tx, f, b.Member, d, "web")
		return err
	})
	return s.settled(w, r, b, f, location, err)
}

// fault is why a yes does not count, as a sentence.
func (d decision) fault(f flow, form url.Values) string {
	switch _, known := keeps[d.keep]; {
	case f.Device != "" && form.Get("started") != "yes":
		return "Say first that your device shows this code, and that you just started it there."
	case oauth.RedirectKind(f.Redirect) != oauth.RedirectWeb && form.Get("started") != "yes":
		return "Say first that you just started this from an app on this computer."
	case len(d.scopes) == 0:
		return "Tick what the app may do, or choose Don’t allow."
	case !known:
		return "Choose for how long you keep this connection."
	}
	return ""
}

func (s *Server) deny(w http.ResponseWriter, r *http.Request, b authn.Browser, f flow) error {
	e := oauth.Errorf(oauth.AccessDenied, "the person did not allow it")
	location := s.location(f, url.Values{"error": {e.Code}, "error_description": {e.Description}})
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		event := consentEvent(f, b.Member, f.Scopes, "web")
		event.Outcome, event.Code = audit.Denied, "CONSENT_DENIED"
		s.Audit.Append(tx, event)
		return s.settle(tx, f, false, location)
	})
	return s.settled(w, r, b, f, location, err)
}

// errDecided says that another request was first.
var errDecided = flowUnknown.New("this request has been answered already")

// Sealed is what this room keeps sealed.
var Sealed = []seal.Column{answers, userCodes}

var (
	answers   = seal.Column{Table: "flow", ID: "id", Name: "answer"}
	userCodes = seal.Column{Table: "device_code", ID: "id", Name: "user_code"}
)

// settle marks the flow answered; one request wins.
func (s *Server) settle(tx *store.Tx, f flow, allowed bool, location string) error {
	if f.Device != "" && !allowed {
		if err := answerDevice(tx, f, identity.Member{}, "", nil); err != nil {
			return err
		}
	}
	sealed, err := s.Box.Seal(answers.Place(f.ID), []byte(location))
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
	if err == nil && !isBrowser(r) && f.Device == "" {
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
	location, err := s.Box.Open(answers.Place(f.ID), f.answer)
	if err != nil {
		return err
	}
	if f.Device != "" {
		return s.Pages.HandBack(w, r, Answer{Ref: f.Ref, Client: f.Client, Device: true, Denied: !*f.Allowed})
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
func (s *Server) approve(w http.ResponseWriter, r *http.Request, f flow, req oauth.AuthorizeRequest) error {
	if !oauth.IsLoopback(f.Redirect) {
		return devNeedsLoopback.New("this app can't be connected in development mode")
	}
	var location string
	if s.Registry.Providers(func(tool.Server) bool { return true }) != nil { // an account may have to be connected
		var err error
		if f, err = s.park(w, r, f, req); err != nil {
			return err
		}
	}
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		m, found, err := s.People.DevMember(tx)
		if err != nil {
			return err
		}
		if !found {
			return devNeedsLoopback.New("there is no development identity")
		}
		location, err = s.allow(tx, f, m, decision{scopes: f.Scopes, keep: KeepAlways}, "dev")
		return err
	})
	if err != nil {
		return err
	}
	sendTo(w, location)
	return nil
}

func consentEvent(f flow, m identity.Member, scopes []string, door string) audit.Event {
	return audit.Event{
		Workspace: m.Workspace, Actor: m.Principal().Name(), Client: f.Client.ID, Action: "consent", Target: f.Audience.URL,
		Door: door, Ref: f.Ref, Detail: map[string]string{
			"scopes": strings.Join(scopes, " "), "redirect": f.Redirect, "from": f.From, "client_name": f.Client.Name,
		},
	}
}

// allow keeps what the person decided and makes the code for it (R1211, R1213,
// R310), which answers the flow. It returns where the browser goes.
func (s *Server) allow(tx *store.Tx, f flow, m identity.Member, d decision, door string) (location string, err error) {
	consent, err := s.remember(tx, f, m, d)
	if err != nil {
		return "", err
	}
	event := consentEvent(f, m, d.scopes, door)
	event.Outcome = audit.Allowed
	event.Detail["consent"], event.Detail["keep"] = consent, d.keep
	s.Audit.Append(tx, event)
	return s.onward(tx, f, m, consent, d.scopes)
}

// again makes a code for what was allowed before.
func (s *Server) again(tx *store.Tx, f flow, m identity.Member, c consent) (location string, err error) {
	event := consentEvent(f, m, f.Scopes, "web")
	event.Outcome = audit.Allowed
	event.Detail["consent"], event.Detail["remembered"] = c.id, time.UnixMicro(c.granted).UTC().Format(time.RFC3339)
	s.Audit.Append(tx, event)
	return s.onward(tx, f, m, c.id, f.Scopes)
}

// code makes what the client redeems: a code at its redirect URI, or what the device
// asks for.
func (s *Server) code(tx *store.Tx, f flow, m identity.Member, consent string, scopes []string) (location string, err error) {
	if f.Device != "" {
		return "", answerDevice(tx, f, m, consent, scopes)
	}
	code := token.NewSplit("code_")
	_, err = tx.Exec(`INSERT INTO authorization_code
		(id, hash, workspace, user_id, client, consent, redirect_uri, challenge, scopes, resource, family, ref, created_at, expires_at, jkt)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		code.ID, code.Hash, m.Workspace, m.ID, f.Client.ID, consent, f.Redirect, f.Challenge, strings.Join(scopes, " "), f.Audience.URL,
		token.NewFamilyID(), f.Ref, tx.Now, tx.Now+CodeLife.Microseconds(), f.Key)
	return s.location(f, url.Values{"code": {code.Token}}), err
}

// host is an address without its port.
func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}
