package upstream

import (
	"context"
	"encoding/json"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
)

// broken is the connection of a server that cannot be started as it was recorded.
type broken struct{ err error }

// Connect fails with the reason.
func (b broken) Connect(context.Context) (mcp.InitializeResult, error) {
	return mcp.InitializeResult{}, b.err
}

// Call fails with the reason.
func (b broken) Call(context.Context, string, json.RawMessage, Notify) (json.RawMessage, error) {
	return nil, b.err
}

// State is Down.
func (b broken) State() (State, error) { return Down, b.err }

// Said is empty.
func (b broken) Said(int) string { return "" }

// Close has nothing to do.
func (b broken) Close() {}
