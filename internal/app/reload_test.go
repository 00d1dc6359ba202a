package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// from starts a house with the configuration that a file and flags give. rewrite
// changes the file and tells the process.
func from(t *testing.T, flags map[string]string, text string) (h *apptest.House, rewrite func(text string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	save(t, path, text)
	all := map[string]string{"config": path, "listen": "localhost:0", "data-dir": t.TempDir()}
	for name, value := range flags {
		all[name] = value
	}
	c, err := app.Load(all, nil)
	if err != nil {
		t.Fatal(problem.From(err).Why)
	}
	h = apptest.Start(t, func(into *app.Config) { *into = c })
	return h, func(text string) {
		t.Helper()
		save(t, path, text)
		hangUp(t)
	}
}

func save(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// until waits for something to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 1000 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("after ten seconds still not: %s", what)
}

// What can change at once does so at SIGHUP, what cannot is named, and a file with
// faults changes nothing.
func TestConfigurationIsReadAgain(t *testing.T) {
	h, rewrite := from(t, nil, "allowed_origins: [https://one.example]\n")
	may := func(origin string) bool {
		t.Helper()
		a := h.Do(h.Request(http.MethodOptions, "/mcp", "", "Origin: "+origin, "Access-Control-Request-Method: POST"))
		return a.Header.Get("Access-Control-Allow-Origin") == origin
	}
	if !may("https://one.example") || may("https://two.example") {
		t.Fatal("the list of the file does not hold")
	}
	rewrite("allowed_origins: [https://two.example]\npublic_url: http://localhost:1\ndev: true\n")
	until(t, "the new list holds", func() bool { return may("https://two.example") })
	if may("https://one.example") {
		t.Error("the old list holds too")
	}
	if waiting := h.Log.Wait("some settings change at the next start only", nil); !strings.Contains(waiting, "public_url dev") {
		t.Errorf("not named as waiting: %s", waiting)
	}
	rewrite("allowed_origins: [https://three.example]\nlisen: x\ndev: perhaps\n")
	why := h.Log.Wait("the configuration can't be used; nothing has changed", nil)
	if !strings.Contains(why, "lisen is not a setting") || !strings.Contains(why, "dev: it is either") {
		t.Errorf("not all faults: %s", why)
	}
	if may("https://three.example") || !may("https://two.example") {
		t.Error("a file with faults changed something")
	}
	rewrite("")
	until(t, "the list is empty", func() bool { return !may("https://two.example") })
	if a := h.Get("/oauth/authorize?x"); a.StatusCode == http.StatusSeeOther {
		t.Error("development mode came without a restart")
	}
}

// R218: registration is closed, and opened again, while the server runs.
func TestRegistrationIsClosedWhileRunning(t *testing.T) {
	h, rewrite := from(t, nil, "")
	open := func() bool {
		a := h.PostJSON("/oauth/register", `{"redirect_uris":["`+apptest.Callback+`"]}`)
		return a.StatusCode == http.StatusCreated
	}
	if !open() {
		t.Fatal("closed although nobody said so")
	}
	rewrite("registration: off\n")
	until(t, "registration is closed", func() bool { return !open() })
	rewrite("registration: open\n")
	until(t, "registration is open", open)
}

// Nobody's word is taken any longer than the file says.
func TestTrustEndsWhileRunning(t *testing.T) {
	h, rewrite := from(t, nil, "")
	listed := func() bool {
		return strings.Contains(h.Get("/.well-known/oauth-authorization-server").Text, "grant-type:jwt-bearer")
	}
	answered := func(want string) {
		t.Helper()
		a := h.Form("/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {"x"}})
		if !strings.Contains(a.Text, want) {
			t.Errorf("not %s: %d %s", want, a.StatusCode, a.Text)
		}
	}
	if listed() {
		t.Fatal("somebody's word is taken although nobody said so")
	}
	answered("invalid_client")
	rewrite("trusted_issuers: {ci: {kind: workload, issuer: https://ci.example, subject: build, account: builder}}\n")
	until(t, "its word is taken", listed)
	answered("invalid_grant")
	rewrite("")
	until(t, "its word is not taken", func() bool { return !listed() })
	answered("invalid_client")
}

// A server whose terminal has gone ends, instead of holding its port unseen.
func TestServerEndsWithItsTerminal(t *testing.T) {
	out := &terminal{}
	ended := make(chan error, 1)
	go func() { ended <- app.Run(t.Context(), config(t.TempDir()), out) }()
	if out.Wait("✓ Listening on ", ended) == "" {
		t.Fatal(out.String())
	}
	out.gone.Store(true)
	hangUp(t)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it serves on")
	}
}

// terminal is one that can be closed.
type terminal struct {
	apptest.Log
	gone atomic.Bool
}

func (t *terminal) Write(p []byte) (int, error) {
	if t.gone.Load() {
		return 0, &os.PathError{Op: "write", Path: "/dev/stderr", Err: syscall.EIO}
	}
	return t.Log.Write(p)
}

// Behind a proxy that is named, the address of the client is what the proxy says
// (R1306).
func TestProxyIsNamedWhileRunning(t *testing.T) {
	h, rewrite := from(t, nil, "")
	named := func() bool {
		a := h.Get("/", "X-Forwarded-Host: gw.example") // which is no name of ours
		return a.StatusCode == http.StatusMisdirectedRequest
	}
	if named() {
		t.Fatal("a stranger is believed")
	}
	rewrite("trusted_proxies: [127.0.0.1, '::1']\n")
	until(t, "the proxy is believed", named)
}

// pair writes a certificate for localhost and its key.
func pair(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err1 := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	private, err2 := x509.MarshalPKCS8PrivateKey(key)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	save(t, filepath.Join(dir, "tls.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	save(t, filepath.Join(dir, "tls.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// R1306: the server does TLS itself, 1.2 or later, takes a new certificate without
// a restart, and keeps the old one when the new one cannot be used.
func TestCertificateIsServedAndRenewed(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir, 1)
	h, rewrite := from(t, nil, "tls:\n  cert_file: "+dir+"/tls.crt\n  key_file: "+dir+"/tls.key\n")
	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(h.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if !strings.HasPrefix(h.URL, "https://localhost:") || serial() != 1 {
		t.Fatalf("%s with certificate %d", h.URL, serial())
	}
	old, err := tls.Dial("tcp", strings.TrimPrefix(h.URL, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11})
	if err == nil {
		_ = old.Close()
		t.Error("TLS 1.1 was accepted")
	}
	for name, transport := range map[string]*http.Transport{
		"HTTP/1.1": {TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		"HTTP/2.0": {TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true},
	} {
		h.HTTP.Transport = transport
		if a := h.Get("/.well-known/oauth-authorization-server"); a.Proto != name || !strings.Contains(a.Text, `"issuer":"`+h.URL+`"`) {
			t.Errorf("%s %d %s", a.Proto, a.StatusCode, a.Text)
		}
		if a := h.PostJSON("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"public_info"}}`); a.StatusCode != http.StatusOK {
			t.Errorf("%s: a call with a body: %d %s", name, a.StatusCode, a.Text)
		}
		transport.CloseIdleConnections()
	}
	pair(t, dir, 2)
	hangUp(t)
	until(t, "the new certificate is used", func() bool { return serial() == 2 })
	save(t, filepath.Join(dir, "tls.key"), "no key")
	rewrite("tls:\n  cert_file: " + dir + "/tls.crt\n  key_file: " + dir + "/tls.key\n")
	if why := h.Log.Wait("the new certificate is not used, the old one stays", nil); why == "" || serial() != 2 {
		t.Errorf("%q with certificate %d", why, serial())
	}
}

func TestServerWithABadCertificateDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	c := config(dir)
	c.TLSCertFile, c.TLSKeyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for name, prepare := range map[string]func(){
		"missing": func() {},
		"another's key": func() {
			pair(t, dir, 1)
			cert, _ := os.ReadFile(c.TLSCertFile)
			pair(t, dir, 2)
			save(t, c.TLSCertFile, string(cert))
		},
	} {
		prepare()
		p := problem.From(app.Run(t.Context(), c, &apptest.Log{}))
		if p == nil || p.Name != "CERTIFICATE_UNUSABLE" || p.Why == "" || p.Fix == "" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// Attack 125: what is counted against an address is counted against the client's,
// which it cannot choose; a proxy on this computer excuses nobody.
func TestStrangersAreCountedBehindAProxy(t *testing.T) {
	h, _ := from(t, nil, "trusted_proxies: [127.0.0.1, '::1']\n")
	for _, claims := range []string{"203.0.113.7", "127.0.0.1, 203.0.113.7", "198.51.100.1, 203.0.113.7, 127.0.0.1"} {
		if a := h.RPC("/mcp", "rubbish", "tools/list", "", "X-Forwarded-For: "+claims); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d", claims, a.StatusCode)
		}
	}
	if err := h.Stop(); err != nil { // writes the counts
		t.Fatal(err)
	}
	db := storetest.Open(t, "sqlite:"+filepath.Join(h.Dir, "gatehouse.db"))
	var details string
	err := db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT detail FROM audit_event WHERE workspace = 'system' AND action = 'stranger'`).Scan(&details)
	})
	if err != nil || !strings.Contains(details, "203.0.113.0/24") || !strings.Contains(details, `"3"`) {
		t.Errorf("%s, %v", details, err)
	}
}
