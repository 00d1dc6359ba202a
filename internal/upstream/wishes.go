package upstream

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

// wishes is what callers asked of one session with a server that lasts longer
// than a call: how much it logs, and whose changes it tells. A session that is
// opened again is asked again. Many callers may share the session; then the
// server is asked for what serves them all, and each hears its own part.
type wishes struct {
	mu      sync.Mutex
	levels  map[string]int             // by key of the caller's session
	watched map[string]map[string]bool // URI → keys
}

// maxWishes bounds what is remembered of one session with a server. Who comes
// after is refused, not remembered in the place of others.
const maxWishes = 10_000

const (
	setLevel    = "logging/setLevel"
	subscribe   = "resources/subscribe"
	unsubscribe = "resources/unsubscribe"
)

// add remembers the wish and returns the params with which the server is asked,
// or needless if it need not be.
func (w *wishes) add(key, method string, params json.RawMessage) (ask json.RawMessage, needless bool, err error) {
	switch method {
	case setLevel:
		ask, err = w.level(key, params)
	case subscribe:
		err = w.watch(key, mcp.Text(params, "uri"))
		ask = params
	case unsubscribe:
		needless = !w.unwatch(key, mcp.Text(params, "uri"))
		ask = params
	default:
		ask = params
	}
	return ask, needless, err
}

// level asks for the most that anybody wants to hear.
func (w *wishes) level(key string, params json.RawMessage) (json.RawMessage, error) {
	level := slices.Index(mcp.LogLevels, mcp.Text(params, "level"))
	if level < 0 {
		return nil, &mcp.Error{Code: mcp.InvalidParams, Message: "level must be one of " + strings.Join(mcp.LogLevels, ", ")}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.levels[key]; !known && len(w.levels) >= maxWishes {
		return nil, tooMany()
	}
	if w.levels == nil {
		w.levels = map[string]int{}
	}
	w.levels[key] = level
	if least := w.least(); least < level {
		return levelParams(least), nil
	}
	return params, nil
}

func (w *wishes) least() int {
	least := len(mcp.LogLevels) - 1
	for _, level := range w.levels {
		least = min(least, level)
	}
	return least
}

func levelParams(level int) json.RawMessage {
	return fmt.Appendf(nil, `{"level":%q}`, mcp.LogLevels[level])
}

func tooMany() error {
	return &mcp.Error{Code: mcp.InternalError, Message: "too many sessions ask this of the server"}
}

func (w *wishes) watch(key, uri string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := w.watched[uri]
	if keys == nil && len(w.watched) >= maxWishes || len(keys) >= maxWishes {
		return tooMany()
	}
	if w.watched == nil {
		w.watched = map[string]map[string]bool{}
	}
	if keys == nil {
		keys = map[string]bool{}
		w.watched[uri] = keys
	}
	keys[key] = true
	return nil
}

// unwatch reports whether nobody watches any more.
func (w *wishes) unwatch(key, uri string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watched[uri], key)
	if len(w.watched[uri]) > 0 {
		return false
	}
	delete(w.watched, uri)
	return true
}

// forget drops the wishes of a session that has ended and returns what the server
// is to be asked then.
func (w *wishes) forget(key string) (ask []mcp.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.levels, key)
	for uri, keys := range w.watched {
		if !keys[key] {
			continue
		}
		if delete(keys, key); len(keys) == 0 {
			delete(w.watched, uri)
			ask = append(ask, mcp.Message{Method: unsubscribe, Params: uriParams(uri)})
		}
	}
	return ask
}

func uriParams(uri string) json.RawMessage {
	quoted, _ := json.Marshal(uri) // strings always marshal
	return fmt.Appendf(nil, `{"uri":%s}`, quoted)
}

// again is what a server is asked that has forgotten the session.
func (w *wishes) again() (ask []mcp.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.levels) > 0 {
		ask = append(ask, mcp.Message{Method: setLevel, Params: levelParams(w.least())})
	}
	for uri := range w.watched {
		ask = append(ask, mcp.Message{Method: subscribe, Params: uriParams(uri)})
	}
	return ask
}

// wants reports whether a session is to hear a notification: not what is less
// urgent than it asked for, nor changes of what it does not watch. A server may
// tell of what lies below a URI that is watched.
func (w *wishes) wants(key string, m mcp.Message) bool {
	switch m.Method {
	case "notifications/message":
		w.mu.Lock()
		defer w.mu.Unlock()
		level, asked := w.levels[key]
		return !asked || slices.Index(mcp.LogLevels, mcp.Text(m.Params, "level")) >= level
	case "notifications/resources/updated":
		changed := mcp.Text(m.Params, "uri")
		w.mu.Lock()
		defer w.mu.Unlock()
		for uri, keys := range w.watched {
			if keys[key] && strings.HasPrefix(changed, uri) {
				return true
			}
		}
		return false
	}
	return true
}

// ears are those who listen to a session that many share.
type ears struct {
	mu sync.Mutex
	m  map[*ear]struct{}
}

type ear struct {
	key  string
	peer tool.Peer
}

// add lets the peer hear until the returned function is called.
func (e *ears) add(key string, peer tool.Peer) (remove func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.m == nil {
		e.m = map[*ear]struct{}{}
	}
	one := &ear{key, peer}
	e.m[one] = struct{}{}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.m, one)
	}
}

// changes are the notifications outside of calls that concern callers. What a
// server logs there may be about anybody's call, and a new list of tools changes
// nothing: they stay as they were pinned.
var changes = map[string]bool{
	"notifications/resources/updated": true, "notifications/resources/list_changed": true, "notifications/prompts/list_changed": true,
}

// hear tells everybody whom it concerns.
func (e *ears) hear(m mcp.Message, w *wishes) {
	if !changes[m.Method] {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for one := range e.m {
		if w.wants(one.key, m) {
			one.peer.Notify(m.Method, m.Params)
		}
	}
}
