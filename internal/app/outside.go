package app

import (
	"net/http"
	"net/url"
	"strings"
)

// outside is what callers reach over the network. Where the authorization server
// has a host of its own, its endpoints and pages are there and nowhere else, and
// the MCP endpoints, with REST, under the public address only. Under a name of this
// computer that is neither, everything is (R114).
func (h *house) outside() http.Handler {
	issuer := []func(*http.ServeMux){h.oauth.Routes, h.pages.Routes}
	public := []func(*http.ServeMux){h.oauth.ResourceRoutes, h.mcp.Routes, h.rest.Routes}
	everything := routes(append(issuer, public...)...)
	at, front := hostOf(h.config.IssuerURL), hostOf(h.config.PublicURL)
	if at == front {
		return everything
	}
	home := func(mux *http.ServeMux) { // who opens the address in a browser looks for the pages
		mux.Handle("GET /{$}", http.RedirectHandler(h.config.IssuerURL+"/", http.StatusSeeOther))
	}
	byHost := map[string]http.Handler{at: routes(issuer...), front: routes(append(public, home)...)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, known := byHost[strings.ToLower(r.Host)]
		if !known {
			handler = everything
		}
		handler.ServeHTTP(w, r)
	})
}

// families are the families of paths by the name of their style (C01).
var families = map[string]string{"oauth": "/oauth", "mcp": "/mcp", "bare": ""}

func routes(mount ...func(*http.ServeMux)) http.Handler {
	mux := http.NewServeMux()
	for _, m := range mount {
		m(mux)
	}
	return mux
}

// hostOf is the host of an address, with its port.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
