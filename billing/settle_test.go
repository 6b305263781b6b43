package billing_test

import (
	"testing"

	"github.com/google/uuid"

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
