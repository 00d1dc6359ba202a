// Command knowledge runs an MCP server over a question-and-answer service, and that service
// with its own OAuth, to try out connecting accounts: go run ./examples/knowledge
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/kb"
	"github.com/gatehouse-mcp/gatehouse/examples/knowledge/qa"
)

func main() {
	gatehouse := flag.String("gatehouse", "http://localhost:3000", "address of the gateway")
	api := flag.String("api", "127.0.0.1:4100", "where the service listens")
	mcp := flag.String("mcp", "127.0.0.1:4101", "where the MCP server listens")
	secret := flag.String("client-secret", "not-a-secret", "secret of the gateway at the service")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *gatehouse, *api, *mcp, *secret); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, gatehouse, api, mcp, secret string) error {
	service := qa.New("http://"+api, qa.Client{ID: "gatehouse", Secret: secret, Redirect: gatehouse + "/connect/knowledge/callback"})
	failed := make(chan error, 2)
	var servers []*http.Server
	for address, handler := range map[string]http.Handler{api: service, mcp: kb.Handler("http://" + api)} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		s := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		servers = append(servers, s)
		go func() { failed <- s.Serve(l) }()
	}
	fmt.Printf(`The service is at http://%s, its MCP server at http://%s. For gatehouse.yaml:

providers:
  knowledge:
    issuer: http://%s
    client_id: gatehouse
    client_secret: %s
    read_scopes: [%s]
    write_scopes: [%s]
    hosts: ["%s"]
servers:
  knowledge:
    url: http://%s
    provider: knowledge

Ctrl+C to stop.
`, api, mcp, api, secret, qa.Read, qa.Write, mcp, mcp)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for _, s := range servers {
		err = errors.Join(err, s.Close())
	}
	return err
}
