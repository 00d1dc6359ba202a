package app

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// R555: a provider stands in the file with everything that is needed to be its
// client; its secret comes from elsewhere and is shown by nobody.
func TestProvidersOfTheFile(t *testing.T) {
	file := write(t, `providers:
  crm:
    issuer: https://login.crm.example
    client_id: gatehouse
    client_secret_file: crm.secret
    client_auth: post
    scopes: [profile]
    read_scopes: [records.read]
    write_scopes: [records.write, more]
    admin_scopes: [records.delete]
    params: {audience: crm-api, prompt: consent}
    hosts: [mcp.crm.example, "127.0.0.1:4101"]
  tickets:
    authorize_url: https://tickets.example/authorize
    token_url: https://tickets.example/token
    revoke_url: https://tickets.example/revoke
    client_id: us
    client_secret: ${env:SECRET}
    hosts: [tickets.example]
servers:
  crm:
    url: https://mcp.crm.example/mcp
    provider: crm
`)
	writeAs(t, filepath.Join(filepath.Dir(file), "crm.secret"), "hunter2\n")
	c, err := Load(map[string]string{"config": file}, []string{"SECRET=hunter3"})
	if err != nil {
		t.Fatal(problem.From(err).Why)
	}
	crm, tickets := c.Providers["crm"], c.Providers["tickets"]
	if crm.Issuer != "https://login.crm.example" || crm.ClientID != "gatehouse" || crm.Secret.Reveal() != "hunter2" || crm.Auth != vault.AuthPost ||
		strings.Join(crm.Scopes, " ") != "profile" || strings.Join(crm.Reads, " ") != "records.read" || strings.Join(crm.Writes, " ") != "records.write more" ||
		strings.Join(crm.Destroys, " ") != "records.delete" || crm.Params["audience"] != "crm-api" || crm.Params["prompt"] != "consent" || len(crm.Hosts) != 2 ||
		c.Servers["crm"].Provider != "crm" {
		t.Errorf("%+v", crm)
	}
	if tickets.TokenURL != "https://tickets.example/token" || tickets.RevokeURL != "https://tickets.example/revoke" || tickets.Secret.Reveal() != "hunter3" || tickets.Auth != vault.AuthBasic {
		t.Errorf("%+v", tickets)
	}
	shown, _ := json.Marshal(c.Show())
	if strings.Contains(string(shown), "hunter") || !strings.Contains(string(shown), `{"key":"providers.crm","value":"https://login.crm.example client_id=gatehouse client_secret=[set]","origin":"`+file+`:2"}`) {
		t.Errorf("shown: %s", shown)
	}
}

func TestFaultsOfProviders(t *testing.T) {
	const good = "x: {issuer: https://a.example, client_id: b, hosts: [a.example]}"
	for _, tt := range []struct{ text, servers, says string }{
		{good, "", ""},
		{good, "s: {url: https://a.example/mcp, provider: x}", ""},
		{"x: {}", "", "gatehouse.yaml:2: providers.x: it needs an issuer"},
		{"x: {issuer: https://a.example, client_id: b}", "", "it needs hosts"},
		{"x: {issuer: https://a.example, hosts: [a.example]}", "", "it needs a client_id"},
		{"x: {issuer: https://a.example, revoke_url: http://a.example/revoke, client_id: b, hosts: [a.example]}", "", "is not an https address"},
		{"x: {issuer: http://a.example, client_id: b, hosts: [a.example]}", "", "is not an https address"},
		{"x: {issuer: https://a.example, client_id: b, hosts: [https://a.example]}", "", "is not HOST or HOST:PORT"},
		{"x: {issuer: https://a.example, client_id: b, client_secret_file: nowhere, hosts: [a.example]}", "", "nowhere can't be read"},
		{"x: {issuer: https://a.example, client_id: b, client_auth: jwt, hosts: [a.example]}", "", "client_auth is one of basic, post"},
		{"x: {issuer: https://a.example, client_id: b, params: {state: c}, hosts: [a.example]}", "", "is set by the gateway"},
		{"x: {isuer: https://a.example}", "", "providers.x.isuer is not a setting; did you mean issuer?"},
		{"x: {issuer: [https://a.example, https://b.example]}", "", "it takes one value"},
		{"x: https://a.example", "", "providers.x holds settings"},
		{"X: {issuer: https://a.example, client_id: b, hosts: [a.example]}", "", "a name has up to 32 small letters"},
		{good, "s: {url: https://a.example/mcp, provider: y}", "there is no provider y"},
		{good, "s: {url: https://evil.example/mcp, provider: x}", "not among the hosts of the provider x"},
		{good, "s: {url: http://a.example/mcp, provider: x}", "not among the hosts of the provider x"},
		{good, "s: {command: [a], provider: x}", "a credential is lent at a url only"},
	} {
		text := "providers:\n  " + tt.text + "\n"
		if tt.servers != "" {
			text += "servers:\n  " + tt.servers + "\n"
		}
		_, err := load(map[string]string{"config": write(t, text)})
		why := ""
		if err != nil {
			why = problem.From(err).Why
		}
		if !strings.Contains(why, tt.says) || (tt.says == "") != (err == nil) {
			t.Errorf("%s %s: %s", tt.text, tt.servers, why)
		}
	}
}
