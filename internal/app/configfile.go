package app

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxConfig bounds the file and what it refers to, in bytes.
const maxConfig = 1 << 20

// fromFile reads the configuration file, if there is one.
func (l *loading) fromFile() {
	path, must := l.findFile()
	if path == "" {
		return
	}
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return
	}
	if !must && anybodyWrites(filepath.Dir(path)) {
		l.faults = append(l.faults, fault{"", path + " was found in a folder in which everybody can write, and it says what is run; if it is yours, name it with --config " + path})
		return
	}
	if l.Source.File = path; err != nil {
		l.unreadable("can't be read: %v; name another one with --config or %s", cause(err), configVariable)
		return
	}
	var document, another yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&document); {
	case err == io.EOF: // nothing but comments
	case err != nil:
		l.unreadable("is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	case decoder.Decode(&another) != io.EOF:
		l.unreadable("holds more than one document; leave one")
	default:
		l.mapping(document.Content[0], "")
	}
}

func (l *loading) unreadable(format string, args ...any) {
	l.faults = append(l.faults, fault{"", l.Source.File + " " + fmt.Sprintf(format, args...)})
}

// findFile is the file to read, and whether it was asked for. Where it was not,
// the first of the usual places that holds one is it.
func (l *loading) findFile() (path string, must bool) {
	if path, given := l.Source.flags["config"]; given {
		return path, true
	}
	environ := l.Source.environ
	if path := getenv(environ, configVariable); path != "" {
		return path, true
	}
	const name = "gatehouse.yaml"
	places := []string{name}
	if dir := getenv(environ, "XDG_CONFIG_HOME"); dir != "" {
		places = append(places, filepath.Join(dir, "gatehouse", name))
	} else if home := getenv(environ, "HOME"); home != "" {
		places = append(places, filepath.Join(home, ".config", "gatehouse", name))
	}
	places = append(places, filepath.Join("/etc", "gatehouse", name))
	if i := slices.IndexFunc(places, exists); i >= 0 {
		return places[i], false
	}
	return "", false
}

// anybodyWrites reports whether others may have put a file into the folder.
func anybodyWrites(dir string) bool {
	info, err := os.Stat(dir)
	return err != nil || info.Mode().Perm()&0o002 != 0
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = errors.New("it is longer than a megabyte")
	}
	return text, err
}

// at is the place of a part of the file.
func (l *loading) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", l.Source.File, n.Line) }

// wrongAt notes a fault of a part of the file.
func (l *loading) wrongAt(n *yaml.Node, key, why string) {
	l.faults = append(l.faults, fault{key, l.at(n) + ": " + key + why})
}

// mapping takes one level of the file; prefix is the path to it, with a dot at
// the end.
func (l *loading) mapping(n *yaml.Node, prefix string) {
	if isNull(n) {
		return
	}
	for key, value := range l.pairs(n, prefix) {
		path := prefix + key.Value
		if s, known := find(path); known && s.isMapping() {
			map[string]func(setting, *yaml.Node){"servers": l.servers, "clients": l.clients, "cimd_documents": l.documents, "providers": l.providers, "trusted_issuers": l.trustedIssuers}[s.key](s, value)
		} else if known {
			l.value(s, value)
		} else if isGroup(path) {
			l.mapping(value, path+".")
		} else {
			l.wrongAt(key, path, " is not a setting"+didYouMean(path, keys()))
		}
	}
}

// pairs are the keys of a mapping with their values. What is no mapping, or has a
// key twice, is a fault.
func (l *loading) pairs(n *yaml.Node, prefix string) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			l.wrongAt(n, cmp.Or(strings.TrimSuffix(prefix, "."), "the file"), " holds settings, each as key: value")
			return
		}
		seen := map[string]int{}
		for i := 0; i < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if line := seen[key.Value]; line > 0 {
				l.wrongAt(key, prefix+key.Value, fmt.Sprintf(" is set in line %d already; leave one of them", line))
				continue
			}
			if seen[key.Value] = key.Line; !yield(key, value) {
				return
			}
		}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func keys() (all []string) {
	for _, s := range settings {
		all = append(all, s.key)
	}
	return all
}

// isGroup reports whether settings stand below path.
func isGroup(path string) bool {
	return slices.ContainsFunc(settings, func(s setting) bool { return strings.HasPrefix(s.key, path+".") })
}

// value sets what the file says. Names of files and folders in it are understood
// from where it lies.
func (l *loading) value(s setting, n *yaml.Node) {
	texts, made, ok := l.texts(n, s.key)
	if !ok {
		return
	}
	for i, text := range texts {
		switch database, isSQLite := strings.CutPrefix(text, "sqlite:"); {
		case s.path:
			texts[i] = l.beside(s.key, text)
		case s.key == "database" && isSQLite:
			texts[i] = "sqlite:" + l.beside("", database)
		}
	}
	if l.set(s, l.at(n), texts...); made {
		l.Source.written[s.key] = strings.Join(written(n), ", ")
	}
}

// texts are the text of a scalar or those of a list. made says that a reference
// was filled in.
func (l *loading) texts(n *yaml.Node, key string) (texts []string, made, ok bool) {
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	for _, item := range list {
		if item.Kind != yaml.ScalarNode || isNull(item) {
			l.wrongAt(item, key, " has no value; give it one, or leave the line out")
			return nil, false, false
		}
		text, err := l.expand(item.Value)
		if err != nil {
			l.wrongAt(item, key, ": "+err.Error())
			return nil, false, false
		}
		made = made || text != item.Value
		texts = append(texts, text)
	}
	return texts, made, true
}

// reference stands for the text of a variable or of a file.
var reference = regexp.MustCompile(`\$\{(env|file):([^{}]*)\}`)

// expand fills in what the text refers to.
func (l *loading) expand(text string) (string, error) {
	var faults []string
	text = reference.ReplaceAllStringFunc(text, func(whole string) string {
		part := reference.FindStringSubmatch(whole)
		value, err := l.lookUp(part[1], part[2])
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", whole, err))
		}
		return value
	})
	if len(faults) > 0 {
		return "", errors.New(strings.Join(faults, "; "))
	}
	return text, nil
}

func (l *loading) lookUp(kind, name string) (string, error) {
	if kind == "env" {
		for _, entry := range slices.Backward(l.Source.environ) {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value, nil
			}
		}
		return "", errors.New("this variable is not set")
	}
	text, err := readFile(l.beside("_file", name))
	if err != nil {
		return "", cause(err)
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

// beside is a path that the file names: that of a credential which systemd keeps
// under it, or one that starts where the file lies.
func (l *loading) beside(key, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	if kept := credential(key, path, l.Source.environ); kept != path {
		return kept
	}
	return filepath.Join(filepath.Dir(l.Source.File), path)
}
