package app

import (
	"slices"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/issuer"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
	"github.com/gatehouse-mcp/gatehouse/internal/upstream"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
	"github.com/gatehouse-mcp/gatehouse/internal/web"
)

// Codes are the problems of all rooms: the error reference.
var Codes = slices.Concat(
	problem.Codes, store.Codes, throttle.Codes, tool.Codes, issuer.Codes, audit.Codes, token.Codes, identity.Codes, gate.Codes, authn.Codes,
	vault.Codes, upstream.Codes, authserver.Codes, web.Codes,
	[]problem.Code{portTaken, listenFailed, alreadyRunning, masterKeyUnusable, masterKeyUnchanged, masterKeyUnknown, masterKeyNeeded, dataDirUnusable, nothingServed, configInvalid, externalSecretUnreadable, certificateUnusable, selfCheckFailed},
)
