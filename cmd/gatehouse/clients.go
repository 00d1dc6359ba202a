package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// knownClient is one OAuth client of the list.
type knownClient struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Kind         string          `json:"kind"`
	State        string          `json:"state"`
	Reason       string          `json:"reason,omitempty"`
	Domain       string          `json:"domain,omitempty"`
	Redirects    []string        `json:"redirect_uris"`
	Confidential bool            `json:"confidential"`
	People       int             `json:"people"`
	Live         int             `json:"signed_in"`
	Used         time.Time       `json:"last_used,omitzero"`
	Created      time.Time       `json:"created_at"`
	From         string          `json:"created_from,omitempty"`
	Fetched      time.Time       `json:"fetched_at,omitzero"`
	Metadata     json.RawMessage `json:"metadata,omitempty"`
	Changed      time.Time       `json:"changed_at,omitzero"`
	Changes      []clientChange  `json:"changes,omitempty"`
}

// clientChange is one member of what a client says of itself that is another now.
type clientChange struct {
	Member  string   `json:"member"`
	Removed []string `json:"removed,omitempty"`
	Added   []string `json:"added,omitempty"`
}

// clientSecret is what is shown once.
type clientSecret struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Secret string `json:"client_secret,omitempty"`
}

func (c *cli) clientsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clients",
		Short: "See, add, approve and block the apps that may ask people",
		Long: `See the OAuth clients of this server, and decide about them. One that nobody
decided about is unverified: it may ask people, who see that nobody vouches for
it. An approved one is shown as such; a blocked one may do nothing.`,
		Example: "  gatehouse clients ls\n  gatehouse clients add Wiki --redirect https://wiki.example.org/cb --secret\n  gatehouse clients approve ID\n  gatehouse clients block ID --reason \"see ticket 12\"",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(
		c.clientsListCommand(), c.clientsShowCommand(), c.clientsAddCommand(), c.clientsSecretCommand(), c.clientsBlockCommand(), c.clientsTokenCommand(),
		c.clientsDecideCommand("approve", "approve_client", "Vouch for a client", "Approved %s. People see that it is approved."),
		c.clientsDecideCommand("unblock", "unblock_client", "Let a blocked client ask again", "%s may ask people again. Nobody vouches for it."),
		c.clientsDecideCommand("remove", "remove_client", "Forget a client, with everything it was given", "Removed %s."),
	)
	return cmd
}

func (c *cli) clientsListCommand() *cobra.Command {
	var state string
	cmd := c.onServer(&cobra.Command{
		Use:     "ls",
		Short:   "List the clients, the newest first",
		Example: "  gatehouse clients ls\n  gatehouse clients ls --state approved\n  gatehouse clients ls -o json",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []knownClient{}
			for after, more := "", true; more; {
				var out struct {
					Clients []knownClient `json:"clients"`
					Next    string        `json:"next"`
				}
				if err := c.ask(cmd.Context(), "list_clients", map[string]any{"state": state, "after": after, "limit": 500}, &out); err != nil {
					return err
				}
				all = append(all, out.Clients...)
				after, more = out.Next, out.Next != ""
			}
			if c.json() {
				return c.print(map[string]any{"clients": all})
			}
			c.showClients(all)
			return nil
		},
	})
	cmd.Flags().StringVar(&state, "state", "", "only those that are approved, unverified or blocked")
	return cmd
}

func (c *cli) showClients(clients []knownClient) {
	if len(clients) == 0 {
		c.talk("No client. One comes when an app registers, or with gatehouse clients add.")
		return
	}
	rows := [][]string{{"NAME", "STATE", "KIND", "SENDS ACCESS TO", "PEOPLE", "LAST USED", "CREATED", "ID"}}
	for _, k := range clients {
		kind := k.Kind
		if k.Domain != "" {
			kind += " at " + k.Domain
		}
		rows = append(rows, []string{k.Name, k.State, kind, strings.Join(places(k.Redirects), " "), fmt.Sprint(k.People), seen(k.Used), k.Created.Local().Format(time.DateOnly), k.ID})
	}
	c.table("", rows)
}

// places are redirect URIs without what is after their host, each once.
func places(redirects []string) (all []string) {
	for _, uri := range redirects {
		scheme, rest, _ := strings.Cut(uri, "://")
		host, _, _ := strings.Cut(rest, "/")
		if scheme != "https" {
			host = scheme + "://" + host
		}
		if !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all
}

func (c *cli) clientsShowCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "show ID",
		Short:   "Show all that is known of a client",
		Example: "  gatehouse clients show ID",
		Args:    needs(1, 1, "the id of a client"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var k knownClient
			if err := c.ask(cmd.Context(), "show_client", map[string]string{"id": args[0]}, &k); err != nil {
				return err
			}
			if c.json() {
				return c.print(k)
			}
			c.table("", clientLines(k))
			return nil
		},
	})
}

func clientLines(k knownClient) [][]string {
	rows := [][]string{{"name", k.Name}, {"id", k.ID}, {"state", k.State}}
	if k.Reason != "" {
		rows = append(rows, []string{"why", k.Reason})
	}
	rows = append(rows, []string{"kind", k.Kind})
	if k.Domain != "" {
		rows = append(rows, []string{"described at", k.Domain + ", fetched " + seen(k.Fetched)})
	}
	secret := "none"
	if k.Confidential {
		secret = "yes"
	}
	rows = append(rows, []string{"secret", secret})
	for _, uri := range k.Redirects {
		rows = append(rows, []string{"sends access to", uri})
	}
	rows = append(rows, []string{"people", fmt.Sprint(k.People)}, []string{"signed in", fmt.Sprint(k.Live)}, []string{"last used", seen(k.Used)}, []string{"created", k.Created.Local().Format(time.DateTime)})
	if k.From != "" {
		rows = append(rows, []string{"from", k.From})
	}
	rows = append(rows, []string{"registered", string(k.Metadata)})
	if len(k.Changes) == 0 {
		return rows
	}
	since := ""
	if k.State == "approved" {
		since = ", compared with when it was approved"
	}
	rows = append(rows, []string{"changed", seen(k.Changed) + since})
	for _, c := range k.Changes {
		for _, text := range c.Removed {
			rows = append(rows, []string{"- " + c.Member, text})
		}
		for _, text := range c.Added {
			rows = append(rows, []string{"+ " + c.Member, text})
		}
	}
	return rows
}

func (c *cli) clientsAddCommand() *cobra.Command {
	var redirects []string
	var id string
	var secret, bound, pushed bool
	cmd := c.onServer(&cobra.Command{
		Use:   "add NAME --redirect URI",
		Short: "Add a client that is approved from the start",
		Long: `Add an OAuth client for an app that does not register itself. With --secret it
gets a secret, which is shown once; without, it authenticates with nothing, as
apps on people's computers do.`,
		Example: "  gatehouse clients add Wiki --redirect https://wiki.example.org/cb --secret\n  gatehouse clients add Editor --id editor --redirect http://127.0.0.1/cb",
		Args:    needs(1, 1, "the name of the client"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out clientSecret
			in := map[string]any{"name": args[0], "redirect_uris": redirects, "id": id, "secret": secret, "dpop_bound_access_tokens": bound, "require_pushed_authorization_requests": pushed}
			if err := c.ask(cmd.Context(), "add_client", in, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Added %q.", oneLine(out.Name))
			c.secret(out)
			return nil
		},
	})
	cmd.Flags().StringArrayVar(&redirects, "redirect", nil, "address that people are sent back to; as often as there are some")
	cmd.Flags().StringVar(&id, "id", "", "client id (default: a random one)")
	cmd.Flags().BoolVar(&secret, "secret", false, "make a secret with which it authenticates")
	cmd.Flags().BoolVar(&bound, "dpop-bound", false, "give it no token without a proof that it has a key (DPoP)")
	cmd.Flags().BoolVar(&pushed, "pushed-only", false, "let it begin with a pushed request only (RFC 9126)")
	return cmd
}

// secret prints what the client is configured with.
func (c *cli) secret(s clientSecret) {
	c.say("client id      %s", s.ID)
	if s.Secret != "" {
		c.say("client secret  %s", s.Secret)
		c.talk("The secret is shown this once.")
	}
}

func (c *cli) clientsSecretCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "secret ID",
		Short:   "Give a client a new secret; the old one stops working",
		Example: "  gatehouse clients secret ID",
		Args:    needs(1, 1, "the id of a client"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out clientSecret
			if err := c.ask(cmd.Context(), "rotate_client_secret", map[string]string{"id": args[0]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.secret(out)
			return nil
		},
	})
}

func (c *cli) clientsBlockCommand() *cobra.Command {
	var reason string
	cmd := c.onServer(&cobra.Command{
		Use:   "block ID",
		Short: "Refuse a client everywhere, and end what it was allowed",
		Long: `Refuse a client everywhere: its tokens stop working on every node at once, and
people who are sent here by it see that it is blocked, with the reason.`,
		Example: "  gatehouse clients block ID --reason \"see ticket 12\"",
		Args:    needs(1, 1, "the id of a client"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var k knownClient
			if err := c.ask(cmd.Context(), "block_client", map[string]string{"id": args[0], "reason": reason}, &k); err != nil {
				return err
			}
			if c.json() {
				return c.print(k)
			}
			c.done("Blocked %q. What it was allowed has ended.", oneLine(k.Name))
			return nil
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "shown to people who try to use it")
	return cmd
}

// clientsDecideCommand is a command that takes an id and calls a tool with it.
func (c *cli) clientsDecideCommand(verb, tool, short, done string) *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     verb + " ID",
		Short:   short,
		Example: "  gatehouse clients " + verb + " ID",
		Args:    needs(1, 1, "the id of a client"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var k knownClient
			if err := c.ask(cmd.Context(), tool, map[string]string{"id": args[0]}, &k); err != nil {
				return err
			}
			if c.json() {
				return c.print(k)
			}
			c.done(done, fmt.Sprintf("%q", oneLine(k.Name)))
			return nil
		},
	})
}

// admission is a token with which clients may register.
type admission struct {
	ID      string    `json:"id"`
	Token   string    `json:"token,omitempty"`
	Note    string    `json:"note,omitempty"`
	By      string    `json:"created_by"`
	Created time.Time `json:"created_at"`
	Ends    time.Time `json:"expires_at"`
	Revoked time.Time `json:"revoked_at,omitzero"`
	Uses    int       `json:"uses"`
	Used    time.Time `json:"used_at,omitzero"`
}

func (c *cli) clientsTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Tokens with which apps may register themselves",
		Long: `Tokens with which apps may register themselves, where the setting registration
is token. One is good for any number of apps until it ends.`,
		Example: "  gatehouse clients token add --note build --days 7\n  gatehouse clients token ls\n  gatehouse clients token revoke ID",
		Args:    cobra.ArbitraryArgs,
		RunE:    unknownCommand,
	}
	cmd.AddCommand(c.tokenAddCommand(), c.tokenListCommand(), c.tokenRevokeCommand())
	return cmd
}

func (c *cli) tokenAddCommand() *cobra.Command {
	var note string
	var days int
	cmd := c.onServer(&cobra.Command{
		Use:     "add",
		Short:   "Make a registration token",
		Example: "  gatehouse clients token add --note build --days 7",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out admission
			if err := c.ask(cmd.Context(), "make_registration_token", map[string]any{"note": note, "days": days}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.say("%s", out.Token)
			c.talk("It is shown this once, and good until %s. Revoke it: gatehouse clients token revoke %s", out.Ends.Local().Format(time.DateOnly), out.ID)
			return nil
		},
	})
	cmd.Flags().StringVar(&note, "note", "", "what it is for")
	cmd.Flags().IntVar(&days, "days", 30, "how long it is good")
	return cmd
}

func (c *cli) tokenListCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "ls",
		Short:   "List the registration tokens",
		Example: "  gatehouse clients token ls",
		Args:    needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Tokens []admission `json:"tokens"`
			}
			if err := c.ask(cmd.Context(), "list_registration_tokens", struct{}{}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			rows := [][]string{{"NOTE", "GOOD UNTIL", "USED FOR", "LAST", "MADE BY", "ID"}}
			for _, t := range out.Tokens {
				until := t.Ends.Local().Format(time.DateOnly)
				if !t.Revoked.IsZero() {
					until = "revoked"
				}
				rows = append(rows, []string{t.Note, until, plural(t.Uses, "client"), seen(t.Used), t.By, t.ID})
			}
			if len(rows) == 1 {
				c.talk("No registration token. Make one: gatehouse clients token add")
				return nil
			}
			c.table("", rows)
			return nil
		},
	})
}

func (c *cli) tokenRevokeCommand() *cobra.Command {
	return c.onServer(&cobra.Command{
		Use:     "revoke ID",
		Short:   "Refuse registrations with a token from now on",
		Example: "  gatehouse clients token revoke ID",
		Args:    needs(1, 1, "the id of a registration token"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out map[string]any
			if err := c.ask(cmd.Context(), "revoke_registration_token", map[string]string{"id": args[0]}, &out); err != nil {
				return err
			}
			if c.json() {
				return c.print(out)
			}
			c.done("Revoked. What registered with it stays.")
			return nil
		},
	})
}
