package paymongo

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDetail bounds the text kept of an error, maxErrorBody the answer kept beside it, in bytes.
const (
	maxDetail    = 1 << 10
	maxErrorBody = 4 << 10
)

// PayMongo may echo the API key in the detail of a 401, and a proxy may echo a
// whole request. What looks like a secret is cut out where an error is made, so
// that no log line has to think of it.
var (
	// API keys, webhook secrets, and the part of a client key that makes it one.
	tokenPattern = regexp.MustCompile(`((?:sk|pk)_(?:test|live)_|_client_|whsk_)[\w-]+`)
	// The Authorization header: base64 of "sk_test_", "sk_live_", "pk_test_", "pk_live_".
	basicPattern = regexp.MustCompile(`(?:c2tf|cGtf)(?:dGVzdF|bGl2ZV)[\w+/=-]*`)
	// Card numbers.
	cardPattern = regexp.MustCompile(`\b\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{2,7}\b`)
)

func redact(s string) string {
	s = tokenPattern.ReplaceAllString(s, "${1}"+hidden)
	s = basicPattern.ReplaceAllString(s, hidden)
	return cardPattern.ReplaceAllString(s, hidden)
}

// clean makes one safe line of a text from outside: redacted, printable, and at most maxDetail bytes.
// Cutting comes first: a secret cut in two still starts with what gives it away.
func clean(s string) string {
	s = redact(s[:min(len(s), maxDetail)])
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
