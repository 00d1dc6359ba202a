package client

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// lockPoll is how often a process that waits for another looks again.
const lockPoll = 20 * time.Millisecond

// registration is what makes us a client of one issuer. It is never shown to
// another one.
type registration struct {
	ClientID    string `json:"client_id"`
	Secret      string `json:"client_secret,omitempty"`
	AuthMethod  string `json:"token_endpoint_auth_method,omitempty"`
	RedirectURI string `json:"redirect_uri,omitempty"`

	// With a key instead of a secret; it stays with the program.
	key      crypto.Signer
	keyID    string
	audience string // the issuer, which alone may take the assertion
}

// login is what was received for one server. It carries its own client, so a
// later registration with the same issuer does not orphan its refresh token.
type login struct {
	Issuer             string       `json:"issuer"`
	TokenEndpoint      string       `json:"token_endpoint"`
	RevocationEndpoint string       `json:"revocation_endpoint,omitempty"`
	Resource           string       `json:"resource"`
	Client             registration `json:"client"`
	AccessToken        string       `json:"access_token"`
	RefreshToken       string       `json:"refresh_token,omitempty"`
	Expires            int64        `json:"expires_at,omitempty"` // seconds since 1970; 0 is unknown
	Scope              string       `json:"scope,omitempty"`
	Key                []byte       `json:"dpop_key,omitempty"` // that the tokens are bound to; nil if to none
}

// fresh reports whether the access token will still be good when it arrives.
func (l login) fresh() bool {
	return l.AccessToken != "" && (l.Expires == 0 || time.Until(time.Unix(l.Expires, 0)) > 10*time.Second)
}

// credentials is the content of the file.
type credentials struct {
	Clients map[string]registration `json:"clients"`           // by issuer
	Devices map[string]registration `json:"devices,omitempty"` // by issuer, of LoginDevice
	Logins  map[string]login        `json:"logins"`            // by server
}

// DefaultCredentials is gatehouse/credentials.json in the user's configuration
// directory ($XDG_CONFIG_HOME). It is empty if there is no such directory.
func DefaultCredentials() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "gatehouse", "credentials.json")
}

func (c *Client) file() string {
	if c.opts.Credentials != "" {
		return c.opts.Credentials
	}
	return DefaultCredentials()
}

// load reads the file; a missing one is empty.
func (c *Client) load() (credentials, error) {
	cr := credentials{Clients: map[string]registration{}, Devices: map[string]registration{}, Logins: map[string]login{}}
	b, err := os.ReadFile(c.file())
	if errors.Is(err, fs.ErrNotExist) {
		return cr, nil
	}
	if err == nil && json.Unmarshal(b, &cr) != nil {
		err = errors.New(c.file() + " is not the JSON it should be")
	}
	if err != nil {
		return cr, credentialsUnusable.fail("can't read the stored credentials").because(err)
	}
	if cr.Clients == nil {
		cr.Clients = map[string]registration{}
	}
	if cr.Devices == nil {
		cr.Devices = map[string]registration{}
	}
	if cr.Logins == nil {
		cr.Logins = map[string]login{}
	}
	return cr, nil
}

// change lets f change the credentials while no other process can: what f sees
// is what the file says now. Nothing is written when f fails.
func (c *Client) change(ctx context.Context, f func(*credentials) error) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	cr, err := c.load()
	if err != nil {
		return err
	}
	if err := f(&cr); err != nil {
		return err
	}
	if err := c.save(cr); err != nil {
		return credentialsUnusable.fail("can't store the credentials").because(err)
	}
	c.remember(cr)
	return nil
}

// save replaces the file in one step: after a crash the old or the new content
// is there, whole.
func (c *Client) save(cr credentials) (err error) {
	b, err := json.MarshalIndent(cr, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(c.file()), ".credentials-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name()) // the first error is the one that counts
		}
	}()
	if _, err = tmp.Write(append(b, '\n')); err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), c.file())
}

// lock keeps other processes, and other goroutines of this one, from changing
// the file until unlock.
func (c *Client) lock(ctx context.Context) (unlock func(), err error) {
	if c.file() == "" {
		return nil, credentialsUnusable.fail("can't store the credentials").why("there is no home directory").fix("set XDG_CONFIG_HOME")
	}
	if err := os.MkdirAll(filepath.Dir(c.file()), 0o700); err != nil {
		return nil, credentialsUnusable.fail("can't store the credentials").because(err)
	}
	f, err := os.OpenFile(c.file()+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, credentialsUnusable.fail("can't store the credentials").because(err)
	}
	for {
		switch ok, err := tryLock(f); {
		case err != nil:
			_ = f.Close()
			return nil, credentialsUnusable.fail("can't lock the stored credentials").because(err)
		case ok:
			return func() { _ = f.Close() }, nil // which unlocks
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func (c *Client) remember(cr credentials) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logins = maps.Clone(cr.Logins)
}

// stored is the login for a server, from memory if it is there.
func (c *Client) stored(server string) (login, bool, error) {
	c.mu.Lock()
	l, ok := c.logins[server]
	c.mu.Unlock()
	if ok {
		return l, true, nil
	}
	cr, err := c.load()
	if err != nil {
		return login{}, false, err
	}
	c.remember(cr)
	l, ok = cr.Logins[server]
	return l, ok, nil
}

// Login describes one stored sign-in, without its secrets.
type Login struct {
	Server   string    `json:"server"`
	Issuer   string    `json:"issuer"`
	Resource string    `json:"resource"`
	ClientID string    `json:"client_id"`
	Scope    string    `json:"scope"`
	Expires  time.Time `json:"expires"` // of the access token; zero if unknown
	Renews   bool      `json:"renews"`  // there is a refresh token
	Token    string    `json:"token"`   // beginning and last four characters
}

// Logins are the stored sign-ins, by server.
func (c *Client) Logins() ([]Login, error) {
	cr, err := c.load()
	if err != nil {
		return nil, err
	}
	var all []Login
	for _, server := range slices.Sorted(maps.Keys(cr.Logins)) {
		all = append(all, cr.Logins[server].public(server))
	}
	return all, nil
}

func (l login) public(server string) Login {
	p := Login{
		Server: server, Issuer: l.Issuer, Resource: l.Resource, ClientID: l.Client.ClientID, Scope: l.Scope,
		Renews: l.RefreshToken != "", Token: hint(l.AccessToken),
	}
	if l.Expires != 0 {
		p.Expires = time.Unix(l.Expires, 0)
	}
	return p
}

// hint shows enough of a token to recognise it. The beginning of a JWT is the
// same for all, so it gives nothing away.
func hint(token string) string {
	if len(token) < 24 {
		return "…"
	}
	return token[:4] + "…" + token[len(token)-4:]
}
