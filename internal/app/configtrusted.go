package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
)

// Trusted is an issuer whose word is taken, as the file says it.
type Trusted struct {
	authserver.Trusted
	URL, JWKS, File string // JWKS or File say where its keys are; neither: its metadata does
}

// trustedIssuers takes those whose word counts in place of a sign-in or a secret.
func (l *loading) trustedIssuers(s setting, n *yaml.Node) {
	if isNull(n) {
		return
	}
	l.Trusted = map[string]Trusted{}
	for name, value := range l.pairs(n, s.key+".") {
		before := len(l.faults)
		key := s.key + "." + name.Value
		t := l.trustedIssuer(key, value)
		if len(l.faults) > before {
			continue
		}
		if why := t.Check(); why != "" {
			l.wrongAt(name, key, ": "+why)
			continue
		}
		l.Trusted[name.Value] = t
		l.Source.origins[key] = l.at(name)
	}
}

// trustedMembers are those of such an issuer: texts, lists of them, and mappings.
func trustedMembers(t *Trusted) map[string]any {
	return map[string]any{
		"kind": &t.Kind, "issuer": &t.URL, "jwks_uri": &t.JWKS, "jwks_file": &t.File,
		"clients": &t.Clients, "members": &t.Members, "match_email": &t.Emails,
		"account": &t.Account, "audience": &t.Audience, "subject": &t.Subject, "claims": &t.Claims,
	}
}

func (l *loading) trustedIssuer(key string, n *yaml.Node) (t Trusted) {
	fields := trustedMembers(&t)
	for member, value := range l.pairs(n, key+".") {
		path := key + "." + member.Value
		field, known := fields[member.Value]
		if !known {
			l.wrongAt(member, path, " is not a setting"+didYouMean(member.Value, slices.Sorted(maps.Keys(fields))))
			continue
		}
		if mapping, is := field.(*map[string]string); is {
			*mapping = map[string]string{}
			l.variables(value, path, *mapping)
			continue
		}
		texts, _, ok := l.texts(value, path)
		switch field := field.(type) {
		case *[]string:
			*field = texts
		case *bool:
			if *field = slices.Equal(texts, []string{"true"}); ok && !*field && !slices.Equal(texts, []string{"false"}) {
				l.wrongAt(value, path, ": it is either true or false")
			}
		case *string:
			if ok && len(texts) != 1 {
				l.wrongAt(value, path, ": it takes one value")
			} else if ok {
				*field = texts[0]
			}
		}
	}
	l.judgeIssuer(key, n, &t)
	return t
}

// judgeIssuer refuses an issuer that cannot be one, and keys that cannot be found.
func (l *loading) judgeIssuer(key string, n *yaml.Node, t *Trusted) {
	if !isIssuer(t.URL) {
		l.wrongAt(n, key, ".issuer: it is not an address like https://login.example.org")
	}
	switch {
	case t.JWKS != "" && t.File != "":
		l.wrongAt(n, key, ": jwks_uri and jwks_file exclude each other")
	case t.JWKS != "" && !issuer.Reachable(t.JWKS):
		l.wrongAt(n, key, ".jwks_uri: it is not an address like https://login.example.org/keys")
	case t.File != "":
		t.File = l.beside("_file", t.File)
		if err := checkKeys(t.File); err != nil {
			l.wrongAt(n, key, fmt.Sprintf(".jwks_file: the keys in %s can't be used: %v", t.File, cause(err)))
		}
	}
}

// isIssuer reports whether an address can be that of an issuer (RFC 8414 §2).
func isIssuer(address string) bool {
	return issuer.Reachable(address) && !strings.ContainsAny(address, "?#@")
}

func checkKeys(path string) error {
	document, err := readFile(path)
	if err != nil {
		return err
	}
	set, err := jwks.Parse(document)
	if err == nil && set.Empty() {
		err = errors.New("there is no key in it that could verify anything")
	}
	return err
}

// trustedParties are all of them with their keys, in a stable order.
func (c Config) trustedParties() (all []authserver.Trusted) {
	for _, name := range slices.Sorted(maps.Keys(c.Trusted)) {
		t := c.Trusted[name]
		switch {
		case t.JWKS != "":
			t.Issuer = issuer.Keyed(t.URL, jwks.At(t.JWKS))
		case t.File != "":
			t.Issuer = issuer.Keyed(t.URL, &jwks.Source{Fetch: func(context.Context) ([]byte, error) { return readFile(t.File) }})
		default:
			t.Issuer = issuer.New(t.URL, nil)
		}
		all = append(all, t.Trusted)
	}
	return all
}

func (c Config) showTrusted() (all []Value) {
	for _, name := range slices.Sorted(maps.Keys(c.Trusted)) {
		key, t := "trusted_issuers."+name, c.Trusted[name]
		what := t.Kind + " " + t.URL
		if t.Account != "" {
			what += " account=" + t.Account
		}
		all = append(all, Value{key, strings.TrimSpace(what), c.Source.origins[key]})
	}
	return all
}

func trustedSchema() map[string]any {
	text := map[string]any{"type": "string"}
	one := object("")
	properties := map[string]any{}
	for name, field := range trustedMembers(&Trusted{}) {
		switch field.(type) {
		case *[]string:
			properties[name] = map[string]any{"type": "array", "items": text}
		case *map[string]string:
			properties[name] = map[string]any{"type": "object", "additionalProperties": text}
		case *bool:
			properties[name] = map[string]any{"type": "boolean"}
		default:
			properties[name] = text
		}
	}
	properties["kind"] = map[string]any{"type": "string", "enum": []string{authserver.TrustPeople, authserver.TrustWorkloads}}
	one["properties"] = properties
	one["required"] = []string{"kind", "issuer"}
	return one
}
