package billing

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// declineFile is testdata/decline-codes.json: facts collected from public pages.
type declineFile struct {
	PayMongo struct {
		SubCodes []struct {
			Code  DeclineCode `json:"code"`
			Group string      `json:"group"`
			Retry string      `json:"our_suggested_retry"`
		} `json:"sub_codes"`
		Mask []DeclineCode `json:"mask_to_buyer_as_generic"`
	} `json:"paymongo"`
	Mastercard struct {
		Codes []struct {
			Code  AdviceCode `json:"mac"`
			Retry string     `json:"retry"`
			Hours *int       `json:"min_wait_hours"`
		} `json:"merchant_advice_codes"`
	} `json:"mastercard"`
	BudgetVectors []budgetVector `json:"budget_vectors"`
}

func readDeclineFile(t testing.TB) declineFile {
	t.Helper()
	var file declineFile
	readJSON(t, "testdata/decline-codes.json", &file)
	return file
}

func TestClassify(t *testing.T) {
	t.Parallel()

	t.Run("AdviceFollowsFromClass", func(t *testing.T) {
		t.Parallel()
		want := map[DeclineClass][]Advice{
			DeclineClassHard: {AdviceUpdateMethod}, DeclineClassSoft: {AdviceRetry, AdvicePayday},
			DeclineClassAction: {AdviceCustomer}, DeclineClassConfig: {AdviceStop},
			DeclineClassUnknown: {AdviceAsk}, DeclineClassGateway: {AdviceSoon},
		}
		for code := range declines {
			for _, d := range []Decline{Classify(code), Classify(code).Confirmed()} {
				if !slices.Contains(want[d.Class], d.Advice) {
					t.Errorf("%s is %s and the advice is %s", code, d.Class, d.Advice)
				}
			}
		}
	})

	t.Run("AgreesWithTheCollectedAdvice", func(t *testing.T) {
		t.Parallel()
		// What the file suggests, from PayMongo's next actions, allows these classes.
		// card_not_supported and its like are "fix" there: fixed by another card.
		allowed := map[string][]DeclineClass{
			"never":   {DeclineClassHard},
			"later":   {DeclineClassSoft, DeclineClassGateway, DeclineClassUnknown},
			"fix":     {DeclineClassHard, DeclineClassAction, DeclineClassConfig},
			"unknown": {DeclineClassUnknown},
		}
		for _, c := range readDeclineFile(t).PayMongo.SubCodes {
			// The next day the limit is a new one; Cap turns it into action.
			if c.Code == "amount_allowed_exceeded" {
				continue
			}
			if d := Classify(c.Code); !slices.Contains(allowed[c.Retry], d.Class) {
				t.Errorf("%s is %s, but the advice collected is %s", c.Code, d.Class, c.Retry)
			}
		}
	})

	t.Run("CoversEveryCodeOfPayMongo", func(t *testing.T) {
		t.Parallel()
		seen := map[DeclineCode]bool{"card_expired": true, "processor_unavailable": true} // the page of test cards
		for _, c := range readDeclineFile(t).PayMongo.SubCodes {
			seen[c.Code] = true
		}
		if len(seen) != 41 {
			t.Errorf("%d codes of cards, want 41", len(seen))
		}
		seen[DeclineCodeNotAllowed] = true // a refusal of the account, from the page of API errors
		for _, wallet := range []DeclineCode{"CLOSED", "AMOUNT_EXCEED_LIMIT", "PARAM_MISSING", "REPEAT_REQ_INCONSISTENT", "SYSTEM_ERROR", "RJCT"} {
			seen[wallet] = true
		}
		for code := range seen {
			if d := Classify(code); !d.Listed || d.Code != code {
				t.Errorf("%s: %+v", code, d)
			}
		}
		for code := range declines {
			if !seen[code] {
				t.Errorf("%s is in the table and in no source", code)
			}
		}
	})

	t.Run("LabelsAreAClosedSet", func(t *testing.T) {
		t.Parallel()
		labels := DeclineCodes()
		if len(labels) != len(declines)+1 || !slices.IsSorted(labels) || !slices.Contains(labels, DeclineCodeOther) {
			t.Errorf("%d labels of %d codes: %v", len(labels), len(declines), labels)
		}
		for _, code := range []DeclineCode{"", "other", "new_code", "insufficient_funds", "x\ny"} {
			if !slices.Contains(labels, code.Label()) {
				t.Errorf("%q has the label %q", code, code.Label())
			}
		}
	})

	t.Run("MasksWhatWouldHelpAThief", func(t *testing.T) {
		t.Parallel()
		var got []DeclineCode
		for code := range declines {
			if Classify(code).Mask {
				got = append(got, code)
			}
		}
		want := readDeclineFile(t).PayMongo.Mask
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("masked codes (-want +got):\n%s", diff)
		}
	})

	t.Run("UnknownIsAskedForBeforeAnythingElse", func(t *testing.T) {
		t.Parallel()
		d := Classify("processor_timeout")
		if d.Class != DeclineClassUnknown || d.Advice != AdviceAsk {
			t.Errorf("%+v", d)
		}
		if d = d.Confirmed(); d.Class != DeclineClassGateway || d.Advice != AdviceSoon || d.Code != "processor_timeout" {
			t.Errorf("confirmed: %+v", d)
		}
		for code := range declines {
			if d := Classify(code).Confirmed(); d.Class == DeclineClassUnknown || d != d.Confirmed() {
				t.Errorf("%s stays unknown for ever: %+v", code, d)
			}
		}
	})

	t.Run("UnlistedIsSoftWithALowCap", func(t *testing.T) {
		t.Parallel()
		want := Decline{Code: "brand_new", Class: DeclineClassSoft, Advice: AdviceRetry, Cap: capLow}
		if diff := cmp.Diff(want, Classify("brand_new"), cmp.AllowUnexported(Decline{})); diff != "" {
			t.Error(diff)
		}
	})
}
