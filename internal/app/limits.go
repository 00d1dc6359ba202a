package app

import (
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/mcpserver"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/web"
)

// limit is how often what belongs to a group may happen, as it is set now (R1314).
func (h *house) limit(g throttle.Group) throttle.Limit {
	c := h.live.Load()
	return map[throttle.Group]throttle.Limit{
		authserver.Authorizations: c.AuthorizeLimit,
		authserver.Registrations:  c.RegisterLimit,
		authserver.Failures:       c.FailureLimit,
		authserver.Guesses:        c.TypedCodeLimit,
		mcpserver.Strangers:       c.StrangerLimit,
		web.SignIns:               c.SignInLimit,
		web.Letters:               {Each: 10, Per: 15 * time.Minute}, // as long as a link works
	}[g]
}
