package seal

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

func testBox(t testing.TB, fill byte) Box {
	t.Helper()
	k, err := newKey("", bytes.Repeat([]byte{fill}, keyLen))
	if err != nil {
		t.Fatal(err)
	}
	return Box{k}
}

// R1409: what is sealed opens in its own place and in no other.
func TestSealedOpensInItsPlaceOnly(t *testing.T) {
	box := testBox(t, 1)
	for _, plain := range [][]byte{nil, []byte("hunter2"), bytes.Repeat([]byte("x"), 100_000)} {
		sealed, err := box.Seal("vault/con_1/secret", plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := box.Open("vault/con_1/secret", sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("Open in its place: %q, %v", got, err)
		}
		for _, place := range []string{"vault/con_2/secret", "vault/con_1/secre", "", "handle:vault/con_1/secret"} {
			if _, err := box.Open(place, sealed); !errors.Is(err, ErrSealed) {
				t.Errorf("Open in %q: %v, want ErrSealed", place, err)
			}
		}
	}
}

func TestEverySealingIsDifferent(t *testing.T) {
	box := testBox(t, 1)
	a, _ := box.Seal("t/r/c", []byte("same"))
	b, _ := box.Seal("t/r/c", []byte("same"))
	if bytes.Equal(a, b) || bytes.Contains(a, []byte("same")) {
		t.Error("two sealings of one value are alike, or show it")
	}
}

func TestAnyChangedByteFails(t *testing.T) {
	box := testBox(t, 1)
	sealed, err := box.Seal("t/r/c", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		for _, flip := range []byte{1, 0x80, 0xff} {
			changed := bytes.Clone(sealed)
			changed[i] ^= flip
			if _, err := box.Open("t/r/c", changed); err == nil {
				t.Errorf("byte %d changed by %#x and it opens", i, flip)
			}
		}
		if _, err := box.Open("t/r/c", sealed[:i]); err == nil {
			t.Errorf("cut to %d bytes and it opens", i)
		}
	}
	if _, err := box.Open("t/r/c", append(sealed, 0)); err == nil {
		t.Error("a byte added and it opens")
	}
}

// The part that a keeper wrapped is bound to the value even if the keeper does
// not notice changes itself.
func TestWrappedKeyIsBoundToTheValue(t *testing.T) {
	box := Box{lax{}}
	sealed, err := box.Seal("t/r/c", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := box.Open("t/r/c", sealed); err != nil {
		t.Fatal(err)
	}
	sealed[headerLen+dekLen] ^= 1 // the byte that lax ignores
	if _, err := box.Open("t/r/c", sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("the wrapped key changed: %v, want ErrSealed", err)
	}
}

// lax wraps nothing and ignores a trailing byte.
type lax struct{}

func (lax) Wrap(_ context.Context, dek []byte) ([]byte, error) {
	return append(bytes.Clone(dek), 0), nil
}

func (lax) Unwrap(_ context.Context, wrapped []byte) ([]byte, error) {
	return wrapped[:dekLen], nil
}

func TestKeeperErrorIsPassedOn(t *testing.T) {
	sealed, err := testBox(t, 1).Seal("t/r/c", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := testBox(t, 2).Open("t/r/c", sealed); !errors.Is(err, ErrOtherKey) {
		t.Errorf("opened under another master key: %v, want ErrOtherKey", err)
	}
}

func TestHandleIsOfOneKindAndOneSpelling(t *testing.T) {
	box := testBox(t, 1)
	h, err := box.Handle("session", []byte("alice at server"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := box.OpenHandle("session", h); err != nil || string(got) != "alice at server" {
		t.Errorf("OpenHandle: %q, %v", got, err)
	}
	if _, err := box.OpenHandle("flow", h); !errors.Is(err, ErrSealed) {
		t.Errorf("OpenHandle of another kind: %v", err)
	}
	for _, other := range []string{"", h + "=", h + "\n", h[:5] + "\r" + h[5:], h[1:], h + "A", "%" + h[1:]} {
		if _, err := box.OpenHandle("session", other); err == nil {
			t.Errorf("OpenHandle(%q) opens", other)
		}
	}
	for i := range h {
		changed := []byte(h)
		changed[i] = 'A' + (changed[i]+1-'A')%26
		if string(changed) == h {
			continue
		}
		if _, err := box.OpenHandle("session", string(changed)); err == nil {
			t.Errorf("character %d changed and it opens", i)
		}
	}
}

func FuzzOpen(f *testing.F) {
	box := testBox(f, 1)
	sealed, err := box.Seal("t/r/c", []byte("payload"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{})
	f.Add([]byte{version, 0xff, 0xff})
	f.Add([]byte{version, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := box.Open("t/r/c", b); err == nil && string(plain) != "payload" {
			t.Errorf("%x opens as %q", b, plain)
		}
		if _, err := box.OpenHandle("session", string(b)); err == nil {
			t.Errorf("%q is a handle", b)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	box, plain := testBox(b, 1), make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := box.Seal("t/r/c", plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenHandle(b *testing.B) {
	box := testBox(b, 1)
	h, err := box.Handle("session", make([]byte, 64))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := box.OpenHandle("session", h); err != nil {
			b.Fatal(err)
		}
	}
}
