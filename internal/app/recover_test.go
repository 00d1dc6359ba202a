package app

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// A call that was under way when the process ended gets the outcome unknown at
// the next start, once. Where nodes share a database it may be under way at
// another one, so the start leaves it alone: audit.Attend finds out.
func TestCallsThatWereCutOff(t *testing.T) {
	t.Parallel()
	for engine, tt := range map[string]struct {
		address func(testing.TB) string
		want    string
	}{
		"sqlite": {storetest.SQLite, "pending unknown"}, "postgres": {storetest.Postgres, "pending"},
	} {
		t.Run(engine, func(t *testing.T) {
			c := Config{PublicURL: "http://localhost:3000", Database: tt.address(t), MasterKeyFile: filepath.Join(t.TempDir(), "master.key")}
			for range 3 {
				h, err := furnish(t.Context(), c, io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				if h.outcomes(t) == "" {
					err := h.audit.Write(t.Context(), audit.Event{
						Workspace: identity.Workspace, Action: "tool.call", Target: "fix_write", Call: "call_1", Outcome: audit.Pending,
					})
					if err != nil {
						t.Fatal(err)
					}
				} else if got := h.outcomes(t); got != tt.want {
					t.Errorf("after a start: %s, want %s", got, tt.want)
				}
				h.leave(t)
			}
		})
	}
}

// outcomes are those of the call call_1.
func (h *house) outcomes(t *testing.T) string {
	t.Helper()
	var all []string
	err := h.db.View(context.Background(), func(tx *store.Tx) (err error) {
		all, err = column(tx, `SELECT outcome FROM audit_event WHERE call = 'call_1' ORDER BY seq`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}
