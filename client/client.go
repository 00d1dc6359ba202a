// Package client is for programs that talk to an MCP server protected by
// OAuth, a Gatehouse or any other: it finds out where to sign in, registers,
// sends the person through the browser, keeps the tokens fresh and calls tools.
//
// What a server says about itself is checked before it is believed: metadata
// must belong to the address it came from, secrets go to the issuer they belong
// to and nowhere else, redirects are not followed, and no address reaches a
// shell. Tokens are kept in one file that only its owner can read, and refreshed
// once however many goroutines and processes want it.
//
//	c := client.New(client.Options{Name: "my program"})
//	_, err := c.Login(ctx, "https://gw.example/mcp", client.LoginOptions{Announce: show, Open: client.OpenBrowser})
//	s, err := c.Connect(ctx, "https://gw.example/mcp")
//	res, err := s.Call(ctx, "echo", json.RawMessage(`{"message":"hi"}`), nil)
package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Bounds for what a server may send and how long it may take about it.
const (
	maxMetadata = 256 << 10
	maxAnswer   = 16 << 20
	patience    = 20 * time.Second // for discovery, registration and tokens
)

// Options says who the program is and where it keeps its credentials. The zero
// value works.
type Options struct {
	Name    string // shown to the person on the consent page; "gatehouse" if empty
	Version string

	// HTTP carries the requests; http.DefaultTransport if nil. Servers and issuers
	// say where to go next: a program that acts for others on a computer with a
	// network of its own gives a transport that reaches public addresses only.
	HTTP http.RoundTripper

	// Credentials is the file with registrations and tokens;
	// DefaultCredentials if empty.
	Credentials string

	// Token is sent to every server instead of a stored one. It is never
	// refreshed and never stored.
	Token string

	// Document is the https address of the document that describes the program
	// (OAuth Client ID Metadata Document). It is the client id wherever an issuer
	// takes one; empty registers the program instead.
	Document string

	// SignIn is called when a server demands a sign-in, or more than the token may
	// do, and is expected to sign in with that demand: by Login where there is a
	// person, by LoginAsApp or LoginByEnterprise where there is none. Nobody else
	// signs in meanwhile. Nil turns each demand into an ErrAuthentication or
	// ErrPermission.
	SignIn func(ctx context.Context, c *Client, d Demand) error

	// Ask is how a server's question reaches the person while a call runs
	// (elicitation). Nil tells servers that nobody can be asked.
	Ask func(ctx context.Context, q Question) (Reply, error)

	// Notify is told what a server says of its own accord while a session is open:
	// that its tools have changed, a line of its log. It must not wait for the
	// session. Servers of the era without handshake are asked to tell of changed
	// lists.
	Notify func(method string, params json.RawMessage)

	// EndpointOrigins are origins ("https://host") other than its own at which
	// an issuer may have its token, registration and revocation endpoints.
	EndpointOrigins []string
}

// Client talks to servers. It may be used by several goroutines.
type Client struct {
	opts Options
	hc   *http.Client

	signing chan struct{} // full while somebody signs in

	mu     sync.Mutex
	logins map[string]login  // by server; what the file said last
	legacy map[string]bool   // servers that are known to want a handshake
	nonces map[string]string // by origin: what its next proof must contain
}

// New makes a client. It reads nothing and connects to nothing.
func New(o Options) *Client {
	if o.Name == "" {
		o.Name = "gatehouse"
	}
	if o.Version == "" {
		o.Version = "0"
	}
	hc := &http.Client{
		Transport:     o.HTTP,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Client{opts: o, hc: hc, signing: make(chan struct{}, 1), logins: map[string]login{}, legacy: map[string]bool{}, nonces: map[string]string{}}
}

// ServerURL is the address of the MCP endpoint that a person means: https is
// added where no scheme is given (http for this computer) and /mcp where no
// path is. Plain http is refused off this computer, since tokens would travel
// in the clear.
func ServerURL(s string) (string, error) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "://") {
		s = "https://" + s
		if u, err := url.Parse(s); err == nil && isLoopback(u) {
			u.Scheme = "http"
			s = u.String()
		}
	}
	u, err := safeURL(s, true)
	if err != nil {
		return "", addressInvalid.fail("%q is not an address of an MCP server", s).because(err)
	}
	if u.Path == "" {
		u.Path = "/mcp"
	}
	u.Host = strings.ToLower(u.Host)
	return u.String(), nil
}

// safeURL accepts https, and this computer, by http too, if that may be meant at
// all: a server elsewhere has no reason to send us there.
func safeURL(s string, local bool) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("it cannot be read as an address")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, errors.New("it must be a web address")
	case u.User != nil || strings.Contains(s, "#"):
		return nil, errors.New("it must have neither user name nor fragment")
	case isLoopback(u) && !local:
		return nil, errors.New("it is on this computer")
	case u.Scheme == "http" && !isLoopback(u):
		return nil, errors.New("it must use https")
	}
	return u, nil
}

func isLoopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return strings.EqualFold(u.Hostname(), "localhost") || ip != nil && ip.IsLoopback()
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// answer is an HTTP response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// fetch carries out a request that must be answered soon and briefly.
func (c *Client) fetch(ctx context.Context, method, address string, header http.Header, body string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header = header
	return c.complete(req)
}

// complete sends a request and reads the answer to its end.
func (c *Client) complete(req *http.Request) (answer, error) {
	req.Header.Set("User-Agent", c.opts.Name+"/"+c.opts.Version)
	res, err := c.hc.Do(req)
	if err != nil {
		return answer{}, unreachable.fail("can't reach %s", req.URL.Host).because(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := readBounded(res.Body, maxMetadata)
	if err != nil {
		return answer{}, unreadable.fail("can't read the answer of %s", req.URL.Host).because(err)
	}
	return answer{res.StatusCode, res.Header, b}, nil
}

var errTooLong = errors.New("the answer is longer than allowed")

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLong
	}
	return b, err
}

func jsonHeader() http.Header { return http.Header{"Accept": {"application/json"}} }

// decode reads a JSON object that a server sent.
func (a answer) decode(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return errors.New("the answer is not the JSON it should be")
	}
	return nil
}
