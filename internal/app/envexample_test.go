package app

import (
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// R1313, R1402: .env.example knows every variable and no other, can be used as it
// is, and holds no value that could open anything.
func TestEnvExample(t *testing.T) {
	text, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	var seen, set []string
	for _, line := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		name, value := line[1], line[2]
		seen = append(seen, name)
		if line[0][0] != '#' {
			set = append(set, name+"="+value)
		}
		if !slices.Contains(variables(), name) && name != configVariable && name != "GATEHOUSE_TOKEN" {
			t.Errorf("%s is no variable of ours", name)
		}
		if u, err := url.Parse(value); err == nil && u.User != nil {
			if password, _ := u.User.Password(); password != "CHANGE-ME" {
				t.Errorf("%s has a password", name)
			}
			value = ""
		}
		if regexp.MustCompile(`(?i)eyJ|[a-z]k_|ghp_|AKIA|[0-9a-z+=]{20}`).MatchString(value) {
			t.Errorf("%s looks live", name)
		}
		if i := slices.IndexFunc(settings, func(s setting) bool { return s.env() == name }); i >= 0 {
			if why := settings[i].parse(&Config{}, settings[i].split(line[2])); why != "" {
				t.Errorf("%s: %s", name, why)
			}
		}
	}
	for _, name := range variables() {
		if n := strings.Count(strings.Join(seen, " ")+" ", name+" "); n != 1 {
			t.Errorf("%s is there %d times", name, n)
		}
	}
	c, err := Load(map[string]string{"config": ""}, set)
	if err != nil || c.Source.Ignored != nil {
		t.Errorf("%v, ignored: %s", problem.From(err), c.Source.Ignored)
	}
}
