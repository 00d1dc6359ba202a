package upstream

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// wanted is what a configuration file asks for. The file owns its servers: they
// come, change and go with it, and nobody removes them by command (U11).
type wanted struct {
	mu              sync.Mutex
	workspace, path string
	specs           map[string]Spec
	failed          map[string]string // why the ones that are not served are not
	changed         chan struct{}
}

// Bounds of the pause before a server that could not be added is tried again.
const (
	leastPause = 2 * time.Second
	mostPause  = time.Minute
)

// Want says which servers the configuration file asks for. Keep brings it about.
// Without a file, path is empty.
func (s *Servers) Want(workspace, path string, specs map[string]Spec) {
	f := &s.file
	f.mu.Lock()
	defer f.mu.Unlock()
	f.workspace, f.path, f.specs, f.failed = workspace, path, specs, map[string]string{}
	if f.changed == nil {
		f.changed = make(chan struct{}, 1)
	}
	s.Again()
}

// Again tries at once what could not be added.
func (s *Servers) Again() {
	select {
	case s.file.changed <- struct{}{}:
	default: // it will look anyway
	}
}

// Keep serves what was last wanted, until ctx ends: what is new is pinned at first
// sight, like what a person adds, and what cannot be reached is tried again.
func (s *Servers) Keep(ctx context.Context) {
	pause := leastPause
	for ctx.Err() == nil {
		var again <-chan time.Time
		if !s.settle(ctx) {
			again = time.After(pause)
		}
		select {
		case <-ctx.Done():
		case <-again:
			pause = min(2*pause, mostPause)
		case <-s.file.changed:
			pause = leastPause
		}
	}
}

// settle brings what is served in line with the file, and reports whether it is.
func (s *Servers) settle(ctx context.Context) bool {
	workspace, path, specs := s.file.now()
	if path == "" {
		return true
	}
	missing, err := s.clear(ctx, workspace, path, specs)
	if err != nil {
		s.Log.Error("the servers of the configuration file are not followed", "err", err)
		return false
	}
	var adding sync.WaitGroup
	for name, spec := range missing {
		adding.Go(func() {
			_, _, err := s.connect(ctx, workspace, path, spec)
			s.failed(ctx, path, name, err)
		})
	}
	adding.Wait()
	s.file.mu.Lock()
	defer s.file.mu.Unlock()
	maps.DeleteFunc(s.file.failed, func(name, _ string) bool { _, still := missing[name]; return !still })
	return len(s.file.failed) == 0
}

func (f *wanted) now() (workspace, path string, specs map[string]Spec) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.workspace, f.path, f.specs
}

// clear removes what the file no longer asks for, or asks for in another way, and
// returns what is missing. What another file asked for in the same words passes to
// this one, with its tools as they were pinned.
func (s *Servers) clear(ctx context.Context, workspace, path string, specs map[string]Spec) (missing map[string]Spec, err error) {
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	missing = maps.Clone(specs)
	for _, srv := range s.filed(workspace) {
		name := srv.spec.Name
		spec, named := specs[name]
		switch {
		case named && srv.spec.same(spec):
			if srv.file != path {
				err = s.claim(ctx, srv, path)
			}
			delete(missing, name)
		case named || srv.file == path:
			err = s.drop(ctx, workspace, name, path)
		}
		if err != nil && !problem.Is(err, unknown) { // another node may have been first
			return nil, err
		}
	}
	return missing, nil
}

// filed are the servers that belong to a configuration file, this one or another.
func (s *Servers) filed(workspace string) (all []*server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, srv := range s.serving {
		if srv.workspace == workspace && srv.file != "" {
			all = append(all, srv)
		}
	}
	return all
}

func (spec Spec) same(other Spec) bool {
	return spec.URL == other.URL && spec.Provider == other.Provider && slices.Equal(spec.Command, other.Command) &&
		maps.EqualFunc(spec.Env, other.Env, func(a, b seal.Secret) bool { return a.Reveal() == b.Reveal() })
}

// claim makes a server that of another file.
func (s *Servers) claim(ctx context.Context, srv *server, path string) error {
	err := s.DB.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE upstream SET file = $3 WHERE workspace = $1 AND name = $2`, srv.workspace, srv.spec.Name, path)
		return err
	})
	if err == nil {
		s.mu.Lock()
		srv.file = path
		s.mu.Unlock()
	}
	return err
}

// failed remembers why a server could not be added, and says so when it is news.
func (s *Servers) failed(ctx context.Context, path, name string, err error) {
	f := &s.file
	f.mu.Lock()
	defer f.mu.Unlock()
	switch why := reason(err); {
	case f.path != path || ctx.Err() != nil: // the file or the server has moved on
	case err == nil:
		delete(f.failed, name)
		s.Log.Info("a server of the configuration file was added", "server", name)
	case f.failed[name] != why:
		f.failed[name] = why
		s.Log.Warn("a server of the configuration file can't be added; it is tried again", "server", name, "why", why)
	}
}

// reason is what went wrong, without secrets.
func reason(err error) string {
	if err == nil {
		return ""
	}
	e := problem.From(err)
	return strings.TrimSuffix(e.Detail+": "+e.Why, ": ")
}

// inFile reports whether a server belongs to the configuration file. One that a
// person added under the same name does not.
func (s *Servers) inFile(workspace, name string) bool {
	ours, _, specs := s.file.now()
	if _, named := specs[name]; !named || workspace != ours {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, srv := range s.serving {
		if srv.spec.Name == name {
			return srv.file != ""
		}
	}
	return true
}

// missing adds to the list what the file asks for and is not served.
func (s *Servers) missing(p principal.Principal, list []listServer) []listServer {
	f := &s.file
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Workspace != f.workspace {
		return list
	}
	for name, spec := range f.specs {
		if i := slices.IndexFunc(list, func(l listServer) bool { return l.Name == name }); i >= 0 {
			if list[i].File == "" && f.failed[name] != "" {
				list[i].Error = "the configuration file asks for another server of this name; remove this one first"
			}
			continue
		}
		l := listServer{Name: name, State: Starting, Error: f.failed[name], File: f.path}
		if l.Kind, l.Address = spec.whereFor(p); l.Error != "" {
			l.State = Down
		}
		list = append(list, l)
	}
	return list
}
