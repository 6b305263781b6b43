package paymongo

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

const hidden = "***"

// Secret is a string that prints as *** in every format: fmt, JSON, text, slog.
// Only [Secret.Reveal] gives the value. The zero Secret is empty.
//
// The value sits behind a pointer, because fmt does not call methods on
// unexported fields of other structs: it then shows an address, not the value.
type Secret struct{ value *string }

// NewSecret hides s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	value := s // so that an empty one needs no memory
	return Secret{value: &value}
}

// Reveal returns the value in the clear.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.value == nil || *s.value == "" }

// Equal compares two secrets in time that does not depend on where they differ.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String returns ***.
func (s Secret) String() string { return hidden }

// GoString returns ***.
func (s Secret) GoString() string { return hidden }

// Format writes *** for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue returns ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON returns "***". Bodies for PayMongo are built from the revealed value, not from this.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText returns ***.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalJSON reads a JSON string; null leaves the secret empty.
func (s *Secret) UnmarshalJSON(data []byte) error {
	var value string
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	*s = NewSecret(value)
	return nil
}

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
