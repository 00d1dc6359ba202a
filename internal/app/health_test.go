package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// inside asks at the admin socket.
func inside(t *testing.T, h *apptest.House, path string) (int, string) {
	t.Helper()
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return app.DialSocket(ctx, h.Dir)
	}}}
	res, err := hc.Get("http://admin" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// R734, R1309: probes are answered whatever name they use, without credentials,
// and tell nothing that a stranger should not know; those inside hear more.
func TestProbes(t *testing.T) {
	apptest.OnEach(t, func(t *testing.T, h *apptest.House) {
		up := httptest.NewServer(http.HandlerFunc(fastUpstream))
		if a := h.Admin("add_server", `{"name":"hidden","url":"`+up.URL+`"}`); a.StatusCode != http.StatusOK {
			t.Fatal(a.Text)
		}
		for _, host := range []string{"", "10.244.0.7:3000", "evil.example"} {
			for path, want := range map[string]string{"/livez": "ok\n", "/readyz": "ok\n", "/readyz?verbose": "[+] database\n[+] migrations\n[+] signing key\n[+] master key\n[+] audit head\n[+] revocations\nok\n"} {
				r := h.Request(http.MethodGet, path, "")
				if host != "" {
					r.Host = host
				}
				if a := h.Do(r); a.StatusCode != http.StatusOK || a.Text != want {
					t.Errorf("%s at %q: %d %s", path, host, a.StatusCode, a.Text)
				}
			}
		}
		var health struct {
			Status, Version, Auth string
			Components            map[string]string
			Transports            []string
		}
		a := h.Get("/health")
		if err := json.Unmarshal([]byte(a.Text), &health); err != nil || health.Status != "ok" || health.Version != app.Version || health.Auth != "development" ||
			health.Components["database"] != "ok" || len(health.Components) != 6 || len(health.Transports) == 0 || strings.Contains(a.Text, "hidden") {
			t.Errorf("%d %s", a.StatusCode, a.Text)
		}
		if status, text := inside(t, h, "/readyz?verbose"); status != http.StatusOK || !strings.Contains(text, "server hidden: ") {
			t.Errorf("inside: %d %s", status, text)
		}
		if a := h.Do(h.Request(http.MethodPost, "/readyz", "")); a.StatusCode == http.StatusOK {
			t.Errorf("POST: %d", a.StatusCode)
		}
		up.Close()
		if a := h.Get("/readyz"); a.StatusCode != http.StatusOK {
			t.Errorf("a server that is down makes us not ready: %s", a.Text)
		}
	}, apptest.Dev)
}

// A node whose tables a newer release has changed, or that cannot write, is not
// ready; who asks from outside learns which check failed, and not why.
func TestNotReady(t *testing.T) {
	for name, spoil := range map[string]func(h *apptest.House){
		"migrations": func(h *apptest.House) {
			h.SQL(`INSERT INTO migration (room, file, checksum, applied_at) VALUES ('token', '9999_new.sql', '', 0)`)
		},
		"database": func(h *apptest.House) { h.SQL(`DROP TABLE lease`) },
	} {
		t.Run(name, func(t *testing.T) {
			h := apptest.Open(t, apptest.Dev)
			if a := h.Get("/readyz"); a.StatusCode != http.StatusOK {
				t.Fatal(a.Text)
			}
			spoil(h)
			var a apptest.Answer
			for range 200 {
				if a = h.Get("/readyz?verbose"); a.StatusCode != http.StatusOK {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			if a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, "[-] "+name+"\n") || !strings.HasSuffix(a.Text, "not ready\n") {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			if _, text := inside(t, h, "/readyz?verbose"); !strings.Contains(text, "[-] "+name+": ") {
				t.Errorf("inside: %s", text)
			}
			if a := h.Get("/health"); a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, `"failing"`) {
				t.Errorf("%d %s", a.StatusCode, a.Text)
			}
			if a := h.Get("/livez"); a.StatusCode != http.StatusOK {
				t.Errorf("alive: %d", a.StatusCode)
			}
			if a := h.Get("/health"); strings.Contains(a.Text, filepath.Dir(h.Dir)) || strings.Contains(a.Text, "lease") {
				t.Errorf("it tells too much: %s", a.Text)
			}
		})
	}
}

// systemd hears when we are ready, and when we stop (sd_notify(3)).
func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "100000")
	told := func() string {
		var b [256]byte
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	h := apptest.Start(t, apptest.Dev)
	heard := map[string]bool{}
	for range 50 {
		if heard[told()] = true; heard["READY=1"] && heard["WATCHDOG=1"] {
			break
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop() }()
	for range 50 {
		if heard[told()] = true; heard["STOPPING=1"] {
			break
		}
	}
	if err := <-stopped; err != nil || !heard["READY=1"] || !heard["WATCHDOG=1"] || !heard["STOPPING=1"] {
		t.Errorf("%v, %v", heard, err)
	}
}
