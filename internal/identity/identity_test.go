package identity

import (
	"errors"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

func each(t *testing.T, f func(t *testing.T, p *People, do func(func(*store.Tx) error))) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p := &People{DB: db}
		if err := p.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(t, p, func(fn func(*store.Tx) error) {
			t.Helper()
			if err := db.Do(t.Context(), fn); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestThereIsOneFirstOwner(t *testing.T) {
	each(t, func(t *testing.T, p *People, do func(func(*store.Tx) error)) {
		do(func(tx *store.Tx) error {
			if has, err := p.HasOwner(tx); has || err != nil {
				t.Errorf("before setup: %v %v", has, err)
			}
			_, err := p.MakeOwner(tx, " Dana@Acme.example ")
			return err
		})
		do(func(tx *store.Tx) error {
			if _, err := p.MakeOwner(tx, "eve@evil.example"); !problem.Is(err, ownerExists) {
				t.Errorf("a second owner: %v", err)
			}
			m, found, err := p.ByEmail(tx, "DANA@acme.example")
			if !found || m.Rank != principal.Owner || m.Email != "dana@acme.example" || m.Principal().Workspace != Workspace {
				t.Errorf("%+v %v %v", m, found, err)
			}
			if _, found, _ := p.ByEmail(tx, "eve@evil.example"); found {
				t.Error("a stranger is a member")
			}
			return nil
		})
	})
}

func TestOnlyActiveMembersAreFound(t *testing.T) {
	each(t, func(t *testing.T, p *People, do func(func(*store.Tx) error)) {
		var id string
		do(func(tx *store.Tx) error {
			person, err := p.MakeOwner(tx, "dana@acme.example")
			id = person.ID
			return err
		})
		do(func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE member SET status = 'suspended' WHERE workspace = $1 AND user_id = $2`, Workspace, id)
			return err
		})
		do(func(tx *store.Tx) error {
			_, byID, err1 := p.Member(tx, Workspace, id)
			_, byEmail, err2 := p.ByEmail(tx, "dana@acme.example")
			_, elsewhere, err3 := p.Member(tx, "other", id)
			if byID || byEmail || elsewhere {
				t.Error("a suspended member is found")
			}
			return errors.Join(err1, err2, err3)
		})
	})
}

// R630: the identity of development mode is gone with it.
func TestDevIdentityNeedsDevMode(t *testing.T) {
	each(t, func(t *testing.T, p *People, do func(func(*store.Tx) error)) {
		p.Dev = true
		if err := p.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, dev := range []bool{true, false} {
			p.Dev = dev
			do(func(tx *store.Tx) error {
				_, found, err := p.DevMember(tx)
				if found != dev {
					t.Errorf("dev mode %v, identity %v", dev, found)
				}
				if has, _ := p.HasOwner(tx); has {
					t.Error("the identity of development mode counts as an owner")
				}
				if _, found, _ := p.ByEmail(tx, devEmail); found {
					t.Error("somebody can sign in as the identity of development mode")
				}
				return err
			})
		}
	})
}

func TestUnusableAddresses(t *testing.T) {
	for _, email := range []string{"", "x", "a@b@c", "Dana <dana@acme.example>", "a b@c.example", "a@b.example\r\nBcc: x@y.example", devEmail} {
		if got, err := normal(email); err == nil {
			t.Errorf("%q became %q", email, got)
		}
	}
}
