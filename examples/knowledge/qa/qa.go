// Package qa is a question-and-answer service that exists for examples and tests:
// an API with posts that not everybody may see, and the OAuth server with which
// people let others read them for them.
//
// It keeps everything in memory and asks nobody for a password. Apart from that it
// behaves as such services do: codes are used once and bound to a challenge, access
// tokens are short, refresh tokens rotate, one that comes back ends the grant.
package qa

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The scopes of the service.
const (
	Read  = "read_posts"
	Write = "write_posts"
)

// Teams are the people of the service and the team of each. A post of a team is
// seen by that team, one of "everyone" by all.
var Teams = map[string]string{"mira": "support", "theo": "platform"}

// Client is the one OAuth client that is registered here.
type Client struct{ ID, Secret, Redirect string }

// Service is the whole service. Set the fields before it serves.
type Service struct {
	Issuer     string        // its own address, without a slash at the end
	AccessLife time.Duration // of access tokens

	mu      sync.Mutex
	client  Client
	posts   []Post
	codes   map[string]*code
	grants  []*grant
	access  map[string]access
	refresh map[string]*refresh
	mux     http.ServeMux
}

// New makes a service with some posts in it.
func New(issuer string, c Client) *Service {
	s := &Service{
		Issuer: issuer, AccessLife: 10 * time.Minute, client: c, posts: someposts(),
		codes: map[string]*code{}, access: map[string]access{}, refresh: map[string]*refresh{},
	}
	s.mux.HandleFunc("GET /.well-known/oauth-authorization-server", s.metadata)
	s.mux.HandleFunc("GET /oauth/authorize", s.ask)
	s.mux.HandleFunc("POST /oauth/authorize", s.decide)
	s.mux.HandleFunc("POST /oauth/token", s.token)
	s.mux.HandleFunc("POST /oauth/revoke", s.revoke)
	s.mux.HandleFunc("POST /people/{person}/forget", s.forget)
	s.mux.HandleFunc("GET /api/me", s.me)
	s.mux.HandleFunc("GET /api/posts", s.search)
	s.mux.HandleFunc("GET /api/posts/{id}", s.get)
	s.mux.HandleFunc("POST /api/drafts", s.draft)
	return s
}

// ServeHTTP serves the API and the OAuth endpoints.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Register puts another client in the place of the one that was registered.
func (s *Service) Register(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = c
}

// Forget ends what a person granted, as if they had removed the app.
func (s *Service) Forget(person string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		if g.person == person {
			g.ended = true
		}
	}
}

// Grants are how many of a person's grants are good.
func (s *Service) Grants(person string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		if g.person == person && !g.ended {
			n++
		}
	}
	return n
}

// Expire ends the access tokens that are out now; refresh tokens stay.
func (s *Service) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

func (s *Service) forget(w http.ResponseWriter, r *http.Request) {
	s.Forget(r.PathValue("person"))
	w.WriteHeader(http.StatusNoContent)
}

func random(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller is gone
}

func refuse(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]string{"error": code})
}
