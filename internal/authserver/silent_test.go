package authserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// R407: while the database does not answer, an endpoint says so in seconds, with
// nothing spent, and a page does; nobody waits for as long as a client has patience.
func TestASilentDatabaseIsNotWaitedFor(t *testing.T) {
	h := onPostgres(t, apptest.Dev)
	client := h.Register()
	code, verifier := h.Code(client, nil)
	ctx, answer := context.WithCancel(context.Background())
	defer answer()
	silent, over := make(chan struct{}), make(chan error, 1)
	go func() {
		over <- h.DB.Do(context.Background(), func(tx *store.Tx) error {
			_, err := tx.Exec(`LOCK TABLE client IN ACCESS EXCLUSIVE MODE`)
			close(silent)
			<-ctx.Done()
			return err
		})
	}()
	<-silent
	began := time.Now()
	token, page := make(chan apptest.Answer), make(chan apptest.Answer)
	go func() { token <- h.Redeem(client, code, verifier, nil) }()
	go func() { query, _ := h.Authorization(client, nil); page <- h.authorize(query) }()
	if a := <-token; a.StatusCode != http.StatusServiceUnavailable || a.Error() != oauth.TemporarilyUnavailable || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if a := <-page; a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, "STORE_UNAVAILABLE") {
		t.Errorf("%d %s", a.StatusCode, a.Text)
	}
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("it took %v", took)
	}
	answer()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	if a := h.Redeem(client, code, verifier, nil); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.Text)
	}
}
