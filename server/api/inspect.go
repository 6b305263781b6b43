package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/singil/singil/billing"
)

// maxDepth of a body: no request here nests deeper than a few levels.
const maxDepth = 32

// inspect refuses what must not come near the database or the log: card numbers
// wherever they are, and texts that the database cannot store. It reads what a
// parser would read, escapes undone, and the key of the request, which is stored.
func (a *api) inspect(r *http.Request, body []byte) error {
	card := func(location string) error {
		a.metrics.cardNumbers.Inc()
		return newProblem(kindCardNumber,
			"Something in it looks like a card's number. Send cards from the customer's browser to PayMongo with the public key; here only their pm_ id is taken. Nothing was stored.",
			fieldProblem{location, "looks like a card's number"})
	}
	if billing.HasCardNumber(r.URL.Path) {
		return card("path")
	}
	for _, key := range r.Header.Values(keyHeader) {
		if billing.HasCardNumber(key) {
			return card("header." + keyHeader)
		}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return newProblem(kindInvalidRequest, "The query cannot be read. Escape what is not a letter or a digit.")
	}
	for name, values := range query {
		twice := len(values) > 1
		for _, text := range append(values, name) {
			if billing.HasCardNumber(text) {
				return card("query")
			}
			if !storable(text) {
				return newProblem(kindInvalidRequest, "The query has text that is not UTF-8, or a zero byte.")
			}
		}
		if twice { // the first would be taken, and the other nowhere
			return invalid("query."+name, "is given twice; it takes one value")
		}
	}
	if !storable(r.URL.Path) {
		return newProblem(kindInvalidRequest, "The path has text that is not UTF-8, or a zero byte.")
	}
	switch err := walk(body); {
	case errors.Is(err, errCardNumber):
		return card("body")
	case err != nil:
		return newProblem(kindInvalidRequest, err.Error())
	}
	return nil
}

func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

var errCardNumber = errors.New("a card number")

// walk reads a body token by token. A body that is no JSON is looked at as text.
func walk(body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	// The fields of each object that is open, in small letters: the decoder of the
	// handlers takes the last of two, whatever their case. nil: an array.
	var open []map[string]bool
	name := false // a field's name comes next
	for begun := false; ; begun = true {
		token, err := decoder.Token()
		switch {
		case errors.Is(err, io.EOF) && len(open) == 0:
			return nil
		case err != nil || begun && len(open) == 0: // or a second document
			if billing.HasCardNumber(string(body)) {
				return errCardNumber
			}
			return errors.New("the body is not JSON: one object, as /openapi.json describes it")
		}
		text := ""
		switch token := token.(type) {
		case json.Delim:
			switch token {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
			}
			if len(open) > maxDepth {
				return fmt.Errorf("the body nests deeper than %d levels", maxDepth)
			}
			name = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			text = token
		case json.Number:
			text = token.String()
		}
		if billing.HasCardNumber(text) {
			return errCardNumber
		}
		if !storable(text) {
			return errors.New("the body has a zero byte in a text")
		}
		if name {
			fields := open[len(open)-1]
			folded := strings.ToLower(text)
			if fields[folded] {
				return errors.New("the body has a field twice")
			}
			fields[folded] = true
			name = false
			continue
		}
		name = len(open) > 0 && open[len(open)-1] != nil
	}
}
