package billing

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// budgetVector is a case of testdata/decline-codes.json.
type budgetVector struct {
	Network       Network    `json:"network"`
	Category      int        `json:"category"`
	PriorDeclines *int       `json:"prior_declines_same_card_amount_in_30d"`
	Limit         int        `json:"limit"`
	AdviceCode    AdviceCode `json:"mac"`
	HoursSince    *int       `json:"hours_since_decline"`
	Attempts24h   *int       `json:"attempts_24h"`
	Attempts30d   int        `json:"attempts_30d"`
	Expect        string     `json:"expect"`
}

var limitsNow = time.Date(2026, 3, 15, 9, 0, 0, 0, time.UTC)

// declinesAgo is n declines, evenly spread over the window that ends now.
func declinesAgo(n int, newest, oldest time.Duration) []CardAttempt {
	var past []CardAttempt
	for i := range n {
		ago := newest
		if n > 1 {
			ago += (oldest - newest) * time.Duration(i) / time.Duration(n-1)
		}
		past = append(past, CardAttempt{At: limitsNow.Add(-ago), Declined: true})
	}
	return past
}

func TestBudgetVectors(t *testing.T) {
	t.Parallel()
	vectors := readDeclineFile(t).BudgetVectors
	checked := map[string]int{}
	for i, v := range vectors {
		limits, use := DefaultCardLimits(), CardUse{Network: v.Network}
		switch {
		case v.PriorDeclines != nil && v.Category == 1:
			// The decline that told the category is itself the first.
			checked["category 1"]++
			use.Past = []CardAttempt{{At: limitsNow.Add(-time.Hour), Declined: true, VisaCategory: 1}}
		case v.PriorDeclines != nil:
			checked["visa count"]++
			limits.VisaDeclines = v.Limit
			use.Past = declinesAgo(*v.PriorDeclines, time.Hour, 29*24*time.Hour)
		case v.AdviceCode != "":
			checked["advice code"]++
			hours := 1
			if v.HoursSince != nil {
				hours = *v.HoursSince
			}
			use.Past = []CardAttempt{{At: limitsNow.Add(-time.Duration(hours) * time.Hour), Declined: true, AdviceCode: v.AdviceCode}}
		case v.Attempts24h != nil:
			checked["mastercard count"]++
			use.Past = declinesAgo(*v.Attempts24h, time.Hour, 23*time.Hour)
			use.Past = append(use.Past, declinesAgo(max(0, v.Attempts30d-*v.Attempts24h), 25*time.Hour, 29*24*time.Hour)...)
		default:
			t.Fatalf("vector %d tells nothing this test knows", i)
		}
		permit := limits.Permit(use, limitsNow)
		got := "deny"
		switch {
		case permit.Allowed:
			got = "allow"
		case v.AdviceCode != "" && !permit.Until.IsZero():
			got = "wait"
		}
		if got != v.Expect {
			t.Errorf("vector %d (%s, category %d, advice %s): got %s (%s), want %s", i, v.Network, v.Category, v.AdviceCode, got, permit.Reason, v.Expect)
		}
	}
	want := map[string]int{"category 1": 1, "visa count": 4, "advice code": 6, "mastercard count": 3}
	if diff := cmp.Diff(want, checked); diff != "" {
		t.Errorf("vectors checked (-want +got):\n%s", diff)
	}
}

func TestAdviceCodes(t *testing.T) {
	t.Parallel()
	known := map[AdviceCode]bool{}
	for _, c := range readDeclineFile(t).Mastercard.Codes {
		known[c.Code] = true
		if _, never := adviceNever[c.Code]; never != (c.Retry == "never") {
			t.Errorf("%s: never is %t, the source says %s", c.Code, never, c.Retry)
		}
		hours := 0
		if c.Hours != nil {
			hours = *c.Hours
		}
		if got := adviceWait[c.Code]; got != time.Duration(hours)*time.Hour {
			t.Errorf("%s: wait %s, the source says %d hours", c.Code, got, hours)
		}
	}
	for code := range adviceWait {
		if !known[code] {
			t.Errorf("%s is in no source", code)
		}
	}
}

func TestPermit(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for _, tt := range []struct {
		name string
		use  CardUse
		want string
	}{
		{"AllowsAFreshCard", CardUse{Network: NetworkVisa}, "allowed"},
		{"ApprovalsDoNotCount", CardUse{Network: NetworkMastercard, Past: append(declinesAgo(9, time.Hour, 2*time.Hour),
			CardAttempt{At: limitsNow.Add(-time.Hour)}, CardAttempt{At: limitsNow.Add(-time.Hour)})}, "allowed"},
		{"DeclineLeavesAfterExactlyAWindow", CardUse{Network: NetworkVisa, Past: declinesAgo(20, time.Hour, 30*day)}, "allowed"},
		{"DeniesUntilTheOldestLeaves", CardUse{Network: NetworkVisa, Past: declinesAgo(20, time.Hour, 30*day-time.Minute)}, "visa_30d until 03-15 09:01"},
		{"DeniesUntilEnoughLeave", CardUse{Network: NetworkMastercard, Past: declinesAgo(12, time.Hour, 12*time.Hour)}, "mastercard_24h until 03-15 23:00"},
		{"InvoiceLimitIsForEver", CardUse{Network: NetworkVisa, InvoiceAttempts: 12}, "invoice_attempts for ever"},
		{"LongestRuleWins", CardUse{Network: NetworkMastercard, Past: []CardAttempt{
			{At: limitsNow.Add(-time.Minute), Declined: true, AdviceCode: "24"}, {At: limitsNow.Add(-day), Declined: true, AdviceCode: "30"},
			{At: limitsNow.Add(-time.Minute), Declined: true, AdviceCode: "25"},
		}}, "mastercard_wait until 03-24 09:00"},
		{"MastercardRulesAreNotVisas", CardUse{Network: NetworkVisa, Past: []CardAttempt{{At: limitsNow, Declined: true, AdviceCode: "03"}}}, "allowed"},
		{"NeverIsLongerThanAnyWait", CardUse{Network: NetworkMastercard, Past: []CardAttempt{
			{At: limitsNow.Add(-90 * day), Declined: true, AdviceCode: "21"}, {At: limitsNow.Add(-time.Hour), Declined: true, AdviceCode: "30"},
		}}, "mastercard_advice for ever"},
		{"NeverAfterAWait", CardUse{Network: NetworkMastercard, Past: []CardAttempt{
			{At: limitsNow.Add(-time.Hour), Declined: true, AdviceCode: "30"}, {At: limitsNow.Add(-90 * day), Declined: true, AdviceCode: "21"},
		}}, "mastercard_advice for ever"},
		{"OtherNetworksObeyVisasToo", CardUse{Network: NetworkOther, Past: []CardAttempt{{At: limitsNow, Declined: true, VisaCategory: 1}}}, "visa_category_1 for ever"},
		{"OtherNetworksObeyBoth", CardUse{Network: NetworkOther, Past: declinesAgo(10, time.Hour, 2*time.Hour)}, "mastercard_24h until 03-16 07:00"},
		{"VisaRulesAreNotMastercards", CardUse{Network: NetworkMastercard, Past: []CardAttempt{{At: limitsNow, Declined: true, VisaCategory: 1}}}, "allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			permit := DefaultCardLimits().Permit(tt.use, limitsNow)
			got := "allowed"
			switch {
			case permit.Allowed:
			case permit.Until.IsZero():
				got = fmt.Sprintf("%s for ever", permit.Rule)
			default:
				got = fmt.Sprintf("%s until %s", permit.Rule, permit.Until.Format("01-02 15:04"))
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if permit.Allowed != (permit.Rule == LimitRuleNone) || permit.Allowed != (permit.Reason == "") {
				t.Errorf("%+v", permit)
			}
			// The guard keeps its word: at Until it lets go, and not before.
			if !permit.Until.IsZero() {
				if at := DefaultCardLimits().Permit(tt.use, permit.Until); !at.Allowed {
					t.Errorf("at its end: %+v", at)
				}
				if before := DefaultCardLimits().Permit(tt.use, permit.Until.Add(-1)); before.Allowed {
					t.Error("allowed before its end")
				}
			}
		})
	}

	t.Run("ZeroLimitsAllowNothing", func(t *testing.T) {
		t.Parallel()
		if permit := (CardLimits{}).Permit(CardUse{Network: NetworkVisa}, limitsNow); permit.Allowed || !permit.Until.IsZero() {
			t.Errorf("%+v", permit)
		}
	})
}

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	for brand, want := range map[string]Network{
		"visa": NetworkVisa, "Visa": NetworkVisa, "mastercard": NetworkMastercard, "MasterCard": NetworkMastercard,
		"jcb": NetworkOther, "": NetworkOther,
	} {
		if got := NetworkOf(brand); got != want {
			t.Errorf("%s: got %s", brand, got)
		}
	}
}
