package billing

import (
	"regexp"
	"strings"
)

var uuidText = regexp.MustCompile(`\b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\b`)

// HasCardNumber tells whether a text has a number in it that could be a card's: 13
// to 19 digits, grouped or not, that begin like one and pass the check digit. A
// UUID is none, though now and then its digits look like one.
func HasCardNumber(s string) bool {
	return cardNumber(uuidText.ReplaceAllLiteralString(s, "uuid"))
}

// beginsLikeCard leaves out what no card begins with and much else does: 1, as
// milliseconds since 1970 do, and 20, as the years do in which this is used.
func beginsLikeCard(digits string) bool {
	return digits[0] >= '2' && digits[0] <= '6' && !strings.HasPrefix(digits, "20")
}
