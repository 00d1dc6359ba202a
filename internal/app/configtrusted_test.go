package app

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

const someKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// Whose word is taken stands in the file, with what for.
func TestTrustedIssuersOfTheFile(t *testing.T) {
	file := write(t, `trusted_issuers:
  acme:
    kind: id-jag
    issuer: https://login.acme.example
    clients: [one, two]
    members: {00u1: dana@acme.example}
    match_email: true
  builds:
    kind: workload
    issuer: https://ci.example/oidc
    jwks_file: keys.json
    subject: repo:acme/app:*
    claims:
      ref: refs/heads/main
    account: builder
`)
	writeAs(t, filepath.Join(filepath.Dir(file), "keys.json"), someKeys)
	c, err := Load(map[string]string{"config": file}, nil)
	if err != nil {
		t.Fatal(problem.From(err).Why)
	}
	parties := c.trustedParties()
	if len(parties) != 2 {
		t.Fatalf("%+v", parties)
	}
	acme, builds := parties[0], parties[1]
	if acme.Issuer.URL != "https://login.acme.example" || !slices.Equal(acme.Clients, []string{"one", "two"}) || acme.Members["00u1"] != "dana@acme.example" || !acme.Emails {
		t.Errorf("%+v", acme)
	}
	if builds.Issuer.URL != "https://ci.example/oidc" || builds.Subject != "repo:acme/app:*" || builds.Claims["ref"] != "refs/heads/main" || builds.Account != "builder" || builds.Emails {
		t.Errorf("%+v", builds)
	}
	shown, _ := json.Marshal(c.Show())
	for _, part := range []string{
		`{"key":"trusted_issuers.acme","value":"id-jag https://login.acme.example","origin":"` + file + `:2"}`,
		`{"key":"trusted_issuers.builds","value":"workload https://ci.example/oidc account=builder","origin":"` + file + `:8"}`,
	} {
		if !strings.Contains(string(shown), part) {
			t.Errorf("%s is missing in %s", part, shown)
		}
	}
	if again, err := Load(map[string]string{"config": file}, nil); err != nil || len(again.trustedParties()) != 2 {
		t.Errorf("read again: %v", err)
	}
}

// What would trust everybody, or nobody, is a fault.
func TestFaultsOfTrustedIssuers(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{"x: {}", ".issuer: it is not an address"},
		{"x: {kind: id-jag, issuer: http://idp.example, match_email: true}", ".issuer: it is not an address"},
		{`x: {kind: id-jag, issuer: "https://idp.example?a=b", match_email: true}`, ".issuer: it is not an address"},
		{"x: {kind: saml, issuer: https://idp.example}", "its kind is either id-jag or workload"},
		{"x: {issuer: https://idp.example}", "its kind is either id-jag or workload"},
		{"x: {kind: id-jag, issuer: https://idp.example}", "it says for nobody who that is here"},
		{"x: {kind: id-jag, issuer: https://idp.example, match_email: false}", "it says for nobody who that is here"},
		{"x: {kind: id-jag, issuer: https://idp.example, match_email: maybe}", "it is either true or false"},
		{"x: {kind: id-jag, issuer: https://idp.example, match_email: true, account: a}", "are for the kind workload"},
		{"x: {kind: workload, issuer: https://ci.example, subject: a}", "name the service account"},
		{"x: {kind: workload, issuer: https://ci.example, account: a}", "every workload of the issuer"},
		{`x: {kind: workload, issuer: https://ci.example, account: a, subject: "*"}`, "every workload of the issuer"},
		{`x: {kind: workload, issuer: https://ci.example, account: a, subject: "a*b"}`, "stands at the end only"},
		{"x: {kind: workload, issuer: https://ci.example, account: a, subject: a, clients: [c]}", "are for the kind id-jag"},
		{"x: {kind: workload, issuer: https://ci.example, account: a, subject: a, jwks_uri: http://ci.example/keys}", ".jwks_uri: it is not an address"},
		{"x: {kind: workload, issuer: https://ci.example, account: a, subject: a, jwks_uri: https://ci.example/keys, jwks_file: keys.json}", "exclude each other"},
		{"x: {kind: workload, issuer: https://ci.example, account: a, subject: a, jwks_file: none.json}", "can't be used"},
		{"x: {kind: workload, issuer: https://ci.example, account: a, acount: b, subject: a}", `did you mean`},
		{"x: {kind: workload, issuer: https://ci.example, account: [a, b], subject: a}", "it takes one value"},
	} {
		_, err := load(map[string]string{"config": write(t, "trusted_issuers:\n  "+tt.text+"\n")})
		if err == nil || !strings.Contains(problem.From(err).Why, tt.says) {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
}
