package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
)

// TestMain lets the test program be its own MCP server: a child that is told so
// serves over stdio instead of testing.
func TestMain(m *testing.M) {
	if os.Getenv("GATEHOUSE_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	if err := echoServer().Run(context.Background(), &sdk.StdioTransport{}); err != nil {
		os.Exit(1)
	}
}

// echoServer is the server of the Go SDK with one tool.
func echoServer() *sdk.Server {
	server := sdk.NewServer(&sdk.Implementation{Name: "stranger", Version: "1"}, nil)
	type in struct {
		Message string `json:"message"`
	}
	sdk.AddTool(server, &sdk.Tool{Name: "echo", Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true}},
		func(_ context.Context, _ *sdk.CallToolRequest, in in) (*sdk.CallToolResult, any, error) {
			return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "Echo: " + in.Message}}}, nil, nil
		})
	return server
}

// strangers puts the SDK's server behind the house twice, as a child and over
// HTTP. The count is of bearers that reached the one over HTTP.
func strangers(t *testing.T, h *apptest.House) *atomic.Int64 {
	t.Helper()
	bearers := new(atomic.Int64)
	mcp := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return echoServer() }, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			bearers.Add(1)
		}
		mcp.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	for name, spec := range map[string]map[string]any{
		"child": {"command": []string{os.Args[0]}, "env": map[string]string{"GATEHOUSE_TEST_CHILD": "1"}},
		"web":   {"url": server.URL},
	} {
		spec["name"] = name
		args, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		if a := h.Admin("add_server", string(args)); a.StatusCode != http.StatusOK {
			t.Fatalf("%s was not added: %d %s", name, a.StatusCode, a.Text)
		}
	}
	return bearers
}

// The Go SDK's client starts with nothing but an address: it is challenged,
// discovers, registers, sends its person to authorize, redeems and calls; in
// development mode and with a person who signs in and allows it; the issuer at the
// same host and at another one (R114).
func TestStrangersClientSignsInAndCalls(t *testing.T) {
	approved := func(h *apptest.House) authorizes {
		return func(address string) *url.URL {
			location, err := h.Get(strings.TrimPrefix(address, h.URL)).Location()
			if err != nil {
				t.Fatal(err)
			}
			return location
		}
	}
	allowed := func(h *apptest.House) authorizes {
		b := h.Browser()
		b.SetUp()
		return func(address string) *url.URL {
			form := apptest.Fields(b.Open(address).Text)
			form.Set("decision", "allow")
			form.Set("started", "yes")
			return apptest.Target(b.Submit("/consent", form).Text)
		}
	}
	for name, tt := range map[string]struct {
		person func(*apptest.House) authorizes
		start  func(*testing.T) (public, issuer *apptest.House)
	}{
		"development":          {approved, func(t *testing.T) (_, _ *apptest.House) { h := apptest.Start(t, apptest.Dev); return h, h }},
		"person":               {allowed, func(t *testing.T) (_, _ *apptest.House) { h := apptest.Start(t); return h, h }},
		"person, issuer apart": {allowed, func(t *testing.T) (_, _ *apptest.House) { return apart(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, issuer := tt.start(t)
			person, bearers := tt.person(issuer), strangers(t, h)
			for path, tool := range map[string]string{"/mcp": "child_echo", "/s/child/mcp": "echo", "/s/web/mcp": "echo"} {
				signInAndCall(t, h.URL+path, tool, person)
			}
			if n := bearers.Load(); n != 0 {
				t.Errorf("%d requests brought a bearer to the server behind", n)
			}
		})
	}
}

// authorizes is a person with a browser, who is sent to an address and comes
// back with the answer.
type authorizes func(address string) *url.URL

func signInAndCall(t *testing.T, endpoint, tool string, person authorizes) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	asked := 0
	oauth, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: "Stranger", RedirectURIs: []string{"http://localhost:3142/callback"}, GrantTypes: []string{"authorization_code", "refresh_token"},
		}},
		RequestRefreshToken: true,
		AuthorizationCodeFetcher: func(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			asked++
			back := person(args.URL)
			if back == nil || back.Host != "localhost:3142" {
				return nil, fmt.Errorf("the person came back with %v", back)
			}
			q := back.Query()
			return &auth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	client := sdk.NewClient(&sdk.Implementation{Name: "stranger", Version: "1"}, nil)
	session, err := client.Connect(ctx, &sdk.StreamableClientTransport{Endpoint: endpoint, OAuthHandler: oauth}, nil)
	if err != nil {
		t.Fatalf("%s: %v", endpoint, err)
	}
	result, err := session.CallTool(ctx, &sdk.CallToolParams{Name: tool, Arguments: map[string]any{"message": "hi"}})
	if err != nil || result.IsError || result.Content[0].(*sdk.TextContent).Text != "Echo: hi" {
		t.Errorf("%s: %+v, %v", endpoint, result, err)
	}
	if err := session.Close(); err != nil {
		t.Errorf("%s: %v", endpoint, err)
	}
	if asked != 1 {
		t.Errorf("%s: the person was asked %d times", endpoint, asked)
	}
}
