package billing

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

var protocolNow = time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)

// standing is an open invoice with an armed attempt on pi_1.
func standing(change ...func(*Standing)) Standing {
	s := Standing{
		InvoiceOpen: true, Amount: Money{49900, CurrencyPHP}, IntentState: IntentReady, ProviderIntentID: "pi_1", Attempted: true,
		Open:  &OpenAttempt{ID: uuid.Max, State: AttemptArmed, ArmedAt: protocolNow, SettledAfter: protocolNow.Add(15 * time.Minute)},
		Known: map[string]bool{"pay_known": true},
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func seen(status ProviderStatus, payments ...ProviderPayment) ProviderIntent {
	return ProviderIntent{ID: "pi_1", Status: status, Amount: Money{49900, CurrencyPHP}, Payments: payments}
}

func pay(id, status string, minor int64) ProviderPayment {
	return ProviderPayment{ID: id, Status: status, Amount: Money{minor, CurrencyPHP}, FailedCode: "do_not_honor", At: protocolNow}
}

func noneOpen(s *Standing) { s.Open = nil }

func TestNext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		s      Standing
		looked bool
		want   Step
	}{
		{"ArmsAVirgin", standing(noneOpen, func(s *Standing) { s.Attempted = false }), false, StepArm},
		{"ArmsOnlyAfterALook", standing(noneOpen), false, StepLook},
		{"ArmsAfterALook", standing(noneOpen), true, StepArm},
		{"CreatesWithoutAnID", standing(noneOpen, func(s *Standing) { s.ProviderIntentID = "" }), false, StepCreate},
		{"NeverArmsBesideAnOpenAttempt", standing(), true, StepLook},
		{"StopsOnADeadIntent", standing(func(s *Standing) { s.IntentState = IntentDead }), false, StepStop},
		{"StopsOnAReview", standing(func(s *Standing) { s.IntentState = IntentReview }), false, StepStop},
		{"StopsWhenTheInvoiceIsNotOpen", standing(func(s *Standing) { s.InvoiceOpen = false }), false, StepStop},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.s.Next(tt.looked); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	later := protocolNow.Add(15 * time.Minute)
	for _, tt := range []struct {
		name string
		s    Standing
		seen ProviderIntent
		now  time.Time
		want Ruling
	}{
		{"AnotherAmountIsParked", standing(), ProviderIntent{ID: "pi_1", Status: ProviderSucceeded, Amount: Money{49901, CurrencyPHP}}, protocolNow, Park},
		{"AnotherIntentIsParked", standing(), ProviderIntent{ID: "pi_2", Status: ProviderSucceeded, Amount: Money{49900, CurrencyPHP}}, protocolNow, Park},
		{"AnotherModeIsParked", standing(func(s *Standing) { s.Livemode = true }), seen(ProviderSucceeded), protocolNow, Park},
		{"CancelledIsDead", standing(noneOpen), seen(ProviderCancelled), protocolNow, Dead},
		{"CancelledWithAnOpenAttemptWaits", standing(), seen(ProviderCancelled), protocolNow, Unknown},
		{"CancelledLongAfterTheAttemptIsDead", standing(), seen(ProviderCancelled), later, Dead},
		{"CustomerMustAct", standing(), seen(ProviderAwaitingAction), protocolNow, Wait},
		{"HeldIsNotExpected", standing(), seen(ProviderAwaitingCapture), protocolNow, Park},
		{"KnownFailureIsNoEvidence", standing(), seen(ProviderAwaitingMethod, pay("pay_known", "failed", 49900)), protocolNow, Unknown},
		{"NewFailureIsADecline", standing(), seen(ProviderAwaitingMethod, pay("pay_known", "failed", 49900), pay("pay_2", "failed", 49900)), protocolNow, Declined},
		{"NothingLongAfterwardsIsNoEffect", standing(), seen(ProviderAwaitingMethod), later, NoEffect},
		{"NothingOpenIsFree", standing(noneOpen), seen(ProviderAwaitingMethod), protocolNow, Free},
		{"NothingYetIsUnknown", standing(), seen(ProviderAwaitingMethod), later.Add(-1), Unknown},
		{"PaidInPartIsParked", standing(), seen(ProviderSucceeded, pay("pay_2", "paid", 100)), protocolNow, Park},
		{"ProcessingWaits", standing(), seen(ProviderProcessing), protocolNow, Wait},
		{"SucceededIsPaid", standing(), seen(ProviderSucceeded, pay("pay_2", "failed", 49900), pay("pay_3", "paid", 49900)), protocolNow, Paid},
		{"SucceededWithoutAPaymentWaits", standing(), seen(ProviderSucceeded), protocolNow, Wait},
		{"UnheardOfStatusIsParked", standing(), seen("refunded"), protocolNow, Park},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.s.Judge(tt.seen, tt.now); got.Ruling != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

// TestOldFailures: an earlier attempt may have failed with a payment that was not
// shown in time to be put on record. It must not pass for the open one's.
func TestOldFailures(t *testing.T) {
	t.Parallel()
	at := func(id string, since time.Duration) ProviderPayment {
		p := pay(id, "failed", 49900)
		p.At = protocolNow.Add(since).Truncate(time.Second) // the provider's are whole
		return p
	}
	undated := pay("pay_2", "failed", 49900)
	undated.At = time.Time{}
	armed := protocolNow.Add(700 * time.Millisecond)
	for _, tt := range []struct {
		name     string
		earlier  int // attempts on the intent that are over
		payments []ProviderPayment
		want     string // the payment that is the open attempt's; none: unknown
	}{
		{"AfterTheArming", 1, []ProviderPayment{at("pay_2", 2*time.Second)}, "pay_2"},
		{"BothAreShown", 1, []ProviderPayment{at("pay_2", -time.Hour), at("pay_3", time.Second)}, "pay_3"},
		{"EarlierOneIsOnRecord", 1, []ProviderPayment{at("pay_known", -time.Hour), at("pay_2", -time.Minute)}, "pay_2"},
		{"FirstAttempt", 0, []ProviderPayment{at("pay_2", -time.Hour)}, "pay_2"},
		{"OnlyTheEarlierOneIsShown", 1, []ProviderPayment{at("pay_2", -time.Minute)}, ""},
		{"OneOfTwoEarlierOnesIsOnRecord", 2, []ProviderPayment{at("pay_known", -2*time.Hour), at("pay_2", -time.Hour)}, ""},
		{"SameSecond", 1, []ProviderPayment{at("pay_2", 700*time.Millisecond)}, "pay_2"},
		{"SlowClockOfTheProvider", 1, []ProviderPayment{at("pay_2", -4*time.Second)}, "pay_2"},
		{"WithoutATime", 1, []ProviderPayment{undated}, "pay_2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := standing(func(s *Standing) { s.Earlier, s.Open.ArmedAt = tt.earlier, armed })
			got := s.Judge(seen(ProviderAwaitingMethod, tt.payments...), armed.Add(time.Minute))
			want := Declined
			if tt.want == "" {
				want = Unknown
			}
			if got.Ruling != want || got.Payment.ID != tt.want {
				t.Errorf("%s by %q, want %s by %q", got.Ruling, got.Payment.ID, want, tt.want)
			}
		})
	}
}

func TestSettle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer Answer
		want   Ruling
	}{
		{"AnswerThatShowsNothingIsUnknown", Answer{Kind: AnswerIntent, Intent: seen(ProviderAwaitingMethod)}, Unknown},
		{"CardGone", Answer{Kind: AnswerCardGone}, CardGone},
		{"Declined", Answer{Kind: AnswerDeclined, Code: "lost_card"}, Declined},
		{"Fault", Answer{Kind: AnswerFault}, Fault},
		{"NeverSent", Answer{Kind: AnswerNeverSent}, NoEffect},
		{"NotHere", Answer{Kind: AnswerNotHere}, Declined},
		{"Paid", Answer{Kind: AnswerIntent, Intent: seen(ProviderSucceeded, pay("pay_2", "paid", 49900))}, Paid},
		{"SomethingNew", Answer{Kind: "new"}, Unknown},
		{"Unknown", Answer{Kind: AnswerUnknown}, Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// Even long afterwards an attach's own answer proves no absence.
			if got := standing().Settle(tt.answer, protocolNow.Add(time.Hour)); got.Ruling != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}
