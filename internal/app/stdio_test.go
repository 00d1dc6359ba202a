package app_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// R713, C12: a process over stdio works beside the server on one database, each sees
// what the other does, and the log of both is one chain.
func TestStdioBesideTheServer(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		up := apptest.NewUpstream(t)
		h.Add("fix", up)
		tokens, _ := h.Token("mcp:tools", "")
		a, b := h.Stdio(tokens.AccessToken), h.Stdio(tokens.AccessToken)
		var calling sync.WaitGroup
		const each = 30
		for _, p := range []*apptest.Program{a, b} {
			calling.Go(func() {
				for range each {
					if m := p.Tool("fix_write", `{}`); apptest.Fault(m) != "" || m.Error != nil {
						t.Errorf("over stdio: %s", m.Encode())
					}
				}
			})
		}
		calling.Go(func() {
			for range each {
				if a := h.Tool(tokens.AccessToken, "fix_write", `{}`); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "did write") {
					t.Errorf("over HTTP: %d %s", a.StatusCode, a.Text)
				}
			}
		})
		calling.Wait()
		if n := h.Count(`SELECT count(*) FROM audit_event WHERE target = 'fix_write' AND outcome = 'allowed'`); n != 3*each {
			t.Errorf("%d calls are recorded", n)
		}
		if a := h.Admin("verify_audit_chain", `{}`); !strings.Contains(a.Text, `"intact":true`) {
			t.Errorf("the chain: %s", a.Text)
		}
		late := apptest.NewUpstream(t)
		h.Add("late", late)
		for !strings.Contains(apptest.Names(a.RPC("tools/list", "")), "late_read") { // within two seconds
		}
	}, apptest.Dev)
}

// A server that starts, while a process over stdio carries a call, does not give that
// call up.
func TestServerStartsBesideStdio(t *testing.T) {
	first := apptest.Open(t, apptest.Dev)
	up := apptest.NewUpstream(t)
	first.Add("fix", up)
	tokens, _ := first.Token("mcp:tools", "")
	began, release := make(chan struct{}), make(chan struct{})
	up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		close(began)
		<-release
		apptest.Reply(w, m, `{"content":[]}`)
	})
	p := first.Stdio(tokens.AccessToken)
	id := p.Begin("tools/call", `{"name":"fix_write"}`)
	<-began
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	apptest.Start(t, apptest.Dev, first.Same, func(c *app.Config) { c.Listen = strings.TrimPrefix(first.URL, "http://") })
	close(release)
	if m := p.Hear(); string(m.ID) != id || m.Error != nil {
		t.Errorf("answered %s", m.Encode())
	}
	if n := first.Count(`SELECT count(*) FROM audit_event WHERE outcome = 'unknown'`); n != 0 {
		t.Errorf("%d calls were given up", n)
	}
}

// Where no server has been, stdio makes nothing and says so; and it serves from no
// tables that it does not know.
func TestStdioNeedsADatabase(t *testing.T) {
	served := apptest.Open(t, apptest.Dev)
	if err := served.Stop(); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	of := func(dir string) app.Config {
		return app.Config{Listen: "localhost:3000", DataDir: dir, Database: "sqlite:" + filepath.Join(dir, "gatehouse.db"), MasterKeyFile: filepath.Join(dir, "master.key")}
	}
	blank, keyless, anywhere := of(t.TempDir()), of(served.Dir), of(served.Dir)
	for _, name := range []string{"gatehouse.db", "master.key"} {
		if err := os.WriteFile(filepath.Join(blank.DataDir, name), []byte(strings.Repeat("k", 32))[:32*strings.Count(name, "key")], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keyless.MasterKeyFile = filepath.Join(empty, "master.key")
	anywhere.Listen = "localhost:0"
	served.SQL(`INSERT INTO migration (room, file, checksum, applied_at) VALUES ('token', '9999_later.sql', '', 1)`)
	for _, tt := range []struct {
		name   string
		config app.Config
		code   string
	}{
		{"nothing", of(empty), "NOTHING_SERVED"}, {"an empty database", blank, "NOTHING_SERVED"}, {"no key", keyless, "MASTER_KEY_UNUSABLE"},
		{"no address", anywhere, "CONFIG_INVALID"}, {"of a newer release", of(served.Dir), "MIGRATION_NEWER"},
	} {
		var out strings.Builder
		err := app.Stdio(t.Context(), tt.config, app.Streams{In: strings.NewReader(""), Out: &out, Log: io.Discard})
		if p := problem.From(err); p == nil || p.Name != tt.code || p.Fix == "" || out.Len() > 0 {
			t.Errorf("%s: %v, %q", tt.name, err, out.String())
		}
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) != 0 {
		t.Errorf("it made %v, %v", left, err)
	}
}
