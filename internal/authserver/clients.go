package authserver

import (
	"net/url"
)

// How a client became known.
const (
	fromRegistration = "registered" // it registered itself
	fromDocument     = "document"   // its id is the address of a document that describes it
	fromOperator     = "operator"   // who runs this server made it
)

// mayAct reports whether a client that is known may do anything now: one that is a
// document, while such documents are allowed and it was fetched not too long ago.
func (s *Server) mayAct(c Client, now int64) bool {
	if c.Source != fromDocument {
		return true
	}
	documents := s.Documents()
	_, pinned := documents.Pinned[c.ID]
	return documents.allows(c.ID) && (pinned || now-c.fetched < staleBound.Microseconds())
}

// approved reports whether who runs this server vouches for a client.
func (s *Server) approved(c Client) bool {
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
