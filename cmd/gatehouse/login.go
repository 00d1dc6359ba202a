package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var needsPerson = problem.Code{
	Name: "SIGN_IN_NEEDS_A_PERSON", Kind: problem.Unauthenticated,
	Why: "nobody is at this terminal to open the page",
	Fix: "run it in a terminal, say --device or --no-browser to be shown an address and wait, or set GATEHOUSE_TOKEN",
}

func (c *cli) loginCommand() *cobra.Command {
	var noBrowser, device, asApp bool
	var secretFile, keyFile, keyID string
	var o client.LoginOptions
	cmd := &cobra.Command{
		Use:   "login [SERVER]",
		Short: "Sign in to an MCP server",
		Long: `Sign in to an MCP server that is protected by OAuth, a Gatehouse or any other.
A browser opens; the page that it comes back to is on this computer. Over SSH,
or where there is no screen, an address and a code are shown instead: open the
address on any device and type the code there.

With --as-app nobody is asked: the program signs in for itself, as an app that
was registered there by hand, with its secret or its key from a file. The token
is not renewed by itself then; sign in again when it has run out.`,
		Example: `  gatehouse login localhost:3000
  gatehouse login https://mcp.vendor.example/mcp
  gatehouse login gw.example.org --scope "mcp:read"
  gatehouse login gw.example.org --device
  gatehouse login gw.example.org --as-app --client-id ID --private-key-file KEY`,
		Args: needs(0, 1, "the address of an MCP server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, server, err := c.named(args)
			if err != nil {
				return err
			}
			app, err := readApp(o.ClientID, secretFile, keyFile, keyID)
			if err != nil {
				return err
			}
			o.ClientSecret, app.Issuer = app.Secret, o.ClientIssuer
			if asApp {
				if app.Secret == "" && app.Key == nil {
					return usage.New("can't tell who signs in").WithWhy("an app proves itself with a secret or a key").WithFix("add --client-id ID and --private-key-file FILE or --client-secret-file FILE")
				}
				l, err := cl.LoginAsApp(cmd.Context(), server, app, client.Demand{Scope: o.Scope})
				if err != nil {
					return err
				}
				return c.signedIn(cmd.Context(), cl, l)
			}
			if app.Key != nil {
				return usage.New("a key is for an app that signs in for itself").WithFix("add --as-app")
			}
			if !noBrowser && !device && !isTerminal(c.err) {
				return needsPerson.New("can't sign in to %s", server)
			}
			if device || !noBrowser && !c.hasScreen() {
				code := o
				if !cmd.Flags().Changed("timeout") {
					code.Timeout = 0 // as long as the code is good
				}
				err := c.loginDevice(cmd.Context(), cl, server, code)
				if device || !errors.Is(err, client.ErrNoDevice) {
					return err
				}
				noBrowser = true // the address can still be carried to one
			}
			o.Announce = c.announce
			if !noBrowser {
				o.Open = client.OpenBrowser
			}
			l, err := cl.Login(cmd.Context(), server, o)
			if err != nil {
				return err
			}
			return c.signedIn(cmd.Context(), cl, l)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&noBrowser, "no-browser", false, "only print the address to open")
	f.BoolVar(&device, "device", false, "show a code to type on another device")
	f.StringVar(&o.Scope, "scope", "", "what to ask for, space separated (default: what the server suggests)")
	f.StringVar(&o.ClientID, "client-id", "", "id of an app registered there by hand")
	f.StringVar(&o.ClientIssuer, "client-issuer", "", "address of the issuer that it is registered with; its secret goes to no other")
	f.StringVar(&secretFile, "client-secret-file", "", "file with the secret of that app")
	f.StringVar(&keyFile, "private-key-file", "", "file with its private key (PEM), with --as-app")
	f.StringVar(&keyID, "key-id", "", "name of that key at the server, if it has several")
	f.BoolVar(&asApp, "as-app", false, "sign in as the app itself, for no person")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Minute, "how long to wait for the browser")
	return cmd
}

// named is the server in the arguments, or without one the target, and a client
// for it.
func (c *cli) named(args []string) (*client.Client, string, error) {
	if len(args) > 0 {
		c.server = args[0]
	}
	cl := c.client()
	server, err := c.target(cl)
	return cl, server, err
}

// announce prints the address in full, whether or not a browser opens.
func (c *cli) announce(url string) {
	c.talk("Open this address in your browser, unless it has opened by itself:\n  %s\nWaiting (Ctrl+C stops) …", url)
}

// readApp reads what an app proves itself with.
func readApp(id, secretFile, keyFile, keyID string) (client.App, error) {
	a := client.App{ID: id, KeyID: keyID}
	if (secretFile != "" || keyFile != "") && id == "" {
		return a, usage.New("which app is it?").WithWhy("a secret or key belongs to an app").WithFix("add --client-id ID")
	}
	if secretFile != "" {
		text, err := os.ReadFile(secretFile)
		if err != nil {
			return a, fileUnusable.New("can't read %s", secretFile).WithWhy("%v", cause(err)).Because(err)
		}
		if a.Secret = strings.TrimSpace(string(text)); a.Secret == "" {
			return a, fileUnusable.New("can't read %s", secretFile).WithWhy("it is empty")
		}
	}
	if keyFile == "" {
		return a, nil
	}
	text, err := os.ReadFile(keyFile)
	if err == nil {
		a.Key, err = parseKey(text)
	}
	if err != nil {
		return a, fileUnusable.New("can't read %s", keyFile).WithWhy("%v", cause(err)).Because(err)
	}
	return a, nil
}

// parseKey reads a private key in any of the forms that openssl writes.
func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no PEM file")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("it is no private key, or one with a passphrase")
	}
	return signer, nil
}

// signedIn says what a sign-in has brought.
func (c *cli) signedIn(ctx context.Context, cl *client.Client, l client.Login) error {
	if c.json() {
		return c.print(l)
	}
	if me, err := c.person(ctx, cl, l.Server); err == nil && me.name() != "" {
		c.done("Signed in to %s as %s", l.Server, me.name())
	} else {
		c.done("Signed in to %s", l.Server)
	}
	if l.Scope != "" {
		c.talk("  may     %s", oneLine(l.Scope))
	}
	if !l.Expires.IsZero() {
		c.talk("  until   %s%s", l.Expires.Format("2 Jan 2006 15:04"), renewal(l))
	}
	c.talk("  kept in %s", client.DefaultCredentials())
	c.talk("Next: gatehouse tools")
	return nil
}

func renewal(l client.Login) string {
	if l.Renews {
		return ", then renewed by itself"
	}
	return ""
}

// person is what the tool whoami of a Gatehouse answers.
type person struct {
	User  string `json:"user"`
	Email string `json:"email"`
	Rank  string `json:"rank"`
}

func (p person) name() string {
	if p.Email != "" {
		return oneLine(p.Email)
	}
	return oneLine(p.User)
}

// person asks a Gatehouse who we are. Other servers have no such tool.
func (c *cli) person(ctx context.Context, cl *client.Client, server string) (person, error) {
	var p person
	s, err := cl.Connect(ctx, server)
	if err != nil {
		return p, err
	}
	defer s.Close(ctx)
	if s.Info().Name != "gatehouse" {
		return p, nil
	}
	res, err := s.Call(ctx, "whoami", nil, nil)
	if errors.Is(err, client.ErrTool) { // an endpoint without it
		return p, nil
	}
	if err != nil {
		return p, err
	}
	_ = json.Unmarshal(res.Structured, &p) // without it we know no name
	return p, nil
}

func (c *cli) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "logout [SERVER]",
		Short:   "Sign out: revoke the tokens and forget them",
		Example: "  gatehouse logout localhost:3000",
		Args:    needs(0, 1, "the address of an MCP server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, server, err := c.named(args)
			if err != nil {
				return err
			}
			err = cl.Logout(cmd.Context(), server)
			if err != nil && !errors.Is(err, client.ErrUnreachable) {
				return err
			}
			if err != nil {
				c.talk("%s The tokens are forgotten here, but %s could not be told to revoke them", c.paint(c.err, caution), server)
				return err
			}
			if c.json() {
				return c.print(map[string]string{"signed_out": server})
			}
			c.done("Signed out of %s", server)
			return nil
		},
	}
}

func (c *cli) whoamiCommand() *cobra.Command {
	return c.asClient(&cobra.Command{
		Use:     "whoami",
		Short:   "Say who you are to a server, and what the token may do",
		Example: "  gatehouse whoami\n  gatehouse whoami --server gw.example.org -o json",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl := c.client()
			server, err := c.target(cl)
			if err != nil {
				return err
			}
			me, err := c.person(cmd.Context(), cl, server)
			if err != nil {
				return err
			}
			return c.showMe(cl, server, me)
		},
	})
}

// showMe says what is known here and what the server said.
func (c *cli) showMe(cl *client.Client, server string, me person) error {
	logins, err := cl.Logins()
	if err != nil {
		return err
	}
	l := client.Login{Server: server, Token: "none: it answers without one"}
	if c.getenv("GATEHOUSE_TOKEN") != "" {
		l.Token = "from GATEHOUSE_TOKEN"
	}
	for _, known := range logins {
		if known.Server == server && c.getenv("GATEHOUSE_TOKEN") == "" {
			l = known
		}
	}
	if c.json() {
		return c.print(struct {
			client.Login
			User  string `json:"user,omitempty"`
			Email string `json:"email,omitempty"`
			Rank  string `json:"rank,omitempty"`
		}{l, me.User, me.Email, me.Rank})
	}
	expires := ""
	if !l.Expires.IsZero() {
		expires = l.Expires.Format("2 Jan 2006 15:04") + renewal(l)
	}
	for _, line := range [...]struct{ name, value string }{
		{"server", l.Server}, {"user", strings.TrimSpace(me.name() + " " + oneLine(me.Rank))}, {"may", oneLine(l.Scope)},
		{"issuer", oneLine(l.Issuer)}, {"client", oneLine(l.ClientID)}, {"token", l.Token}, {"until", expires},
	} {
		if line.value != "" {
			c.say("%-8s %s", line.name, line.value)
		}
	}
	return nil
}
