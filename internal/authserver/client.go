package authserver

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	strictjson "github.com/go-json-experiment/json"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// Client is a registered OAuth client. Its name is a claim.
type Client struct {
	ID         string
	Name       string
	Redirects  []string
	Grants     []string
	AuthMethod string
	secretHash []byte
}

// The ways a client can authenticate (RFC 7591 §2).
const (
	authNone  = "none"
	authPost  = "client_secret_post"
	authBasic = "client_secret_basic"
)

var authMethods = []string{authNone, authPost, authBasic}

const (
	maxRegistration = 64 << 10
	maxKept         = 8 << 10 // of what is known of it
	maxRedirects    = 20
	maxName         = 200
)

// register is dynamic client registration (RFC 7591, R201–R207, R215–R217).
func (s *Server) register(w http.ResponseWriter, r *http.Request, ref string) error {
	asked, err := readRegistration(w, r)
	if err != nil {
		return err
	}
	answer, secret, err := judge(asked)
	if err != nil {
		return err
	}
	answer.ClientID = newClientID()
	from := audit.Prefix(r.RemoteAddr)
	err = s.DB.Do(r.Context(), func(tx *store.Tx) error {
		answer.ClientIDIssuedAt = tx.Now / 1_000_000
		metadata, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		if len(metadata) > maxKept {
			return oauth.Errorf(oauth.InvalidClientMetadata, "the metadata has more than %d bytes", maxKept)
		}
		var hash []byte
		if answer.TokenAuthMethod != authNone {
			hash = secret.Hash
		}
		_, err = tx.Exec(`INSERT INTO client
			(id, name, redirect_uris, grant_types, auth_method, secret_hash, scope, metadata, created_at, created_from)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			answer.ClientID, answer.ClientName, strings.Join(answer.RedirectURIs, "\n"), strings.Join(answer.GrantTypes, " "),
			answer.TokenAuthMethod, hash, answer.Scope, string(metadata), tx.Now, from)
		s.Audit.Append(tx, audit.Event{
			Workspace: audit.System, Actor: "client:" + answer.ClientID, Action: "client.register", Target: answer.ClientID,
			Outcome: audit.Allowed, Door: "oauth", Ref: ref, Detail: map[string]string{"name": answer.ClientName, "from": from},
		})
		return err
	})
	if err != nil {
		return err
	}
	if answer.TokenAuthMethod != authNone {
		never := int64(0)
		answer.ClientSecret, answer.SecretExpiresAt = secret.Token, &never
	}
	reply(w, http.StatusCreated, answer)
	return nil
}

func readRegistration(w http.ResponseWriter, r *http.Request) (asked oauth.Registration, err error) {
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		return asked, oauth.Errorf(oauth.InvalidClientMetadata, "send the metadata as application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRegistration))
	if err != nil {
		return asked, oauth.Errorf(oauth.InvalidClientMetadata, "the metadata has more than %d bytes, or did not arrive whole", maxRegistration)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) || strictjson.Unmarshal(body, &asked) != nil {
		return asked, oauth.Errorf(oauth.InvalidClientMetadata, "the metadata is not a JSON object with members of the right types, each once")
	}
	return asked, nil
}

// judge makes of what was asked what is granted.
func judge(asked oauth.Registration) (granted oauth.Registration, secret token.Split, err error) {
	granted = asked
	granted.ClientID, granted.ClientSecret, granted.SecretExpiresAt, granted.RegistrationURI, granted.RegistrationToken = "", "", nil, "", ""
	granted.ClientName = cleanName(asked.ClientName)
	if len(asked.RedirectURIs) == 0 {
		return granted, secret, oauth.Errorf(oauth.InvalidRedirectURI, "redirect_uris is missing")
	}
	if len(asked.RedirectURIs) > maxRedirects {
		return granted, secret, oauth.Errorf(oauth.InvalidRedirectURI, "there are more than %d redirect_uris", maxRedirects)
	}
	for _, uri := range asked.RedirectURIs {
		if err := checkRedirect(uri); err != nil {
			return granted, secret, err
		}
	}
	for _, uri := range []string{asked.LogoURI, asked.ClientURI, asked.TOSURI, asked.PolicyURI} {
		if u, err := url.Parse(uri); uri != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
			return granted, secret, oauth.Errorf(oauth.InvalidClientMetadata, "logo_uri, client_uri, tos_uri and policy_uri must be https")
		}
	}
	if _, err := oauth.ParseScopes(asked.Scope); err != nil {
		return granted, secret, oauth.Errorf(oauth.InvalidClientMetadata, "scope cannot be read")
	}
	granted.GrantTypes = slices.DeleteFunc(slices.Clone(asked.GrantTypes), func(g string) bool {
		return !slices.Contains(grantNames(), g)
	})
	if len(asked.GrantTypes) == 0 {
		granted.GrantTypes = grantNames()
	}
	if !slices.Contains(granted.GrantTypes, grantCode) {
		return granted, secret, oauth.Errorf(oauth.InvalidClientMetadata, "grant_types must contain authorization_code")
	}
	granted.ResponseTypes = []string{"code"}
	if !slices.Contains(authMethods, asked.TokenAuthMethod) {
		granted.TokenAuthMethod = authNone
	}
	if granted.TokenAuthMethod != authNone {
		secret = token.NewSplit("cs_")
	}
	return granted, secret, nil
}

// answerNames are the parameters that an answer adds to a redirect URI.
var answerNames = []string{"code", "state", "iss", "error", "error_description"}

// checkRedirect says whether a client may be answered at uri (R216). One that has
// a parameter of the answer already could be read as another answer.
func checkRedirect(uri string) error {
	if err := oauth.CheckRedirect(uri, appSchemes); err != nil {
		return err
	}
	u, err := url.Parse(uri)
	if err != nil {
		return oauth.Errorf(oauth.InvalidRedirectURI, "a redirect URI cannot be read")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || slices.ContainsFunc(answerNames, query.Has) {
		return oauth.Errorf(oauth.InvalidRedirectURI, "a redirect URI must not have the parameters %s", strings.Join(answerNames, ", "))
	}
	return nil
}

// appSchemes are the private-use schemes that editors are known to use.
var appSchemes = []string{"cursor", "vscode", "vscode-insiders", "windsurf", "claude", "zed"}

// cleanName keeps of a claimed name what can be shown: no control, direction or
// zero-width characters.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	if r := []rune(strings.TrimSpace(name)); len(r) > maxName {
		return string(r[:maxName])
	}
	return strings.TrimSpace(name)
}

// newClientID is a random UUID (R207, C04).
func newClientID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (s *Server) client(tx *store.Tx, id string) (c Client, found bool, err error) {
	var redirects, grants string
	err = tx.QueryRow(`SELECT id, name, redirect_uris, grant_types, auth_method, secret_hash FROM client WHERE id = $1`, id).
		Scan(&c.ID, &c.Name, &redirects, &grants, &c.AuthMethod, &c.secretHash)
	if errors.Is(err, sql.ErrNoRows) {
		return Client{}, false, nil
	}
	c.Redirects, c.Grants = strings.Split(redirects, "\n"), strings.Fields(grants)
	return c, err == nil, err
}

// badClient is the one answer to a client that is unknown or does not
// authenticate: a program that gets it registers anew.
func badClient() *oauth.Error {
	return oauth.Errorf(oauth.InvalidClient, "the client is unknown or its credentials are wrong; register again")
}

// authenticate finds out which client posted the form (R404, attacks 41–44). A
// secret is accepted in the body or the header, whichever the client was told.
func (s *Server) authenticate(tx *store.Tx, r *http.Request, form url.Values) (Client, error) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, basic := r.BasicAuth(); basic {
		if secret != "" || len(r.Header.Values("Authorization")) > 1 {
			return Client{}, oauth.Errorf(oauth.InvalidRequest, "the client authenticates in two ways at once")
		}
		user, err1 := url.QueryUnescape(user)
		password, err2 := url.QueryUnescape(password)
		if err1 != nil || err2 != nil || !oauth.Readable(user) || (id != "" && id != user) {
			return Client{}, badClient()
		}
		id, secret = user, password
	} else if r.Header.Get("Authorization") != "" {
		return Client{}, badClient()
	}
	c, found, err := s.client(tx, id)
	if err != nil {
		return Client{}, err
	}
	if !found || !c.proves(secret) {
		return Client{}, badClient()
	}
	return c, nil
}

// proves reports whether the secret is the client's. A public client has none
// and must not present one.
func (c Client) proves(secret string) bool {
	if c.AuthMethod == authNone {
		return secret == ""
	}
	_, presented, ok := token.Parse("cs_", secret)
	return ok && presented.Matches(c.secretHash)
}
