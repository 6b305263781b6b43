package paymongo

import (
	"regexp"
	"strings"
	"testing"
)

// The rules of isRoute and isID, said in another way.
var (
	pathPattern = regexp.MustCompile(`^(?:\.\./)?[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*$`)
	idPattern   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
)

func checkIDRules(t *testing.T, s string) {
	t.Helper()
	if got, want := isID(s), idPattern.MatchString(s); got != want {
		t.Errorf("%q is an id: %v, by the pattern %v", s, got, want)
	}
	want := pathPattern.MatchString(s) && !strings.Contains(strings.TrimPrefix(s, "../"), "..")
	if got := isRoute(s); got != want {
		t.Errorf("%q is a route: %v, by the pattern %v", s, got, want)
	}
}

func TestIDRules(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for _, s := range []string{string([]byte{byte(c)}), "a" + string([]byte{byte(c)}), string([]byte{byte(c)}) + "/a", string(rune(c))} {
			checkIDRules(t, s)
		}
	}
	for _, s := range []string{"", "/", "a/", "/a", "a//b", "..", "../", "../a", "../../a", "a/../b", "a..b", "...", ".../a", "../..", "../.", ".", "~", "a\n", "\na"} {
		checkIDRules(t, s)
	}
	for _, n := range []int{127, 128, 129} {
		checkIDRules(t, strings.Repeat("x", n))
	}
}

func FuzzIDRules(f *testing.F) {
	f.Add("../v2/customers/cus_1/payment_methods")
	f.Add("pi_1-A")
	f.Fuzz(func(t *testing.T, s string) { checkIDRules(t, s) })
}
