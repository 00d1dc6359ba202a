package outbound_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/outbound"
	"github.com/gatehouse-mcp/gatehouse/internal/outbound/outboundtest"
)

const kb = 1 << 10

func get(t *testing.T, o outbound.Options, at string) (string, error) {
	t.Helper()
	c := outbound.New(o)
	defer c.Close()
	body, _, err := c.JSON(t.Context(), at, 10*kb, 5*time.Second)
	return string(body), err
}

func document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"a":1}`)
}

func TestDocumentIsFetched(t *testing.T) {
	world := outboundtest.New(t)
	for _, contentType := range []string{"application/json", "application/json; charset=utf-8", "application/jwk-set+json"} {
		at := world.Serve("app.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
				t.Errorf("the request says too much: %v", r.Header)
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, `{"a":1}`)
		}))
		if body, err := get(t, world.Options(), at+"/doc.json"); err != nil || body != `{"a":1}` {
			t.Errorf("%s: %q, %v", contentType, body, err)
		}
	}
}

// trap counts who connects to it, at an address of this computer.
func trap(t *testing.T, at string) (addr netip.AddrPort, seen *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Skip("this computer has no " + at)
	}
	seen = new(atomic.Int32)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			seen.Add(1)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		watching.Wait()
	})
	return netip.MustParseAddrPort(l.Addr().String()), seen
}

// Attack 97: what stands behind our own firewall is not reached, however its
// address is spelled.
func TestInnerAddressesAreNotDialled(t *testing.T) {
	at, seen := trap(t, "127.0.0.1:0")
	world := outboundtest.New(t)
	o := world.Options()
	o.Allow = nil
	for _, inner := range []string{
		"127.0.0.1", "127.8.9.10", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
		"192.0.2.1", "198.18.0.1", "::1", "::", "fc00::1", "fd00:ec2::254", "fe80::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::",
		"2001::1", "2001:db8::1", "ff02::1", "::127.0.0.1",
	} {
		ip := netip.MustParseAddr(inner)
		world.Name("inner.example", ip)
		literal := inner
		if ip.Is6() {
			literal = "[" + inner + "]"
		}
		for _, host := range []string{"inner.example", literal} {
			if _, err := get(t, o, fmt.Sprintf("https://%s:443/doc.json", host)); !errors.Is(err, outbound.ErrRefused) {
				t.Errorf("%s as %s: %v, want that it is refused", inner, host, err)
			}
			if _, err := get(t, o, fmt.Sprintf("https://%s:%d/doc.json", host, at.Port())); !errors.Is(err, outbound.ErrRefused) {
				t.Errorf("%s as %s at the trap: %v, want that it is refused", inner, host, err)
			}
		}
	}
	system := outbound.Options{} // what the system makes of it
	for _, host := range []string{"2130706433", "0x7f.1", "0x7f000001", "017700000001", "127.1", "0", "localhost", "localhost.", "LOCALHOST", "ip6-localhost", "127.0.0.1.", "①②⑦.⓪.⓪.①"} {
		if _, err := get(t, system, fmt.Sprintf("https://%s:%d/doc.json", host, at.Port())); err == nil {
			t.Errorf("%s: fetched", host)
		}
	}
	if n := seen.Load(); n > 0 {
		t.Errorf("the trap saw %d connections", n)
	}
}

// Attack 98: what counts is the address that is dialled, not what the name meant
// when somebody looked.
func TestRebindingChangesNothing(t *testing.T) {
	at, seen := trap(t, "127.0.0.1:0")
	world := outboundtest.New(t)
	o := world.Options()
	o.Allow = nil
	var asked atomic.Int32
	inner := netip.MustParseAddr("127.0.0.1")
	world.Names("rebind.example", func() []netip.Addr {
		if asked.Add(1) <= 2 { // A and AAAA
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		}
		return []netip.Addr{inner}
	})
	world.Name("mixed.example", netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), inner)
	for _, host := range []string{"rebind.example", "rebind.example", "mixed.example"} {
		if _, err := get(t, o, fmt.Sprintf("https://%s:%d/doc.json", host, at.Port())); !errors.Is(err, outbound.ErrRefused) {
			t.Errorf("%s: %v, want that it is refused", host, err)
		}
	}
	if n := seen.Load(); n > 0 {
		t.Errorf("the trap saw %d connections", n)
	}
}

// What an operator allows is that and nothing beside it.
func TestAllowedAddressIsTheOnlyOne(t *testing.T) {
	world := outboundtest.New(t)
	at := world.Serve("app.example", http.HandlerFunc(document))
	o := world.Options()
	if _, err := get(t, o, at+"/doc.json"); err != nil {
		t.Fatal(err)
	}
	other, seen := trap(t, "127.0.0.2:0")
	world.Name("other.example", other.Addr())
	if _, err := get(t, o, fmt.Sprintf("https://other.example:%d/", other.Port())); !errors.Is(err, outbound.ErrRefused) || seen.Load() > 0 {
		t.Errorf("%v, and the trap saw %d connections", err, seen.Load())
	}
}

// Attack 99: no redirect is followed, and nothing but https is spoken.
func TestOnlyTheAddressItselfIsAsked(t *testing.T) {
	world := outboundtest.New(t)
	var followed atomic.Int32
	target := world.Serve("target.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		followed.Add(1)
		document(w, r)
	}))
	for _, status := range []int{301, 302, 303, 307, 308} {
		at := world.Serve("app.example", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", target+"/doc.json")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
		}))
		if _, err := get(t, world.Options(), at+"/doc.json"); err == nil || followed.Load() > 0 {
			t.Errorf("%d: %v, followed %d times", status, err, followed.Load())
		}
	}
	for _, at := range []string{"http://target.example/", "ftp://target.example/", "file:///etc/passwd", "https://", "https:///x", "https://u:p@target.example/", "target.example", ":", "https://target.example/\n"} {
		if _, err := get(t, world.Options(), at); !errors.Is(err, outbound.ErrRefused) {
			t.Errorf("%q: %v, want that it is refused", at, err)
		}
	}
}

// A certificate for another name, or of nobody we trust, is none.
func TestServerProvesItsName(t *testing.T) {
	world := outboundtest.New(t)
	at := world.Serve("app.example", http.HandlerFunc(document))
	world.Name("other.example", outboundtest.Loopback.Addr())
	if _, err := get(t, world.Options(), strings.Replace(at, "app.", "other.", 1)); err == nil {
		t.Error("fetched under another name")
	}
	o := world.Options()
	o.Roots = outboundtest.New(t).Roots
	if _, err := get(t, o, at); err == nil {
		t.Error("fetched with a certificate of nobody we trust")
	}
}

// No proxy that the environment names is asked: it would dial for us, where it likes.
func TestNoProxyOfTheEnvironment(t *testing.T) {
	proxy, seen := trap(t, "127.0.0.1:0")
	t.Setenv("HTTPS_PROXY", "http://"+proxy.String())
	world := outboundtest.New(t)
	at := world.Serve("app.example", http.HandlerFunc(document))
	if _, err := get(t, world.Options(), at+"/doc.json"); err != nil || seen.Load() > 0 {
		t.Errorf("%v, and the proxy saw %d connections", err, seen.Load())
	}
}

// Attack 100: what is long, slow, packed or of another kind is no document, and
// reading ends at the bound.
func TestAnswersAreBounded(t *testing.T) {
	world := outboundtest.New(t)
	o := world.Options()
	c := outbound.New(o)
	defer c.Close()
	released := make(chan struct{})
	wait := func(r *http.Request) {
		select {
		case <-released:
		case <-r.Context().Done():
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"11 KB": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, strings.Repeat(" ", 11*kb))
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(" ", kb)); err != nil {
					return
				}
			}
		},
		"slow body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			wait(r)
		},
		"slow header": func(_ http.ResponseWriter, r *http.Request) { wait(r) },
		"gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 1<<20))
			_ = z.Close()
		},
		"long header": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 100*kb))
			document(w, r)
		},
		"text":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"a":1}`) },
		"no type": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Content-Type"] = nil; w.WriteHeader(200) },
		"404":     func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404); document(w, r) },
		"500":     func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); document(w, r) },
		"204":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
	} {
		at := world.Serve("app.example", h)
		began := time.Now()
		body, _, err := c.JSON(t.Context(), at+"/doc.json", 10*kb, time.Second)
		if err == nil {
			t.Errorf("%s: fetched %d bytes", name, len(body))
		}
		if len(body) > 10*kb || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %d bytes after %s", name, len(body), time.Since(began))
		}
	}
	close(released)
}

// Who asks for a stream reads what comes as it comes, up to the bound.
func TestBodyEndsAtItsBound(t *testing.T) {
	world := outboundtest.New(t)
	at := world.Serve("app.example", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "12345") }))
	c := outbound.New(world.Options())
	defer c.Close()
	for limit, want := range map[int64]error{4: outbound.ErrTooLong, 5: nil, 6: nil} {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(r, limit)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !errors.Is(err, want) || int64(len(body)) > limit {
			t.Errorf("a bound of %d: %q, %v", limit, body, err)
		}
	}
}
