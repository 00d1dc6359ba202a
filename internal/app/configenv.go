package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const envPrefix = "GATEHOUSE_"

// env is the variable of the environment, with two underscores between levels.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "__"))
}

func (s setting) flagName() string { return strings.NewReplacer(".", "-", "_", "-").Replace(s.key) }

// foreign are variables with our prefix that are no settings of the server: the
// name of the file, the credential of the client side, those of tests, and those
// that Kubernetes adds for a service called gatehouse.
var foreign = []string{configVariable, "GATEHOUSE_TOKEN", "GATEHOUSE_TEST_", "GATEHOUSE_SERVICE_", "GATEHOUSE_PORT"}

const configVariable = "GATEHOUSE_CONFIG"

// fromEnvironment takes the variables that are settings and says which ones are
// not (R631).
func (l *loading) fromEnvironment() {
	for _, entry := range slices.Sorted(slices.Values(l.Source.environ)) {
		key, value, _ := strings.Cut(entry, "=")
		i := slices.IndexFunc(settings, func(s setting) bool { return s.env() == key && !s.isMapping() })
		switch {
		case i >= 0 && value == "": // says nothing
		case i >= 0:
			l.set(settings[i], key, settings[i].split(value)...)
		case strings.HasSuffix(key, "DEV_MODE") && slices.Contains([]string{"", "MCP_", envPrefix, envPrefix + "MCP_"}, strings.TrimSuffix(key, "DEV_MODE")):
			l.Source.Ignored = append(l.Source.Ignored, key+" is ignored; development mode is gatehouse serve --dev, or GATEHOUSE_DEV=true")
		case strings.HasPrefix(key, envPrefix) && !slices.ContainsFunc(foreign, func(f string) bool { return strings.HasPrefix(key, f) }):
			l.Source.Ignored = append(l.Source.Ignored, key+" is ignored, because there is no such setting"+didYouMean(key, variables()))
		}
	}
}

func variables() (names []string) {
	for _, s := range settings {
		if !s.isMapping() {
			names = append(names, s.env())
		}
	}
	return names
}

func didYouMean(word string, candidates []string) string {
	if near := Nearest(word, candidates); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// getenv is the value of a variable, or "".
func getenv(environ []string, name string) string {
	for _, entry := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// credential is the file that systemd keeps under this name, where it keeps one.
func credential(key, name string, environ []string) string {
	dir := getenv(environ, "CREDENTIALS_DIRECTORY")
	if dir == "" || filepath.IsAbs(name) || !strings.HasSuffix(key, "_file") {
		return name
	}
	if kept := filepath.Join(dir, name); exists(kept) {
		return kept
	}
	return name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
