package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/gatehouse-mcp/gatehouse/client"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var signInDeclined = problem.Code{
	Name: "SIGN_IN_DECLINED", Kind: problem.Unauthenticated,
	Why: "you did not want to sign in now",
}

// interactive reports whether somebody can be asked.
func (c *cli) interactive() bool {
	in, ok := c.in.(*os.File)
	return ok && term.IsTerminal(int(in.Fd())) && isTerminal(c.err)
}

// line asks for one line. Whoever gives up waiting leaves the question open.
func (c *cli) line(ctx context.Context, question string) (string, error) {
	_, _ = io.WriteString(c.err, question+" ")
	if c.lines == nil {
		c.lines = bufio.NewReader(c.in)
	}
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := c.lines.ReadString('\n')
		got <- answer{strings.TrimSpace(text), err}
	}()
	select {
	case a := <-got:
		if errors.Is(a.err, io.EOF) && a.text != "" {
			a.err = nil
		}
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// confirm asks for yes or no; Enter alone is what is preset.
func (c *cli) confirm(ctx context.Context, question string, preset bool) (bool, error) {
	choice := " [y/N]"
	if preset {
		choice = " [Y/n]"
	}
	text, err := c.line(ctx, question+choice)
	switch strings.ToLower(text) {
	case "y", "yes":
		return true, err
	case "":
		return preset && err == nil, err
	}
	return false, err
}

// signIn is what happens when a server demands a sign-in in the middle of a
// command: the person is asked, and the command goes on (R906).
func (c *cli) signIn(ctx context.Context, cl *client.Client, d client.Demand) error {
	c.talk("%s wants you to sign in", d.Server)
	if d.Scope != "" {
		c.talk("  for %s", oneLine(d.Scope))
	}
	yes, err := c.confirm(ctx, "Sign in now?", true)
	if err != nil {
		return err
	}
	if !yes {
		return signInDeclined.New("not signed in to %s", d.Server).WithFix("gatehouse login %s", d.Server)
	}
	o := client.LoginOptions{Announce: c.announce, Open: client.OpenBrowser, Demand: d}
	if !c.hasScreen() {
		if _, err = cl.LoginDevice(ctx, d.Server, o, c.showCode); !errors.Is(err, client.ErrNoDevice) {
			return err
		}
		o.Open = nil // the address can still be carried to a browser
	}
	_, err = cl.Login(ctx, d.Server, o)
	return err
}

// answer puts a question of a server to the person. Whose it is stands first, since
// the rest are the server's words.
func (c *cli) answer(ctx context.Context, q client.Question) (client.Reply, error) {
	c.talk("%s asks:", q.Server)
	c.talk("  %s", oneLine(q.Message))
	if q.URL != "" {
		return c.askForPage(ctx, q)
	}
	var form schema
	if err := json.Unmarshal(q.Schema, &form); err != nil {
		return client.Reply{}, err
	}
	yes, err := c.confirm(ctx, "Answer?", true)
	if err != nil {
		return client.Reply{}, err
	}
	if !yes {
		return client.Reply{Action: client.Decline}, nil
	}
	content := map[string]any{}
	for _, name := range form.order() {
		value, err := c.field(ctx, name, form.Properties[name], form.requires(name))
		if err != nil {
			return client.Reply{}, err
		}
		if value != nil {
			content[name] = value
		}
	}
	return client.Reply{Action: client.Accept, Content: content}, nil
}

// field asks for one member of an answer until it fits; nil leaves it as it is.
func (c *cli) field(ctx context.Context, name string, p property, required bool) (json.RawMessage, error) {
	hint := p.typeName()
	if len(p.Enum) > 0 {
		hint = strings.Join(p.Enum, "|")
	}
	if p.Default != nil {
		hint += " = " + string(p.Default)
	}
	if p.Description != "" {
		c.talk("  %s", oneLine(p.Description))
	}
	for {
		text, err := c.line(ctx, "  "+oneLine(name+" ("+hint+"):"))
		if err != nil {
			return nil, err
		}
		if text == "" && (p.Default != nil || !required) {
			return nil, nil
		}
		if value, ok := p.parse(text, false); ok && text != "" && p.offers(text) {
			return value, nil
		}
		c.talk("  %s that is not %s", c.paint(c.err, caution), oneLine(hint))
	}
}

// askForPage shows where a page is before it is opened.
func (c *cli) askForPage(ctx context.Context, q client.Question) (client.Reply, error) {
	host := ""
	if u, err := url.Parse(q.URL); err == nil {
		host = u.Host
	}
	c.talk("  it is a page of %s:\n  %s", oneLine(host), oneLine(q.URL))
	yes, err := c.confirm(ctx, "Open it?", false)
	if err != nil {
		return client.Reply{}, err
	}
	if !yes {
		return client.Reply{Action: client.Decline}, nil
	}
	_ = client.OpenBrowser(q.URL) // the person has the address
	return client.Reply{Action: client.Accept}, nil
}
