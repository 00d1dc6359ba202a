package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var selfCheckFailed = problem.Code{
	Name: "SELF_CHECK_FAILED", Kind: problem.Invalid,
	Why: "the documents with which clients begin contradict the configuration or one another",
	Fix: "look at public_url and issuer_url; if they are right, this is a fault of the program",
}

// checkDocuments reads what clients will read first, as they do but without a
// network, and refuses to start where they would give up (R109, R113).
func (h *house) checkDocuments() error {
	var resources []string
	for _, origin := range h.registry.Origins() {
		if a, found := h.registry.Audience(h.config.PublicURL, origin); found {
			resources = append(resources, a.URL)
		}
	}
	outside := h.outside()
	if external := h.config.External.Issuers; external != nil {
		if err := checkResources(outside, resources, external...); err != nil {
			return selfCheckFailed.New("clients could not sign in to this server").WithWhy("%v", err)
		}
		return nil
	}
	err := checkResources(outside, resources, h.config.IssuerURL)
	if err == nil {
		err = checkIssuer(outside, h.config.IssuerURL, h.tokens.KeyID())
	}
	if err != nil {
		return selfCheckFailed.New("clients could not sign in to this server").WithWhy("%v", err)
	}
	return nil
}

// checkResources: the document of each MCP endpoint is that endpoint's, and names
// the issuers.
func checkResources(outside http.Handler, resources []string, issuers ...string) error {
	for _, resource := range resources {
		var m oauth.ResourceMetadata
		address := oauth.WellKnown(resource, oauth.ResourceSuffix)
		if err := fetch(outside, address, &m); err != nil {
			return err
		}
		if m.Resource != resource || !slices.Equal(m.AuthorizationServers, issuers) {
			return fmt.Errorf("%s is about %q and names %q, but it should be about %s and name %s", address, m.Resource, m.AuthorizationServers, resource, issuers)
		}
	}
	return nil
}

// checkIssuer: the metadata is the issuer's, byte for byte, its endpoints are at the
// issuer's, PKCE is there, and so is the key that signs.
func checkIssuer(outside http.Handler, issuer, key string) error {
	var m oauth.ServerMetadata
	for _, address := range oauth.ServerMetadataURLs(issuer) {
		m = oauth.ServerMetadata{}
		if err := fetch(outside, address, &m); err != nil {
			return err
		}
		if m.Issuer != issuer || !m.IssParameter || !slices.Contains(m.ChallengeMethods, "S256") {
			return fmt.Errorf("%s describes the issuer %q, but it should be %s, with iss and S256", address, m.Issuer, issuer)
		}
		for _, endpoint := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, m.RevocationEndpoint, m.IntrospectionEndpoint, m.JWKSURI} {
			if !strings.HasPrefix(endpoint, issuer+"/") {
				return fmt.Errorf("%s names %q, which is not at %s", address, endpoint, issuer)
			}
		}
	}
	var set struct {
		Keys []struct {
			KeyID string `json:"kid"`
		} `json:"keys"`
	}
	if err := fetch(outside, m.JWKSURI, &set); err != nil {
		return err
	}
	for _, k := range set.Keys {
		if k.KeyID == key && key != "" {
			return nil
		}
	}
	return fmt.Errorf("%s does not have the key that signs", m.JWKSURI)
}

// fetch gets a document from a handler.
func fetch(outside http.Handler, address string, into any) error {
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	answer := answer{header: http.Header{}, status: http.StatusOK}
	outside.ServeHTTP(&answer, r)
	if answer.status != http.StatusOK {
		return fmt.Errorf("%s is not served; it answers %d", address, answer.status)
	}
	if err := json.Unmarshal(answer.Bytes(), into); err != nil {
		return fmt.Errorf("%s is not JSON: %w", address, err)
	}
	return nil
}

// answer is what a handler wrote.
type answer struct {
	bytes.Buffer
	header http.Header
	status int
}

// Header is what an http.ResponseWriter has.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader keeps the status.
func (a *answer) WriteHeader(status int) { a.status = status }
