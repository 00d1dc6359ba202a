package authn

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// The cookies. The first names the browser before anybody has signed in and
// binds forms to it; the second is the session; the third says, sealed, who signed
// in last, and opens nothing. Each waiting authorization has a cookie of its own, so
// that several can begin at once in a browser that has been given no name yet.
const (
	browserCookie = "__Host-gatehouse-browser"
	sessionCookie = "__Host-gatehouse-session"
	knownCookie   = "__Host-gatehouse-known"
	flowCookie    = "__Host-gatehouse-"
)

// Bind gives the browser the key of a waiting authorization, for as long as that
// may wait.
func Bind(w http.ResponseWriter, flow token.Split, life time.Duration) {
	setCookie(w, flowCookie+flow.ID, flow.Token, int(life/time.Second))
}

// Bound reports whether the request comes from the browser that was given the
// key of the waiting authorization with this id and this hash of its secret.
func Bound(r *http.Request, id string, hash []byte) bool {
	c, err := r.Cookie(flowCookie + id)
	kind, _, named := strings.Cut(id, "_")
	if err != nil || !named {
		return false
	}
	of, presented, ok := token.Parse(kind+"_", c.Value)
	return ok && of == id && presented.Matches(hash)
}

// A Browser is what a page knows of the browser that asks for it.
type Browser struct {
	secret string
	Member identity.Member // of the session; zero without one
	Began  int64           // when the session began, µs
	sid    string
}

// SignedIn reports whether the browser has a session of an active member.
func (b Browser) SignedIn() bool { return b.Member.ID != "" }

// FormToken goes into every form and comes back with it: another site can
// neither read nor make it (R1208), and a form shown to one person cannot be
// answered by the next one on the same browser (attack 61).
func (b Browser) FormToken() string {
	mac := hmac.New(sha256.New, []byte(b.secret))
	mac.Write([]byte("form " + b.sid))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Browser reads the cookies. The browser is named, with a new cookie, if it has
// no name yet and w is not nil.
func (a *Authn) Browser(w http.ResponseWriter, r *http.Request) (Browser, error) {
	var b Browser
	if c, err := r.Cookie(browserCookie); err == nil && len(c.Value) == 43 {
		b.secret = c.Value
	} else if w != nil {
		var random [32]byte
		_, _ = rand.Read(random[:]) // never fails
		b.secret = base64.RawURLEncoding.EncodeToString(random[:])
		setCookie(w, browserCookie, b.secret, 0)
	}
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return b, nil
	}
	err = a.DB.View(r.Context(), func(tx *store.Tx) error {
		b.Member, b.sid, b.Began, err = a.session(tx, c.Value)
		return err
	})
	if b.SignedIn() {
		request.Of(r.Context()).Principal = b.Member.Principal().Name()
	}
	return b, err
}

func (a *Authn) session(tx *store.Tx, raw string) (m identity.Member, sid string, began int64, err error) {
	id, presented, ok := token.Parse("ses_", raw)
	if !ok {
		return identity.Member{}, "", 0, nil
	}
	var hash []byte
	var workspace, user string
	rows, err := tx.Query(`SELECT hash, workspace, user_id, created_at FROM browser_session
		WHERE id = $1 AND ended_at IS NULL AND expires_at > $2`, id, tx.Now)
	if err != nil {
		return identity.Member{}, "", 0, err
	}
	defer func() { _ = rows.Close() }()
	if !rows.Next() {
		return identity.Member{}, "", 0, rows.Err()
	}
	if err := rows.Scan(&hash, &workspace, &user, &began); err != nil || !presented.Matches(hash) {
		return identity.Member{}, "", 0, err
	}
	if err := rows.Close(); err != nil {
		return identity.Member{}, "", 0, err
	}
	m, found, err := a.People.Member(tx, workspace, user)
	if err != nil || !found {
		return identity.Member{}, "", 0, err
	}
	return m, id, began, nil
}

// begin makes a session: always a new one, so that a cookie from before the
// sign-in is worth nothing after it (attack 111).
func (a *Authn) begin(tx *store.Tx, workspace, user string) (token.Split, error) {
	s := token.NewSplit("ses_")
	_, err := tx.Exec(`INSERT INTO browser_session (id, hash, workspace, user_id, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6)`, s.ID, s.Hash, workspace, user, tx.Now, tx.Now+SessionLife.Microseconds())
	return s, err
}

const knownKind = "known_browser"

// Knows reports whether the member with this address was the last to sign in in this
// browser. It is good for one thing: strangers cannot use up that person's letters.
func (a *Authn) Knows(r *http.Request, email string) (knows bool, err error) {
	c, err := r.Cookie(knownCookie)
	if err != nil {
		return false, nil
	}
	user, err := a.Box.OpenHandle(knownKind, c.Value)
	if err != nil {
		return false, nil // bent, or sealed with a key that is gone
	}
	err = a.DB.View(r.Context(), func(tx *store.Tx) error {
		m, found, err := a.People.ByEmail(tx, email)
		knows = found && m.ID == string(user)
		return err
	})
	return knows, err
}

// SignOut ends the browser's session and forgets its cookie.
func (a *Authn) SignOut(w http.ResponseWriter, r *http.Request, b Browser, ref string) error {
	setCookie(w, sessionCookie, "", -1)
	return a.DB.Do(r.Context(), func(tx *store.Tx) error { return a.end(tx, b, ref) })
}

// SignOutEverywhere ends every browser session of the person, and the sign-in links
// that are on their way.
func (a *Authn) SignOutEverywhere(w http.ResponseWriter, r *http.Request, b Browser, ref string) error {
	setCookie(w, sessionCookie, "", -1)
	return a.DB.Do(r.Context(), func(tx *store.Tx) error {
		m := b.Member
		a.Audit.Append(tx, audit.Event{
			Workspace: m.Workspace, Actor: m.Principal().Name(), Action: "session.end_all", Target: m.ID, Outcome: audit.Allowed, Door: "web", Ref: ref,
		})
		_, err := tx.Exec(`UPDATE browser_session SET ended_at = $1 WHERE workspace = $2 AND user_id = $3 AND ended_at IS NULL`, tx.Now, m.Workspace, m.ID)
		if err == nil {
			_, err = tx.Exec(`UPDATE sign_in_link SET used_at = $1 WHERE workspace = $2 AND user_id = $3 AND used_at IS NULL`, tx.Now, m.Workspace, m.ID)
		}
		return err
	})
}

// end ends the browser's session; without one it does nothing.
func (a *Authn) end(tx *store.Tx, b Browser, ref string) error {
	if b.sid == "" {
		return nil
	}
	a.Audit.Append(tx, audit.Event{
		Workspace: b.Member.Workspace, Actor: b.Member.Principal().Name(), Action: "session.end", Target: b.sid,
		Outcome: audit.Allowed, Door: "web", Ref: ref,
	})
	_, err := tx.Exec(`UPDATE browser_session SET ended_at = $1 WHERE id = $2 AND workspace = $3`, tx.Now, b.sid, b.Member.Workspace)
	return err
}

func setCookie(w http.ResponseWriter, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}
