package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

// refused reads an answer that is not a success.
func (h *httpConn) refused(res *http.Response) error {
	name := h.spec.Name
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal)) // what cannot be read says nothing
	m, unreadable := mcp.Parse(body)
	said := m.Error
	if unreadable != nil {
		said = nil
	}
	switch status := res.StatusCode; {
	case status == http.StatusUnauthorized:
		return wantsLogin.New("%q wants a login", name)
	case status < 400:
		return h.notMCP("it redirects to another place (%d %.200q)", status, res.Header.Get("Location"))
	case res.Request.Header.Get(mcp.SessionHeader) != "" && lost(status, said):
		return errSessionLost
	case said != nil && status < 500:
		return said
	case status == http.StatusTooManyRequests || status >= 500:
		e := unavailable.New("%q cannot serve now", name).WithWhy("it answered %d", status)
		e.Retry = retryAfter(res)
		return e
	default:
		return h.notMCP("it answered %d", status)
	}
}

// lost recognises the answer to a session that has ended: 404 (MCP 2025-11-25
// transports, "Session Management"), or 400 with a word about the session, as
// the reference server has it.
func lost(status int, said *mcp.Error) bool {
	if status == http.StatusNotFound {
		return said == nil || said.Code != mcp.MethodNotFound
	}
	return status == http.StatusBadRequest && said != nil && strings.Contains(strings.ToLower(said.Message), "session")
}

func retryAfter(res *http.Response) time.Duration {
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 3600)) * time.Second
}

func (h *httpConn) notMCP(why string, args ...any) error {
	return garbage.New("can't speak MCP with %q", h.spec.Name).WithWhy(why, args...)
}

// broken translates a failure of the network.
func (h *httpConn) broken(err error) error {
	if e, known := errors.AsType[*problem.Error](err); known { // of the credential, so nothing was sent
		return e
	}
	if why := notReached(err); why != "" {
		return unreachable.New("can't reach %q (%s)", h.spec.Name, h.spec.outline()).WithWhy("%s, so nothing was carried out", why).Because(err)
	}
	return unavailable.New("the connection to %q broke before it answered", h.spec.Name).Because(err)
}

// notSent says of a failure that came before the call that nothing was carried out.
func notSent(err error) error {
	e := problem.From(err)
	switch {
	case e.Kind == problem.Forbidden:
		return err
	case e.Why == unavailable.Why:
		return unavailable.New("%s", e.Detail).WithWhy("the server went away before it was called, so nothing was carried out").Because(err)
	case problem.Is(e, cancelled) || strings.Contains(e.Why, "nothing was carried out"):
		return err
	}
	told := *e
	return told.WithWhy("%s; nothing was carried out", e.Why)
}

// notReached says why a server cannot have seen the request, or "".
func notReached(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &dns):
		return "its host name is not known"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &record):
		return "it does not speak TLS there"
	case errors.As(err, &unknown):
		return "its certificate is signed by an authority that is not known here"
	case errors.As(err, &certificate):
		return "its certificate is not valid for this host, or has expired"
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		return "no answer to a connection attempt"
	case errors.As(err, &op) && op.Op == "dial":
		return "no way to its host"
	}
	return ""
}
