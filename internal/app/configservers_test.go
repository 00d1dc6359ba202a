package app

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// A server stands in the file as it would be added by command; secrets come from
// elsewhere and are shown by nobody.
func TestServersOfTheFile(t *testing.T) {
	file := write(t, `servers:
  tickets:
    url: https://tickets.internal/mcp?key=${env:KEY}
  time:
    command: [uvx, mcp-server-time, "--token=${env:KEY}"]
    env:
      LOG: quiet
      TOKEN: ${file:token}
    env_file: time.env
  plain:
    command: [clock]
`)
	dir := filepath.Dir(file)
	writeAs(t, filepath.Join(dir, "token"), "hunter2\n")
	writeAs(t, filepath.Join(dir, "time.env"), "# of the clock\n\nLOG=loud\nZONE=a=b hunter3\n")
	c, err := Load(map[string]string{"config": file}, []string{"KEY=hunter4"})
	if err != nil {
		t.Fatal(problem.From(err).Why)
	}
	clock := c.Servers["time"]
	if len(c.Servers) != 3 || c.Servers["tickets"].URL != "https://tickets.internal/mcp?key=hunter4" || clock.Name != "time" ||
		strings.Join(clock.Command, " ") != "uvx mcp-server-time --token=hunter4" || len(clock.Env) != 3 ||
		clock.Env["LOG"].Reveal() != "quiet" || clock.Env["TOKEN"].Reveal() != "hunter2" || clock.Env["ZONE"].Reveal() != "a=b hunter3" {
		t.Errorf("%+v", c.Servers)
	}
	shown, _ := json.Marshal(c.Show())
	for _, part := range []string{
		`{"key":"servers.plain","value":"clock","origin":"` + file + `:10"}`,
		`{"key":"servers.tickets","value":"https://tickets.internal/mcp?key=${env:KEY}","origin":"` + file + `:2"}`,
		`"value":"uvx mcp-server-time --token=${env:KEY}"`,
	} {
		if !strings.Contains(string(shown), part) {
			t.Errorf("%s is missing in %s", part, shown)
		}
	}
	if strings.Contains(string(shown), "hunter") {
		t.Errorf("shown: %s", shown)
	}
}

func TestFaultsOfServers(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{"x: {}", "gatehouse.yaml:2: servers.x: "},
		{"x: {url: https://a, command: [b]}", "it needs an address or a command, one of them"},
		{"x: {url: ftp://a}", "its address is not an http or https URL"},
		{"x: {url: https://dana:hunter2@a}", "credentials do not belong into an address"},
		{"x: {url: [https://a]}", ""},
		{"x: {url: [https://a, https://b]}", "servers.x.url: it takes one value"},
		{"x: {url: https://a, env: {A: b}}", "only a command has an environment"},
		{"x: {command: []}", "it needs an address or a command"},
		{"x: {command: [a], env: {A-B: c}}", "is no name of an environment variable"},
		{"x: {command: [a], env: {A: }}", "servers.x.env.A has no value"},
		{"x: {command: [a], env: [A]}", "servers.x.env holds settings"},
		{"x: {command: [a], env_file: nowhere}", "nowhere can't be read: no such file"},
		{"x: {comand: [a]}", "servers.x.comand is not a setting; did you mean command?"},
		{"x: https://a", "servers.x holds settings"},
		{"X: {command: [a]}", `a server cannot be called "X"`},
		{"gatehouse: {command: [a]}", "the name is reserved for the gateway"},
		{"all: {command: [a]}", "the name is reserved for the gateway"},
		{"x: {command: [a]}\n  x: {command: [b]}", "servers.x is set in line 2 already"},
	} {
		_, err := load(map[string]string{"config": write(t, "servers:\n  "+tt.text+"\n")})
		why := ""
		if err != nil {
			why = problem.From(err).Why
		}
		if !strings.Contains(why, tt.says) || (tt.says == "") != (err == nil) || strings.Contains(why, "hunter") {
			t.Errorf("%s: %s", tt.text, why)
		}
	}
	if c, err := load(map[string]string{"config": write(t, "servers:\n")}); err != nil || len(c.Servers) != 0 {
		t.Errorf("none: %v", err)
	}
}
