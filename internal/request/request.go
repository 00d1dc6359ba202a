// Package request is what a request says about itself in the log.
//
// The outermost handler begins a record, with the one reference of the request,
// and writes one line of it at the end; whoever comes to know something fills it
// in on the way. A record travels in the context of its request, because the
// handlers in between belong to the standard library and could not hand it on. It
// may: it is neither identity nor authority. Nothing is decided by it, and no
// token, code, cookie, query or body is ever put into it.
package request

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// A Record is what is known of one request. It belongs to the goroutine that
// serves the request.
type Record struct {
	Ref       string // reference of the request, or of the authorization that it is a step of: req_…
	Principal string // kind and id of who calls; empty for a stranger
	Client    string // the app through which it is called
	Token     string // id of the token it came with, or which was issued
	Call      string // what is called: a tool, or a method of the protocol
	Code      string // of the problem that it was answered with
	Why       string // what was wrong, where the answer does not tell
	Note      string // what a step of an authorization led to
}

// Append adds to a line of the log what is known of who called what, and how it went.
func (r *Record) Append(line []slog.Attr) []slog.Attr {
	for _, known := range [...]struct{ name, value string }{
		{"principal", r.Principal}, {"client", r.Client}, {"call", r.Call}, {"code", r.Code}, {"why", r.Why},
	} {
		if known.value != "" {
			line = append(line, slog.String(known.name, known.value))
		}
	}
	return line
}

type key struct{}

// Begin gives the request a record of its own. A reference that came with the
// request is not believed: who sends it could make it anybody's.
func Begin(r *http.Request, record *Record) *http.Request {
	record.Ref = store.ID("req_")
	return r.WithContext(context.WithValue(r.Context(), key{}, record))
}

// Of is the record of a request. Where none was begun it is one that nobody
// reads.
func Of(ctx context.Context) *Record {
	if record, ok := ctx.Value(key{}).(*Record); ok {
		return record
	}
	return &Record{Ref: store.ID("req_")}
}

// Failed logs that a request ran into a fault of ours. Where its caller has gone
// away, what it ran into is that, and no fault.
func Failed(log *slog.Logger, r *http.Request, err error) {
	if r.Context().Err() == nil {
		log.Error("request failed", "ref", Of(r.Context()).Ref, "path", r.URL.Path, "err", err)
	}
}
