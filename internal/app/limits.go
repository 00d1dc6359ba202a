package app

import (
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// limits are how often strangers may ask (R1314).
var limits = map[throttle.Group]throttle.Limit{
	authserver.Guesses: {Each: 30, All: 3000, Per: authserver.DeviceLife},
}
