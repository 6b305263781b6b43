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
	// Card numbers, in a row or in groups, also inside of a word; what follows at
	// once, such as a CVC, goes with them.
	cardPattern = regexp.MustCompile(`[2-6](?:[ ._\x{a0}-]?\d){12,18}(?:[ ._\x{a0}-]?\d)*`)
)

func redact(s string) string {
	// Nearly every text has nothing to hide. What each match must contain is found without the pattern.
	if strings.Contains(s, "k_") || strings.Contains(s, "_client_") {
		s = tokenPattern.ReplaceAllString(s, "${1}"+hidden)
	}
	if strings.Contains(s, "c2tf") || strings.Contains(s, "cGtf") {
		s = basicPattern.ReplaceAllString(s, hidden)
	}
	if hasDigits(s, 13) {
		s = cardPattern.ReplaceAllString(s, hidden)
	}
	return s
}

func hasDigits(s string, n int) bool {
	for i := 0; i < len(s) && n > 0; i++ {
		if s[i] >= '0' && s[i] <= '9' {
			n--
		}
	}
	return n == 0
}

// cut is the first n bytes of a text, to be redacted. Cutting comes first: a secret cut in two still starts with what
// gives it away. Half a card number does not, so no text is cut behind a digit.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.TrimRight(s[:n], "0123456789 ._-\u00a0")
}

// clean makes one safe line of a text from outside: redacted, printable, and at most maxDetail bytes.
func clean(s string) string {
	s = redact(cut(s, maxDetail))
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
