package billing

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Currency is an ISO 4217 code in capital letters.
type Currency string

// CurrencyPHP is the only one there is: PayMongo takes USD for card intents only
// after a feature was enabled by hand, and nobody could show us that traffic.
const CurrencyPHP Currency = "PHP"

// ParseCurrency takes the code as it is written, without guessing at its case.
func ParseCurrency(s string) (Currency, error) {
	if Currency(s) != CurrencyPHP {
		return "", fmt.Errorf("currency %q is not supported, only %s is", clip(s), CurrencyPHP)
	}
	return CurrencyPHP, nil
}

// The limits of one charge, in centavos.
const (
	// MinAmountMinor: a debt of nothing is no debt, and PayMongo cannot give.
	MinAmountMinor = 1
	// MaxAmountMinor is PayMongo's own: above it parameter_above_maximum comes
	// back (page payment-acceptance-errors-pipm).
	MaxAmountMinor = 999_999_999
	// DefaultMinimumMinor is the least that PayMongo takes, by its create-intent
	// reference, its error page and a sample of 2025. Other pages say 100 and
	// 10000. A smaller amount is a valid debt, only not one for a card.
	DefaultMinimumMinor = 2000
)

var (
	// ErrAmount is at the root of every refused amount.
	ErrAmount = errors.New("not an amount that can be charged")
	// ErrCurrencyMismatch is returned when two currencies would be mixed.
	ErrCurrencyMismatch = errors.New("currencies differ")
)

// Money is an amount that could be one charge: MinAmountMinor to MaxAmountMinor,
// in minor units. The zero value is not valid. Totals over many charges may be
// larger and are plain int64.
type Money struct {
	Minor    int64
	Currency Currency
}

// NewMoney refuses, with ErrAmount, what cannot be charged.
func NewMoney(minor int64, currency Currency) (Money, error) {
	m := Money{Minor: minor, Currency: currency}
	if err := m.Validate(); err != nil {
		return Money{}, err
	}
	return m, nil
}

// Validate is for amounts that did not come from NewMoney: from a row, from PayMongo.
func (m Money) Validate() error {
	if _, err := ParseCurrency(string(m.Currency)); err != nil {
		return err
	}
	if m.Minor < MinAmountMinor || m.Minor > MaxAmountMinor {
		return fmt.Errorf("%w: %d centavos, want %d to %d", ErrAmount, m.Minor, MinAmountMinor, MaxAmountMinor)
	}
	return nil
}

// Mul is the price of quantity pieces. It refuses what is above the limit, and
// so what would overflow.
func (m Money) Mul(quantity int64) (Money, error) {
	if err := m.Validate(); err != nil {
		return Money{}, err
	}
	if quantity < 1 {
		return Money{}, fmt.Errorf("%w: quantity %d, want 1 or more", ErrAmount, quantity)
	}
	// Asked by division, because the product may not fit.
	if quantity > MaxAmountMinor/m.Minor {
		return Money{}, fmt.Errorf("%w: %d times %s is above %s", ErrAmount, quantity, m, Money{MaxAmountMinor, m.Currency})
	}
	return Money{Minor: m.Minor * quantity, Currency: m.Currency}, nil
}

// Add is the sum of two amounts that will be charged as one.
func (m Money) Add(n Money) (Money, error) {
	if m.Currency != n.Currency {
		return Money{}, fmt.Errorf("%w: %s and %s", ErrCurrencyMismatch, m, n)
	}
	if err := m.Validate(); err != nil {
		return Money{}, err
	}
	if err := n.Validate(); err != nil {
		return Money{}, err
	}
	// Two valid amounts cannot overflow; their sum can be too large.
	return NewMoney(m.Minor+n.Minor, m.Currency)
}

// String is for logs and operators: "PHP 1499.00", the same with grep and in a
// spreadsheet.
func (m Money) String() string {
	sign, units, cents := m.parts()
	return fmt.Sprintf("%s %s%s.%s", m.Currency, sign, units, cents)
}

// Display is for payers: "₱1,499.00".
func (m Money) Display() string {
	if m.Currency != CurrencyPHP {
		return m.String()
	}
	sign, units, cents := m.parts()
	var grouped strings.Builder
	for i, digit := range units {
		if i > 0 && (len(units)-i)%3 == 0 {
			grouped.WriteByte(',')
		}
		grouped.WriteRune(digit)
	}
	return sign + "₱" + grouped.String() + "." + cents
}

// parts also renders what Validate refuses: an error message must be able to show it.
func (m Money) parts() (sign, units, cents string) {
	digits := strconv.FormatInt(m.Minor, 10)
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	if len(digits) < 3 {
		digits = strings.Repeat("0", 3-len(digits)) + digits
	}
	return sign, digits[:len(digits)-2], digits[len(digits)-2:]
}

// ParseMinor reads an amount in centavos as it stands in JSON: digits and nothing
// else. 1e2 and 100.0 are whole numbers to JSON, but whoever writes them was
// thinking of pesos or computing in floating point, so they are refused.
func ParseMinor(s string) (int64, error) {
	refuse := func(why string) (int64, error) {
		return 0, fmt.Errorf("%w: %q %s", ErrAmount, clip(s), why)
	}
	switch {
	case s == "":
		return refuse("is empty")
	case s[0] == '"':
		return refuse("is text, not a number")
	case s[0] == '-':
		return refuse("is negative")
	case strings.Trim(s, "0123456789.eE+-") != "" || s[0] < '0' || s[0] > '9':
		return refuse("is not a number")
	case strings.ContainsAny(s, ".eE+-"):
		return refuse("is not plain digits: amounts are whole centavos, 49900 for PHP 499.00")
	case s == "0":
		return refuse("is nothing to charge")
	case s[0] == '0':
		return refuse("begins with a zero")
	}
	minor, err := strconv.ParseInt(s, 10, 64)
	if err != nil || minor > MaxAmountMinor {
		return refuse(fmt.Sprintf("is above PayMongo's maximum of %d", MaxAmountMinor))
	}
	return minor, nil
}

// clip bounds what of a stranger's text gets into an error message.
func clip(s string) string {
	const limit = 40
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
