package authserver

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

const (
	maxRegistration = 64 << 10
	maxKept         = 8 << 10 // of what is known of it
	maxName         = 200
)

// register is dynamic client registration (RFC 7591, R201–R209, R215–R217).
func (s *Server) register(w http.ResponseWriter, r *http.Request, ref string) error {
	mode := s.Registration()
	if mode != RegistrationOpen && mode != RegistrationToken {
		return &oauth.Error{Code: oauth.AccessDenied, Description: "clients do not register themselves here; ask the operator", Status: http.StatusNotFound}
	}
	asked, _, fault := s.readRegistration(w, r)
	answer := asked
	if s.isDemonstration(asked) {
		asked.TokenAuthMethod = authPost
	}
	if fault == nil {
		answer, fault = s.granted(asked)
	}
	if fault != nil && mode == RegistrationOpen {
		return fault
	}
	if err := s.mayRegister(r, mode); err != nil {
		return err
	}
	answer.ClientID = newUUID()
	secret, manage := newSecret(answer.TokenAuthMethod), registrationPrefix+newUUID()
	from := audit.Prefix(r.RemoteAddr)
	err := s.DB.Do(r.Context(), func(tx *store.Tx) error {
		event := clientEvent("client.register", answer.ClientID, answer.ClientName, from, ref)
		if mode == RegistrationToken {
			admission, err := admitted(tx, r)
			if err != nil {
				return err
			}
			event.Detail["registration_token"] = admission
		}
		if fault != nil { // told to nobody but who may register
			return fault
		}
		answer.ClientIDIssuedAt = tx.Now / 1_000_000
		metadata, err := kept(answer)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO client
			(id, name, redirect_uris, grant_types, auth_method, dpop_bound, pushed_only, secret_hash, registration_hash, scope, metadata, created_at, created_from)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
			answer.ClientID, answer.ClientName, strings.Join(answer.RedirectURIs, "\n"), strings.Join(answer.GrantTypes, " "),
			answer.TokenAuthMethod, answer.BoundTokens, answer.PushedOnly, secret.Hash, wholeHash(manage), answer.Scope, metadata, tx.Now, from)
		s.Audit.Append(tx, event)
		return err
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusCreated, s.described(answer, secret.Token, manage))
	return nil
}

func clientEvent(action, id, name, from, ref string) audit.Event {
	return audit.Event{
		Workspace: audit.System, Actor: "client:" + id, Action: action, Target: id,
		Outcome: audit.Allowed, Door: "oauth", Ref: ref, Detail: map[string]string{"name": name, "from": from},
	}
}

// readRegistration reads what a client says of itself.
func (s *Server) readRegistration(w http.ResponseWriter, r *http.Request) (asked oauth.Registration, given []string, err error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return asked, nil, oauth.Errorf(oauth.InvalidClientMetadata, "send the metadata as application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRegistration))
	if err != nil {
		return asked, nil, oauth.Errorf(oauth.InvalidClientMetadata, "the metadata has more than %d bytes, or did not arrive whole", maxRegistration)
	}
	asked, given, fault := oauth.ParseRegistration(body, s.Schemes)
	if fault != nil {
		return asked, nil, fault
	}
	return asked, given, nil
}

// granted is what of a registration is granted. What is reduced is reduced in the
// answer as well (R206, attack 50).
func (s *Server) granted(asked oauth.Registration) (granted oauth.Registration, err error) {
	granted = asked
	granted.ClientID, granted.ClientIDIssuedAt, granted.ClientSecret, granted.SecretExpiresAt = "", 0, "", nil
	granted.RegistrationURI, granted.RegistrationToken = "", ""
	granted.ClientName = cleanName(asked.ClientName)
	granted.GrantTypes = slices.DeleteFunc(slices.Clone(asked.GrantTypes), func(g string) bool {
		return !slices.Contains(openGrants(), g)
	})
	if len(asked.GrantTypes) == 0 {
		granted.GrantTypes = []string{grantCode, grantRefresh}
	}
	if !slices.Contains(granted.GrantTypes, grantCode) && !slices.Contains(granted.GrantTypes, grantDevice) {
		return granted, oauth.Errorf(oauth.InvalidClientMetadata, "grant_types must contain authorization_code, or "+grantDevice)
	}
	granted.ResponseTypes, granted.Scope = []string{"code"}, s.promised(asked.Scope)
	if !slices.Contains(authMethods, asked.TokenAuthMethod) {
		granted.TokenAuthMethod = authNone
	}
	if granted.TokenAuthMethod == authKey && !hasKeys(asked) {
		return granted, oauth.Errorf(oauth.InvalidClientMetadata, "with private_key_jwt there must be a jwks_uri, or a key in jwks that can verify what the client signs")
	}
	return granted, nil
}

// hasKeys reports whether what the client signs could be verified.
func hasKeys(r oauth.Registration) bool {
	set, err := jwks.Parse(r.JWKS)
	return r.JWKSURI != "" || err == nil && !set.Empty()
}

// promised are the scopes that exist here, without those for administration: a
// client asks for them when a call needs them, and a person decides.
func (s *Server) promised(scope string) string {
	asked := strings.Fields(scope)
	promised := slices.DeleteFunc(s.known(asked), func(scope string) bool { return strings.HasSuffix(scope, ":admin") })
	if slices.Contains(asked, offlineAccess) {
		promised = append(promised, offlineAccess)
	}
	return strings.Join(promised, " ")
}

// kept is what is stored of a registration: never a secret.
func kept(granted oauth.Registration) (string, error) {
	metadata, err := json.Marshal(granted)
	if err == nil && len(metadata) > maxKept {
		err = oauth.Errorf(oauth.InvalidClientMetadata, "the metadata has more than %d bytes", maxKept)
	}
	return string(metadata), err
}

// described is the answer to a client about itself: with its secret, if it is
// shown, and with the way to its management (R204, C31).
func (s *Server) described(granted oauth.Registration, secret, manage string) oauth.Registration {
	if secret != "" {
		never := int64(0)
		granted.ClientSecret, granted.SecretExpiresAt = secret, &never
	}
	granted.RegistrationURI, granted.RegistrationToken = s.Issuer+"/registration/"+granted.ClientID, manage
	return granted
}

// newSecret is a secret for a client that asked for one (R205, R206).
func newSecret(authMethod string) (secret token.Split) {
	if authMethod != authNone && authMethod != authKey {
		secret = token.NewSplit("cs_")
	}
	return secret
}

// registrationPrefix begins a registration token, reg-{guid}: 122 random bits, good
// for nothing but the one registration (R209).
const registrationPrefix = "reg-"

func wholeHash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// mayAnswerAt reports whether the client registered the redirect URI. A program on
// the person's computer may listen on another port, unless that is switched off
// (R304, C10).
func (s *Server) mayAnswerAt(c Client, uri string) bool {
	if s.ExactRedirects {
		return slices.Contains(c.Redirects, uri)
	}
	return oauth.MatchRedirect(c.Redirects, uri)
}

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

// newUUID is a random one (R207, C04).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
