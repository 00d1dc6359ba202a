package qa

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Post is a question with its answer.
type Post struct {
	ID    int    `json:"id"`
	Team  string `json:"team"`
	Title string `json:"title"`
	Body  string `json:"body"`
	Draft bool   `json:"draft,omitempty"`
	By    string `json:"by,omitempty"`
}

// Page is a page of a search.
type Page struct {
	Items []Post `json:"items"`
	More  bool   `json:"has_more"`
}

func someposts() (posts []Post) {
	topics := []string{"VPN", "invoices", "staging", "on-call", "laptops", "backups"}
	for _, team := range []string{"everyone", "support", "platform"} {
		for _, topic := range topics {
			posts = append(posts, Post{
				ID: len(posts) + 1, Team: team, Title: "How do we handle " + topic + "? (" + team + ")",
				Body: fmt.Sprintf("What %s should know about %s is written down here.", team, topic),
			})
		}
	}
	return posts
}

// person says who asks, if their app may do what the scope allows.
func (s *Service) person(w http.ResponseWriter, r *http.Request, scope string) (name string, ok bool) {
	text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	a, found := s.access[text]
	ended := found && a.grant.ended
	s.mu.Unlock()
	switch {
	case !found || ended || time.Now().After(a.expires):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(w, http.StatusUnauthorized, "invalid_token")
	case scope != "" && !slices.Contains(a.grant.scopes, scope):
		refuse(w, http.StatusForbidden, "insufficient_scope")
	default:
		return a.grant.person, true
	}
	return "", false
}

func (s *Service) me(w http.ResponseWriter, r *http.Request) {
	if name, ok := s.person(w, r, ""); ok {
		answer(w, http.StatusOK, map[string]string{"name": name, "team": Teams[name]})
	}
}

// sees reports whether the person may see the post.
func (p Post) sees(name string) bool {
	if p.Draft {
		return p.By == name
	}
	return p.Team == "everyone" || p.Team == Teams[name]
}

func (s *Service) search(w http.ResponseWriter, r *http.Request) {
	name, ok := s.person(w, r, Read)
	if !ok {
		return
	}
	number := func(param string, usual, most int) int {
		n, err := strconv.Atoi(r.URL.Query().Get(param))
		if err != nil || n < 1 {
			return usual
		}
		return min(n, most)
	}
	page, size := number("page", 1, 1000), number("page_size", 5, 50)
	asked := strings.ToLower(r.URL.Query().Get("q"))
	s.mu.Lock()
	found := slices.DeleteFunc(slices.Clone(s.posts), func(p Post) bool {
		return !p.sees(name) || !strings.Contains(strings.ToLower(p.Title+" "+p.Body), asked)
	})
	s.mu.Unlock()
	from := min((page-1)*size, len(found))
	to := min(from+size, len(found))
	answer(w, http.StatusOK, Page{append([]Post{}, found[from:to]...), to < len(found)})
}

func (s *Service) get(w http.ResponseWriter, r *http.Request) {
	name, ok := s.person(w, r, Read)
	if !ok {
		return
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.posts, func(p Post) bool { return strconv.Itoa(p.ID) == r.PathValue("id") && p.sees(name) })
	var found Post
	if i >= 0 {
		found = s.posts[i]
	}
	s.mu.Unlock()
	if i < 0 {
		refuse(w, http.StatusNotFound, "not_found")
		return
	}
	answer(w, http.StatusOK, found)
}

func (s *Service) draft(w http.ResponseWriter, r *http.Request) {
	name, ok := s.person(w, r, Write)
	if !ok {
		return
	}
	var p Post
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&p); err != nil || p.Title == "" {
		refuse(w, http.StatusBadRequest, "invalid_post")
		return
	}
	s.mu.Lock()
	p = Post{ID: len(s.posts) + 1, Team: Teams[name], Title: p.Title, Body: p.Body, Draft: true, By: name}
	s.posts = append(s.posts, p)
	s.mu.Unlock()
	answer(w, http.StatusCreated, p)
}
