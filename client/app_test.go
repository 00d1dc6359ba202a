package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// tokens answers the token endpoint and keeps what was asked.
func (f *fake) tokens(to *[]*http.Request) {
	f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		*to = append(*to, r)
		f.set(func() { f.valid = "token-of-the-app-itself-and-nobody-else" })
		writeJSON(w, 200, oauth.TokenResponse{AccessToken: "token-of-the-app-itself-and-nobody-else", TokenType: "Bearer", ExpiresIn: 3600})
	}
}

// A secret goes the way the issuer takes it, and nowhere else.
func TestAppShowsItsSecretAsTheIssuerTakesIt(t *testing.T) {
	tests := []struct {
		methods     []string
		basic, post bool
	}{
		{nil, true, false}, // RFC 8414 §2
		{[]string{"client_secret_post", "client_secret_basic"}, true, false},
		{[]string{"none", "client_secret_post"}, false, true},
	}
	for _, tt := range tests {
		f, c := newFake(t), newClient(t)
		f.as.TokenAuthMethods = tt.methods
		var seen []*http.Request
		f.tokens(&seen)
		l, err := c.LoginAsApp(short(t), f.server(), App{ID: "app", Secret: "s:1"}, Demand{})
		if err != nil || l.ClientID != "app" || l.Renews {
			t.Fatalf("%v: %+v, %v", tt.methods, l, err)
		}
		r := seen[0]
		id, secret, basic := r.BasicAuth()
		if basic != tt.basic || basic && (id != "app" || secret != "s%3A1") {
			t.Errorf("%v: Authorization of %q", tt.methods, id)
		}
		if (r.PostForm.Get("client_secret") == "s:1") != tt.post {
			t.Errorf("%v: sent %v", tt.methods, r.PostForm)
		}
		if r.PostForm.Get("grant_type") != "client_credentials" || r.PostForm.Get("resource") != f.server() || r.PostForm.Get("scope") != "mcp:tools" {
			t.Errorf("%v: asked for %v", tt.methods, r.PostForm)
		}
		if s, err := c.Connect(short(t), f.server()); err != nil || s.Info().Name != "fake" {
			t.Errorf("the token is of no use: %v", err)
		}
		if cr, _ := c.load(); len(cr.Clients) != 0 {
			t.Errorf("an app that is given each time is kept: %+v", cr.Clients)
		}
	}
}

// With a key there is no secret to lose: what is sent is good once, for a minute,
// at this issuer only (RFC 7523 §3).
func TestAppProvesItselfByKey(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{jose.ES256: p256, jose.ES384: p384, jose.EdDSA: ed, jose.RS256: rsaKey} {
		f, c := newFake(t), newClient(t)
		var seen []*http.Request
		f.tokens(&seen)
		for range 2 {
			if _, err := c.LoginAsApp(short(t), f.server(), App{ID: "app", Secret: "unused", Key: key, KeyID: "k1"}, Demand{Scope: "x"}); err != nil {
				t.Fatal(alg, err)
			}
		}
		ids := map[string]bool{}
		for _, r := range seen {
			form := r.PostForm
			if r.Header.Get("Authorization") != "" || form.Has("client_secret") || form.Get("client_id") != "app" || form.Get("scope") != "x" ||
				form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
				t.Errorf("%s: %v", alg, form)
			}
			token, err := jwt.ParseSigned(form.Get("client_assertion"), []jose.SignatureAlgorithm{alg})
			if err != nil {
				t.Fatal(alg, err)
			}
			var claims jwt.Claims
			if err := token.Claims(key.Public(), &claims); err != nil {
				t.Fatal(alg, err)
			}
			ids[claims.ID] = true
			if claims.Issuer != "app" || claims.Subject != "app" || len(claims.Audience) != 1 || claims.Audience[0] != f.URL || token.Headers[0].KeyID != "k1" ||
				claims.Expiry.Time().Sub(claims.IssuedAt.Time()) > time.Minute {
				t.Errorf("%s: claims %+v", alg, claims)
			}
		}
		if len(ids) != 2 {
			t.Errorf("%s: an assertion was used twice", alg)
		}
		if text, _ := os.ReadFile(c.file()); strings.Contains(string(text), "PRIVATE") || strings.Contains(string(text), "unused") {
			t.Errorf("%s: the file keeps more than tokens: %s", alg, text)
		}
	}
	f, c := newFake(t), newClient(t)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if _, err := c.LoginAsApp(short(t), f.server(), App{ID: "app", Key: p224}, Demand{}); !errors.Is(err, ErrAuthentication) || f.count("POST /token") != 0 {
		t.Errorf("a key that cannot sign here: %v", err)
	}
}

func TestRefusedAppIsTold(t *testing.T) {
	f, c := newFake(t), newClient(t)
	f.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 401, oauth.ErrorResponse{Error: "invalid_client"})
	}
	_, err := c.LoginAsApp(short(t), f.server(), App{ID: "app", Secret: "wrong"}, Demand{})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrAuthentication) || !strings.Contains(e.Why, "invalid_client") || strings.Contains(e.Error()+e.Fix, "wrong") || e.Fix == "" {
		t.Errorf("%v", err)
	}
	if f.count("POST /token") != 1 {
		t.Errorf("asked %d times", f.count("POST /token"))
	}
	if cr, _ := c.load(); len(cr.Logins) != 0 {
		t.Errorf("stored %+v", cr)
	}
}

// Enterprise-managed authorization: the identity provider is told for which
// issuer and which server the assertion is, and the issuer sees nothing else of
// what the identity provider gave.
func TestEnterpriseVouches(t *testing.T) {
	f, idp, c := newFake(t), newFake(t), newClient(t)
	var asked, redeemed []*http.Request
	f.tokens(&redeemed)
	answer := map[string]string{"access_token": "assertion", "issued_token_type": idJAG, "token_type": "N_A"}
	idp.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		asked = append(asked, r)
		writeJSON(w, 200, answer)
	}
	e := Enterprise{Issuer: idp.URL, App: App{ID: "at-idp", Secret: "idp-secret"}, SubjectToken: "id-token"}
	if _, err := c.LoginByEnterprise(short(t), f.server(), App{ID: "at-issuer", Secret: "secret"}, e, Demand{}); err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "requested_token_type": {"urn:ietf:params:oauth:token-type:id-jag"},
		"subject_token": {"id-token"}, "subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
		"audience": {f.URL}, "resource": {f.server()}, "scope": {"mcp:tools"},
	}
	if got := asked[0].PostForm.Encode(); got != want.Encode() {
		t.Errorf("the identity provider was asked %s", got)
	}
	if id, _, _ := asked[0].BasicAuth(); id != "at-idp" {
		t.Errorf("the identity provider was shown the client %q", id)
	}
	form := redeemed[0].PostForm
	if id, _, _ := redeemed[0].BasicAuth(); id != "at-issuer" || form.Get("assertion") != "assertion" || form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" ||
		strings.Contains(form.Encode(), "id-token") || form.Get("resource") != f.server() {
		t.Errorf("the issuer was asked %v by %q", form, id)
	}

	answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
	if _, err := c.LoginByEnterprise(short(t), f.server(), App{ID: "at-issuer"}, e, Demand{}); !errors.Is(err, ErrAuthentication) || len(redeemed) != 1 {
		t.Errorf("a token that is no assertion was sent on: %v", err)
	}
	idp.as.Issuer = "https://idp.example"
	if _, err := c.LoginByEnterprise(short(t), f.server(), App{ID: "at-issuer"}, e, Demand{}); !errors.Is(err, ErrAuthentication) || len(asked) != 2 {
		t.Errorf("an identity provider that is another was shown the person's token: %v", err)
	}
}

// What the issuer wants of a client that registers, and who we are at it: by hand
// before by document before registered.
func TestWhoWeAreAtAnIssuer(t *testing.T) {
	const document = "https://app.example/client.json"
	tests := []struct {
		name     string
		change   func(*fake)
		opts     LoginOptions
		document string
		id       string
		method   string // registered with; "" if not registered
	}{
		{"registered", func(*fake) {}, LoginOptions{}, "", "client-1", "none"},
		{"secret wanted", func(f *fake) { f.as.TokenAuthMethods = []string{"client_secret_post", "client_secret_basic"} }, LoginOptions{}, "", "client-1", "client_secret_basic"},
		{"secret in the form wanted", func(f *fake) { f.as.TokenAuthMethods = []string{"client_secret_post"} }, LoginOptions{}, "", "client-1", "client_secret_post"},
		{"none offered", func(f *fake) { f.as.TokenAuthMethods = []string{"client_secret_basic", "none"} }, LoginOptions{}, "", "client-1", "none"},
		{"document", func(f *fake) { f.as.ClientDocuments = true }, LoginOptions{}, document, document, ""},
		{"document not taken", func(f *fake) {}, LoginOptions{}, document, "client-1", "none"},
		{"no document", func(f *fake) { f.as.ClientDocuments = true }, LoginOptions{}, "", "client-1", "none"},
		{"by hand", func(f *fake) { f.as.ClientDocuments = true }, LoginOptions{ClientID: "hand"}, document, "hand", ""},
	}
	for _, tt := range tests {
		f, c := newFake(t), newClient(t)
		tt.change(f)
		c.opts.Document = tt.document
		tt.opts.Open = new(browser).open
		l, err := c.Login(short(t), f.server(), tt.opts)
		if err != nil || l.ClientID != tt.id || f.forms["/authorize"].Get("client_id") != tt.id || f.register.TokenAuthMethod != tt.method {
			t.Errorf("%s: %+v, registered with %q, %v", tt.name, l, f.register.TokenAuthMethod, err)
		}
	}
}
