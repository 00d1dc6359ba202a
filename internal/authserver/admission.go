package authserver

import (
	"database/sql"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// Who may register: everybody, or who has an initial access token (R218).
const (
	RegistrationOpen  = "open"
	RegistrationToken = "token"
)

// admissionPrefix begins an initial access token (RFC 7591 §3): good for registering
// clients until it ends, and for nothing else.
const admissionPrefix = "iat_"

// notAdmitted is the one answer to who brings no token that counts (attack 47).
func notAdmitted() *oauth.Error {
	return oauth.Errorf(oauth.InvalidToken, "clients register here with an initial access token of the operator")
}

// shownAdmission is the id of the initial access token that a registration came with.
func shownAdmission(tx *store.Tx, r *http.Request) (id string, err error) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", notAdmitted()
	}
	scheme, shown, _ := strings.Cut(values[0], " ")
	id, secret, ok := token.Parse(admissionPrefix, shown)
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", notAdmitted()
	}
	var hash []byte
	err = tx.QueryRow(`SELECT hash FROM registration_token WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2`, id, tx.Now).Scan(&hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", err
	}
	if !secret.Matches(hash) {
		return "", notAdmitted()
	}
	return id, nil
}

// admitted is shownAdmission, and counts a use of the token.
func admitted(tx *store.Tx, r *http.Request) (id string, err error) {
	id, err = shownAdmission(tx, r)
	if err != nil {
		return "", err
	}
	counts, err := tx.One(`UPDATE registration_token SET uses = uses + 1, used_at = $1
		WHERE id = $2 AND revoked_at IS NULL AND expires_at > $1`, tx.Now, id)
	if err == nil && !counts {
		err = notAdmitted()
	}
	return id, err
}

// registrationTokenUnknown is the code of a token that is not there or has ended.
var registrationTokenUnknown = problem.Code{
	Name: "REGISTRATION_TOKEN_UNKNOWN", Kind: problem.NotFound,
	Why: "there is no registration token with this id, or it has ended",
	Fix: "gatehouse clients token ls",
}

// Bounds of how long an initial access token is good.
const (
	usualAdmission = 30 // days
	mostAdmission  = 365
)

type admitIn struct {
	Note string `json:"note,omitempty" jsonschema:"what it is for"`
	Days int    `json:"days,omitempty" jsonschema:"how long it is good; 30 unless given, 365 at most"`
}

type admission struct {
	ID      string    `json:"id"`
	Token   string    `json:"token,omitempty" jsonschema:"shown once"`
	Note    string    `json:"note,omitempty"`
	By      string    `json:"created_by"`
	Created time.Time `json:"created_at"`
	Ends    time.Time `json:"expires_at"`
	Revoked time.Time `json:"revoked_at,omitzero"`
	Uses    int       `json:"uses" jsonschema:"how many clients registered with it"`
	Used    time.Time `json:"used_at,omitzero"`
}

type admissionsOut struct {
	Tokens []admission `json:"tokens"`
}

// admit makes an initial access token.
func (s *Server) admit(tx *store.Tx, p principal.Principal, in admitIn) (admission, error) {
	if in.Days == 0 {
		in.Days = usualAdmission
	}
	if in.Days < 0 || in.Days > mostAdmission || len(in.Note) > maxName {
		return admission{}, clientInvalid.New("no registration token was made").WithWhy("it is good for 1 to %d days, and its note has at most %d bytes", mostAdmission, maxName)
	}
	made := token.NewSplit(admissionPrefix)
	a := admission{
		ID: made.ID, Token: made.Token, Note: cleanName(in.Note), By: p.Name(), Created: at(tx.Now),
		Ends: at(tx.Now + (time.Duration(in.Days) * 24 * time.Hour).Microseconds()),
	}
	_, err := tx.Exec(`INSERT INTO registration_token (id, hash, note, created_by, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		made.ID, made.Hash, a.Note, a.By, tx.Now, a.Ends.UnixMicro())
	s.Audit.Append(tx, audit.Event{
		Workspace: audit.System, Actor: p.Name(), Action: "registration_token.make", Target: made.ID, Outcome: audit.Allowed, Detail: map[string]string{"note": a.Note},
	})
	return a, err
}

func (s *Server) admissions(tx *store.Tx, _ principal.Principal, _ struct{}) (out admissionsOut, err error) {
	rows, err := tx.Query(`SELECT id, note, created_by, created_at, expires_at, COALESCE(revoked_at, 0), uses, COALESCE(used_at, 0)
		FROM registration_token ORDER BY id DESC LIMIT 1000`)
	if err != nil {
		return out, err
	}
	defer func() { _ = rows.Close() }()
	out.Tokens = []admission{}
	for rows.Next() {
		var a admission
		var created, ends, revoked, used int64
		if err := rows.Scan(&a.ID, &a.Note, &a.By, &created, &ends, &revoked, &a.Uses, &used); err != nil {
			return out, err
		}
		a.Created, a.Ends, a.Revoked, a.Used = at(created), at(ends), at(revoked), at(used)
		out.Tokens = append(out.Tokens, a)
	}
	return out, rows.Err()
}

func (s *Server) unadmit(tx *store.Tx, p principal.Principal, in clientIn) (clientIn, error) {
	won, err := tx.One(`UPDATE registration_token SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL AND expires_at > $1`, tx.Now, in.ID)
	if err == nil && !won {
		err = registrationTokenUnknown.New("there is no registration token %.40q", in.ID)
	}
	if err != nil {
		return in, err
	}
	s.Audit.Append(tx, audit.Event{Workspace: audit.System, Actor: p.Name(), Action: "registration_token.revoke", Target: in.ID, Outcome: audit.Allowed})
	return in, nil
}
