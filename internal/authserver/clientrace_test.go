package authserver_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// A tie is two requests that meet inside their transactions, on PostgreSQL, because
// the first comes to a table that is locked: it has done what is before that, and the
// second waits for it, or for the table.
type tie struct {
	house
	let           func() // the first go on
	first, second chan apptest.Answer
}

// onPostgres is a house on PostgreSQL, the one engine on which transactions that
// write run beside one another.
func onPostgres(t *testing.T, change ...func(*app.Config)) house {
	t.Helper()
	address := storetest.Postgres(t)
	return start(t, append(change, func(c *app.Config) { c.Database = address })...)
}

// stall locks a table against writing and sends a request that comes to it.
func (h house) stall(table string, request func() apptest.Answer) tie {
	h.t.Helper()
	ctx, let := context.WithCancel(context.Background())
	h.t.Cleanup(let)
	locked := make(chan struct{})
	go func() {
		_ = h.DB.Do(context.Background(), func(tx *store.Tx) error {
			_, err := tx.Exec(`LOCK TABLE ` + table + ` IN SHARE MODE`)
			close(locked)
			<-ctx.Done()
			return err
		})
	}()
	<-locked
	return tie{house: h, let: let, first: h.waits(1, request)}
}

// meet sends the second request, and lets both end once it waits as well.
func (x tie) meet(request func() apptest.Answer) (first, second apptest.Answer) {
	x.t.Helper()
	x.second = x.waits(2, request)
	x.let()
	return <-x.first, <-x.second
}

// waits sends a request and returns when so many transactions wait for one another.
func (h house) waits(want int, request func() apptest.Answer) chan apptest.Answer {
	h.t.Helper()
	answer := make(chan apptest.Answer, 1)
	go func() { answer <- request() }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n := h.Count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query NOT LIKE '%LIMIT%'`) // the sweep waits besides
		if n == want {
			return answer
		}
		if time.Now().After(end) {
			h.t.Fatalf("%d transactions wait, want %d", n, want)
		}
	}
}

// ended fails unless nothing is left of what the client was given.
func (h house) ended(token string) {
	h.t.Helper()
	if token != "" && h.works(token) {
		h.t.Error("its token works")
	}
	for what, rows := range map[string]string{
		"families": `token_family WHERE revoked_at IS NULL`, "codes": `authorization_code WHERE used_at IS NULL`, "consents": `consent WHERE ended_at IS NULL`,
		"questions": `flow WHERE decided_at IS NULL`,
	} {
		if n := h.Count(`SELECT count(*) FROM ` + rows); n != 0 {
			h.t.Errorf("%d %s are left", n, what)
		}
	}
}

// endings are the tools that end what a client was allowed.
var endings = []string{"block_client", "remove_client"}

func (h house) ending(tool, client string) func() apptest.Answer {
	return func() apptest.Answer { return h.Admin(tool, `{"id":"`+client+`"}`) }
}

// issuedThen fails unless tokens were issued and the client was ended, in this order.
func (h house) issuedThen(issued, ended apptest.Answer) {
	h.t.Helper()
	var tokens oauth.TokenResponse
	if issued.JSON(h.t, &tokens); tokens.AccessToken == "" || ended.StatusCode != http.StatusOK {
		h.t.Errorf("%d %s, %d %s", issued.StatusCode, issued.Text, ended.StatusCode, ended.Text)
	}
	h.ended(tokens.AccessToken)
}

// R212, R218: who blocks or removes a client while a family is made without a code
// waits, and ends the family; and a family that would begin meanwhile is not made.
func TestAnAssertionWhileItsClientEnds(t *testing.T) {
	p := newProvider(t)
	for _, tool := range endings {
		t.Run(tool, func(t *testing.T) {
			h := onPostgres(t, trusting(p, &[]string{}, true))
			client := h.owned()
			brings := func() apptest.Answer {
				return h.Form("/oauth/token", bringing(client, p.jag(t, h, client.ClientID, nil), nil))
			}
			h.issuedThen(h.stall("token_family", brings).meet(h.ending(tool, client.ClientID)))

			client = h.confidential("client_secret_post")
			h.SQL(`UPDATE client SET grant_types = grant_types || ' `+bearerGrant+`' WHERE id = $1`, client.ClientID)
			ended, late := h.stall("flow", h.ending(tool, client.ClientID)).meet(brings)
			if refused(t, late, oauth.InvalidClient); ended.StatusCode != http.StatusOK {
				t.Errorf("%d %s", ended.StatusCode, ended.Text)
			}
			h.ended("")
		})
	}
}

// The same for a code that becomes a family.
func TestACodeWhileItsClientEnds(t *testing.T) {
	for _, tool := range endings {
		t.Run(tool, func(t *testing.T) {
			h := onPostgres(t, apptest.Dev)
			client := h.Register()
			code, verifier := h.Code(client, nil)
			h.issuedThen(h.stall("token_family", func() apptest.Answer { return h.Redeem(client, code, verifier, nil) }).meet(h.ending(tool, client)))
		})
	}
}

// And for a yes that becomes a code, given now or remembered.
func TestAYesWhileItsClientEnds(t *testing.T) {
	for _, tool := range endings {
		for _, when := range []string{"now", "before"} {
			t.Run(tool+" "+when, func(t *testing.T) {
				h := onPostgres(t)
				b := h.Browser()
				b.SetUp()
				client := h.Register(web)
				query, _ := h.Authorization(client, with("redirect_uri", web))
				open := func() apptest.Answer { return b.Open("/oauth/authorize?" + query.Encode()) }
				form := apptest.Fields(open().Text)
				form.Set("decision", "allow")
				allow := func() apptest.Answer { return b.Submit("/consent", form) }
				yes := allow
				if when == "before" {
					allow()
					yes = open
				}
				h.SQL(`DELETE FROM authorization_code`)
				_, ended := h.stall("authorization_code", yes).meet(h.ending(tool, client))
				if ended.StatusCode != http.StatusOK {
					t.Errorf("%d %s", ended.StatusCode, ended.Text)
				}
				h.ended("")
			})
		}
	}
}
