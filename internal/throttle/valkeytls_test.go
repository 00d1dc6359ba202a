package throttle_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// authority signs certificates that nobody else trusts.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := authority{template, newECKey(t)}
	var err error
	if a.cert, err = x509.ParseCertificate(a.sign(t, template, a.key)); err != nil {
		t.Fatal(err)
	}
	return a
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a authority) sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// behindTLS starts a Redis or Valkey server that speaks TLS only, wants a password, and
// has a certificate of the authority for a name. It is skipped where there is none.
func behindTLS(t *testing.T, a authority, name string) (address string) {
	t.Helper()
	program := ""
	for _, p := range []string{"valkey-server", "redis-server"} {
		if path, err := exec.LookPath(p); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("neither valkey-server nor redis-server is installed here, so TLS to them is not tested")
	}
	dir := t.TempDir()
	key := newECKey(t)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	der := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, key)
	for file, block := range map[string]*pem.Block{
		"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: pkcs8}, "ca": {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	_ = l.Close()
	server := exec.Command(program, "--port", "0", "--tls-port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--requirepass", "hunter2",
		"--tls-cert-file", filepath.Join(dir, "crt"), "--tls-key-file", filepath.Join(dir, "key"), "--tls-ca-cert-file", filepath.Join(dir, "ca"), "--tls-auth-clients", "no")
	var said lines
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	within(t, "listening", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return address
}

// With TLS the server is who it says, by a certificate for its name that the system or
// the operator's own authority vouches for; nothing is told to anybody else, and
// without TLS nothing is told at all.
func TestValkeyBehindTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	address := behindTLS(t, ours, "localhost")
	_, port, _ := net.SplitHostPort(address)
	at := func(url string, roots *x509.CertPool) error {
		t.Helper()
		v, err := throttle.NewValkey(url, "gatehouse-test", roots)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		th := &throttle.Throttle{Valkey: v, Log: slog.New(slog.DiscardHandler), Limits: func(throttle.Group) throttle.Limit { return throttle.Limit{Each: 5, Per: day} }}
		passed(th, "door", "x", 5)
		return th.Share(t.Context())
	}
	for _, scheme := range []string{"rediss", "valkeys"} {
		if err := at(scheme+"://:hunter2@localhost:"+port, ours.pool()); err != nil {
			t.Errorf("%s: %v", scheme, err)
		}
	}
	for name, row := range map[string]struct {
		url   string
		roots *x509.CertPool
		says  string
	}{
		"an authority of others":         {"rediss://:hunter2@localhost:" + port, theirs.pool(), "certificate"},
		"the system's authorities alone": {"rediss://:hunter2@localhost:" + port, nil, "certificate"},
		"another name":                   {"rediss://:hunter2@127.0.0.1:" + port, ours.pool(), "certificate"},
		"a wrong password":               {"rediss://:hunter3@localhost:" + port, ours.pool(), ""},
		"no TLS":                         {"redis://:hunter2@localhost:" + port, nil, ""},
	} {
		if err := at(row.url, row.roots); err == nil || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
