package app

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// proxied makes requests that come through a proxy of ours look as they did
// before it: RemoteAddr is the client, and Host the name that it asked for. Only
// the networks in trusted are believed; everybody else could claim anything
// (attacks 71, 125). What was claimed is taken away in any case, so nobody inside
// reads it by accident (attack 83).
func proxied(trusted func() []netip.Prefix, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && covers(trusted(), peer.Addr()) {
			r.RemoteAddr = client(r.Header, peer, trusted()).String()
			if host := forwardedHost(r.Header); host != "" {
				r.Host = host
			}
		}
		for name := range r.Header {
			if claims(name) {
				delete(r.Header, name)
			}
		}
		h.ServeHTTP(w, r)
	})
}

// claims reports whether a header says on whose behalf a request is made. Some
// servers read an underscore as a hyphen.
func claims(header string) bool {
	name := strings.ToLower(strings.ReplaceAll(header, "_", "-"))
	return name == "forwarded" || strings.HasPrefix(name, "x-forwarded-") || name == "x-real-ip" || strings.HasPrefix(name, "x-original-")
}

func covers(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// client is where a request came from before it reached the proxies that we
// trust. A proxy writes one of two headers and passes on the other, which the
// client may have written; where both are there and differ, neither is believed.
func client(h http.Header, peer netip.AddrPort, trusted []netip.Prefix) netip.AddrPort {
	byList, byForwarded := h.Values("X-Forwarded-For"), h.Values("Forwarded")
	inList := nearest(hops(byList), peer, trusted)
	forwarded := nearest(values(byForwarded, "for"), peer, trusted)
	switch {
	case len(byForwarded) == 0:
		return inList
	case len(byList) == 0 || inList.Addr() == forwarded.Addr():
		return forwarded
	default:
		return peer
	}
}

// nearest walks from our end towards the client, and stops at the first hop that
// is no proxy of ours: whatever stands before it was written by a stranger. A hop
// that is no address ends the walk at the one before.
func nearest(hops []string, peer netip.AddrPort, trusted []netip.Prefix) netip.AddrPort {
	at := peer
	for _, hop := range slices.Backward(hops) {
		next, ok := hopAddress(hop)
		if !ok {
			return at
		}
		if at = next; !covers(trusted, at.Addr()) {
			return at
		}
	}
	return at
}

// hopAddress reads 192.0.2.1, 192.0.2.1:80, 2001:db8::1 and [2001:db8::1]:80.
func hopAddress(hop string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(hop, "["), "]")); err == nil {
		return netip.AddrPortFrom(a.Unmap().WithZone(""), 0), true
	}
	a, err := netip.ParseAddrPort(hop)
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()), err == nil
}

// hops are the members of a header that is a list.
func hops(lines []string) []string {
	if len(lines) == 0 {
		return nil
	}
	all := strings.Split(strings.Join(lines, ","), ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// forwardedHost is the name under which the proxy nearest to us was asked, or "".
func forwardedHost(h http.Header) string {
	named := append(values(h.Values("Forwarded"), "host"), hops(h.Values("X-Forwarded-Host"))...)
	if len(named) == 0 {
		return ""
	}
	return named[len(named)-1]
}

// values are those of one parameter in each element of Forwarded (RFC 7239 §4);
// an element without it counts as an empty one.
func values(lines []string, parameter string) (all []string) {
	if len(lines) == 0 {
		return nil
	}
	for _, element := range splitOutsideQuotes(strings.Join(lines, ","), ',') {
		value := ""
		for _, pair := range splitOutsideQuotes(element, ';') {
			name, v, _ := strings.Cut(pair, "=")
			if strings.EqualFold(strings.TrimSpace(name), parameter) {
				value = strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
		all = append(all, value)
	}
	return all
}

// splitOutsideQuotes splits at a separator that stands in no quoted string.
func splitOutsideQuotes(s string, separator rune) []string {
	quoted, escaped := false, false
	return strings.FieldsFunc(s, func(r rune) bool {
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		default:
			return !quoted && r == separator
		}
		return false
	})
}
