package paymongo

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestRedactCardNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"4343434343434345":                              "***",
		"4343 4343 4343 4345":                           "***",
		"4343-4343-4343-4345":                           "***",
		"4343.4343.4343.4345":                           "***",
		"4343\u00a04343\u00a04343\u00a04345":            "***",
		"4343 4343 4343 4345 737":                       "***",
		"4343434343434345 12/30 737":                    "***/30 737",
		"3782 822463 10005":                             "***",
		"378282246310005":                               "***",
		"4222222222222":                                 "***",
		"card4343434343434345x":                         "card***x",
		"pan_4343434343434345":                          "pan_***",
		"amount 49900 of 999999999":                     "amount 49900 of 999999999",
		"at 2026-01-31 09:00:00, 1769821200, 127.0.0.1": "at 2026-01-31 09:00:00, 1769821200, 127.0.0.1",
		"1769821200000":                                 "1769821200000",
		"+63 917 123 4567":                              "+63 917 123 4567",
	} {
		if got := redact(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	// Wherever a text is cut, no part of a card number stays at its end.
	for n := range 64 {
		text := strings.Repeat("x", maxDetail-n) + " 4343 4343 4343 4345 and more"
		if got := clean(text); strings.Contains(got, "43") {
			t.Errorf("cut after %d: %q", n, got[len(got)-40:])
		}
	}
}

func TestFailedCodeHidesSecrets(t *testing.T) {
	t.Parallel()
	var p Payment
	const said = `{"id":"pay_1","type":"payment","attributes":{"status":"failed","failed_code":"card 4343434343434345\u0000","failed_message":"sk_test_abc"}}`
	if err := json.Unmarshal([]byte(said), &p); err != nil {
		t.Fatal(err)
	}
	if p.FailedCode != "card *** " || p.FailedMessage != "sk_test_***" {
		t.Errorf("%q, %q", p.FailedCode, p.FailedMessage)
	}
}
