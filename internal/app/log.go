package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/request"
)

// newLog is the log of the server: text where a person reads it, JSON otherwise,
// unless the configuration says which. Its lines wait for others once run goes.
func newLog(c Config, out io.Writer) (log *slog.Logger, level *slog.LevelVar, run func(context.Context)) {
	level = &slog.LevelVar{}
	level.Set(logLevels[c.LogLevel])
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: redact}
	lines := newLines(out)
	var handler slog.Handler = slog.NewJSONHandler(lines, options)
	if c.LogFormat == "text" || c.LogFormat == "" && isTerminal(out) {
		handler = slog.NewTextHandler(lines, options)
	}
	return slog.New(atOnce{handler, lines}), level, lines.run
}

// logLevels are the values of log.level; none means info.
var logLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// redact is the net behind the types that do not print (seal.Secret): whatever
// looks like a secret of ours is left out, in messages and in attributes (R1402).
func redact(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		if text, found := withoutSecrets(a.Value.String()); found {
			a.Value = slog.StringValue(text)
		}
	case slog.KindAny:
		if _, level := a.Value.Any().(slog.Level); level {
			return a
		}
		text := fmt.Sprint(a.Value.Any())
		if raw, ok := a.Value.Any().([]byte); ok {
			text = string(raw)
		}
		if text, found := withoutSecrets(text); found {
			a.Value = slog.StringValue(text)
		}
	}
	return a
}

// secrets are the shapes of what opens something: tokens with an id in front,
// which may stay, JWTs, keys, registration tokens and setup codes.
var secrets = []struct {
	mark    string // what the text has somewhere, to look no further in most
	shape   *regexp.Regexp
	instead string
}{
	{"_", regexp.MustCompile(`([a-z]{2,12}_[0-9A-HJKMNP-TV-Z]{26})(\.|%2E|%2e)[\w-]{8,}`), "$1.[sealed]"},
	{"eyJ", regexp.MustCompile(`eyJ[\w-]{6,}((\.|%2E|%2e)[\w-]*)+`), "[sealed]"},
	{"k_", regexp.MustCompile(`\b[sm]k_[\w.-]{12,}`), "[sealed]"},
	{"reg-", regexp.MustCompile(`reg-[0-9a-f]{8}[0-9a-f-]{8,}`), "[sealed]"},
	{"-", regexp.MustCompile(`\b[2-9A-HJ-NP-Z]{4}-[2-9A-HJ-NP-Z]{4}-[2-9A-HJ-NP-Z]{4}\b`), "[sealed]"},
}

// shortest is the length of the shortest secret, the setup code.
const shortest = 14

func withoutSecrets(text string) (_ string, found bool) {
	if len(text) < shortest {
		return text, false
	}
	for _, s := range secrets {
		if !strings.Contains(text, s.mark) || s.mark == "_" && !strings.ContainsAny(text, ".%") {
			continue
		}
		if clean := s.shape.ReplaceAllString(text, s.instead); clean != text {
			text, found = clean, true
		}
	}
	return text, found
}

// observed is the ResponseWriter of a request with what the log says of it. The
// reference goes to the caller with the first byte, when it is known whether the
// request is a step of an authorization that has one.
type observed struct {
	http.ResponseWriter
	record request.Record
	status int
	bytes  int64
}

// RequestID is the header with the reference of a request.
const RequestID = "X-Request-Id"

func (a *observed) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
		a.Header().Set(RequestID, a.record.Ref)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *observed) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// FlushError sends what was written; with it a stream begins.
func (a *observed) FlushError() error {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (a *observed) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// logged makes the reference of each request and writes one line about it when
// it is over (R1311).
func (h *house) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		a := &observed{ResponseWriter: w}
		r = request.Begin(r, &a.record)
		ended := false
		defer func() { h.over(r, a, began, ended) }()
		next.ServeHTTP(a, r)
		if a.status == 0 {
			a.WriteHeader(http.StatusOK) // as the standard library would
		}
		ended = true
	})
}

// over writes the line. Of a request that did not end by itself the status is
// that of its caller's loss: 0 if nothing was answered.
func (h *house) over(r *http.Request, a *observed, began time.Time, ended bool) {
	level := slog.LevelInfo
	switch {
	case !ended || a.status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	case probes[r.URL.Path]:
		level = slog.LevelDebug
	}
	if !h.log.Enabled(r.Context(), level) {
		return
	}
	rec := &a.record
	var room [12]slog.Attr
	line := append(room[:0],
		slog.String("ref", rec.Ref), slog.String("method", r.Method), slog.String("route", route(r)), slog.Int("status", a.status),
		slog.Int64("bytes", a.bytes), slog.Int64("us", time.Since(began).Microseconds()), slog.String("from", audit.Prefix(r.RemoteAddr)))
	h.log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", rec.Append(line)...)
}

// route is what of the address is known beforehand: what a stranger wrote there
// is not repeated.
func route(r *http.Request) string {
	if r.Pattern == "" || r.Pattern == "/" {
		return "other"
	}
	return r.Pattern
}

// probes are asked every few seconds by whoever watches the server.
var probes = map[string]bool{"/livez": true, "/readyz": true, "/health": true}
