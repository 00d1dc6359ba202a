package oauth

import "strings"

// The well-known names (RFC 8414 §3, OpenID Connect Discovery §4, RFC 9728 §3).
const (
	ServerSuffix   = "oauth-authorization-server"
	OpenIDSuffix   = "openid-configuration"
	ResourceSuffix = "oauth-protected-resource"
)

// ServerMetadata describes an authorization server (RFC 8414; R103, R104,
// R116). What is switched off is left out (R105).
type ServerMetadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint,omitempty"`
	TokenEndpoint         string   `json:"token_endpoint,omitempty"`
	RegistrationEndpoint  string   `json:"registration_endpoint,omitempty"`
	PushedEndpoint        string   `json:"pushed_authorization_request_endpoint,omitempty"` // RFC 9126
	PushedOnly            bool     `json:"require_pushed_authorization_requests,omitempty"` // RFC 9126 §5; absent: false
	DeviceEndpoint        string   `json:"device_authorization_endpoint,omitempty"`         // RFC 8628
	RevocationEndpoint    string   `json:"revocation_endpoint,omitempty"`
	IntrospectionEndpoint string   `json:"introspection_endpoint,omitempty"`
	JWKSURI               string   `json:"jwks_uri,omitempty"`
	ScopesSupported       []string `json:"scopes_supported,omitempty"`
	ResponseTypes         []string `json:"response_types_supported"`
	ResponseModes         []string `json:"response_modes_supported,omitempty"`
	GrantTypes            []string `json:"grant_types_supported,omitempty"`
	GrantProfiles         []string `json:"authorization_grant_profiles_supported,omitempty"` // ID-JAG
	TokenAuthMethods      []string `json:"token_endpoint_auth_methods_supported,omitempty"`
	TokenSigningAlgs      []string `json:"token_endpoint_auth_signing_alg_values_supported,omitempty"` // with private_key_jwt
	RevocationAuthMethods []string `json:"revocation_endpoint_auth_methods_supported,omitempty"`
	IntrospectionMethods  []string `json:"introspection_endpoint_auth_methods_supported,omitempty"`
	IntrospectionAlgs     []string `json:"introspection_signing_alg_values_supported,omitempty"` // RFC 9701
	IntrospectionSigning  []string `json:"introspection_endpoint_auth_signing_alg_values_supported,omitempty"`
	RevocationSigningAlgs []string `json:"revocation_endpoint_auth_signing_alg_values_supported,omitempty"`
	ProofAlgs             []string `json:"dpop_signing_alg_values_supported,omitempty"` // RFC 9449
	ChallengeMethods      []string `json:"code_challenge_methods_supported,omitempty"`
	IssParameter          bool     `json:"authorization_response_iss_parameter_supported,omitempty"` // RFC 9207
	ClientDocuments       bool     `json:"client_id_metadata_document_supported,omitempty"`          // a client id may be the address of a document
}

// ResourceMetadata describes one MCP endpoint (RFC 9728; R107, R111).
type ResourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers,omitempty"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported,omitempty"`
	ProofAlgs            []string `json:"dpop_signing_alg_values_supported,omitempty"`
	ProofRequired        bool     `json:"dpop_bound_access_tokens_required"`
	Name                 string   `json:"resource_name,omitempty"`
	Documentation        string   `json:"resource_documentation,omitempty"`
}

// TokenResponse is a successful answer of the token endpoint (RFC 6749 §5.1).
type TokenResponse struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in,omitempty"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`

	IssuedTokenType string `json:"issued_token_type,omitempty"` // RFC 8693 §2.2.1
}

// PushedResponse is the answer to a pushed authorization request (RFC 9126 §2.2).
type PushedResponse struct {
	RequestURI string `json:"request_uri"`
	ExpiresIn  int64  `json:"expires_in"` // seconds
}

// DeviceResponse is the answer of the device authorization endpoint (RFC 8628 §3.2).
type DeviceResponse struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete,omitempty"`
	ExpiresIn               int64  `json:"expires_in"`         // seconds
	Interval                int64  `json:"interval,omitempty"` // seconds between two polls; absent: 5
}

// Introspection says what a token is (RFC 7662 §2.2). About one that is not active
// nothing else is said.
type Introspection struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	Client    string `json:"client_id,omitempty"`
	TokenType string `json:"token_type,omitempty"` // of an access token
	Expires   int64  `json:"exp,omitempty"`        // seconds since 1970
	Issued    int64  `json:"iat,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	ID        string `json:"jti,omitempty"`

	Confirm *Confirmation `json:"cnf,omitempty"`
}

// Confirmation names the key to which a token is bound (RFC 7800, RFC 9449 §6).
type Confirmation struct {
	Key string `json:"jkt"` // its thumbprint
}

// SignedIntrospection are the claims of a signed answer (RFC 9701 §5). Its audience
// is whoever asked.
type SignedIntrospection struct {
	Issuer        string        `json:"iss"`
	Audience      string        `json:"aud"`
	Issued        int64         `json:"iat"`
	Introspection Introspection `json:"token_introspection"`
}

// ErrorResponse is a refusal in JSON (RFC 6749 §5.2; R407).
type ErrorResponse struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
	Ref         string `json:"ref,omitempty"` // ours: the reference of the request; clients ignore what they do not know
}

// WellKnown is the address of the metadata of an issuer or a resource: the
// well-known name stands between host and path (RFC 8414 §3.1, RFC 9728 §3.1).
func WellKnown(id, suffix string) string {
	origin, path, query := cutOrigin(id)
	return origin + "/.well-known/" + suffix + strings.TrimSuffix(path, "/") + query
}

// ServerMetadataURLs are the addresses at which a client looks for the metadata
// of an issuer, in order (MCP 2025-11-25 authorization, server metadata discovery).
func ServerMetadataURLs(issuer string) []string {
	urls := []string{WellKnown(issuer, ServerSuffix), WellKnown(issuer, OpenIDSuffix)}
	if _, path, _ := cutOrigin(issuer); strings.Trim(path, "/") != "" {
		urls = append(urls, strings.TrimSuffix(issuer, "/")+"/.well-known/"+OpenIDSuffix)
	}
	return urls
}

// ResourceMetadataURLs are the addresses at which a client looks for the
// metadata of a resource whose challenge names none, in order.
func ResourceMetadataURLs(resource string) []string {
	origin, path, query := cutOrigin(resource)
	root := WellKnown(origin, ResourceSuffix)
	if strings.Trim(path, "/") == "" && query == "" {
		return []string{root}
	}
	return []string{WellKnown(resource, ResourceSuffix), root}
}

// cutOrigin splits an absolute URI after its authority and before its query,
// as text: nothing is decoded.
func cutOrigin(uri string) (origin, path, query string) {
	start := strings.Index(uri, "://")
	if start < 0 {
		return uri, "", ""
	}
	start += len("://")
	if end := strings.IndexAny(uri[start:], "/?#"); end >= 0 {
		origin, path = uri[:start+end], uri[start+end:]
	} else {
		origin = uri
	}
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path, query = path[:i], path[i:]
	}
	return origin, path, query
}
