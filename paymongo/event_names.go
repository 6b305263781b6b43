package paymongo

import (
	"bytes"
	"encoding/json"
	"strings"
)

// eventDepth is how deep the objects of an event are nested down to the
// attributes of what it is about: the document, its data, its attributes, the
// resource, the resource's attributes.
const eventDepth = 5

// ambiguous reports whether a name stands twice in one of the objects that make
// an event; document is valid JSON, and depth is that of its outermost value.
// encoding/json would take the last of two, or mix both, and a name in capitals
// for the same; whoever checked the event elsewhere may have read the first. In
// metadata a merchant may use any names.
func ambiguous(document []byte, depth int) bool {
	decoder := json.NewDecoder(bytes.NewReader(document))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return false
	}
	names := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			return true // not in a valid document
		}
		name, _ := token.(string)
		name = strings.ToLower(strings.ToUpper(name)) // as encoding/json folds: a long s is an s
		if names[name] || depth < eventDepth && name != "metadata" && ambiguous(value, depth+1) {
			return true
		}
		names[name] = true
	}
	return false
}
