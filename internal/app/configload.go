package app

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/upstream"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

var configInvalid = problem.Code{
	Name: "CONFIG_INVALID", Kind: problem.Invalid,
	Fix:   "correct it and start again; gatehouse config init writes a file that explains every setting",
	About: "settings are misspelt, impossible, or contradict one another; the error names each",
}

// Source is where the values of a Config came from. A Config that was not made by
// Load has none, and is not read again.
type Source struct {
	File    string   // the file that was read, or ""
	Ignored []string // what was found in the environment and means nothing, one sentence each
	origins map[string]string
	written map[string]string // values of the file that were made of others, as they stand there
	flags   map[string]string
	environ []string
}

// Load makes the configuration of flags that were given, by name, of the
// environment ("KEY=value") and of the file: the one that the flag config or
// GATEHOUSE_CONFIG names, or else the first that is there. Flags win over the
// environment, and that over the file. All faults are reported at once. The flag
// config without a value means no file.
func Load(flags map[string]string, environ []string) (Config, error) {
	l := read(flags, environ)
	return l.Config, l.err()
}

// DataDir is the data folder as Load finds it. Other settings may be wrong; they
// do not matter here.
func DataDir(flags map[string]string, environ []string) (string, error) {
	l := read(flags, environ)
	l.faults = slices.DeleteFunc(l.faults, func(f fault) bool { return f.key != "" && f.key != "data_dir" })
	return l.DataDir, l.err()
}

// loading is a Config that is being made.
type loading struct {
	Config
	faults []fault
}

// A fault is something that is wrong with a setting, or with the file as a whole.
type fault struct{ key, text string }

func read(flags map[string]string, environ []string) *loading {
	l := &loading{Config: Config{Source: Source{origins: map[string]string{}, written: map[string]string{}, flags: flags, environ: environ}}}
	for _, s := range settings {
		if s.preset != "" {
			l.set(s, "default", s.preset)
		}
	}
	l.fromFile()
	l.fromEnvironment()
	for _, s := range settings {
		if value, given := flags[s.flagName()]; given && s.flag {
			l.set(s, "--"+s.flagName(), s.split(value)...)
		}
	}
	l.complete()
	return l
}

func (l *loading) err() error {
	if len(l.faults) == 0 {
		return nil
	}
	var lines []string
	for _, f := range l.faults {
		lines = append(lines, f.text)
	}
	return configInvalid.New("the configuration can't be used").WithWhy("%s", strings.Join(lines, "\n        "))
}

// wrong notes a fault of a setting, under the name by which it was given.
func (l *loading) wrong(key, why string) {
	name := key
	switch origin := l.Source.origins[key]; {
	case l.Source.File != "" && strings.HasPrefix(origin, l.Source.File+":"):
		name = origin + ": " + key
	case origin != "" && origin != "default":
		name = origin
	}
	l.faults = append(l.faults, fault{key, name + ": " + why})
}

// set gives a setting its value and remembers where that came from.
func (l *loading) set(s setting, origin string, texts ...string) {
	l.Source.origins[s.key] = origin
	delete(l.Source.written, s.key)
	if why := s.parse(&l.Config, texts); why != "" {
		l.wrong(s.key, why)
	}
}

// parse puts texts into the field, or says why they cannot be its value.
func (s setting) parse(c *Config, texts []string) (why string) {
	if s.path && len(texts) == 1 {
		texts = []string{credential(s.key, texts[0], c.Source.environ)}
	}
	switch field := s.field(c).(type) {
	case *string:
		if len(texts) != 1 {
			return "it takes one value"
		}
		if s.oneOf != nil && !slices.Contains(s.oneOf, texts[0]) {
			return "it is one of " + strings.Join(s.oneOf, ", ")
		}
		*field = texts[0]
	case *bool:
		if len(texts) != 1 || texts[0] != "true" && texts[0] != "false" {
			return "it is either true or false"
		}
		*field = texts[0] == "true"
	case *time.Duration:
		d, err := time.ParseDuration(strings.Join(texts, " "))
		if err != nil || d < time.Second || d > cmp.Or(s.most, time.Hour) {
			return fmt.Sprintf("it is a time from 1s to %dh, such as %s", cmp.Or(s.most, time.Hour)/time.Hour, s.preset)
		}
		*field = d
	case *throttle.Limit:
		l, err := throttle.ParseLimit(strings.Join(texts, " "))
		if err != nil {
			return err.Error()
		}
		*field = l
	case *[]string:
		*field = texts
	case *[]netip.Prefix:
		*field = nil
		for _, text := range texts {
			network, err := parseNetwork(text)
			if err != nil {
				return text + " is neither an address nor a network like 10.0.0.0/8"
			}
			*field = append(*field, network)
		}
	}
	return ""
}

// parseNetwork reads a network, or an address as a network of its own.
func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	network, err := netip.ParsePrefix(text)
	return network.Masked(), err
}

// isList reports whether the setting takes any number of values.
func (s setting) isList() bool {
	switch s.field(&Config{}).(type) {
	case *[]string, *[]netip.Prefix:
		return true
	}
	return false
}

// isMapping reports whether the setting is a level of its own, which only the file
// can hold.
func (s setting) isMapping() bool {
	switch s.field(&Config{}).(type) {
	case *map[string]upstream.Spec, *map[string]string, *map[string]vault.Provider, *map[string]Trusted, *map[string]authserver.FileClient:
		return true
	}
	return false
}

// split makes a list of what stands in one text, where the setting is a list.
func (s setting) split(value string) []string {
	if !s.isList() {
		return []string{value}
	}
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}

func defaultDataDir(environ []string) string {
	if dir := getenv(environ, "XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "gatehouse")
	}
	if home := getenv(environ, "HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "gatehouse")
	}
	return "gatehouse-data"
}
