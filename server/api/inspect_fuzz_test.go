package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// FuzzWalk: no body brings it down, what it lets through is one JSON document, and
// a card number in a text is found whatever stands around it.
func FuzzWalk(f *testing.F) {
	for _, seed := range []string{
		"", " ", "{}", "[]", "null", `"a"`, `{"a":[{"b":1}],"c":null}`, `{"a":1,"A":2}`, `{"a":1}]`, `]`, `{"a"`, `{"a":1}{`, `[[[[`, "\xff", `{"a":"\u0000"}`,
		"1", "12 4343", "0190abcd-1234-7234-8234-123456789012", "\\u0034", "–4343–",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if walk([]byte(text)) == nil && strings.TrimSpace(text) != "" && !json.Valid([]byte(text)) {
			t.Fatalf("%q was let through", text)
		}
		body, err := json.Marshal(map[string]any{"reason": []string{text + "x4343434343434345 " + text}})
		if err != nil {
			t.Fatal(err)
		}
		if err := walk(body); !errors.Is(err, errCardNumber) {
			t.Fatalf("%s: %v", body, err)
		}
	})
}
