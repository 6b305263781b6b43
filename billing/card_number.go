package billing

import "regexp"

var uuidText = regexp.MustCompile(`[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}`)

// HasCardNumber tells whether a text has a number in it that could be a card's: 13
// to 19 digits, grouped or not, that begin like one and pass the check digit. A
// UUID is none, though now and then its digits look like one.
func HasCardNumber(s string) bool {
	return cardNumber(uuidText.ReplaceAllLiteralString(s, "uuid"))
}
