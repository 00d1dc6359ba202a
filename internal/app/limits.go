package app

import (
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/throttle"
	"github.com/gatehouse-mcp/gatehouse/internal/web"
)

// judgeValkey checks where the limits are shared.
func (l *loading) judgeValkey() {
	const key = "limits.valkey"
	if _, err := l.valkey(); err != nil {
		l.wrong(key, err.Error())
	}
	u, err := url.Parse(l.Valkey)
	inFile := strings.HasPrefix(l.Source.origins[key], l.Source.File+":") && l.Source.written[key] == ""
	if err == nil && u.User != nil && inFile {
		l.wrong(key, "a password does not stand in the file itself; say ${env:NAME} or ${file:NAME}")
	}
}

// valkey is the server through which the limits are shared, where it is not the
// database. Installations at one server count apart, because they have addresses of
// their own.
func (c Config) valkey() (*throttle.Valkey, error) {
	if c.Valkey == "" {
		return nil, nil
	}
	return throttle.NewValkey(c.Valkey, "gatehouse:"+c.IssuerURL)
}

// limit is how often what belongs to a group may happen, as it is set now (R1314).
func (h *house) limit(g throttle.Group) throttle.Limit {
	c := h.live.Load()
	return map[throttle.Group]throttle.Limit{
		authserver.Authorizations: c.AuthorizeLimit,
		authserver.Registrations:  c.RegisterLimit,
		authserver.Failures:       c.FailureLimit,
		authserver.Guesses:        c.TypedCodeLimit,
		throttle.Strangers:        c.StrangerLimit,
		web.SignIns:               c.SignInLimit,
		web.Letters:               {Each: 10, Per: 15 * time.Minute}, // as long as a link works
	}[g]
}
