package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// A check is something without which this node can do no work.
type check struct {
	name string
	ok   func(context.Context) error
}

// checks are what /readyz looks at. Servers behind us are none of them: one that
// is down does not make us so.
func (h *house) checks() []check {
	return []check{
		{"database", func(ctx context.Context) error { // a write, because a full disk still reads
			_, err := h.db.Lease(ctx, "alive "+h.node, h.node, time.Minute)
			return err
		}},
		{"migrations", func(ctx context.Context) error {
			n, err := h.db.Migrations(ctx)
			if err == nil && n != h.migrations {
				err = errors.New("a newer release has changed the tables; start that one")
			}
			return err
		}},
		{"signing key", func(context.Context) error { return h.tokens.Signs() }},
		{"master key", func(context.Context) error {
			sealed, err := h.tokens.Box.Handle("health", []byte(h.node))
			if err == nil {
				_, err = h.tokens.Box.OpenHandle("health", sealed)
			}
			return err
		}},
		{"audit head", func(ctx context.Context) error {
			return h.db.View(ctx, func(tx *store.Tx) error {
				_, err := h.audit.Head(tx, audit.System)
				return err
			})
		}},
		{"revocations", func(context.Context) error { return h.tokens.Live() }},
	}
}

// Probes come from anybody and often, so what was found is good for a moment, and
// one looks while the others wait.
const (
	checkedFor = 2 * time.Second
	checkTime  = time.Second // for each
)

// health is what was found last.
type health struct {
	mu    sync.Mutex
	at    time.Time
	found []finding
}

type finding struct {
	name string
	err  error
}

// look goes through the checks, or says what it found a moment ago.
func (h *house) look(ctx context.Context) (found []finding, ready bool) {
	h.health.mu.Lock()
	defer h.health.mu.Unlock()
	if time.Since(h.health.at) > checkedFor {
		h.health.found = nil
		for _, c := range h.checks() {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
			h.health.found = append(h.health.found, finding{c.name, c.ok(limited)})
			cancel()
		}
		h.health.at = time.Now()
	}
	ready = !h.stopping.Load()
	for _, f := range h.health.found {
		ready = ready && f.err == nil
	}
	return h.health.found, ready
}

// probed answers probes before anything else: they come with the address of this
// computer as the host, and from everywhere, so they learn no more than that
// something of ours is not well. inside are those at the admin socket, who learn
// why, and how the servers behind us are.
func (h *house) probed(inside bool, next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { plain(w, true, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		found, ready := h.look(r.Context())
		text := map[bool]string{true: "ok\n", false: "not ready\n"}[ready]
		if r.URL.Query().Has("verbose") {
			text = h.report(found, inside) + text
		}
		plain(w, ready, text)
	})
	mux.HandleFunc("GET /health", h.showHealth)
	mux.Handle("/", next)
	return mux
}

// report has a line for each check.
func (h *house) report(found []finding, inside bool) string {
	var b strings.Builder
	line := func(ok bool, name, why string) {
		mark := map[bool]string{true: "+", false: "-"}[ok]
		fmt.Fprintf(&b, "[%s] %s", mark, name)
		if why != "" && inside {
			fmt.Fprintf(&b, ": %s", strings.Join(strings.Fields(why), " "))
		}
		b.WriteByte('\n')
	}
	if h.stopping.Load() {
		line(false, "the server is stopping", "")
	}
	for _, f := range found {
		why := ""
		if f.err != nil {
			why = f.err.Error()
		}
		line(f.err == nil, f.name, why)
	}
	if inside {
		for _, s := range h.servers.States() {
			fmt.Fprintf(&b, "    server %s: %s since %s", s.Name, s.State, s.Since.Format(time.RFC3339))
			if s.Error != "" {
				fmt.Fprintf(&b, ": %s", strings.Join(strings.Fields(s.Error), " "))
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// showHealth is R734: what this is and whether its parts are well, without
// anything that a stranger should not know.
func (h *house) showHealth(w http.ResponseWriter, r *http.Request) {
	found, ready := h.look(r.Context())
	state := struct {
		Status     string            `json:"status"`
		Version    string            `json:"version"`
		Components map[string]string `json:"components"`
		Transports []string          `json:"transports"`
		Auth       string            `json:"auth"`
	}{"ok", Version, map[string]string{}, []string{"streamable-http"}, "oauth"}
	if h.config.Dev {
		state.Auth = "development"
	}
	for _, f := range found {
		state.Components[strings.ReplaceAll(f.name, " ", "_")] = map[bool]string{true: "ok", false: "failing"}[f.err == nil]
	}
	switch {
	case h.stopping.Load():
		state.Status = "stopping"
	case !ready:
		state.Status = "failing"
	}
	body, _ := json.Marshal(state) // plain strings
	w.Header().Set("Content-Type", "application/json")
	answerProbe(w, ready, append(body, '\n'))
}

func plain(w http.ResponseWriter, ok bool, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	answerProbe(w, ok, []byte(text))
}

func answerProbe(w http.ResponseWriter, ok bool, body []byte) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(body) // the prober is gone
}
