package oauth

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// RFC 7636 appendix B.
func TestPKCE(t *testing.T) {
	const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	if Challenge(verifier) != goodChallenge || !VerifyPKCE(goodChallenge, verifier) {
		t.Error("the example of the RFC does not verify")
	}
	if v := NewVerifier(); !VerifyPKCE(Challenge(v), v) || v == NewVerifier() {
		t.Errorf("verifier %q", v)
	}
	for _, long := range []string{strings.Repeat("a", 128), strings.Repeat("~", 43)} {
		if !VerifyPKCE(Challenge(long), long) {
			t.Errorf("refused a verifier of %d characters", len(long))
		}
	}
	// Attack 21: too short, too long, illegal characters, plain, wrong.
	for _, bad := range []string{"", verifier[1:], strings.Repeat("a", 129), verifier[1:] + "+", verifier[1:] + "\n", goodChallenge, strings.Repeat("a", 43)} {
		if VerifyPKCE(goodChallenge, bad) || len(bad) != 43 && VerifyPKCE(Challenge(bad), bad) {
			t.Errorf("accepted %q", bad)
		}
	}
	if VerifyPKCE("", verifier) {
		t.Error("accepted an empty challenge")
	}
}

// R108, R115: the well-known name stands between host and path.
func TestWellKnown(t *testing.T) {
	tests := []struct{ id, want string }{
		{"https://gw.example", "https://gw.example/.well-known/oauth-protected-resource"},
		{"https://gw.example/", "https://gw.example/.well-known/oauth-protected-resource"},
		{"https://gw.example/mcp", "https://gw.example/.well-known/oauth-protected-resource/mcp"},
		{"https://gw.example/s/a/mcp/", "https://gw.example/.well-known/oauth-protected-resource/s/a/mcp"},
		{"http://localhost:3000/mcp?x=1", "http://localhost:3000/.well-known/oauth-protected-resource/mcp?x=1"},
	}
	for _, tt := range tests {
		if got := WellKnown(tt.id, ResourceSuffix); got != tt.want {
			t.Errorf("WellKnown(%s) = %s, want %s", tt.id, got, tt.want)
		}
	}
}

func TestWhereAClientLooks(t *testing.T) {
	tests := []struct {
		got  []string
		want string
	}{
		{ServerMetadataURLs("https://as.example"), "https://as.example/.well-known/oauth-authorization-server https://as.example/.well-known/openid-configuration"},
		{ServerMetadataURLs("https://as.example/t1"), "https://as.example/.well-known/oauth-authorization-server/t1 https://as.example/.well-known/openid-configuration/t1 https://as.example/t1/.well-known/openid-configuration"},
		{ResourceMetadataURLs("https://gw.example/mcp"), "https://gw.example/.well-known/oauth-protected-resource/mcp https://gw.example/.well-known/oauth-protected-resource"},
		{ResourceMetadataURLs("https://gw.example/"), "https://gw.example/.well-known/oauth-protected-resource"},
	}
	for _, tt := range tests {
		if got := strings.Join(tt.got, " "); got != tt.want {
			t.Errorf("got %s\nwant %s", got, tt.want)
		}
	}
}

// Case of scheme and host and a slash at the end do not count; nothing else is
// forgiven, or a token of one server would open its neighbour (attack 75).
func TestSameResource(t *testing.T) {
	same := [][2]string{
		{"https://gw.example/mcp", "https://gw.example/mcp"},
		{"https://gw.example/mcp", "HTTPS://GW.example/mcp/"},
		{"https://gw.example", "https://gw.example/"},
	}
	different := [][2]string{
		{"https://gw.example/s/a/mcp", "https://gw.example/s/ab/mcp"},
		{"https://gw.example/mcp", "https://gw.example/MCP"},
		{"https://gw.example/mcp", "https://gw.example/mcp//"},
		{"https://gw.example/mcp", "http://gw.example/mcp"},
		{"https://gw.example/mcp", "https://gw.example:443/mcp"},
		{"https://gw.example/mcp", "https://gw.example/%6dcp"},
		{"https://gw.example/mcp?a=b", "https://gw.example/mcp?a=b/"},
		{"https://u@gw.example", "https://U@gw.example"},
		{"https://gw.example/mcp", "https://gw.example/mcp#x"},
		{"", ""},
	}
	for _, p := range same {
		if !SameResource(p[0], p[1]) {
			t.Errorf("%s and %s differ", p[0], p[1])
		}
	}
	for _, p := range different {
		if SameResource(p[0], p[1]) {
			t.Errorf("%s and %s are the same", p[0], p[1])
		}
	}
}

// R205, R206: beside a secret stands when it ends, and 0 is never.
func TestRegistrationInJSON(t *testing.T) {
	never := int64(0)
	for _, tt := range []struct {
		r    Registration
		want string
	}{
		{Registration{ClientID: "c", RedirectURIs: []string{"http://localhost/cb"}, TokenAuthMethod: "none"}, `{"redirect_uris":["http://localhost/cb"],"token_endpoint_auth_method":"none","client_id":"c"}`},
		{Registration{ClientID: "c", ClientSecret: "s", SecretExpiresAt: &never}, `{"client_id":"c","client_secret":"s","client_secret_expires_at":0}`},
	} {
		if got, _ := json.Marshal(tt.r); string(got) != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// R501 to R504, C17.
func TestChallengeIsWrittenAndRead(t *testing.T) {
	c := BearerChallenge{Realm: "gw", Error: InvalidToken, Description: "the token has expired", Scope: "mcp:tools a:read", ResourceMetadata: "https://gw.example/.well-known/oauth-protected-resource/mcp", Ref: "req_1"}
	want := `Bearer realm="gw", error="invalid_token", error_description="the token has expired", scope="mcp:tools a:read", ` +
		`resource_metadata="https://gw.example/.well-known/oauth-protected-resource/mcp", resource_metadata_uri="https://gw.example/.well-known/oauth-protected-resource/mcp", ref="req_1"`
	if c.String() != want {
		t.Errorf("got  %s\nwant %s", c, want)
	}
	got := ParseChallenges([]string{c.String()})
	if len(got) != 1 || got[0].Scheme != "bearer" || got[0].Params["scope"] != c.Scope || got[0].ResourceMetadata() != c.ResourceMetadata {
		t.Errorf("read back as %+v", got)
	}
	if (BearerChallenge{}).String() != "Bearer" {
		t.Errorf("an empty challenge is %q", BearerChallenge{})
	}
}

func TestForeignChallengesAreRead(t *testing.T) {
	tests := []struct {
		header string
		want   string // scheme{name=value;name=value} scheme{}
	}{
		{`Bearer`, "bearer{}"},
		{`bearer realm=x, Scope = "a b"`, "bearer{realm=x;scope=a b}"},
		{`Basic realm="a, Bearer b=\"c\"", Bearer resource_metadata="https://x/y"`, `basic{realm=a, Bearer b="c"} bearer{resource_metadata=https://x/y}`},
		{`Negotiate YII+/x==, Bearer error=invalid_token`, "negotiate{yii+/x=} bearer{error=invalid_token}"},
		{`Negotiate abc, Bearer error="e"`, "negotiate{} bearer{error=e}"},
		{`Bearer resource_metadata=https://x/y?z`, "bearer{resource_metadata=https://x/y?z}"},
		{`Bearer scope="never closed`, "bearer{scope=never closed}"},
		{`Bearer scope="a", scope="b"`, "bearer{scope=a}"},
		{`realm="no scheme"`, ""},
		{`,, ;"x" Bearer`, "bearer{}"},
		{``, ""},
	}
	for _, tt := range tests {
		if got := show(ParseChallenges([]string{tt.header})); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.header, got, tt.want)
		}
	}
	if got := show(ParseChallenges([]string{`Bearer a="`, `Basic b=c`})); got != "bearer{a=} basic{b=c}" {
		t.Errorf("an open quote reaches into the next header: %s", got)
	}
}

func show(all []AuthChallenge) string {
	var out []string
	for _, c := range all {
		var params []string
		for k, v := range c.Params {
			params = append(params, k+"="+v)
		}
		slices.Sort(params)
		out = append(out, c.Scheme+"{"+strings.Join(params, ";")+"}")
	}
	return strings.Join(out, " ")
}

// Whatever a challenge quotes, it stays one header, one scheme, and no
// parameter is added.
func FuzzChallenges(f *testing.F) {
	f.Add(`a", error="x`)
	f.Add("a\r\nSet-Cookie: x=y")
	f.Add(`\`)
	f.Add(`Basic realm="x", Bearer a=b`)
	f.Fuzz(func(t *testing.T, s string) {
		ParseChallenges([]string{s, s})
		h := BearerChallenge{Realm: s, Scope: "a"}.String()
		if strings.ContainsAny(h, "\r\n\x00") {
			t.Errorf("%q breaks the header", s)
		}
		got := ParseChallenges([]string{h})
		if len(got) != 1 || got[0].Params["scope"] != "a" || got[0].Params["realm"] != plain(s) || len(got[0].Params) > 2 {
			t.Errorf("%q changes the challenge to %+v", s, got)
		}
	})
}
