package audit

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// The hand-ordered encoder writes what RFC 8785 prescribes: the same as the
// library's canonicalisation of the event's own JSON.
func FuzzCanonicalForm(f *testing.F) {
	f.Add("files_read", "k", "v", int64(0))
	f.Add("<&>\u2028\u007f", "\U0001F600", "\x00\x1f\"\\/\b\f", int64(1)<<53-1)
	f.Add("\xff\xfe", "\uFB01", strings.Repeat("é", 600), int64(1))
	f.Fuzz(func(t *testing.T, text, name, value string, number int64) {
		e := call("w")
		e.Target, e.Ref, e.Duration = text, value, number
		e.Detail = map[string]string{name: value, value: text, "\uFB01": "a", "\U0001F600": "b"}
		r := newRow(e, 1)
		if r.fault() != nil {
			return
		}
		r.Seq, r.Prev, r.Hash = 7, genesis, genesis
		got, err := r.appendJSON(nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if !r.readDetail() {
			t.Fatalf("the stored detail %q is not canonical", r.detail)
		}
		plain, err := json.Marshal(r.Event)
		if err != nil {
			t.Fatal(err)
		}
		want := jsontext.Value(plain)
		if err := want.Canonicalize(); err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// The format is a promise: old hashes stay valid.
func TestHashOfAKnownEvent(t *testing.T) {
	r := &row{Event: Event{
		ID: "aud_01", Workspace: "default", Seq: 1, Time: 1_700_000_000_000_000, Action: "tool.call", Target: "echo",
		Outcome: Allowed, Prev: genesis, Detail: map[string]string{"a": "1"},
	}, detail: `{"a":"1"}`}
	const want = `{"action":"tool.call","detail":{"a":"1"},"id":"aud_01","outcome":"allowed",` +
		`"prev_hash":"0000000000000000000000000000000000000000000000000000000000000000",` +
		`"seq":1,"target":"echo","time_us":1700000000000000,"workspace":"default"}`
	got, err := r.appendJSON(nil, false)
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	hash, _, err := r.digest(nil)
	if err != nil || hash != Digest([]byte(want)) {
		t.Errorf("hash %s, %v", hash, err)
	}
}

func TestFieldsAreInCanonicalOrderAndComplete(t *testing.T) {
	for i := 1; i < len(fields); i++ {
		if fields[i-1].name >= fields[i].name {
			t.Errorf("%s before %s", fields[i-1].name, fields[i].name)
		}
	}
}

func BenchmarkEncodeAndHash(b *testing.B) {
	e := call("default")
	e.Detail = map[string]string{"server": "files", "era": "2025-11-25"}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		r := newRow(e, 1)
		r.Seq, r.Prev = 123456, genesis
		var err error
		if r.Hash, buf, err = r.digest(buf); err != nil {
			b.Fatal(err)
		}
	}
}
