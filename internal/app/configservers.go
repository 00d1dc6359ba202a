package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/upstream"
)

// servers takes the MCP servers that the file puts behind the gateway.
func (l *loading) servers(s setting, n *yaml.Node) {
	if isNull(n) {
		return
	}
	l.Servers = map[string]upstream.Spec{}
	for name, value := range l.pairs(n, s.key+".") {
		before := len(l.faults)
		key := s.key + "." + name.Value
		spec, made := l.server(name.Value, key, value)
		if len(l.faults) > before {
			continue
		}
		if err := spec.Check(); err != nil {
			p := problem.From(err)
			l.wrongAt(name, key, ": "+p.Detail+": "+p.Why)
			continue
		}
		l.Servers[name.Value] = spec
		if l.Source.origins[key] = l.at(name); made != "" {
			l.Source.written[key] = made
		}
	}
}

// server takes one of them. made is its address or command as it is written, if
// something was filled in there.
func (l *loading) server(name, key string, n *yaml.Node) (spec upstream.Spec, made string) {
	spec.Name = name
	env := map[string]string{}
	for member, value := range l.pairs(n, key+".") {
		path := key + "." + member.Value
		if member.Value == "env" {
			l.variables(value, path, env)
			continue
		}
		if !slices.Contains([]string{"url", "command", "env_file", "provider"}, member.Value) {
			l.wrongAt(member, path, " is not a setting"+didYouMean(member.Value, []string{"url", "command", "env", "env_file", "provider"}))
			continue
		}
		texts, filled, ok := l.texts(value, path)
		switch {
		case !ok:
		case member.Value == "command":
			if spec.Command = texts; filled {
				made = strings.Join(written(value), " ")
			}
		case len(texts) != 1:
			l.wrongAt(value, path, ": it takes one value")
		case member.Value == "url":
			if spec.URL = texts[0]; filled {
				made = value.Value
			}
		case member.Value == "provider":
			spec.Provider = texts[0]
		default:
			l.envFile(value, path, l.beside("_file", texts[0]), env)
		}
	}
	for name, value := range env {
		if spec.Env == nil {
			spec.Env = map[string]seal.Secret{}
		}
		spec.Env[name] = seal.Hide(value)
	}
	return spec, made
}

// written are the texts of a scalar or a list as they stand in the file.
func written(n *yaml.Node) (texts []string) {
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	for _, item := range n.Content {
		texts = append(texts, item.Value)
	}
	return texts
}

// variables takes the environment of a command. It wins over that of a file.
func (l *loading) variables(n *yaml.Node, key string, env map[string]string) {
	for name, value := range l.pairs(n, key+".") {
		texts, _, ok := l.texts(value, key+"."+name.Value)
		switch {
		case !ok:
		case len(texts) != 1:
			l.wrongAt(value, key+"."+name.Value, ": it takes one value")
		default:
			env[name.Value] = texts[0]
		}
	}
}

// envFile takes lines KEY=VALUE. What the file already has under env stays.
func (l *loading) envFile(n *yaml.Node, key, path string, env map[string]string) {
	text, err := readFile(path)
	if err != nil {
		l.wrongAt(n, key, fmt.Sprintf(": %s can't be read: %v", path, cause(err)))
		return
	}
	found := map[string]string{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			l.wrongAt(n, key, fmt.Sprintf(": line %d of %s is not KEY=VALUE", number, path))
			return
		}
		found[name] = value
	}
	maps.Copy(found, env)
	maps.Copy(env, found)
}
