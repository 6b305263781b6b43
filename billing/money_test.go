package billing

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestMoney(t *testing.T) {
	t.Parallel()
	php := func(minor int64) Money { return Money{minor, CurrencyPHP} }

	t.Run("AddsUpToTheMaximum", func(t *testing.T) {
		t.Parallel()
		got, err := php(MaxAmountMinor - 1).Add(php(1))
		if err != nil || got != php(MaxAmountMinor) {
			t.Errorf("got %v, %v", got, err)
		}
		if got, err := php(MaxAmountMinor).Add(php(1)); !errors.Is(err, ErrAmount) {
			t.Errorf("got %v, %v", got, err)
		}
	})

	t.Run("DisplaysForPayers", func(t *testing.T) {
		t.Parallel()
		for minor, want := range map[int64]string{
			1: "₱0.01", 99: "₱0.99", 100: "₱1.00", 49900: "₱499.00", 149905: "₱1,499.05",
			12345678: "₱123,456.78", MaxAmountMinor: "₱9,999,999.99",
		} {
			if got := php(minor).Display(); got != want {
				t.Errorf("%d: got %s, want %s", minor, got, want)
			}
		}
	})

	t.Run("MultipliesUpToTheMaximum", func(t *testing.T) {
		t.Parallel()
		got, err := php(33_333_333).Mul(30)
		if err != nil || got != php(999_999_990) {
			t.Errorf("got %v, %v", got, err)
		}
		for _, quantity := range []int64{0, -1, 31, math.MaxInt64, math.MaxInt64/33_333_333 + 1, math.MinInt64} {
			if got, err := php(33_333_333).Mul(quantity); !errors.Is(err, ErrAmount) {
				t.Errorf("times %d: got %v, %v", quantity, got, err)
			}
		}
	})

	t.Run("PrintsForOperators", func(t *testing.T) {
		t.Parallel()
		for money, want := range map[Money]string{
			php(49900):                  "PHP 499.00",
			php(5):                      "PHP 0.05",
			php(-5):                     "PHP -0.05",
			php(math.MinInt64):          "PHP -92233720368547758.08",
			{Minor: 1, Currency: "USD"}: "USD 0.01",
		} {
			if got := money.String(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})

	t.Run("RefusesAmountsNobodyCanCharge", func(t *testing.T) {
		t.Parallel()
		for _, minor := range []int64{0, -1, MaxAmountMinor + 1, math.MaxInt64, math.MinInt64} {
			if got, err := NewMoney(minor, CurrencyPHP); !errors.Is(err, ErrAmount) {
				t.Errorf("%d: got %v, %v", minor, got, err)
			}
			if got, err := php(minor).Add(php(1)); !errors.Is(err, ErrAmount) {
				t.Errorf("%d: got %v, %v", minor, got, err)
			}
			if got, err := php(minor).Mul(1); !errors.Is(err, ErrAmount) {
				t.Errorf("%d: got %v, %v", minor, got, err)
			}
		}
	})

	t.Run("RefusesOtherCurrencies", func(t *testing.T) {
		t.Parallel()
		for _, currency := range []string{"USD", "php", "", "PHP ", strings.Repeat("x", 1000)} {
			if _, err := ParseCurrency(currency); err == nil {
				t.Errorf("%q was taken", currency)
			} else if len(err.Error()) > 120 {
				t.Errorf("a message of %d bytes", len(err.Error()))
			}
		}
		if _, err := php(1).Add(Money{1, "USD"}); !errors.Is(err, ErrCurrencyMismatch) {
			t.Errorf("got %v", err)
		}
	})
}

func TestParseMinor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"1": 1, "49900": 49900, "999999999": MaxAmountMinor} {
		if got, err := ParseMinor(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"":                         "is empty",
		"0":                        "is nothing to charge",
		"-0":                       "is negative",
		"-49900":                   "is negative",
		"1e2":                      "whole centavos",
		"1E2":                      "whole centavos",
		"100.0":                    "whole centavos",
		"499.00":                   "whole centavos",
		"0.5":                      "whole centavos",
		"007":                      "begins with a zero",
		`"49900"`:                  "is text",
		"null":                     "is not a number",
		"true":                     "is not a number",
		" 1":                       "is not a number",
		"1 ":                       "is not a number",
		"1_000":                    "is not a number",
		"0x10":                     "is not a number",
		"+1":                       "is not a number",
		"٣":                        "is not a number",
		"1000000000":               "above PayMongo's maximum of 999999999",
		"9223372036854775807":      "above PayMongo's maximum",
		"9223372036854775808":      "above PayMongo's maximum",
		"18446744073709551617":     "above PayMongo's maximum",
		strings.Repeat("9", 10000): "above PayMongo's maximum",
	} {
		got, err := ParseMinor(text)
		if !errors.Is(err, ErrAmount) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %d, %v; want %s", clip(text), got, err, why)
		}
	}
}

// FuzzParseMinor holds ParseMinor against encoding/json: whatever it takes is the
// same integer to JSON, written in the only way.
func FuzzParseMinor(f *testing.F) {
	for _, seed := range []string{"1", "49900", "1e2", "100.0", "9223372036854775808", "-1", "00", `"1"`, "null", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		minor, err := ParseMinor(text)
		if err != nil {
			if minor != 0 || !errors.Is(err, ErrAmount) {
				t.Fatalf("%d, %v", minor, err)
			}
			return
		}
		var viaJSON int64
		if err := json.Unmarshal([]byte(text), &viaJSON); err != nil || viaJSON != minor {
			t.Fatalf("%d, but JSON says %d, %v", minor, viaJSON, err)
		}
		if strconv.FormatInt(minor, 10) != text {
			t.Fatalf("%d is written %q", minor, text)
		}
		if _, err := NewMoney(minor, CurrencyPHP); err != nil {
			t.Fatal(err)
		}
	})
}
