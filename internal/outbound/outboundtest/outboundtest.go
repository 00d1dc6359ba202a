// Package outboundtest is a piece of the internet on loopback, for tests: names
// that mean what a test says, and servers with certificates for them.
package outboundtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/outbound"
)

// Loopback is where the servers of a world are.
var Loopback = netip.MustParsePrefix("127.0.0.1/32")

// World is names and servers.
type World struct {
	Roots *x509.CertPool

	t    testing.TB
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	mu   sync.Mutex
	dns  map[string]func() []netip.Addr
	asks net.PacketConn
}

// New makes a world that lasts as long as the test.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{t: t, Roots: x509.NewCertPool(), dns: map[string]func() []netip.Addr{}}
	var err error
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, w.key.Public(), w.key)
	if err != nil {
		t.Fatal(err)
	}
	if w.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	w.Roots.AddCert(w.ca)
	if w.asks, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(w.answer)
	t.Cleanup(func() {
		_ = w.asks.Close()
		answering.Wait()
	})
	return w
}

var authority = &x509.Certificate{
	SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
}

// Options are those of a client that lives in this world, and may dial its servers.
func (w *World) Options() outbound.Options {
	return outbound.Options{Allow: []netip.Prefix{Loopback}, Roots: w.Roots, Resolver: w.Resolver()}
}

// Serve starts a server for a name and returns its address, "https://NAME:PORT".
func (w *World) Serve(name string, h http.Handler) string {
	w.t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{w.certificate(name)}}
	server.StartTLS()
	w.t.Cleanup(server.Close)
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	w.Name(name, at.Addr())
	_, port, _ := net.SplitHostPort(at.String())
	return "https://" + name + ":" + port
}

// Name says what a name means from now on.
func (w *World) Name(name string, addresses ...netip.Addr) {
	w.Names(name, func() []netip.Addr { return addresses })
}

// Names says what a name means each time that somebody asks.
func (w *World) Names(name string, addresses func() []netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dns[name+"."] = addresses
}

func (w *World) certificate(name string) tls.Certificate {
	w.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
	}, w.ca, w.key.Public(), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: w.key}
}

// Resolver asks this world what names mean.
func (w *World) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", w.asks.LocalAddr().String())
	}}
}

// answer answers questions of DNS (RFC 1035 §4) until the socket is closed.
func (w *World) answer() {
	packet := make([]byte, 1500)
	for {
		n, from, err := w.asks.ReadFrom(packet)
		if err != nil {
			return
		}
		if reply := w.reply(packet[:n]); reply != nil {
			_, _ = w.asks.WriteTo(reply, from)
		}
	}
}

const (
	typeA    = 1
	typeAAAA = 28
)

// reply is the answer to one question.
func (w *World) reply(packet []byte) []byte {
	name, at := question(packet)
	if at+4 > len(packet) {
		return nil
	}
	kind := binary.BigEndian.Uint16(packet[at:])
	w.mu.Lock()
	means := w.dns[name]
	w.mu.Unlock()
	reply := append([]byte{packet[0], packet[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, packet[12:at+4]...)
	if means == nil {
		reply[3] |= 3 // no such name
		return reply
	}
	for _, ip := range means() {
		if ip.Is4() != (kind == typeA) || kind != typeA && kind != typeAAAA {
			continue
		}
		reply[7]++
		raw := ip.AsSlice()
		reply = append(reply, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(raw))) // the name above, for 0 s
		reply = append(reply, raw...)
	}
	return reply
}

// question is the name that a packet asks about, and where it ends.
func question(packet []byte) (name string, end int) {
	var b strings.Builder
	at := 12
	for at < len(packet) && packet[at] != 0 && at+1+int(packet[at]) <= len(packet) {
		b.Write(packet[at+1 : at+1+int(packet[at])])
		b.WriteByte('.')
		at += 1 + int(packet[at])
	}
	return strings.ToLower(b.String()), at + 1
}
