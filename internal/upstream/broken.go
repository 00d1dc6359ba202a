package upstream

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// broken is the connection of a server that cannot be started as it was recorded.
type broken struct {
	err   error
	since time.Time
}

// Connect fails with the reason.
func (b broken) Connect(context.Context) (mcp.InitializeResult, error) {
	return mcp.InitializeResult{}, b.err
}

// Call fails with the reason.
func (b broken) Call(context.Context, tool.Session, string, json.RawMessage, tool.Peer) (json.RawMessage, error) {
	return nil, b.err
}

// Known is nothing.
func (b broken) Known(context.Context) (mcp.InitializeResult, bool) {
	return mcp.InitializeResult{}, false
}

// Open fails with the reason.
func (b broken) Open(context.Context, tool.Session) (string, mcp.InitializeResult, error) {
	return "", mcp.InitializeResult{}, b.err
}

// End has nothing to do.
func (b broken) End(context.Context, tool.Session) {}

// Listen hears nothing.
func (b broken) Listen(ctx context.Context, _ tool.Session, _ tool.Peer) { <-ctx.Done() }

// Tell reaches nobody.
func (b broken) Tell(context.Context, tool.Session, mcp.Message) {}

// State is Down since this node began.
func (b broken) State() (State, time.Time, error) { return Down, b.since, b.err }

// Said is empty.
func (b broken) Said(int) string { return "" }

// Close has nothing to do.
func (b broken) Close() {}
