package mcpserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// What the server says outside of calls reaches the session it is said in: changes
// of resources and prompts, what is watched, what is logged. A new list of tools is
// none: they stay as they were pinned.
func TestStreamOfASession(t *testing.T) {
	f := start(t)
	up := f.withFull()
	dev := f.at(atFull, "full:read")
	session, _ := f.open(atFull, dev, everything)
	f.RPC(atFull, dev, "resources/subscribe", `{"uri":"doc://one"}`, inSession(session))
	there := up.in("resources/subscribe")
	stream := f.listen(atFull, dev, session)
	for _, said := range []string{
		`{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`,
		`{"jsonrpc":"2.0","method":"notifications/of-tomorrow","params":{}}`,
		`{"jsonrpc":"2.0","id":99,"result":{}}`,
		`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"doc://one","x":1.0}}`,
		`{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}`,
		`{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}`,
		`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":[1.0]}}`,
	} {
		up.session(there).stream <- said
		if strings.Contains(said, "tools/") || strings.Contains(said, "tomorrow") || strings.Contains(said, `"id"`) {
			continue
		}
		if got := stream.next(); got != said {
			t.Errorf("got  %s\nwant %s", got, said)
		}
	}
	for _, header := range up.heard(http.MethodGet)[0].Header {
		if strings.Contains(strings.Join(header, " "), dev) {
			t.Errorf("the server got the token: %s", header)
		}
	}
	stream.close()
	eventually(t, "the stream of the server ends as well", func() bool {
		select {
		case up.session(there).stream <- "x":
		default:
		}
		return len(up.session(there).stream) > 0
	})
}

// The list of tools changes when servers come and go, for those who are offered
// theirs; a stream at the endpoint of a server that goes ends.
func TestStreamTellsOfServers(t *testing.T) {
	f := start(t)
	f.withFull()
	dev, narrow, own := f.dev("mcp:read"), f.dev("full:read"), f.at("/s/fix2/mcp", "fix2:read")
	open := func(path, bearer string) *listening {
		session, _ := f.open(path, bearer, "{}")
		return f.listen(path, bearer, session)
	}
	all, few, gone := open("/mcp", dev), open("/mcp", narrow), open("/s/fix2/mcp", own)
	if a := f.Admin("remove_server", `{"name":"fix2"}`); a.StatusCode != http.StatusOK {
		t.Fatal(a.Text)
	}
	for _, want := range []string{"tools", "resources", "prompts"} {
		if got := all.next(); !strings.Contains(got, want+"/list_changed") {
			t.Errorf("heard %s, want %s", got, want)
		}
	}
	if got := gone.next(); got != "the end" {
		t.Errorf("the stream of a server that went: %s", got)
	}
	if a := f.Admin("remove_server", `{"name":"full"}`); a.StatusCode != http.StatusOK {
		t.Fatal(a.Text)
	}
	if got := few.next(); !strings.Contains(got, "tools/list_changed") { // of fix2 it heard nothing
		t.Errorf("heard %s", got)
	}
}

// A stream needs a token, a session, and an end.
func TestWhoMayListen(t *testing.T) {
	f := start(t)
	dev := f.dev()
	session, _ := f.open("/mcp", dev, "{}")
	get := func(headers ...string) int { return f.Get("/mcp", headers...).StatusCode }
	for name, got := range map[string][2]int{
		"a stranger":        {get("Accept: text/event-stream"), http.StatusUnauthorized},
		"a stranger's":      {get(inSession(session)), http.StatusUnauthorized},
		"without a session": {get("Authorization: Bearer " + dev), http.StatusMethodNotAllowed},
		"with another one":  {get("Authorization: Bearer "+dev, inSession("none")), http.StatusNotFound},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, want %d", name, got[0], got[1])
		}
	}
	first := f.listen("/mcp", dev, session)
	second := f.listen("/mcp", dev, session)
	if got := first.next(); got != "the end" || second.status != http.StatusOK {
		t.Errorf("the older of two streams goes on: %s; the newer: %d", got, second.status)
	}
	var last *listening
	for range 64 {
		other, _ := f.open("/mcp", dev, "{}")
		last = f.listen("/mcp", dev, other)
	}
	if last.status != http.StatusTooManyRequests {
		t.Errorf("one too many: %d", last.status)
	}
	bob := f.token(token.Family{User: "usr_bob"}, 0)
	bobs, _ := f.open("/mcp", bob, "{}")
	if got := f.listen("/mcp", bob, bobs).status; got != http.StatusOK {
		t.Errorf("somebody else: %d", got)
	}
}

// Streams and running calls end when their token does, and streams when the server
// is told to stop, which then need not wait for them.
func TestStreamsEnd(t *testing.T) {
	f := start(t)
	up, dev := f.waits(), f.token(token.Family{}, 0)
	session, _ := f.open("/mcp", dev, "{}")
	stream := f.listen("/mcp", dev, session)
	answers := make(chan int, 1)
	go func() {
		answers <- f.RPC("/mcp", dev, "tools/call", `{"name":"fix_write"}`).StatusCode
	}()
	soon(t, "the call", up.began)
	var claims token.Claims
	if c, err := f.mint.Verify(dev); err != nil {
		t.Fatal(err)
	} else {
		claims = c
	}
	err := f.db.Do(t.Context(), func(tx *store.Tx) error {
		_, err := f.mint.RevokeFamily(tx, claims.Family, "test")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.next(); got != "the end" {
		t.Errorf("the stream of a revoked token: %s", got)
	}
	soon(t, "the end at the server", up.ended)
	if got := soon(t, "the answer", answers); got != http.StatusUnauthorized {
		t.Errorf("the call of a revoked token: %d", got)
	}

	other := f.dev()
	session, _ = f.open("/mcp", other, "{}")
	stream = f.listen("/mcp", other, session)
	began := time.Now()
	if err := f.Stop(); err != nil {
		t.Error(err)
	}
	if got := stream.next(); got != "the end" || time.Since(began) > 15*time.Second {
		t.Errorf("the stream at the end: %s, after %v", got, time.Since(began))
	}
}
