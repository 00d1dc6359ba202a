package authserver_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// R1305, R1402, attack 126: after everything that can happen to them, no secret is
// in the log, in the database or in a file, in any spelling. The log may hold what
// is printed on purpose: the setup code and the mailed links.
func TestNoSecretIsKeptInTheClear(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		printed, secrets := h.live(t)
		dump := h.dump() + h.files(t)
		for name, secret := range secrets {
			if where := find(secret, h.Log.String()); where != "" {
				t.Errorf("the log holds the %s: %s", name, where)
			}
		}
		maps.Copy(secrets, printed)
		for name, secret := range secrets {
			if where := find(secret, dump); where != "" {
				t.Errorf("the database holds the %s: %s", name, where)
			}
		}
		if find("Leak test app", dump) == "" || find("the control", base64.StdEncoding.EncodeToString([]byte("xthe control"))) == "" || find("cs_1.the secret part", "the secret part") == "" {
			t.Error("the search finds nothing at all")
		}
	})
}

// live does all there is to do, honest and not, and returns the secrets it saw.
func (h house) live(t *testing.T) (printed, secrets map[string]string) {
	printed, secrets = map[string]string{}, map[string]string{}
	b := h.Browser()
	printed["setup code"] = strings.TrimSpace(h.Log.Wait("  code  ", nil))
	b.SetUp()
	printed["sign-in link"] = strings.TrimSpace(strings.TrimPrefix(b.Link(), h.URL+"/login/link?token="))
	for name, value := range b.Cookies {
		secrets["cookie "+name] = value
	}

	client := h.register(`{"client_name":"Leak test app","redirect_uris":["` + apptest.Callback + `"],"token_endpoint_auth_method":"client_secret_post"}`)
	secrets["client secret"], secrets["registration token"] = client.ClientSecret, client.RegistrationToken
	query, verifier := h.Authorization(client.ClientID, nil)
	form := h.asked(b, query)
	secrets["form token"] = form.Get("csrf")
	target := apptest.Target(b.Submit("/consent", form).Text)
	if target == nil {
		t.Fatal("no way back")
	}
	code := target.Query().Get("code")
	secrets["code"], secrets["verifier"] = code, verifier
	withSecret := url.Values{"client_secret": {client.ClientSecret}}
	var tokens, refreshed oauth.TokenResponse
	h.Redeem(client.ClientID, code, verifier, withSecret).JSON(t, &tokens)
	refresh := with("grant_type", "refresh_token", "client_id", client.ClientID, "client_secret", client.ClientSecret, "refresh_token", tokens.RefreshToken)
	h.Form("/oauth/token", refresh).JSON(t, &refreshed)
	secrets["access token"], secrets["refresh token"] = tokens.AccessToken, tokens.RefreshToken
	secrets["second access token"], secrets["second refresh token"] = refreshed.AccessToken, refreshed.RefreshToken
	secrets["signature of the access token"] = tokens.AccessToken[strings.LastIndex(tokens.AccessToken, ".")+1:]
	if !h.works(tokens.AccessToken) {
		t.Fatal("the token does not work")
	}

	// Each secret goes wherever it does not belong; no answer repeats it.
	for name, secret := range secrets {
		for where, a := range map[string]apptest.Answer{
			"client_id at the token endpoint": h.Form("/oauth/token", with("grant_type", "refresh_token", "client_id", secret)),
			"grant_type":                      h.Form("/oauth/token", with("grant_type", "x", "client_id", client.ClientID, "client_secret", secret)),
			"code":                            h.Form("/oauth/token", with("grant_type", "authorization_code", "client_id", client.ClientID, "client_secret", client.ClientSecret, "code", secret)),
			"token to revoke":                 h.Form("/oauth/revoke", with("client_id", client.ClientID, "client_secret", secret, "token", secret)),
			"registration token":              h.Get("/registration/"+client.ClientID, "Authorization: Bearer reg-"+secret),
			"bearer":                          h.Tool(secret+"x", "whoami", "{}"),
			"query of the MCP endpoint":       h.PostJSON("/mcp?access_token="+url.QueryEscape(secret), "{}"),
			"client_id of an authorization":   h.authorize(authorization(h, secret, nil)),
			"handle":                          h.Get("/consent/" + url.PathEscape(secret)),
			"path":                            h.Get("/" + url.PathEscape(secret)),
			"name of a tool":                  h.PostJSON("/mcp/tool/whoami", `{"x":"`+secret+`"}`),
		} {
			if a.StatusCode >= http.StatusInternalServerError {
				t.Errorf("%s as %s: %d", name, where, a.StatusCode)
			}
			if find(secret, a.Text+fmt.Sprint(a.Header)) != "" {
				t.Errorf("%s as %s is repeated: %d %s", name, where, a.StatusCode, a.Text)
			}
		}
	}
	h.Redeem(client.ClientID, code, verifier, withSecret) // a replay
	h.signIn(b, apptest.Owner)                            // another session
	printed["second sign-in link"] = strings.TrimSpace(strings.TrimPrefix(b.Link(), h.URL+"/login/link?token="))
	secrets["second session"] = b.Cookies["__Host-gatehouse-session"]
	fields := apptest.Fields(b.Open("/login?switch=1").Text)
	if a := b.Submit("/logout", fields); a.StatusCode != http.StatusOK {
		t.Errorf("sign-out: %d %s", a.StatusCode, a.Text)
	}
	for name, secret := range secrets {
		if len(secret) < 20 {
			t.Errorf("the %s is %q", name, secret)
		}
	}
	return printed, secrets
}

// dump is everything in the database, as text.
func (h house) dump() string {
	h.t.Helper()
	var b strings.Builder
	err := h.DB.View(h.t.Context(), func(tx *store.Tx) error {
		tables, err := column(tx, `SELECT name FROM sqlite_master WHERE type = 'table'`)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if err := rows(tx, `SELECT * FROM `+table, func(values []any) { fmt.Fprintf(&b, "%s %s\n", table, values) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil { // not SQLite
		b.Reset()
		err = h.DB.View(h.t.Context(), func(tx *store.Tx) error {
			tables, err := column(tx, `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'`)
			if err != nil {
				return err
			}
			for _, table := range tables {
				if err := rows(tx, `SELECT * FROM `+table, func(values []any) { fmt.Fprintf(&b, "%s %s\n", table, values) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String()
}

func column(tx *store.Tx, query string) (values []string, err error) {
	err = rows(tx, query, func(row []any) { values = append(values, fmt.Sprint(row[0])) })
	return values, err
}

func rows(tx *store.Tx, query string, see func([]any)) error {
	found, err := tx.Query(query)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }()
	names, err := found.Columns()
	if err != nil {
		return err
	}
	for found.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			return err
		}
		see(values)
	}
	return found.Err()
}

// files is all that stands in the data folder, freed pages included.
func (h house) files(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(h.Dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b.Write(content)
	}
	return b.String()
}

// find looks for a secret, or the secret half of it, as it is, escaped, in hex,
// and in base64 at any offset. It returns how it was spelt.
func find(secret, text string) string {
	halves := []string{secret}
	if id, half, split := strings.Cut(secret, "."); split && len(half) > 10 && strings.Contains(id, "_") {
		halves = append(halves, half)
	}
	for _, s := range halves {
		spellings := map[string]string{"as it is": s, "escaped": url.QueryEscape(s), "in hex": hex.EncodeToString([]byte(s))}
		for offset := range 3 {
			for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				encoded := encoding.EncodeToString([]byte(strings.Repeat("\x00", offset) + s))
				start := (offset*8 + 5) / 6 // the characters that other bytes share in are left out
				spellings[fmt.Sprintf("in %s at offset %d", name, offset)] = encoded[start : len(encoded)-2]
			}
		}
		for how, spelling := range spellings {
			if strings.Contains(text, spelling) {
				return how
			}
		}
	}
	return ""
}
