package authserver

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// A registered client is one with what it said of itself.
type registered struct {
	Client
	metadata oauth.Registration
	manage   string // the registration token with which the request came
}

// unmanaged is the one answer to whoever may not manage the registration,
// whether it exists or not (R214, attack 53).
func unmanaged() *oauth.Error {
	return oauth.Errorf(oauth.InvalidToken, "the registration token is not one for this client")
}

// managed is the registration that the request is about, if it comes with its
// token. A registration without one is nobody's to manage.
func (s *Server) managed(tx *store.Tx, r *http.Request) (registered, error) {
	values, id := r.Header.Values("Authorization"), r.PathValue("client")
	if len(values) != 1 || !oauth.Readable(id) {
		return registered{}, unmanaged()
	}
	scheme, presented, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || !strings.HasPrefix(presented, registrationPrefix) {
		return registered{}, unmanaged()
	}
	var hash []byte
	var metadata string
	err := tx.QueryRow(`SELECT registration_hash, metadata FROM client WHERE id = $1`, id).Scan(&hash, &metadata)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return registered{}, err
	}
	if !token.Presented(wholeHash(presented)).Matches(hash) {
		return registered{}, unmanaged()
	}
	c := registered{manage: presented}
	if err := json.Unmarshal([]byte(metadata), &c.metadata); err != nil {
		return registered{}, err
	}
	var found bool
	if c.Client, found, err = s.client(tx, id); err == nil && !found {
		err = unmanaged()
	}
	return c, err
}

// showClient answers what is registered (R210). The secret is shown when it is
// made, and never again.
func (s *Server) showClient(w http.ResponseWriter, r *http.Request, _ string) error {
	var c registered
	err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		c, err = s.managed(tx, r)
		return err
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, s.described(c.metadata, "", c.manage))
	return nil
}

// changeClient registers the client anew under its id (R211, R220). The token
// stays the same.
func (s *Server) changeClient(w http.ResponseWriter, r *http.Request, ref string) error {
	asked, given, fault := s.readRegistration(w, r)
	if err := s.Throttle.Take(Registrations+"/change", throttle.Address(r.RemoteAddr)); err != nil {
		return err
	}
	var answer oauth.Registration
	var manage, shown string
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		c, err := s.managed(tx, r)
		if err != nil {
			return err
		}
		if fault != nil { // told to nobody but who may change it
			return fault
		}
		var hash []byte
		if answer, shown, hash, err = s.changed(c, asked, given); err != nil {
			return err
		}
		manage = c.manage
		if err := s.change(tx, c, answer, hash); err != nil {
			return err
		}
		s.Audit.Append(tx, clientEvent("client.change", c.ID, answer.ClientName, audit.Prefix(r.RemoteAddr), ref))
		return nil
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, s.described(answer, shown, manage))
	return nil
}

// changed is what becomes of the registration: what was sent in place of what was
// there (RFC 7592 §2.2), except that name and redirect URIs alone leave the rest
// as it is (C31). How the client authenticates changes only where it says so. A
// secret is kept with those two, and for a client that shows it; otherwise a
// confidential client gets a new one (R220).
func (s *Server) changed(c registered, asked oauth.Registration, given []string) (answer oauth.Registration, shown string, hash []byte, err error) {
	if asked.ClientID != "" && asked.ClientID != c.ID {
		return answer, "", nil, oauth.Errorf(oauth.InvalidClientMetadata, "client_id cannot be changed")
	}
	if asked.ClientSecret != "" && !c.proves(asked.ClientSecret) {
		return answer, "", nil, oauth.Errorf(oauth.InvalidClientMetadata, "client_secret is not the client's; leave it out to get a new one")
	}
	keep := asked.ClientSecret != ""
	if !slices.ContainsFunc(given, func(member string) bool { return member != "client_name" && member != "redirect_uris" }) {
		whole := c.metadata
		whole.RedirectURIs = asked.RedirectURIs
		if slices.Contains(given, "client_name") {
			whole.ClientName = asked.ClientName
		}
		asked, keep = whole, true
	}
	if asked.TokenAuthMethod == "" {
		asked.TokenAuthMethod = c.AuthMethod
	}
	if answer, err = s.granted(asked); err != nil {
		return answer, "", nil, err
	}
	answer.ClientID, answer.ClientIDIssuedAt = c.ID, c.metadata.ClientIDIssuedAt
	switch {
	case answer.TokenAuthMethod == authNone || answer.TokenAuthMethod == authKey:
		return answer, "", nil, nil
	case keep && c.secretHash != nil:
		return answer, asked.ClientSecret, c.secretHash, nil
	}
	secret := newSecret(answer.TokenAuthMethod)
	return answer, secret.Token, secret.Hash, nil
}

// change stores it. Who is looking at the question whether to allow the app looks
// at what it was, and so did who approved it: such questions end, and such an
// approval (attack 54).
func (s *Server) change(tx *store.Tx, c registered, answer oauth.Registration, secretHash []byte) error {
	metadata, err := kept(answer)
	if err != nil {
		return err
	}
	there, err := tx.One(`UPDATE client SET name = $1, redirect_uris = $2, grant_types = $3, auth_method = $4, dpop_bound = $5, pushed_only = $6,
			secret_hash = $7, scope = $8, metadata = $9,
			approved_at = CASE WHEN name = $1 AND redirect_uris = $2 THEN approved_at END,
			earlier = CASE WHEN metadata = $9 OR approved_at IS NOT NULL AND earlier <> '' THEN earlier ELSE metadata END,
			changed_at = CASE WHEN metadata = $9 THEN changed_at ELSE $11 END
		WHERE id = $10`,
		answer.ClientName, strings.Join(answer.RedirectURIs, "\n"), strings.Join(answer.GrantTypes, " "),
		answer.TokenAuthMethod, answer.BoundTokens, answer.PushedOnly, secretHash, answer.Scope, metadata, c.ID, tx.Now)
	if err == nil && !there {
		return unmanaged()
	}
	if err != nil {
		return err
	}
	return s.unask(tx, c.Client, answer)
}

// unask ends the questions about a client that is not any more what they show, or
// that were asked by rules of the client that are not its rules any more.
func (s *Server) unask(tx *store.Tx, c Client, now oauth.Registration) error {
	if now.ClientName == c.Name && slices.Equal(now.RedirectURIs, c.Redirects) && now.PushedOnly == c.PushedOnly && now.BoundTokens == c.Bound {
		return nil
	}
	_, err := tx.Exec(`DELETE FROM flow WHERE client = $1 AND decided_at IS NULL`, c.ID)
	return err
}

// removeClient forgets the client and revokes everything it was given (R212,
// attack 56).
func (s *Server) removeClient(w http.ResponseWriter, r *http.Request, ref string) error {
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		c, err := s.managed(tx, r)
		if err != nil {
			return err
		}
		s.Audit.Append(tx, clientEvent("client.remove", c.ID, c.Name, audit.Prefix(r.RemoteAddr), ref))
		return s.forget(tx, c.ID)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// forget removes a client with everything it was given.
func (s *Server) forget(tx *store.Tx, client string) error {
	if there, err := s.cut(tx, client, "", "the client was removed"); err != nil || !there { // or another request was first
		return cmp.Or(err, error(unmanaged()))
	}
	for _, remove := range []string{
		`DELETE FROM authorization_code WHERE client = $1`, `DELETE FROM consent WHERE client = $1`, `DELETE FROM flow WHERE client = $1`,
		`DELETE FROM pushed_request WHERE client = $1`, `DELETE FROM client WHERE id = $1`,
	} {
		if _, err := tx.Exec(remove, client); err != nil {
			return err
		}
	}
	return nil
}

// cut blocks a client and ends all that it was allowed, in the order in which one
// comes of the other: so whoever makes the next of what is there is waited for, and
// then found. It reports whether the client is there.
func (s *Server) cut(tx *store.Tx, id, why, reason string) (there bool, err error) {
	there, err = tx.One(`UPDATE client SET blocked_at = $1, blocked_reason = $2, approved_at = NULL WHERE id = $3`, tx.Now, why, id)
	if err != nil || !there {
		return there, err
	}
	_, err = tx.Exec(`DELETE FROM flow WHERE client = $1 AND decided_at IS NULL`, id)
	if err == nil {
		_, err = tx.Exec(`UPDATE consent SET ended_at = $1, reason = $2 WHERE client = $3 AND ended_at IS NULL`, tx.Now, reason, id)
	}
	if err == nil {
		_, err = tx.Exec(`DELETE FROM authorization_code WHERE client = $1 AND used_at IS NULL`, id)
	}
	if err == nil {
		_, err = tx.Exec(`DELETE FROM device_code WHERE client = $1`, id)
	}
	if err == nil {
		_, err = s.Tokens.RevokeClient(tx, id, reason)
	}
	return true, err
}

// holdClient keeps a client that is not blocked as it is until the transaction ends,
// and reports whether it is there. Whoever makes a family without spending a code of
// the client holds it, so that who blocks or removes the client waits and finds the
// family.
func holdClient(tx *store.Tx, id string) (bool, error) {
	return tx.One(`UPDATE client SET created_at = created_at WHERE id = $1 AND blocked_at IS NULL`, id)
}
