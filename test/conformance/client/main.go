// Command client is what the MCP conformance suite runs to judge package client.
// The suite names the scenario in the environment and gives the address of its
// server as the last argument; all that happens is done by the library.
package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/gatehouse-mcp/gatehouse/client"
)

// told is what the suite gives a scenario (MCP_CONFORMANCE_CONTEXT).
type told struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	PrivateKey   string `json:"private_key_pem"`
	IDPIssuer    string `json:"idp_issuer"`
	IDPClientID  string `json:"idp_client_id"`
	IDToken      string `json:"idp_id_token"`
	WorkloadJWT  string `json:"valid_jwt"`
	ToolCalls    []struct {
		Name string          `json:"name"`
		Args json.RawMessage `json:"arguments"`
	} `json:"toolCalls"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var about told
	if text := os.Getenv("MCP_CONFORMANCE_CONTEXT"); text != "" {
		if err := json.Unmarshal([]byte(text), &about); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp("", "conformance-client-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	scenario := os.Getenv("MCP_CONFORMANCE_SCENARIO")
	c := client.New(client.Options{
		Name: "conformance", Version: "1.0.0", Credentials: filepath.Join(tmp, "credentials.json"),
		Document: "https://conformance-test.local/client-metadata.json",
		SignIn:   about.signIn(scenario),
		Ask: func(context.Context, client.Question) (client.Reply, error) {
			return client.Reply{Action: client.Accept, Content: answers[scenario]}, nil
		},
	})
	ctx := context.Background()
	s, err := c.Connect(ctx, os.Args[len(os.Args)-1])
	if err != nil {
		return err
	}
	defer s.Close(ctx)
	return use(ctx, s, scenario, about)
}

// answers are what the person says who is asked; the defaults if nothing is here.
var answers = map[string]map[string]any{"sep-2322-client-request-state": {"confirmed": true}}

// signIn is the way in that a scenario is about.
func (t told) signIn(scenario string) func(context.Context, *client.Client, client.Demand) error {
	app := client.App{ID: t.ClientID, Secret: t.ClientSecret}
	return func(ctx context.Context, c *client.Client, d client.Demand) (err error) {
		switch scenario {
		case "auth/client-credentials-basic", "auth/client-credentials-jwt":
			if app.Key, err = t.key(); err == nil {
				_, err = c.LoginAsApp(ctx, d.Server, app, d)
			}
		case "auth/enterprise-managed-authorization":
			_, err = c.LoginByEnterprise(ctx, d.Server, app, client.Enterprise{
				Issuer: t.IDPIssuer, App: client.App{ID: t.IDPClientID}, SubjectToken: t.IDToken,
			}, d)
		case "auth/wif-jwt-bearer":
			_, err = c.LoginByAssertion(ctx, d.Server, app, t.WorkloadJWT, d)
		default:
			_, err = c.Login(ctx, d.Server, client.LoginOptions{Open: browse, ClientID: t.ClientID, ClientSecret: t.ClientSecret, Demand: d})
		}
		return err
	}
}

func (t told) key() (crypto.Signer, error) {
	if t.PrivateKey == "" {
		return nil, nil
	}
	block, _ := pem.Decode([]byte(t.PrivateKey))
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return key.(crypto.Signer), nil
}

// browse is a browser whose person agrees to everything.
func browse(url string) error {
	res, err := http.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// use does what a scenario wants to see. Refused calls are no failure of the
// program: the suite judges what was sent.
func use(ctx context.Context, s *client.Session, scenario string, about told) error {
	call := func(tool, args string) {
		if _, err := s.Call(ctx, tool, json.RawMessage(args), nil); err != nil {
			fmt.Fprintln(os.Stderr, tool+":", err)
		}
	}
	tools, err := s.Tools(ctx)
	if err != nil {
		return err
	}
	switch scenario {
	case "tools_call":
		call("add_numbers", `{"a":5,"b":3}`)
	case "sep-2322-client-request-state":
		for _, tool := range tools {
			call(tool.Name, `{}`)
		}
	case "http-custom-headers":
		for _, c := range about.ToolCalls {
			call(c.Name, string(c.Args))
		}
	case "http-invalid-tool-headers":
		for _, tool := range tools {
			call(tool.Name, `{"region":"us-west1"}`)
		}
	case "json-schema-2020-12-preservation":
		for _, tool := range tools {
			if tool.Name == "json_schema_2020_12_tool" {
				call("json_schema_echo", `{"schema":`+string(tool.InputSchema)+`}`)
			}
		}
	case "http-standard-headers":
		call(tools[0].Name, `{}`)
		return readAndPrompt(ctx, s)
	default:
		for _, tool := range tools {
			call(tool.Name, `{}`)
		}
	}
	return nil
}

func readAndPrompt(ctx context.Context, s *client.Session) error {
	resources, err := s.Resources(ctx)
	if err != nil || len(resources) == 0 {
		return err
	}
	if _, err := s.Read(ctx, resources[0].URI); err != nil {
		return err
	}
	prompts, err := s.Prompts(ctx)
	if err != nil || len(prompts) == 0 {
		return err
	}
	_, err = s.Prompt(ctx, prompts[0].Name, nil)
	return err
}
