// Package outbound is the one HTTP client for addresses that strangers choose:
// metadata documents, keys, webhooks, servers that somebody names.
//
// It speaks TLS and nothing else, to public addresses and to those an operator
// named. The address is judged when it is dialled, so that what a name means to
// somebody else, or meant a moment ago, changes nothing. No redirect is followed,
// no proxy is taken from the environment, and what comes back has a bound. Why a
// request failed is for the log only: to a stranger it would say what stands
// behind our firewall.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// ErrRefused is the error of a request that was not sent, because of where it
// would have gone. ErrTooLong is that of an answer with more bytes than wanted.
var (
	ErrRefused = errors.New("this address is not one to send requests to")
	ErrTooLong = errors.New("the answer is too long")
)

// ports are those of public addresses that are dialled: where others serve https.
var ports = []uint16{443, 8443}

const (
	handshake = 5 * time.Second
	idle      = 30 * time.Second
	maxHeader = 16 << 10 // bytes
	maxIdle   = 32       // connections
)

// Options are what a Client needs to know; the zero value is the safest.
type Options struct {
	Allow    []netip.Prefix // addresses that may be dialled although they are not public, at any port
	Roots    *x509.CertPool // who is trusted to say whose a name is; nil: the system's
	Resolver *net.Resolver  // nil: the system's
}

// Client sends requests to addresses that somebody else chose. It is made by New
// and safe for concurrent use.
type Client struct {
	allow     []netip.Prefix
	public    *ssrf.Guardian
	transport *http.Transport
}

// New makes a client.
func New(o Options) *Client {
	c := &Client{allow: o.Allow, public: ssrf.New(ssrf.WithPorts(ports...))}
	dialer := &net.Dialer{Timeout: handshake, Control: c.control, Resolver: o.Resolver}
	c.transport = &http.Transport{
		Proxy:                  nil, // it would dial for us, where it likes
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots},
		TLSHandshakeTimeout:    handshake,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns:           maxIdle,
		IdleConnTimeout:        idle,
		DisableCompression:     true, // a few bytes could become many
	}
	return c
}

// Close ends the connections that wait for a next request.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// control judges the address of a socket before it is connected.
func (c *Client) control(network, address string, conn syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrRefused, err)
	}
	ip := at.Addr().Unmap()
	if slices.ContainsFunc(c.allow, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return nil
	}
	if err := c.public.Safe(network, address, conn); err != nil {
		return fmt.Errorf("%w: %w: %s", ErrRefused, err, address)
	}
	return nil
}

// Do sends a request and returns the answer to it, whatever its status: a
// redirect is an answer too. Reading more than limit bytes of the body fails with
// ErrTooLong. The request's context bounds the time, until the body is read; one
// without a deadline may take for ever. The caller closes the body.
func (c *Client) Do(r *http.Request, limit int64) (*http.Response, error) {
	if u := r.URL; u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("%w: it is not https, or has a user name", ErrRefused)
	}
	res, err := c.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &bounded{ReadCloser: res.Body, left: limit}
	return res, nil
}

// bounded is a body that fails when it is longer than it may be.
type bounded struct {
	io.ReadCloser
	left int64 // bytes
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n, err = int(b.left), ErrTooLong
	}
	b.left -= int64(n)
	return n, err
}

// JSON fetches a document: the answer 200, of a JSON content type, not encoded, of
// at most limit bytes, and whole within the time. The header tells how long it may
// be kept. Any error means that there is no document.
func (c *Client) JSON(ctx context.Context, at string, limit int64, within time.Duration) (body []byte, header http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: it cannot be read", ErrRefused)
	}
	r.Header = http.Header{"Accept": {"application/json"}, "User-Agent": {"Gatehouse"}}
	res, err := c.Do(r, limit)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode != http.StatusOK:
		return nil, nil, fmt.Errorf("the answer was %d", res.StatusCode)
	case res.Header.Get("Content-Encoding") != "":
		return nil, nil, errors.New("the answer is encoded, which was not asked for")
	case !isJSON(res.Header.Get("Content-Type")):
		return nil, nil, fmt.Errorf("the answer has the content type %.80q", res.Header.Get("Content-Type"))
	}
	body, err = io.ReadAll(res.Body)
	if err == nil {
		err = ctx.Err() // a server that sees us leave may end its answer as if it were whole
	}
	return body, res.Header, err
}

// isJSON accepts application/json and what is built on it (RFC 6839 §3.1).
func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json"))
}
