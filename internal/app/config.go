package app

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// Config is what can be set; gatehouse serve --help says the same in short.
type Config struct {
	Listen        string // address to listen on, HOST:PORT; localhost means 127.0.0.1 and ::1
	PublicURL     string // address at which browsers and clients reach this server; without one, http://localhost:PORT
	DataDir       string // folder for the database, the master key and the admin socket
	Database      string // sqlite:PATH or postgres://…; without one, a SQLite file in the data folder
	MasterKeyFile string // file with the key that seals what is kept at rest; needed with PostgreSQL, the same on every node
	Dev           bool   // development mode: this computer only, everybody is dev@localhost and allows everything
}

// A setting is one field of Config in its two spellings.
type setting struct {
	flag string
	set  func(*Config, string) (why string)
}

var settings = []setting{
	{"listen", func(c *Config, v string) string { c.Listen = v; return "" }},
	{"public-url", func(c *Config, v string) string { c.PublicURL = v; return "" }},
	{"data-dir", func(c *Config, v string) string { c.DataDir = v; return "" }},
	{"database", func(c *Config, v string) string { c.Database = v; return "" }},
	{"master-key-file", func(c *Config, v string) string { c.MasterKeyFile = v; return "" }},
	{"dev", func(c *Config, v string) string {
		c.Dev = v == "true"
		if v != "true" && v != "false" {
			return "it is either true or false"
		}
		return ""
	}},
}

func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
}

const envPrefix = "GATEHOUSE_"

// foreign are variables with our prefix that are no settings of the server: the
// credential of the client side, those of tests, and those that Kubernetes adds
// for a service called gatehouse.
var foreign = []string{"GATEHOUSE_TOKEN", "GATEHOUSE_TEST_", "GATEHOUSE_SERVICE_", "GATEHOUSE_PORT"}

var configInvalid = problem.Code{
	Name: "CONFIG_INVALID", Kind: problem.Invalid,
	Fix: "correct it and start again; gatehouse serve --help lists the settings",
}

// Load makes the configuration of flags that were given, by name, and of the
// environment ("KEY=value"). Flags win. All faults are reported at once.
func Load(flags map[string]string, environ []string) (Config, error) {
	c := Config{Listen: "localhost:3000", DataDir: defaultDataDir()}
	var faults []string
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		key, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(key, envPrefix) || slices.ContainsFunc(foreign, func(f string) bool { return strings.HasPrefix(key, f) }) {
			continue
		}
		i := slices.IndexFunc(settings, func(s setting) bool { return s.env() == key })
		if i < 0 {
			faults = append(faults, unknown(key))
		} else if why := settings[i].set(&c, value); why != "" {
			faults = append(faults, key+": "+why)
		}
	}
	for _, s := range settings {
		if value, given := flags[s.flag]; given {
			if why := s.set(&c, value); why != "" {
				faults = append(faults, "--"+s.flag+": "+why)
			}
		}
	}
	faults = append(faults, c.complete()...)
	if len(faults) > 0 {
		return c, configInvalid.New("the configuration can't be used").WithWhy("%s", strings.Join(faults, "\n        "))
	}
	return c, nil
}

// unknown says that a variable is no setting, and which one may have been meant.
func unknown(key string) string {
	var names []string
	for _, s := range settings {
		names = append(names, s.env())
	}
	if near := Nearest(key, names); near != "" {
		return key + " is not a setting; did you mean " + near + "?"
	}
	return key + " is not a setting"
}

func defaultDataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "gatehouse")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "gatehouse-data"
	}
	return filepath.Join(home, ".local", "share", "gatehouse")
}

// complete fills in what follows from other settings and names what contradicts.
func (c *Config) complete() (faults []string) {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		faults = append(faults, "listen: "+c.Listen+" is not HOST:PORT")
	} else if !isLoopback(host) {
		faults = append(faults, "listen: "+c.Listen+" can be reached from other computers without TLS; listen on localhost and put a proxy that does TLS in front")
	}
	if c.PublicURL != "" {
		faults = append(faults, c.completeURL()...)
	}
	if c.Database == "" {
		c.Database = "sqlite:" + filepath.Join(c.DataDir, "gatehouse.db")
	}
	if c.MasterKeyFile == "" {
		if !strings.HasPrefix(c.Database, "sqlite:") {
			faults = append(faults, "master-key-file: with PostgreSQL every node needs the same key, so name its file")
		}
		c.MasterKeyFile = filepath.Join(c.DataDir, "master.key")
	}
	return faults
}

// completeURL checks the public address and gives it the spelling that browsers
// and clients use, because it is compared with theirs.
func (c *Config) completeURL() (faults []string) {
	u, err := url.Parse(c.PublicURL)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" ||
		strings.ContainsAny(c.PublicURL, "?#") || u.User != nil:
		return []string{"public-url: " + c.PublicURL + " is not an address like https://gatehouse.example.org"}
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		faults = append(faults, "public-url: http is for this computer only; use https")
	case c.Dev && !isLoopback(u.Hostname()):
		faults = append(faults, "dev: development mode never leaves this computer, but public-url is "+c.PublicURL)
	}
	c.PublicURL = address(u.Scheme, strings.ToLower(u.Host))
	return faults
}

// address is an origin as browsers spell it: without the port that goes without
// saying.
func address(scheme, host string) string {
	usual := map[string]string{"http": ":80", "https": ":443"}[scheme]
	return scheme + "://" + strings.TrimSuffix(host, usual)
}

// localAddress is the public address of a server that was told to listen at
// asked, does so at l, and has no other. Only who listens as localhost holds both
// addresses of that name; the other could be somebody else's.
func localAddress(asked string, l net.Addr) string {
	host, port, _ := net.SplitHostPort(l.String()) // of a listener, so it can be split
	if name, _, _ := net.SplitHostPort(asked); name == "localhost" {
		host = name
	}
	return address("http", net.JoinHostPort(host, port))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
