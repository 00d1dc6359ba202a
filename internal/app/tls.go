package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var certificateUnusable = problem.Code{
	Name: "CERTIFICATE_UNUSABLE", Kind: problem.Invalid,
	Fix:   "give a certificate chain and its key as PEM files, readable for this user: tls.cert_file and tls.key_file",
	About: "the certificate or its key is missing, unreadable, or they do not belong together",
}

// certificate is the pair of files that the server shows itself with. It is read
// again when a file changes, and a new pair that cannot be used leaves the old one
// in place.
type certificate struct {
	certFile, keyFile string

	seen string // what the files looked like when they were read last
	pair atomic.Pointer[tls.Certificate]
}

// CheckTLS says whether the certificate can be used, where one is configured.
func (c Config) CheckTLS() error {
	_, err := c.certificate()
	return err
}

// certificate is nil where none is configured.
func (c Config) certificate() (*certificate, error) {
	if c.TLSCertFile == "" {
		return nil, nil
	}
	pair := &certificate{certFile: c.TLSCertFile, keyFile: c.TLSKeyFile}
	_, err := pair.refresh()
	return pair, err
}

// refresh reads the files if they have changed since the last time. It has one
// caller at a time.
func (c *certificate) refresh() (changed bool, err error) {
	looks := appearance(c.certFile) + appearance(c.keyFile)
	if looks == c.seen {
		return false, nil
	}
	c.seen = looks
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return false, certificateUnusable.New("the certificate %s can't be used", c.certFile).WithWhy("%v", err).Because(err)
	}
	c.pair.Store(&pair)
	return true, nil
}

// appearance tells one state of a file from another without reading it.
func appearance(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Sprint(err)
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size(), ";")
}

// config is how the server does TLS.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

// calm is where the HTTP server complains. A handshake that failed, which any
// stranger can cause as often as he likes, is no warning.
type calm struct{ slog.Handler }

// Handle lowers the level of what strangers cause.
func (c calm) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "http: TLS handshake error") {
		r.Level = slog.LevelDebug
	}
	if !c.Enabled(ctx, r.Level) {
		return nil
	}
	return c.Handler.Handle(ctx, r)
}
