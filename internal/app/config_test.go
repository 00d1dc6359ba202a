package app

import (
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
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
	want := Config{
		Listen: "localhost:2", PublicURL: "http://localhost:3", DataDir: "/env", Database: "postgres://h/db", MasterKeyFile: "/file.key", Dev: true,
	}
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
		addr, err := net.ResolveTCPAddr("tcp", tt.listens)
		if err != nil {
			t.Fatal(err)
		}
		if got := localAddress(tt.asked, addr); got != tt.want {
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
		{"PostgreSQL without a key", map[string]string{"database": "postgres://localhost/db"}, nil, "master_key_file: with PostgreSQL every node needs the same key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(tt.flags, tt.environ...)
			p := problem.From(err)
			if !problem.Is(err, configInvalid) || p.Kind != problem.Invalid || !strings.Contains(p.Why, tt.says) || p.Fix == "" {
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
	"listen": "localhost:7", "public_url": "http://localhost:7", "data_dir": "/x", "database": "sqlite:/x", "master_key_file": "/x", "dev": "true",
}

// One value, given in any way, is the same.
func TestEverySettingHasItsSpellings(t *testing.T) {
	none, _ := load(nil)
	for _, s := range settings {
		value := samples[s.key]
		key, tail := s.key, ": "+value+"\n"
		if above, below, nested := strings.Cut(s.key, "."); nested {
			key, tail = above, ":\n  "+below+": "+value+"\n"
		}
		byEnv, err1 := load(nil, s.env()+"="+value)
		byFile, err2 := load(map[string]string{"config": write(t, key+tail)})
		if err1 != nil || err2 != nil || !reflect.DeepEqual(byEnv, byFile) {
			t.Errorf("%s: %+v, %v; %+v, %v", s.key, byEnv, err1, byFile, err2)
		}
		if byFlag, err := load(map[string]string{s.flagName(): value}); s.flag && (err != nil || !reflect.DeepEqual(byFlag, byFile)) {
			t.Errorf("--%s: %+v, %v", s.flagName(), byFlag, err)
		}
		if reflect.DeepEqual(none, byEnv) {
			t.Errorf("%s sets nothing", s.key)
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
	got := hosts("https://gatehouse.example.org", l)
	if !slices.Equal(got, []string{"gatehouse.example.org", "localhost:" + port, "127.0.0.1:" + port, "[::1]:" + port}) {
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
	} {
		if got := origins(tt.public)(tt.origin); got != tt.ok {
			t.Errorf("at %s the origin %q: %v", tt.public, tt.origin, got)
		}
	}
}
