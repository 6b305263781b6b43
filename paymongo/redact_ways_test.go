package paymongo

import "testing"

// FuzzRedactWays compares redact with its patterns alone.
func FuzzRedactWays(f *testing.F) {
	for _, s := range []string{
		"", "sk_test_abc and pk_live_d-e", "whsk_x", "pi_1_client_Zx81Qm", "Basic c2tfdGVzdF9hYmM6, cGtfbGl2ZV9h", "4343434343434345", "4343 4343 4343 4", "4 3.4-3_4343\u00a043434 9 123",
		"2434343434343", "343434343434", "sk_test_c2tfdGVzdF9h 4343434343434345", "The card has insufficient funds.", "k_", "\xff4343434343434345",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := tokenPattern.ReplaceAllString(s, "${1}"+hidden)
		want = basicPattern.ReplaceAllString(want, hidden)
		want = cardPattern.ReplaceAllString(want, hidden)
		if got := redact(s); got != want {
			t.Errorf("%q became %q, by the patterns %q", s, got, want)
		}
	})
}
