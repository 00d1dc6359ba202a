package seal

import (
	"fmt"
	"io"
	"log/slog"
)

const hidden = "[sealed]"

// Secret is text that is used and never shown. Whatever prints, logs or encodes
// it gets [sealed], even as an unexported field of something that is printed as
// a whole. The zero value is the empty secret.
type Secret struct {
	text *string // behind a pointer, which printing by reflection does not follow
}

// Hide makes a secret of s.
func Hide(s string) Secret { return Secret{&s} }

// Reveal returns the text. Call it where it is used and nowhere before.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty reports whether there is nothing to reveal.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// String is what print functions show.
func (s Secret) String() string { return hidden }

// GoString is what %#v shows.
func (s Secret) GoString() string { return hidden }

// Format is what any verb shows; %x or %d would reveal it otherwise.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue is what the log shows.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON is what JSON shows.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText is what every other encoding shows.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
