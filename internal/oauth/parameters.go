package oauth

import (
	"bytes"
	"net/url"
	"slices"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ParseForm reads the parameters of a request from a form (RFC 6749 §3.2).
func ParseForm(body []byte) (url.Values, *Error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, Errorf(InvalidRequest, "the body cannot be read")
	}
	return once(values)
}

// ParseObject reads the same parameters from one JSON object of strings (R402).
// resource may also be an array of them; null is absent.
func ParseObject(body []byte) (url.Values, *Error) {
	var members map[string]jsontext.Value
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) || strictjson.Unmarshal(body, &members) != nil {
		return nil, Errorf(InvalidRequest, "the body is not a JSON object with members of different names")
	}
	values := url.Values{}
	for name, value := range members {
		var one string
		var several []string
		var err error
		switch {
		case value.Kind() == 'n': // null
			continue
		case name == "resource" && value.Kind() == '[':
			err = strictjson.Unmarshal(value, &several)
		default:
			err = strictjson.Unmarshal(value, &one)
			several = []string{one}
		}
		if err != nil {
			return nil, Errorf(InvalidRequest, "%.40s is not a string", name)
		}
		values[name] = several
	}
	return once(values)
}

// readable reports whether each of the texts is one: two that are none can be one
// together.
func readable(texts []string) bool {
	return !slices.ContainsFunc(texts, func(text string) bool { return !Readable(text) })
}

// once refuses a parameter that is there twice, except resource (RFC 8707 §2), and
// one that is no text. An empty one counts as absent (RFC 6749 §3.2).
func once(values url.Values) (url.Values, *Error) {
	for name, all := range values {
		if len(all) > 1 && name != "resource" {
			return nil, Errorf(InvalidRequest, "%.40s is given twice", name)
		}
		if !readable(append([]string{name}, all...)) {
			return nil, Errorf(InvalidRequest, "%.40s is not readable text", name)
		}
		values[name] = slices.DeleteFunc(all, func(v string) bool { return v == "" })
	}
	return values, nil
}
