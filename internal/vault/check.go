package vault

import (
	"context"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/gate"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// Check objects to a call of a server that answers for accounts, where the person's
// is not connected, is lost (R558), or was granted less than the tool needs (R556).
// It is asked about calls, not about lists: those read no database.
func (v *Vault) Check(ctx context.Context, c gate.Call, t tool.Tool) error {
	if c.Args == nil || t.Origin == "" {
		return nil
	}
	for _, name := range v.For(t.Origin) {
		var g grant
		err := v.DB.View(ctx, func(tx *store.Tx) (err error) {
			g, err = v.standing(tx, c.Principal, name)
			return err
		})
		if err != nil {
			return err
		}
		if lacking := missing(v.Providers[name].needs(t.Effect), g.scopes); len(lacking) > 0 {
			return v.told(connectionNarrow, name, "%.128s needs more than you allowed at %q", c.Name, name).
				WithWhy("%q did not grant %s", name, strings.Join(lacking, " "))
		}
	}
	return nil
}
