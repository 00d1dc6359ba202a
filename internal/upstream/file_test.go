package upstream

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// filing is a node that keeps what was done for the file.
func filing(t *testing.T, db *store.DB, key string) (s *Servers, done func() string) {
	t.Helper()
	s = node(t, db, key)
	var mu sync.Mutex
	var all []string
	s.Followed = func(_ *store.Tx, workspace, file, action, server string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprint(workspace, " ", file, " ", action, " ", server))
	}
	return s, func() string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { all = nil }()
		slices.Sort(all)
		return strings.Join(all, "; ")
	}
}

func asks(specs ...Spec) map[string]Spec {
	all := map[string]Spec{}
	for _, spec := range specs {
		all[spec.Name] = spec
	}
	return all
}

func asked(t *testing.T, name, manner string) Spec {
	spec := fixtureSpec(t, manner)
	spec.Name = name
	return spec
}

// shown are the servers of the list, one each: name, file, number of tools.
func shown(t *testing.T, s *Servers) string {
	t.Helper()
	out, err := use[listOut](t, s, "list_servers", struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, l := range out.Servers {
		all = append(all, fmt.Sprint(l.Name, " ", l.File, " ", l.Tools))
	}
	return strings.Join(all, "; ")
}

// Servers come, change and go with the file, on both engines; what stays as it is
// stays connected, with its tools as they were pinned.
func TestFileOwnsItsServers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		key := filepath.Join(t.TempDir(), "key")
		s, done := filing(t, db, key)
		mustAdd(t, s, fixtureIn(t, "mine", "good"))

		one, two := asked(t, "one", "good"), asked(t, "two", "good")
		s.Want("default", "/f.yaml", asks(one, two))
		if !s.settle(t.Context()) || done() != "default /f.yaml server.add one; default /f.yaml server.add two" {
			t.Fatal("not added as the file says")
		}
		if got := shown(t, s); got != "mine  4; one /f.yaml 4; two /f.yaml 4" {
			t.Fatal(got)
		}
		before := published(s)
		if !s.settle(t.Context()) || done() != "" || published(s) != before {
			t.Error("something was done although nothing had changed")
		}

		// Owned by the file, says who tries, and by which file (U11).
		_, err := use[removeOut](t, s, "remove_server", removeIn{"one"})
		if p := problem.From(err); !problem.Is(err, inFile) || !strings.Contains(p.Why, "/f.yaml") {
			t.Errorf("removed by command: %v", err)
		}
		if _, err := use[removeOut](t, s, "remove_server", removeIn{"mine"}); err != nil {
			t.Error(err)
		}

		two.Env = hide(map[string]string{"FIXTURE": "good", "MORE": "1"})
		s.Want("default", "/f.yaml", asks(two))
		if !s.settle(t.Context()) || done() != "default /f.yaml server.add two; default /f.yaml server.remove one; default /f.yaml server.remove two" {
			t.Error("not changed as the file says")
		}
		if got := shown(t, s); got != "two /f.yaml 4" {
			t.Error(got)
		}

		// The next start finds it in the tables and has nothing to do.
		s.stop()
		s, done = filing(t, db, key)
		s.Want("default", "/f.yaml", asks(two))
		if !s.settle(t.Context()) || done() != "" || shown(t, s) != "two /f.yaml 4" {
			t.Errorf("after a restart: %s", shown(t, s))
		}

		// A file that was moved takes it over; without a file it is free.
		s.Want("default", "/g.yaml", asks(two))
		if !s.settle(t.Context()) || done() != "" || shown(t, s) != "two /g.yaml 4" {
			t.Errorf("after the file was moved: %s", shown(t, s))
		}
		s.Want("default", "", nil)
		if !s.settle(t.Context()) || shown(t, s) != "two /g.yaml 4" {
			t.Error("gone with the file")
		}
		if _, err := use[removeOut](t, s, "remove_server", removeIn{"two"}); err != nil {
			t.Errorf("nobody can remove it: %v", err)
		}
	})
}

// A server that is down keeps nobody waiting. It is listed with the reason, and
// added when it comes up.
func TestServerOfTheFileComesUpLater(t *testing.T) {
	s, done := filing(t, storetest.Open(t, storetest.SQLite(t)), filepath.Join(t.TempDir(), "key"))
	r := newRemote(t)
	url := r.URL
	r.Close()
	s.Want("default", "/f.yaml", asks(Spec{Name: "far", URL: url}, asked(t, "near", "good")))
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() { defer close(kept); s.Keep(ctx) }()
	defer func() { cancel(); <-kept }()
	eventually(t, "the one that is down is listed, with the reason", func() bool {
		out, _ := use[listOut](t, s, "list_servers", struct{}{})
		return len(out.Servers) == 2 && out.Servers[0].State == Down && strings.Contains(out.Servers[0].Error, "connection refused")
	})
	eventually(t, "the other one is served", func() bool { return strings.Contains(published(s), "near_echo") })
	if _, err := use[addOut](t, s, "add_server", addIn{Name: "far", URL: "http://127.0.0.1:1"}); !problem.Is(err, exists) {
		t.Errorf("its name is free: %v", err)
	}
	if _, err := use[removeOut](t, s, "remove_server", removeIn{"far"}); !problem.Is(err, inFile) {
		t.Errorf("removed by command: %v", err)
	}
	s.Want("default", "/f.yaml", asks(asked(t, "far", "good"))) // the file is corrected
	eventually(t, "it is served now, and the other one is gone", func() bool {
		return strings.Contains(published(s), "far_echo") && !strings.Contains(published(s), "near_echo")
	})
	all := ""
	eventually(t, "both are recorded", func() bool {
		all += done()
		return strings.Contains(all, "server.add far") && strings.Contains(all, "server.remove near")
	})
}

// What a person added stays theirs: the file does not take it, and says so.
func TestFileTakesNothingFromAPerson(t *testing.T) {
	s, done := filing(t, storetest.Open(t, storetest.SQLite(t)), filepath.Join(t.TempDir(), "key"))
	mustAdd(t, s, fixtureIn(t, "mine", "good"))
	s.Want("default", "/f.yaml", asks(Spec{Name: "mine", URL: "http://127.0.0.1:1"}))
	if s.settle(t.Context()) || done() != "" {
		t.Error("the file has taken it")
	}
	out, _ := use[listOut](t, s, "list_servers", struct{}{})
	if len(out.Servers) != 1 || out.Servers[0].File != "" || !strings.Contains(out.Servers[0].Error, "remove this one first") {
		t.Errorf("%+v", out)
	}
	if _, err := use[removeOut](t, s, "remove_server", removeIn{"mine"}); err != nil {
		t.Error(err)
	}
}

// Two nodes with the same file add a server once.
func TestNodesWithOneFile(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		key := filepath.Join(t.TempDir(), "key")
		var nodes []*Servers
		for range 2 {
			s, _ := filing(t, db, key)
			s.Want("default", "/f.yaml", asks(asked(t, "one", "good")))
			nodes = append(nodes, s)
		}
		var both sync.WaitGroup
		for _, s := range nodes {
			both.Go(func() { s.settle(t.Context()) })
		}
		both.Wait()
		for i, s := range nodes {
			if !s.settle(t.Context()) || shown(t, s) != "one /f.yaml 4" {
				t.Errorf("node %d: %s", i, shown(t, s))
			}
		}
	})
}
