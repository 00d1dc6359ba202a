package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var (
	portTaken = problem.Code{
		Name: "PORT_TAKEN", Kind: problem.Unavailable,
		Why: "another program listens there",
		Fix: "stop it, or choose another port: gatehouse serve --listen localhost:3010",
	}
	listenFailed = problem.Code{
		Name: "LISTEN_FAILED", Kind: problem.Unavailable,
		Fix:   "choose another address: gatehouse serve --listen localhost:3010",
		About: "the address to listen on cannot be used on this computer",
	}
	alreadyRunning = problem.Code{
		Name: "ALREADY_RUNNING", Kind: problem.Conflict,
		Why: "another gatehouse serves from this folder",
		Fix: "stop it, or choose another folder with --data-dir",
	}
	masterKeyUnusable = problem.Code{
		Name: "MASTER_KEY_UNUSABLE", Kind: problem.Invalid,
		Fix:   "give the right file with --master-key-file, readable for this user only",
		About: "the file with the master key is missing, readable by others, of the wrong size, or not the one the database was made with",
	}
	dataDirUnusable = problem.Code{
		Name: "DATA_DIR_UNUSABLE", Kind: problem.Invalid,
		Fix:   "make the folder writable for this user, or choose another one with --data-dir",
		About: "the folder for database, master key and admin socket cannot be made or written",
	}
)

// listen opens the address. localhost means both loopback addresses, so that a
// client that tries either finds us; a computer without IPv6 has one.
func listen(address string) ([]net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, listenFailed.New("can't listen on %s", address).WithWhy("it is not HOST:PORT")
	}
	if host != "localhost" {
		l, err := open(host, port)
		return []net.Listener{l}, err
	}
	first, err := open("127.0.0.1", port)
	if err != nil {
		return nil, err
	}
	_, port, _ = net.SplitHostPort(first.Addr().String()) // port 0 has become one
	second, err := open("::1", port)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, errors.Join(err, first.Close())
	case err != nil:
		return []net.Listener{first}, nil
	}
	return []net.Listener{first, second}, nil
}

func open(host, port string) (net.Listener, error) {
	address := net.JoinHostPort(host, port)
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, portTaken.New("can't listen on %s", address).Because(err)
	}
	if err != nil {
		return nil, listenFailed.New("can't listen on %s", address).WithWhy("%v", err).Because(err)
	}
	return l, nil
}

// openDataDir makes the folder, for this user only, and tries to write in it.
func openDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dataDirUnusable.New("can't make the folder %s", dir).WithWhy("%v", cause(err)).Because(err)
	}
	probe, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return dataDirUnusable.New("can't write in %s", dir).WithWhy("%v", cause(err)).Because(err)
	}
	return os.Remove(probe)
}

func cause(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err
	}
	return err
}

// SocketName is the admin socket in the data folder. Whoever can open it acts as
// the local owner.
const SocketName = "admin.sock"

// listenSocket binds DIR/admin.sock for this user only. It is bound in a private
// folder and moved, so there is no moment at which others could open it; and by
// way of the open folder, because a path of over 107 bytes cannot be bound. remove
// takes it away, unless by then it is that of a later server.
func listenSocket(dir string) (l net.Listener, remove func() error, err error) {
	path := filepath.Join(dir, SocketName)
	if conn, err := DialSocket(context.Background(), dir); err == nil {
		return nil, nil, errors.Join(alreadyRunning.New("can't serve from %s", dir), conn.Close())
	}
	private, err := os.MkdirTemp(dir, ".socket-")
	if err != nil {
		return nil, nil, dataDirUnusable.New("can't write in %s", dir).WithWhy("%v", cause(err)).Because(err)
	}
	defer func() { _ = os.RemoveAll(private) }()
	err = short(private, func(dir string) (err error) {
		l, err = net.Listen("unix", filepath.Join(dir, "s"))
		return err
	})
	if err != nil {
		return nil, nil, dataDirUnusable.New("can't open the admin socket %s", path).WithWhy("%v", cause(err)).Because(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it has another name by then
	bound := filepath.Join(private, "s")
	ours, err := os.Lstat(bound)
	if err := errors.Join(err, os.Chmod(bound, 0o600), os.Rename(bound, path)); err != nil {
		return nil, nil, errors.Join(dataDirUnusable.New("can't open the admin socket %s", path).WithWhy("%v", cause(err)).Because(err), l.Close())
	}
	return l, func() error {
		if there, err := os.Lstat(path); err != nil || !os.SameFile(ours, there) {
			return nil // gone, or replaced
		}
		return os.Remove(path)
	}, nil
}

// DialSocket connects to the server that serves from dir.
func DialSocket(ctx context.Context, dir string) (conn net.Conn, err error) {
	err = short(dir, func(dir string) (err error) {
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", filepath.Join(dir, SocketName))
		return err
	})
	return conn, err
}

// maxSocketPath is what fits into a socket address.
const maxSocketPath = 100

// short calls f with a short name of dir.
func short(dir string, f func(dir string) error) error {
	if len(dir) <= maxSocketPath-len(SocketName)-1 {
		return f(dir)
	}
	opened, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = opened.Close() }()
	return f(fmt.Sprintf("/proc/self/fd/%d", opened.Fd()))
}

// guard answers only requests for a host of ours: a page that rebinds its name
// to this computer is refused (attack 108).
func guard(hosts []string, refused func(*http.Request), h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, host := range hosts {
			if strings.EqualFold(r.Host, host) {
				h.ServeHTTP(w, r)
				return
			}
		}
		refused(r)
		http.Error(w, "this server is not known under that name", http.StatusMisdirectedRequest)
	})
}

// bodyTime is how long the body of a request may take to arrive.
const bodyTime = 30 * time.Second

// timely gives up on callers whose body takes longer than limit, so that they
// cannot hold memory. Answers may take as long as they like.
func timely(limit time.Duration, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			rc := http.NewResponseController(w)
			if err := rc.SetReadDeadline(time.Now().Add(limit)); err == nil {
				r.Body = timelyBody{r.Body, rc}
			}
		}
		h.ServeHTTP(w, r)
	})
}

// timelyBody lifts the deadline once the body is there. After a failure it stays:
// the server would otherwise wait for the rest before it hangs up.
type timelyBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b timelyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{}) // the connection is gone
	}
	return n, err
}

// hosts are the names that requests may call us by: those of the public address
// and of the issuer, and those of the loopback address we listen on.
func hosts(c Config, l net.Listener) []string {
	names := []string{hostOf(c.PublicURL), hostOf(c.IssuerURL)}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		names = append(names, net.JoinHostPort(name, port))
	}
	return names
}

// mayCall says which web pages may call the MCP endpoints: ours, those of the
// operator's list, and, where we serve this computer only, those of this computer
// (R736, attack 108).
func (c *Config) mayCall(origin string) bool {
	if origin == c.PublicURL || slices.Contains(c.AllowedOrigins, origin) {
		return true
	}
	ours, err1 := url.Parse(c.PublicURL)
	u, err2 := url.Parse(origin)
	return err1 == nil && err2 == nil && isLoopback(ours.Hostname()) &&
		(u.Scheme == "http" || u.Scheme == "https") && isLoopback(u.Hostname()) && u.Path == ""
}
