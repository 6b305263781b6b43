package billing_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// TestAnAttemptEndsInReview: what is proven of an attempt is stored also where its
// invoice is in front of a human, who may void it then. The invoice stays there
// until somebody decides; a success is believed as everywhere.
func TestAnAttemptEndsInReview(t *testing.T) {
	t.Parallel()
	idle := billing.ProviderIntent{ID: "pi_1", Status: billing.ProviderAwaitingMethod, Amount: php(49900)}
	cancelled, processing, other, paid, declined := idle, idle, idle, idle, idle
	cancelled.Status = billing.ProviderCancelled
	processing.Status = billing.ProviderProcessing
	other.Amount = php(100)
	paid.Status, paid.Payments = billing.ProviderSucceeded, []billing.ProviderPayment{paidPayment("pay_1")}
	declined.Payments = []billing.ProviderPayment{{ID: "pay_2", Status: "failed", Amount: php(49900), FailedCode: "stolen_card", At: noon.Add(time.Minute)}}
	late := noon.Add(billing.SendWindow + billing.SettlePeriod)
	for name, tt := range map[string]struct {
		seen  billing.ProviderIntent
		at    time.Time
		older bool // about an attempt before this one
		want  string
		ends  bool
	}{
		"NothingToSeeYet":     {idle, late.Add(-time.Second), false, "review review", false},
		"NothingToSeeForLong": {idle, late, false, "review no_effect", true},
		"CancelledJustNow":    {cancelled, late.Add(-time.Second), false, "review review", false},
		"Cancelled":           {cancelled, late, false, "review no_effect", true},
		"Declined":            {declined, noon.Add(2 * time.Minute), false, "review declined", true},
		"Processing":          {processing, late.AddDate(0, 0, 9), false, "review review", false},
		"AnotherAmount":       {other, late.AddDate(0, 0, 9), false, "review review", false},
		"AboutAnOlderAttempt": {idle, late, true, "review review", false},
		"Paid":                {paid, noon.Add(time.Minute), false, "paid succeeded", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			id := l.open(noon)[0]
			armed := l.arm(l.load(id, noon), "pi_1", noon).Armed
			l.settle(billing.Settlement{
				Collection: l.load(id, noon), Attempt: armed.AttemptID, Fence: armed.Fence,
				Judgement: billing.Judgement{Ruling: billing.Park, Reason: "the provider answers with another intent", Evidence: "retrieve"},
			}, noon)
			l.want("review review", sqlInvoiceAndAttempt)
			void := func(tx pgx.Tx) error { return billing.VoidInvoice(t.Context(), tx, id.String(), act(tt.at)) }
			l.refused(void)

			c := l.load(id, tt.at)
			if step := c.LookInstead(c.Next(false), false); step != billing.StepLook {
				t.Fatalf("a reconcile does %s", step)
			}
			look := billing.Settlement{Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Judgement: c.Judge(tt.seen, tt.at), Seen: &tt.seen, Source: "retrieve"}
			if tt.older {
				look.Fence--
			}
			settled := l.settle(look, tt.at)
			l.want(tt.want, sqlInvoiceAndAttempt)
			if again := l.settle(look, tt.at); again.Applied {
				t.Errorf("the same once more was applied: %+v", again)
			}
			if !tt.ends {
				if settled.Applied != (name == "Paid") {
					t.Errorf("%+v", settled)
				}
				l.refused(void)
				return
			}
			if !settled.Applied || settled.InvoiceStatus != billing.InvoiceReview {
				t.Errorf("%+v", settled)
			}
			if blocked := l.one(`SELECT count(*)::text FROM singil.payment_methods WHERE blocked_code = 'stolen_card'`); (blocked == "1") != (name == "Declined") {
				t.Errorf("%s cards are blocked", blocked)
			}
			if due := l.open(tt.at.AddDate(0, 0, 5)); len(due) != 0 {
				t.Errorf("claimed %v", due)
			}
			if r := l.arm(l.load(id, tt.at), "pi_1", tt.at); r.Err == nil {
				t.Error("an invoice in review was armed")
			}
			l.tx(void)
			l.want("1 void", `SELECT count(*) || ' ' || min(status) FROM singil.invoices`)
		})
	}
}

// TestNotProvenIsGivenUpAfterALongTime: the provider does not know the intent, so
// that nothing is ever proven. After long enough the debt may be given up, which
// charges nobody and leaves room for money that comes after all; it is never void.
func TestNotProvenIsGivenUpAfterALongTime(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	armed := l.arm(l.load(id, noon), "pi_1", noon).Armed
	gone := billing.Judgement{Ruling: billing.Park, Reason: "the provider does not know the intent", Evidence: "retrieve"}
	give := func(now time.Time) func(pgx.Tx) error {
		return func(tx pgx.Tx) error { return billing.MarkUncollectible(t.Context(), tx, id.String(), act(now)) }
	}
	long := noon.Add(billing.PatienceWithProvider + time.Second)
	l.refused(give(long)) // open: the ladder of looks is not over
	l.settle(billing.Settlement{Collection: l.load(id, noon), Attempt: armed.AttemptID, Fence: armed.Fence, Judgement: gone}, noon)
	l.refused(give(noon.Add(billing.PatienceWithProvider)))
	l.refused(func(tx pgx.Tx) error { return billing.VoidInvoice(t.Context(), tx, id.String(), act(long)) })
	l.tx(give(long))
	l.want("uncollectible review", sqlInvoiceAndAttempt)
	if due := l.open(long.AddDate(0, 0, 5)); len(due) != 0 {
		t.Errorf("claimed %v", due)
	}
	if r := l.arm(l.load(id, long), "pi_1", long); r.Err == nil {
		t.Error("an invoice that was given up was armed")
	}
	l.settle(billing.Settlement{
		Collection: l.load(id, long), Attempt: armed.AttemptID, Fence: armed.Fence, Source: "webhook",
		Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "retrieve"},
	}, long)
	l.want("paid succeeded", sqlInvoiceAndAttempt)
}

const sqlInvoiceAndAttempt = `SELECT i.status || ' ' || a.state FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id`
