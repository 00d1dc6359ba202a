package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// write makes a configuration file.
func write(t *testing.T, text string) (path string) {
	t.Helper()
	return writeAs(t, filepath.Join(t.TempDir(), "gatehouse.yaml"), text)
}

func writeAs(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A file is taken as a whole or not at all, and each fault has its line.
func TestFaultsOfTheFile(t *testing.T) {
	for _, tt := range []struct{ name, text, says string }{
		{"unknown", "# x\nlisen: localhost:1\n", "gatehouse.yaml:2: lisen is not a setting; did you mean listen?"},
		{"of the environment's spelling", "PUBLIC_URL: x\n", "PUBLIC_URL is not a setting; did you mean public_url?"},
		{"unlike anything", "frobnicate: 1\n", "gatehouse.yaml:1: frobnicate is not a setting"},
		{"twice", "dev: true\nlisten: localhost:1\ndev: true\n", "gatehouse.yaml:3: dev is set in line 1 already; leave one of them"},
		{"empty", "listen:\n", "gatehouse.yaml:1: listen has no value; give it one, or leave the line out"},
		{"null", "listen: ~\n", "listen has no value"},
		{"a list where one is wanted", "listen: [localhost:1, localhost:2]\n", "listen: it takes one value"},
		{"a mapping where a value is wanted", "listen:\n  host: x\n", "listen has no value"},
		{"no word", "dev: yes\n", "gatehouse.yaml:1: dev: it is either true or false"},
		{"a list", "- listen\n", "gatehouse.yaml:1: the file holds settings, each as key: value"},
		{"a word", "listen\n", "the file holds settings"},
		{"two documents", "dev: true\n---\ndev: false\n", "holds more than one document"},
		{"no YAML", "listen: [\n", "is not YAML: line"},
		{"a tab", "\tlisten: x\n", "is not YAML"},
		{"an alias", "listen: &l localhost:1\npublic_url: *l\n", "public_url has no value"},
		{"a merge", "<<: {dev: true}\n", "<< is not a setting"},
		{"a variable that is not set", "listen: ${env:NOWHERE}\n", "listen: ${env:NOWHERE}: this variable is not set"},
		{"a file that is not there", "database: postgres://u:${file:nowhere}@h/d\nmaster_key_file: /k\n", "database: ${file:nowhere}: no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(map[string]string{"config": write(t, tt.text)})
			if p := problem.From(err); !problem.Is(err, configInvalid) || !strings.Contains(p.Why, tt.says) || strings.Contains(p.Why, "\n") {
				t.Errorf("%+v", p)
			}
		})
	}
	for name, path := range map[string]string{"missing": "/nowhere/gatehouse.yaml", "folder": t.TempDir()} {
		if _, err := load(map[string]string{"config": path}); !strings.Contains(problem.From(err).Why, path+" can't be read: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load(nil, []string{"GATEHOUSE_CONFIG=/nowhere"}); err == nil {
		t.Error("a file that was named and is not there is no fault")
	}
}

func TestFileOfCommentsSaysNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "{}\n", Example()} {
		if c, err := load(map[string]string{"config": write(t, text)}); err != nil || c.Listen != "localhost:3000" {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

// The file that was named is read, or else the first of the usual places; only one.
func TestWhereTheFileIsLookedFor(t *testing.T) {
	home, xdg, here := t.TempDir(), t.TempDir(), t.TempDir()
	t.Chdir(here)
	environ := []string{"HOME=" + home}
	read := func(environ []string) string {
		t.Helper()
		c, err := Load(nil, environ)
		if err != nil {
			t.Fatal(err)
		}
		return c.Source.File + " " + c.Listen
	}
	if got := read(environ); got != " localhost:3000" && !strings.HasPrefix(got, "/etc/") {
		t.Error(got)
	}
	inHome := writeAs(t, filepath.Join(home, ".config", "gatehouse", "gatehouse.yaml"), "listen: localhost:1")
	if got := read(environ); got != inHome+" localhost:1" {
		t.Error(got)
	}
	inXDG := writeAs(t, filepath.Join(xdg, "gatehouse", "gatehouse.yaml"), "listen: localhost:2")
	environ = append(environ, "XDG_CONFIG_HOME="+xdg)
	if got := read(environ); got != inXDG+" localhost:2" {
		t.Error(got)
	}
	writeAs(t, filepath.Join(here, "gatehouse.yaml"), "listen: localhost:3")
	if got := read(environ); got != "gatehouse.yaml localhost:3" {
		t.Error(got)
	}
	named := write(t, "listen: localhost:4")
	if got := read(append(environ, "GATEHOUSE_CONFIG="+named)); got != named+" localhost:4" {
		t.Error(got)
	}
	c, err := Load(map[string]string{"config": inHome}, append(environ, "GATEHOUSE_CONFIG="+named))
	if err != nil || c.Listen != "localhost:1" {
		t.Errorf("%+v, %v", c, err)
	}
}

// In a folder like /tmp anybody may have left a file, which says what is run.
func TestFileThatAnybodyMayHaveLeftIsNotRead(t *testing.T) {
	here := t.TempDir()
	t.Chdir(here)
	writeAs(t, filepath.Join(here, "gatehouse.yaml"), "listen: localhost:3")
	if err := os.Chmod(here, 0o777); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(nil, nil); err == nil || c.Listen != "localhost:3000" || !strings.Contains(problem.From(err).Why, "--config gatehouse.yaml") {
		t.Errorf("%s, %v", c.Listen, err)
	}
	if _, err := DataDir(nil, nil); err == nil {
		t.Error("other commands read it")
	}
	if c, err := Load(map[string]string{"config": "gatehouse.yaml"}, nil); err != nil || c.Listen != "localhost:3" {
		t.Errorf("named: %s, %v", c.Listen, err)
	}
}

// Names in the file start where it lies, wherever the server is started.
func TestPathsStartAtTheFile(t *testing.T) {
	file := write(t, "data_dir: data\ndatabase: sqlite:db/x.db\nmaster_key_file: keys/k\n")
	dir := filepath.Dir(file)
	c, err := load(map[string]string{"config": file})
	if err != nil || c.DataDir != dir+"/data" || c.Database != "sqlite:"+dir+"/db/x.db" || c.MasterKeyFile != dir+"/keys/k" {
		t.Errorf("%+v, %v", c, err)
	}
}

// R1307: secrets come from files, variables and what systemd hands over, and are
// shown by no command.
func TestSecretsOfTheFile(t *testing.T) {
	credentials := t.TempDir()
	writeAs(t, filepath.Join(credentials, "dbpass"), "hunter2\n")
	writeAs(t, filepath.Join(credentials, "sealing"), "k")
	file := write(t, "database: postgres://${env:DBUSER}:${file:dbpass}@h/d\nmaster_key_file: sealing\n")
	c, err := Load(map[string]string{"config": file}, []string{"DBUSER=dana", "CREDENTIALS_DIRECTORY=" + credentials})
	if err != nil || c.Database != "postgres://dana:hunter2@h/d" || c.MasterKeyFile != filepath.Join(credentials, "sealing") {
		t.Errorf("%+v, %v", c, err)
	}
	writeAs(t, filepath.Join(filepath.Dir(file), "dbpass"), "beside")
	if c, err := Load(map[string]string{"config": file}, []string{"DBUSER=dana"}); err != nil || c.Database != "postgres://dana:beside@h/d" {
		t.Errorf("%+v, %v", c, err)
	}
	for database, want := range map[string]string{
		"postgres://dana:hunter2@h/d":                     "postgres://dana:[set]@h/d",
		"postgres://dana@h/d?password=hunter2":            "postgres://dana@h/d?password=[set]",
		"postgres://dana@h/d?sslpassword=hunter2&a=b":     "postgres://dana@h/d?a=b&sslpassword=[set]",
		"postgres://dana:hunter2%zz@h/d":                  "[set]",
		"postgres://dana@h/d":                             "postgres://dana@h/d",
		"sqlite:/data/gatehouse.db":                       "sqlite:/data/gatehouse.db",
		"postgres://${env:DBUSER}:${file:dbpass}@h/d#dbx": "postgres://${env:DBUSER}:${file:dbpass}@h/d#dbx",
	} {
		c, err := Load(map[string]string{"config": write(t, "database: '"+database+"'\nmaster_key_file: /k\n")},
			[]string{"DBUSER=dana", "CREDENTIALS_DIRECTORY=" + credentials})
		shown, _ := json.Marshal(c.Show())
		if err != nil || strings.Contains(string(shown), "hunter2") || !strings.Contains(string(shown), `"`+strings.ReplaceAll(want, "&", `\u0026`)+`"`) {
			t.Errorf("%s is shown as %s, %v", database, shown, err)
		}
	}
	if _, err := load(map[string]string{"public-url": "https://dana:hunter2@h"}); err == nil || strings.Contains(problem.From(err).Why, "hunter2") {
		t.Errorf("a fault shows the password: %v", err)
	}
}

// A password of the Valkey server does not stand in the file itself either, and is
// shown by nothing.
func TestPasswordOfValkey(t *testing.T) {
	environ := "VALKEY_PASSWORD=hunter2"
	for address, says := range map[string]string{
		"valkey://:${env:VALKEY_PASSWORD}@h:6379":       "",
		"rediss://dana:${env:VALKEY_PASSWORD}@h:6379/3": "",
		"valkey://h":                                        "",
		"valkey://dana:hunter2@h:6379":                      "limits.valkey: a password does not stand in the file itself",
		"valkey://dana:hunter2%zz@h:6379":                   "limits.valkey: it is not an address like",
		"valkey://dana:${env:VALKEY_PASSWORD}@h:6379/3/4":   "limits.valkey: it is not an address like",
		"valkey://${env:VALKEY_PASSWORD}@h:6379":            "has no password",
		"valkeys://:${env:VALKEY_PASSWORD}@h:port":          "limits.valkey: it is not an address like",
		"unix:///run/valkey.sock?db=1&x=${env:NOT_THERE_X}": "this variable is not set",
	} {
		c, err := Load(map[string]string{"config": write(t, "limits:\n  valkey: '"+address+"'\n")}, []string{environ})
		why := ""
		if err != nil {
			why = problem.From(err).Why
		}
		shown, _ := json.Marshal(c.Show())
		if !strings.Contains(why, says) || (says == "") != (why == "") || strings.Contains(why+string(shown), "hunter2") {
			t.Errorf("%s: %q, shown as %s", address, why, shown)
		}
	}
	c, err := load(nil, "GATEHOUSE_LIMITS__VALKEY=valkey://:hunter2@h:6379") // a variable is no file
	shown, _ := json.Marshal(c.Show())
	if err != nil || c.Valkey != "valkey://:hunter2@h:6379" || strings.Contains(string(shown), "hunter2") {
		t.Errorf("%v, shown as %s", err, shown)
	}
}

// gatehouse config show says where each value came from.
func TestOrigins(t *testing.T) {
	file := write(t, "\nlisten: localhost:1\ndev: true\ndata_dir: /x\n")
	c, err := Load(map[string]string{"config": file, "data-dir": "/y"}, []string{"GATEHOUSE_DEV=false"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range c.Show() {
		got[v.Key] = v.Value + " " + v.Origin
	}
	for key, want := range map[string]string{
		"listen": "localhost:1 " + file + ":2", "dev": "false GATEHOUSE_DEV", "data_dir": "/y --data-dir", "master_key_file": "/y/master.key default",
	} {
		if got[key] != want {
			t.Errorf("%s: %s, want %s", key, got[key], want)
		}
	}
}

// settingLine is a setting of the example that is commented out.
var settingLine = regexp.MustCompile(`(?m)^#((?:  )*[A-Za-z_]+:)`)

// The example explains every setting; with its comments taken away it fits the
// schema, which knows every setting too.
func TestExampleFitsTheSchema(t *testing.T) {
	schema, err := json.Marshal(Schema())
	if err != nil {
		t.Fatal(err)
	}
	var parsed jsonschema.Schema
	if err := json.Unmarshal(schema, &parsed); err != nil {
		t.Fatal(err)
	}
	resolved, err := parsed.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	judge := func(text string) error {
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		return resolved.Validate(value)
	}
	text := settingLine.ReplaceAllString(Example(), "$1")
	if err := judge(text); err != nil {
		t.Errorf("%v in:\n%s", err, text)
	}
	for _, s := range settings {
		last := s.key[strings.LastIndex(s.key, ".")+1:]
		if !regexp.MustCompile(`(?m)^(  )?`+last+`: \S`).MatchString(text) && !s.isMapping() || !strings.Contains(text, s.env()) && !s.isMapping() {
			t.Errorf("the example lacks %s", s.key)
		}
	}
	for _, wrong := range []string{"lisen: x", "dev: 1", "listen: [x]", "tls: {x: y}", "servers: {a: {}}", "servers: {a: {url: x, command: [x]}}", "servers: {a: {url: x, y: z}}"} {
		if judge(wrong) == nil {
			t.Errorf("the schema allows %s", wrong)
		}
	}
	for line := range strings.SplitSeq(Example(), "\n") {
		if len([]rune(line)) > 80 {
			t.Errorf("longer than 80 columns: %s", line)
		}
	}
}

// Other commands find the data folder although other settings are wrong, but not
// by a file that cannot be read.
func TestDataDirOfOtherCommands(t *testing.T) {
	file := write(t, "listen: nowhere\ndata_dir: /x\n")
	if dir, err := DataDir(map[string]string{"config": file}, nil); err != nil || dir != "/x" {
		t.Errorf("%s, %v", dir, err)
	}
	if dir, err := DataDir(map[string]string{"config": file, "data-dir": "/y"}, nil); err != nil || dir != "/y" {
		t.Errorf("%s, %v", dir, err)
	}
	if _, err := DataDir(map[string]string{"config": write(t, "data_dir: [")}, nil); err == nil {
		t.Error("a file that is not YAML was passed over")
	}
}
