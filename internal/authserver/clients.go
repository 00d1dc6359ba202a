package authserver

import (
	"database/sql"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// How a client became known.
const (
	fromRegistration = "registered" // it registered itself
	fromDocument     = "document"   // its id is the address of a document that describes it
	fromOperator     = "operator"   // who runs this server made it
	fromAdmin        = "added"      // an administrator added it
	fromFile         = "file"       // it stands in the configuration file
)

// mayAct reports whether a client that is known may do anything now: one that is not
// blocked; and one that is a document while such documents are allowed and it was
// fetched not too long ago.
func (s *Server) mayAct(c Client, now int64) bool {
	if c.blocked || c.Source != fromDocument {
		return !c.blocked
	}
	return s.Documents().allows(c.ID) && (s.pinned(c) || now-c.fetched < staleBound.Microseconds())
}

// pinned reports whether a client's document stands in the configuration, which is
// an approval.
func (s *Server) pinned(c Client) bool {
	_, pinned := s.Documents().Pinned[c.ID]
	return c.Source == fromDocument && pinned
}

// Domain is the host that has confirmed what is known of the client, because its
// document came from there; empty for a client that speaks for itself.
func (c Client) Domain() string {
	if c.Source != fromDocument {
		return ""
	}
	u, err := url.Parse(c.ID)
	if err != nil {
		return ""
	}
	return u.Host
}

var (
	clientBlocked = problem.Code{
		Name: "CLIENT_BLOCKED", Kind: problem.Forbidden,
		Why: "an administrator blocked it",
		Fix: "ask who runs this server",
	}
	clientMissing = problem.Code{
		Name: "CLIENT_MISSING", Kind: problem.NotFound,
		Why: "no client has this id; it may have been removed, or swept because nobody used it",
		Fix: "gatehouse clients ls",
	}
	clientInvalid = problem.Code{
		Name: "CLIENT_INVALID", Kind: problem.Invalid,
		About: "what was given for a client cannot be used; the error names it",
		Fix:   "correct it and try again",
	}
	clientTaken = problem.Code{
		Name: "CLIENT_TAKEN", Kind: problem.Conflict,
		Why: "there is a client with this id already",
		Fix: "choose another id, or remove that one first",
	}
	clientOfFile = problem.Code{
		Name: "CLIENT_OF_FILE", Kind: problem.Conflict,
		Why: "it stands in the configuration file, which decides about it",
		Fix: "change the section clients of the file",
	}
)

func blockedApp(c Client) error {
	e := clientBlocked.New("this app is blocked here")
	if c.why != "" {
		e = e.WithWhy("%s", c.why)
	}
	return e
}

// A KnownClient is a client as administrators see it (R218).
type KnownClient struct {
	ID           string    `json:"id"`
	Name         string    `json:"name" jsonschema:"what it calls itself, unless it was added or stands in the file"`
	Kind         string    `json:"kind" jsonschema:"registered: by itself; document: its id is the address of its description; added: by an administrator; file: by the configuration"`
	State        string    `json:"state" jsonschema:"approved, unverified or blocked"`
	Reason       string    `json:"reason,omitempty" jsonschema:"why it is blocked"`
	Domain       string    `json:"domain,omitempty" jsonschema:"host that its description came from"`
	Redirects    []string  `json:"redirect_uris"`
	Confidential bool      `json:"confidential" jsonschema:"it has a secret"`
	People       int       `json:"people" jsonschema:"how many allow it now"`
	Live         int       `json:"signed_in" jsonschema:"how often it is signed in now: token families that work"`
	Used         time.Time `json:"last_used,omitzero" jsonschema:"when it last got a token"`
	Created      time.Time `json:"created_at"`
	From         string    `json:"created_from,omitempty" jsonschema:"network that it registered from"`
	Fetched      time.Time `json:"fetched_at,omitzero" jsonschema:"when its description was last fetched"`
}

// States of a client.
const (
	stateApproved   = "approved"
	stateUnverified = "unverified"
	stateBlocked    = "blocked"
)

type clientsIn struct {
	State string `json:"state,omitempty" jsonschema:"only those: approved, unverified or blocked"`
	After string `json:"after,omitempty" jsonschema:"go on after this one, as next of the last answer says"`
	Limit int    `json:"limit,omitempty" jsonschema:"how many at most; 100 unless given"`
}

type clientsOut struct {
	Clients []KnownClient `json:"clients"`
	Next    string        `json:"next,omitempty" jsonschema:"there are more: give it as after"`
}

type clientIn struct {
	ID string `json:"id"`
}

type blockIn struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty" jsonschema:"shown to people who try to use it"`
}

type shownClient struct {
	KnownClient
	Metadata json.RawMessage `json:"metadata" jsonschema:"what was registered, or what of its document is granted"`
	Changed  time.Time       `json:"changed_at,omitzero" jsonschema:"when that last changed"`
	Changes  []Change        `json:"changes,omitempty" jsonschema:"what changed since it was approved, or else with its last change"`

	earlier string // what it is compared with
}

type addClientIn struct {
	ID        string   `json:"id,omitempty" jsonschema:"a random one unless given; lower case letters, digits, dots, hyphens"`
	Name      string   `json:"name"`
	Redirects []string `json:"redirect_uris"`
	Secret    bool     `json:"secret,omitempty" jsonschema:"make a secret with which it authenticates"`

	Bound      bool `json:"dpop_bound_access_tokens,omitempty" jsonschema:"it gets no token without a proof that it has a key (DPoP)"`
	PushedOnly bool `json:"require_pushed_authorization_requests,omitempty" jsonschema:"it begins with a pushed request only (RFC 9126)"`
}

type secretOut struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Secret string `json:"client_secret,omitempty" jsonschema:"shown once"`
}

// clientTools are what administrators do about clients (R218).
func (s *Server) clientTools() []tool.Tool {
	reads := func(name, title, doc string) tool.Def {
		return tool.Def{Name: name, Title: title, Doc: doc, Effect: tool.Reads, Caller: principal.Admin, Scope: "clients:read"}
	}
	acts := func(name, title, doc string, effect tool.Effect) tool.Def {
		return tool.Def{Name: name, Title: title, Doc: doc, Effect: effect, Caller: principal.Admin, Scope: "clients:write", Direct: true}
	}
	return []tool.Tool{
		tool.Define(reads("list_clients", "List clients", "List the OAuth clients that are known, the newest first."), s.listClients),
		tool.Define(reads("show_client", "Show a client", "Show what is known of an OAuth client."), s.showKnown),
		tool.Define(acts("add_client", "Add a client", "Add an OAuth client that is approved from the start.", tool.Writes), s.addClient),
		tool.Define(acts("approve_client", "Approve a client", "Vouch for a client: people see that it is approved.", tool.Writes), s.approveClient),
		tool.Define(acts("block_client", "Block a client", "Refuse a client everywhere, and end what it was allowed.", tool.Destroys), s.blockClient),
		tool.Define(acts("unblock_client", "Unblock a client", "Let a client ask again, as one that nobody vouches for.", tool.Writes), s.unblockClient),
		tool.Define(acts("remove_client", "Remove a client", "Forget a client with everything it was given.", tool.Destroys), s.removeKnown),
		tool.Define(acts("rotate_client_secret", "Make a new secret", "Give a client a new secret; the old one stops working.", tool.Destroys), s.rotateSecret),
		tool.Define(acts("make_registration_token", "Make a registration token", "Make a token with which clients may register themselves.", tool.Writes), s.admit),
		tool.Define(reads("list_registration_tokens", "List registration tokens", "List the tokens with which clients may register themselves."), s.admissions),
		tool.Define(acts("revoke_registration_token", "Revoke a registration token", "Refuse registrations with a token from now on.", tool.Destroys), s.unadmit),
	}
}

const clientColumns = `id, name, source, redirect_uris, auth_method, approved_at IS NOT NULL, blocked_at IS NOT NULL, blocked_reason, created_at, created_from, fetched_at, metadata, earlier, changed_at`

type scanner interface{ Scan(...any) error }

func (s *Server) scanKnown(row scanner) (k shownClient, err error) {
	c := Client{}
	var redirects, metadata string
	var created, fetched, changed int64
	if err := row.Scan(&c.ID, &c.Name, &c.Source, &redirects, &c.AuthMethod, &c.Approved, &c.blocked, &c.why, &created, &k.From, &fetched, &metadata, &k.earlier, &changed); err != nil {
		return k, err
	}
	k.ID, k.Name, k.Kind, k.Domain, k.Reason = c.ID, c.Name, c.Source, c.Domain(), c.why
	k.Redirects, k.Confidential, k.Created, k.Fetched, k.Metadata = strings.Split(redirects, "\n"), c.AuthMethod != authNone && c.AuthMethod != authKey, at(created), at(fetched), json.RawMessage(metadata)
	if k.Changed = at(changed); s.pinned(c) { // the operator's own word
		k.earlier = ""
	}
	switch {
	case c.blocked:
		k.State = stateBlocked
	case c.Approved || s.pinned(c):
		k.State = stateApproved
	default:
		k.State = stateUnverified
	}
	return k, nil
}

// use fills in who uses a client, and when it was used.
func (s *Server) use(tx *store.Tx, workspace string, k *KnownClient) error {
	err := tx.QueryRow(`SELECT count(DISTINCT user_id) FROM consent WHERE client = $1 AND workspace = $2 AND ended_at IS NULL`, k.ID, workspace).Scan(&k.People)
	if err != nil {
		return err
	}
	var last int64
	k.Live, last, err = s.Tokens.Use(tx, k.ID)
	k.Used = at(last)
	return err
}

const mostClients = 500

// listClients is a page of the list. A position in it is a time and an id, so that it
// stays one when clients come and go.
func (s *Server) listClients(tx *store.Tx, p principal.Principal, in clientsIn) (out clientsOut, err error) {
	if in.Limit <= 0 || in.Limit > mostClients {
		in.Limit = 100
	}
	if in.State != "" && !slices.Contains([]string{stateApproved, stateUnverified, stateBlocked}, in.State) {
		return out, clientInvalid.New("the clients can't be listed").WithWhy("there is no state %.40q", in.State)
	}
	before, after := int64(1)<<62, ""
	if in.After != "" {
		if before, after, err = position(tx, in.After); err != nil {
			return out, err
		}
	}
	rows, err := tx.Query(`SELECT `+clientColumns+` FROM client WHERE (created_at, id) < ($1, $2)
			AND ($3 = '' OR $3 = 'blocked' AND blocked_at IS NOT NULL OR $3 <> 'blocked' AND blocked_at IS NULL)
		ORDER BY created_at DESC, id DESC`, before, after, in.State) // read as far as the page goes
	if err != nil {
		return out, err
	}
	defer func() { _ = rows.Close() }()
	out.Clients = []KnownClient{}
	for rows.Next() {
		k, err := s.scanKnown(rows)
		if err != nil {
			return out, err
		}
		if in.State != "" && k.State != in.State {
			continue
		}
		if len(out.Clients) == in.Limit {
			out.Next = out.Clients[in.Limit-1].ID
			break
		}
		out.Clients = append(out.Clients, k.KnownClient)
	}
	if err := rows.Err(); err != nil {
		return out, err
	}
	if err := rows.Close(); err != nil {
		return out, err
	}
	for i := range out.Clients {
		if err := s.use(tx, p.Workspace, &out.Clients[i]); err != nil {
			return out, err
		}
	}
	return out, nil
}

func position(tx *store.Tx, id string) (created int64, after string, err error) {
	err = tx.QueryRow(`SELECT created_at FROM client WHERE id = $1`, id).Scan(&created)
	if err != nil {
		err = clientMissing.New("there is no client %.60q", id).Because(err)
	}
	return created, id, err
}

// find is a client by its id, blocked or not.
func (s *Server) find(tx *store.Tx, id string) (shownClient, error) {
	if !oauth.Readable(id) {
		return shownClient{}, clientMissing.New("there is no such client")
	}
	k, err := s.scanKnown(tx.QueryRow(`SELECT `+clientColumns+` FROM client WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		err = clientMissing.New("there is no client %.60q", id)
	}
	if err == nil {
		k.Changes, err = changes(k.earlier, string(k.Metadata))
	}
	return k, err
}

func (s *Server) showKnown(tx *store.Tx, p principal.Principal, in clientIn) (shownClient, error) {
	k, err := s.find(tx, in.ID)
	if err != nil {
		return k, err
	}
	return k, s.use(tx, p.Workspace, &k.KnownClient)
}

// idForm is how an id is spelt that somebody chose: never like an address, nor like
// one that we make.
var idForm = regexp.MustCompile(`^[a-z][a-z0-9.-]{0,63}$`)

// checkID says what is wrong with an id that somebody chose; empty if nothing is.
func checkID(id string) string {
	switch {
	case !idForm.MatchString(id):
		return "its id begins with a letter and has lower case letters, digits, dots and hyphens, 64 at most"
	case id == "all" || id == "mcp": // where clients and servers are named together, as in opaque_tokens
		return "in the configuration this id would stand for something else"
	}
	return ""
}

// addClient adds a client that is approved because somebody added it.
func (s *Server) addClient(tx *store.Tx, p principal.Principal, in addClientIn) (out secretOut, err error) {
	if in.ID == "" {
		in.ID = newUUID()
	} else if why := checkID(in.ID); why != "" {
		return out, clientInvalid.New("the client can't be added").WithWhy("%s", why)
	}
	method := authNone
	if in.Secret {
		method = authBasic
	}
	secret := newSecret(method)
	wanted, fault := s.wanted(in.ID, oauth.Registration{
		ClientName: in.Name, RedirectURIs: in.Redirects, TokenAuthMethod: method, BoundTokens: in.Bound, PushedOnly: in.PushedOnly,
	})
	if fault != nil {
		return out, clientInvalid.New("the client can't be added").WithWhy("%s", fault.Description)
	}
	if _, taken, err := s.row(tx, in.ID); err != nil || taken {
		if taken {
			err = clientTaken.New("the client %q can't be added", in.ID)
		}
		return out, err
	}
	if err := s.put(tx, wanted, secret.Hash, fromAdmin); err != nil {
		return out, err
	}
	s.decided(tx, p.Name(), "client.add", in.ID, wanted.ClientName, "")
	return secretOut{in.ID, wanted.ClientName, secret.Token}, nil
}

// wanted is a client as somebody who may wants it.
func (s *Server) wanted(id string, r oauth.Registration) (oauth.Registration, *oauth.Error) {
	r, fault := proposed(r, s.Schemes)
	if fault != nil {
		return r, fault
	}
	granted, err := s.granted(r)
	if fault, bad := asOAuth(err); bad {
		return granted, fault
	}
	granted.ClientID = id
	return granted, nil
}

// proposed judges what somebody says of a client as if it said so itself.
func proposed(r oauth.Registration, schemes []string) (oauth.Registration, *oauth.Error) {
	body, err := json.Marshal(r)
	if err != nil {
		return oauth.Registration{}, oauth.Errorf(oauth.InvalidClientMetadata, "it is not text")
	}
	r, _, fault := oauth.ParseRegistration(body, schemes)
	if fault != nil {
		return r, fault
	}
	if r.ClientName = cleanName(r.ClientName); r.ClientName == "" {
		return r, oauth.Errorf(oauth.InvalidClientMetadata, "it needs a name")
	}
	return r, nil
}

// put keeps an approved client, in the place of what was there under its id.
func (s *Server) put(tx *store.Tx, r oauth.Registration, secretHash []byte, source string) error {
	r.ClientIDIssuedAt = tx.Now / 1_000_000
	metadata, err := kept(r)
	if err != nil {
		return clientInvalid.New("the client %q can't be kept", r.ClientID).WithWhy("what is said of it is too long")
	}
	_, err = tx.Exec(`INSERT INTO client
			(id, name, redirect_uris, grant_types, auth_method, secret_hash, scope, metadata, created_at, created_from, source, approved_at, dpop_bound, pushed_only)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $9, $12, $13)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, redirect_uris = excluded.redirect_uris, auth_method = excluded.auth_method,
			dpop_bound = excluded.dpop_bound, pushed_only = excluded.pushed_only, secret_hash = excluded.secret_hash, metadata = excluded.metadata, earlier = ''`,
		r.ClientID, r.ClientName, strings.Join(r.RedirectURIs, "\n"), strings.Join(r.GrantTypes, " "), r.TokenAuthMethod, secretHash,
		r.Scope, metadata, tx.Now, "", source, r.BoundTokens, r.PushedOnly)
	return err
}

// decided records what somebody decided about a client.
func (s *Server) decided(tx *store.Tx, actor, action, id, name, reason string) {
	event := audit.Event{
		Workspace: audit.System, Actor: actor, Client: id, Action: action, Target: id, Outcome: audit.Allowed, Detail: map[string]string{"name": name},
	}
	if reason != "" {
		event.Detail["reason"] = reason
	}
	s.Audit.Append(tx, event)
}

// approveClient vouches for a client that is not blocked, as it is now.
func (s *Server) approveClient(tx *store.Tx, p principal.Principal, in clientIn) (KnownClient, error) {
	k, err := s.find(tx, in.ID)
	switch {
	case err != nil || k.State == stateApproved && len(k.Changes) == 0:
		return k.KnownClient, err
	case k.State == stateBlocked:
		return k.KnownClient, clientBlocked.New("%q can't be approved", k.Name).WithFix("unblock it first: gatehouse clients unblock ID")
	}
	_, err = tx.Exec(`UPDATE client SET approved_at = $1, earlier = metadata WHERE id = $2`, tx.Now, in.ID)
	s.decided(tx, p.Name(), "client.approve", k.ID, k.Name, "")
	k.State = stateApproved
	return k.KnownClient, err
}

// blockClient refuses a client everywhere from now on.
func (s *Server) blockClient(tx *store.Tx, p principal.Principal, in blockIn) (KnownClient, error) {
	k, err := s.find(tx, in.ID)
	if err != nil {
		return k.KnownClient, err
	}
	reason := cleanName(in.Reason)
	if _, err := s.cut(tx, k.ID, reason, reasonBlocked); err != nil {
		return k.KnownClient, err
	}
	s.decided(tx, p.Name(), "client.block", k.ID, k.Name, reason)
	k.State, k.Reason = stateBlocked, reason
	return k.KnownClient, nil
}

const reasonBlocked = "the operator of this server blocked it"

func (s *Server) unblockClient(tx *store.Tx, p principal.Principal, in clientIn) (KnownClient, error) {
	k, err := s.find(tx, in.ID)
	if err != nil || k.State != stateBlocked {
		return k.KnownClient, err
	}
	_, err = tx.Exec(`UPDATE client SET blocked_at = NULL, blocked_reason = '' WHERE id = $1`, in.ID)
	s.decided(tx, p.Name(), "client.unblock", k.ID, k.Name, "")
	k.State, k.Reason = stateUnverified, ""
	return k.KnownClient, err
}

func (s *Server) removeKnown(tx *store.Tx, p principal.Principal, in clientIn) (KnownClient, error) {
	k, err := s.find(tx, in.ID)
	if err != nil {
		return k.KnownClient, err
	}
	if k.Kind == fromFile {
		return k.KnownClient, clientOfFile.New("%q can't be removed", k.Name)
	}
	s.decided(tx, p.Name(), "client.remove", k.ID, k.Name, "")
	return k.KnownClient, s.forget(tx, k.ID)
}

func (s *Server) rotateSecret(tx *store.Tx, p principal.Principal, in clientIn) (out secretOut, err error) {
	k, err := s.find(tx, in.ID)
	switch {
	case err != nil:
		return out, err
	case k.Kind == fromFile:
		return out, clientOfFile.New("%q can't get a new secret", k.Name)
	case !k.Confidential:
		return out, clientInvalid.New("%q can't get a new secret", k.Name).WithWhy("it has none: it authenticates without")
	}
	secret := newSecret(authBasic)
	_, err = tx.Exec(`UPDATE client SET secret_hash = $1 WHERE id = $2`, secret.Hash, in.ID)
	s.decided(tx, p.Name(), "client.rotate", k.ID, k.Name, "")
	return secretOut{k.ID, k.Name, secret.Token}, err
}

// imitated reports whether an app that nobody vouches for goes by the name of one
// that somebody does (attack 52).
func (s *Server) imitated(tx *store.Tx, c Client) (bool, error) {
	if c.Approved || c.Name == "" {
		return false, nil
	}
	for id, body := range s.Documents().Pinned {
		if r, fault := s.granting(id, []byte(body)); fault == nil && sameName(r.ClientName, c.Name) {
			return true, nil
		}
	}
	rows, err := tx.Query(`SELECT name FROM client WHERE approved_at IS NOT NULL AND id <> $1`, c.ID)
	if err != nil {
		return false, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return false, err
		}
		if sameName(name, c.Name) {
			return true, nil
		}
	}
	return false, rows.Err()
}

// sameName reports whether a person could take one name for the other: case and
// blanks do not matter.
func sameName(a, b string) bool {
	return strings.EqualFold(strings.Join(strings.Fields(a), " "), strings.Join(strings.Fields(b), " "))
}
