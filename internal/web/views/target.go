package views

import (
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Target is an address of a client that a browser may be sent to. Only
// NewTarget makes one; a page with the zero Target fails.
type Target struct {
	uri string
	u   *url.URL
}

// neverFollowed are schemes in which a link runs or reads something instead of
// going somewhere.
var neverFollowed = []string{"javascript", "data", "vbscript", "file", "blob", "filesystem", "about", "view-source"}

// NewTarget takes a redirect URI that was matched against the client's
// registration, with or without the parameters of the answer. It refuses again
// what a page must never link to, so a fault in that match cannot run script
// here. The page engine lets only a few schemes pass, and apps have schemes of
// their own; Target is the one way around it.
func NewTarget(uri string) (Target, error) {
	if strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return Target{}, errors.New("a redirect URI holds characters that no URI has")
	}
	u, err := url.Parse(uri)
	if err != nil {
		return Target{}, fmt.Errorf("parse a redirect URI: %w", err)
	}
	switch web := u.Scheme == "http" || u.Scheme == "https"; {
	case u.Scheme == "" || slices.Contains(neverFollowed, u.Scheme):
		return Target{}, fmt.Errorf("a redirect URI has the scheme %q", u.Scheme)
	case web && u.Host == "", u.User != nil:
		return Target{}, errors.New("a redirect URI has no host, or a user name before it")
	}
	return Target{uri, u}, nil
}

// Link is the whole address, ready for an attribute of a page.
func (t Target) Link() (template.URL, error) {
	if t.u == nil {
		return "", errors.New("there is no address to go to")
	}
	return template.URL(t.uri), nil // vouched for by NewTarget
}

// Text is the whole address, for reading and copying.
func (t Target) Text() string { return t.uri }

// Device reports whether nothing is sent anywhere: the app shows a code, waits, and
// fetches what it is given itself (RFC 8628).
func (t Target) Device() bool { return t.u.Scheme == "urn" }

// Local reports whether the address leads to the reader's own computer: a
// loopback port, or an app that opens links of its scheme. Who listens there
// cannot be proven.
func (t Target) Local() bool {
	return t.Loopback() || t.u.Scheme != "https" && t.u.Scheme != "http" && !t.Device()
}

// Loopback reports whether a program listens on the reader's own computer.
func (t Target) Loopback() bool {
	if t.u.Scheme != "http" && t.u.Scheme != "https" {
		return false
	}
	ip, err := netip.ParseAddr(t.u.Hostname())
	return t.u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}

// Host is the host and port of a web address.
func (t Target) Host() string { return t.u.Host }

// Place says in words where the address leads.
func (t Target) Place() string {
	switch {
	case t.Loopback():
		return "A program on this computer"
	case t.Local():
		return "An app on this computer"
	case t.Device():
		return "The device that shows a code"
	}
	return t.u.Host
}

// Exact is the address without the answer's parameters, as short as it can be
// exact.
func (t Target) Exact() string {
	switch {
	case t.Loopback() && t.u.Port() != "":
		return t.u.Hostname() + ", port " + t.u.Port()
	case t.Loopback():
		return net.JoinHostPort(t.u.Hostname(), map[string]string{"http": "80", "https": "443"}[t.u.Scheme])
	}
	bare := *t.u
	bare.RawQuery, bare.Fragment = "", ""
	return bare.String()
}
