package apptest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
)

// Dump is everything in the database, as text.
func (h *House) Dump() string {
	h.t.Helper()
	var b strings.Builder
	err := h.DB.View(h.t.Context(), func(tx *store.Tx) error {
		tables, err := column(tx, `SELECT name FROM sqlite_master WHERE type = 'table'`)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if err := rows(tx, `SELECT * FROM `+table, func(values []any) { fmt.Fprintf(&b, "%s %s\n", table, values) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil { // not SQLite
		b.Reset()
		err = h.DB.View(h.t.Context(), func(tx *store.Tx) error {
			tables, err := column(tx, `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'`)
			if err != nil {
				return err
			}
			for _, table := range tables {
				if err := rows(tx, `SELECT * FROM `+table, func(values []any) { fmt.Fprintf(&b, "%s %s\n", table, values) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String()
}

func column(tx *store.Tx, query string) (values []string, err error) {
	err = rows(tx, query, func(row []any) { values = append(values, fmt.Sprint(row[0])) })
	return values, err
}

func rows(tx *store.Tx, query string, see func([]any)) error {
	found, err := tx.Query(query)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }()
	names, err := found.Columns()
	if err != nil {
		return err
	}
	for found.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			return err
		}
		see(values)
	}
	return found.Err()
}

// Files is all that stands in the data folder, freed pages included.
func (h *House) Files() string {
	h.t.Helper()
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(h.Dir, e.Name()))
		if err != nil {
			h.t.Fatal(err)
		}
		b.Write(content)
	}
	return b.String()
}

// Find looks for a secret, or the secret half of it, as it is, escaped, in hex,
// and in base64 at any offset. It returns how it was spelt.
func Find(secret, text string) string {
	halves := []string{secret}
	if id, half, split := strings.Cut(secret, "."); split && len(half) > 10 && strings.Contains(id, "_") {
		halves = append(halves, half)
	}
	for _, s := range halves {
		spellings := map[string]string{"as it is": s, "escaped": url.QueryEscape(s), "in hex": hex.EncodeToString([]byte(s))}
		for offset := range 3 {
			for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				encoded := encoding.EncodeToString([]byte(strings.Repeat("\x00", offset) + s))
				start := (offset*8 + 5) / 6 // the characters that other bytes share in are left out
				spellings[fmt.Sprintf("in %s at offset %d", name, offset)] = encoded[start : len(encoded)-2]
			}
		}
		for how, spelling := range spellings {
			if strings.Contains(text, spelling) {
				return how
			}
		}
	}
	return ""
}

// Strangers are the refusals of strangers that the log has, by reason. They are
// written once a minute, and when the server stops.
func (h *House) Strangers() map[string]int {
	h.t.Helper()
	counts := map[string]int{}
	err := h.DB.View(h.t.Context(), func(tx *store.Tx) error {
		return rows(tx, `SELECT target, detail FROM audit_event WHERE workspace = 'system' AND action = 'stranger' AND outcome = 'denied'`, func(row []any) {
			var detail struct {
				Count int `json:"count,string"`
			}
			if err := json.Unmarshal([]byte(fmt.Sprint(row[1])), &detail); err != nil {
				h.t.Error(err)
			}
			counts[fmt.Sprint(row[0])] += detail.Count
		})
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return counts
}
