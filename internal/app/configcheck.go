package app

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// complete fills in what follows from other settings and names what contradicts.
func (l *loading) complete() {
	c := &l.Config
	if c.DataDir == "" {
		c.DataDir = defaultDataDir(c.Source.environ)
	}
	switch path, lite := strings.CutPrefix(c.Database, "sqlite:"); {
	case c.Database == "":
		c.Database = "sqlite:" + filepath.Join(c.DataDir, "gatehouse.db")
	case path == "" || !lite && !strings.HasPrefix(path, "postgres://") && !strings.HasPrefix(path, "postgresql://"):
		l.wrong("database", "it is neither sqlite:PATH nor postgres://…") // and is not repeated: it may hold a password
	}
	if c.MasterKeyFile == "" {
		if !strings.HasPrefix(c.Database, "sqlite:") {
			l.wrong("master_key_file", "with PostgreSQL every node needs the same key, so name its file")
		}
		c.MasterKeyFile = filepath.Join(c.DataDir, "master.key")
	}
	if c.PublicURL != "" {
		l.judgeAddress("public_url", &c.PublicURL)
	}
	if c.IssuerURL != "" {
		l.judgeAddress("issuer_url", &c.IssuerURL)
	}
	l.judgeSchemes()
	l.judgeDocuments()
	l.judgeClients()
	switch {
	case c.TLSCertFile == "" && c.TLSKeyFile != "":
		l.wrong("tls.cert_file", "a key needs its certificate; name the file")
	case c.TLSCertFile != "" && c.TLSKeyFile == "":
		l.wrong("tls.key_file", "a certificate needs its key; name the file")
	case c.TLSCertFile != "" && strings.HasPrefix(c.PublicURL, "http:"):
		l.wrong("public_url", "with a certificate the server speaks TLS, so the address begins with https")
	case c.TLSCertFile != "" && strings.HasPrefix(c.IssuerURL, "http:"):
		l.wrong("issuer_url", "with a certificate the server speaks TLS, so the address begins with https")
	}
	l.judgeExternal()
	for i := range c.AllowedOrigins {
		l.judgeOrigin(&c.AllowedOrigins[i])
	}
	l.judgeProviders()
	l.judgeValkey()
	l.judgeListen()
	l.judgeDev()
}

// judgeListen refuses to be reached by others in the clear (C28).
func (l *loading) judgeListen() {
	c := &l.Config
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		l.wrong("listen", c.Listen+" is not HOST:PORT")
	case isLoopback(host):
	case c.TLSCertFile == "" && (c.TrustedProxies == nil || !strings.HasPrefix(c.PublicURL, "https:")):
		l.wrong("listen", c.Listen+` can be reached from other computers without TLS. One of these three:
          listen on localhost, with a proxy that does TLS on this computer in front
          give the server a certificate: tls.cert_file and tls.key_file
          say which proxies do TLS in front: trusted_proxies, and a public_url that begins with https`)
	case c.PublicURL == "":
		l.wrong("public_url", "other computers reach this server, so say at which address: https://gatehouse.example.org")
	}
}

// judgeDev keeps development mode on this computer (R317, R630).
func (l *loading) judgeDev() {
	c := &l.Config
	const never = "development mode never leaves this computer, but "
	host, _, _ := net.SplitHostPort(c.Listen) // judged elsewhere
	switch {
	case !c.Dev && c.POC:
		l.wrong("compat.poc", "it is for development mode only; start with --dev, or leave it out")
	case !c.Dev:
	case leaves(c.PublicURL):
		l.wrong("dev", never+"public_url is "+hidePassword(c.PublicURL))
	case leaves(c.IssuerURL):
		l.wrong("dev", never+"issuer_url is "+hidePassword(c.IssuerURL))
	case host != "" && !isLoopback(host):
		l.wrong("dev", never+"listen is "+c.Listen)
	case c.TrustedProxies != nil:
		l.wrong("dev", never+"trusted_proxies lets others in")
	}
}

// leaves reports whether an address is that of another computer.
func leaves(address string) bool {
	u, err := url.Parse(address)
	return err == nil && address != "" && !isLoopback(u.Hostname())
}

// judgeSchemes checks which schemes apps may have beside https.
func (l *loading) judgeSchemes() {
	if l.Source.origins["redirect_schemes"] == "" {
		l.RedirectSchemes = []string{"cursor", "vscode", "vscode-insiders", "windsurf", "claude", "zed"}
	}
	for _, scheme := range l.RedirectSchemes {
		if oauth.CheckRedirect(scheme+"://app", []string{scheme}) != nil {
			l.wrong("redirect_schemes", scheme+" is not a scheme that an app can have, like com.example.app")
		}
	}
}

// judgeAddress checks an address of ours and gives it the spelling that browsers
// and clients use, because it is compared with theirs.
func (l *loading) judgeAddress(key string, value *string) {
	u, ok := parseOrigin(strings.TrimSuffix(*value, "/"))
	if !ok {
		l.wrong(key, hidePassword(*value)+" is not an address like https://gatehouse.example.org")
		return
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) { // attack 110
		l.wrong(key, "http is for this computer only; use https")
	}
	*value = address(u.Scheme, strings.ToLower(u.Host))
}

// judgeOrigin checks the origin of web pages of others.
func (l *loading) judgeOrigin(value *string) {
	u, ok := parseOrigin(*value)
	switch {
	case *value == "*":
		l.wrong("allowed_origins", "name each origin: with * every web page in the world could call")
	case !ok:
		l.wrong("allowed_origins", hidePassword(*value)+" is not an origin like https://app.example.org")
	default:
		*value = address(u.Scheme, strings.ToLower(u.Host))
	}
}

// parseOrigin reads an address that has a scheme, a host, perhaps a port, and
// nothing else.
func parseOrigin(text string) (*url.URL, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.Path != "" || strings.ContainsAny(text, "?#") || u.User != nil {
		return nil, false
	}
	return u, true
}

// address is an origin as browsers spell it: without the port that goes without
// saying.
func address(scheme, host string) string {
	usual := map[string]string{"http": ":80", "https": ":443"}[scheme]
	return scheme + "://" + strings.TrimSuffix(host, usual)
}

// localAddress is the public address of a server that was told to listen at
// c.Listen, does so at listens, and has no other. Only who listens as localhost holds both
// addresses of that name; the other could be somebody else's.
func (c Config) localAddress(listens string) string {
	host, port, _ := net.SplitHostPort(listens) // of a listener, or judged, so it can be split
	if name, _, _ := net.SplitHostPort(c.Listen); name == "localhost" {
		host = name
	}
	scheme := "http"
	if c.TLSCertFile != "" {
		scheme = "https"
	}
	return address(scheme, net.JoinHostPort(host, port))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
