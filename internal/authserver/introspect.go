package authserver

import (
	"cmp"
	"database/sql"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// introspectionType is the media type of a signed answer (RFC 9701 §4).
const introspectionType = "application/token-introspection+jwt"

// introspect is RFC 7662 (R417, attack 124). A confidential client may ask about its
// own tokens, an introspector about access tokens for its own endpoint. Whatever
// else is asked about gets the one answer that it is not active, so that nobody
// learns what exists.
func (s *Server) introspect(w http.ResponseWriter, r *http.Request, _ string) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	shown, err := s.present(r, form)
	if err != nil {
		return err
	}
	raw := form.Get("token")
	if raw == "" {
		return oauth.Errorf(oauth.InvalidRequest, "token is missing")
	}
	var answer oauth.Introspection
	see := func(tx *store.Tx) (err error) { answer, err = s.introspected(tx, shown, raw); return err }
	if isIntrospector(shown.id) {
		err = s.DB.View(r.Context(), see) // nothing is written
	} else {
		err = s.DB.Do(r.Context(), see)
	}
	if err != nil {
		return err
	}
	if !wantsSigned(r) {
		reply(w, http.StatusOK, answer)
		return nil
	}
	signed, err := s.Tokens.Sign("token-introspection+jwt", oauth.SignedIntrospection{
		Issuer: s.Issuer, Audience: shown.id, Issued: time.Now().Unix(), Introspection: answer,
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", introspectionType)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(signed)) // the caller is gone
	return nil
}

// wantsSigned reports whether the caller asks for a signed answer (RFC 9701 §4).
func wantsSigned(r *http.Request) bool {
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if t, _, err := mime.ParseMediaType(accepted); err == nil && t == introspectionType {
			return true
		}
	}
	return false
}

// introspected is what the caller may know about a token.
func (s *Server) introspected(tx *store.Tx, shown presented, raw string) (oauth.Introspection, error) {
	var sees func(token.Claims) bool
	if isIntrospector(shown.id) {
		i, err := s.introspector(tx, shown)
		if err != nil {
			return oauth.Introspection{}, err
		}
		sees = func(c token.Claims) bool { return c.Workspace == i.workspace && c.For(i.resource) }
	} else {
		c, err := s.authenticate(tx, shown)
		if err != nil {
			return oauth.Introspection{}, err
		}
		if c.AuthMethod == authNone {
			return oauth.Introspection{}, badClient("a public client asks about a token")
		}
		f, expires, alive, err := s.Tokens.Refreshable(tx, raw, c.ID)
		if err != nil || alive {
			return s.describeRefresh(tx, f, expires, err)
		}
		sees = func(t token.Claims) bool { return t.Client == c.ID }
	}
	c, err := s.Tokens.Accept(tx, raw)
	if _, bad := errors.AsType[token.ErrToken](err); bad || err == nil && !sees(c) {
		return oauth.Introspection{}, nil
	}
	if err != nil {
		return oauth.Introspection{}, err
	}
	if stands, err := s.stands(tx, c.Workspace, c.Subject); err != nil || !stands {
		return oauth.Introspection{}, err
	}
	key, _ := c.BoundTo()
	return oauth.Introspection{
		Active: true, Scope: c.Scope, Client: c.Client, TokenType: scheme(key), Expires: c.Expires, Issued: c.Issued,
		Subject: c.Subject, Audience: c.Audience, Issuer: c.Issuer, ID: c.ID, Confirm: c.Confirm,
	}, nil
}

// describeRefresh is the answer about a refresh token, or what went wrong on the
// way to it.
func (s *Server) describeRefresh(tx *store.Tx, f token.Family, expires int64, err error) (oauth.Introspection, error) {
	if err != nil {
		return oauth.Introspection{}, err
	}
	if stands, err := s.stands(tx, f.Workspace, f.User); err != nil || !stands {
		return oauth.Introspection{}, err
	}
	return oauth.Introspection{
		Active: true, Scope: strings.Join(f.Scopes, " "), Client: f.Client, Expires: time.UnixMicro(expires).Unix(),
		Subject: f.User, Audience: f.Resource, Issuer: s.Issuer,
	}, nil
}

// stands reports whether the subject of a token may still do anything.
func (s *Server) stands(tx *store.Tx, workspace, subject string) (bool, error) {
	_, err := s.Authn.Subject(tx, workspace, subject)
	if problem.Is(err, authn.TokenInvalid) {
		return false, nil
	}
	return err == nil, err
}

// introspectorPrefix begins the id of an introspector, and no other.
const introspectorPrefix = "rs_"

func isIntrospector(id string) bool { return strings.HasPrefix(id, introspectorPrefix) }

// introspector is a program that may ask about the access tokens of one endpoint.
type introspector struct{ workspace, resource string }

func (s *Server) introspector(tx *store.Tx, shown presented) (i introspector, err error) {
	var hash []byte
	err = tx.QueryRow(`SELECT hash, workspace, resource FROM introspector WHERE id = $1`, shown.id).Scan(&hash, &i.workspace, &i.resource)
	if errors.Is(err, sql.ErrNoRows) {
		return i, badClient("there is no such introspector")
	}
	if err != nil {
		return i, err
	}
	if _, secret, ok := token.Parse("cs_", shown.secret); !ok || !secret.Matches(hash) {
		return i, badClient("its secret is wrong")
	}
	return i, nil
}

var (
	endpointUnknown = problem.Code{
		Name: "ENDPOINT_UNKNOWN", Kind: problem.NotFound,
		Why: "no server of this name is here",
		Fix: "gatehouse servers lists the names; mcp is the endpoint of all servers",
	}
	introspectorUnknown = problem.Code{
		Name: "INTROSPECTOR_UNKNOWN", Kind: problem.NotFound,
		Why: "nobody with this id may ask about tokens",
		Fix: "gatehouse introspectors",
	}
)

// introspectorTools say who may ask about tokens without being their client.
func (s *Server) introspectorTools() []tool.Tool {
	return []tool.Tool{
		tool.Define(tool.Def{
			Name: "list_introspectors", Doc: "List the programs that may ask about the access tokens of an endpoint.",
			Effect: tool.Reads, Caller: principal.Admin, Scope: "security:read",
		}, s.listIntrospectors),
		tool.Define(tool.Def{
			Name: "add_introspector", Doc: "Let a program ask about the access tokens of one endpoint. Its secret is shown once.",
			Effect: tool.Writes, Caller: principal.Admin, Scope: "security:write", Direct: true,
		}, s.addIntrospector),
		tool.Define(tool.Def{
			Name: "remove_introspector", Doc: "Let a program ask about tokens no longer.",
			Effect: tool.Destroys, Caller: principal.Admin, Scope: "security:write", Direct: true,
		}, s.removeIntrospector),
	}
}

// Introspector is one as an administrator sees it.
type Introspector struct {
	ID       string    `json:"id" jsonschema:"its client_id at the introspection endpoint"`
	Name     string    `json:"name"`
	Resource string    `json:"resource" jsonschema:"the endpoint about whose access tokens it may ask"`
	Added    time.Time `json:"added_at"`
}

type noIn struct{}

type introspectorsOut struct {
	Introspectors []Introspector `json:"introspectors"`
}

func (s *Server) listIntrospectors(tx *store.Tx, p principal.Principal, _ noIn) (introspectorsOut, error) {
	out := introspectorsOut{Introspectors: []Introspector{}}
	rows, err := tx.Query(`SELECT id, name, resource, created_at FROM introspector WHERE workspace = $1 ORDER BY id`, p.Workspace)
	if err != nil {
		return out, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var i Introspector
		var added int64
		if err := rows.Scan(&i.ID, &i.Name, &i.Resource, &added); err != nil {
			return out, err
		}
		i.Added = time.UnixMicro(added).UTC()
		out.Introspectors = append(out.Introspectors, i)
	}
	return out, rows.Err()
}

type addIntrospectorIn struct {
	Name     string `json:"name" jsonschema:"what it is called in the list"`
	Endpoint string `json:"endpoint" jsonschema:"name of a server, or mcp for the endpoint of all servers"`
}

type addIntrospectorOut struct {
	Introspector
	Secret string `json:"secret" jsonschema:"its client_secret, shown this once"`
}

func (s *Server) addIntrospector(tx *store.Tx, p principal.Principal, in addIntrospectorIn) (addIntrospectorOut, error) {
	resource, found := s.endpoint(p, in.Endpoint)
	if !found {
		return addIntrospectorOut{}, endpointUnknown.New("there is no server %.64q", in.Endpoint)
	}
	secret := token.NewSplit("cs_")
	i := Introspector{ID: store.ID(introspectorPrefix), Name: cmp.Or(in.Name, in.Endpoint), Resource: resource, Added: time.UnixMicro(tx.Now).UTC()}
	_, err := tx.Exec(`INSERT INTO introspector (id, workspace, name, resource, hash, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		i.ID, p.Workspace, i.Name, i.Resource, secret.Hash, tx.Now, p.Name())
	return addIntrospectorOut{i, secret.Token}, err
}

// endpoint is the resource of a server by its name, if one of its tools is anything
// to the caller's workspace, or that of all servers.
func (s *Server) endpoint(p principal.Principal, name string) (resource string, found bool) {
	if name == "mcp" {
		a, found := s.Registry.Audience(s.Public, "")
		return a.URL, found
	}
	ours := slices.ContainsFunc(s.Registry.All(), func(t tool.Tool) bool { return name != "" && t.Origin == name && !t.ForeignTo(p) })
	a, found := s.Registry.Audience(s.Public, name)
	return a.URL, found && ours
}

type removeIntrospectorIn struct {
	ID string `json:"id"`
}

func (s *Server) removeIntrospector(tx *store.Tx, p principal.Principal, in removeIntrospectorIn) (removeIntrospectorIn, error) {
	removed, err := tx.One(`DELETE FROM introspector WHERE id = $1 AND workspace = $2`, in.ID, p.Workspace)
	if err == nil && !removed {
		err = introspectorUnknown.New("there is no introspector %.64q", in.ID)
	}
	return in, err
}
