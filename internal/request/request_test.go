package request_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/request"
)

// A caller who hangs up is no fault of ours, and nobody is woken for it.
func TestOnlyOurOwnFaultsAreLogged(t *testing.T) {
	for _, gone := range []bool{false, true} {
		var said bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var record request.Record
		r := request.Begin(httptest.NewRequestWithContext(ctx, "POST", "/oauth/token?code=x", nil), &record)
		if gone {
			cancel()
		}
		request.Failed(slog.New(slog.NewTextHandler(&said, nil)), r, errors.New("the disk is full"))
		if logged := strings.Contains(said.String(), record.Ref) && strings.Contains(said.String(), "the disk is full"); logged == gone {
			t.Errorf("gone %v: %q", gone, said.String())
		}
		if strings.Contains(said.String(), "code=x") {
			t.Error("the query is in the log")
		}
	}
}
