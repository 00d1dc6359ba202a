package audit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

func verifies(t testing.TB, file []byte) Report {
	t.Helper()
	r, err := VerifyExport(bytes.NewReader(file), "")
	if err != nil {
		t.Fatalf("an untouched export: %v", err)
	}
	return r
}

// breaks checks that the file is refused as broken, and returns the break.
func breaks(t testing.TB, what string, file []byte) *Break {
	t.Helper()
	_, err := VerifyExport(bytes.NewReader(file), "")
	broken, ok := errors.AsType[*Break](err)
	if !ok || broken.Line == 0 || broken.What == "" {
		t.Fatalf("%s: %v, want a break", what, err)
	}
	return broken
}

// sample is an export of five events, and its lines with their ends.
func sample(t testing.TB) ([]byte, [][]byte, *Log) {
	t.Helper()
	l := open(t, storetest.Open(t, storetest.SQLite(t)))
	fill(t, l)
	file := export(t, l, "a")
	lines := bytes.SplitAfter(file, []byte("\n"))
	return file, lines[:len(lines)-1], l
}

func TestExportVerifiesOffline(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		fill(t, l)
		r := verifies(t, export(t, l, "a"))
		if r.Chain != "a" || r.From != 1 || r.Seq != 5 || r.Key != l.Thumbprint() || r.Pinned || r.Time == 0 {
			t.Errorf("report %+v", r)
		}
		if r := verifies(t, export(t, l, "empty")); r.Seq != 0 || r.Chain != "empty" {
			t.Errorf("report of an empty chain %+v", r)
		}
	})
}

func TestExportStopsAtItsHead(t *testing.T) {
	eachLog(t, func(t *testing.T, l *Log) {
		fill(t, l)
		h := head(t, l, "a")
		write(t, l, call("a"))
		file, err := exported(events(t, l, "a"), h)
		if err != nil {
			t.Fatal(err)
		}
		if r := verifies(t, file); r.Seq != 5 {
			t.Errorf("%d events, want 5", r.Seq)
		}
	})
}

func TestAnyChangedByteOfAnExportIsFound(t *testing.T) {
	file, _, _ := sample(t)
	for i := range file {
		line := int64(bytes.Count(file[:i], []byte("\n"))) + 1
		for _, flip := range []byte{0x01, 0x80} {
			changed := bytes.Clone(file)
			changed[i] ^= flip
			if broken := breaks(t, "byte flipped", changed); broken.Line != line {
				t.Fatalf("byte %d of line %d changed: found at line %d: %s", i, line, broken.Line, broken.What)
			}
		}
	}
}

func TestAnyInsertedOrDroppedByteOfAnExportIsFound(t *testing.T) {
	file, _, _ := sample(t)
	for i := range file {
		breaks(t, "byte dropped", slices.Concat(file[:i], file[i+1:]))
		for _, b := range []string{" ", "0"} {
			breaks(t, "byte inserted", slices.Concat(file[:i], []byte(b), file[i:]))
		}
	}
	for _, b := range []string{" ", "\n", "0", "\x00", "{}\n"} {
		if broken := breaks(t, "byte appended", append(bytes.Clone(file), b...)); broken.Line != 7 {
			t.Errorf("%q after the head: found at line %d", b, broken.Line)
		}
	}
}

func TestExportCutAnywhereIsFound(t *testing.T) {
	file, _, _ := sample(t)
	for i := range file {
		line := int64(bytes.Count(file[:i], []byte("\n"))) + 1
		if broken := breaks(t, "cut", file[:i]); broken.Line != line {
			t.Fatalf("cut to %d bytes: found at line %d, want %d: %s", i, broken.Line, line, broken.What)
		}
	}
}

func TestDroppedAddedAndSwappedLinesAreFoundAndNamed(t *testing.T) {
	_, lines, _ := sample(t)
	join := func(parts ...[][]byte) []byte { return bytes.Join(slices.Concat(parts...), nil) }
	for i := range lines {
		dropped := breaks(t, "line dropped", join(lines[:i], lines[i+1:]))
		if dropped.Line != int64(i+1) || dropped.Seq != int64(i+1) {
			t.Errorf("line %d dropped: %v", i+1, dropped)
		}
		for j := range lines {
			added := breaks(t, "line added", join(lines[:i], lines[j:j+1], lines[i:]))
			if want := int64(i + 1); added.Line != want && added.Line != want+1 {
				t.Errorf("line %d added before line %d: %v", j+1, i+1, added)
			}
			if i == j {
				continue
			}
			swapped := slices.Clone(lines)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			first := int64(min(i, j) + 1)
			if broken := breaks(t, "lines swapped", join(swapped)); broken.Line != first && broken.Line != first+1 {
				t.Errorf("lines %d and %d swapped: %v", i+1, j+1, broken)
			}
		}
		if i < len(lines)-1 { // the end cut off before the head
			cut := breaks(t, "end cut", join(lines[:i], lines[len(lines)-1:]))
			if cut.Seq != int64(i+1) {
				t.Errorf("cut after event %d: %v", i, cut)
			}
		}
	}
}

// A line that means the same to a lenient reader is a changed line.
func TestOtherSpellingsOfALineAreChanges(t *testing.T) {
	file, _, _ := sample(t)
	for _, tt := range [][2]string{
		{`"seq":3`, `"seq":3.0`},
		{`"seq":3`, `"seq":3e0`},
		{`"seq":3`, `"seq":4,"seq":3`},
		{`"seq":3`, `"SEQ":3`},
		{`"seq":3`, `"seq":3,"Seq":3`},
		{`"seq":3`, `"seq":3,"surplus":1`},
		{`"door":"mcp"`, `"door":"\u006dcp"`},
		{`"door":"mcp"`, `"door": "mcp"`},
		{`"door":"mcp"`, `"door":"mcp","dooz":null`},
		{`"door":"mcp"`, `"door":"mcp","door":"mcp"`},
		{`{"k":"v"}`, `{"k":"w","k":"v"}`},
		{`{"k":"v"}`, `{"k":"v" }`},
		{`{"action":`, ` {"action":`},
		{"}\n", "}\r\n"},
		{"}\n", "} \n"},
		{`{"from":1,`, `{"from":1,"from":1,`},
		{`{"from":1,`, `{"from":1, `},
		{`"signature":"`, `"signature":"\n`},
		{`=="`, `="`},
	} {
		changed := bytes.Replace(file, []byte(tt[0]), []byte(tt[1]), 1)
		if bytes.Equal(changed, file) {
			t.Fatalf("%s does not occur", tt[0])
		}
		breaks(t, tt[1], changed)
	}
}

// A chain begins with event 1: a line in front that claims to be none of its events
// is an added one, however well it is hashed.
func TestForgedLineBeforeTheFirstEventIsFound(t *testing.T) {
	file, _, _ := sample(t)
	for _, seq := range []int64{0, -1} {
		for _, chain := range []string{"a", "b"} {
			forged := newRow(Event{Workspace: chain, Action: "tool.call", Actor: "member:mallory", Outcome: Allowed}, 1)
			forged.Seq, forged.Prev = seq, genesis
			hash, _, err := forged.digest(nil)
			if err != nil {
				t.Fatal(err)
			}
			forged.Hash = hash
			line, err := forged.line()
			if err != nil {
				t.Fatal(err)
			}
			line = append(line, '\n')
			if broken := breaks(t, "an event without a place", slices.Concat(line, file)); broken.Line != 1 {
				t.Errorf("event %d of chain %s in front: found at line %d: %s", seq, chain, broken.Line, broken.What)
			}
			breaks(t, "two of them", slices.Concat(line, line, file))
		}
	}
}

// Without a pin the report says which key signed; with one, another is a break.
func TestPinnedKeyIsTheOnlyOne(t *testing.T) {
	file, lines, l := sample(t)
	r, err := VerifyExport(bytes.NewReader(file), l.Thumbprint())
	if err != nil || !r.Pinned || r.Key != l.Thumbprint() {
		t.Errorf("signed by the pinned key: %+v, %v", r, err)
	}
	forged := head(t, l, "a")
	if err := forged.sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))); err != nil {
		t.Fatal(err)
	}
	line, err := forged.canonical()
	if err != nil {
		t.Fatal(err)
	}
	other := slices.Concat(bytes.Join(lines[:5], nil), line, []byte("\n"))
	if r := verifies(t, other); r.Pinned || r.Key == l.Thumbprint() {
		t.Errorf("signed by another key: %+v", r)
	}
	_, err = VerifyExport(bytes.NewReader(other), l.Thumbprint())
	if broken, ok := errors.AsType[*Break](err); !ok || broken.Line != 6 || !strings.Contains(broken.What, l.Thumbprint()) {
		t.Errorf("signed by another key than the pinned one: %v", err)
	}
}

// A head of another chain or another moment does not fit.
func TestHeadOfAnotherChainIsFound(t *testing.T) {
	_, lines, l := sample(t)
	events := bytes.Join(lines[:5], nil)
	for name, change := range map[string]func(*SignedHead){
		"another chain":  func(h *SignedHead) { h.Workspace = "b" },
		"another end":    func(h *SignedHead) { h.Seq = 6 },
		"earlier end":    func(h *SignedHead) { h.Seq = 4 },
		"another hash":   func(h *SignedHead) { h.Hash = genesis },
		"another start":  func(h *SignedHead) { h.From = 2 },
		"negative start": func(h *SignedHead) { h.From = -1 },
	} {
		h := head(t, l, "a")
		change(&h)
		if err := h.sign(l.key); err != nil {
			t.Fatal(err)
		}
		line, err := h.canonical()
		if err != nil {
			t.Fatal(err)
		}
		breaks(t, name, slices.Concat(events, line, []byte("\n")))
	}
}

func TestRudeExportsAreRefused(t *testing.T) {
	for _, file := range []string{
		"", "\n", "{}\n", "null\n", "[]\n", `{"from":1}` + "\n", `{"from":` + "\n", "{\"action\":\"x\"}\n",
		strings.Repeat("x", maxLine+1), strings.Repeat("[", 100_000) + "\n", `{"from":1,"key":"AA==","signature":"AA=="}` + "\n",
	} {
		breaks(t, file[:min(len(file), 40)], []byte(file))
	}
}

func FuzzVerifyExport(f *testing.F) {
	file, lines, _ := sample(f)
	f.Add(file)
	for _, line := range lines {
		f.Add(line)
	}
	f.Add([]byte("{\"action\":\"\\ud800\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := VerifyExport(bytes.NewReader(b), ""); err == nil && r.Key == "" {
			t.Errorf("%q is an intact export of nobody", b)
		}
	})
}
