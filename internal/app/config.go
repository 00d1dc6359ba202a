package app

import (
	"net/netip"
	"slices"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/upstream"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// Config is what can be set. What each field means, and how it is spelt, stands
// in settings. It is made in configload.go, of the file (configfile.go, and one
// file for each section), of the environment (configenv.go) and of flags;
// configcheck.go judges it, configshow.go shows it.
type Config struct {
	Listen         string
	PublicURL      string
	DataDir        string
	Database       string
	MasterKeyFile  string
	Dev            bool
	POC            bool
	TLSCertFile    string
	TLSKeyFile     string
	TrustedProxies []netip.Prefix
	AllowedOrigins []string
	LogLevel       string
	LogFormat      string
	Drain          time.Duration
	ReuseWindow    time.Duration
	SigningAlg     string
	SigningKeyLife time.Duration
	OpaqueTokens   []string
	NeedNonce      bool

	IssuerURL       string
	Registration    string
	Clients         map[string]authserver.FileClient // by id
	CIMD            string
	CIMDAllow       []string
	CIMDDocuments   map[string]string // by address, as JSON
	OutboundAllow   []netip.Prefix
	RedirectSchemes []string
	ExactRedirects  bool
	RequireResource bool
	RequirePushed   bool
	EndpointStyle   string

	AuthorizeLimit throttle.Limit
	RegisterLimit  throttle.Limit
	SignInLimit    throttle.Limit
	TypedCodeLimit throttle.Limit
	FailureLimit   throttle.Limit
	StrangerLimit  throttle.Limit
	Valkey         string
	ValkeyCAFile   string

	External External

	Servers   map[string]upstream.Spec  // by name
	Providers map[string]vault.Provider // by name
	Trusted   map[string]Trusted        // by name

	// Internet is no setting: what names mean and whose certificates count, where
	// that is not the system's word. Its Allow is OutboundAllow.
	Internet outbound.Options

	Source Source
}

// A setting is one field of Config in all its spellings. The file, the
// environment, the flags, the schema, the manual and gatehouse config show are
// made from this table and from nothing else.
type setting struct {
	key     string // in the file, with a dot between levels
	field   func(*Config) any
	doc     string        // what it means; the first sentence is the help of the flag
	preset  string        // what holds if nothing is given
	absent  string        // the same in words, where it is no fixed value
	example string        // a value to show, where there is no preset
	oneOf   []string      // the only values, if there are few
	most    time.Duration // the longest, where it is a time and may be longer than an hour
	flag    bool          // is it worth a flag of gatehouse serve?
	path    bool          // is it the name of a file or folder?
	live    bool          // does a change take effect without a restart?
}

var settings = []setting{
	{
		key: "listen", field: func(c *Config) any { return &c.Listen }, preset: "localhost:3000", flag: true,
		doc: "Address to listen on, HOST:PORT. localhost means 127.0.0.1 and ::1.",
	},
	{
		key: "public_url", field: func(c *Config) any { return &c.PublicURL }, absent: "http://localhost:PORT", example: "https://gatehouse.example.org", flag: true,
		doc: "Address at which browsers and clients reach this server. Off this computer it begins with https.",
	},
	{
		key: "issuer_url", field: func(c *Config) any { return &c.IssuerURL }, absent: "public_url", example: "https://auth.example.org",
		doc: "Address of the authorization server, where it is to have a host of its own: its endpoints and pages are there, the MCP endpoints at public_url. It has no path.",
	},
	{
		key: "data_dir", field: func(c *Config) any { return &c.DataDir }, absent: "gatehouse in the XDG data folder", example: "/var/lib/gatehouse", flag: true, path: true,
		doc: "Folder for the database, the master key and the admin socket.",
	},
	{
		key: "database", field: func(c *Config) any { return &c.Database }, absent: "a SQLite file in the data folder", example: "postgres://gatehouse@db.internal/gatehouse", flag: true,
		doc: "Where data is kept, sqlite:PATH or postgres://…. A password comes from elsewhere: ${file:NAME} and ${env:NAME} stand for the text of a file and of a variable, here and in every other value.",
	},
	{
		key: "master_key_file", field: func(c *Config) any { return &c.MasterKeyFile }, absent: "master.key in the data folder", example: "/etc/gatehouse/master.key", flag: true, path: true,
		doc: "File with the key that seals what is kept at rest. It is needed with PostgreSQL, where every node has the same one.",
	},
	{
		key: "dev", field: func(c *Config) any { return &c.Dev }, preset: "false", flag: true,
		doc: "Development mode: this computer only, no sign-in, everything is allowed. Everybody is dev@localhost.",
	},
	{
		key: "compat.poc", field: func(c *Config) any { return &c.POC }, preset: "false",
		doc: "In development mode, serve demonstrations from before PKCE as well: a program on this computer that registers without saying how it authenticates gets a secret, and may omit PKCE.",
	},
	{
		key: "tls.cert_file", field: func(c *Config) any { return &c.TLSCertFile }, absent: "no TLS", example: "/etc/gatehouse/tls.crt", path: true,
		doc: "Certificate chain with which the server shows itself, PEM. The files are read again when they change.",
	},
	{
		key: "tls.key_file", field: func(c *Config) any { return &c.TLSKeyFile }, absent: "no TLS", example: "/etc/gatehouse/tls.key", path: true,
		doc: "Key of the certificate, PEM.",
	},
	{
		key: "trusted_proxies", field: func(c *Config) any { return &c.TrustedProxies }, absent: "nobody", example: "[127.0.0.1, 10.0.0.0/8]", live: true,
		doc: "Networks of the proxies in front. What they say about the client in X-Forwarded-For, X-Forwarded-Host or Forwarded is believed; from everybody else it is ignored.",
	},
	{
		key: "allowed_origins", field: func(c *Config) any { return &c.AllowedOrigins }, absent: "only our own", example: "[https://inspector.example.org]", live: true,
		doc: "Origins of web pages that may call the MCP endpoints. Pages of this computer may where public_url is on it.",
	},
	{
		key: "log.level", field: func(c *Config) any { return &c.LogLevel }, preset: "info", oneOf: []string{"debug", "info", "warn", "error"}, flag: true, live: true,
		doc: "How much is logged. Each request is one line at info; probes at debug.",
	},
	{
		key: "log.format", field: func(c *Config) any { return &c.LogFormat }, absent: "text on a terminal, json elsewhere", example: "json", oneOf: []string{"text", "json"}, flag: true,
		doc: "How it is written, text or json.",
	},
	{
		key: "drain", field: func(c *Config) any { return &c.Drain }, preset: "25s", live: true,
		doc: "How long calls that run may take to end when the server is told to stop.",
	},
	{
		key: "refresh_reuse_window", field: func(c *Config) any { return &c.ReuseWindow }, preset: "1m",
		doc: "How long a refresh token stays good after what it was exchanged for was used. Within it an app that lost an answer, or works in several processes, goes on; after it the token's return ends the connection, and the person is told.",
	},
	{
		key: "signing_alg", field: func(c *Config) any { return &c.SigningAlg }, preset: "ES256", oneOf: []string{"ES256", "EdDSA", "RS256"},
		doc: "How access tokens are signed. Another one holds for the next signing key, which signs a day later, or at gatehouse keys rotate --now.",
	},
	{
		key: "signing_key_life", field: func(c *Config) any { return &c.SigningKeyLife }, preset: "2160h", most: 366 * 24 * time.Hour,
		doc: "How long a key signs access tokens before the next one does, 90 days unless told otherwise. The next key is published a day before, and the old one until the last token that it signed has expired.",
	},
	{
		key: "opaque_tokens", field: func(c *Config) any { return &c.OpaqueTokens }, absent: "nobody, access tokens are signed JWTs", example: "[tickets]", live: true,
		doc: "For whom access tokens are random text that says nothing and is looked up at each node, in place of JWTs: names of servers, mcp for the endpoint of all servers, ids of clients, or all.",
	},
	{
		key: "dpop_nonce", field: func(c *Config) any { return &c.NeedNonce }, preset: "false",
		doc: "Must a DPoP proof have a nonce of this server? Then none can be made in advance, and an app asks once more every five minutes.",
	},
	{
		key: "registration", field: func(c *Config) any { return &c.Registration }, preset: "open", oneOf: []string{"open", "token", "off"}, live: true,
		doc: "May an app register itself? With token, if it brings a token of gatehouse clients token add; with off, only those can connect that are registered already, that stand in clients, or that gatehouse clients add has added.",
	},
	{
		key: "clients", field: func(c *Config) any { return &c.Clients }, absent: "only those that register, or that gatehouse clients add has added", live: true,
		example: "\n  intranet:\n    name: Intranet\n    redirect_uris: [https://intranet.example.org/callback]\n    secret_file: /etc/gatehouse/intranet.secret",
		doc:     "OAuth clients by their id, approved because they stand here. Each has a name and redirect_uris; one with a secret_file, or a secret from ${env:NAME} or ${file:NAME}, authenticates with it. With dpop_bound_access_tokens: true it gets no token without a proof that it has a key, with require_pushed_authorization_requests: true it begins with a pushed request only. What stands here changes here only.",
	},
	{
		key: "cimd", field: func(c *Config) any { return &c.CIMD }, preset: "open", oneOf: []string{"off", "allowlist", "open"}, live: true,
		doc: "May an app be known by a document at an address of its maker, which is its client id? With allowlist, by those at the hosts of cimd_allow and those in cimd_documents; with open, by any. Apps that know this way take it as soon as it is offered: where this server does not reach the internet, pin their documents or say off, and they register themselves.",
	},
	{
		key: "cimd_allow", field: func(c *Config) any { return &c.CIMDAllow }, absent: "none", example: "[claude.ai, vscode.dev]", live: true,
		doc: "Hosts whose documents may be client ids, if cimd is allowlist.",
	},
	{
		key: "cimd_documents", field: func(c *Config) any { return &c.CIMDDocuments }, absent: "they are fetched", live: true,
		example: "\n  https://claude.ai/oauth/claude-code-client-metadata: claude-code.json\n  https://app.example.org/client.json:\n    client_id: https://app.example.org/client.json\n    client_name: Example\n    redirect_uris: [https://app.example.org/callback]",
		doc:     "Documents of apps by their address, each the name of a JSON file or the members themselves. What is pinned here is not fetched, and counts as approved by the operator.",
	},
	{
		key: "outbound_allow", field: func(c *Config) any { return &c.OutboundAllow }, absent: "public ones only", example: "[10.20.0.0/16]",
		doc: "Addresses in your own network that this server may connect to although strangers name them: of documents of apps, for instance. Each network that stands here can be reached through this server by who can make a name point into it.",
	},
	{
		key: "redirect_schemes", field: func(c *Config) any { return &c.RedirectSchemes }, absent: "cursor, vscode, vscode-insiders, windsurf, claude, zed", example: "[cursor, com.example.app]",
		doc: "Schemes of their own, beside https and http on this computer, at which apps may be answered.",
	},
	{
		key: "exact_redirects", field: func(c *Config) any { return &c.ExactRedirects }, preset: "false",
		doc: "Must an app on a person's computer listen on the port that it registered? Most choose a new one each time.",
	},
	{
		key: "require_resource", field: func(c *Config) any { return &c.RequireResource }, preset: "false",
		doc: "Must an app say for which MCP endpoint it asks? Without, older apps that do not say it mean the common one.",
	},
	{
		key: "require_pushed_requests", field: func(c *Config) any { return &c.RequirePushed }, preset: "false",
		doc: "Must an app push what it asks for before it sends a browser here (RFC 9126)? Many apps cannot. One that registers require_pushed_authorization_requests always has to.",
	},
	{
		key: "endpoint_style", field: func(c *Config) any { return &c.EndpointStyle }, preset: "oauth", oneOf: []string{"oauth", "mcp", "bare"},
		doc: "Which addresses of the authorization server its metadata names: /oauth/token, /mcp/token or /token. All of them answer.",
	},
	{
		key: "external.issuers", field: func(c *Config) any { return &c.External.Issuers }, absent: "tokens are our own", example: "[https://login.example.org/realms/acme]",
		doc: "Authorization servers whose tokens are accepted here, instead of our own: with it there is no authorization server of ours. Whoever comes with a token of theirs becomes a member, by its issuer and subject, with rank readonly.",
	},
	{
		key: "external.audiences", field: func(c *Config) any { return &c.External.Audiences }, absent: "only the address of the endpoint", example: "[gatehouse]",
		doc: "Audiences of their tokens that are good at every MCP endpoint, for servers that cannot put the address of an endpoint into aud.",
	},
	{
		key: "external.rank_claim", field: func(c *Config) any { return &c.External.RankClaim }, absent: "everybody is readonly", example: "realm_access.roles",
		doc: "Claim of their tokens with the person's groups or roles, with a dot between levels.",
	},
	{
		key: "external.admins", field: func(c *Config) any { return &c.External.Admins }, absent: "nobody", example: "[gatehouse-admins]",
		doc: "Values of external.rank_claim that make an admin.",
	},
	{
		key: "external.standards", field: func(c *Config) any { return &c.External.Standards }, absent: "nobody", example: "[engineering]",
		doc: "Values of external.rank_claim that make a standard member.",
	},
	{
		key: "external.client_id", field: func(c *Config) any { return &c.External.ClientID }, absent: "tokens that are no JWT are refused", example: "gatehouse",
		doc: "Our client id at the one external issuer, which is then asked about tokens that are no JWT (RFC 7662).",
	},
	{
		key: "external.client_secret_file", field: func(c *Config) any { return &c.External.SecretFile }, absent: "tokens that are no JWT are refused", example: "/etc/gatehouse/introspection.secret", path: true,
		doc: "File with the secret of external.client_id.",
	},
	{
		key: "limits.authorize", field: func(c *Config) any { return &c.AuthorizeLimit }, preset: "300/3000/1m", live: true,
		doc: "How often apps may begin to ask people: EACH/ALL/PER, of one address, of all together, and in which time; 0 is as often as they like. People who are signed in, and apps that somebody has allowed, are counted by themselves once strangers have used it up.",
	},
	{
		key: "limits.register", field: func(c *Config) any { return &c.RegisterLimit }, preset: "600/1200/1h", live: true,
		doc: "How often apps may register themselves, in the same form; as often they may change what they registered, and as often documents of apps that nobody has allowed are fetched. It bounds what strangers can fill the database with.",
	},
	{
		key: "limits.sign_in", field: func(c *Config) any { return &c.SignInLimit }, preset: "100/3000/10m", live: true,
		doc: "How often sign-in links may be asked for and used, in the same form.",
	},
	{
		key: "limits.typed_codes", field: func(c *Config) any { return &c.TypedCodeLimit }, preset: "30/3000/15m", live: true,
		doc: "How often codes of devices may be typed, right or wrong, in the same form.",
	},
	{
		key: "limits.failures", field: func(c *Config) any { return &c.FailureLimit }, preset: "600/0/1m", live: true,
		doc: "How many requests of one address may fail at the endpoints for programs, in the same form; those after that are told to wait. What does not fail is answered, whoever else is at the address.",
	},
	{
		key: "limits.strangers", field: func(c *Config) any { return &c.StrangerLimit }, preset: "1200/0/1m", live: true,
		doc: "How often the MCP endpoints, and REST, answer an address without a good token, in the same form.",
	},
	{
		key: "limits.valkey", field: func(c *Config) any { return &c.Valkey }, absent: "the database", example: "rediss://:${file:valkey.password}@valkey.internal:6379",
		doc: "Where several nodes share what they count for the limits: one Valkey or Redis server, valkey://[[USER]:PASSWORD@]HOST:PORT[/DATABASE], or rediss:// with TLS. In the file a password comes from ${file:NAME} or ${env:NAME}. While the server is away each node counts by itself.",
	},
	{
		key: "limits.valkey_ca_file", field: func(c *Config) any { return &c.ValkeyCAFile }, absent: "authorities of the system", example: "/etc/gatehouse/valkey-ca.crt", path: true,
		doc: "Certificates of the authorities that alone vouch for that server, PEM, where it has a certificate of your own authority.",
	},
	{
		key: "servers", field: func(c *Config) any { return &c.Servers }, absent: "only those that gatehouse add has added", live: true,
		example: "\n  tickets:\n    url: https://tickets.internal/mcp\n  time:\n    command: [uvx, mcp-server-time]\n    env:\n      LOG: quiet\n    env_file: /etc/gatehouse/time.env",
		doc:     "MCP servers behind the gateway, by name. Each has the url of its endpoint, or the command that starts it with its environment: env, and lines KEY=VALUE in env_file. Where the server answers for accounts, provider names the one whose credentials it takes. Tools are pinned when a server is first seen. What stands here changes here only.",
	},
	{
		key: "providers", field: func(c *Config) any { return &c.Providers }, absent: "no server gets a credential",
		example: "\n  crm:\n    issuer: https://login.crm.example\n    client_id: gatehouse\n    client_secret_file: /etc/gatehouse/crm.secret\n    scopes: [profile]\n    write_scopes: [records.write]\n    hosts: [mcp.crm.example, api.crm.example]",
		doc:     "Authorization servers at which people connect their accounts, by name; the gateway is a client there, registered with the redirect URI ISSUER_URL/connect/NAME/callback. Each has an issuer, whose metadata is read, or authorize_url and token_url; revoke_url, where it is told that a connection was removed, if the metadata does not say; client_id, and client_secret or client_secret_file, shown as client_auth says (basic, post); scopes to ask for, and read_scopes, write_scopes, admin_scopes without which tools of that kind are not called; params of the authorization request; and hosts, HOST or HOST:PORT, to which alone a credential goes.",
	},
	{
		key: "trusted_issuers", field: func(c *Config) any { return &c.Trusted }, absent: "nobody's word is taken", live: true,
		example: "\n  acme:\n    kind: id-jag\n    issuer: https://login.acme.example\n    clients: [0b6f1c9e-5a52-4a3a-9f1e-7f0d2c1b8a11]\n    members: {00u1a2b3: dana@acme.example}\n  builds:\n    kind: workload\n    issuer: https://token.actions.githubusercontent.com\n    subject: repo:acme/app:*\n    claims: {ref: refs/heads/main}\n    account: builder",
		doc:     "Issuers whose word counts in place of a sign-in or a secret, by name (grant type jwt-bearer). Of the kind id-jag, an identity provider that lets an app act for a member: clients are the apps that may bring its assertions, members says who is who by its subject, match_email takes addresses that it has verified. Of the kind workload, a platform that says which program is calling: account is the service account that the program is, if its token has the subject (a * at its end stands for anything), the claims and the audience (our issuer unless said otherwise). Keys come from its metadata, from jwks_uri or from jwks_file.",
	},
}

// find is the setting with a key.
func find(key string) (s setting, known bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}
