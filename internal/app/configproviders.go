package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// providers takes the authorization servers at which people connect their accounts.
func (l *loading) providers(s setting, n *yaml.Node) {
	if isNull(n) {
		return
	}
	l.Providers = map[string]vault.Provider{}
	for name, value := range l.pairs(n, s.key+".") {
		before := len(l.faults)
		key := s.key + "." + name.Value
		p := l.provider(key, value)
		if len(l.faults) > before {
			continue
		}
		if err := p.Check(name.Value); err != nil {
			l.wrongAt(name, key, ": "+problem.From(err).Why)
			continue
		}
		l.Providers[name.Value] = p
		l.Source.origins[key] = l.at(name)
	}
}

// members are those of a provider; each takes texts.
func members(p *vault.Provider) map[string]any {
	return map[string]any{
		"issuer": &p.Issuer, "authorize_url": &p.AuthorizeURL, "token_url": &p.TokenURL, "revoke_url": &p.RevokeURL,
		"client_id": &p.ClientID, "client_secret": &p.Secret, "client_secret_file": &p.Secret, "client_auth": &p.Auth,
		"scopes": &p.Scopes, "read_scopes": &p.Reads, "write_scopes": &p.Writes, "admin_scopes": &p.Destroys,
		"hosts": &p.Hosts,
	}
}

func (l *loading) provider(key string, n *yaml.Node) vault.Provider {
	p := vault.Provider{Auth: vault.AuthBasic}
	fields := members(&p)
	names := append(slices.Sorted(maps.Keys(fields)), "params")
	for member, value := range l.pairs(n, key+".") {
		path := key + "." + member.Value
		if member.Value == "params" {
			p.Params = map[string]string{}
			l.variables(value, path, p.Params)
			continue
		}
		field, known := fields[member.Value]
		if !known {
			l.wrongAt(member, path, " is not a setting"+didYouMean(member.Value, names))
			continue
		}
		texts, _, ok := l.texts(value, path)
		if list, isList := field.(*[]string); ok && isList {
			*list = texts
			continue
		}
		switch {
		case !ok:
		case len(texts) != 1:
			l.wrongAt(value, path, ": it takes one value")
		case member.Value == "client_secret_file":
			l.secretFile(value, path, texts[0], &p.Secret)
		case member.Value == "client_secret":
			p.Secret = seal.Hide(texts[0])
		default:
			*field.(*string) = texts[0]
		}
	}
	return p
}

// secretFile reads a secret from a file, without the line break at its end.
func (l *loading) secretFile(n *yaml.Node, key, path string, into *seal.Secret) {
	text, err := readFile(l.beside("_file", path))
	if err != nil {
		l.wrongAt(n, key, fmt.Sprintf(": %s can't be read: %v", path, cause(err)))
		return
	}
	*into = seal.Hide(strings.TrimSuffix(string(text), "\n"))
}

// judgeProviders checks that servers name providers that are there, and whose
// credentials may go to them.
func (l *loading) judgeProviders() {
	for _, name := range slices.Sorted(maps.Keys(l.Servers)) {
		spec, key := l.Servers[name], "servers."+name
		if spec.Provider == "" {
			continue
		}
		p, known := l.Providers[spec.Provider]
		if !known {
			l.wrong(key, "there is no provider "+spec.Provider+didYouMean(spec.Provider, slices.Sorted(maps.Keys(l.Providers))))
			continue
		}
		if err := p.CheckAddress(spec.URL); err != nil {
			l.wrong(key, "its address is not among the hosts of the provider "+spec.Provider+", or nobody could keep a credential on the way there")
		}
	}
}

func (c Config) showProviders() (all []Value) {
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		key, p := "providers."+name, c.Providers[name]
		where := p.Issuer
		if p.AuthorizeURL != "" {
			where = hidePassword(p.AuthorizeURL) + " " + hidePassword(p.TokenURL)
		}
		where += " client_id=" + p.ClientID
		if !p.Secret.Empty() {
			where += " client_secret=" + masked
		}
		all = append(all, Value{key, where, c.Source.origins[key]})
	}
	return all
}

func providerSchema() map[string]any {
	text := map[string]any{"type": "string"}
	texts := map[string]any{"type": "array", "items": text}
	one := object("")
	properties := map[string]any{"params": map[string]any{"type": "object", "additionalProperties": text}}
	for name, field := range members(&vault.Provider{}) {
		properties[name] = text
		if _, isList := field.(*[]string); isList {
			properties[name] = texts
		}
	}
	properties["client_auth"] = map[string]any{"type": "string", "enum": []string{vault.AuthBasic, vault.AuthPost}, "default": vault.AuthBasic}
	one["properties"] = properties
	one["required"] = []string{"client_id", "hosts"}
	return one
}
