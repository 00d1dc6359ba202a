package vault

import (
	"net/url"
	"testing"
)

// A provider elsewhere cannot make us send something to this computer.
func TestOnlyALocalProviderNamesLocalEndpoints(t *testing.T) {
	for endpoint, may := range map[string][2]bool{ // by a provider elsewhere, by one here
		"https://login.example/token":  {true, true},
		"https://127.0.0.1:8443/token": {false, true},
		"http://localhost:4100/token":  {false, true},
		"https://[::1]/token":          {false, true},
		"http://login.example/token":   {false, false},
		"https://a:b@login.example/x":  {false, false},
		"https://login.example/#token": {false, false},
		"":                             {false, false},
	} {
		for i, by := range []string{"https://login.example/.well-known/x", "http://127.0.0.1:4100/.well-known/x"} {
			u, err := url.Parse(by)
			if err != nil {
				t.Fatal(err)
			}
			if mayName(u, endpoint) != may[i] {
				t.Errorf("%s names %q: %v", by, endpoint, !may[i])
			}
		}
	}
}
