package paymongo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// entity is a resource in PayMongo's v1 envelope.
type entity[A any] struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	Attributes *A     `json:"attributes"`
}

// document is an entity, or an answer with an entity under "data".
type document[A any] struct {
	entity[A]
	Data *entity[A] `json:"data"`
}

var errOtherResource = errors.New("the answer is another resource than the one asked for")

// decodeResource fills attributes and id from {"data":{id,type,attributes}},
// from {id,type,attributes}, or from a flat object with or without "data".
// It reads the enveloped forms, which are the usual ones, in one pass.
//
// An empty id, or another type, is an error: then the answer is not the
// resource, whatever its fields look like.
func decodeResource[A any](data []byte, kind string, attributes *A, id *string) error {
	var doc document[A]
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	e := doc.entity
	if doc.Data != nil && e.ID == "" {
		e = *doc.Data
	}
	switch {
	case e.ID == "":
		return fmt.Errorf("%w: no id where a %s should be", errOtherResource, kind)
	case e.Attributes != nil && e.Type == kind:
		*attributes = *e.Attributes
	case e.Attributes == nil && e.Type != kind && (e.Type == "" || ownType[kind]):
		if err := decodeFlat(data, e.ID == doc.ID, attributes); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: %q instead of %q, or no attributes", errOtherResource, clean(e.Type), kind)
	}
	*id = e.ID
	return nil
}

// ownType lists the resources that have an attribute called type, which in the
// flat form stands where the envelope has the name of the resource.
var ownType = map[string]bool{"payment_method": true, "source": true}

func decodeFlat[A any](data []byte, bare bool, attributes *A) error {
	if bare {
		return json.Unmarshal(data, attributes)
	}
	return json.Unmarshal(data, &struct {
		Data *A `json:"data"`
	}{attributes})
}

// List is one page of resources.
type List[T any] struct {
	Data    []*T `json:"data"`
	HasMore bool `json:"has_more"`
}

// UnmarshalJSON reads {"data":[...],"has_more":...}. A missing data array is an error, for it is not an empty list.
func (l *List[T]) UnmarshalJSON(data []byte) error {
	type plain List[T]
	if err := json.Unmarshal(data, (*plain)(l)); err != nil {
		return err
	}
	if l.Data == nil {
		return fmt.Errorf("%w: no list of data", errOtherResource)
	}
	return noNull(l.Data)
}

// noNull refuses null among resources, so that nobody has to look for nil.
func noNull[T any](items []*T) error {
	for _, item := range items {
		if item == nil {
			return fmt.Errorf("%w: null in a list of resources", errOtherResource)
		}
	}
	return nil
}

// Metadata is PayMongo's flat map of strings. PayMongo turns nested values into
// Ruby's notation; a value that still is no string is kept as its JSON text.
type Metadata map[string]string

// UnmarshalJSON reads an object; null leaves the map nil.
func (m *Metadata) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*m = nil
		return nil
	}
	if texts := readTexts(data); texts != nil {
		*m = texts
		return nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	if raw == nil {
		*m = nil
		return nil
	}
	*m = make(Metadata, len(raw))
	for key, value := range raw {
		var s string
		if json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		(*m)[key] = s
	}
	return nil
}

// readTexts reads metadata as it nearly always is, {"a":"b","c":"d"} of plain
// texts, and returns nil for anything else, be it JSON or not.
func readTexts(data []byte) Metadata {
	parts := strings.Split(string(data), `"`) // brace, key, colon, text, comma, key, colon, text, brace
	n := len(parts)
	isMark := func(part, mark string) bool { return strings.Trim(part, " \t\r\n") == mark }
	isText := func(part string) bool { return printable(part) && !strings.Contains(part, `\`) }
	if n%4 != 1 || !isMark(parts[0], "{") || !isMark(parts[n-1], "}") {
		return nil
	}
	m := make(Metadata, n/4)
	for i := 1; i < n; i += 4 {
		if !isText(parts[i]) || !isMark(parts[i+1], ":") || !isText(parts[i+2]) || i+4 < n && !isMark(parts[i+3], ",") {
			return nil
		}
		m[parts[i]] = parts[i+2]
	}
	return m
}

// ignoreTypeErrors lets parts of an answer that decide nothing have another
// shape than documented: encoding/json leaves such a field at its zero value
// and goes on. Amounts, ids and statuses are never read this way.
func ignoreTypeErrors(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return nil
	}
	return err
}
