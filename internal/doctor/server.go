package doctor

import (
	"net/http"
	"strings"
)

// nobodys is a token that nobody issued.
const nobodys = "gatehouse-doctor-was-issued-no-token"

// serverChecks ask the MCP endpoint itself.
var serverChecks = []check{
	{
		id: "tls", group: "Server",
		expected:  "the address is https, unless it is on this computer",
		fix:       "serve it over TLS: tokens travel with every call",
		reference: "MCP 2025-11-25 authorization, Communication Security", requirement: "R501",
		run: func(e *exam) outcome {
			return must(e.url.Scheme == "https" || e.local(), e.url.Scheme+"://"+e.url.Host)
		},
	},
	{
		id: "no-token", group: "Server",
		expected:  "a message without a token is answered with 401",
		fix:       "answer 401 before anything is done for a caller without a token; clients start to sign in at that status only",
		reference: "MCP 2025-11-25 authorization, Error Handling; RFC 6750 §3.1", requirement: "R501",
		run: func(e *exam) outcome {
			if e.plain.ok() {
				return warning(e.plain.String() + ": the first message needs no token")
			}
			return must(e.plain.status == http.StatusUnauthorized, e.plain.String())
		},
	},
	{
		id: "challenge", group: "Server",
		expected:  "the 401 has WWW-Authenticate with the scheme Bearer",
		fix:       `send WWW-Authenticate: Bearer resource_metadata="…" with every 401`,
		reference: "RFC 6750 §3; RFC 9110 §11.6.1", requirement: "R501",
		run: func(e *exam) outcome {
			if e.plain.status != http.StatusUnauthorized {
				return skip("there was no 401")
			}
			return must(e.challenge.Scheme != "", "WWW-Authenticate: "+strings.Join(e.plain.header.Values("WWW-Authenticate"), ", "))
		},
	},
	{
		id: "challenge-metadata", group: "Server",
		expected:  "the challenge says where the server is described",
		fix:       "add resource_metadata with the address of the protected resource metadata to the challenge",
		reference: "RFC 9728 §5.1", requirement: "R501",
		run: func(e *exam) outcome {
			if e.challenge.Scheme == "" {
				return skip("there was no challenge")
			}
			if at := e.challenge.ResourceMetadata(); at != "" {
				return must(e.safe(at), "resource_metadata="+quote(at))
			}
			return warning("no resource_metadata")
		},
	},
	{
		id: "challenge-scope", group: "Server",
		expected:  "the challenge names the scopes to ask for",
		fix:       "add scope to the challenge; without it clients ask for everything the server lists",
		reference: "MCP 2025-11-25 authorization, Scope Selection Strategy", requirement: "R504",
		run: func(e *exam) outcome {
			if e.challenge.Scheme == "" {
				return skip("there was no challenge")
			}
			return should(e.challenge.Params["scope"] != "", "scope="+quote(e.challenge.Params["scope"]))
		},
	},
	{
		id: "get", group: "Server",
		expected:  "a GET without a token is answered with 401, or 405 where there is no stream",
		fix:       "guard the stream of events as calls are guarded",
		reference: "MCP 2025-11-25 transports, Listening for Messages from the Server", requirement: "R703",
		run: func(e *exam) outcome {
			a := e.fetch(http.MethodGet, e.opts.Server, http.Header{"Accept": {"text/event-stream"}}, "")
			return must(a.status == http.StatusUnauthorized || a.status == http.StatusMethodNotAllowed, a.String())
		},
	},
	{
		id: "invalid-token", group: "Server",
		expected:  `a made-up token is answered with 401 and error="invalid_token"`,
		fix:       `verify every token, and say error="invalid_token" so that clients renew theirs`,
		reference: "RFC 6750 §3.1", requirement: "R503",
		run: func(e *exam) outcome {
			if e.plain.ok() {
				return skip("the first message needs no token")
			}
			a := e.initialize(http.Header{"Authorization": {"Bearer " + nobodys}})
			code := bearer(a).Params["error"]
			seen := a.String() + ", error=" + quote(code)
			if a.status != http.StatusUnauthorized {
				return fault(seen)
			}
			return should(code == "invalid_token", seen)
		},
	},
	{
		id: "query-token", group: "Server",
		expected:  "a token in the query is not looked at",
		fix:       "read tokens from the Authorization header only; addresses end up in logs",
		reference: "MCP 2025-11-25 authorization, Token Requirements; RFC 9700 §4.3.2", requirement: "R514",
		run: func(e *exam) outcome {
			sep := "?"
			if e.url.RawQuery != "" {
				sep = "&"
			}
			address := e.opts.Server + sep + "access_token=" + nobodys
			if sep == "&" {
				return skip("the address has a query of its own")
			}
			a := e.initializeAt(address, nil)
			code := bearer(a).Params["error"]
			judged := code == "invalid_token" && e.challenge.Params["error"] != code
			return must(!judged && !(a.ok() && !e.plain.ok()), a.String()+", error="+quote(code))
		},
	},
	{
		id: "origin", group: "Server",
		expected:  "a page of another origin is turned away with 403",
		fix:       "compare the Origin header with the origins that may use the server, and answer 403 to others, before the token is looked at",
		reference: "MCP 2025-11-25 transports, Security Warning", requirement: "R736",
		run: func(e *exam) outcome {
			a := e.initialize(http.Header{"Origin": {stranger}})
			seen := "Origin: " + stranger + " gets " + a.String()
			if a.status == http.StatusForbidden {
				return good(seen)
			}
			if a.status == http.StatusUnauthorized && !e.local() { // the token is what protects it
				return good(seen)
			}
			return fault(seen)
		},
	},
	{
		id: "host", group: "Server",
		expected:  "on this computer, a request for another host is turned away",
		fix:       "answer requests for the host names you serve only, or any web page can reach the server by a name of its own",
		reference: "MCP security best practices, DNS rebinding", requirement: "R736",
		run: func(e *exam) outcome {
			if !e.local() {
				return skip("the server is not on this computer")
			}
			a := e.initialize(http.Header{"Host": {"stranger.example"}})
			return must(a.status >= 400 && a.status != http.StatusUnauthorized, "Host: stranger.example gets "+a.String())
		},
	},
}
