package oauth

import (
	"encoding/json"
	"net/url"
	"testing"
)

// Attack 30: no body makes the parsers fail otherwise than by an error, and what
// they accept has each parameter at most once and as text. A form and an object
// that say the same are read alike.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{
		"grant_type=refresh_token&client_id=x&refresh_token=rt_1.s", "a=1&a=2", "resource=a&resource=b", "a=%zz", "a=%00", "a=%ff", "a;b", "=", "&&", "a",
		`{"grant_type":"refresh_token","client_id":"x"}`, `{"a":"1","a":"2"}`, `{"resource":["a","b"]}`, `{"a":1}`, `{"a":null}`, `{"a":"\u0000"}`, `{"a":{}}`, `[]`, `null`, `{`, `{}{}`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, parse := range []func([]byte) (url.Values, *Error){ParseForm, ParseObject} {
			values, fault := parse(body)
			if (values == nil) != (fault != nil) {
				t.Fatalf("%v and %v", values, fault)
			}
			object := map[string]any{}
			for name, all := range values {
				if len(all) > 1 && name != "resource" {
					t.Errorf("%q is there %d times", name, len(all))
				}
				for _, v := range all {
					if v == "" || !Readable(v) {
						t.Errorf("%q is %q", name, v)
					}
				}
				if object[name] = values.Get(name); name == "resource" {
					object[name] = all
				}
			}
			text, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			again, fault := ParseObject(text)
			if fault != nil || again.Encode() != values.Encode() {
				t.Errorf("%q as an object: %v, %v", body, again, fault)
			}
		}
	})
}
