package app

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

// Attacks 71, 83, 125: only a proxy of ours says who the client is, and only about
// the hop that it saw itself.
func TestWhoIsBelievedAboutTheClient(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("127.0.0.1/32")}
	const evil, proxy = "203.0.113.9:4711", "10.0.0.1:4711"
	for _, tt := range []struct {
		name, peer string
		header     http.Header
		from, host string
	}{
		{"stranger who claims everything", evil, http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"evil.example"}, "Forwarded": {"for=127.0.0.1;host=evil.example"}}, evil, "gw"},
		{"stranger by way of a list that ends in a proxy", evil, http.Header{"X-Forwarded-For": {"127.0.0.1, 10.0.0.1"}}, evil, "gw"},
		{"proxy without a word", proxy, nil, proxy, "gw"},
		{"one proxy", proxy, http.Header{"X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Host": {"name"}}, "198.51.100.7:0", "name"},
		{"client that prepends", proxy, http.Header{"X-Forwarded-For": {"127.0.0.1, 198.51.100.7"}}, "198.51.100.7:0", "gw"},
		{"client that prepends a line", proxy, http.Header{"X-Forwarded-For": {"127.0.0.1", "198.51.100.7"}}, "198.51.100.7:0", "gw"},
		{"client that prepends a proxy of ours", proxy, http.Header{"X-Forwarded-For": {"10.0.0.9, 198.51.100.7"}}, "198.51.100.7:0", "gw"},
		{"two proxies", proxy, http.Header{"X-Forwarded-For": {"9.9.9.9, 198.51.100.7, 10.0.0.2"}}, "198.51.100.7:0", "gw"},
		{"all of them ours", proxy, http.Header{"X-Forwarded-For": {"10.0.0.3, 10.0.0.2"}}, "10.0.0.3:0", "gw"},
		{"rubbish at our end", proxy, http.Header{"X-Forwarded-For": {"198.51.100.7, rubbish"}}, proxy, "gw"},
		{"rubbish behind a proxy", proxy, http.Header{"X-Forwarded-For": {"198.51.100.7, unknown, 10.0.0.2"}}, "10.0.0.2:0", "gw"},
		{"empty", proxy, http.Header{"X-Forwarded-For": {""}}, proxy, "gw"},
		{"with a port", proxy, http.Header{"X-Forwarded-For": {"198.51.100.7:99"}}, "198.51.100.7:99", "gw"},
		{"IPv6", "[fd00::1]:1", http.Header{"X-Forwarded-For": {"2001:db8::7"}}, "[2001:db8::7]:0", "gw"},
		{"IPv6 in brackets", proxy, http.Header{"X-Forwarded-For": {"[2001:db8::7]:99"}}, "[2001:db8::7]:99", "gw"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1", http.Header{"X-Forwarded-For": {"::ffff:198.51.100.7"}}, "198.51.100.7:0", "gw"},
		{"Forwarded", proxy, http.Header{"Forwarded": {`for=127.0.0.1, for="[2001:db8::7]:99";proto=https;host=name`}}, "[2001:db8::7]:99", "name"},
		{"Forwarded with a comma in quotes", proxy, http.Header{"Forwarded": {`For="127.0.0.1, for=127.0.0.1", FOR=198.51.100.7`}}, "198.51.100.7:0", "gw"},
		{"Forwarded of somebody hidden", proxy, http.Header{"Forwarded": {"for=_hidden"}}, proxy, "gw"},
		{"Forwarded without for", proxy, http.Header{"Forwarded": {"for=127.0.0.1, host=name"}}, proxy, "name"},
		{"Forwarded of the client, list of the proxy", proxy, http.Header{"Forwarded": {"for=127.0.0.1"}, "X-Forwarded-For": {"198.51.100.7"}}, proxy, "gw"},
		{"list of the client, Forwarded of the proxy", proxy, http.Header{"Forwarded": {"for=198.51.100.7"}, "X-Forwarded-For": {"127.0.0.1"}}, proxy, "gw"},
		{"both, the same", proxy, http.Header{"Forwarded": {"for=198.51.100.7"}, "X-Forwarded-For": {"198.51.100.7"}}, "198.51.100.7:0", "gw"},
		{"others claims", proxy, http.Header{"X-Real-Ip": {"127.0.0.1"}, "X-Original-Host": {"evil.example"}, "X_Forwarded_For": {"127.0.0.1"}}, proxy, "gw"},
		{"name added to a name", proxy, http.Header{"X-Forwarded-Host": {"evil.example, name"}}, proxy, "name"},
		{"no address at all", "@", http.Header{"X-Forwarded-For": {"127.0.0.1"}}, "@", "gw"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "http://gw/", nil)
			r.RemoteAddr = tt.peer
			for name, lines := range tt.header {
				r.Header[name] = lines
			}
			r.Header.Set("User-Agent", "x")
			proxied(func() []netip.Prefix { return trusted }, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.RemoteAddr != tt.from || r.Host != tt.host {
					t.Errorf("from %s as %s, want %s as %s", r.RemoteAddr, r.Host, tt.from, tt.host)
				}
				if len(r.Header) != 1 {
					t.Errorf("inside they read %v", r.Header)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
		})
	}
}
