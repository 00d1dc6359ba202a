package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/identity"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// certificatePause bounds how long a new certificate or master key goes unnoticed.
const certificatePause = 10 * time.Second

// heed reads the configuration again at every SIGHUP, and the certificate and the
// master key when their files change, until stop is called. given is the configuration as the
// operator gave it. end is called when the terminal has gone.
func (h *house) heed(ctx context.Context, end func(), given Config, out io.Writer) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		poll := time.NewTicker(certificatePause)
		defer poll.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-poll.C:
			case <-hangup:
				if _, err := fmt.Fprintln(out, "Reading the configuration again"); errors.Is(err, syscall.EIO) {
					end() // SIGHUP was the terminal's last word
				}
				h.supervisor.reloading(h.log)
				given = h.reload(ctx, given)
				h.supervisor.tell(h.log, "READY=1")
			}
			h.renew()
			h.followKey()
		}
	}()
	return func() {
		signal.Stop(hangup)
		cancel()
		<-done
	}
}

// renew takes a certificate that has changed.
func (h *house) renew() {
	if h.pair == nil {
		return
	}
	if changed, err := h.pair.refresh(); err != nil {
		h.log.Error("the new certificate is not used, the old one stays", "err", err)
	} else if changed {
		h.log.Info("a new certificate is used", "file", h.pair.certFile)
	}
}

// reload reads the configuration again and makes what may change at once hold. If
// anything is wrong with it, nothing changes. It returns what was given now, with
// the settings that wait for a restart as they were.
func (h *house) reload(ctx context.Context, given Config) Config {
	if given.Source.origins == nil {
		h.log.Warn("the configuration was not read from anywhere, so it is not read again")
		return given
	}
	next, err := Load(given.Source.flags, given.Source.environ)
	if err != nil {
		h.log.Error("the configuration can't be used; nothing has changed", "why", problem.From(err).Why)
		return given
	}
	now := *h.live.Load()
	var changed, waiting []string
	for _, s := range settings {
		was, is := reflect.ValueOf(s.field(&given)).Elem(), reflect.ValueOf(s.field(&next)).Elem()
		if reflect.DeepEqual(was.Interface(), is.Interface()) {
			continue
		}
		if !s.live {
			waiting = append(waiting, s.key)
			continue
		}
		changed = append(changed, s.key)
		was.Set(is)
		reflect.ValueOf(s.field(&now)).Elem().Set(is)
	}
	now.Source, given.Source = next.Source, next.Source
	h.live.Store(&now)
	if slices.Contains(changed, "trusted_issuers") {
		h.trust(now) // only then, for the keys are fetched anew
	}
	h.want(now)
	if err := h.follow(ctx, now); err != nil {
		h.log.Error("the clients of the configuration are not followed", "err", err)
	}
	h.level.Set(logLevels[now.LogLevel])
	h.log.Info("the configuration was read again", "file", next.Source.File, "changed", strings.Join(changed, " "))
	if len(waiting) > 0 {
		h.log.Warn("some settings change at the next start only", "settings", strings.Join(waiting, " "))
	}
	return given
}

// want hands the servers of the file to their room. Their owner is the file under
// its whole name.
func (h *house) want(c Config) { h.servers.Want(identity.Workspace, c.owner(), c.Servers) }

// trust takes the word of the issuers of the file, and of no others.
func (h *house) trust(c Config) {
	parties := c.trustedParties()
	h.trusts.Store(&parties)
}

// follow hands over its clients. Without a file those of an older one stay.
func (h *house) follow(ctx context.Context, c Config) error {
	if c.owner() == "" && len(c.Clients) == 0 {
		return nil
	}
	return h.db.Do(ctx, func(tx *store.Tx) error { return h.oauth.Follow(tx, c.owner(), c.Clients) })
}

// owner is the configuration file under its whole name; empty if there is none.
func (c Config) owner() string {
	path := c.Source.File
	if whole, err := filepath.Abs(path); path != "" && err == nil {
		path = whole
	}
	return path
}

// followed records what is done because the configuration file says so.
func (h *house) followed(tx *store.Tx, workspace, file, action, server string) {
	h.audit.Append(tx, audit.Event{
		Workspace: workspace, Action: action, Actor: "file:" + file, Target: server, Door: "config", Outcome: audit.Allowed,
	})
}

// proxies are the networks whose word about clients is believed.
func (h *house) proxies() []netip.Prefix { return h.live.Load().TrustedProxies }
