package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/problem"
)

var (
	migrationChanged = problem.Code{
		Name: "MIGRATION_CHANGED", Kind: problem.Unavailable,
		Why: "the database was made by another build of Gatehouse",
		Fix: "use the version that made it, or a newer release",
	}
	migrationNewer = problem.Code{
		Name: "MIGRATION_NEWER", Kind: problem.Unavailable,
		Why: "a newer release has changed the tables, and this one does not know how to use them",
		Fix: "start the newer release again, or go back to a copy of the database from before it",
	}
)

// Migrate applies the room's *.sql files, in the order of their names, each once
// for all nodes. The row in the table migration is the lock. A file that was
// changed after it was applied is refused, and so is a database to which a newer
// release has applied more.
func (db *DB) Migrate(ctx context.Context, room string, files fs.FS) error {
	db = db.root() // a migration takes as long as it takes
	err := db.Do(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`CREATE TABLE IF NOT EXISTS migration (
			room TEXT NOT NULL, file TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL,
			PRIMARY KEY (room, file))`)
		if err != nil {
			return err
		}
		_, err = tx.Exec(leaseTable)
		return err
	})
	if err != nil {
		return fmt.Errorf("create the tables of migrations and leases: %w", err)
	}
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return err
	}
	if err := db.View(ctx, func(tx *Tx) error { return noneNewer(tx, room, names) }); err != nil {
		return err
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if err := db.Do(ctx, func(tx *Tx) error { return apply(tx, room, name, string(text)) }); err != nil {
			return fmt.Errorf("migrate %s/%s: %w", room, name, err)
		}
	}
	return nil
}

// Migrations is how many files have been applied to the database.
func (db *DB) Migrations(ctx context.Context) (n int, err error) {
	err = db.View(ctx, func(tx *Tx) error { return tx.QueryRow(`SELECT count(*) FROM migration`).Scan(&n) })
	return n, err
}

func apply(tx *Tx, room, name, text string) error {
	sum := sha256.Sum256([]byte(text))
	checksum := hex.EncodeToString(sum[:])
	first, err := tx.One(`INSERT INTO migration (room, file, checksum, applied_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT DO NOTHING`, room, name, checksum, tx.Now)
	if err != nil {
		return err
	}
	if !first {
		return unchanged(tx, room, name, checksum)
	}
	for statement := range strings.SplitSeq(text, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := tx.Exec(statement); err != nil {
			return err
		}
	}
	return nil
}

func unchanged(tx *Tx, room, name, checksum string) error {
	var applied string
	err := tx.QueryRow(`SELECT checksum FROM migration WHERE room = $1 AND file = $2`, room, name).Scan(&applied)
	if err == nil && applied != checksum {
		return migrationChanged.New("the tables of %q are of another build", room)
	}
	return err
}

// noneNewer refuses tables that were migrated by a file we do not have.
func noneNewer(tx *Tx, room string, names []string) error {
	rows, err := tx.Query(`SELECT file FROM migration WHERE room = $1`, room)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var file string
		if err := rows.Scan(&file); err != nil {
			return err
		}
		if !slices.Contains(names, file) {
			return migrationNewer.New("the tables of %q are of a newer release", room).WithWhy("%s has been applied to them", file)
		}
	}
	return rows.Err()
}
