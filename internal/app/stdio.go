package app

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

var nothingServed = problem.Code{
	Name: "NOTHING_SERVED", Kind: problem.Unavailable,
	Why: "no server has kept anything there yet",
	Fix: "start gatehouse serve once with the same configuration, or say with --config or --data-dir where its data is",
}

// Streams are those of a process that serves the program which started it.
type Streams struct {
	In  io.Reader
	Out io.Writer // carries messages, and nothing else
	Log io.Writer

	// Credential is what the process calls with at the MCP endpoint of a server: see
	// mcpserver.Credential.
	Credential func(ctx context.Context, server, refused string) (token, key string, err error)
}

// Stdio serves one program over its streams, as the common endpoint would, until it
// closes them or ctx ends (R712). The database is that of a server, which may run or
// not (R713); the process is a guest there: it writes what its calls do and the
// events of them, and brings nothing of the configuration about. Servers behind it
// are its own connections and children.
func Stdio(ctx context.Context, c Config, s Streams) error {
	h, err := visit(ctx, c, s.Log)
	if err != nil {
		return err
	}
	stopLog := own(ctx, h.writeLog)
	stop := own(ctx, h.tokens.Run, h.servers.Run, h.attend, h.record, h.keepKey)
	for _, ignored := range c.Source.Ignored {
		h.log.Warn("a variable of the environment is ignored", "why", ignored)
	}
	server := h.config.PublicURL + "/mcp"
	h.log.Info("serving over stdio", "version", Version, "server", server)
	err = h.mcp.Pipe(ctx, s.In, s.Out, func(ctx context.Context, refused string) (token, key string, err error) {
		return s.Credential(ctx, server, refused)
	})
	stop()
	stopLog()
	return errors.Join(err, h.db.Close())
}

// visit makes the rooms of a guest. Where no server has been it makes nothing.
func visit(ctx context.Context, c Config, out io.Writer) (*house, error) {
	if c.PublicURL == "" {
		if _, port, _ := net.SplitHostPort(c.Listen); port == "0" {
			return nil, configInvalid.New("the configuration can't be used").
				WithWhy("public_url: the server listens at a port that nobody knows beforehand, so say at which address it is reached")
		}
		c.PublicURL = c.localAddress(c.Listen)
	}
	if path, lite := strings.CutPrefix(c.Database, "sqlite:"); lite {
		if _, err := os.Stat(path); err != nil {
			return nil, nothingServed.New("can't serve from %s", c.DataDir).Because(err)
		}
	}
	key, err := seal.LoadKey(c.MasterKeyFile, false)
	if err != nil {
		return nil, masterKeyUnusable.New("the master key %s can't be used", c.MasterKeyFile).WithWhy("%v", err).Because(err)
	}
	db, err := store.Open(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	if n, err := db.Migrations(ctx); err != nil || n == 0 {
		return nil, errors.Join(nothingServed.New("can't serve from an empty database").Because(err), db.Close())
	}
	return furnishWith(ctx, c, out, key, db, true)
}

// keepKey is the job that takes the master keys of the file when it has changed.
func (h *house) keepKey(ctx context.Context) {
	poll := time.NewTicker(certificatePause)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			h.followKey()
		}
	}
}
