// Package audit keeps everything that was decided and done, as a chain of
// hashes.
//
// An event is recorded in the transaction of what it records, or before it: no
// record, no change. The events of a workspace are one chain, numbered without
// gaps; each contains the hash of the one before, so a line that is changed,
// dropped, added or moved is found, and a signed head shows where a copy ends
// (R1013, R1111, R1406).
package audit

import (
	"context"
	"crypto/ed25519"
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

//go:embed *.sql
var migrations embed.FS

// Codes are the problems of this package.
var Codes = []problem.Code{Unavailable, chainUnknown, traceUnknown}

// Unavailable is the code of everything that was not done because it could not
// be recorded.
var Unavailable = problem.Code{
	Name: "AUDIT_UNAVAILABLE", Kind: problem.Unavailable,
	Why: "the audit log cannot be written, and what is not recorded is not done",
	Fix: "the operator checks that the database runs, has room and can be written; then try again",
}

// Log is the audit log. Open must be called before anything else, and Seal must
// be the store's pre-commit hook. It is safe for concurrent use.
type Log struct {
	DB  *store.DB
	Box seal.Box // keeps the key that signs heads

	Guest bool // is this process one beside a server that keeps the same database? Recover leaves its calls alone

	key  ed25519.PrivateKey
	node string // names this process

	carried carried

	mu   sync.Mutex // of the batch of Write that takes more
	open *batch
	last <-chan struct{}

	crowded atomic.Bool // the last commit of Write had many events

	strangers strangers
}

// Open makes the tables and loads the key that signs heads, making it if there
// is none.
func (l *Log) Open(ctx context.Context) error {
	l.node = store.ID("node_")
	if l.Guest {
		l.node = store.ID(guest)
	}
	if err := l.DB.Migrate(ctx, "audit", migrations); err != nil {
		return err
	}
	return l.loadKey(ctx)
}

// Append records the event with the transaction: both happen or neither does.
// Nothing is written until the commit.
func (l *Log) Append(tx *store.Tx, e Event) { tx.Buffer(newRow(e, tx.Now)) }

// Seal is the store's pre-commit hook: it takes the heads of the chains, in one
// order everywhere, and writes what was appended. If it fails, the transaction
// does not happen.
func (l *Log) Seal(tx *store.Tx, buffered []any) error {
	chains := map[string][]*row{}
	for _, v := range buffered {
		r, ok := v.(*row)
		if !ok {
			return fmt.Errorf("audit: %T is not an event", v)
		}
		if err := r.fault(); err != nil {
			return unrecorded(tx, err)
		}
		chains[r.Workspace] = append(chains[r.Workspace], r)
	}
	for _, workspace := range slices.Sorted(maps.Keys(chains)) {
		if err := extend(tx, workspace, chains[workspace]); err != nil {
			return unrecorded(tx, err)
		}
	}
	return nil
}

// extend appends rows to a chain. The row of the head is the lock: whoever has
// moved it is alone until the commit.
func extend(tx *store.Tx, workspace string, rows []*row) error {
	var seq int64
	var prev string
	err := tx.QueryRow(`INSERT INTO audit_head (workspace, seq, hash) VALUES ($1, $2, $3)
		ON CONFLICT (workspace) DO UPDATE SET seq = audit_head.seq + excluded.seq
		RETURNING seq, hash`, workspace, len(rows), genesis).Scan(&seq, &prev)
	if err != nil {
		return fmt.Errorf("take the head of the chain: %w", err)
	}
	seq -= int64(len(rows))
	buf := make([]byte, 0, 1024)
	for i, r := range rows {
		r.Seq, r.Prev = seq+int64(i)+1, prev
		if r.Hash, buf, err = r.digest(buf); err != nil {
			return fmt.Errorf("hash an event: %w", err)
		}
		prev = r.Hash
	}
	for chunk := range slices.Chunk(rows, maxInsert) {
		if err := insert(tx, chunk); err != nil {
			return err
		}
	}
	return tx.Later(told(tx, "move the head of the chain"), `UPDATE audit_head SET hash = $2 WHERE workspace = $1`, workspace, prev)
}

// told is how the failure of a statement of the log is told.
func told(ctx context.Context, what string) func(error) error {
	return func(err error) error { return unrecorded(ctx, fmt.Errorf("%s: %w", what, err)) }
}

// maxInsert keeps the number of different statements small, and each short: the
// SQLite driver's cost of a parameter grows with the number of parameters.
const maxInsert = 4

func insert(tx *store.Tx, rows []*row) error {
	args := make([]any, 0, len(rows)*len(fields))
	for _, r := range rows {
		for i := range fields {
			if f := &fields[i]; f.number != nil {
				args = append(args, *f.number(r))
			} else {
				args = append(args, *f.text(r))
			}
		}
	}
	return tx.Later(told(tx, "insert events"), inserts[len(rows)], args...)
}

// inserts are the statements that insert 1 to maxInsert rows.
var inserts = func() (texts [maxInsert + 1]string) {
	var values strings.Builder
	for n := 1; n <= maxInsert; n++ {
		separator := ", ("
		for i := range fields {
			values.WriteString(separator + "$" + strconv.Itoa((n-1)*len(fields)+i+1))
			separator = ", "
		}
		values.WriteString(")")
		texts[n] = "INSERT INTO audit_event (" + columns + ") VALUES " + values.String()[len(", "):]
	}
	return texts
}()

// unrecorded is what a caller sees when its event could not be written.
func unrecorded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e, ok := errors.AsType[*problem.Error](err); ok && e.Name == Unavailable.Name {
		return err
	}
	return Unavailable.New("the request was not carried out: it could not be recorded").Because(err)
}
