package app

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/web"
)

// judgeValkey checks where the limits are shared. Its authorities are read at the
// start.
func (l *loading) judgeValkey() {
	const key = "limits.valkey"
	var roots *x509.CertPool
	if l.ValkeyCAFile != "" {
		roots = x509.NewCertPool()
	}
	switch _, err := throttle.NewValkey(l.Valkey, "", roots); {
	case l.Valkey == "" && roots != nil:
		l.wrong("limits.valkey_ca_file", "it is for limits.valkey, which is not set")
	case l.Valkey != "" && err != nil:
		l.wrong(key, err.Error())
	}
	u, err := url.Parse(l.Valkey)
	inFile := strings.HasPrefix(l.Source.origins[key], l.Source.File+":") && l.Source.written[key] == ""
	if err == nil && u.User != nil && inFile {
		l.wrong(key, "a password does not stand in the file itself; say ${env:NAME} or ${file:NAME}")
	}
}

// valkey is the server through which the limits are shared, where it is not the
// database. Installations at one server count apart, because they have addresses of
// their own.
func (c Config) valkey() (*throttle.Valkey, error) {
	if c.Valkey == "" {
		return nil, nil
	}
	roots, err := authorities(c.ValkeyCAFile)
	if err != nil {
		return nil, err
	}
	v, err := throttle.NewValkey(c.Valkey, "gatehouse:"+c.IssuerURL, roots)
	if err != nil {
		err = fmt.Errorf("limits.valkey: %w", err)
	}
	return v, err
}

// authorities are the certificates of a file, PEM; those of the system, nil, if none is
// named.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("limits.valkey_ca_file: %s can't be read: %w", file, cause(err))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("limits.valkey_ca_file: %s holds no certificate, PEM", file)
	}
	return roots, nil
}

// limit is how often what belongs to a group may happen, as it is set now (R1314).
func (h *house) limit(g throttle.Group) throttle.Limit {
	c := h.live.Load()
	return map[throttle.Group]throttle.Limit{
		authserver.Authorizations: c.AuthorizeLimit,
		authserver.Registrations:  c.RegisterLimit,
		authserver.Failures:       c.FailureLimit,
		authserver.Guesses:        c.TypedCodeLimit,
		throttle.Strangers:        c.StrangerLimit,
		web.SignIns:               c.SignInLimit,
		web.Letters:               {Each: 10, Per: 15 * time.Minute}, // as long as a link works
	}[g]
}
