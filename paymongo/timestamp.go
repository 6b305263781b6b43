package paymongo

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Timestamp is an instant in a PayMongo answer, always in UTC. PayMongo writes
// unix seconds on its v1 surface, milliseconds on v2 and RFC 3339 for payment
// links; null and a missing field are the zero Timestamp.
type Timestamp struct{ time.Time }

const (
	// Numbers above this are milliseconds. As seconds it would be the year 5138.
	maxUnixSeconds = 100_000_000_000
	// The last millisecond of the year 9999, beyond which RFC 3339 has no spelling.
	maxUnixMillis = 253_402_300_799_999
)

// UnmarshalJSON reads a whole number of seconds or milliseconds, an RFC 3339 string, or null.
func (t *Timestamp) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*t = Timestamp{}
		return nil
	}
	if len(data) > 0 && data[0] == '"' {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return fmt.Errorf("timestamp: %w", err)
		}
		t.Time = at.UTC()
		return nil
	}
	n, err := strconv.ParseInt(string(data), 10, 64)
	switch {
	case err != nil || n < 0 || n > maxUnixMillis:
		return fmt.Errorf("timestamp: %s is no whole number of seconds or milliseconds before the year 10000", data[:min(len(data), 40)])
	case n > maxUnixSeconds:
		t.Time = time.UnixMilli(n).UTC()
	default:
		t.Time = time.Unix(n, 0).UTC()
	}
	return nil
}

// MarshalJSON writes what PayMongo writes: unix seconds, milliseconds where
// seconds would lose something, null for the zero Timestamp.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	switch {
	case t.IsZero():
		return []byte("null"), nil
	case t.Nanosecond() != 0:
		return strconv.AppendInt(nil, t.UnixMilli(), 10), nil
	default:
		return strconv.AppendInt(nil, t.Unix(), 10), nil
	}
}
