package authserver

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// App is one consent as its person sees it: an app that can act for the person,
// or could (R1212).
type App struct {
	ID       string    `json:"id" jsonschema:"id of the consent; remove_app takes it"`
	User     string    `json:"user" jsonschema:"whom it acts for"`
	Name     string    `json:"name" jsonschema:"what it calls itself; nobody has checked that"`
	Client   string    `json:"client" jsonschema:"id of the OAuth client"`
	Redirect string    `json:"redirect_uri" jsonschema:"where access was sent last"`
	Resource string    `json:"resource" jsonschema:"the endpoint it may use"`
	Scopes   []string  `json:"scopes"`
	State    AppState  `json:"state" jsonschema:"connected; signed_out: it may come back without asking; ended"`
	Allowed  time.Time `json:"allowed_at" jsonschema:"when the person last allowed it"`
	Seen     time.Time `json:"last_seen,omitzero" jsonschema:"when it last got a token; an app that is used gets one every hour"`
	Ends     time.Time `json:"ends_at,omitzero" jsonschema:"when it ends although it is used; absent if it stays until it is removed"`
	Replayed time.Time `json:"replayed_at,omitzero" jsonschema:"when a sign-in of it was ended because it was used twice"`
	Ended    time.Time `json:"ended_at,omitzero"`
	Reason   string    `json:"reason,omitempty" jsonschema:"why it ended"`
	Lines    []Line    `json:"-"` // what it can do now; only for the person's own page

	ends   *int64
	coming bool // a code waits for the app
	client Client
}

// By is the client as far as it says who it is.
func (a App) By() Client { return a.client }

// AppState says whether an app can act.
type AppState string

// The states of an app.
const (
	Connected AppState = "connected"
	SignedOut AppState = "signed_out"
	Ended     AppState = "ended"
)

// endedShown is how long an app that ended is shown.
const endedShown = 90 * 24 * time.Hour

// Why a consent ended.
const (
	reasonRemoved  = "you removed it"
	reasonStopped  = "you stopped everything"
	reasonOperator = "the operator of this server removed it"
	reasonOver     = "its time was over"
)

// Apps are those of a member, with what they can do, and those that ended within
// the last 90 days; who was seen last comes first.
func (s *Server) Apps(ctx context.Context, m identity.Member) (apps []App, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		apps, err = s.apps(tx, m.Workspace, m.ID)
		return err
	})
	for i, a := range apps {
		if at, found := s.Registry.AudienceAt(s.Public, a.Resource); found && a.State != Ended {
			apps[i].Lines = s.lines(ctx, m, Client{ID: a.Client}, at, a.Scopes)
		}
	}
	return apps, err
}

// apps are those of a member, or of the workspace if user is empty.
func (s *Server) apps(tx *store.Tx, workspace, user string) ([]App, error) {
	standings, err := s.Tokens.Standings(tx, workspace, user)
	if err != nil {
		return nil, err
	}
	recent := tx.Now - endedShown.Microseconds()
	found, err := s.consents(tx, workspace, user, recent)
	if err != nil {
		return nil, err
	}
	apps := []App{}
	for _, a := range found {
		if a.stand(standings[a.ID], tx.Now, recent); a.State != "" {
			apps = append(apps, a)
		}
	}
	slices.SortStableFunc(apps, func(a, b App) int {
		return cmp.Or(cmp.Compare(order[a.State], order[b.State]), b.latest().Compare(a.latest()))
	})
	return apps, nil
}

var order = map[AppState]int{Connected: 0, SignedOut: 1, Ended: 2}

func (a App) latest() time.Time {
	if a.Seen.After(a.Ended) {
		return a.Seen
	}
	return a.Ended
}

// stand says how the app stands; one that cannot act and ended long ago, or never
// began, stays without a state.
func (a *App) stand(s token.Standing, now, recent int64) {
	a.Seen = at(s.Used)
	if s.Replayed > recent {
		a.Replayed = at(s.Replayed)
	}
	if a.ends != nil {
		a.Ends = at(*a.ends)
	}
	over := a.ends != nil && *a.ends <= now
	switch {
	case !a.Ended.IsZero():
		a.State = Ended
	case (s.Live > 0 || a.coming) && !over:
		a.State = Connected
	case !over && oauth.RedirectKind(a.Redirect) == oauth.RedirectWeb:
		a.State = SignedOut
	case s.Replayed > recent:
		a.State, a.Ended, a.Reason = Ended, a.Replayed, token.UsedTwice
	case over && *a.ends > recent:
		a.State, a.Ended, a.Reason = Ended, a.Ends, reasonOver
	}
}

func at(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

func (s *Server) consents(tx *store.Tx, workspace, user string, recent int64) (apps []App, err error) {
	rows, err := tx.Query(`SELECT s.id, s.user_id, CASE WHEN s.client_name = '' THEN c.name ELSE s.client_name END, s.client, s.redirect_uri,
			s.resource, s.scopes, s.granted_at, s.ends_at, COALESCE(s.ended_at, 0), s.reason, c.source, c.approved_at IS NOT NULL,
			EXISTS (SELECT 1 FROM authorization_code a WHERE a.consent = s.id AND a.workspace = s.workspace AND a.used_at IS NULL AND a.expires_at > $4)
			OR EXISTS (SELECT 1 FROM device_code d WHERE d.consent = s.id AND d.workspace = s.workspace AND d.used_at IS NULL AND d.expires_at > $4)
		FROM consent s JOIN client c ON c.id = s.client
		WHERE s.workspace = $1 AND (s.user_id = $2 OR $2 = '') AND (s.ended_at IS NULL OR s.ended_at > $3)`, workspace, user, recent, tx.Now)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var a App
		var scopes string
		var granted, ended int64
		if err := rows.Scan(&a.ID, &a.User, &a.Name, &a.Client, &a.Redirect, &a.Resource, &scopes, &granted, &a.ends, &ended, &a.Reason, &a.client.Source, &a.client.Approved, &a.coming); err != nil {
			return nil, err
		}
		a.Scopes, a.Allowed, a.Ended = strings.Fields(scopes), at(granted), at(ended)
		a.client.ID, a.client.Name = a.Client, a.Name
		a.client.Approved = a.client.Approved || s.pinned(a.client)
		apps = append(apps, a)
	}
	return apps, rows.Err()
}

// AppUnknown is the code of an app that is not there, or not the caller's, or ended.
var AppUnknown = problem.Code{
	Name: "APP_UNKNOWN", Kind: problem.NotFound,
	Why: "no connected app of yours has this id; it may have ended already",
	Fix: "list the apps and use an id from the list",
}

// Tools are the connected apps as callers see them (R1212): everybody's own, and,
// for who has the server itself, those of the whole workspace.
func (s *Server) Tools() []tool.Tool {
	return slices.Concat(s.clientTools(), s.introspectorTools(), s.appTools())
}

func (s *Server) appTools() []tool.Tool {
	return []tool.Tool{
		tool.Define(tool.Def{
			Name: "list_apps", Title: "List connected apps", Doc: "List the apps that can act for you, and those that ended within the last 90 days.",
			Effect: tool.Reads, Caller: principal.Readonly, Scope: "apps:read",
		}, func(tx *store.Tx, p principal.Principal, _ struct{}) (appsOut, error) {
			apps, err := s.apps(tx, p.Workspace, identity.Whose(p))
			return appsOut{apps}, err
		}),
		tool.Define(tool.Def{
			Name: "remove_app", Title: "Remove an app", Doc: "End an app's access for good: all its tokens stop working at once.",
			Effect: tool.Destroys, Caller: principal.Readonly, Scope: "apps:write", Direct: true,
		}, s.removeApp),
		tool.Define(tool.Def{
			Name: "stop_everything", Title: "Stop everything", Doc: "End the access of every app that can act for you.",
			Effect: tool.Destroys, Caller: principal.Readonly, Scope: "apps:write", Direct: true,
		}, s.stopEverything),
	}
}

type appsOut struct {
	Apps []App `json:"apps"`
}

type appIn struct {
	ID string `json:"id" jsonschema:"id of the app, as list_apps says it"`
}

type stoppedOut struct {
	Stopped int `json:"stopped" jsonschema:"how many apps were ended"`
}

func (s *Server) removeApp(tx *store.Tx, p principal.Principal, in appIn) (App, error) {
	apps, err := s.apps(tx, p.Workspace, identity.Whose(p))
	if err != nil {
		return App{}, err
	}
	i := slices.IndexFunc(apps, func(a App) bool { return a.ID == in.ID && a.State != Ended })
	if i < 0 {
		return App{}, AppUnknown.New("there is no app %.40q", in.ID)
	}
	return s.end(tx, p, apps[i], reasonRemoved)
}

// stopEverything ends all consents, and every family, whatever it came of. Consents
// with which nothing could act any more end as well, and are not counted.
func (s *Server) stopEverything(tx *store.Tx, p principal.Principal, _ struct{}) (out stoppedOut, err error) {
	apps, err := s.apps(tx, p.Workspace, identity.Whose(p))
	if err != nil {
		return out, err
	}
	for _, a := range apps {
		if a.State == Ended {
			continue
		}
		if _, err := s.end(tx, p, a, reasonStopped); err != nil {
			return out, err
		}
		out.Stopped++
	}
	rest, err := s.consents(tx, p.Workspace, identity.Whose(p), 0)
	if err != nil {
		return out, err
	}
	for _, a := range rest {
		if _, err := s.withdraw(tx, p.Workspace, a.User, a.ID, reasonStopped); err != nil {
			return out, err
		}
	}
	_, err = s.Tokens.RevokeUser(tx, p.Workspace, identity.Whose(p), reasonStopped) // also what came of no consent
	return out, err
}

// end withdraws one consent and records it.
func (s *Server) end(tx *store.Tx, p principal.Principal, a App, reason string) (App, error) {
	if a.User != p.User {
		reason = reasonOperator
	}
	won, err := s.withdraw(tx, p.Workspace, a.User, a.ID, reason)
	if err != nil || !won {
		return a, err
	}
	a.State, a.Ended, a.Reason = Ended, at(tx.Now), reason
	s.Audit.Append(tx, audit.Event{
		Workspace: p.Workspace, Actor: p.Name(), Client: a.Client, Action: "consent.end", Target: a.ID, Outcome: audit.Allowed,
		Detail: map[string]string{"client_name": a.Name, "user": a.User, "reason": reason},
	})
	return a, nil
}
