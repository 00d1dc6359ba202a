package token

import "sync"

// watches are what runs on the strength of a token: streams, and calls that take
// a while. They sleep until they are told, however many they are.
type watches struct {
	mu   sync.Mutex
	byID map[string]map[*watch]struct{}
}

type watch struct {
	ids []string
	end func(error)
}

// Watch calls end as soon as one of the ids is revoked, with an ErrToken, or this
// node can no longer tell, with an Unknown problem; at once, if that is so
// already. end may be called more than once, from any goroutine, and must not
// block. stop forgets the watch: without it, it stays.
func (t *Tokens) Watch(end func(error), ids ...string) (stop func()) {
	w := &watch{ids, end}
	t.watches.add(w)
	if err := t.Live(ids...); err != nil { // asked after adding: what is revoked from now on is told
		end(err)
	}
	return func() { t.watches.remove(w) }
}

func (ws *watches) add(w *watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byID == nil {
		ws.byID = map[string]map[*watch]struct{}{}
	}
	for _, id := range w.ids {
		if ws.byID[id] == nil {
			ws.byID[id] = map[*watch]struct{}{}
		}
		ws.byID[id][w] = struct{}{}
	}
}

func (ws *watches) remove(w *watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, id := range w.ids {
		if delete(ws.byID[id], w); len(ws.byID[id]) == 0 {
			delete(ws.byID, id)
		}
	}
}

// end ends the watches of id.
func (ws *watches) end(err error, id string) {
	ws.mu.Lock()
	ending := make([]*watch, 0, len(ws.byID[id]))
	for w := range ws.byID[id] {
		ending = append(ending, w)
	}
	ws.mu.Unlock()
	for _, w := range ending {
		w.end(err)
	}
}

// endAll ends every watch.
func (ws *watches) endAll(err error) {
	ws.mu.Lock()
	ids := make([]string, 0, len(ws.byID))
	for id := range ws.byID {
		ids = append(ids, id)
	}
	ws.mu.Unlock()
	for _, id := range ids {
		ws.end(err, id)
	}
}
