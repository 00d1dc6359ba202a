package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/mail"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// SetupRefused is the code of a setup that may not happen.
var SetupRefused = problem.Code{
	Name: "SETUP_REFUSED", Kind: problem.Forbidden,
	Why: "the code is wrong, older than 30 minutes, or this instance has an owner already",
	Fix: "use the code that the server printed at its last start; restarting it prints a new one",
}

const (
	// setupAlphabet leaves out what is easily misread.
	setupAlphabet = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
	maxSetupTries = 10
)

// NewSetupCode makes the code with which the first owner is made, in place of an
// earlier one. Once there is an owner it returns "".
func (a *Authn) NewSetupCode(ctx context.Context) (code string, err error) {
	err = a.DB.Do(ctx, func(tx *store.Tx) error {
		has, err := a.People.HasOwner(tx)
		if err != nil || has {
			return err
		}
		code = randomCode()
		_, err = tx.Exec(`INSERT INTO setup_code (one, hash, expires_at) VALUES (1, $1, $2)
			ON CONFLICT (one) DO UPDATE SET hash = excluded.hash, expires_at = excluded.expires_at, tries = 0, used_at = NULL`,
			setupHash(code), tx.Now+SetupLife.Microseconds())
		return err
	})
	return code, err
}

// randomCode has 12 characters of 30: 58 bits, with ten tries.
func randomCode() string {
	var b strings.Builder
	for i := range 12 {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(setupAlphabet[randomBelow(len(setupAlphabet))])
	}
	return b.String()
}

// randomBelow is uniform: bytes that would favour the first values are dropped.
func randomBelow(n int) int {
	var b [1]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if int(b[0]) < 256-256%n {
			return int(b[0]) % n
		}
	}
}

// setupHash accepts the code in any case, with or without dashes and spaces.
func setupHash(code string) []byte {
	code = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
	sum := sha256.Sum256([]byte(code))
	return sum[:]
}

// SetUp spends the setup code, makes the owner, and mails the first sign-in link
// (U12). A wrong code is counted; after ten the code is dead.
func (a *Authn) SetUp(r *http.Request, code, email, ref string) error {
	var letter *mail.Message
	err := a.DB.Do(r.Context(), func(tx *store.Tx) error {
		// The count is the lock: two requests at once are counted one by one.
		open, err := tx.One(`UPDATE setup_code SET tries = tries + 1
			WHERE one = 1 AND used_at IS NULL AND expires_at > $1 AND tries < $2`, tx.Now, maxSetupTries)
		if err != nil {
			return err
		}
		spent, err := tx.One(`UPDATE setup_code SET used_at = $1 WHERE one = 1 AND used_at IS NULL AND hash = $2`, tx.Now, setupHash(code))
		if err != nil {
			return err
		}
		if !open || !spent {
			a.Audit.Stranger(audit.Denied, "setup with a wrong code", audit.Prefix(r.RemoteAddr))
			refused := SetupRefused.New("the setup code is not accepted")
			if spent {
				return refused // the code was right but closed: spend nothing
			}
			return store.Keep(refused)
		}
		owner, err := a.People.MakeOwner(tx, email)
		if err != nil {
			return err
		}
		m := identity.Member{Person: owner, Workspace: identity.Workspace, Rank: principal.Owner}
		a.Audit.Append(tx, audit.Event{
			Workspace: m.Workspace, Actor: m.Principal().Name(), Action: "setup.owner", Target: owner.ID, Outcome: audit.Allowed, Door: "web", Ref: ref,
		})
		letter, err = a.link(tx, m, "", ref)
		return err
	})
	if err != nil {
		return err
	}
	return a.Mail.Send(*letter)
}
