package billing_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func TestAnInvoiceIsParkedBeforeItsIntentIsCreated(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	settled := l.settle(billing.Settlement{
		Collection: l.load(id, noon),
		Judgement:  billing.Judgement{Ruling: billing.Park, Reason: "the provider refuses the create"},
	}, noon)
	if settled.InvoiceStatus != billing.InvoiceReview {
		t.Errorf("%+v", settled)
	}
	l.want("review", `SELECT status FROM singil.invoices`)
	l.want("creating", `SELECT state FROM singil.payment_intents`)
}

// Two workers may see the same cancelled intent. The second one must not spoil
// the transaction, which settles other people's invoices too.
func TestADeadIntentIsSettledOnce(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	armed := l.arm(l.load(id, noon), "pi_1", noon).Armed
	l.settle(billing.Settlement{
		Collection: l.load(id, noon), Attempt: armed.AttemptID, Fence: armed.Fence,
		Judgement: billing.Judgement{Ruling: billing.NoEffect, Reason: "not sent", Evidence: "never_sent"},
	}, noon)
	cancelled := billing.ProviderIntent{ID: "pi_1", Status: billing.ProviderCancelled, Amount: php(49900)}
	first, second := l.load(id, noon), l.load(id, noon)
	dead := billing.Judgement{Ruling: billing.Dead, Reason: "cancelled at the provider", Evidence: "retrieve"}
	if settled := l.settle(billing.Settlement{Collection: first, Judgement: dead, Seen: &cancelled}, noon); !settled.Applied {
		t.Fatalf("%+v", settled)
	}
	for _, ruling := range []billing.Ruling{billing.Dead, billing.Park} {
		late := billing.Settlement{Collection: second, Attempt: uuid.Nil, Judgement: billing.Judgement{Ruling: ruling, Reason: "late"}, Seen: &cancelled}
		if settled := l.settle(late, noon); settled.Applied {
			t.Errorf("%s was settled about a dead intent: %+v", ruling, settled)
		}
	}
	l.want("2", `SELECT count(*)::text FROM singil.payment_intents`)
	l.want("open", `SELECT status FROM singil.invoices`)
}

// Two workers that end in one batch: a look that was answered late, and the
// webhook's. Whoever stands first, money that moved is stored at once.
func TestABatchThatTellsTwoThingsOfOneInvoice(t *testing.T) {
	t.Parallel()
	judgements := map[billing.Ruling]billing.Judgement{
		billing.Paid:     {Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "retrieve"},
		billing.Declined: {Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"},
		billing.NoEffect: {Ruling: billing.NoEffect, Reason: "not sent", Evidence: "never_sent"},
		billing.Unknown:  {Ruling: billing.Unknown, Reason: "timeout", Evidence: "attach"},
		billing.Park:     {Ruling: billing.Park, Reason: "another amount", Evidence: "retrieve"},
	}
	for name, tt := range map[string]struct {
		batch []billing.Ruling
		stale int // how many of them, from the first, are about an older attempt
		want  string
		told  []bool // which were applied
	}{
		"PaidBehindUnknown":    {[]billing.Ruling{billing.Unknown, billing.Paid}, 0, "paid succeeded", []bool{false, true}},
		"PaidBehindADecline":   {[]billing.Ruling{billing.Declined, billing.Paid}, 0, "paid succeeded", []bool{false, true}},
		"PaidBehindAReview":    {[]billing.Ruling{billing.Park, billing.Unknown, billing.Paid}, 0, "paid succeeded", []bool{false, false, true}},
		"PaidFirst":            {[]billing.Ruling{billing.Paid, billing.NoEffect}, 0, "paid succeeded", []bool{true, false}},
		"PaidTwice":            {[]billing.Ruling{billing.Paid, billing.Paid}, 0, "paid succeeded", []bool{true, false}},
		"NotPaidTheFirstHolds": {[]billing.Ruling{billing.Declined, billing.Unknown}, 0, "open declined", []bool{true, false}},
		"StaleHoldsNobodyUp":   {[]billing.Ruling{billing.Unknown, billing.Declined}, 1, "open declined", []bool{false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			c := l.load(l.open(noon)[0], noon)
			armed := l.arm(c, "pi_1", noon).Armed
			batch := make([]billing.Settlement, len(tt.batch))
			for i, ruling := range tt.batch {
				batch[i] = billing.Settlement{Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Judgement: judgements[ruling], Source: "retrieve"}
				if i < tt.stale {
					batch[i].Fence--
				}
			}
			for i, settled := range l.settleAll(batch) {
				if settled.Applied != tt.told[i] {
					t.Errorf("%s: %+v", tt.batch[i], settled)
				}
			}
			l.want(tt.want, `SELECT i.status || ' ' || a.state FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id`)
		})
	}
}

// TestABatchThatTellsOfTwoIntentsOfOneInvoice: the provider breaks its word, and a
// cancelled intent is paid beside its successor. The invoice is paid, whichever
// row of the batch would be written last.
func TestABatchThatTellsOfTwoIntentsOfOneInvoice(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	first := l.load(id, noon)
	armed := l.arm(first, "pi_1", noon).Armed
	cancelled := billing.ProviderIntent{ID: "pi_1", Status: billing.ProviderCancelled, Amount: php(49900)}
	l.settle(billing.Settlement{
		Collection: first, Attempt: armed.AttemptID, Fence: armed.Fence,
		Judgement: billing.Judgement{Ruling: billing.NoEffect, Reason: "not sent", Evidence: "never_sent"},
	}, noon)
	l.settle(billing.Settlement{
		Collection: l.load(id, noon), Seen: &cancelled,
		Judgement: billing.Judgement{Ruling: billing.Dead, Reason: "cancelled at the provider", Evidence: "retrieve"},
	}, noon)
	l.open(noon)
	next := l.load(id, noon)
	again := l.arm(next, "pi_2", noon)
	if again.Err != nil {
		t.Fatal(again.Err)
	}
	unknown := billing.Settlement{
		Collection: next, Attempt: again.Armed.AttemptID, Fence: again.Armed.Fence,
		Judgement: billing.Judgement{Ruling: billing.Unknown, Reason: "timeout", Evidence: "attach"},
	}
	paid := billing.Settlement{
		Collection: first, Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "retrieve"}, Source: "webhook",
	}
	for i, settled := range l.settleAll([]billing.Settlement{unknown, paid, unknown}) {
		if settled.Applied != (i == 1) {
			t.Errorf("%d: %+v", i, settled)
		}
	}
	l.want("paid pay_1", `SELECT status || ' ' || payment_id FROM singil.invoices`)
}

func (l *ledger) settleAll(batch []billing.Settlement) (results []billing.Settled) {
	l.t.Helper()
	l.tx(func(tx pgx.Tx) (err error) {
		results, err = billing.Settle(l.t.Context(), tx, batch, noon, billing.BankHolidays())
		return err
	})
	return results
}
