// Package kb is an MCP server over a question-and-answer service: it searches, gets
// and drafts posts there, as the person whose access token a request carries.
//
// It has no credential of its own and keeps none: what a request may do is what its
// token may do at the service.
package kb

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/qa"
)

const maxMessage = 1 << 20

// Handler is the MCP endpoint, over the service at api.
func Handler(api string) http.Handler {
	serve := mcp.NewStreamableHTTPHandler(func(r *http.Request) *mcp.Server {
		return server(client{api, r.Header.Get("Authorization")}) // made for this request alone
	}, &mcp.StreamableHTTPOptions{Stateless: true})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
		if err != nil {
			http.Error(w, "the message is too long", http.StatusRequestEntityTooLarge)
			return
		}
		var m struct{ Method string }
		if json.Unmarshal(body, &m) == nil && m.Method == "tools/call" && !(client{api, r.Header.Get("Authorization")}).known(r.Context()) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "an access token of the service is needed", http.StatusUnauthorized)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		serve.ServeHTTP(w, r)
	})
}

type searchIn struct {
	Query string `json:"query" jsonschema:"words that stand in the post"`
	Page  int    `json:"page,omitempty" jsonschema:"which page, from 1"`
}

type getIn struct {
	ID int `json:"id" jsonschema:"the post"`
}

type draftIn struct {
	Title string `json:"title"`
	Body  string `json:"body"`
}

// server are the tools for one request.
func server(c client) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "knowledge", Title: "Knowledge base", Version: "1"}, nil)
	harmless := false
	mcp.AddTool(s, &mcp.Tool{
		Name: "kb_search", Description: "Search the knowledge base.", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, func(ctx context.Context, _ *mcp.CallToolRequest, in searchIn) (*mcp.CallToolResult, qa.Page, error) {
		var found qa.Page
		query := url.Values{"q": {in.Query}, "page": {strconv.Itoa(max(in.Page, 1))}}
		err := c.do(ctx, http.MethodGet, "/api/posts?"+query.Encode(), nil, &found)
		return nil, found, err
	})
	mcp.AddTool(s, &mcp.Tool{
		Name: "kb_get", Description: "Get one post of the knowledge base.", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, func(ctx context.Context, _ *mcp.CallToolRequest, in getIn) (*mcp.CallToolResult, qa.Post, error) {
		var found qa.Post
		err := c.do(ctx, http.MethodGet, "/api/posts/"+strconv.Itoa(in.ID), nil, &found)
		return nil, found, err
	})
	mcp.AddTool(s, &mcp.Tool{
		Name: "kb_create_draft", Description: "Draft a post, which nobody but its author sees.", Annotations: &mcp.ToolAnnotations{DestructiveHint: &harmless},
	}, func(ctx context.Context, _ *mcp.CallToolRequest, in draftIn) (*mcp.CallToolResult, qa.Post, error) {
		var made qa.Post
		err := c.do(ctx, http.MethodPost, "/api/drafts", in, &made)
		return nil, made, err
	})
	return s
}

// client calls the service with the credential of one request.
type client struct{ api, authorization string }

// known reports whether the service knows the credential.
func (c client) known(ctx context.Context) bool {
	return strings.HasPrefix(c.authorization, "Bearer ") && c.do(ctx, http.MethodGet, "/api/me", nil, &struct{}{}) == nil
}

func (c client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.api+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", c.authorization)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		return fmt.Errorf("the service answered %d", res.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(res.Body, maxMessage)).Decode(out)
}
