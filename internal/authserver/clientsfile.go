package authserver

import (
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// A FileClient is a client that stands in the configuration file. The file owns it:
// it comes, changes and goes with it.
type FileClient struct {
	Name      string
	Redirects []string
	Secret    seal.Secret // none: it is public

	Bound      bool // it gets no token without a DPoP proof
	PushedOnly bool // it begins with a pushed request only
}

// leastSecret is how long a secret is at least that somebody chose, in bytes.
const leastSecret = 32

// Check says what is wrong with a client of the file; empty if nothing is.
func (f FileClient) Check(id string, schemes []string) string {
	if why := checkID(id); why != "" {
		return why
	}
	if secret := f.Secret.Reveal(); secret != "" && len(secret) < leastSecret {
		return "its secret has fewer than 32 characters; openssl rand -base64 33 makes a good one"
	}
	if _, fault := proposed(f.registration(), schemes); fault != nil {
		return fault.Description
	}
	return ""
}

// registration is what it would say of itself.
func (f FileClient) registration() oauth.Registration {
	return oauth.Registration{ClientName: f.Name, RedirectURIs: f.Redirects, TokenAuthMethod: f.method(), BoundTokens: f.Bound, PushedOnly: f.PushedOnly}
}

func (f FileClient) method() string {
	if f.Secret.Reveal() == "" {
		return authNone
	}
	return authBasic
}

func (f FileClient) hash() []byte {
	if f.Secret.Reveal() == "" {
		return nil
	}
	return wholeHash(f.Secret.Reveal())
}

// Follow makes the clients of the configuration file what it says. Those that stand
// in it no more are forgotten with all they were given. file is its name, for the
// record.
func (s *Server) Follow(tx *store.Tx, file string, clients map[string]FileClient) error {
	there, err := fileClients(tx)
	if err != nil {
		return err
	}
	for _, id := range there {
		if _, wanted := clients[id]; wanted {
			continue
		}
		s.decided(tx, "file:"+file, "client.remove", id, "", "")
		if err := s.forget(tx, id); err != nil {
			return err
		}
	}
	for id, f := range clients {
		if err := s.follow(tx, file, id, f); err != nil {
			return err
		}
	}
	return nil
}

func fileClients(tx *store.Tx) (ids []string, err error) {
	rows, err := tx.Query(`SELECT id FROM client WHERE source = $1`, fromFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

func (s *Server) follow(tx *store.Tx, file, id string, f FileClient) error {
	wanted, fault := s.wanted(id, f.registration())
	if fault != nil {
		return clientInvalid.New("the client %q of the file can't be used", id).WithWhy("%s", fault.Description)
	}
	before, found, err := s.row(tx, id)
	switch {
	case err != nil:
		return err
	case found && before.Source != fromFile:
		return clientTaken.New("the client %q of the file can't be added", id)
	case found && same(before, wanted, f.hash()):
		return nil
	}
	if err := s.put(tx, wanted, f.hash(), fromFile); err != nil {
		return err
	}
	action := "client.add"
	if found {
		action = "client.change"
	}
	s.decided(tx, "file:"+file, action, id, wanted.ClientName, "")
	return s.unask(tx, before, wanted)
}

func same(c Client, r oauth.Registration, secretHash []byte) bool {
	return c.Name == r.ClientName && slices.Equal(c.Redirects, r.RedirectURIs) && c.AuthMethod == r.TokenAuthMethod && c.Bound == r.BoundTokens && c.PushedOnly == r.PushedOnly &&
		strings.Join(c.Grants, " ") == strings.Join(r.GrantTypes, " ") && slices.Equal(c.secretHash, secretHash)
}
