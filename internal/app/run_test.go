package app_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// config is one that could serve from dir.
func config(dir string) app.Config {
	return app.Config{
		Listen: "localhost:0", DataDir: dir, Database: "sqlite:" + filepath.Join(dir, "gatehouse.db"), MasterKeyFile: filepath.Join(dir, "master.key"),
	}
}

// in makes a house serve from dir.
func in(dir string) func(*app.Config) { return func(c *app.Config) { c.DataDir = dir } }

// at makes a house listen where another one did.
func at(url string) func(*app.Config) {
	return func(c *app.Config) { c.Listen = strings.TrimPrefix(url, "http://") }
}

// A server that cannot serve says why, in the operator's words and with a cure,
// and leaves nothing behind that would keep the next one from starting.
func TestServerThatCannotServeSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(c *app.Config)
		code    string
		says    string
	}{
		{"port taken", func(c *app.Config) { c.Listen = taken.Addr().String() }, "PORT_TAKEN", "can't listen on 127.0.0.1:"},
		{"port taken on one of two", func(c *app.Config) {
			c.Listen = strings.Replace(taken.Addr().String(), "127.0.0.1", "localhost", 1)
		}, "PORT_TAKEN", "can't listen on"},
		{"address of another computer", func(c *app.Config) { c.Listen = "192.0.2.1:0" }, "LISTEN_FAILED", "can't listen on 192.0.2.1:0"},
		{"no such port", func(c *app.Config) { c.Listen = "127.0.0.1:99999" }, "LISTEN_FAILED", "can't listen on"},
		{"data folder is a file", func(c *app.Config) {
			write(filepath.Join(c.DataDir, "file"), "", 0o600)
			c.DataDir = filepath.Join(c.DataDir, "file")
		}, "DATA_DIR_UNUSABLE", "can't make the folder"},
		{"data folder below a file", func(c *app.Config) {
			write(filepath.Join(c.DataDir, "file"), "", 0o600)
			c.DataDir = filepath.Join(c.DataDir, "file", "data")
		}, "DATA_DIR_UNUSABLE", "can't make the folder"},
		{"data folder that takes no files", func(c *app.Config) { c.DataDir = "/proc/self" }, "DATA_DIR_UNUSABLE", "can't write in /proc/self"},
		{"master key that others may read", func(c *app.Config) { write(c.MasterKeyFile, strings.Repeat("k", 32), 0o644) }, "MASTER_KEY_UNUSABLE", "chmod 600"},
		{"master key of another size", func(c *app.Config) { write(c.MasterKeyFile, "short", 0o600) }, "MASTER_KEY_UNUSABLE", "exactly 32 bytes"},
		{"database that is none", func(c *app.Config) {
			write(strings.TrimPrefix(c.Database, "sqlite:"), strings.Repeat("this is no database. ", 400), 0o600)
		}, "STORE_UNAVAILABLE", "database"},
		{"database elsewhere", func(c *app.Config) { c.Database = "mysql://localhost/db" }, "DATABASE_ADDRESS", "not the address of a database"},
		{"PostgreSQL that is not there", func(c *app.Config) { c.Database = "postgres://user:hunter2@127.0.0.1:1/db" }, "STORE_UNAVAILABLE", "does not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(t.TempDir())
			tt.prepare(&c)
			var out bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := app.Run(ctx, c, &out)
			p := problem.From(err)
			if p == nil || p.Name != tt.code || p.Fix == "" || !strings.Contains(p.Detail+" "+p.Why, tt.says) {
				t.Fatalf("%v", err)
			}
			if strings.Contains(err.Error()+p.Why+p.Fix+out.String(), "hunter2") {
				t.Errorf("the password is shown: %+v", p)
			}
			if _, err := os.Lstat(filepath.Join(c.DataDir, app.SocketName)); err == nil {
				t.Error("a socket is left behind")
			}
		})
	}
}

// Who is told to end before he has begun ends without complaint.
func TestStopBeforeServing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if err := app.Run(ctx, config(dir), io.Discard); err != nil {
		t.Error(err)
	}
	apptest.Start(t, in(dir)) // nothing is left that would be in the way
}

// One folder has one server. The first one goes on, and its socket stays.
func TestSecondServerOnAFolderIsRefused(t *testing.T) {
	h := apptest.Start(t, apptest.Dev)
	err := app.Run(t.Context(), config(h.Dir), io.Discard)
	if p := problem.From(err); p == nil || p.Name != "ALREADY_RUNNING" || p.Kind != problem.Conflict {
		t.Fatal(err)
	}
	if a := h.Admin("whoami", ""); a.StatusCode != http.StatusOK {
		t.Errorf("the first server: %d %s", a.StatusCode, a.Text)
	}
}

// Whoever can open the socket is the owner, so nobody else can; and a path that is
// too long for a socket address works all the same.
func TestSocketIsTheOwners(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	for name, dir := range map[string]string{"short": t.TempDir(), "long": deep} {
		t.Run(name, func(t *testing.T) {
			h := apptest.Start(t, in(dir))
			info, err := os.Lstat(filepath.Join(dir, app.SocketName))
			if err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Fatalf("%v, %v", info, err)
			}
			if a := h.Admin("whoami", ""); !strings.Contains(a.Text, `"rank":"owner"`) || !strings.Contains(a.Text, `"user":"local"`) {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), ".") {
					t.Errorf("%s is left behind", e.Name())
				}
			}
			if err := h.Stop(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, app.SocketName)); err == nil {
				t.Error("the socket outlives the server")
			}
		})
	}
	if info, err := os.Stat(deep); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a new data folder has mode %v, %v", info.Mode(), err)
	}
}

// What a server that was killed left behind keeps nobody from starting, and a
// server that ends late does not take away the socket of its successor.
func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	stale, err := net.Listen("unix", filepath.Join(dir, app.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	h := apptest.Start(t, in(dir))
	if a := h.Admin("whoami", ""); a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", a.StatusCode, a.Text)
	}
	path := filepath.Join(dir, app.SocketName)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = successor.Close() }()
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
}

// A call that runs when the server is told to stop gets its answer; new ones are
// not taken.
func TestStoppingServerLetsCallsEnd(t *testing.T) {
	h, up := apptest.Start(t, apptest.Dev), apptest.NewUpstream(t)
	running, release := make(chan struct{}), make(chan struct{})
	up.Answer(func(w http.ResponseWriter, _ *http.Request, m mcp.Message) {
		close(running)
		<-release
		apptest.Reply(w, m, `{"content":[{"type":"text","text":"at last"}]}`)
	})
	h.Add("slow", up)
	tokens, _ := h.Token("", "")
	answered := make(chan apptest.Answer)
	go func() { answered <- h.Tool(tokens.AccessToken, "slow_write", "{}") }()
	<-running
	stopped := make(chan error)
	go func() { stopped <- h.Stop() }()
	address := strings.TrimPrefix(h.URL, "http://")
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			break // no new callers
		}
		_ = conn.Close()
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case err := <-stopped:
		t.Fatalf("the server did not wait: %v", err)
	default:
	}
	close(release)
	if a := <-answered; a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "at last") {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// R208: after a restart everything goes on: registrations, tokens, MCP sessions,
// servers and the chain.
func TestRestartChangesNothing(t *testing.T) {
	up, dir := apptest.NewUpstream(t), t.TempDir()
	h := apptest.Start(t, apptest.Dev, in(dir))
	h.Add("fix", up)
	tokens, client := h.Token("", "")
	session := h.RPC("/mcp", tokens.AccessToken, "initialize", `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`).
		Header.Get(mcp.SessionHeader)
	code, verifier := h.Code(client, nil)
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	h = apptest.Start(t, apptest.Dev, in(dir), at(h.URL))
	if a := h.RPC("/mcp", tokens.AccessToken, "tools/call", `{"name":"fix_write"}`, mcp.SessionHeader+": "+session); !strings.Contains(a.Text, "did write") {
		t.Errorf("token, session and server: %d %s", a.StatusCode, a.Text)
	}
	if a := h.Redeem(client, code, verifier, nil); a.StatusCode != http.StatusOK {
		t.Errorf("code and registration: %d %s", a.StatusCode, a.Text)
	}
	var again oauth.TokenResponse
	h.Refresh(client, tokens.RefreshToken).JSON(t, &again)
	if a := h.Tool(again.AccessToken, "whoami", "{}"); !strings.Contains(a.Text, client) {
		t.Errorf("refresh token: %d %s", a.StatusCode, a.Text)
	}
	mustBeIntact(t, h)
}

func mustBeIntact(t *testing.T, h *apptest.House) {
	t.Helper()
	for _, chain := range []string{"default", "system"} {
		if a := h.Admin("verify_audit_chain", `{"chain":"`+chain+`"}`); !strings.Contains(a.Text, `"intact":true`) || strings.Contains(a.Text, `"seq":0`) {
			t.Errorf("chain %s: %d %s", chain, a.StatusCode, a.Text)
		}
	}
}

// A database opens with the master key it was made with and with no other.
func TestOtherMasterKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	h := apptest.Start(t, apptest.Dev, in(dir))
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	c := config(dir)
	c.MasterKeyFile = filepath.Join(t.TempDir(), "other.key")
	if err := os.WriteFile(c.MasterKeyFile, []byte(rand.Text() + rand.Text())[:32], 0o600); err != nil {
		t.Fatal(err)
	}
	err := app.Run(t.Context(), c, io.Discard)
	if p := problem.From(err); p == nil || p.Name != "MASTER_KEY_UNUSABLE" || !strings.Contains(p.Why, "another") {
		t.Errorf("%v", err)
	}
	apptest.Start(t, apptest.Dev, in(dir)) // the right one still opens it
}

// Attack 108, attack 71: a page that points its own name at this computer gets
// nothing, on every path; forwarded names change nothing.
func TestOnlyOwnNamesAreAnswered(t *testing.T) {
	h := apptest.Start(t, apptest.Dev)
	port := h.URL[strings.LastIndex(h.URL, ":"):]
	for host, want := range map[string]int{
		"localhost" + port: http.StatusOK, "127.0.0.1" + port: http.StatusOK, "[::1]" + port: http.StatusOK, "LOCALHOST" + port: http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example" + port: http.StatusMisdirectedRequest, "localhost": http.StatusMisdirectedRequest,
		"localhost:1": http.StatusMisdirectedRequest, "localhost." + port: http.StatusMisdirectedRequest, "localhost" + port + ".evil.example": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/.well-known/oauth-authorization-server", "/", "/assets/none", "/mcp"} {
			r := h.Request(http.MethodGet, path, "", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: host=evil.example")
			r.Host = host
			a := h.Do(r)
			if refused := a.StatusCode == http.StatusMisdirectedRequest; refused != (want == http.StatusMisdirectedRequest) || strings.Contains(a.Text, "evil.example") {
				t.Errorf("Host %s at %s: %d %.200s", host, path, a.StatusCode, a.Text)
			}
		}
	}
}
