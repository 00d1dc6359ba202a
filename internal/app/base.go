package app

import (
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Version is the version of this build.
const Version = "0.1.0"

type nothing struct{}

type publicInfo struct {
	Server   string   `json:"server" jsonschema:"name of the product"`
	Version  string   `json:"version"`
	Features []string `json:"features" jsonschema:"what this server does"`
	Docs     string   `json:"docs" jsonschema:"where to read more"`
}

type echoIn struct {
	Message string `json:"message" jsonschema:"what is sent back"`
}

type echoOut struct {
	Echo       string `json:"echo"`
	Authorized bool   `json:"authorized" jsonschema:"true: the call carried a good token"`
}

type whoami struct {
	Kind      string   `json:"kind"`
	Workspace string   `json:"workspace"`
	User      string   `json:"user"`
	Email     string   `json:"email,omitempty"`
	Rank      string   `json:"rank"`
	Client    string   `json:"client,omitempty" jsonschema:"the app it acts through"`
	Scopes    []string `json:"scopes"`
	Expires   string   `json:"expires,omitempty" jsonschema:"when the token expires"`
}

// baseTools are offered at the common endpoint besides those of the servers
// (R801, R802).
func baseTools(people *identity.People, public string) []tool.Tool {
	return []tool.Tool{
		tool.Define(tool.Def{
			Name: "public_info", Title: "About this server", Doc: "Say what this server is. Needs no sign-in.",
			Effect: tool.Reads, Caller: principal.Anyone,
		}, func(*store.Tx, principal.Principal, nothing) (publicInfo, error) {
			return publicInfo{
				Server: "gatehouse", Version: Version, Docs: public,
				Features: []string{"oauth-2.1", "dynamic-client-registration", "mcp-gateway", "audit-chain"},
			}, nil
		}),
		tool.Define(tool.Def{
			Name: "echo", Title: "Echo", Doc: "Send a message back, which proves that the call was authorized.",
			Effect: tool.Reads, Caller: principal.Readonly, Scope: tool.AnyScope,
		}, func(_ *store.Tx, _ principal.Principal, in echoIn) (echoOut, error) {
			return echoOut{Echo: in.Message, Authorized: true}, nil
		}),
		tool.Define(tool.Def{
			Name: "whoami", Title: "Who am I", Doc: "Say who the caller is, through which app, and with what rank and scopes.",
			Effect: tool.Reads, Caller: principal.Readonly, Scope: tool.AnyScope,
		}, func(tx *store.Tx, p principal.Principal, _ nothing) (whoami, error) {
			m, _, err := people.Member(tx, p.Workspace, p.User)
			w := whoami{
				Kind: p.Kind.String(), Workspace: p.Workspace, User: p.User, Email: m.Email, Rank: p.Rank.String(),
				Client: p.Client, Scopes: p.Scopes,
			}
			if !p.Expires.IsZero() {
				w.Expires = p.Expires.UTC().Format(time.RFC3339)
			}
			return w, err
		}),
	}
}
