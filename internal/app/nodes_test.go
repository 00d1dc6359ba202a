package app_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// nodes are two servers on one database, with one master key and one public
// address, which is that of the first.
func nodes(t *testing.T) (a, b *apptest.House) {
	t.Helper()
	database, key := storetest.Postgres(t), filepath.Join(t.TempDir(), "master.key")
	a = apptest.Start(t, apptest.Dev, func(c *app.Config) { c.Database, c.MasterKeyFile = database, key })
	port := freePort(t)
	b = apptest.Start(t, apptest.Dev, func(c *app.Config) {
		c.Database, c.MasterKeyFile, c.PublicURL, c.Listen = database, key, a.URL, "localhost:"+port
	})
	b.URL = "http://localhost:" + port // where it is, not what it is called
	return a, b
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// eventually asks again until the answer is good, and says how long that took.
func eventually(t *testing.T, limit time.Duration, what string, ask func() apptest.Answer, good func(apptest.Answer) bool) {
	t.Helper()
	began := time.Now()
	for {
		a := ask()
		if good(a) {
			return
		}
		if time.Since(began) > limit {
			t.Fatalf("not %s within %v: %d %s", what, limit, a.StatusCode, a.Text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// R311: what one node began, another one ends; what one revokes, another refuses;
// what is added at one can be called at the other; and the chain is one.
func TestTwoNodesAreOneServer(t *testing.T) {
	t.Parallel()
	a, b := nodes(t)
	client := a.Register()
	code, verifier := a.Code(client, nil)
	var tokens struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	b.Redeem(client, code, verifier, nil).JSON(t, &tokens)

	initialize := `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`
	session := a.RPC("/mcp", tokens.Access, "initialize", initialize).Header.Get(mcp.SessionHeader)
	for _, h := range []*apptest.House{a, b} {
		if answer := h.RPC("/mcp", tokens.Access, "tools/call", `{"name":"whoami"}`, mcp.SessionHeader+": "+session); answer.StatusCode != http.StatusOK || !strings.Contains(answer.Text, client) {
			t.Errorf("token and session at %s: %d %s", h.URL, answer.StatusCode, answer.Text)
		}
	}

	up := apptest.NewUpstream(t)
	a.Add("fix", up)
	read := func() apptest.Answer { return b.Tool(tokens.Access, "fix_read", "{}") }
	eventually(t, 6*time.Second, "callable at the other node", read, says(http.StatusOK, "did read"))
	if answer := b.Get("/.well-known/oauth-protected-resource/s/fix/mcp"); !strings.Contains(answer.Text, `"resource":"`+a.URL+`/s/fix/mcp"`) {
		t.Errorf("its endpoint there: %d %s", answer.StatusCode, answer.Text)
	}
	if answer := b.Admin("add_server", `{"name":"fix","url":"`+up.URL+`"}`); answer.StatusCode != http.StatusConflict {
		t.Errorf("added twice: %d %s", answer.StatusCode, answer.Text)
	}
	if answer := b.Admin("remove_server", `{"name":"fix"}`); answer.StatusCode != http.StatusOK {
		t.Errorf("removed at the other node: %d %s", answer.StatusCode, answer.Text)
	}
	gone := func() apptest.Answer { return a.Tool(tokens.Access, "fix_read", "{}") }
	eventually(t, 6*time.Second, "withdrawn at the first", gone, says(http.StatusOK, "TOOL_UNKNOWN"))

	// Attack 81, with the verdict in the other node's memory.
	a.Form("/oauth/revoke", url.Values{"client_id": {client}, "token": {tokens.Refresh}})
	if answer := a.Tool(tokens.Access, "whoami", "{}"); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("revoked here: %d %s", answer.StatusCode, answer.Text)
	}
	whoami := func() apptest.Answer { return b.Tool(tokens.Access, "whoami", "{}") }
	eventually(t, time.Second, "refused at the other node", whoami, status(http.StatusUnauthorized))
	mustBeIntact(t, a)
	mustBeIntact(t, b)
}

// R113: whichever node a client asks, it reads the same.
func TestNodesPublishTheSameDocuments(t *testing.T) {
	t.Parallel()
	a, b := nodes(t)
	for _, name := range []string{"oauth-authorization-server", "openid-configuration", "jwks.json", "oauth-protected-resource", "oauth-protected-resource/mcp", "oauth-protected-resource/s/gatehouse/mcp"} {
		here, there := a.Get("/.well-known/"+name), b.Get("/.well-known/"+name)
		if here.StatusCode != http.StatusOK || here.Text != there.Text {
			t.Errorf("%s: %d %s\n%d %s", name, here.StatusCode, here.Text, there.StatusCode, there.Text)
		}
	}
}

// Attack 24: of many redemptions at once, over both nodes, one wins; that code
// came back is a replay, so what it won is revoked everywhere (R319).
func TestOneRedemptionWinsOverTwoNodes(t *testing.T) {
	t.Parallel()
	a, b := nodes(t)
	client := a.Register()
	for range 3 {
		code, verifier := a.Code(client, nil)
		answers := make([]apptest.Answer, 40)
		start := make(chan struct{})
		var racing sync.WaitGroup
		for i := range answers {
			node := []*apptest.House{a, b}[i%2]
			racing.Go(func() { <-start; answers[i] = node.Redeem(client, code, verifier, nil) })
		}
		close(start)
		racing.Wait()
		var won []string
		for _, answer := range answers {
			switch {
			case answer.StatusCode == http.StatusOK:
				var tokens struct {
					Access string `json:"access_token"`
				}
				answer.JSON(t, &tokens)
				won = append(won, tokens.Access)
			case answer.StatusCode != http.StatusBadRequest || answer.Error() != "invalid_grant":
				t.Errorf("%d %s", answer.StatusCode, answer.Text)
			}
		}
		if len(won) != 1 {
			t.Fatalf("%d winners", len(won))
		}
		for _, node := range []*apptest.House{a, b} {
			eventually(t, time.Second, "revoked after the replay", func() apptest.Answer { return node.Tool(won[0], "whoami", "{}") }, status(http.StatusUnauthorized))
		}
	}
	mustBeIntact(t, a)
	mustBeIntact(t, b)
}

// A node with another master key does not join.
func TestNodeWithAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	database := storetest.Postgres(t)
	a := apptest.Start(t, apptest.Dev, func(c *app.Config) { c.Database, c.MasterKeyFile = database, filepath.Join(c.DataDir, "master.key") })
	c := config(t.TempDir())
	c.Database = database
	err := app.Run(t.Context(), c, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "MASTER_KEY_UNUSABLE") {
		t.Errorf("%v", err)
	}
	tokens, _ := a.Token("", "")
	if answer := a.Tool(tokens.AccessToken, "whoami", "{}"); answer.StatusCode != http.StatusOK {
		t.Errorf("the first node: %d %s", answer.StatusCode, answer.Text)
	}
}

// Nodes that start together on an empty database make its tables and keys once.
func TestNodesMayStartTogether(t *testing.T) {
	t.Parallel()
	database, key := storetest.Postgres(t), filepath.Join(t.TempDir(), "master.key")
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	ended := make(chan error, 4)
	logs := make([]*apptest.Log, cap(ended))
	for i := range logs {
		logs[i] = &apptest.Log{}
		c := config(t.TempDir())
		c.Database, c.MasterKeyFile, c.PublicURL = database, key, "http://localhost:1"
		running.Go(func() { ended <- app.Run(ctx, c, logs[i]) })
	}
	for i, log := range logs {
		if log.Wait("✓ Listening on ", ended) == "" {
			t.Errorf("node %d did not start: %s", i, log)
		}
	}
	stop()
	running.Wait()
	for range logs {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		default: // reported above
		}
	}
}
