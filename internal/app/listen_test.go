package app

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// slowly serves with a short time for bodies; answers are slower than that.
func slowly(t *testing.T) (address string, gone <-chan struct{}) {
	t.Helper()
	const limit = 100 * time.Millisecond
	left := make(chan struct{}, 8)
	server := httptest.NewServer(timely(limit, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		select {
		case <-r.Context().Done():
			left <- struct{}{}
		case <-time.After(3 * limit):
		}
	})))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), left
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

const head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"

// Who sends slowly is answered and hung up on, and not waited for.
func TestSlowSenderIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	address, _ := slowly(t)
	for name, begin := range map[string]string{"nothing": head, "a part": head + "he"} {
		conn := dial(t, address)
		if _, err := io.WriteString(conn, begin); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		answer, err := io.ReadAll(conn) // until the server hangs up
		if err != nil || len(answer) == 0 || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %q after %v, %v", name, answer, time.Since(began), err)
		}
	}
}

// Who has sent everything may wait as long as it takes, ask again on the same
// connection, and is missed when it goes away.
func TestSlowAnswerIsWaitedFor(t *testing.T) {
	t.Parallel()
	address, gone := slowly(t)
	conn := dial(t, address)
	in := bufio.NewReader(conn)
	for range 2 {
		if _, err := fmt.Fprint(conn, head+"hello"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%+v, %v", resp, err)
		}
		_ = resp.Body.Close()
		time.Sleep(150 * time.Millisecond) // longer than a body may take
	}
	if _, err := fmt.Fprint(conn, head+"hello"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	_ = conn.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("nobody noticed that the caller left")
	}
}
