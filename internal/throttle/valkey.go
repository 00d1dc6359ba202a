package throttle

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"
)

// A Valkey is a Valkey or Redis server through which the nodes tell one another,
// instead of through the database. It holds a hash for each counter and window, with
// how many each process has counted. So to tell again what may have arrived already
// changes nothing, and a server that lost everything learns it anew.
type Valkey struct {
	options valkey.ClientOption
	prefix  string
	node    string        // this process
	client  valkey.Client // nil until it is first needed
}

// patience is how long an answer is waited for, and as long before it a connection.
const patience = time.Second

// leeway is how much the clocks of nodes may differ: so long a counter is kept when
// its window is over by the clock of the one that told last.
const leeway = 5 * time.Second

// NewValkey reads an address, SCHEME://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE] with
// the schemes valkey and redis, or valkeys and rediss with TLS. Nodes with the same
// prefix count together. With TLS the server has a certificate for its name of one of
// the roots, or of those of the system if roots is nil. It connects to nothing yet, so
// that a server that is away keeps nobody from starting. Its errors do not repeat the
// address.
func NewValkey(address, prefix string, roots *x509.CertPool) (*Valkey, error) {
	u, err := url.Parse(address)
	if err != nil || !slices.Contains([]string{"valkey", "valkeys", "redis", "rediss"}, u.Scheme) || u.Hostname() == "" ||
		!regexp.MustCompile(`^(/\d{0,4})?$`).MatchString(u.Path) || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, errors.New("it is not an address like valkey://valkey.example.org:6379, or rediss://… with TLS")
	}
	if password, _ := u.User.Password(); u.User != nil && password == "" {
		return nil, errors.New("what stands before the @ has no password; write USER:PASSWORD@, or :PASSWORD@")
	}
	if u.Path == "/" {
		u.Path = ""
	}
	options, err := valkey.ParseURL(u.String())
	if err != nil {
		return nil, errors.New("it cannot be read as the address of a Valkey server")
	}
	switch {
	case options.TLSConfig != nil:
		options.TLSConfig.RootCAs = roots
	case roots != nil:
		return nil, errors.New("an authority for its certificate is of no use without TLS; write valkeys:// or rediss://")
	}
	options.Dialer.Timeout, options.ConnWriteTimeout = patience, patience
	options.ForceSingleClient, options.PipelineMultiplex = true, -1 // one server, one connection
	options.DisableCache, options.DisableRetry = true, true
	return &Valkey{options: options, prefix: prefix, node: rand.Text()}, nil
}

// tell notes how many a process has counted, and answers with how many all have.
// Whatever ends the connection, no counter is left without its end.
var tell = valkey.NewLuaScriptNoSha(`
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all = 0
for _, n in ipairs(redis.call('HVALS', KEYS[1])) do all = all + n end
return all`)

// add tells of counters and is told how many each has, of all nodes. With none it
// asks whether the server is there. One caller at a time.
func (v *Valkey) add(ctx context.Context, near []count) ([]int, error) {
	if v.client == nil {
		client, err := valkey.NewClient(v.options)
		if v.client = client; err != nil { // the client tries again when it is asked
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if len(near) == 0 {
		return nil, v.client.Do(ctx, v.client.B().Ping().Build()).Error()
	}
	calls := make([]valkey.LuaExec, len(near))
	for i, c := range near {
		left := time.Until(time.UnixMicro(c.ends)) + leeway
		calls[i] = valkey.LuaExec{
			Keys: []string{fmt.Sprintf("%s:%d:%s", v.prefix, c.began, c.name)},
			Args: []string{v.node, strconv.Itoa(c.mine), strconv.FormatInt(left.Milliseconds(), 10)},
		}
	}
	totals := make([]int, len(near))
	for i, answer := range tell.ExecMulti(ctx, v.client, calls...) {
		n, err := answer.AsInt64()
		if err != nil {
			return nil, err
		}
		totals[i] = int(n)
	}
	return totals, nil
}

// Close ends the connection. Nothing may be asked meanwhile or afterwards.
func (v *Valkey) Close() {
	if v.client != nil {
		v.client.Close()
	}
}
