package upstream

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gatehouse-mcp/gatehouse/internal/mcp"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// record is a server as the tables keep it.
type record struct {
	id, workspace, name string
	url, command        string // one of them; the command as a JSON array
	env                 []byte // sealed JSON object; nil if empty
	file                string // the configuration file that it belongs to; empty if a person added it
	provider            string
	tools               []mcp.ToolDefinition
}

// Sealed is what this room keeps sealed.
var Sealed = []seal.Column{environments}

var environments = seal.Column{Table: "upstream", ID: "id", Name: "env"}

// recordOf seals what must be.
func recordOf(srv *server, box seal.Box) (record, error) {
	r := record{id: srv.id, workspace: srv.workspace, name: srv.spec.Name, url: srv.spec.URL, tools: srv.tools, file: srv.file, provider: srv.spec.Provider}
	if srv.spec.URL == "" {
		command, err := json.Marshal(srv.spec.Command)
		if err != nil {
			return r, err
		}
		r.command = string(command)
	}
	if len(srv.spec.Env) == 0 {
		return r, nil
	}
	plain := map[string]string{}
	for name, value := range srv.spec.Env {
		plain[name] = value.Reveal()
	}
	env, err := json.Marshal(plain)
	if err != nil {
		return r, err
	}
	r.env, err = box.Seal(environments.Place(r.id), env)
	return r, err
}

// spec opens what was sealed.
func (r record) spec(box seal.Box) (Spec, error) {
	spec := Spec{Name: r.name, URL: r.url, Provider: r.provider}
	if r.url == "" {
		if err := json.Unmarshal([]byte(r.command), &spec.Command); err != nil {
			return spec, fmt.Errorf("read the command: %w", err)
		}
	}
	if len(r.env) == 0 {
		return spec, nil
	}
	env, err := box.Open(environments.Place(r.id), r.env)
	if err != nil {
		return spec, err
	}
	var plain map[string]string
	if err := json.Unmarshal(env, &plain); err != nil {
		return spec, fmt.Errorf("read the environment: %w", err)
	}
	spec.Env = hide(plain)
	return spec, nil
}

func hide(plain map[string]string) map[string]seal.Secret {
	env := make(map[string]seal.Secret, len(plain))
	for name, value := range plain {
		env[name] = seal.Hide(value)
	}
	return env
}

// insert adds the server with its pinned tools. It reports whether the name was free.
func insert(tx *store.Tx, r record) (bool, error) {
	free, err := tx.One(`INSERT INTO upstream (id, workspace, name, url, command, env, file, provider, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		r.id, r.workspace, r.name, r.url, r.command, r.env, r.file, r.provider, tx.Now)
	if err != nil || !free {
		return false, err
	}
	for i, d := range r.tools {
		_, err := tx.Exec(`INSERT INTO upstream_tool (upstream, position, workspace, definition) VALUES ($1, $2, $3, $4)`,
			r.id, i, r.workspace, string(d))
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// remove deletes a server. It reports whether there was one.
func remove(tx *store.Tx, workspace, name string) (bool, error) {
	_, err := tx.Exec(`DELETE FROM upstream_tool WHERE workspace = $1
		AND upstream IN (SELECT id FROM upstream WHERE workspace = $1 AND name = $2)`, workspace, name)
	if err != nil {
		return false, err
	}
	return tx.One(`DELETE FROM upstream WHERE workspace = $1 AND name = $2`, workspace, name)
}

// taken reports whether any workspace has a server of this name: names are
// unique per instance.
func taken(ctx context.Context, db *store.DB, name string) (bool, error) {
	var n int
	err := db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM upstream WHERE name = $1`, name).Scan(&n)
	})
	return n > 0, err
}

// ids are those of all servers of every workspace.
func ids(tx *store.Tx) (map[string]bool, error) {
	return collect(tx, map[string]bool{}, func(rows store.Rows, all map[string]bool) (map[string]bool, error) {
		var id string
		err := rows.Scan(&id)
		all[id] = true
		return all, err
	}, `SELECT id FROM upstream`)
}

// read is the server with this id and its pinned tools.
func read(tx *store.Tx, id string) (record, error) {
	r := record{id: id}
	err := tx.QueryRow(`SELECT workspace, name, url, command, env, file, provider FROM upstream WHERE id = $1`, id).
		Scan(&r.workspace, &r.name, &r.url, &r.command, &r.env, &r.file, &r.provider)
	if err != nil {
		return r, err
	}
	r.tools, err = collect(tx, nil, func(rows store.Rows, tools []mcp.ToolDefinition) ([]mcp.ToolDefinition, error) {
		var d string
		err := rows.Scan(&d)
		return append(tools, mcp.ToolDefinition(d)), err
	}, `SELECT definition FROM upstream_tool WHERE workspace = $1 AND upstream = $2 ORDER BY position`, r.workspace, id)
	return r, err
}

// collect folds the rows of a query.
func collect[T any](tx *store.Tx, all T, add func(store.Rows, T) (T, error), query string, args ...any) (T, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return all, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if all, err = add(rows, all); err != nil {
			return all, err
		}
	}
	return all, rows.Err()
}
