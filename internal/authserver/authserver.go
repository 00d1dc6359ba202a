// Package authserver is the OAuth 2.1 authorization server: discovery,
// registration, authorization, tokens and revocation.
//
// A fault of the client or of its redirect URI is shown on a page and never
// redirected. Everything is validated before anything is consumed, consuming is
// one statement, and every token is bound to a client, a member and an audience.
package authserver

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/mail"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

//go:embed *.sql
var migrations embed.FS

// Lifetimes of what waits.
const (
	FlowLife = 10 * time.Minute // R306
	CodeLife = 2 * time.Minute  // R310
)

// Server is the authorization server. Set the fields, call Open, mount Routes.
type Server struct {
	DB       *store.DB
	Box      *seal.Box
	Audit    *audit.Log
	Tokens   *token.Tokens
	Vault    *vault.Vault // accounts of people elsewhere
	People   *identity.People
	Authn    *authn.Authn
	Mail     *mail.Printer
	Registry *tool.Registry
	Gate     *gate.Gate // says what a consent lets an app call
	Pages    Pages
	Throttle *throttle.Throttle
	Log      *slog.Logger
	Issuer   string // issuer identifier (RFC 8414)
	Public   string // where the MCP endpoints are
	POC      bool   // a demonstration on this computer gets a secret unasked and may omit PKCE (C03, C09); with Dev only
	Dev      bool   // sign-in and consent approve themselves for loopback redirects (R317)

	Registration    func() string // may a client register itself? RegistrationOpen, RegistrationToken; else no (R218)
	Documents       func() Documents
	Outbound        *outbound.Client // fetches them
	Schemes         []string         // private-use schemes that redirect URIs may have (R216)
	ExactRedirects  bool             // may a program not listen on another port than it registered? (C10)
	RequireResource bool             // must a client say for which endpoint it asks? (C13)
	RequirePushed   bool             // must a client push its request before a browser comes with it? (RFC 9126)
	Prefix          string           // which family of paths the metadata names (C01)
	Trusted         func() []Trusted // whose word counts in place of a sign-in or a secret
	External        []string         // issuers that are the authorization servers instead of this one (R517)

	walk     walk               // of Sweep
	fetching singleflight.Group // of documents, by address
	sources  sources            // of the keys of clients
	slots    chan struct{}      // held while one is fetched
	keySlots chan struct{}      // held while keys are
}

// Pages are what people see. Each call answers the request.
type Pages interface {
	SignIn(w http.ResponseWriter, r *http.Request, waits string, again bool) error // again: also who is signed in
	Consent(w http.ResponseWriter, r *http.Request, ask Ask) error
	Device(w http.ResponseWriter, r *http.Request, ask CodeAsk) error
	HandBack(w http.ResponseWriter, r *http.Request, answer Answer) error
	Connect(w http.ResponseWriter, r *http.Request, c Connect) error
	Problem(w http.ResponseWriter, r *http.Request, ref string, err error)
}

// Open makes the tables.
func (s *Server) Open(ctx context.Context) error {
	s.slots, s.keySlots = make(chan struct{}, documentSlots), make(chan struct{}, documentSlots)
	return s.DB.Migrate(ctx, "authserver", migrations)
}

// prefixes are the three families of paths, which all answer (C01).
var prefixes = []string{"/oauth", "/mcp", ""}

// Routes mounts what belongs to the issuer: endpoints, pages and metadata (R114).
// Where others are the issuers there is nothing of it.
func (s *Server) Routes(mux *http.ServeMux) {
	if len(s.External) > 0 {
		return
	}
	for _, prefix := range prefixes {
		mux.Handle("GET "+prefix+"/authorize", s.page(s.authorize))
		mux.Handle(prefix+"/par", s.machine(verbs{http.MethodPost: s.push}))
		mux.Handle(prefix+"/device", s.machine(verbs{http.MethodPost: s.device}))
		mux.Handle(prefix+"/token", s.machine(verbs{http.MethodPost: s.token}))
		mux.Handle(prefix+"/register", s.machine(verbs{http.MethodPost: s.register}))
		mux.Handle(prefix+"/registration/{client}", s.machine(verbs{
			http.MethodGet: s.showClient, http.MethodPut: s.changeClient, http.MethodDelete: s.removeClient,
		}))
		mux.Handle(prefix+"/revoke", s.machine(verbs{http.MethodPost: s.revoke}))
		mux.Handle(prefix+"/introspect", s.machine(verbs{http.MethodPost: s.introspect}))
	}
	mux.Handle("GET /device", s.page(s.typeCode))
	mux.Handle("POST /device/code", s.page(s.takeCode))
	mux.Handle("/auth/m2m/token", s.machine(verbs{http.MethodPost: s.machineToken}))
	mux.Handle("GET /consent/{flow}", s.page(s.resume))
	mux.Handle("POST /consent", s.page(s.decide))
	mux.Handle("GET /return/{flow}", s.page(s.handBack))
	mux.Handle("GET /connect/{name}", s.page(s.reconnect))
	mux.Handle("GET /connect/{name}/callback", s.page(s.arrived))
	mux.Handle("POST /connect/{name}/without", s.page(s.goWithout))

	mux.Handle("/.well-known/"+oauth.ServerSuffix, s.machine(verbs{http.MethodGet: s.serverMetadata}))
	mux.Handle("/.well-known/"+oauth.OpenIDSuffix, s.machine(verbs{http.MethodGet: s.serverMetadata}))
	mux.Handle("/.well-known/jwks.json", s.machine(verbs{http.MethodGet: s.jwks}))
}

// ResourceRoutes mounts what belongs to the MCP endpoints: the documents that lead
// from there to the issuer.
func (s *Server) ResourceRoutes(mux *http.ServeMux) {
	mux.Handle("/.well-known/"+oauth.ResourceSuffix, s.machine(verbs{http.MethodGet: s.resourceMetadata}))
	mux.Handle("/.well-known/"+oauth.ResourceSuffix+"/{path...}", s.machine(verbs{http.MethodGet: s.resourceMetadata}))
}

// handler answers a request whose flow has a reference, or says why it did not.
type handler func(w http.ResponseWriter, r *http.Request, ref string) error

// page adapts a handler of pages: an error becomes the page for people. A HEAD,
// which the patterns let through, would take the step and lose the answer.
func (s *Server) page(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.Header().Set("Allow", http.MethodGet)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		ref := request.Of(r.Context()).Ref
		err := error(authn.FormForeign.New("this answer can't be accepted"))
		if sameSite.Check(r) == nil {
			err = h(w, r, ref)
		}
		if err != nil {
			if p := problem.From(err); p.Kind != problem.Unavailable && p.Kind != problem.Internal {
				s.refused(r, p.Name)
			}
			s.Pages.Problem(w, r, request.Of(r.Context()).Ref, err)
		}
	})
}

// refused counts a request that was refused: who sent it is not known.
func (s *Server) refused(r *http.Request, reason string) {
	s.Audit.Stranger(audit.Denied, r.Pattern+" refused: "+reason, audit.Prefix(r.RemoteAddr))
}

// sendTo sends the browser on. The address may hold a code: no cache keeps it, no
// page is told it as a referrer, and there is no body that repeats it.
func sendTo(w http.ResponseWriter, location string) {
	header := w.Header()
	header.Set("Location", location)
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther)
}

// sameSite refuses forms that another site posted.
var sameSite = http.NewCrossOriginProtection()

// verbs are the handlers of an endpoint by their methods. HEAD is GET's.
type verbs map[string]handler

// machine adapts the handlers of an endpoint for programs: open to every origin,
// because it uses no cookie (R102), and an error becomes OAuth's JSON (R407).
func (s *Server) machine(v verbs) http.Handler {
	allowed := strings.Join(append(slices.Sorted(maps.Keys(v)), http.MethodOptions), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce")
		header.Set("X-Content-Type-Options", "nosniff")
		h, served := v[r.Method]
		if r.Method == http.MethodHead {
			h, served = v[http.MethodGet]
		}
		switch {
		case r.Method == http.MethodOptions:
			header.Set("Access-Control-Allow-Methods", allowed)
			header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP, MCP-Protocol-Version")
			header.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		case !served:
			header.Set("Allow", allowed)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		ref := request.Of(r.Context()).Ref
		if err := h(w, r, ref); err != nil {
			s.fail(w, r, request.Of(r.Context()).Ref, err)
		}
	})
}

// fail answers with OAuth's JSON. What is not an OAuth error reveals nothing but
// the reference.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, ref string, err error) {
	e := oauthError(err, ref)
	if full := s.failed(r, e); full != nil {
		err, e = full, oauthError(full, ref)
	}
	if wait := problem.From(err).Wire(ref).Retry; wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(wait))
	}
	record := request.Of(r.Context())
	record.Code, record.Why = e.Code, e.Reason()
	if e.Status >= http.StatusInternalServerError {
		request.Failed(s.Log, r, err)
	} else if !errors.Is(err, token.ErrReplay) && e.Code != oauth.AuthorizationPending { // the one has an event of its own, the other is no refusal
		s.refused(r, e.Reason())
	}
	switch e.Code {
	case oauth.UseNonce:
		if nonce, failed := s.Tokens.Nonce(); failed == nil {
			w.Header().Set("DPoP-Nonce", nonce)
		}
	case oauth.InvalidClient:
		w.Header().Set("WWW-Authenticate", `Basic realm="gatehouse"`)
	case oauth.InvalidToken:
		w.Header().Set("WWW-Authenticate", oauth.BearerChallenge{Realm: "gatehouse", Error: e.Code, Description: e.Description}.String())
	}
	reply(w, e.Status, oauth.ErrorResponse{Error: e.Code, Description: e.Description, Ref: ref})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller is gone
}

// publish answers with a document that anybody may keep for a while.
func publish(w http.ResponseWriter, body any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	return json.NewEncoder(w).Encode(body)
}

// serverMetadata is RFC 8414's document, and the same under OpenID Connect's name
// (R101–R106, R116).
func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request, _ string) error {
	return publish(w, s.Metadata())
}

// Metadata is that document.
func (s *Server) Metadata() oauth.ServerMetadata {
	at := s.Issuer + s.Prefix
	m := oauth.ServerMetadata{
		Issuer:                s.Issuer,
		AuthorizationEndpoint: at + "/authorize",
		TokenEndpoint:         at + "/token",
		PushedEndpoint:        at + "/par",
		PushedOnly:            s.RequirePushed,
		DeviceEndpoint:        at + "/device",
		RevocationEndpoint:    at + "/revoke",
		IntrospectionEndpoint: at + "/introspect",
		JWKSURI:               s.Issuer + "/.well-known/jwks.json",
		ScopesSupported:       append(s.Registry.Scopes(), "offline_access"),
		ResponseTypes:         []string{"code"},
		ResponseModes:         []string{"query"}, // C05
		GrantTypes:            s.grantNames(),
		GrantProfiles:         s.grantProfiles(),
		TokenAuthMethods:      authMethods,
		TokenSigningAlgs:      jwks.Algorithms,
		RevocationAuthMethods: authMethods,
		IntrospectionMethods:  slices.DeleteFunc(slices.Clone(authMethods), func(m string) bool { return m == authNone }),
		IntrospectionAlgs:     []string{s.Tokens.SignsWith()},
		RevocationSigningAlgs: jwks.Algorithms,
		IntrospectionSigning:  jwks.Algorithms,
		ProofAlgs:             oauth.ProofAlgorithms,
		ChallengeMethods:      []string{"S256"},
		IssParameter:          true,
		ClientDocuments:       s.Documents().On(),
	}
	if mode := s.Registration(); mode == RegistrationOpen || mode == RegistrationToken {
		m.RegistrationEndpoint = at + "/register"
	}
	return m
}

// resourceMetadata is RFC 9728's document of one MCP endpoint. At the root it is
// that of the common endpoint (R107, R108).
func (s *Server) resourceMetadata(w http.ResponseWriter, r *http.Request, _ string) error {
	resource := s.Public + "/mcp"
	if path := r.PathValue("path"); path != "" {
		resource = s.Public + "/" + path
	}
	a, found := s.Registry.AudienceAt(s.Public, resource)
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return nil
	}
	issuers := s.External
	if len(issuers) == 0 {
		issuers = []string{s.Issuer}
	}
	return publish(w, oauth.ResourceMetadata{
		Resource:             a.URL,
		AuthorizationServers: issuers,
		ScopesSupported:      a.Scopes,
		BearerMethods:        []string{"header"},
		ProofAlgs:            oauth.ProofAlgorithms,
		Name:                 "Gatehouse",
		Documentation:        s.Issuer + "/", // the page that says how to connect
	})
}

func (s *Server) jwks(w http.ResponseWriter, _ *http.Request, _ string) error {
	return publish(w, json.RawMessage(s.Tokens.JWKS()))
}

// oauthError is err in OAuth's words.
func oauthError(err error, ref string) *oauth.Error {
	if e, ok := asOAuth(err); ok {
		return e
	}
	switch problem.From(err).Kind {
	case problem.Limited:
		e := oauth.Errorf(oauth.TemporarilyUnavailable, "there were too many requests; %s", problem.From(err).Fix)
		e.Status = http.StatusTooManyRequests
		return e
	case problem.Unavailable:
		return oauth.Errorf(oauth.TemporarilyUnavailable, "try again later; reference %s", ref)
	}
	return oauth.Errorf(oauth.ServerError, "something failed that should not; reference %s", ref)
}
