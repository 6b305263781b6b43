package billing_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// A decline writes two events of one subscription at once. While the merchant
// wants events, the outbox must take them, or no decline could be settled.
func TestEventsOfOneSubscriptionAreWrittenAtOnce(t *testing.T) {
	t.Parallel()
	l := setup(t)
	events := make([]billing.Event, 50)
	for i := range events {
		events[i] = billing.Event{Type: "invoice.payment_failed", SubscriptionID: l.subscription, CustomerID: l.customer, OccurredAt: noon}
	}
	l.tx(func(tx pgx.Tx) error {
		if _, err := billing.AddEndpoint(context.Background(), tx, "https://merchant.example/hooks", ""); err != nil {
			return err
		}
		return billing.WriteEvents(context.Background(), tx, events)
	})
	if got := l.one(`SELECT count(*)::text FROM singil.event_deliveries`); got != "50" {
		t.Errorf("%s deliveries of 50 events", got)
	}
	if got := l.one(`SELECT count(*)::text FROM singil.event_streams`); got != "1" {
		t.Errorf("%s streams of one subscription", got)
	}
}
