package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver
)

// loads are how many callers ask at once, and how many codes they exchange in a
// round.
var loads = []struct{ callers, codes int }{{1, 100}, {16, 800}, {64, 1600}}

// A desk is one build with one database.
type desk struct {
	*app
	way    *way
	access []string // tokens of the last round, none of which was used yet
	held   []string // a refresh token for each caller
	robots []robot  // with a secret, and with a key
}

// tokens measures the token endpoint, and what it costs to check a token.
func (h *house) tokens(ctx context.Context) error {
	engines := []string{"SQLite"}
	if *server != "" {
		engines = append(engines, "PostgreSQL")
	}
	fmt.Println("\n| database | operation | callers | build | per second | of before | p50 | p99 | CPU per operation, gatehouse | memory |")
	fmt.Println("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, engine := range engines {
		desks, err := h.desks(ctx, engine)
		if err != nil {
			return err
		}
		for _, load := range loads {
			if err := h.counter(ctx, engine, desks, load.callers, load.codes); err != nil {
				return err
			}
		}
	}
	return nil
}

// desks starts every build on an empty database.
func (h *house) desks(ctx context.Context, engine string) (desks []*desk, err error) {
	for i, b := range h.builds {
		args := []string{"serve", "--dev", "--data-dir", h.data(engine, i)}
		if engine != "SQLite" {
			address, err := h.database(ctx)
			if err != nil {
				return nil, err
			}
			args = append(args, "--database", address, "--master-key-file", filepath.Join(h.dir, fmt.Sprintf("master%d.key", i)))
		}
		w, err := h.run(ctx, b.name, b.program, append(args, "--listen")...)
		if err != nil {
			return nil, err
		}
		a, err := register(ctx, w, w.url(), "mcp:tools")
		if err != nil {
			return nil, err
		}
		robots, err := h.robots(ctx, b.program, h.data(engine, i))
		if err != nil {
			return nil, err
		}
		desks = append(desks, &desk{app: a, way: w, robots: robots})
	}
	return desks, nil
}

// database makes an empty one and drops it at the end.
func (h *house) database(ctx context.Context) (string, error) {
	u, err := url.Parse(*server)
	if err != nil {
		return "", errors.New("-postgres is not an address")
	}
	db, err := sql.Open("pgx", *server)
	if err != nil {
		return "", err
	}
	name := "gatehouse_bench_" + rand.Text()
	if _, err := db.ExecContext(ctx, `CREATE DATABASE "`+name+`"`); err != nil {
		return "", errors.Join(err, db.Close())
	}
	h.clean = append(h.clean, func() error {
		_, err := db.Exec(`DROP DATABASE "` + name + `" WITH (FORCE)`)
		return errors.Join(err, db.Close())
	})
	u.Path = "/" + name
	return u.String(), nil
}

// counter measures all operations under one load and prints them. The tokens
// that an exchange gives are checked twice: the first time nobody knows them.
func (h *house) counter(ctx context.Context, engine string, desks []*desk, callers, codes int) error {
	operations := []string{"code exchange", "token check, first time", "token check, again", "refresh"}
	rows := make([][]*row, len(operations)) // [operation][desk]
	of := map[*row]int{}
	for i := range operations {
		for k, d := range desks {
			r := &row{tool: operations[i], workers: callers, way: d.way}
			rows[i], of[r] = append(rows[i], r), k
		}
	}
	err := inTurn(rows[0], func(r *row) error {
		k := of[r]
		d := desks[k]
		if err := d.exchanges(ctx, r, codes); err != nil {
			return err
		}
		for _, check := range []*row{rows[1][k], rows[2][k]} {
			if err := d.checks(ctx, check); err != nil {
				return err
			}
		}
		return d.refreshes(ctx, rows[3][k])
	})
	if err != nil {
		return err
	}
	for i := range operations {
		printed(engine, rows[i])
	}
	return h.machines(ctx, engine, desks, callers)
}

// next counts what the callers share.
func next(n int, do func(i int) error) func(int) (bool, error) {
	var taken atomic.Int64
	return func(int) (bool, error) {
		i := int(taken.Add(1)) - 1
		if i >= n {
			return false, nil
		}
		return true, do(i)
	}
}

func (d *desk) exchanges(ctx context.Context, r *row, n int) error {
	codes, got := make([]string, n), make([]tokens, n)
	making := &row{workers: 16, way: d.way} // authorizing is not what is measured
	err := making.drive(next(n, func(i int) (err error) {
		codes[i], err = d.code(ctx)
		return err
	}))
	if err != nil {
		return err
	}
	err = r.drive(next(n, func(i int) (err error) {
		got[i], err = d.exchange(ctx, codes[i])
		return err
	}))
	d.access, d.held = nil, nil
	for _, t := range got {
		d.access, d.held = append(d.access, t.Access), append(d.held, t.Refresh)
	}
	return err
}

// checks pings with every token once: nothing is read or written but to check it.
func (d *desk) checks(ctx context.Context, r *row) error {
	return r.drive(next(len(d.access), func(i int) error {
		resp, text, err := send(ctx, d.hc, d.way.url(), http.Header{
			"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Authorization": {"Bearer " + d.access[i]},
		}, `{"jsonrpc":"2.0","id":1,"method":"ping"}`)
		if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`"result"`))) {
			err = fmt.Errorf("a ping was answered %s: %s", resp.Status, strings.TrimSpace(string(text)))
		}
		return err
	}))
}

// refreshes lets each caller refresh what it got the time before.
func (d *desk) refreshes(ctx context.Context, r *row) error {
	return r.drive(during(func(worker int) error {
		got, err := d.refresh(ctx, d.held[worker])
		d.held[worker] = got.Refresh
		return err
	}))
}
