package seal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const hushed = "hush-4711"

func shows(s string) bool {
	return strings.Contains(s, hushed) || strings.Contains(s, hex.EncodeToString([]byte(hushed)))
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := Hide(hushed)
	type outer struct {
		Open   Secret
		hidden Secret
		ptr    *Secret
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		for _, v := range []any{s, &s, []Secret{s}, map[string]Secret{"k": s}, outer{s, s, &s}, &outer{s, s, &s}} {
			if out := fmt.Sprintf(verb, v); shows(out) {
				t.Errorf("%s of %T shows it: %s", verb, v, out)
			}
		}
		if out := fmt.Sprintf(verb, s); out != "[sealed]" {
			t.Errorf("%s: %s, want [sealed]", verb, out)
		}
	}
}

func TestSecretIsNeverLoggedOrEncoded(t *testing.T) {
	s := Hide(hushed)
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "a", s, "b", &s, "c", struct{ S Secret }{s})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "a", s, "b", &s, "c", struct{ S Secret }{s})
	if err := json.NewEncoder(&out).Encode(map[string]any{"a": s, "b": &s, "c": struct{ S Secret }{s}}); err != nil {
		t.Fatal(err)
	}
	if err := xml.NewEncoder(&out).Encode(s); err != nil {
		t.Fatal(err)
	}
	if shows(out.String()) || !strings.Contains(out.String(), "[sealed]") {
		t.Errorf("shown: %s", out.String())
	}
}

func TestSecretIsRevealedToWhoAsks(t *testing.T) {
	if s := Hide(hushed); s.Reveal() != hushed || s.Empty() {
		t.Error("a secret does not reveal itself")
	}
	if s := (Secret{}); s.Reveal() != "" || !s.Empty() || s.String() != "[sealed]" {
		t.Error("the zero secret is not empty")
	}
}
