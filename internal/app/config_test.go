package app

import (
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"

	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// load is Load without what this computer may hold in the usual places.
func load(flags map[string]string, environ ...string) (Config, error) {
	if flags == nil {
		flags = map[string]string{}
	}
	if _, named := flags["config"]; !named {
		flags["config"] = ""
	}
	c, err := Load(flags, environ)
	c.Source = Source{}
	return c, err
}

func TestDefaults(t *testing.T) {
	c, err := load(nil, "XDG_DATA_HOME=/data")
	want := Config{
		Listen: "localhost:3000", DataDir: "/data/gatehouse", Database: "sqlite:/data/gatehouse/gatehouse.db", MasterKeyFile: "/data/gatehouse/master.key",
		Registration: "open", CIMD: "open", RedirectSchemes: []string{"cursor", "vscode", "vscode-insiders", "windsurf", "claude", "zed"}, EndpointStyle: "oauth",
		LogLevel: "info", Drain: 25 * time.Second, ReuseWindow: time.Minute, SigningAlg: "ES256", SigningKeyLife: 90 * 24 * time.Hour,
		AuthorizeLimit: throttle.Limit{Each: 300, All: 3000, Per: time.Minute}, RegisterLimit: throttle.Limit{Each: 600, All: 1200, Per: time.Hour},
		SignInLimit: throttle.Limit{Each: 100, All: 3000, Per: 10 * time.Minute}, TypedCodeLimit: throttle.Limit{Each: 30, All: 3000, Per: 15 * time.Minute},
		FailureLimit: throttle.Limit{Each: 600, Per: time.Minute}, StrangerLimit: throttle.Limit{Each: 1200, Per: time.Minute},
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
	if c, _ := load(nil, "HOME=/home/dana"); c.DataDir != filepath.Join("/home/dana", ".local", "share", "gatehouse") {
		t.Errorf("data in %s", c.DataDir)
	}
}

func TestFlagsWinOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	file := write(t, "listen: localhost:3\npublic_url: http://localhost:3\nmaster_key_file: /file.key\ndatabase: postgres://file/db\n")
	c, err := load(map[string]string{"config": file, "listen": "localhost:2", "dev": "true"},
		"GATEHOUSE_LISTEN=localhost:1", "GATEHOUSE_DEV=false", "GATEHOUSE_DATABASE=postgres://h/db", "GATEHOUSE_DATA_DIR=/env", "HOME=/x")
	want, _ := load(nil) // for what nobody set
	want.Listen, want.PublicURL, want.DataDir = "localhost:2", "http://localhost:3", "/env"
	want.Database, want.MasterKeyFile, want.Dev = "postgres://h/db", "/file.key", true
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
}

// The public address is compared with what clients and browsers send, so it has
// their spelling.
func TestPublicAddressIsSpeltAsClientsDo(t *testing.T) {
	for given, want := range map[string]string{
		"https://gatehouse.example.org":      "https://gatehouse.example.org",
		"https://gatehouse.example.org/":     "https://gatehouse.example.org",
		"HTTPS://GateHouse.Example.ORG":      "https://gatehouse.example.org",
		"https://gatehouse.example.org:443":  "https://gatehouse.example.org",
		"https://gatehouse.example.org:8443": "https://gatehouse.example.org:8443",
		"http://localhost:80/":               "http://localhost",
		"http://[::1]:3000":                  "http://[::1]:3000",
	} {
		if c, err := load(map[string]string{"public-url": given}); err != nil || c.PublicURL != want {
			t.Errorf("%s became %s, %v", given, c.PublicURL, err)
		}
	}
}

func TestServerWithoutAPublicAddressIsWhereItListens(t *testing.T) {
	for _, tt := range []struct{ asked, listens, want string }{
		{"localhost:0", "127.0.0.1:3000", "http://localhost:3000"},
		{"localhost:80", "127.0.0.1:80", "http://localhost"},
		{"127.0.0.1:3000", "127.0.0.1:3000", "http://127.0.0.1:3000"}, // [::1]:3000 may be somebody else's
		{"[::1]:3000", "[::1]:3000", "http://[::1]:3000"},
	} {
		if got := (Config{Listen: tt.asked}).localAddress(tt.listens); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.asked, got, tt.want)
		}
	}
}

// What cannot be meant is refused before anything starts, with the cure.
func TestFaultsOfTheConfiguration(t *testing.T) {
	for _, tt := range []struct {
		name    string
		flags   map[string]string
		environ []string
		says    string
	}{
		{"dev is no word", nil, []string{"GATEHOUSE_DEV=1"}, "GATEHOUSE_DEV: it is either true or false"},
		{"no address", map[string]string{"listen": "3000"}, nil, "--listen: 3000 is not HOST:PORT"},
		{"public bind by name", map[string]string{"listen": "0.0.0.0:3000"}, nil, "--listen: 0.0.0.0:3000 can be reached from other computers"}, // C28
		{"public bind of all", map[string]string{"listen": ":3000"}, nil, "can be reached from other computers"},
		{"public bind of IPv6", map[string]string{"listen": "[::]:3000"}, nil, "can be reached from other computers"},
		{"public bind in the LAN", map[string]string{"listen": "192.168.1.2:3000"}, nil, "can be reached from other computers"},
		{"http off loopback", map[string]string{"public-url": "http://gatehouse.example.org"}, nil, "http is for this computer only"}, // attack 110
		{"http beside loopback", map[string]string{"public-url": "http://localhost.example.org"}, nil, "http is for this computer only"},
		{"dev in public", map[string]string{"public-url": "https://gatehouse.example.org", "dev": "true"}, nil, "development mode never leaves this computer"}, // R317
		{"no scheme", map[string]string{"public-url": "gatehouse.example.org"}, nil, "is not an address like"},
		{"other scheme", map[string]string{"public-url": "ftp://gatehouse.example.org"}, nil, "is not an address like"},
		{"path", map[string]string{"public-url": "https://example.org/gatehouse"}, nil, "is not an address like"},
		{"query", map[string]string{"public-url": "https://example.org?"}, nil, "is not an address like"},
		{"fragment", map[string]string{"public-url": "https://example.org#"}, nil, "is not an address like"},
		{"user", map[string]string{"public-url": "https://a:b@example.org"}, nil, "is not an address like"},
		{"no host", map[string]string{"public-url": "https://:443"}, nil, "is not an address like"},
		{"every origin", nil, []string{"GATEHOUSE_ALLOWED_ORIGINS=*"}, "GATEHOUSE_ALLOWED_ORIGINS: name each origin"}, // R736
		{"no origin", nil, []string{"GATEHOUSE_ALLOWED_ORIGINS=https://a.example/x"}, "is not an origin like"},
		{"origin null", nil, []string{"GATEHOUSE_ALLOWED_ORIGINS=null"}, "is not an origin like"},
		{"no network", nil, []string{"GATEHOUSE_TRUSTED_PROXIES=10.0.0.0/8,proxy"}, "proxy is neither an address nor a network"},
		{"issuer with a path", nil, []string{"GATEHOUSE_ISSUER_URL=https://example.org/auth"}, "is not an address like"}, // R115
		{"issuer in the clear", nil, []string{"GATEHOUSE_ISSUER_URL=http://auth.example.org"}, "http is for this computer only"},
		{"dev with a public issuer", map[string]string{"dev": "true"}, []string{"GATEHOUSE_ISSUER_URL=https://auth.example.org"}, "development mode never leaves this computer, but issuer_url is"},
		{"a scheme that runs code", nil, []string{"GATEHOUSE_REDIRECT_SCHEMES=cursor,javascript"}, "javascript is not a scheme that an app can have"}, // attack 7
		{"http for a scheme", nil, []string{"GATEHOUSE_REDIRECT_SCHEMES=http"}, "http is not a scheme"},
		{"a scheme in upper case", nil, []string{"GATEHOUSE_REDIRECT_SCHEMES=Cursor"}, "Cursor is not a scheme"},
		{"a scheme with slashes", nil, []string{"GATEHOUSE_REDIRECT_SCHEMES=cursor://"}, "cursor:// is not a scheme"},
		{"registration by whom", nil, []string{"GATEHOUSE_REGISTRATION=maybe"}, "it is one of open, token, off"},
		{"Valkey by another scheme", nil, []string{"GATEHOUSE_LIMITS__VALKEY=https://h:6379"}, "GATEHOUSE_LIMITS__VALKEY: it is not an address like valkey://"},
		{"Valkey without a scheme", nil, []string{"GATEHOUSE_LIMITS__VALKEY=localhost:6379"}, "it is not an address like valkey://"},
		{"Valkey that TLS does not prove", nil, []string{"GATEHOUSE_LIMITS__VALKEY=rediss://h:6379?skip_verify=true"}, "it is not an address like valkey://"},
		{"an authority of no Valkey", nil, []string{"GATEHOUSE_LIMITS__VALKEY_CA_FILE=/nowhere/ca"}, "GATEHOUSE_LIMITS__VALKEY_CA_FILE: it is for limits.valkey, which is not set"},
		{"an authority without TLS", nil, []string{"GATEHOUSE_LIMITS__VALKEY=valkey://h", "GATEHOUSE_LIMITS__VALKEY_CA_FILE=/x/ca"}, "GATEHOUSE_LIMITS__VALKEY: an authority for its certificate is of no use without TLS"},
		{"Valkey with a user only", nil, []string{"GATEHOUSE_LIMITS__VALKEY=valkey://hunter2@h:6379"}, "what stands before the @ has no password"},
		{"a database by another name", map[string]string{"database": "host=db user=u password=hunter2"}, nil, "--database: it is neither sqlite:PATH nor postgres://…"},
		{"no path of a database", nil, []string{"GATEHOUSE_DATABASE=sqlite:"}, "GATEHOUSE_DATABASE: it is neither"},
		{"PostgreSQL without a key", map[string]string{"database": "postgres://localhost/db"}, nil, "master_key_file: with PostgreSQL every node needs the same key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(tt.flags, tt.environ...)
			p := problem.From(err)
			if !problem.Is(err, configInvalid) || p.Kind != problem.Invalid || !strings.Contains(p.Why, tt.says) || p.Fix == "" || strings.Contains(p.Why, "password=hunter2") {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	file := write(t, "lisen: localhost:1\nlisten: x\n")
	_, err := load(map[string]string{"config": file, "dev": "maybe", "database": "postgres://h/d"}, "GATEHOUSE_PUBLIC_URL=http://example.org")
	why := problem.From(err).Why
	for _, part := range []string{
		file + ":1: lisen is not a setting; did you mean listen?", "--dev: it is either", file + ":2: listen: x is not", "GATEHOUSE_PUBLIC_URL: http is", "master_key_file: with",
	} {
		if !strings.Contains(why, part) {
			t.Errorf("%s is missing in:\n%s", part, why)
		}
	}
	if n := strings.Count(why, "\n"); n != 4 {
		t.Errorf("%d lines:\n%s", n+1, why)
	}
}

// R631: what looks like a setting and is none is reported as ignored, and so is
// the development mode of other products.
func TestIgnoredVariablesAreReported(t *testing.T) {
	for entry, says := range map[string]string{
		"GATEHOUSE_LISTN=x":           "GATEHOUSE_LISTN is ignored, because there is no such setting; did you mean GATEHOUSE_LISTEN?",
		"GATEHOUSE_PUBLICURL=x":       "GATEHOUSE_PUBLICURL is ignored, because there is no such setting; did you mean GATEHOUSE_PUBLIC_URL?",
		"GATEHOUSE_SERVERS=x":         "GATEHOUSE_SERVERS is ignored, because there is no such setting",
		"GATEHOUSE_FROBNICATE=x":      "GATEHOUSE_FROBNICATE is ignored, because there is no such setting",
		"DEV_MODE=true":               "DEV_MODE is ignored; development mode is gatehouse serve --dev",
		"DEV_MODE=":                   "DEV_MODE is ignored; development mode is gatehouse serve --dev",
		"MCP_DEV_MODE=1":              "MCP_DEV_MODE is ignored; development mode is gatehouse serve --dev",
		"GATEHOUSE_DEV_MODE=yes":      "GATEHOUSE_DEV_MODE is ignored; development mode is gatehouse serve --dev",
		"GATEHOUSE_MCP_DEV_MODE=true": "GATEHOUSE_MCP_DEV_MODE is ignored; development mode is gatehouse serve --dev",
		// Those of others are none of our business: the client's credential, those of
		// tests, those that Kubernetes makes of a service's name.
		"GATEHOUSE_TOKEN=t": "", "GATEHOUSE_TEST_POSTGRES=x": "", "GATEHOUSE_SERVICE_HOST=10.0.0.1": "", "GATEHOUSE_PORT_3000_TCP=tcp://10.0.0.1:3000": "",
		"GATEHOUSE_PORT=x": "", "GATEHOUSE_CONFIG=": "", "PATH=/bin": "", "MY_GATEHOUSE_X=1": "", "MY_DEV_MODE=1": "", "GATEHOUSE_LISTEN=localhost:1": "",
	} {
		c, err := Load(map[string]string{"config": ""}, []string{entry})
		if got := strings.Join(c.Source.Ignored, "\n"); err != nil || c.Dev || !strings.HasPrefix(got, says) || (says == "") != (got == "") {
			t.Errorf("%s: %q, %v", entry, got, err)
		}
	}
}

// samples are values that the settings can have, other than their defaults.
var samples = map[string]string{
	"listen": "localhost:7", "public_url": "https://example.org", "data_dir": "/x", "database": "sqlite:/x", "master_key_file": "/x", "dev": "true", "compat.poc": "true",
	"tls.cert_file": "/x", "tls.key_file": "/x", "trusted_proxies": "10.1.0.0/16", "allowed_origins": "https://app.example",
	"issuer_url": "https://auth.example", "cimd": "allowlist", "cimd_allow": "app.example", "outbound_allow": "10.1.0.0/16", "registration": "off", "redirect_schemes": "com.example.app", "exact_redirects": "true", "require_resource": "true", "require_pushed_requests": "true", "endpoint_style": "mcp",
	"log.level": "warn", "log.format": "json", "drain": "7s", "refresh_reuse_window": "30m",
	"external.issuers": "https://idp.example/realm", "external.audiences": "gatehouse", "external.rank_claim": "groups", "external.admins": "admins", "external.standards": "staff",
	"external.client_id": "gatehouse", "external.client_secret_file": "/x",
	"limits.authorize": "1/2/3s", "limits.register": "1/2/3s", "limits.sign_in": "1/2/3s", "limits.typed_codes": "1/2/3s", "limits.failures": "1/2/3s", "limits.strangers": "1/2/3s", "limits.valkey": "valkey://localhost:6379/2", "limits.valkey_ca_file": "/x/ca.crt",
	"signing_alg": "EdDSA", "signing_key_life": "720h", "opaque_tokens": "tickets", "dpop_nonce": "true",
}

// together are variables that a setting makes no sense without.
var together = map[string][]string{
	"limits.valkey_ca_file": {"GATEHOUSE_LIMITS__VALKEY=rediss://h"},
	"compat.poc":            {"GATEHOUSE_DEV=true"}, "cimd_allow": {"GATEHOUSE_CIMD=allowlist"}, "tls.cert_file": {"GATEHOUSE_TLS__KEY_FILE=/y"}, "tls.key_file": {"GATEHOUSE_TLS__CERT_FILE=/y"},
	"external.audiences": {anIssuer}, "external.rank_claim": {anIssuer},
	"external.admins": {anIssuer, "GATEHOUSE_EXTERNAL__RANK_CLAIM=c"}, "external.standards": {anIssuer, "GATEHOUSE_EXTERNAL__RANK_CLAIM=c"},
	"external.client_id": {anIssuer, "GATEHOUSE_EXTERNAL__CLIENT_SECRET_FILE=/y"}, "external.client_secret_file": {anIssuer, "GATEHOUSE_EXTERNAL__CLIENT_ID=y"},
}

const anIssuer = "GATEHOUSE_EXTERNAL__ISSUERS=https://idp.example"

// One value, given in any way, is the same.
func TestEverySettingHasItsSpellings(t *testing.T) {
	for _, s := range settings {
		if s.isMapping() {
			continue // the file alone has it: TestServersOfTheFile
		}
		value, with := samples[s.key], together[s.key]
		key, tail := s.key, ": "+value+"\n"
		if above, below, nested := strings.Cut(s.key, "."); nested {
			key, tail = above, ":\n  "+below+": "+value+"\n"
		}
		byEnv, err1 := load(nil, append(with, s.env()+"="+value)...)
		byFile, err2 := load(map[string]string{"config": write(t, key+tail)}, with...)
		if err1 != nil || err2 != nil || !reflect.DeepEqual(byEnv, byFile) {
			t.Errorf("%s: %+v, %v; %+v, %v", s.key, byEnv, err1, byFile, err2)
		}
		if byFlag, err := load(map[string]string{s.flagName(): value}, with...); s.flag && (err != nil || !reflect.DeepEqual(byFlag, byFile)) {
			t.Errorf("--%s: %+v, %v", s.flagName(), byFlag, err)
		}
		if none, _ := load(nil, with...); reflect.DeepEqual(none, byEnv) {
			t.Errorf("%s sets nothing", s.key)
		}
	}
}

func TestListsOfTheEnvironmentAndTheFile(t *testing.T) {
	want := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("192.0.2.7/32")}
	for name, c := range map[string]Config{
		"environment": must(load(nil, "GATEHOUSE_TRUSTED_PROXIES=127.0.0.1, 10.1.2.3/8,fd00::1/8 ::ffff:192.0.2.7")),
		"file":        must(load(map[string]string{"config": write(t, "trusted_proxies:\n- 127.0.0.1\n- 10.1.2.3/8\n- fd00::1/8\n- ::ffff:192.0.2.7\n")})),
	} {
		if !slices.Equal(c.TrustedProxies, want) {
			t.Errorf("%s: %v", name, c.TrustedProxies)
		}
	}
	c := must(load(nil, "GATEHOUSE_ALLOWED_ORIGINS=HTTPS://App.example:443,http://localhost:5173"))
	if !slices.Equal(c.AllowedOrigins, []string{"https://app.example", "http://localhost:5173"}) {
		t.Errorf("%q", c.AllowedOrigins)
	}
}

func must(c Config, err error) Config {
	if err != nil {
		panic(err)
	}
	return c
}

// C28: what others can reach speaks TLS, or stands behind a proxy that does.
func TestPublicBindNeedsTLS(t *testing.T) {
	listen, url, proxy := "GATEHOUSE_LISTEN=0.0.0.0:443", "GATEHOUSE_PUBLIC_URL=https://gw.example", "GATEHOUSE_TRUSTED_PROXIES=10.0.0.0/8"
	cert, key := "GATEHOUSE_TLS__CERT_FILE=/c", "GATEHOUSE_TLS__KEY_FILE=/k"
	for _, tt := range []struct {
		environ []string
		says    string // part of the refusal; empty if there is none
	}{
		{[]string{listen, url, proxy}, ""},
		{[]string{listen, url, cert, key}, ""},
		{[]string{listen, url, proxy, cert, key}, ""},
		{[]string{cert, key}, ""}, // this computer only
		{[]string{listen}, "without TLS"},
		{[]string{listen, url}, "without TLS"},
		{[]string{listen, proxy}, "without TLS"},
		{[]string{listen, proxy, "GATEHOUSE_PUBLIC_URL=http://localhost:3000"}, "without TLS"},
		{[]string{listen, url, cert}, "tls.key_file: a certificate needs its key"},
		{[]string{listen, url, key}, "tls.cert_file: a key needs its certificate"},
		{[]string{listen, cert, key}, "public_url: other computers reach this server"},
		{[]string{cert, key, "GATEHOUSE_PUBLIC_URL=http://localhost:3000"}, "begins with https"},
		{[]string{listen, cert, key, "GATEHOUSE_PUBLIC_URL=http://gw.example"}, "http is for this computer only"},
		// R317: nor does development mode meet anybody else.
		{[]string{listen, cert, key, "GATEHOUSE_DEV=true", "GATEHOUSE_PUBLIC_URL=https://localhost"}, "development mode never leaves this computer, but listen is"},
		{[]string{proxy, "GATEHOUSE_DEV=true"}, "development mode never leaves this computer, but trusted_proxies"},
	} {
		_, err := load(nil, tt.environ...)
		why := ""
		if err != nil {
			why = problem.From(err).Why
		}
		if !strings.Contains(why, tt.says) || (tt.says == "") != (why == "") {
			t.Errorf("%s: %q", tt.environ, why)
		}
	}
	_, err := load(nil, listen)
	for _, way := range []string{"localhost", "tls.cert_file", "trusted_proxies"} {
		if !strings.Contains(problem.From(err).Why, way) {
			t.Errorf("%s is not offered: %v", way, problem.From(err).Why)
		}
	}
}

// Attack 108: which Host and Origin belong to us.
func TestOwnNamesAndOrigins(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	got := hosts(Config{PublicURL: "https://gatehouse.example.org", IssuerURL: "https://auth.example.org:8443"}, l)
	if !slices.Equal(got, []string{"gatehouse.example.org", "auth.example.org:8443", "localhost:" + port, "127.0.0.1:" + port, "[::1]:" + port}) {
		t.Errorf("%s", got)
	}
	for _, tt := range []struct {
		public, origin string
		ok             bool
	}{
		{"https://gatehouse.example.org", "https://gatehouse.example.org", true},
		{"https://gatehouse.example.org", "http://gatehouse.example.org", false},
		{"https://gatehouse.example.org", "https://gatehouse.example.org:8443", false},
		{"https://gatehouse.example.org", "https://evil.example", false},
		{"https://gatehouse.example.org", "http://localhost:5173", false},
		{"https://gatehouse.example.org", "null", false},
		{"http://localhost:3000", "http://localhost:3000", true},
		{"http://localhost:3000", "http://127.0.0.1:5173", true},
		{"http://localhost:3000", "http://[::1]:5173", true},
		{"http://localhost:3000", "http://localhost.evil.example", false},
		{"http://localhost:3000", "http://evil.example#localhost", false},
		{"http://localhost:3000", "http://localhost@evil.example", false},
		{"http://localhost:3000", "http://localhost/x", false},
		{"http://localhost:3000", "file://", false},
		{"http://localhost:3000", "null", false},
		{"http://localhost:3000", "", false},
		// R736: the operator's list, to the letter.
		{"https://gatehouse.example.org", "https://app.example", true},
		{"http://localhost:3000", "http://intranet:8080", true},
		{"https://gatehouse.example.org", "http://app.example", false},
		{"https://gatehouse.example.org", "https://app.example:8443", false},
		{"https://gatehouse.example.org", "https://app.example.evil.example", false},
		{"https://gatehouse.example.org", "https://app.example/", false},
	} {
		c := Config{PublicURL: tt.public, AllowedOrigins: []string{"https://app.example", "http://intranet:8080"}}
		if got := c.mayCall(tt.origin); got != tt.ok {
			t.Errorf("at %s the origin %q: %v", tt.public, tt.origin, got)
		}
	}
}
