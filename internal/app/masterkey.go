package app

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/authserver"
	"github.com/gatehouse-mcp/gatehouse/internal/mcpserver"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
	"github.com/gatehouse-mcp/gatehouse/internal/upstream"
	"github.com/gatehouse-mcp/gatehouse/internal/vault"
)

// sealed are the columns of all rooms that the master key seals. What is sealed and
// handed to clients, such as ids of sessions, is in none: it is made anew when it
// does not open.
var sealed = slices.Concat(token.Sealed, audit.Sealed, authserver.Sealed, vault.Sealed, upstream.Sealed, mcpserver.Sealed)

var (
	masterKeyUnchanged = problem.Code{
		Name: "MASTER_KEY_UNCHANGED", Kind: problem.Conflict,
		Fix:   "see that the server may write its master key file, or change the file by hand: it holds keys of 32 bytes one after the other, and the first seals",
		About: "the file of the master key could not be changed as asked",
	}
	masterKeyUnknown = problem.Code{
		Name: "MASTER_KEY_UNKNOWN", Kind: problem.NotFound,
		Why: "the file of this server does not hold it",
		Fix: "take the fingerprint from gatehouse keys master ls",
	}
	masterKeyNeeded = problem.Code{
		Name: "MASTER_KEY_NEEDED", Kind: problem.Conflict,
		Why: "without the old key they could not be read any more",
		Fix: "give every node the same key file, then seal them again: gatehouse keys master use FINGERPRINT",
	}
)

// masterKeyTools change the master key while the servers run (R1409). Every step
// can be repeated, and a crash between them leaves everything readable: a new key is
// added to the file, which every node has before the next step; it is used, and all
// that is kept is sealed again under it; the old one is dropped when nothing needs it.
func (h *house) masterKeyTools() []tool.Tool {
	def := func(name, doc string, effect tool.Effect, scope string) tool.Def {
		return tool.Def{Name: name, Doc: doc, Effect: effect, Caller: principal.Owner, Scope: scope, Direct: true}
	}
	return []tool.Tool{
		tool.Reach(def("list_master_keys", "List the keys of the master key file, and how much is sealed under each.", tool.Reads, "security:read"),
			func(ctx context.Context, _ principal.Principal, _ nothing) (masterKeys, error) {
				return h.masterKeys(ctx)
			}),
		tool.Reach(def("add_master_key", "Add a new key to the master key file. It seals nothing until it is used.", tool.Writes, "security:write"),
			func(ctx context.Context, _ principal.Principal, _ nothing) (masterKeys, error) {
				if _, err := h.key.Add(); err != nil {
					return masterKeys{}, masterKeyUnchanged.New("no master key was added").WithWhy("%v", err).Because(err)
				}
				return h.masterKeys(ctx)
			}),
		tool.Reach(def("use_master_key", "Let a key of the master key file seal from now on, and seal everything again under it.", tool.Writes, "security:write"), h.useMasterKey),
		tool.Reach(def("drop_master_keys", "Take all keys out of the master key file but the one that seals. Ids of open MCP sessions that the others sealed end.", tool.Destroys, "security:write"), h.dropMasterKeys),
	}
}

type masterKeys struct {
	Keys []masterKey `json:"keys"`
	File string      `json:"file"`
}

type masterKey struct {
	Fingerprint string `json:"fingerprint"`
	Seals       bool   `json:"seals" jsonschema:"true for the one that seals; all open"`
	Values      int    `json:"values" jsonschema:"how much of what is kept is sealed under it"`
}

func (h *house) masterKeys(ctx context.Context) (masterKeys, error) {
	if _, err := h.key.Refresh(); err != nil { // so that a node can be asked whether it has the file
		return masterKeys{}, masterKeyUnusable.New("the master key %s can't be used", h.config.MasterKeyFile).WithWhy("%v", err).Because(err)
	}
	under, err := h.countSealed(ctx)
	out := masterKeys{File: h.config.MasterKeyFile, Keys: []masterKey{}}
	for i, f := range h.key.Fingerprints() {
		out.Keys = append(out.Keys, masterKey{Fingerprint: f, Seals: i == 0, Values: under[f]})
	}
	return out, err
}

type useMasterKeyIn struct {
	Fingerprint string `json:"fingerprint" jsonschema:"of a key that list_master_keys shows"`
}

type useMasterKeyOut struct {
	masterKeys
	Sealed int `json:"sealed" jsonschema:"how many values were sealed again"`
}

func (h *house) useMasterKey(ctx context.Context, _ principal.Principal, in useMasterKeyIn) (useMasterKeyOut, error) {
	err := h.key.Use(in.Fingerprint)
	if errors.Is(err, seal.ErrNoSuchKey) {
		return useMasterKeyOut{}, masterKeyUnknown.New("the master key file holds no key %.64q", in.Fingerprint)
	}
	if err != nil {
		return useMasterKeyOut{}, masterKeyUnchanged.New("another master key could not be used").WithWhy("%v", err).Because(err)
	}
	n, err := h.sealAgain(ctx)
	if err != nil {
		return useMasterKeyOut{}, err
	}
	keys, err := h.masterKeys(ctx)
	return useMasterKeyOut{keys, n}, err
}

func (h *house) dropMasterKeys(ctx context.Context, _ principal.Principal, _ nothing) (masterKeys, error) {
	under, err := h.countSealed(ctx)
	if err != nil {
		return masterKeys{}, err
	}
	for _, old := range h.key.Fingerprints()[1:] {
		if under[old] > 0 {
			return masterKeys{}, masterKeyNeeded.New("%d values are sealed under the key %s", under[old], old)
		}
	}
	if err := h.key.Drop(); err != nil {
		return masterKeys{}, masterKeyUnchanged.New("no master key was dropped").WithWhy("%v", err).Because(err)
	}
	return h.masterKeys(ctx)
}

// sealedValue is one value as it is kept.
type sealedValue struct {
	id    string
	value []byte
}

// sealedAfter are the next few values of a column, in the order of their ids.
func sealedAfter(tx *store.Tx, c seal.Column, last string) (found []sealedValue, err error) {
	rows, err := tx.Query("SELECT "+c.ID+", "+c.Name+" FROM "+c.Table+" WHERE "+c.ID+" > $1 AND "+c.Name+" IS NOT NULL ORDER BY "+c.ID+" LIMIT 100", last)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var v sealedValue
		if err := rows.Scan(&v.id, &v.value); err != nil {
			return nil, err
		}
		v.value = bytes.Clone(v.value)
		found = append(found, v)
	}
	return found, rows.Err()
}

// countSealed says how many values that open are sealed under which key. One that
// opens under none is lost already.
func (h *house) countSealed(ctx context.Context) (under map[string]int, err error) {
	under = map[string]int{}
	box := seal.Box{Keeper: h.key}
	for _, c := range sealed {
		for last, more := "", true; more && err == nil; {
			err = h.db.View(ctx, func(tx *store.Tx) error {
				values, err := sealedAfter(tx, c, last)
				for _, v := range values {
					if _, failed := box.Open(c.Place(v.id), v.value); failed == nil {
						under[h.key.Under(v.value)]++
					}
					last = v.id
				}
				more = len(values) > 0
				return err
			})
		}
	}
	return under, err
}

// sealAgain seals under the first key what is sealed under others, a few values at
// a time. What changes meanwhile is sealed anew by whoever changes it.
func (h *house) sealAgain(ctx context.Context) (n int, err error) {
	for _, c := range sealed {
		for last, more := "", true; more && err == nil; {
			var next string
			var done int
			err = h.db.Do(ctx, func(tx *store.Tx) error {
				values, err := sealedAfter(tx, c, last)
				if err != nil {
					return err
				}
				next, done = last, 0
				for _, v := range values {
					changed, err := h.sealOne(tx, c, v)
					if err != nil {
						return err
					}
					if next = v.id; changed {
						done++
					}
				}
				return nil
			})
			last, more, n = next, next != last, n+done
		}
	}
	return n, err
}

func (h *house) sealOne(tx *store.Tx, c seal.Column, v sealedValue) (changed bool, err error) {
	if h.key.Under(v.value) == h.key.Fingerprint() {
		return false, nil
	}
	box := seal.Box{Keeper: h.key}
	plain, err := box.Open(c.Place(v.id), v.value)
	if err != nil {
		return false, nil // no key of ours opens it, so no key of ours is needed for it
	}
	again, err := box.Seal(c.Place(v.id), plain)
	if err != nil {
		return false, err
	}
	return tx.One("UPDATE "+c.Table+" SET "+c.Name+" = $1 WHERE "+c.ID+" = $2 AND "+c.Name+" = $3", again, v.id, v.value)
}

// followKey takes the keys of the file when it has changed.
func (h *house) followKey() {
	changed, err := h.key.Refresh()
	switch {
	case err != nil && h.keyFault != err.Error():
		h.log.Error("the master key file can't be used; what was read before stays in use", "err", err)
	case changed:
		h.log.Info("the master key file has changed", "seals", h.key.Fingerprint(), "keys", len(h.key.Fingerprints()))
	}
	h.keyFault = errText(err)
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
