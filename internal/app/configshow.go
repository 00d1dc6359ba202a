package app

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// A Flag is a setting that gatehouse serve takes as a flag.
type Flag struct {
	Name, Usage string
	Bool        bool
}

// Flags are those of gatehouse serve, besides the one that names the file.
func Flags() (flags []Flag) {
	for _, s := range settings {
		if !s.flag {
			continue
		}
		_, yesOrNo := s.field(&Config{}).(*bool)
		usage, _, _ := strings.Cut(s.doc, ".")
		first, size := utf8.DecodeRuneInString(usage)
		usage = string(unicode.ToLower(first)) + usage[size:]
		if without := cmp.Or(s.preset, s.absent); !yesOrNo {
			usage += " (default " + without + ")"
		}
		flags = append(flags, Flag{s.flagName(), usage, yesOrNo})
	}
	return flags
}

// A Value is a setting as it is shown: nothing in it is secret.
type Value struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // where it was set, or "default"
}

// Show is every setting with what holds now and where that comes from.
func (c Config) Show() (all []Value) {
	for _, s := range settings {
		if s.isMapping() {
			all = append(all, map[string]func() []Value{"servers": c.showServers, "clients": c.showClients, "cimd_documents": c.showDocuments, "providers": c.showProviders, "trusted_issuers": c.showTrusted}[s.key]()...)
			continue
		}
		all = append(all, Value{s.key, cmp.Or(c.Source.written[s.key], s.show(&c)), cmp.Or(c.Source.origins[s.key], "default")})
	}
	return all
}

func (s setting) show(c *Config) string {
	switch field := s.field(c).(type) {
	case *string:
		return hidePassword(*field)
	case *bool:
		return fmt.Sprint(*field)
	case *time.Duration:
		return field.String()
	case *throttle.Limit:
		return field.String()
	case *[]string:
		return strings.Join(*field, ", ")
	case *[]netip.Prefix:
		return strings.Trim(fmt.Sprint(*field), "[]")
	}
	return ""
}

func (c Config) showServers() (all []Value) {
	for _, name := range slices.Sorted(maps.Keys(c.Servers)) {
		key := "servers." + name
		spec := c.Servers[name]
		_, where := spec.Where()
		for _, variable := range slices.Sorted(maps.Keys(spec.Env)) {
			where += " " + variable + "=" + masked
		}
		all = append(all, Value{key, cmp.Or(c.Source.written[key], where), c.Source.origins[key]})
	}
	return all
}

// masked stands for a secret that is there.
const masked = "[set]"

// hidePassword leaves passwords out of an address. One that cannot be read is
// hidden as a whole.
func hidePassword(address string) string {
	if !strings.Contains(address, "://") {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return masked
	}
	if _, set := u.User.Password(); set {
		u.User = url.UserPassword(u.User.Username(), masked)
	}
	query := u.Query()
	for name := range query {
		if strings.Contains(strings.ToLower(name), "password") {
			query.Set(name, masked)
		}
	}
	u.RawQuery = query.Encode()
	return strings.NewReplacer("%5Bset%5D", masked).Replace(u.String())
}

// Example is a configuration file that explains every setting and sets none.
func Example() string {
	var b strings.Builder
	b.WriteString(`# What gatehouse serve can be told. Nothing is set here: take away the #
# before a setting to give it a value. Flags win over variables of the
# environment, and those over this file. Names of files start where this file
# lies. gatehouse config validate says what is wrong with it. At SIGHUP a
# running server reads it again: what is marked with SIGHUP changes at once,
# the rest at the next start.
`)
	group := ""
	for _, s := range settings {
		above, below, nested := strings.Cut(s.key, ".")
		if !nested {
			above, below = "", above
		}
		b.WriteString("\n")
		if above != group && nested {
			fmt.Fprintf(&b, "#%s:\n", above)
		}
		group = above
		for line := range wrapped(s.doc+" "+s.spellings(), 78) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		value := strings.ReplaceAll(cmp.Or(s.preset, s.example), "\n", "\n#")
		fmt.Fprintln(&b, strings.ReplaceAll(fmt.Sprintf("#%s%s: %s", map[bool]string{true: "  "}[nested], below, value), ": \n", ":\n"))
	}
	return b.String()
}

// spellings are the other ways to give the setting, and what holds without it.
func (s setting) spellings() string {
	text := "(" + s.env()
	if s.isMapping() {
		text = "(in the file only"
	}
	if s.flag {
		text += ", --" + s.flagName()
	}
	if s.live {
		text += "; SIGHUP"
	}
	if s.absent != "" {
		text += "; without it " + s.absent
	}
	return text + ")"
}

// wrapped breaks a text into lines of at most so many characters.
func wrapped(text string, most int) iter.Seq[string] {
	return func(yield func(string) bool) {
		line := ""
		for word := range strings.FieldsSeq(text) {
			if line != "" && utf8.RuneCountInString(line+" "+word) > most {
				if !yield(line) {
					return
				}
				line = ""
			}
			line = strings.TrimSpace(line + " " + word)
		}
		yield(line)
	}
}

// Schema is the JSON Schema (draft 2020-12) of the file, for editors.
func Schema() map[string]any {
	root := object("The configuration of gatehouse serve.")
	for _, s := range settings {
		level, key := root, s.key
		if above, below, nested := strings.Cut(s.key, "."); nested {
			properties := level["properties"].(map[string]any)
			if properties[above] == nil {
				properties[above] = object("")
			}
			level, key = properties[above].(map[string]any), below
		}
		level["properties"].(map[string]any)[key] = s.schema()
	}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	return root
}

func object(doc string) map[string]any {
	o := map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
	if doc != "" {
		o["description"] = doc
	}
	return o
}

func (s setting) schema() map[string]any {
	one := map[string]any{"description": s.doc}
	if s.isMapping() {
		one["type"], one["additionalProperties"] = "object", map[string]func() map[string]any{"servers": serverSchema, "clients": clientSchema, "cimd_documents": documentSchema, "providers": providerSchema, "trusted_issuers": trustedSchema}[s.key]()
		return one
	}
	if _, yesOrNo := s.field(&Config{}).(*bool); yesOrNo {
		one["type"], one["default"] = "boolean", s.preset == "true"
		return one
	}
	if s.isList() {
		one["type"], one["items"] = "array", map[string]any{"type": "string"}
		return one
	}
	one["type"] = "string"
	if s.preset != "" {
		one["default"] = s.preset
	}
	if s.oneOf != nil {
		one["enum"] = s.oneOf
	}
	return one
}

func clientSchema() map[string]any {
	text := map[string]any{"type": "string"}
	one := object("")
	one["properties"] = map[string]any{
		"name": text, "redirect_uris": map[string]any{"type": "array", "items": text, "minItems": 1}, "secret": text, "secret_file": text,
		"dpop_bound_access_tokens": map[string]any{"type": "boolean"}, "require_pushed_authorization_requests": map[string]any{"type": "boolean"},
	}
	one["required"] = []string{"name", "redirect_uris"}
	return one
}

func documentSchema() map[string]any {
	return map[string]any{"oneOf": []any{map[string]any{"type": "string"}, map[string]any{"type": "object"}}}
}

func serverSchema() map[string]any {
	text := map[string]any{"type": "string"}
	texts := map[string]any{"type": "array", "items": text, "minItems": 1}
	one := object("")
	one["properties"] = map[string]any{
		"url": text, "provider": text, "command": texts, "env_file": text, "env": map[string]any{"type": "object", "additionalProperties": text},
	}
	one["oneOf"] = []any{map[string]any{"required": []string{"url"}}, map[string]any{"required": []string{"command"}}}
	return one
}
