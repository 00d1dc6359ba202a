package app

import (
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
)

// External are the authorization servers whose tokens are accepted instead of our
// own (R517). Without issuers there are none.
type External struct {
	Issuers    []string
	Audiences  []string
	RankClaim  string
	Admins     []string
	Standards  []string
	ClientID   string
	SecretFile string
}

// judgeExternal refuses what would trust nobody, or somebody by mistake.
func (l *loading) judgeExternal() {
	e := l.External
	for _, address := range e.Issuers {
		if !isIssuer(address) {
			l.wrong("external.issuers", hidePassword(address)+" is not an address like https://login.example.org")
		}
	}
	for key, given := range map[string]bool{
		"external.audiences": e.Audiences != nil, "external.rank_claim": e.RankClaim != "", "external.client_id": e.ClientID != "",
	} {
		if given && e.Issuers == nil {
			l.wrong(key, "it is about the tokens of others, so name them in external.issuers")
		}
	}
	switch {
	case e.RankClaim == "" && e.Admins != nil:
		l.wrong("external.admins", "name the claim that has these values: external.rank_claim")
	case e.RankClaim == "" && e.Standards != nil:
		l.wrong("external.standards", "name the claim that has these values: external.rank_claim")
	case e.ClientID == "" && e.SecretFile != "":
		l.wrong("external.client_secret_file", "name the client whose secret it is: external.client_id")
	case e.ClientID != "" && e.SecretFile == "":
		l.wrong("external.client_id", "name the file with its secret: external.client_secret_file")
	case e.ClientID != "" && len(e.Issuers) > 1:
		l.wrong("external.client_id", "a token that is no JWT does not say which issuer to ask, so there must be one only")
	}
	if e.Issuers != nil && l.Dev {
		l.wrong("external.issuers", "development mode has an identity of its own; start without it")
	}
}

var externalSecretUnreadable = problem.Code{
	Name: "EXTERNAL_SECRET_UNREADABLE", Kind: problem.Invalid,
	Fix:   "name a file that this user can read and that holds the secret, in external.client_secret_file",
	About: "the file with the secret for asking an external issuer is missing, unreadable or empty",
}

// trusted are the external issuers; nil without any.
func (c Config) trusted() (*authn.External, error) {
	e := c.External
	if len(e.Issuers) == 0 {
		return nil, nil
	}
	trusted := &authn.External{Audiences: e.Audiences, RankClaim: e.RankClaim, Admins: e.Admins, Standards: e.Standards}
	for _, address := range slices.Compact(slices.Sorted(slices.Values(e.Issuers))) {
		trusted.Issuers = append(trusted.Issuers, issuer.New(address, nil))
	}
	if e.ClientID == "" {
		return trusted, nil
	}
	secret, err := readFile(e.SecretFile)
	if err != nil || len(secret) == 0 {
		return nil, externalSecretUnreadable.New("%s can't be used", e.SecretFile).Because(err)
	}
	trusted.Opaque = issuer.NewIntrospector(trusted.Issuers[0], e.ClientID, seal.Hide(strings.TrimSpace(string(secret))))
	return trusted, nil
}
