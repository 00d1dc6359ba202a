package doctor

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// discoveryChecks follow the way of a client from the server to its issuer.
var discoveryChecks = []check{
	{
		id: "resource-metadata", group: "Discovery",
		expected:  "the server is described in JSON, at the well-known address for its path",
		fix:       "serve the protected resource metadata as application/json there",
		reference: "RFC 9728 §3; MCP 2025-11-25 authorization, Authorization Server Location", requirement: "R107 R108",
		run: (*exam).resourceMetadata,
	},
	{
		id: "resource-metadata-named", group: "Discovery",
		expected:  "the challenge and the well-known address lead to the same document",
		fix:       "let both say the same: some clients read the one, some the other",
		reference: "RFC 9728 §5", requirement: "R113",
		run: func(e *exam) outcome {
			at := e.challenge.ResourceMetadata()
			if at == "" || !e.hasPRM || e.prmAt == at && at != oauth.ResourceMetadataURLs(e.opts.Server)[0] {
				return skip("there are not two")
			}
			if at == oauth.ResourceMetadataURLs(e.opts.Server)[0] {
				return good("it is the same address")
			}
			var named oauth.ResourceMetadata
			a := e.document(at)
			if !a.ok() || json.Unmarshal(a.body, &named) != nil {
				return fault(at + ": " + a.String())
			}
			return must(reflect.DeepEqual(named, e.prm), "at "+at+": resource "+quote(named.Resource))
		},
	},
	{
		id: "resource", group: "Discovery",
		expected:  "resource is the address that clients use",
		fix:       "set resource to the address of the MCP endpoint, without a slash at the end; clients refuse a document about another address",
		reference: "RFC 9728 §3.3; RFC 8707 §2", requirement: "R107",
		run: func(e *exam) outcome {
			if !e.hasPRM {
				return skip("the server is not described")
			}
			origin := e.url.Scheme + "://" + e.url.Host
			whole := e.prmAt == oauth.WellKnown(origin, oauth.ResourceSuffix) && oauth.SameResource(e.prm.Resource, origin) // of all that is there
			return must(whole || oauth.SameResource(e.prm.Resource, e.opts.Server), "resource="+quote(e.prm.Resource))
		},
	},
	{
		id: "authorization-servers", group: "Discovery",
		expected:  "authorization_servers names at least one issuer, by https",
		fix:       "list the issuer's address in authorization_servers",
		reference: "RFC 9728 §2; MCP 2025-11-25 authorization, Authorization Server Location", requirement: "R109",
		run: func(e *exam) outcome {
			if !e.hasPRM {
				return skip("the server is not described")
			}
			issuers := e.prm.AuthorizationServers
			return must(len(issuers) > 0 && !slices.ContainsFunc(issuers, func(i string) bool { return !e.safe(i) }), list("authorization_servers", issuers))
		},
	},
	{
		id: "bearer-methods", group: "Discovery",
		expected:  "tokens are taken in the header only",
		fix:       `set bearer_methods_supported to ["header"], and read tokens nowhere else`,
		reference: "RFC 9728 §2; MCP 2025-11-25 authorization, Token Requirements", requirement: "R514",
		run: func(e *exam) outcome {
			if !e.hasPRM || e.prm.BearerMethods == nil {
				return skip("the server does not say")
			}
			return must(!slices.Contains(e.prm.BearerMethods, "query"), list("bearer_methods_supported", e.prm.BearerMethods))
		},
	},
	{
		id: "resource-scopes", group: "Discovery",
		expected:  "offline_access is no scope of the server",
		fix:       "leave offline_access to the issuer's scopes_supported",
		reference: "MCP 2026-07-28 authorization, Scope Minimization", requirement: "R111",
		run: func(e *exam) outcome {
			if !e.hasPRM {
				return skip("the server is not described")
			}
			asked := append(strings.Fields(e.challenge.Params["scope"]), e.prm.ScopesSupported...)
			return should(!slices.Contains(asked, "offline_access"), list("scopes_supported", e.prm.ScopesSupported))
		},
	},
	{
		id: "resource-cors", group: "Discovery",
		expected:  "pages of any origin may read the description",
		fix:       "send Access-Control-Allow-Origin: * with the metadata; it is public, and clients in browsers need it",
		reference: "RFC 9728 §3.1; Fetch, CORS protocol", requirement: "R102",
		run: func(e *exam) outcome {
			if !e.hasPRM {
				return skip("the server is not described")
			}
			a := e.document(e.prmAt)
			return should(a.open(), "Access-Control-Allow-Origin="+quote(a.header.Get("Access-Control-Allow-Origin")))
		},
	},
}

// resourceMetadata looks where clients look. One of the places is enough for the
// standard, but not for every client.
func (e *exam) resourceMetadata() outcome {
	places := oauth.ResourceMetadataURLs(e.opts.Server)
	if at := e.challenge.ResourceMetadata(); at != "" && !slices.Contains(places, at) {
		places = append(places, at)
	}
	var tried []string
	for i, at := range places {
		a := e.document(at)
		var found oauth.ResourceMetadata // what cannot be read leaves nothing behind
		if a.ok() && json.Unmarshal(a.body, &found) == nil {
			e.prm, e.hasPRM, e.prmAt = found, true, at
			switch seen := fmt.Sprintf("%s: content type %q", at, a.header.Get("Content-Type")); {
			case !a.isJSON():
				return fault(seen)
			case i > 0:
				return outcome{Warning, "only at " + at, "serve it at " + places[0] + " too: not every client looks elsewhere"}
			default:
				return good(seen)
			}
		}
		if tried = append(tried, at+": "+a.String()); a.ok() {
			tried[i] += ", and no JSON"
		}
	}
	return fault(strings.Join(tried, "; "))
}

// issuer is where the server says one signs in; without a description it is the
// server itself, as revision 2025-03-26 had it.
func (e *exam) issuer() string {
	if len(e.prm.AuthorizationServers) > 0 {
		return e.prm.AuthorizationServers[0]
	}
	return e.url.Scheme + "://" + e.url.Host
}

// issuerChecks read what the issuer says about itself.
var issuerChecks = []check{
	{
		id: "issuer-metadata", group: "Discovery",
		expected:  "the issuer is described in JSON at a well-known address",
		fix:       "serve the metadata at /.well-known/oauth-authorization-server, before the path of the issuer",
		reference: "RFC 8414 §3; MCP 2025-11-25 authorization, Authorization Server Metadata Discovery", requirement: "R101 R106",
		run: (*exam).issuerMetadata,
	},
	{
		id: "issuer", group: "Discovery",
		expected:  "issuer is, letter by letter, the address it was found by",
		fix:       "let authorization_servers and issuer be the same string; mind the slash at the end",
		reference: "RFC 8414 §3.3", requirement: "R109",
		run: func(e *exam) outcome {
			if !e.hasAS {
				return skip("the issuer is not described")
			}
			return must(e.as.Issuer == e.issuer(), "issuer="+quote(e.as.Issuer)+", found by "+quote(e.issuer()))
		},
	},
	{
		id: "endpoints", group: "Discovery",
		expected:  "authorization and token endpoint are there, and all endpoints are https",
		fix:       "name both endpoints, by https",
		reference: "RFC 8414 §2; OAuth 2.1 §1.5", requirement: "R103",
		run: func(e *exam) outcome {
			if !e.hasAS {
				return skip("the issuer is not described")
			}
			for _, p := range [...]struct {
				name, address string
				needed        bool
			}{
				{"authorization_endpoint", e.as.AuthorizationEndpoint, true}, {"token_endpoint", e.as.TokenEndpoint, true},
				{"registration_endpoint", e.as.RegistrationEndpoint, false}, {"revocation_endpoint", e.as.RevocationEndpoint, false},
				{"introspection_endpoint", e.as.IntrospectionEndpoint, false}, {"jwks_uri", e.as.JWKSURI, false},
			} {
				if p.address == "" && p.needed || p.address != "" && !e.safe(p.address) {
					return fault(p.name + "=" + quote(p.address))
				}
			}
			return good(e.as.AuthorizationEndpoint + " " + e.as.TokenEndpoint)
		},
	},
	{
		id: "response-types", group: "Discovery",
		expected:  "response_types_supported has code",
		fix:       `set response_types_supported to ["code"]`,
		reference: "RFC 8414 §2; OAuth 2.1 §4.1", requirement: "R103",
		run: func(e *exam) outcome {
			if !e.hasAS {
				return skip("the issuer is not described")
			}
			types := e.as.ResponseTypes
			if slices.Contains(types, "token") {
				return outcome{Warning, list("response_types_supported", types), "switch the implicit grant off (response type token)"}
			}
			return must(slices.Contains(types, "code"), list("response_types_supported", types))
		},
	},
	{
		id: "pkce", group: "Discovery",
		expected:  "code_challenge_methods_supported has S256, and not plain",
		fix:       `support PKCE with S256 and say so; MCP clients refuse to sign in without`,
		reference: "MCP 2025-11-25 authorization, Authorization Code Protection; RFC 7636 §4.2", requirement: "R303",
		run: func(e *exam) outcome {
			if !e.hasAS {
				return skip("the issuer is not described")
			}
			methods := e.as.ChallengeMethods
			if slices.Contains(methods, "S256") && slices.Contains(methods, "plain") {
				return outcome{Warning, list("code_challenge_methods_supported", methods), "leave out plain: who sees the request can redeem the code"}
			}
			return must(slices.Contains(methods, "S256"), list("code_challenge_methods_supported", methods))
		},
	},
	{
		id: "registration", group: "Discovery",
		expected:  "a client can become known by itself: by its metadata document, or by registration",
		fix:       "take metadata documents as client ids (client_id_metadata_document_supported), or offer a registration_endpoint",
		reference: "MCP 2025-11-25 authorization, Client Registration Approaches; RFC 7591", requirement: "R201",
		run: func(e *exam) outcome {
			if !e.hasAS {
				return skip("the issuer is not described")
			}
			return should(e.as.ClientDocuments || e.as.RegistrationEndpoint != "", fmt.Sprintf("metadata documents %t, registration_endpoint=%q", e.as.ClientDocuments, e.as.RegistrationEndpoint))
		},
	},
	{
		id: "iss", group: "Discovery",
		expected:  "answers in the browser name the issuer",
		fix:       "add iss to redirects, and set authorization_response_iss_parameter_supported; it keeps codes from being mixed up between issuers",
		reference: "RFC 9207 §2 and §3; MCP 2026-07-28 authorization", requirement: "R116",
		run: func(e *exam) outcome {
			if !e.hasAS {
				return skip("the issuer is not described")
			}
			return should(e.as.IssParameter, fmt.Sprintf("authorization_response_iss_parameter_supported=%t", e.as.IssParameter))
		},
	},
	{
		id: "jwks", group: "Discovery",
		expected:  "the keys are published in JSON, and only their public halves",
		fix:       "publish kty, kid, use, alg and the public members only",
		reference: "RFC 7517 §5 and §9.2", requirement: "R112",
		run: (*exam).keys,
	},
}

func (e *exam) issuerMetadata() outcome {
	if !e.safe(e.issuer()) {
		return skip("the address of the issuer is not safe to ask")
	}
	var tried []string
	for _, at := range oauth.ServerMetadataURLs(e.issuer()) {
		a := e.document(at)
		var found metadata // as above
		if a.ok() && json.Unmarshal(a.body, &found) == nil {
			e.as, e.hasAS = found, true
			switch {
			case !a.isJSON():
				return fault(fmt.Sprintf("%s: content type %q", at, a.header.Get("Content-Type")))
			case !a.open():
				return outcome{Warning, at + ": no Access-Control-Allow-Origin", "send Access-Control-Allow-Origin: * with the metadata; clients in browsers need it"}
			}
			return good(at)
		}
		tried = append(tried, at+": "+a.String())
	}
	return fault(strings.Join(tried, "; "))
}

// privateMembers are those of a key that must never be seen (RFC 7518 §6).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

func (e *exam) keys() outcome {
	if !e.hasAS || e.as.JWKSURI == "" {
		return skip("no jwks_uri")
	}
	if !e.safe(e.as.JWKSURI) {
		return skip("its address is not safe to ask")
	}
	a := e.document(e.as.JWKSURI)
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if !a.ok() || json.Unmarshal(a.body, &set) != nil || set.Keys == nil {
		return fault(e.as.JWKSURI + ": " + a.String() + ", no set of keys")
	}
	for _, key := range set.Keys {
		for _, name := range privateMembers {
			if _, ok := key[name]; ok {
				return outcome{Fault, fmt.Sprintf("a key with the private member %q", name), "replace that key at once: everybody could read it, and sign tokens with it"}
			}
		}
	}
	return good(fmt.Sprintf("%d keys", len(set.Keys)))
}

// foreign reports whether an answer sends the browser to the stranger.
func (a answer) foreign() bool {
	to, err := url.Parse(a.header.Get("Location"))
	return err == nil && strings.HasSuffix(to.Hostname(), "stranger.example")
}
