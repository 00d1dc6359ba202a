package client

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// mirror is a header that a tool wants an argument repeated in (MCP 2026-07-28
// Streamable HTTP, "Custom Headers from Tool Parameters").
type mirror struct {
	path []string // of the argument
	name string   // after Mcp-Param-
}

// mirrors reads the x-mcp-header annotations of an input schema. A tool that has
// one which is not allowed must not be used: ok is false.
func mirrors(schema json.RawMessage) (all []mirror, ok bool) {
	seen := map[string]bool{}
	var walk func(schema json.RawMessage, path []string) bool
	walk = func(schema json.RawMessage, path []string) bool {
		var s struct {
			Type       json.RawMessage            `json:"type"`
			Header     *json.RawMessage           `json:"x-mcp-header"`
			Properties map[string]json.RawMessage `json:"properties"`
		}
		if json.Unmarshal(schema, &s) != nil { // true, or what only others understand
			return true
		}
		if s.Header != nil {
			var name, kind string
			_ = json.Unmarshal(*s.Header, &name) // what is no string is empty, and refused
			_ = json.Unmarshal(s.Type, &kind)
			key := strings.ToLower(name)
			if len(path) == 0 || !isToken(name) || seen[key] || kind != "string" && kind != "integer" && kind != "boolean" {
				return false
			}
			seen[key] = true
			all = append(all, mirror{path, name})
		}
		for name, p := range s.Properties {
			if !walk(p, append(path[:len(path):len(path)], name)) {
				return false
			}
		}
		return true
	}
	if !walk(schema, nil) {
		return nil, false
	}
	return all, annotated(schema) == len(all)
}

// annotated counts the annotations wherever they are, also where an argument
// cannot be found by its path.
func annotated(raw json.RawMessage) int {
	if !strings.Contains(string(raw), `"x-mcp-header"`) {
		return 0
	}
	var v any
	_ = json.Unmarshal(raw, &v) // it came out of a message that was read
	return count(v, false)
}

// count walks values; names are those of properties and not keywords where the
// object is one of names.
func count(v any, names bool) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			switch {
			case !names && key == "x-mcp-header":
				n++
			case !names && (key == "default" || key == "const" || key == "enum" || key == "examples"): // data
			default:
				n += count(value, !names && (key == "properties" || key == "$defs"))
			}
		}
	case []any:
		for _, value := range v {
			n += count(value, false)
		}
	}
	return n
}

// isToken reports whether s may be part of the name of a header (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// headers are those of a modern request: what it is, and the arguments that the
// tool wants repeated. An argument that is absent or null has none.
func headers(m mcp.Message, wanted []mirror) http.Header {
	h := http.Header{}
	h.Set(mcp.MethodHeader, m.Method)
	switch m.Method {
	case "tools/call", "prompts/get":
		h.Set(mcp.NameHeader, headerValue(mcp.Text(m.Params, "name")))
	case "resources/read":
		h.Set(mcp.NameHeader, headerValue(mcp.Text(m.Params, "uri")))
	}
	for _, w := range wanted {
		raw := mcp.Field(m.Params, append([]string{"arguments"}, w.path...)...)
		if raw == nil || string(raw) == "null" {
			continue
		}
		value := string(raw)
		if raw[0] == '"' {
			_ = json.Unmarshal(raw, &value) // it is a string
		}
		h.Set(mcp.ParamHeader+w.name, headerValue(value))
	}
	return h
}

// headerValue wraps what a header could not carry as it is, or what would be taken
// for something wrapped (MCP 2026-07-28 "Value Encoding").
func headerValue(s string) string {
	plain := strings.TrimSpace(s) == s && !(strings.HasPrefix(s, "=?base64?") && strings.HasSuffix(s, "?="))
	for i := range len(s) {
		plain = plain && s[i] >= ' ' && s[i] <= '~'
	}
	if plain {
		return s
	}
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
}
