package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/gatehouse-mcp/gatehouse/client"
)

// Sign in once, then call tools; tokens are kept and renewed.
func Example() {
	ctx := context.Background()
	c := client.New(client.Options{Name: "my program"})
	_, err := c.Login(ctx, "https://gw.example/mcp", client.LoginOptions{
		Announce: func(url string) { fmt.Println("Open", url) },
		Open:     client.OpenBrowser,
	})
	if err != nil {
		log.Fatal(err)
	}
	s, err := c.Connect(ctx, "https://gw.example/mcp")
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)
	res, err := s.Call(ctx, "echo", json.RawMessage(`{"message":"hi"}`), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Text())
}

// Sign in when a server demands it, and for more when a call needs more.
func ExampleOptions_signIn() {
	c := client.New(client.Options{
		SignIn: func(ctx context.Context, c *client.Client, d client.Demand) error {
			_, err := c.Login(ctx, d.Server, client.LoginOptions{Open: client.OpenBrowser, Demand: d})
			return err
		},
	})
	s, err := c.Connect(context.Background(), "https://gw.example/mcp")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Info().Name)
}

// A program that acts for no person proves itself with a secret or a key, whenever
// its token has run out.
func ExampleClient_LoginAsApp() {
	app := client.App{ID: "nightly-report", Secret: os.Getenv("REPORT_SECRET")}
	c := client.New(client.Options{
		SignIn: func(ctx context.Context, c *client.Client, d client.Demand) error {
			_, err := c.LoginAsApp(ctx, d.Server, app, d)
			return err
		},
	})
	s, err := c.Connect(context.Background(), "https://gw.example/mcp")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Info().Name)
}

// What went wrong is told by kind; a refusal of scope names the scopes.
func ExampleError() {
	ctx := context.Background()
	s, err := client.New(client.Options{}).Connect(ctx, "https://gw.example/mcp")
	if err == nil {
		_, err = s.Call(ctx, "close_ticket", json.RawMessage(`{"id":8841}`), nil)
	}
	var e *client.Error
	switch {
	case errors.Is(err, client.ErrAuthentication):
		fmt.Println("sign in first")
	case errors.Is(err, client.ErrPermission) && errors.As(err, &e):
		fmt.Println("it needs", e.Scope)
	case errors.Is(err, client.ErrTool):
		fmt.Println("the tool failed:", err)
	case err != nil:
		fmt.Println(err)
	}
}

// A server's question is answered by the person, or declined.
func ExampleOptions_ask() {
	c := client.New(client.Options{
		Ask: func(ctx context.Context, q client.Question) (client.Reply, error) {
			fmt.Println(q.Server, "asks:", q.Message)
			return client.Reply{Action: client.Accept, Content: map[string]any{"colour": "blue"}}, nil
		},
	})
	_ = c
}
