package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// metadata keeps the caller's keys in the caller's order. It is never changed
// once made, so it may be shared between records.
type metadata []pair

type pair struct{ Key, Value string }

const (
	maxMetadataKeys  = 100
	maxMetadataValue = 2 << 10
)

func (m metadata) get(key string) (string, bool) {
	for _, p := range m {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

func (m metadata) asMap() map[string]string {
	out := make(map[string]string, len(m))
	for _, p := range m {
		out[p.Key] = p.Value
	}
	return out
}

// subject names what a call is about, the same way on every run.
func (m metadata) subject() string {
	var b strings.Builder
	for _, p := range m {
		b.WriteString(p.Key)
		b.WriteByte('=')
		b.WriteString(p.Value)
		b.WriteByte('\n')
	}
	return b.String()
}

// MarshalJSON writes null for none, as PayMongo does.
func (m metadata) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("null"), nil
	}
	var buf bytes.Buffer
	buf.WriteByte('{')
	for i, p := range m {
		if i > 0 {
			buf.WriteByte(',')
		}
		writeString(&buf, p.Key)
		buf.WriteByte(':')
		writeString(&buf, p.Value)
	}
	buf.WriteByte('}')
	return buf.Bytes(), nil
}

func writeString(buf *bytes.Buffer, s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			buf.Write(encode(s))
			return
		}
	}
	buf.WriteByte('"')
	buf.WriteString(s)
	buf.WriteByte('"')
}

// UnmarshalJSON takes what a caller sends. Values that are not strings are
// mangled into a Ruby inspect string, as in a webhook recorded in 2025-11.
func (m *metadata) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if tok == nil {
		*m = nil
		return nil
	}
	if tok != json.Delim('{') {
		return errors.New("not an object")
	}
	out := metadata{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		value, isString := tok.(string)
		if !isString {
			var b strings.Builder
			if err := inspect(&b, dec, tok); err != nil {
				return err
			}
			value = b.String()
		}
		if len(value) > maxMetadataValue || len(out) == maxMetadataKeys {
			return fmt.Errorf("more than %d keys or a value above %d bytes", maxMetadataKeys, maxMetadataValue)
		}
		out = out.with(key.(string), value)
	}
	*m = out
	return nil
}

// with sets a key; the last of two equal keys wins, in the first one's place.
func (m metadata) with(key, value string) metadata {
	for i := range m {
		if m[i].Key == key {
			m[i].Value = value
			return m
		}
	}
	return append(m, pair{key, value})
}

// inspect writes the value that starts with tok the way Ruby's inspect does:
// [{:id=>"a", :qty=>1}]. The depth is bounded by encoding/json.
func inspect(b *strings.Builder, dec *json.Decoder, tok json.Token) error {
	switch v := tok.(type) {
	case nil:
		b.WriteString("nil")
	case string:
		b.WriteString(strconv.Quote(v))
	case json.Number:
		b.WriteString(v.String())
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case json.Delim:
		b.WriteString(v.String())
		for first := true; dec.More(); first = false {
			if !first {
				b.WriteString(", ")
			}
			next, err := dec.Token()
			if err != nil {
				return err
			}
			if v == '{' {
				fmt.Fprintf(b, ":%v=>", next)
				if next, err = dec.Token(); err != nil {
					return err
				}
			}
			if err := inspect(b, dec, next); err != nil {
				return err
			}
			if b.Len() > maxMetadataValue {
				return errors.New("value too long")
			}
		}
		end, err := dec.Token()
		if err != nil {
			return err
		}
		b.WriteString(end.(json.Delim).String())
	}
	return nil
}
