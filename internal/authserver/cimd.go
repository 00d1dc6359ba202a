package authserver

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
)

// Documents says which metadata documents are clients (R221, C07). The zero value
// means none.
type Documents struct {
	Any    bool              // those of every host
	Hosts  []string          // those of these hosts
	Pinned map[string]string // these, by their address, as they stand here: nobody fetches them
}

// On reports whether there can be any.
func (d Documents) On() bool { return d.Any || len(d.Hosts) > 0 || len(d.Pinned) > 0 }

// allows reports whether the document at an address may be a client. What cannot
// be the address of one may not.
func (d Documents) allows(id string) bool {
	host, fault := oauth.CheckDocument(id)
	_, pinned := d.Pinned[id]
	return fault == nil && (d.Any || pinned || slices.Contains(d.Hosts, host))
}

// How a document is fetched, and how long what it says is believed. Its server
// says how long it stays as it is, within these bounds; without a word of it, an
// hour. A refresh works for a while although the document cannot be fetched: that a
// web server is down must not sign everybody out.
const (
	maxDocument   = 10 << 10 // bytes
	documentTime  = 4 * time.Second
	documentWait  = time.Second // for others that are fetched
	documentSlots = 16          // that are fetched at once
	usuallyFresh  = time.Hour
	leastFresh    = time.Minute
	mostFresh     = 24 * time.Hour
	retryPause    = time.Minute
	staleBound    = 7 * 24 * time.Hour // after it was last fetched its client is unknown
	keepDocument  = time.Hour          // after it was fresh, while nobody consented
)

// Codes of pages about clients that are documents.
var (
	documentRefused = problem.Code{
		Name: "CLIENT_DOCUMENT_REFUSED", Kind: problem.Invalid,
		Why: "this server knows apps by the document that describes them at certain hosts only, and this address is at none of them, or is none",
		Fix: "the operator can allow the host (cimd_allow), or pin the document (cimd_documents)",
	}
	documentUnusable = problem.Code{
		Name: "CLIENT_DOCUMENT_UNUSABLE", Kind: problem.Invalid,
		Why: "the document that describes it did not come from its address in time, or did not come as JSON",
		Fix: "try again in a minute; where this server does not reach the internet, its operator can pin the document (cimd_documents) or switch documents off (cimd), and apps register themselves instead",
	}
	documentsBusy = problem.Code{
		Name: "CLIENT_DOCUMENTS_BUSY", Kind: problem.Limited,
		Why: "too many descriptions of other apps are being fetched",
		Fix: "try again in a moment",
	}
)

// A described client is what is kept of a document.
type described struct {
	metadata            string
	fetched, fresh, try int64
}

// meet makes sure that what is known of the client is what its document says now,
// if its id is the address of one. It opens connections, so it comes before any
// transaction; from is the address on whose account they are. Why a document could
// not be had is told to nobody: it would say what stands behind our firewall (attack
// 107).
func (s *Server) meet(ctx context.Context, from, id string) error {
	if !oauth.IsDocument(id) {
		return nil
	}
	documents := s.Documents()
	if !documents.allows(id) {
		return documentRefused.New("this app can't be used here")
	}
	if body, pinned := documents.Pinned[id]; pinned {
		return s.describe(ctx, id, []byte(body), mostFresh)
	}
	d, now, err := s.document(ctx, id)
	if err != nil || d.fresh > now {
		return err
	}
	if err := s.mayFetch(ctx, from, id); err != nil {
		return err
	}
	return s.fetch(ctx, id)
}

// renew is meet for a client that comes back for tokens: what was known stays good
// for a while where the document cannot be had, and a stranger's id is not
// fetched.
func (s *Server) renew(ctx context.Context, from, id string) error {
	if !oauth.IsDocument(id) || !s.Documents().allows(id) {
		return nil
	}
	d, now, err := s.document(ctx, id)
	if err != nil || d.fetched == 0 || d.fresh > now || d.try > now {
		return err
	}
	if err := s.meet(ctx, from, id); err == nil || problem.Is(err, throttle.TooOften) {
		return nil
	}
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE client SET retry_at = $1 WHERE id = $2`, tx.Now+retryPause.Microseconds(), id)
		return err
	})
}

// introduced is meet for a client that begins at an endpoint for programs.
func (s *Server) introduced(ctx context.Context, from, id string) error {
	err := s.meet(ctx, from, id)
	if err == nil || problem.From(err).Kind == problem.Internal || problem.From(err).Kind == problem.Limited {
		return err
	}
	return badClient("its document cannot be had")
}

func (s *Server) document(ctx context.Context, id string) (d described, now int64, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		now = tx.Now
		d, err = describedAs(tx, id)
		return err
	})
	return d, now, err
}

func describedAs(tx *store.Tx, id string) (d described, err error) {
	err = tx.QueryRow(`SELECT metadata, fetched_at, fresh_until, retry_at FROM client WHERE id = $1 AND source = $2`, id, fromDocument).
		Scan(&d.metadata, &d.fetched, &d.fresh, &d.try)
	if errors.Is(err, sql.ErrNoRows) {
		return described{}, nil
	}
	return d, err
}

// fetch fetches a document and keeps what it says. Who asks for the same one
// meanwhile waits for it; who asks for one too many is sent away (attack 104).
func (s *Server) fetch(ctx context.Context, id string) error {
	_, err, _ := s.fetching.Do(id, func() (any, error) {
		if d, now, err := s.document(ctx, id); err != nil || d.fresh > now { // somebody just did
			return nil, err
		}
		free, err := slot(ctx, s.slots)
		if err != nil {
			return nil, err
		}
		body, header, err := s.Outbound.JSON(context.WithoutCancel(ctx), id, maxDocument, documentTime)
		free()
		if err != nil {
			return nil, documentUnusable.New("this app can't be looked up").Because(err)
		}
		return nil, s.describe(context.WithoutCancel(ctx), id, body, freshness(header))
	})
	return err
}

// slot waits for a place among those that fetch.
func slot(ctx context.Context, slots chan struct{}) (free func(), err error) {
	wait := time.NewTimer(documentWait)
	defer wait.Stop()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-wait.C:
	case <-ctx.Done():
	}
	e := documentsBusy.New("this app can't be looked up now")
	e.Retry = documentTime
	return nil, e
}

// freshness is how long a document stays as it is (RFC 9111 §5.2.2), within our
// bounds.
func freshness(header http.Header) time.Duration {
	fresh := usuallyFresh
	for directive := range strings.SplitSeq(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return leastFresh
		case "max-age":
			seconds, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 64)
			if err != nil {
				return leastFresh
			}
			fresh = time.Duration(min(seconds, int64(mostFresh.Seconds()))) * time.Second
		}
	}
	return min(max(fresh, leastFresh), mostFresh)
}

// describe keeps what a document says of its client. Invalid ones leave what was
// known as it was. An approval is for one name; the addresses are at the host that
// was approved, whatever they are.
func (s *Server) describe(ctx context.Context, id string, body []byte, fresh time.Duration) error {
	granted, fault := s.granting(id, body)
	if fault != nil {
		return documentUnusable.New("this app's description can't be used").WithWhy("%s", fault.Description).
			WithFix("tell who makes the app; its document is at the address that is its client id")
	}
	metadata, err := kept(granted)
	if err != nil {
		return documentUnusable.New("this app's description can't be used").Because(err)
	}
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		d, err := describedAs(tx, id)
		if err != nil || d.metadata == metadata && d.fresh >= tx.Now+fresh.Microseconds()/2 {
			return err
		}
		before, _, err := s.row(tx, id)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO client
				(id, name, redirect_uris, grant_types, auth_method, scope, metadata, created_at, created_from, source, fetched_at, fresh_until, dpop_bound, pushed_only)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $8, $11, $12, $13)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, redirect_uris = excluded.redirect_uris, grant_types = excluded.grant_types,
				auth_method = excluded.auth_method, dpop_bound = excluded.dpop_bound, pushed_only = excluded.pushed_only, scope = excluded.scope, metadata = excluded.metadata,
				fetched_at = excluded.fetched_at, fresh_until = excluded.fresh_until, retry_at = 0,
				approved_at = CASE WHEN client.name = excluded.name THEN client.approved_at END,
				earlier = CASE WHEN client.metadata = excluded.metadata OR client.approved_at IS NOT NULL AND client.earlier <> '' THEN client.earlier ELSE client.metadata END,
				changed_at = CASE WHEN client.metadata = excluded.metadata THEN client.changed_at ELSE excluded.fetched_at END`,
			id, granted.ClientName, strings.Join(granted.RedirectURIs, "\n"), strings.Join(granted.GrantTypes, " "), granted.TokenAuthMethod,
			granted.Scope, metadata, tx.Now, "", fromDocument, tx.Now+fresh.Microseconds(), granted.BoundTokens, granted.PushedOnly)
		if err != nil || before.ID == "" || d.metadata == metadata {
			return err
		}
		s.Audit.Append(tx, clientEvent("client.change", id, granted.ClientName, "", ""))
		return s.unask(tx, before, granted)
	})
}

// granting is what of a document is granted: what it asks for and we have (attack
// 102). One that is pinned is the operator's word, also about other hosts.
func (s *Server) granting(id string, body []byte) (oauth.Registration, *oauth.Error) {
	asked, fault := oauth.ParseDocument(id, body, s.Schemes)
	if fault != nil {
		return asked, fault
	}
	if _, pinned := s.Documents().Pinned[id]; !pinned {
		host, _ := oauth.CheckDocument(id) // that it can be one was looked at first
		if fault := oauth.AtHome(host, asked.RedirectURIs); fault != nil {
			return asked, fault
		}
	}
	switch {
	case asked.TokenAuthMethod == authKey && hasKeys(asked): // and it has to
	case asked.TokenAuthMethod != authNone && !oauth.AlsoPublic(body):
		return asked, oauth.Errorf(oauth.InvalidClientMetadata, "its client wants to authenticate with %.40s, which is not possible here", asked.TokenAuthMethod)
	default:
		asked.TokenAuthMethod = authNone
	}
	granted, err := s.granted(asked)
	if fault, bad := asOAuth(err); bad {
		return granted, fault
	}
	granted.ClientID = id
	return granted, nil
}
