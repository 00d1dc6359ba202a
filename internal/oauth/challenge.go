package oauth

import "strings"

// BearerChallenge is the WWW-Authenticate header of a refusal (RFC 6750 §3, RFC
// 9728 §5.1; R501–R504). Empty members are left out.
type BearerChallenge struct {
	Realm            string
	Error            string
	Description      string
	Scope            string
	ResourceMetadata string
	Ref              string // the reference of the flow, req_…
}

// String is the value of the header. Whatever the members contain, it stays one
// header with these parameters.
func (c BearerChallenge) String() string {
	return challenge("Bearer", []parameter{
		{"realm", c.Realm},
		{"error", c.Error},
		{"error_description", c.Description},
		{"scope", c.Scope},
		{"resource_metadata", c.ResourceMetadata},
		{"resource_metadata_uri", c.ResourceMetadata}, // C17: an older spelling
		{"ref", c.Ref},
	})
}

type parameter struct{ name, value string }

func challenge(scheme string, parameters []parameter) string {
	var b strings.Builder
	b.WriteString(scheme)
	sep := " "
	for _, p := range parameters {
		if p.value != "" {
			b.WriteString(sep + p.name + `="` + plain(p.value) + `"`)
			sep = ", "
		}
	}
	return b.String()
}

// AuthChallenge is one challenge somebody else sent.
type AuthChallenge struct {
	Scheme string            // lower case
	Params map[string]string // names in lower case; of a repeated one the first counts
}

// ResourceMetadata is where the challenge says the resource is described, in
// either spelling (C17), or "".
func (c AuthChallenge) ResourceMetadata() string {
	if v := c.Params["resource_metadata"]; v != "" {
		return v
	}
	return c.Params["resource_metadata_uri"]
}

// ParseChallenges reads the values of WWW-Authenticate headers (RFC 9110
// §11.6.1), several challenges to a header and quoted commas included. What
// makes no sense is skipped.
func ParseChallenges(values []string) []AuthChallenge {
	var all []AuthChallenge
	for _, v := range values {
		all = append(all, parseChallenges(v)...)
	}
	return all
}

func parseChallenges(s string) []AuthChallenge {
	var all []AuthChallenge
	token68 := false // a scheme was read and no comma since
	for s != "" {
		if c := s[0]; !isTokenChar(c) {
			if c == '"' {
				_, s = cutQuoted(s)
				continue
			}
			token68 = token68 && c != ','
			s = s[1:]
			continue
		}
		var name string
		name, s = cutToken(s)
		if value, ok := strings.CutPrefix(strings.TrimLeft(s, " \t"), "="); ok {
			value, s = cutValue(strings.TrimLeft(value, " \t"))
			setParam(all, name, value)
		} else if !token68 {
			all = append(all, AuthChallenge{Scheme: strings.ToLower(name), Params: map[string]string{}})
			token68 = true
			continue
		}
		token68 = false
	}
	return all
}

func setParam(all []AuthChallenge, name, value string) {
	if len(all) == 0 {
		return
	}
	params := all[len(all)-1].Params
	if name = strings.ToLower(name); params[name] == "" {
		params[name] = value
	}
}

func cutValue(s string) (value, rest string) {
	if strings.HasPrefix(s, `"`) {
		return cutQuoted(s)
	}
	return cutToken(s)
}

func cutToken(s string) (token, rest string) {
	end := 0
	for end < len(s) && isTokenChar(s[end]) {
		end++
	}
	return s[:end], s[end:]
}

// cutQuoted takes a quoted string off the front. One that is never closed ends
// with the header.
func cutQuoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// isTokenChar allows the characters of a token (RFC 9110 §5.6.2) and those of
// unquoted addresses, which some servers send.
func isTokenChar(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~/:?", c) >= 0
}
