package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"
)

// supervisor is systemd, if it started us as a unit of Type=notify
// (sd_notify(3)). Empty, it is nobody.
type supervisor string

func theSupervisor() supervisor { return supervisor(os.Getenv("NOTIFY_SOCKET")) }

// tell says how we are. A supervisor that cannot be told will find out.
func (s supervisor) tell(log *slog.Logger, state string) {
	if s == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: string(s), Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		_ = conn.Close() // nothing is buffered
	}
	if err != nil {
		log.Warn("systemd could not be told", "state", state, "err", err)
	}
}

// reloading says that the configuration is being read again, as of now.
func (s supervisor) reloading(log *slog.Logger) {
	if now := monotonic(); now > 0 {
		s.tell(log, fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now))
	}
}

// watchdog gives signs of life, twice as often as they are asked for.
func (h *house) watchdog(ctx context.Context) {
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 || h.supervisor == "" {
		return
	}
	tick := time.NewTicker(time.Duration(us) * time.Microsecond / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.supervisor.tell(h.log, "WATCHDOG=1")
		}
	}
}
