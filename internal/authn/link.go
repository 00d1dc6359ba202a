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

// maxLinks is how many links one person may have at once. One more takes the
// place of the oldest, so a stranger who asks for them keeps nobody out.
const maxLinks = 20

// answerAfter is how long asking for a link takes: longer than the work for an
// address that is known.
const answerAfter = 100 * time.Millisecond

// SendLink mails a sign-in link (R601, R602). Nobody can tell from the answer, or
// from how long it took, whether the address is known. flow is the authorization
// that waits for the sign-in, or empty.
func (a *Authn) SendLink(r *http.Request, email, flow, ref string) error {
	began := time.Now()
	defer func() { time.Sleep(time.Until(began.Add(answerAfter))) }()
	var letter *mail.Message
	err := a.DB.Do(r.Context(), func(tx *store.Tx) error {
		m, found, err := a.People.ByEmail(tx, email)
		if err != nil {
			return err
		}
		if !found {
			a.Audit.Stranger(audit.Denied, "sign-in asked for an unknown address", audit.Prefix(r.RemoteAddr))
			return nil
		}
		letter, err = a.link(tx, m, flow, ref)
		return err
	})
	if err != nil || letter == nil {
		return err
	}
	return a.Mail.Send(*letter)
}

// link makes a link and the letter that is sent once it exists.
func (a *Authn) link(tx *store.Tx, m identity.Member, flow, ref string) (*mail.Message, error) {
	link := token.NewSplit("lnk_")
	if err := keep(tx, m, flow, link); err != nil {
		return nil, err
	}
	a.Audit.Append(tx, audit.Event{
		Workspace: m.Workspace, Actor: m.Principal().Name(), Action: "sign_in.link", Target: link.ID, Outcome: audit.Allowed, Door: "web", Ref: ref,
	})
	return &mail.Message{
		To: m.Email, Subject: "Your sign-in link",
		Text: fmt.Sprintf("Open this link to sign in. It works once, for %d minutes:\n%s\nIf you did not ask for it, you can ignore this mail.",
			int(LinkLife/time.Minute), a.Issuer+"/login/link?"+url.Values{"token": {link.Token}}.Encode()),
	}, nil
}

// keep puts a link into a free slot: never used, used up or expired. Without one
// it takes that of the oldest link.
func keep(tx *store.Tx, m identity.Member, flow string, link token.Split) error {
	kept := false
	var err error
	for slot := 0; slot < maxLinks && err == nil && !kept; slot++ {
		kept, err = tx.One(`INSERT INTO sign_in_link (workspace, user_id, slot, id, hash, flow, created_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (workspace, user_id, slot) DO UPDATE SET id = excluded.id, hash = excluded.hash, flow = excluded.flow,
				created_at = excluded.created_at, expires_at = excluded.expires_at, used_at = NULL
			WHERE sign_in_link.used_at IS NOT NULL OR sign_in_link.expires_at <= $7`,
			m.Workspace, m.ID, slot, link.ID, link.Hash, flow, tx.Now, tx.Now+LinkLife.Microseconds())
	}
	if err != nil || kept {
		return err
	}
	_, err = tx.Exec(`UPDATE sign_in_link SET id = $1, hash = $2, flow = $3, created_at = $4, expires_at = $5, used_at = NULL
		WHERE workspace = $6 AND user_id = $7 AND slot = (
			SELECT slot FROM sign_in_link WHERE workspace = $6 AND user_id = $7 ORDER BY created_at, slot LIMIT 1)`,
		link.ID, link.Hash, flow, tx.Now, tx.Now+LinkLife.Microseconds(), m.Workspace, m.ID)
	return err
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
	var known string
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
		if known, err = a.Box.Handle(knownKind, []byte(m.ID)); err != nil {
			return err
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
	setCookie(w, knownCookie, known, int(KnownLife/time.Second))
	return flow, nil
}
