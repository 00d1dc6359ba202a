package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/app"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var demoFailed = problem.Code{
	Name: "DEMO_FAILED", Kind: problem.Internal,
	Why: "the server did not behave as the demonstration expects",
	Fix: "start it by itself to see more: gatehouse serve --dev",
}

func (c *cli) demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a client registering, signing in and calling tools",
		Long: `Show what happens when a client meets a server it has never seen: it registers,
a person allows it, it gets a token and calls tools. Without --server a real
server is started for it on a temporary folder, in development mode, and thrown
away afterwards. With --server the browser opens and you decide.`,
		Example: "  gatehouse demo\n  gatehouse demo --server localhost:3000",
		Args:    needs(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context()) },
	}
	cmd.Flags().StringVar(&c.server, "server", "", "address of the MCP server (default: one that is started for it)")
	return cmd
}

func (c *cli) demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "gatehouse-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demonstration{c: c, open: client.OpenBrowser, server: c.server}
	if d.server == "" {
		stop, err := d.house(ctx, dir)
		if err != nil {
			return err
		}
		defer func() { _ = stop() }() // what it would say has nothing to do with the demonstration
	}
	if d.server, err = client.ServerURL(d.server); err != nil {
		return err
	}
	d.client = client.New(client.Options{Name: "Gatehouse demo", Version: app.Version, Credentials: filepath.Join(dir, "credentials.json")})
	return d.run(ctx)
}

// demonstration is the four steps of R805.
type demonstration struct {
	c      *cli
	client *client.Client
	server string
	open   func(string) error
}

// house starts a real server in development mode and points the demonstration
// to it. Its person needs no browser: development mode allows by itself.
func (d *demonstration) house(ctx context.Context, dir string) (stop func() error, err error) {
	config, err := app.Load(map[string]string{"config": "", "dev": "true", "listen": "localhost:0", "data-dir": filepath.Join(dir, "data")}, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	out := &lines{found: make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, config, out) }()
	stop = func() error { cancel(); return <-ended }
	select {
	case d.server = <-out.found:
		d.open = visit
		return stop, nil
	case err := <-ended:
		cancel()
		if err == nil {
			err = ctx.Err()
		}
		return nil, err
	}
}

// lines waits for the line in which the server says where it listens.
type lines struct {
	mu    sync.Mutex
	text  strings.Builder
	told  bool
	found chan string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told {
		return len(b), nil
	}
	l.text.Write(b)
	if _, rest, ok := strings.Cut(l.text.String(), "Listening on "); ok && strings.ContainsAny(rest, " \n") {
		l.told = true
		l.found <- strings.Fields(rest)[0]
	}
	return len(b), nil
}

// visit follows an address like a browser whose person agrees to everything.
func visit(address string) error {
	res, err := (&http.Client{Timeout: 20 * time.Second}).Get(address)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

func (d *demonstration) run(ctx context.Context) error {
	d.c.say("A client meets a server it has never seen: %s", d.server)
	if err := d.signIn(ctx); err != nil {
		return err
	}
	defer func() { _ = d.client.Logout(context.WithoutCancel(ctx), d.server) }() // the folder goes too
	d.c.say("4 Call tools")
	for _, step := range []func(context.Context) error{d.withoutToken, d.withToken} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.c.say("That was all of it: discovery, registration, PKCE, an audience-bound token, two tools.")
	return nil
}

// signIn are the first three steps.
func (d *demonstration) signIn(ctx context.Context) error {
	issuer := ""
	l, err := d.client.Login(ctx, d.server, client.LoginOptions{
		Open: d.open,
		Announce: func(url string) {
			if d.c.server != "" {
				d.c.announce(url)
			}
		},
		Step: func(name, about string) {
			switch name {
			case "discover":
				issuer = about
			case "register":
				d.c.say("1 Register    as client_id %s\n              with the issuer %s", oneLine(about), oneLine(issuer))
			case "authorize":
				d.c.say("2 Authorize   for %s\n              PKCE S256; state and issuer came back as they should", oneLine(about))
			}
		},
	})
	if err != nil {
		return err
	}
	d.c.say("3 Exchange    got token %s%s\n              for %s, to do %s", l.Token, until(l), oneLine(l.Resource), oneLine(l.Scope))
	return nil
}

func until(l client.Login) string {
	if l.Expires.IsZero() {
		return ""
	}
	return ", good until " + l.Expires.Format("15:04")
}

// withoutToken calls what anybody may, and what needs a token.
func (d *demonstration) withoutToken(ctx context.Context) error {
	s, err := d.client.Anonymous(d.server)
	if err != nil {
		return err
	}
	if err := d.shows(ctx, s, "without a token", "public_info", `{}`); err != nil {
		return err
	}
	_, err = s.Call(ctx, "echo", json.RawMessage(`{"message":"hello"}`), nil)
	if !errors.Is(err, client.ErrAuthentication) {
		return demoFailed.New("echo answered without a token").Because(err)
	}
	d.c.say("  %s echo without a token: refused, %s", d.c.paint(d.c.out, good), explained(err))
	return nil
}

func explained(err error) string {
	wire, _ := explain(err)
	return oneLine(wire.Why)
}

func (d *demonstration) withToken(ctx context.Context) error {
	s, err := d.client.Connect(ctx, d.server)
	if err != nil {
		return err
	}
	defer s.Close(ctx)
	return d.shows(ctx, s, "with the token", "echo", `{"message":"hello"}`)
}

// shows calls a tool and prints what it answers.
func (d *demonstration) shows(ctx context.Context, s *client.Session, how, tool, args string) error {
	res, err := s.Call(ctx, tool, json.RawMessage(args), nil)
	if err != nil {
		return err
	}
	d.c.say("  %s %s %s: %s", d.c.paint(d.c.out, good), tool, how, cut(oneLine(res.Text()), 160))
	return nil
}
