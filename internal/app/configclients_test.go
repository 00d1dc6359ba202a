package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

const documentMembers = `{"client_id":"https://app.example/c.json","client_name":"App","redirect_uris":["https://other.example/cb"]}`

// Documents are pinned by the name of a file or by their members, and clients stand
// in the file with their secrets elsewhere.
func TestClientsAndDocumentsOfTheFile(t *testing.T) {
	file := write(t, `cimd: allowlist
cimd_allow: [claude.ai, vscode.dev]
cimd_documents:
  https://app.example/c.json: app.json
  https://b.example/c.json: {client_id: "https://b.example/c.json", client_name: B, redirect_uris: ["http://127.0.0.1/cb"]}
clients:
  intranet:
    name: Intranet
    redirect_uris: [https://intranet.example/cb, http://127.0.0.1/cb]
    secret_file: intranet.secret
  editor: {name: Editor, redirect_uris: http://127.0.0.1/cb, dpop_bound_access_tokens: true, require_pushed_authorization_requests: false}
  other:
    name: Other
    redirect_uris: [https://other.example/cb]
    secret: ${env:OTHER}
`)
	secret := strings.Repeat("s", 32)
	for name, text := range map[string]string{"app.json": documentMembers, "intranet.secret": secret + "\n"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(map[string]string{"config": file}, []string{"OTHER=" + strings.Repeat("o", 40)})
	if err != nil {
		t.Fatal(problem.From(err).Why)
	}
	if got := c.CIMDDocuments["https://app.example/c.json"]; got != documentMembers {
		t.Errorf("%q", got)
	}
	if got := c.CIMDDocuments["https://b.example/c.json"]; !strings.Contains(got, `"client_name":"B"`) {
		t.Errorf("%q", got)
	}
	if got := c.Clients["intranet"]; got.Name != "Intranet" || len(got.Redirects) != 2 || got.Secret.Reveal() != secret {
		t.Errorf("%+v", got)
	}
	if c.Clients["editor"].Secret.Reveal() != "" || c.Clients["other"].Secret.Reveal() != strings.Repeat("o", 40) {
		t.Errorf("%+v", c.Clients)
	}
	if e := c.Clients["editor"]; !e.Bound || e.PushedOnly || c.Clients["intranet"].Bound {
		t.Errorf("%+v", c.Clients)
	}
	d := c.clientDocuments()
	if d.Any || len(d.Hosts) != 2 || len(d.Pinned) != 2 || !d.On() {
		t.Errorf("%+v", d)
	}
	shown := ""
	for _, v := range c.Show() {
		shown += v.Key + " " + v.Value + " " + v.Origin + "\n"
	}
	if strings.Contains(shown, secret) || !strings.Contains(shown, "clients.intranet Intranet https://intranet.example/cb http://127.0.0.1/cb secret=[set] "+file+":7") || !strings.Contains(shown, "cimd_documents.https://app.example/c.json ") {
		t.Error(shown)
	}
}

// Every fault is named with its place.
func TestFaultsOfClientsAndDocuments(t *testing.T) {
	for text, want := range map[string]string{
		"cimd_documents:\n  http://app.example/c: x.json":          "x.json can't be read",
		"cimd_documents:\n  http://app.example/c: {client_id: x}":  "begins with https",
		"cimd_documents:\n  https://app.example/c: {client_id: x}": "gatehouse.yaml:2: cimd_documents.https://app.example/c: redirect_uris is missing",
		"cimd_documents:\n  https://app.example/c: [a, b]":         "it is the name of one file",
		"cimd: off\ncimd_documents:\n  https://a.example/c: {client_id: https://a.example/c, client_name: A, redirect_uris: [https://a.example/cb]}": "with off the documents",
		"cimd_allow: [claude.ai]":                      "it counts only if cimd is allowlist",
		"cimd: allowlist\ncimd_allow: ['*.claude.ai']": "*.claude.ai is not the name of a host",
		"cimd: allowlist\ncimd_allow: [10.0.0.1]":      "is not the name of a host",
		"cimd: maybe":                  "it is one of off, allowlist, open",
		"outbound_allow: [everything]": "neither an address nor a network",
		"clients:\n  Upper: {name: A, redirect_uris: [https://a.example/cb]}": "gatehouse.yaml:2: clients.Upper: its id begins with a letter",
		"clients:\n  a: {name: A}":                                                                       "redirect_uris is missing",
		"clients:\n  a: {redirect_uris: [https://a.example/cb]}":                                         "it needs a name",
		"clients:\n  a: {name: A, redirect_uris: [http://a.example/cb]}":                                 "must be https",
		"clients:\n  a: {name: A, redirect_uris: [https://a.example/cb], secret: short}":                 "a secret does not stand in the file itself",
		"clients:\n  a: {name: A, redirect_uris: [https://a.example/cb], secret: '${env:SHORT}'}":        "fewer than 32 characters",
		"clients:\n  a: {name: A, redirect_uris: [https://a.example/cb], secret_file: nosuch}":           "nosuch can't be read",
		"clients:\n  a: {name: A, redirect_uris: [https://a.example/cb], dpop_bound_access_tokens: yes}": "clients.a.dpop_bound_access_tokens: it is either true or false",
		"clients:\n  all: {name: A, redirect_uris: [https://a.example/cb]}":                              "clients.all: in the configuration this id would stand for something else",
		"clients:\n  a: {name: A, redirect: [https://a.example/cb]}":                                     "clients.a.redirect is not a setting; did you mean redirect_uris?",
	} {
		_, err := load(map[string]string{"config": write(t, text+"\n")}, "SHORT=x")
		if p := problem.From(err); p == nil || !strings.Contains(p.Why, want) {
			t.Errorf("%s\n%v\nwant %s", text, p, want)
		} else if strings.Contains(p.Why, "short") {
			t.Errorf("it tells the secret: %s", p.Why)
		}
	}
}
