package authn

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/mail"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// LinkUsed is the code of a sign-in link that does not work any more.
var LinkUsed = problem.Code{
	Name: "SIGN_IN_LINK_USED", Kind: problem.Forbidden,
	Why: "a link works once, for 15 minutes",
	Fix: "ask for a new one on the sign-in page",
}

// maxLinks is how many unused links one person may have at once, so that a
// stranger cannot flood a mailbox.
const maxLinks = 5

// SendLink mails a sign-in link (R601, R602). It does and answers the same
// whether or not the address is known. flow is the authorization that waits for
// the sign-in, or empty.
func (a *Authn) SendLink(r *http.Request, email, flow, ref string) error {
	return a.DB.Do(r.Context(), func(tx *store.Tx) error {
		m, found, err := a.People.ByEmail(tx, email)
		if err != nil {
			return err
		}
		if !found {
			a.Audit.Stranger("sign-in asked for an unknown address", audit.Prefix(r.RemoteAddr))
			return nil
		}
		return a.link(tx, m, flow, ref)
	})
}

func (a *Authn) link(tx *store.Tx, m identity.Member, flow, ref string) error {
	link := token.NewSplit("lnk_")
	kept, err := keep(tx, m, flow, link)
	if err != nil || !kept {
		return err
	}
	a.Audit.Append(tx, audit.Event{
		Workspace: m.Workspace, Actor: m.Principal().Name(), Action: "sign_in.link", Target: link.ID, Outcome: audit.Allowed, Door: "web", Ref: ref,
	})
	tx.AfterCommit(func() { a.mailLink(m.Email, link.Token) })
	return nil
}

// keep puts a link into the first slot that is free: never used, used up or
// expired. Without one it reports false.
func keep(tx *store.Tx, m identity.Member, flow string, link token.Split) (kept bool, err error) {
	for slot := 0; slot < maxLinks && err == nil && !kept; slot++ {
		kept, err = tx.One(`INSERT INTO sign_in_link (workspace, user_id, slot, id, hash, flow, created_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (workspace, user_id, slot) DO UPDATE SET id = excluded.id, hash = excluded.hash, flow = excluded.flow,
				created_at = excluded.created_at, expires_at = excluded.expires_at, used_at = NULL
			WHERE sign_in_link.used_at IS NOT NULL OR sign_in_link.expires_at <= $7`,
			m.Workspace, m.ID, slot, link.ID, link.Hash, flow, tx.Now, tx.Now+LinkLife.Microseconds())
	}
	return kept, err
}

// mailLink hands the message over after the link exists. Where that fails the
// person sees no mail and asks again.
func (a *Authn) mailLink(to, link string) {
	address := a.Issuer + "/login/link?" + url.Values{"token": {link}}.Encode()
	_ = a.Mail.Send(mail.Message{
		To: to, Subject: "Your sign-in link",
		Text: fmt.Sprintf("Open this link to sign in. It works once, for %d minutes:\n%s\nIf you did not ask for it, you can ignore this mail.",
			int(LinkLife/time.Minute), address),
	})
}

// UseLink spends a sign-in link and signs the browser in (R603, R606), in place of
// who was signed in. It returns the authorization that was waiting, if any. Looking at a link never
// spends it: mail scanners look.
func (a *Authn) UseLink(w http.ResponseWriter, r *http.Request, raw, ref string) (flow string, err error) {
	id, presented, ok := token.Parse("lnk_", raw)
	if !ok {
		return "", LinkUsed.New("this sign-in link does not work")
	}
	before, err := a.Browser(nil, r)
	if err != nil {
		return "", err
	}
	var session token.Split
	err = a.DB.Do(r.Context(), func(tx *store.Tx) error {
		var workspace, user string
		err := tx.QueryRow(`UPDATE sign_in_link SET used_at = $1 WHERE id = $2 AND hash = $3 AND used_at IS NULL AND expires_at > $1
			RETURNING workspace, user_id, flow`, tx.Now, id, []byte(presented)).Scan(&workspace, &user, &flow)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		m, found, err := a.People.Member(tx, workspace, user)
		if err != nil {
			return err
		}
		if !found {
			return LinkUsed.New("this sign-in link does not work any more")
		}
		if err := a.end(tx, before, ref); err != nil {
			return err
		}
		a.Audit.Append(tx, audit.Event{
			Workspace: m.Workspace, Actor: m.Principal().Name(), Action: "session.begin", Target: id, Outcome: audit.Allowed, Door: "web", Ref: ref,
		})
		session, err = a.begin(tx, m.Workspace, m.ID)
		return err
	})
	if err != nil {
		return "", err
	}
	setCookie(w, sessionCookie, session.Token, int(SessionLife/time.Second))
	return flow, nil
}
