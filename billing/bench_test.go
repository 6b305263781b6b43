package billing

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

// Benchmarks of what each charge pays here, beside SQL: make bench-micro.

func BenchmarkPeriod(b *testing.B) {
	for _, bm := range []struct {
		name, zone string
		unit       IntervalUnit
	}{
		{"MonthInManila", "Asia/Manila", IntervalUnitMonth},
		{"MonthWithSummerTime", "America/New_York", IntervalUnitMonth},
		{"DayInManila", "Asia/Manila", IntervalUnitDay},
	} {
		b.Run(bm.name, func(b *testing.B) {
			s := mustSchedule(b, "2026-01-31T09:00:00+08:00", bm.zone, bm.unit, 1)
			b.ReportAllocs()
			k := 0
			for b.Loop() {
				if _, err := s.Period(k % 1200); err != nil {
					b.Fatal(err)
				}
				k++
			}
		})
	}
}

func BenchmarkLoadZone(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := LoadZone("Asia/Manila"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	for _, bm := range []struct {
		name string
		code DeclineCode
	}{{"Known", "insufficient_funds"}, {"Unlisted", "moon_phase"}} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if Classify(bm.code).Class == "" || bm.code.Label() == "" {
					b.Fatal("no class")
				}
			}
		})
	}
}

func BenchmarkParseDunningPolicy(b *testing.B) {
	policy := []byte(`{"offsets_days":[1,3,5,7],"hour":9,"end":"mark_unpaid"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseDunningPolicy(policy); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNextAttempt(b *testing.B) {
	due := time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC)
	zone, err := LoadZone("Asia/Manila")
	if err != nil {
		b.Fatal(err)
	}
	facts := DunningFacts{
		InvoiceID: "0198c5d2-7d7c-7a31-9c3e-1f6f0f0f2a11", DueAt: due, Cards: []SavedCard{{ID: "card", ExpMonth: 12, ExpYear: 2030}},
		Attempts: []DunningAttempt{{At: due, CardID: "card", State: AttemptDeclined, Code: "insufficient_funds"}},
	}
	policy, holidays := DefaultDunningPolicy(), BankHolidays()
	b.ReportAllocs()
	for b.Loop() {
		if d := policy.NextAttempt(facts, due.Add(time.Minute), zone, holidays); d.Action != DunningActionRetryAt {
			b.Fatal(d)
		}
	}
}

// BenchmarkChoose is a first attempt's: which card, and whether it may be asked.
func BenchmarkChoose(b *testing.B) {
	due := time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC)
	c := &Collection{
		TimeZone: "Asia/Manila", DueAt: due, Trigger: TriggerSchedule, Dunning: []byte(`{"offsets_days":[1,3,5,7],"hour":9,"end":"mark_unpaid"}`),
		Cards: []Card{{ID: uuid.New(), ProviderID: "pm_1", Brand: "visa", Status: "active", ExpMonth: 12, ExpYear: 2030}},
	}
	for range 10 {
		c.Cards[0].Past = append(c.Cards[0].Past, CardAttempt{At: due.AddDate(0, 0, -3), Declined: true})
	}
	limits, holidays := DefaultCardLimits(), BankHolidays()
	b.ReportAllocs()
	for b.Loop() {
		if choice, err := c.Choose(due, limits, holidays); err != nil || choice.Decision != nil {
			b.Fatalf("%+v %v", choice.Decision, err)
		}
	}
}

func BenchmarkSettleAnswer(b *testing.B) {
	now := time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC)
	price := Money{Minor: 49900, Currency: CurrencyPHP}
	s := Standing{
		InvoiceOpen: true, Amount: price, IntentState: IntentReady, ProviderIntentID: "pi_1", Attempted: true,
		Open: &OpenAttempt{ID: uuid.New(), State: AttemptArmed, ArmedAt: now, SettledAfter: now.Add(SendWindow + SettlePeriod)},
	}
	for _, bm := range []struct {
		name   string
		answer Answer
		want   Ruling
	}{
		{"Paid", Answer{Kind: AnswerIntent, Intent: ProviderIntent{
			ID: "pi_1", Status: ProviderSucceeded, Amount: price, Payments: []ProviderPayment{{ID: "pay_1", Status: "paid", Amount: price, At: now}},
		}}, Paid},
		{"Declined", Answer{Kind: AnswerDeclined, Code: "insufficient_funds", Reason: "insufficient_funds"}, Declined},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if j := s.Settle(bm.answer, now); j.Ruling != bm.want {
					b.Fatal(j)
				}
			}
		})
	}
}
