package vault

import (
	"encoding/json"
	"errors"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// handleKind is what a handle of ours is for.
const handleKind = "public_token"

// handle is what public_token holds, sealed: whose token it is, and which grants it
// leads to. Without the master key it is worth nothing, here and at the provider.
type handle struct {
	Workspace string   `json:"w"`
	User      string   `json:"u"`
	Family    string   `json:"f"`
	Grants    []string `json:"g"`
}

// PublicToken is the claim public_token of a family's access tokens: a sealed
// handle that only this server resolves (R410, C16). It is empty where the person
// uses no connection at the servers of the resource, which are those of origin.
func (v *Vault) PublicToken(tx *store.Tx, f token.Family, origin string) (string, error) {
	h := handle{Workspace: f.Workspace, User: f.User, Family: f.ID}
	for _, name := range v.For(origin) {
		g, found, err := v.grant(tx, principal.Principal{Workspace: f.Workspace, User: f.User}, name)
		if err != nil {
			return "", err
		}
		if found && g.status == active {
			h.Grants = append(h.Grants, g.id)
		}
	}
	if len(h.Grants) == 0 {
		return "", nil
	}
	plain, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	return v.Box.Handle(handleKind, plain)
}

// belongs checks that the grant is the caller's, and so says the handle, where the
// token carries one: whatever went wrong on the way here, nobody uses what another
// person was granted (R557). A connection that was made after the token is none of
// those the handle names, and good all the same.
func (v *Vault) belongs(p principal.Principal, g grant) error {
	foreign := v.told(connectionNeeded, g.name, "your access token does not lead to your account at %q", g.name).
		WithWhy("it was made for another person or connection").WithFix("sign in again in the app")
	if g.workspace != p.Workspace || g.user != p.User {
		return foreign
	}
	if p.Handle == "" {
		return nil
	}
	var h handle
	plain, err := v.Box.OpenHandle(handleKind, p.Handle)
	switch {
	case errors.Is(err, seal.ErrOtherKey):
		return nil // of a master key that is gone; the next token has another one
	case err != nil:
		return foreign.Because(err)
	}
	if json.Unmarshal(plain, &h) != nil || h.Workspace != g.workspace || h.User != g.user || h.Family != p.Family {
		return foreign
	}
	return nil
}
