package audit

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// R1111: the verifier reports the first break, whatever was done to the rows.
func TestTamperedRowsAreFoundAndNamed(t *testing.T) {
	tests := []struct {
		name, sql string
		seq       int64
	}{
		{"row changed", `UPDATE audit_event SET outcome = 'denied' WHERE workspace = 'a' AND seq = 3`, 3},
		{"text moved between fields", `UPDATE audit_event SET detail = '{},"door":"mcp"', door = '' WHERE workspace = 'a' AND seq = 3`, 3},
		{"detail spelled differently", `UPDATE audit_event SET detail = '{"k": "v"}' WHERE workspace = 'a' AND seq = 3`, 3},
		{"detail is no object", `UPDATE audit_event SET detail = '"k"' WHERE workspace = 'a' AND seq = 3`, 3},
		{"hash changed", `UPDATE audit_event SET hash = prev_hash WHERE workspace = 'a' AND seq = 3`, 3},
		{"row dropped", `DELETE FROM audit_event WHERE workspace = 'a' AND seq = 3`, 3},
		{"first row dropped", `DELETE FROM audit_event WHERE workspace = 'a' AND seq = 1`, 1},
		{"last row dropped", `DELETE FROM audit_event WHERE workspace = 'a' AND seq = 5`, 5},
		{"all rows dropped", `DELETE FROM audit_event WHERE workspace = 'a'`, 1},
		{"row numbered differently", `UPDATE audit_event SET seq = 9 WHERE workspace = 'a' AND seq = 3`, 3},
		{"row before the first", `UPDATE audit_event SET seq = 0 WHERE workspace = 'a' AND seq = 5`, 1},
		{"row of another chain", `UPDATE audit_event SET workspace = 'a', seq = 6 WHERE workspace = 'b' AND seq = 1`, 6},
		{"row moved to another chain", `UPDATE audit_event SET workspace = 'c' WHERE workspace = 'a' AND seq = 5`, 5},
		{"head forgotten", `DELETE FROM audit_head WHERE workspace = 'a'`, 1},
		{"head set back", `UPDATE audit_head SET seq = 4 WHERE workspace = 'a'`, 5},
		{"head set forward", `UPDATE audit_head SET seq = 6 WHERE workspace = 'a'`, 6},
		{"head of another hash", `UPDATE audit_head SET hash = 'f' WHERE workspace = 'a'`, 6},
	}
	eachLog(t, func(t *testing.T, l *Log) {
		for _, tt := range tests {
			fill(t, l)
			exec(t, l, tt.sql)
			_, err := l.Verify(t.Context(), "a")
			broken, ok := errors.AsType[*Break](err)
			if !ok || broken.Seq != tt.seq || broken.What == "" {
				t.Errorf("%s: %v, want a break at %d", tt.name, err, tt.seq)
			}
		}
		fill(t, l)
		intact(t, l, "a", 5)
	})
}

// Rows exchanged with each other keep their contents and lose their places.
func TestSwappedRowsAreFound(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		fill(t, l)
		for _, step := range [][2]int64{{2, -2}, {3, 2}, {-2, 3}} {
			exec(t, l, `UPDATE audit_event SET seq = $2 WHERE workspace = 'a' AND seq = $1`, step[0], step[1])
		}
		_, err := l.Verify(t.Context(), "a")
		if broken, ok := errors.AsType[*Break](err); !ok || broken.Seq != 2 {
			t.Errorf("rows 2 and 3 swapped: %v", err)
		}
	})
}

// Every column counts.
func TestEveryColumnIsHashed(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		for _, f := range fields {
			fill(t, l)
			value := any("x")
			if f.number != nil {
				value = 77
			}
			exec(t, l, `UPDATE audit_event SET `+f.name+` = $1 WHERE workspace = 'a' AND seq = 2`, value)
			if _, err := l.Verify(t.Context(), "a"); err == nil {
				t.Errorf("column %s changed and nobody noticed", f.name)
			}
			fill(t, l)
			exec(t, l, fmt.Sprintf(`UPDATE audit_event SET %s = %s WHERE workspace = 'a' AND seq = 2`, f.name, map[bool]string{true: "0", false: "''"}[f.number != nil]))
			if _, err := l.Verify(t.Context(), "a"); err == nil {
				t.Errorf("column %s emptied and nobody noticed", f.name)
			}
		}
	})
}

// Text that is no text is shown as U+FFFD, and yet is not U+FFFD.
func TestBytesThatAreNoTextAreFound(t *testing.T) {
	l := open(t, storetest.Open(t, storetest.SQLite(t)))
	e := call("a")
	e.Target = "\uFFFD"
	write(t, l, e)
	exec(t, l, `UPDATE audit_event SET target = CAST(x'ff' AS TEXT)`)
	_, err := l.Verify(t.Context(), "a")
	if broken, ok := errors.AsType[*Break](err); !ok || broken.Seq != 1 {
		t.Errorf("bytes that are no text: %v", err)
	}
}

// A row rewritten with a fitting hash breaks the link of the next one.
func TestRowWithANewHashBreaksTheNextLink(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		fill(t, l)
		e := events(t, l, "a")[2]
		detail, err := encodeDetail(e.Detail)
		if err != nil {
			t.Fatal(err)
		}
		r := &row{e, detail}
		r.Outcome = Denied
		if r.Hash, _, err = r.digest(nil); err != nil {
			t.Fatal(err)
		}
		exec(t, l, `UPDATE audit_event SET outcome = 'denied', hash = $1 WHERE workspace = 'a' AND seq = 3`, r.Hash)
		_, err = l.Verify(t.Context(), "a")
		if broken, ok := errors.AsType[*Break](err); !ok || broken.Seq != 4 {
			t.Errorf("event 3 rewritten: %v, want a break at 4", err)
		}
	})
}

func TestChainLongerThanAPageIsWalkedWhole(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		const n = pageRows + 3
		do(t, l, func(tx *store.Tx) error {
			for range n {
				l.Append(tx, call("a"))
			}
			return nil
		})
		intact(t, l, "a", n)
		exec(t, l, `DELETE FROM audit_event WHERE seq = $1`, pageRows+1)
		_, err := l.Verify(t.Context(), "a")
		if broken, ok := errors.AsType[*Break](err); !ok || broken.Seq != pageRows+1 {
			t.Errorf("a row of the second page dropped: %v", err)
		}
	})
}

func TestVerifyOfAMissingTableIsNoBreak(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		exec(t, l, `DROP TABLE audit_head`)
		_, err := l.Verify(t.Context(), "a")
		if _, broken := errors.AsType[*Break](err); err == nil || broken {
			t.Errorf("Verify without a table: %v", err)
		}
	})
}

// fill makes chain a with five events and chain b with one, anew.
func fill(t testing.TB, l *Log) {
	t.Helper()
	exec(t, l, `DELETE FROM audit_event`)
	exec(t, l, `DELETE FROM audit_head`)
	do(t, l, func(tx *store.Tx) error {
		for range 5 {
			e := call("a")
			e.Code, e.Detail = "SOME_CODE", map[string]string{"k": "v"}
			l.Append(tx, e)
		}
		l.Append(tx, call("b"))
		return nil
	})
}
