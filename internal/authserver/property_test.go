package authserver_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/app/apptest"
	"github.com/gatehouse-mcp/gatehouse/internal/oauth"
)

// The scopes of the model; each lets an app call something of its own.
var modelScopes = []string{"audit:read", "servers:read"}

// A model is what two people, two apps and an operator did to one another, and
// what must follow from it. It knows nothing of how that is kept.
type model struct {
	house
	r        *rand.Rand
	done     []string // for the message of a failure
	people   []*modelPerson
	apps     []*modelApp
	codes    []*modelCode
	families []*modelFamily
}

type modelPerson struct {
	id      string
	browser *apptest.Browser
	active  bool
}

type modelApp struct {
	oauth.Registration
	removed bool
}

type modelCode struct {
	person         *modelPerson
	app            *modelApp
	code, verifier string
	scopes         []string
	family         *modelFamily // what it became
	dead           bool
}

type modelFamily struct {
	person    *modelPerson
	app       *modelApp
	scopes    []string
	ended     bool
	access    []*modelAccess
	refreshes []*modelRefresh
}

type modelAccess struct {
	raw   string
	ended bool
}

type modelRefresh struct {
	raw    string
	parent *modelRefresh
	late   bool // a child of it was used, and the window is over
	child  bool // a child of it was used
}

func newModel(t *testing.T, h house, seed uint64) *model {
	m := &model{house: house{h.House, t}, r: rand.New(rand.NewPCG(seed, 1))}
	dana := m.Browser()
	dana.SetUp()
	m.SQL(`INSERT INTO users (id, email, created_at) VALUES ('usr_bob', 'bob@acme.example', 0)`)
	m.SQL(`INSERT INTO member (workspace, user_id, role, status, created_at) VALUES ('default', 'usr_bob', 'owner', 'active', 0)`)
	m.people = []*modelPerson{
		{m.one(`SELECT id FROM users WHERE email = '` + apptest.Owner + `'`), dana, true},
		{"usr_bob", m.again("bob@acme.example"), true},
	}
	m.apps = []*modelApp{m.newApp(), m.newApp()}
	return m
}

func (m *model) newApp() *modelApp {
	return &modelApp{Registration: m.register(`{"client_name":"App","redirect_uris":["` + apptest.Callback + `"]}`)}
}

// pick is any one of them; nil if there is none.
func pick[T any](m *model, all []*T) *T {
	if len(all) == 0 {
		return nil
	}
	return all[m.r.IntN(len(all))]
}

func (m *model) some() (scopes []string) {
	for len(scopes) == 0 {
		for _, s := range modelScopes {
			if m.r.IntN(2) == 0 {
				scopes = append(scopes, s)
			}
		}
	}
	return scopes
}

func (m *model) note(format string, args ...any) {
	m.done = append(m.done, fmt.Sprintf(format, args...))
}

// steps are what can happen, the frequent ones more often.
var modelSteps = []func(*model){
	(*model).allow, (*model).allow, (*model).allow, (*model).redeem, (*model).redeem, (*model).redeem, (*model).refreshOne, (*model).refreshOne,
	(*model).refreshOne, (*model).refreshOne, (*model).wait, (*model).revokeOne, (*model).withdraw, (*model).suspend, (*model).remove,
}

// allow is a person who is asked and ticks something, or nothing.
func (m *model) allow() {
	p, a := pick(m, m.people), pick(m, m.apps)
	asked := m.some()
	if !p.active || a.removed {
		return
	}
	query, verifier := m.Authorization(a.ClientID, with("scope", strings.Join(asked, " ")))
	form := m.asked(p.browser, query)
	var refusedLines []string
	for _, s := range modelScopes {
		if form.Has("scope:"+s) && m.r.IntN(4) == 0 {
			form.Del("scope:" + s)
			refusedLines = append(refusedLines, s)
		}
	}
	target := apptest.Target(p.browser.Submit("/consent", form).Text)
	granted := less(asked, refusedLines)
	m.note("allow %s %s asked %v refused %v", p.id, a.ClientID[:4], asked, refusedLines)
	if target == nil { // nothing was ticked, so the answer did not count
		if len(granted) > 0 {
			m.t.Fatalf("no way back")
		}
		return
	}
	for _, f := range m.families {
		if f.person == p && f.app == a && common(f.scopes, refusedLines) {
			f.ended = true
		}
	}
	for _, c := range m.codes {
		if c.person == p && c.app == a && c.family == nil && common(c.scopes, refusedLines) {
			c.dead = true
		}
	}
	m.codes = append(m.codes, &modelCode{person: p, app: a, code: target.Query().Get("code"), verifier: verifier, scopes: granted})
}

func less(all, without []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(without, s) })
}

func common(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// redeem presents a code, eight times at once: there is one winner, and whoever
// comes second with a good verifier ends what it became (R319).
func (m *model) redeem() {
	c := pick(m, m.codes)
	if c == nil {
		return
	}
	answers := make([]apptest.Answer, 1+7*m.r.IntN(2))
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = m.Redeem(c.app.ClientID, c.code, c.verifier, nil) })
	}
	all.Wait()
	good := slices.DeleteFunc(slices.Clone(answers), func(a apptest.Answer) bool { return a.StatusCode != http.StatusOK })
	m.note("redeem %s %s ×%d: %d won", c.person.id, c.app.ClientID[:4], len(answers), len(good))
	may := c.family == nil && !c.dead && c.person.active && !c.app.removed
	switch {
	case len(good) > 1, may != (len(good) == 1):
		m.fail("%d of %d won, may %t", len(good), len(answers), may)
	case len(good) == 1:
		c.family = &modelFamily{person: c.person, app: c.app, scopes: c.scopes, ended: len(answers) > 1}
		m.families = append(m.families, c.family)
		m.got(c.family, nil, good[0])
	case c.family != nil && !c.app.removed:
		c.family.ended = true
	}
}

// got takes a pair into the model. It never says more than the family may.
func (m *model) got(f *modelFamily, parent *modelRefresh, a apptest.Answer) {
	var tokens oauth.TokenResponse
	a.JSON(m.t, &tokens)
	for s := range strings.FieldsSeq(tokens.Scope) {
		if !slices.Contains(f.scopes, s) {
			m.fail("a token for %s of a family for %v", s, f.scopes)
		}
	}
	f.access = append(f.access, &modelAccess{raw: tokens.AccessToken})
	f.refreshes = append(f.refreshes, &modelRefresh{raw: tokens.RefreshToken, parent: parent})
}

// refreshOne presents any refresh token of any family, and may ask for less, or
// for more than there is.
func (m *model) refreshOne() {
	f := pick(m, m.families)
	if f == nil {
		return
	}
	r, asked := pick(m, f.refreshes), m.some()
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {f.app.ClientID}, "refresh_token": {r.raw}}
	if m.r.IntN(2) == 0 {
		form.Set("scope", strings.Join(asked, " "))
	}
	a := m.Form("/oauth/token", form)
	tooMuch := form.Has("scope") && len(less(asked, f.scopes)) > 0
	good := !f.ended && !r.late && f.person.active && !f.app.removed && !tooMuch
	m.note("refresh of %s %s late %t asked %q: %d", f.person.id, f.app.ClientID[:4], r.late, form.Get("scope"), a.StatusCode)
	if good != (a.StatusCode == http.StatusOK) {
		m.fail("%d %s, good %t", a.StatusCode, a.Text, good)
	}
	if good {
		m.got(f, r, a)
		if r.parent != nil {
			r.parent.child = true
		}
	} else if r.late && !f.app.removed {
		f.ended = true
	}
}

// wait lets the window of every spent refresh token pass.
func (m *model) wait() {
	m.SQL(`UPDATE refresh_token SET child_used_at = child_used_at - 120000000 WHERE child_used_at IS NOT NULL`)
	for _, f := range m.families {
		for _, r := range f.refreshes {
			r.late = r.child
		}
	}
	m.note("wait")
}

// revokeOne is an app that gives a token back (RFC 7009): a refresh token with all
// of its family, an access token alone.
func (m *model) revokeOne() {
	f := pick(m, m.families)
	if f == nil || f.app.removed {
		return
	}
	if m.r.IntN(2) == 0 {
		access := pick(m, f.access)
		access.ended = true
		m.Form("/oauth/revoke", url.Values{"client_id": {f.app.ClientID}, "token": {access.raw}})
		m.note("revoke an access token of %s %s", f.person.id, f.app.ClientID[:4])
		return
	}
	r := pick(m, f.refreshes)
	m.Form("/oauth/revoke", url.Values{"client_id": {f.app.ClientID}, "token": {r.raw}})
	f.ended = true
	m.note("revoke a refresh token of %s %s", f.person.id, f.app.ClientID[:4])
}

// withdraw is a person who removes an app (R416).
func (m *model) withdraw() {
	p, a := pick(m, m.people), pick(m, m.apps)
	id := m.one(`SELECT COALESCE(max(id), '') FROM consent WHERE user_id = '` + p.id + `' AND client = '` + a.ClientID + `' AND ended_at IS NULL`)
	if !p.active || id == "" {
		return
	}
	answer := p.browser.Submit("/me/remove", url.Values{"id": {id}, "csrf": {apptest.Fields(p.browser.Open("/me").Text).Get("csrf")}})
	removed, lives := strings.Contains(answer.Text, "It stopped working at once"), m.lives(p, a)
	if lives && !removed {
		m.fail("not removed: %d %s", answer.StatusCode, answer.Text)
	}
	m.end(func(person *modelPerson, app *modelApp) bool { return person == p && app == a })
	m.note("%s removes %s", p.id, a.ClientID[:4])
}

// lives reports whether the app holds anything with which it can act for the person.
func (m *model) lives(p *modelPerson, a *modelApp) bool {
	return slices.ContainsFunc(m.families, func(f *modelFamily) bool { return f.person == p && f.app == a && !f.ended }) ||
		slices.ContainsFunc(m.codes, func(c *modelCode) bool { return c.person == p && c.app == a && c.family == nil && !c.dead })
}

func (m *model) end(which func(*modelPerson, *modelApp) bool) {
	for _, f := range m.families {
		f.ended = f.ended || which(f.person, f.app)
	}
	for _, c := range m.codes {
		c.dead = c.dead || which(c.person, c.app)
	}
}

// suspend is an operator who suspends somebody, or lets them in again.
func (m *model) suspend() {
	p := pick(m, m.people)
	p.active = !p.active
	m.SQL(`UPDATE member SET status = $1 WHERE user_id = $2`, map[bool]string{true: "active", false: "suspended"}[p.active], p.id)
	m.note("%s active %t", p.id, p.active)
}

// remove is an app that deletes its registration; another comes in its place.
func (m *model) remove() {
	i := m.r.IntN(len(m.apps))
	a := m.apps[i]
	m.manage(http.MethodDelete, "/registration/"+a.ClientID, a.RegistrationToken, "")
	a.removed = true
	m.apps[i] = m.newApp()
	m.end(func(_ *modelPerson, app *modelApp) bool { return app == a })
	m.note("%s is gone", a.ClientID[:4])
}

// look compares some access tokens with what the model says. Of somebody who is
// suspended a verdict may be a minute old, so they are not asked.
func (m *model) look() {
	for range 4 {
		f := pick(m, m.families)
		if f == nil || !f.person.active {
			continue
		}
		access := pick(m, f.access)
		if want := !f.ended && !access.ended; m.works(access.raw) != want {
			m.fail("a token of %s %s works %t, want %t", f.person.id, f.app.ClientID[:4], !want, want)
		}
	}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s, after:\n%s", fmt.Sprintf(format, args...), strings.Join(m.done, "\n"))
}

// R319, R413, R416, R420, libraries.md §2: authority only shrinks from consent to
// family to token; whatever the order in which tokens are refreshed, replayed and
// revoked, consents withdrawn, people suspended and apps removed, no token outlives
// its right, and none that has one is refused. GATEHOUSE_TEST_SEEDS makes more of
// them.
func TestAuthorityOnlyShrinks(t *testing.T) {
	seeds, err := strconv.ParseUint(os.Getenv("GATEHOUSE_TEST_SEEDS"), 10, 64)
	if err != nil {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			onEach(t, func(t *testing.T, h house) {
				m := newModel(t, h, seed)
				for range 60 {
					modelSteps[m.r.IntN(len(modelSteps))](m)
					m.look()
				}
			})
		})
	}
}
